"""Headlines about trained detectors hold for figures that show the effect, and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.bench.forensics.verdicts import over_pictures, over_runs, over_scores
from vestige.claims import claims_of, needs_of, runs_needed
from vestige.claims.forensics.dadm import generalises as dadm
from vestige.claims.forensics.fairfd import fairer
from vestige.claims.forensics.hcl import UNSEEN, finds_other_covers
from vestige.claims.forensics.nas_dfd import beats_random
from vestige.claims.forensics.sear import hides_better
from vestige.claims.forensics.tripinet import better
from vestige.claims.forensics.ucf import generalises as ucf
from vestige.claims.forensics.wscl import detects
from vestige.core.catalogue import system
from vestige.core.errors import UsageError

SLUGS = ("ucf", "dadm", "nas_dfd", "fairfd", "tripinet", "wscl", "hcl", "sear")


def noisy(value: float, count: int, seed: int, spread: float = 0.01) -> list[float]:
    return list(value + spread * np.random.default_rng(seed).standard_normal(count))


def runs(key: str, value: float, count: int = 12, seed: int = 0) -> list[dict[str, float]]:
    return [{key: v} for v in noisy(value, count, seed)]


@pytest.mark.parametrize("slug", SLUGS)
def test_each_has_one_headline_at_most_four_claims_and_declared_runs(slug: str) -> None:
    found = claims_of(system(slug))
    assert sum(c.headline for c in found) == 1
    assert len(found) <= 4
    needed = runs_needed(needs_of(system(slug)))
    assert len(set(needed)) == len(needed) > 0


def test_ucf_is_held_only_where_it_is_ahead_of_its_own_encoder() -> None:
    good, same = runs("auc, left out", 0.85), runs("auc, left out", 0.80, seed=1)
    assert ucf(good, same, {"auc, left out": 0.51}).holds
    assert not ucf(same, runs("auc, left out", 0.80, seed=2), {"auc, left out": 0.51}).holds  # replaced by its rival
    assert ucf(good, same, {"auc, left out": 0.6}).weak  # shuffled labels reach as much


def test_dadm_is_held_only_where_errors_are_fewer() -> None:
    ours, theirs = runs("hter", 0.05, 8), runs("hter", 0.12, 8, 1)
    assert dadm(ours, theirs, {"hter": 0.5}).holds
    assert not dadm(theirs, ours, {"hter": 0.5}).holds
    assert not dadm(theirs, runs("hter", 0.12, 8, 2), {"hter": 0.5}).holds
    assert dadm(ours, theirs, {"hter": 0.3}).weak


def test_cells_are_held_against_the_median_of_random_ones() -> None:
    drawn, found = runs("auc, left out", 0.7, 8), runs("auc, left out", 0.8, 3, 1)
    assert beats_random(found, drawn, {"auc, left out": 0.5}).holds
    assert not beats_random(drawn[:3], drawn, {"auc, left out": 0.5}).holds


def test_pruning_is_held_where_the_spread_falls() -> None:
    audits = [
        {"none": {"aa-deodds": 0.2 + x}, "fair": {"aa-deodds": 0.15 + x}, "weight": {"aa-deodds": 0.2 - x}}
        for x in (0.0, 0.004, 0.002)
    ]
    assert fairer(audits).holds
    assert not fairer(audits, "weight").holds


def test_localisers_are_held_over_pictures_and_in_every_run() -> None:
    def figures(value: float, seed: int) -> dict[str, object]:
        return {"each f1, stored": noisy(value, 200, seed, 0.2)}

    ours, theirs = ([figures(v, s + 10 * k) for s in range(3)] for k, v in enumerate((0.5, 0.4)))
    nothing = {"f1, stored": 0.24}
    assert better(ours, theirs, nothing, 0.23, "stored").holds
    assert not better(theirs, ours, nothing, 0.23, "stored").holds
    assert not better([*ours[:2], figures(0.2, 5)], theirs, nothing, 0.23, "stored").holds  # a dead arm
    assert better(ours, theirs, {"f1, stored": 0.4}, 0.23, "stored").weak


def test_consistency_is_held_over_scores() -> None:
    draw, labels = np.random.default_rng(0), np.arange(300) % 2 == 1

    def figures(shift: float) -> dict[str, object]:
        return {"scores, other": list(draw.standard_normal(300) + shift * labels), "edited, other": list(labels)}

    good, plain = [figures(1.5) for _ in range(3)], [figures(0.5) for _ in range(3)]
    assert detects(good, plain, {"image auc, other": 0.5}).holds
    assert not detects(plain, good, {"image auc, other": 0.5}).holds
    assert not detects([figures(0.0)] * 3, [figures(0.0)] * 3, {"image auc, other": 0.5}).holds


def test_covers_are_held_over_pictures() -> None:
    def figures(value: float, seed: int) -> dict[str, object]:
        return {f"each iou, {k}": noisy(value, 60, seed + i, 0.1) for i, k in enumerate(UNSEEN)}

    ours, theirs = ([figures(v, 7 * s + 100 * k) for s in range(3)] for k, v in enumerate((0.4, 0.2)))
    nothing = {"iou, unseen": 0.2, "everything, unseen": 0.2}
    assert finds_other_covers(ours, theirs, nothing).holds
    assert not finds_other_covers(theirs, ours, nothing).holds


def test_hiding_is_held_where_the_localiser_sees_less() -> None:
    def contest(sear: float, pgd: float, seed: int) -> dict[str, object]:
        return {
            "each f1, sear, unseen": noisy(sear, 120, seed, 0.1),
            "each f1, pgd, unseen": noisy(pgd, 120, seed + 1, 0.1),
        }  # fmt: skip

    assert hides_better([contest(0.1, 0.3, s) for s in range(3)], "sear", "pgd", "unseen").holds
    assert not hides_better([contest(0.3, 0.1, s) for s in range(3)], "sear", "pgd", "unseen").holds
    assert not hides_better([contest(0.2, 0.2, 9 * s) for s in range(3)], "sear", "pgd", "unseen").holds


def test_unlike_figures_are_not_compared() -> None:
    with pytest.raises(UsageError, match="pairs"):
        over_runs([0.1, 0.2, 0.3], [0.1, 0.2])
    with pytest.raises(UsageError, match="pictures"):
        over_pictures([[0.1, 0.2]], [[0.1]])
    with pytest.raises(UsageError, match="labels"):
        over_scores([[0.1, 0.2]], [[0.1, 0.2]], [True])
