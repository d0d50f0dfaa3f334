"""The catalogue: one entry for every system, baseline and examiner, whatever its wing.

A wing's ``__init__`` lists its entries in ``SYSTEMS``; nothing is imported beyond those light modules until
`System.load` is called. A system is *planned* without a target, *implemented* with one, and *working* once
its recorded claims hold (see `vestige.bench.store`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from vestige.core.errors import UsageError

WINGS = (
    "watermark", "forensics", "copies", "anomaly", "backdoor", "unlearning", "erasure", "privacy",
    "restoration", "generation", "pretraining", "perception", "language",
)  # fmt: skip
ROLES = ("find", "mark", "erase", "restore", "learn", "generate", "attack", "measure")


@dataclass(frozen=True)
class System:
    """One catalogue entry.

    kind: "paper" for the 142 published systems, "baseline" for reference methods and classical examiners.
    target: dotted path ``module:attribute`` of the class, None while planned.
    subject: what the system works on ("image", "text", "dataset" or "model").
    panel: part of the default panel of ``vestige find``. frames: also makes sense on the decoded frames of a clip.
    """

    slug: str
    name: str
    roles: tuple[str, ...]
    title: str = ""
    venue: str = ""
    wing: str = ""
    target: str | None = None
    kind: str = "paper"
    subject: str = "image"
    panel: bool = False
    frames: bool = False
    command: str = ""

    def load(self) -> Any:
        """The class behind this entry.

        Raises UsageError while the system is planned.
        """
        if self.target is None:
            raise UsageError(f"{self.slug} is planned and not built yet; 'vestige systems' lists what is.")
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


@cache
def systems() -> tuple[System, ...]:
    """Every entry of every wing, in wing order.

    >>> sum(s.kind == "paper" for s in systems())
    142
    """
    entries: list[System] = []
    for wing in WINGS:
        for entry in importlib.import_module(f"vestige.{wing}").SYSTEMS:
            entries.append(entry if entry.wing else System(**{**entry.__dict__, "wing": wing}))
    slugs = [e.slug for e in entries]
    repeated = {s for s in slugs if slugs.count(s) > 1}
    if repeated:
        raise ValueError(f"slugs used twice in the catalogue: {', '.join(sorted(repeated))}")
    return tuple(entries)


def system(slug: str) -> System:
    """The entry of that slug; raises UsageError with near matches when there is none."""
    from difflib import get_close_matches

    for entry in systems():
        if entry.slug == slug:
            return entry
    near = get_close_matches(slug, [e.slug for e in systems()], 3)
    hint = f" Did you mean {', '.join(near)}?" if near else " 'vestige systems' lists them."
    raise UsageError(f"There is no system called {slug!r}.{hint}")
