"""Suites of attacks, and how selections such as ``signal,jpeg:50,resize:0.5+jpeg:70`` are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vestige.core.errors import UsageError
from vestige.watermark.attacks.registry import ATTACKS, Context, ImageAttack, Pictures, lookup, missing

_FAMILIES = (
    "signal", "compression", "geometric", "platform", "collusion", "forgery", "regeneration", "editing", "substitution",
)  # fmt: skip

#: Name -> attacks. Every family is a suite; the others take from several.
SUITES: dict[str, tuple[str, ...]] = {
    **{family: tuple(n for n, a in ATTACKS.items() if a.family == family) for family in _FAMILIES},
    "w-bench": (
        "identity", "purify", "invert", "edit_global", "edit_local", "video", "blur", "brightness", "contrast", "jpeg",
        "noise",
    ),
    "classic": tuple(n for n, a in ATTACKS.items() if not a.needs),
    "all": tuple(n for family in _FAMILIES for n, a in ATTACKS.items() if a.family == family),
}  # fmt: skip

#: Strengths where a suite has its own, as its paper lists them.
_LADDERS: dict[str, dict[str, tuple[float, ...]]] = {
    "w-bench": {
        "purify": (0.06, 0.12, 0.18, 0.24),
        "blur": (0.5, 1, 1.5, 2),
        "brightness": (1.2, 1.6, 2),
        "contrast": (1.2, 1.6, 2),
        "jpeg": (70, 50, 30, 10),
        "noise": (0.02, 0.06, 0.1),
        "edit_local": (0.1, 0.3, 0.6),
        "video": (7, 13, 19),
    }
}


@dataclass(frozen=True)
class Trial:
    """One cell's attack: (name, strength) steps, applied one after the other."""

    steps: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The attack's name, ``resize+jpeg`` for a chain."""
        return "+".join(name for name, _ in self.steps)

    @property
    def strength(self) -> str:
        """Its strength as text, ``0.5+70`` for a chain."""
        return "+".join(f"{strength:g}" for _, strength in self.steps)

    @property
    def parts(self) -> tuple[ImageAttack, ...]:
        return tuple(lookup(name) for name, _ in self.steps)

    @property
    def family(self) -> str:
        return self.parts[0].family if len(self.steps) == 1 else "combination"

    @property
    def forges(self) -> bool:
        return any(part.forges for part in self.parts)

    @property
    def aligned(self) -> bool:
        return all(part.aligned for part in self.parts)

    def missing(self, context: Context) -> str:
        """What the context lacks, in words; empty when nothing is."""
        return " and ".join(dict.fromkeys(filter(None, (missing(part, context) for part in self.parts))))

    def __call__(self, images: Pictures, *, seed: int = 0, context: Context | None = None) -> Pictures:
        """Apply the steps; see `attack`."""
        for index, (name, strength) in enumerate(self.steps):
            images = lookup(name)(images, strength, seed=seed + 1_000_003 * index, context=context)
        return images


def trials(selection: str | Sequence[str], ladder: str = "quick") -> list[Trial]:
    """The cells of a selection, each once, in order.

    selection: names separated by commas: a suite, an attack (all strengths of the ladder), ``attack:strength``, or
    steps joined by ``+``. ladder: "quick" (one or two strengths of each attack) or "full".
    Raises UsageError for unknown names, strengths that are no numbers or out of range, and an empty selection.

    >>> [t.name + ":" + t.strength for t in trials("jpeg,resize:0.5+jpeg:70")]
    ['jpeg:75', 'jpeg:50', 'resize+jpeg:0.5+70']
    """
    if ladder not in ("quick", "full"):
        raise UsageError(f"Strengths are quick or full, got {ladder!r}.")
    words = selection.split(",") if isinstance(selection, str) else list(selection)
    found: dict[Trial, None] = {}
    for word in (w.strip() for w in words):
        if not word:
            continue
        for trial in _word(word, ladder):
            found[trial] = None
    if not found:
        raise UsageError(f"Choose at least one attack or suite; suites are {', '.join(SUITES)}.")
    return list(found)


def _word(word: str, ladder: str) -> list[Trial]:
    if word in SUITES:
        own = _LADDERS.get(word, {})
        return [t for name in SUITES[word] for t in _ladder(name, ladder, own.get(name))]
    if ":" not in word and word in ATTACKS:
        return _ladder(word, ladder)
    steps = []
    for step in word.split("+"):
        name, _, text = step.partition(":")
        found = lookup(name) if name in ATTACKS or name not in SUITES else None
        try:
            strength = float(text)
        except ValueError:
            raise UsageError(
                f"{step!r} is no suite and no attack with a strength; write {name}:NUMBER, or one of the suites "
                f"{', '.join(SUITES)}."
            ) from None
        if found is None:
            raise UsageError(f"{name!r} is a suite and takes no strength; use --strengths.")
        found.check_strength(strength)
        steps.append((name, strength))
    return [Trial(tuple(steps))]


def _ladder(name: str, ladder: str, own: tuple[float, ...] | None = None) -> list[Trial]:
    found = ATTACKS[name]
    strengths = found.quick if ladder == "quick" else own or found.ladder
    return [Trial(((name, float(s)),)) for s in strengths]
