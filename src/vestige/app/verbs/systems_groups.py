"""The catalogue in groups: by what an entry is used for, and how many there are of each status."""

from __future__ import annotations

from pathlib import Path

from vestige.bench.store import evidence
from vestige.claims import claims_of
from vestige.core.catalogue import ALL_VERBS, System

#: What the verbs use where no method is named.
DEFAULTS = ("panel", "spread_spectrum", "text_blackbox", "face_obscure", "nlm", "inpaint_classic", "lanczos")


def evidence_of(s: System, root: Path) -> str:
    """What its claims came to; reference methods make none."""
    return "reference method" if s.kind == "baseline" and not claims_of(s) else evidence(s, root)


def counts(by_status: dict[str, list[System]]) -> str:
    """How many published systems and reference methods there are of each status, in a sentence."""
    said = []
    for kind, word in (("paper", "published systems"), ("baseline", "reference methods and default tools")):
        numbers = {name: sum(s.kind == kind for s in entries) for name, entries in by_status.items()}
        total = sum(numbers.values())
        if total:
            parts = (f"{n} {'work' if name == 'works' else name}" for name, n in numbers.items() if n)
            said.append(f"{total} {word}: " + ", ".join(parts))
    return "; ".join(said) + "."


def by_verb(entries: list[System]) -> dict[str, list[System]]:
    """Systems under the first verb of their commands, in the order in which people look for verbs."""
    found: dict[str, list[System]] = {verb: [] for verb in ALL_VERBS}
    for s in entries:
        verb = s.commands[0].verb if s.commands else s.roles[0].replace("generate", "make")
        found.setdefault(verb, []).append(s)
    return {verb: sorted(found[verb], key=_default_first) for verb in found if found[verb]}


def _default_first(s: System) -> tuple[bool, bool, str]:
    """What a verb uses when no method is named comes first, then reference methods, then published systems."""
    return s.slug not in DEFAULTS, s.kind == "paper", s.slug
