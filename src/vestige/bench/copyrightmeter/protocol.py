"""The grid of the audit: which cells there are, what identifies one, and how one is computed or found again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import Any

from vestige.bench.copyrightmeter import marks, obfuscation, recovery, sanitisation, world
from vestige.bench.copyrightmeter.ranking import summary, weakest
from vestige.bench.copyrightmeter.world import Settings
from vestige.bench.digests import code_digest, file_digest
from vestige.bench.generation import runs
from vestige.core.progress import track

FAMILIES: dict[str, ModuleType] = {"obfuscation": obfuscation, "sanitisation": recovery, "watermark": marks}
#: Protections that can be made again with an attack in the loop, and the attacks for which they can.
UPGRADES: dict[str, tuple[str, ...]] = {
    "Mist": obfuscation.ATTACKS[1:],
    "UCE": ("textual inversion",),
    "spread spectrum": ("JPEG 75", "brightness 1.5", "rotation 10", "crop 75 % enlarged", "blur 1"),
}
SEEDS = (0, 1, 2)
_CODE = ("world", "purify", "obfuscation", "sanitisation", "recovery", "marks")
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
        words = (self.protection, self.attack, f"for {self.against}" if self.against else "", str(self.seed))
        return "-".join(w.replace(" ", "_").replace("%", "percent") for w in words if w)


def cells(seeds: Sequence[int] = SEEDS, attacks: int = 0) -> list[Cell]:
    """Every cell but the upgrades; ``attacks``: only so many of each family, "identity" first (0: all)."""
    found = []
    for seed in seeds:
        for family, module in FAMILIES.items():
            found += [Cell(family, baseline, "identity", seed) for baseline in module.BASELINES]
            listed = module.ATTACKS[: attacks or None]
            found += [Cell(family, p, attack, seed) for p in module.PROTECTIONS for attack in listed]
    return found


@cache
def _sources() -> tuple[str, str, str]:
    code = code_digest(*(f"vestige.bench.copyrightmeter.{name}" for name in _CODE))
    return code, file_digest(str(runs.PIPELINE)), runs.judge().provenance


def computed(cell: Cell, settings: Settings) -> dict[str, Any]:
    """The record of a cell, computed."""
    start = time.process_time()
    figures = FAMILIES[cell.family].measure(cell.protection, cell.attack, cell.seed, settings, cell.against)
    row = {name: round(float(value), 6) for name, value in figures.items()}
    return {**asdict(cell), **row, "seconds": round(time.process_time() - start, 2)}


def record(cell: Cell, settings: Settings, *, trial: bool = False) -> dict[str, Any]:
    """The record of a cell, read where the same cell was computed before with this code, model and judge."""
    identity = {"cell": asdict(cell), "settings": asdict(settings), "sources": list(_sources())}
    folder = runs.run_folder("copyrightmeter", cell.name, identity, trial)
    return runs.figures_of(folder, lambda: computed(cell, settings))


def records(listed: Sequence[Cell], settings: Settings, *, trial: bool = False) -> list[dict[str, Any]]:
    """Records of cells, in their order; what was finished before a stop is kept."""
    return [record(cell, settings, trial=trial) for cell in track(listed, "auditing", len(listed))]


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
