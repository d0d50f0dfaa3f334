"""The grid of the audit: which cells there are, what identifies one, and how one is computed or found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import ModuleType
from typing import Any

from vestige.bench.copyrightmeter import marks, obfuscation, recovery, sanitisation, world
from vestige.bench.copyrightmeter.ranking import summary, weakest
from vestige.bench.copyrightmeter.world import Settings
from vestige.core.progress import track

FAMILIES: dict[str, ModuleType] = {"obfuscation": obfuscation, "sanitisation": recovery, "watermark": marks}
#: Protections that can be made again with an attack in the loop, and the attacks for which they can.
UPGRADES: dict[str, tuple[str, ...]] = {
    "Mist": obfuscation.ATTACKS[1:],
    "UCE": ("textual inversion",),
    "spread spectrum": ("JPEG 75", "brightness 1.5", "rotation 10", "crop 75 % enlarged", "blur 1"),
}
SEEDS = (0, 1, 2, 3, 4)
_CACHED = (
    world.judge, world.scenes_of, obfuscation.gallery, obfuscation._protected, sanitisation.own_pictures,
    sanitisation.retained_contexts, sanitisation.sanitised, sanitisation.retained_share, recovery._word,
    recovery._adapted, recovery._service, marks._spread, marks.pictures, marks._noise_of,
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One protection under one attack ("identity": none) with one seed.

    against: the attack that the protection was made again for; empty for the plain one. Its record holds
    raw: what the protection is to change, in the family's own unit (higher or lower, see ``full``). full: on the cells
    of the baseline "none" alone, the raw of complete protection. fidelity: quality kept by protecting, in [0, 1].
    damage: share of the content that the attack destroys, in [0, 1]. seconds, and what the family adds.
    """

    family: str
    protection: str
    attack: str
    seed: int
    against: str = ""

    @property
    def name(self) -> str:
        """For folders."""
        made_for = f"for {self.against}" if self.against else ""
        words = (self.family, self.protection, self.attack, made_for, str(self.seed))
        return "-".join(w.replace(" ", "_").replace("%", "percent") for w in words if w)


def cells(seeds: Sequence[int] = SEEDS, attacks: int = 0) -> list[Cell]:
    """Every cell but the upgrades; ``attacks``: only so many of each family, "identity" first (0: all)."""
    found = []
    for seed in seeds:
        for family, module in FAMILIES.items():
            listed = module.ATTACKS[: attacks or None]
            found += [Cell(family, baseline, "identity", seed) for baseline in module.BASELINES if baseline != "none"]
            # Nothing protected runs under every attack: what an attack destroys is not what a protection achieved.
            found += [Cell(family, p, attack, seed) for p in ("none", *module.PROTECTIONS) for attack in listed]
    return found


def computed(cell: Cell, settings: Settings) -> dict[str, Any]:
    """The record of a cell, computed."""
    start = time.process_time()
    figures = FAMILIES[cell.family].measure(cell.protection, cell.attack, cell.seed, settings, cell.against)
    row = {name: round(float(value), 6) for name, value in figures.items()}
    return {**asdict(cell), **row, "seconds": round(time.process_time() - start, 2)}


Keep = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def audit(
    seeds: Sequence[int], settings: Settings, keep: Keep, attacks: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of the grid and of the upgrade round.

    keep: (name, compute) -> record, read where it was computed before; what was finished before a stop is kept.
    """

    def records(listed: Sequence[Cell]) -> list[dict[str, Any]]:
        return [keep(cell.name, partial(computed, cell, settings)) for cell in track(listed, "auditing", len(listed))]

    found = records(cells(seeds, attacks))
    return found, records(list(upgrades(found)))


def upgrades(found: Sequence[dict[str, Any]]) -> Iterator[Cell]:
    """Cells of the upgrade round: each protection of `UPGRADES` made again for the attack that leaves least of it."""
    rows = summary(found)
    seeds = sorted({r["seed"] for r in found})
    for protection, possible in UPGRADES.items():
        attack = weakest([r for r in rows if r["protection"] == protection and r["attack"] in possible])
        if attack is None:
            continue
        for seed in seeds:
            yield Cell(attack["family"], protection, "identity", seed, attack["attack"])
            yield Cell(attack["family"], protection, attack["attack"], seed, attack["attack"])


def forget() -> None:
    """Drop everything held in memory, so that the next cell is computed from the start."""
    for cached in _CACHED:
        cached.cache_clear()
