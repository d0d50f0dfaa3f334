"""Markers as columns of the watermark benchmark."""

from __future__ import annotations

from vestige.bench.methods import Method, select
from vestige.core.catalogue import System, systems


def methods(selection: str) -> list[Method]:
    """Markers separated by commas, options by colons; "all" is every built marker of pictures.

    Raises UsageError for unknown slugs, systems that do not mark pictures, and options that are no numbers.

    >>> methods("dwt_dct_svd:strength=20")[0].label
    'dwt_dct_svd:strength=20'
    """
    refusal = "does not mark pictures; 'vestige systems --role mark' lists what does."
    return select(selection, _marks, refusal, {"all": _every})


def _marks(entry: System) -> bool:
    return "mark" in entry.roles and hasattr(entry.load(), "mark") and hasattr(entry.load(), "read")


def _every() -> list[Method]:
    return [Method(s.slug) for s in systems() if s.target is not None and s.subject == "image" and _marks(s)]
