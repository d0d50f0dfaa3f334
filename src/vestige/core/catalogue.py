"""The catalogue: one entry for every system, baseline and examiner, whatever its wing.

A wing's ``__init__`` lists its entries in ``SYSTEMS``; nothing is imported beyond those light modules until
`System.load` is called. What belongs to a system is found by its slug: its recipe in ``vestige.recipes.<wing>``, its
claims in ``vestige.claims.<wing>``, what its verbs do with files in ``vestige.<wing>.tools``. Status and evidence are
told by `vestige.bench.store`.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from vestige.core.errors import UsageError

WINGS = (
    "watermark", "forensics", "copies", "anomaly", "backdoor", "unlearning", "erasure", "privacy",
    "restoration", "generation", "pretraining", "perception", "language",
)  # fmt: skip
#: What a system can do; the verb of the command line that reaches it is `VERBS`.
ROLES = ("find", "mark", "erase", "restore", "attack", "measure", "generate", "learn")
VERBS = {**{role: role for role in ROLES}, "generate": "make"}
#: Verbs in the order in which people look for them.
ALL_VERBS = ("find", "mark", "read", "erase", "restore", "attack", "measure", "make", "learn")


@dataclass(frozen=True)
class Command:
    """The exact words that a user copies.

    words: the command line, with names of the starter kit's files (`vestige starter`) and outputs beginning with
    "out/". takes, gives: what goes in and what comes out, a phrase each. exit_code: what the command ends with on the
    starter kit. quick: words that the contract test adds to keep a training short.
    """

    words: str
    takes: str
    gives: str
    exit_code: int = 0
    quick: str = ""

    @property
    def verb(self) -> str:
        return self.arguments[0]

    @property
    def arguments(self) -> list[str]:
        """The words after "vestige"."""
        program, *rest = shlex.split(self.words)
        if program != "vestige" or not rest:
            raise ValueError(f"{self.words!r} is not a command of vestige.")
        return rest


@dataclass(frozen=True)
class System:
    """One catalogue entry.

    kind: "paper" for the 142 published systems, "baseline" for reference methods and classical examiners.
    target: dotted path ``module:attribute`` of the class, None while planned.
    subject: what the system works on ("image", "text", "dataset" or "model").
    panel: part of the default panel of ``vestige find``. frames: also makes sense on the decoded frames of a clip.
    commands: the exact words for each of its roles. network: "" for a system without one of its own, "shipped" for
    weights in the package, "recipe" for one that its user trains. weights: names in the package's weights folder.
    recipe: the slug of the recipe behind the network where it is not the system's own.
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
    commands: tuple[Command, ...] = ()
    network: str = ""
    weights: tuple[str, ...] = ()
    recipe: str = ""

    def load(self) -> Any:
        """The class behind this entry.

        Raises UsageError while the system is planned.
        """
        if self.target is None:
            raise UsageError(f"{self.slug} is planned and not built yet; 'vestige systems' lists what is.")
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def tool(self, verb: str) -> Callable[..., Any] | None:
        """The function that carries out ``verb`` on files, from ``vestige.<wing>.tools.<slug>``; None without one."""
        name = f"vestige.{self.wing}.tools.{self.slug}"
        try:
            if importlib.util.find_spec(name) is None:
                return None
        except ModuleNotFoundError:
            return None
        return getattr(importlib.import_module(name), verb, None)


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
