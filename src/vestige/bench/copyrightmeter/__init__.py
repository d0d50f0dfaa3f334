"""CopyrightMeter: cloaks, sanitised generators and watermarks in one audit, each under the attacks that answer it.

Protect, attack, use, measure: fidelity (what protecting costs), efficacy (what it achieves), resilience (how much of
the efficacy is left after an attack), with what the attack destroys beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class CopyrightMeter:
    """Audits protections of three families on the shipped text-to-image model of drawn scenes.

    efficacy = (m − m_none) / (m_full − m_none) with m the family's own measure: the distance of imitations to the
    artist's pictures (cloaks), the share of pictures that show an erased object (sanitised generators), the share of
    marked pictures found at 1 % false positives (watermarks). resilience = efficacy under the attack / efficacy without
    it, in [0, 1]. Means and 95 % intervals over ``seeds`` (at least two). Cells are kept under results/runs and read
    again where code, model and sizes are the same. sizes: as in `world.Settings`.
    Source: CopyrightMeter: Revisiting Copyright Protection in Text-to-image Models, arXiv 2411.13144, 2024. Members
    and sizes are ours; the definition of resilience, too.

    >>> CopyrightMeter(seeds=(0, 1), pictures=4).seeds
    (0, 1)
    """

    slug = "copyrightmeter"

    def __init__(
        self, *, seeds: Sequence[int] = (0, 1, 2), attacks: int = 0, trial: bool = False, **sizes: Any
    ) -> None:
        """attacks: only so many of each family, "identity" among them (0: all). trial: keep no records."""
        self.seeds, self.attacks, self.trial, self.sizes = tuple(seeds), attacks, trial, sizes

    def run(self) -> list[dict[str, Any]]:
        """The table: a row for each protection, attack and upgrade; see `ranking.summary`."""
        from vestige.bench.copyrightmeter import protocol
        from vestige.bench.copyrightmeter.ranking import summary

        settings = protocol.Settings(**self.sizes)
        found = protocol.records(protocol.cells(self.seeds, self.attacks), settings, trial=self.trial)
        again = protocol.records(list(protocol.upgrades(found)), settings, trial=self.trial)
        return summary([*found, *again])

    def measure(self, out: Path | None = None) -> dict[str, float]:
        """{"Mist efficacy": ..., ...}: the three scores of each protection; ``out``: also write the page there."""
        from vestige.bench.copyrightmeter.page import write_page
        from vestige.bench.copyrightmeter.ranking import SCORES, protections

        rows = self.run()
        if out is not None:
            write_page(rows, out)
        return {f"{p['protection']} {name}": float(p[name]) for p in protections(rows) for name in SCORES}
