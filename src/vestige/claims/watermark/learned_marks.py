"""Learned marks from finished runs, for claims."""

from __future__ import annotations

from typing import TypeVar

from vestige.claims import ClaimContext
from vestige.watermark.learned import LearnedMark

M = TypeVar("M", bound=LearnedMark)


def trained(context: ClaimContext, kind: type[M], variant: str | None = None, seed: int = 0) -> M:
    """The mark of a finished run of its recipe; raises MissingRunsError, naming the command, where it is missing."""
    run = context.run(kind.slug, variant, seed)
    return kind(run.folder / f"{kind.slug}.safetensors")
