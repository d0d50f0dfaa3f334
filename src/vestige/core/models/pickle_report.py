"""What a scan of a model found, and the bounds it kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from vestige.core.bounded import printable
from vestige.core.models.pickle_imports import classify


@dataclass(frozen=True)
class ScanLimits:
    """Bounds of one scan; reaching one ends it with ``damaged`` set, so the file is never called clean.

    max_item: bytes of one string or bytes object. max_kept: characters of strings the symbolic stack remembers.
    max_inflated: bytes the pickles in compressed zip members may inflate to, all together. max_ratio: largest
    compression ratio of one above 8 MiB.
    """

    max_opcodes: int = 2_000_000
    max_stack: int = 500_000
    max_item: int = 64 * 2**20
    max_kept: int = 64 * 2**20
    max_imports: int = 10_000
    max_members: int = 50_000
    max_inflated: int = 512 * 2**20
    max_ratio: float = 200.0
    max_depth: int = 3


DEFAULT_LIMITS = ScanLimits()
#: The answer about a file that holds something unknown, and about one that could not be read to its end.
UNVOUCHED = "cannot be vouched for"


@dataclass
class PickleReport:
    """What was found in the pickles of one file.

    imports: every (module, name), once, in order. dangerous, unknown: "module.name" of those that run code or reach
    files, processes or the network, and of those outside the allow-list of weights. places: the member each one was
    first seen in. hazards: sentences about dangers that are no imports, in formats that are no pickles. damaged: why
    the scan could not read to the end, or None. problems: oddities of the container (names that leave the folder,
    repeated names, unreadable members). examined: formats other than pickles whose rules were applied. pickles, calls,
    opcodes: how many were read.
    """

    imports: list[tuple[str, str]] = field(default_factory=list)
    dangerous: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    hazards: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)
    damaged: str | None = None
    pickles: int = 0
    calls: int = 0
    opcodes: int = 0

    @property
    def answer(self) -> str:
        """ "harmless", "dangerous" or "cannot be vouched for"."""
        return "dangerous" if self.dangerous or self.hazards else "harmless" if self.clean else UNVOUCHED

    @property
    def clean(self) -> bool:
        """Every import is on the allow-list, and everything could be read."""
        return not (self.dangerous or self.hazards or self.unknown or self.damaged or self.problems)

    def add_import(self, module: str, name: str, place: str) -> None:
        verdict = classify(module, name)
        module, name = printable(module[:200]), printable(name[:200])
        full = f"{module}.{name}"
        if full in self.places and (verdict != "dangerous" or full in self.dangerous):
            return
        self.places[full] = place
        self.imports.append((module, name))
        if verdict != "safe":
            (self.dangerous if verdict == "dangerous" else self.unknown).append(full)

    def add_problem(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < 100:
            self.problems.append(text)

    def add_hazard(self, text: str) -> None:
        if text not in self.hazards and len(self.hazards) < 100:
            self.hazards.append(text)

    def add_damage(self, text: str) -> None:
        self.damaged = self.damaged or text
