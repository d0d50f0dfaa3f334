"""The claims of CtrlRegen run on any controls, tell good ones from bad ones, and say which are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.watermark import small_marks
from vestige.claims import ClaimContext, MissingRunsError, claims_of
from vestige.claims.watermark import ctrlregen as claims
from vestige.core.catalogue import system
from vestige.core.runtime import rng
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.ctrlregen import CtrlRegen

CONTEXT = ClaimContext(None, limit=2)
CACHED = (claims.system, claims._mark, claims._case, claims._controlled, claims._plain)


def _forget() -> None:
    for function in CACHED:
        getattr(function, "cache_clear", int)()


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few pictures and steps, and detectors from few renders."""
    patch = pytest.MonkeyPatch()
    drawn = small_marks.renders
    patch.setattr(small_marks, "renders", lambda count, seed: (np.tile(drawn(200, seed)[0], (count // 200, 1, 1, 1)),))
    for name, value in {"STEPS": 2, "PICTURES": 8, "SWEEP": (2, 10), "NOISED": (2, 8)}.items():
        patch.setattr(claims, name, value)
    _forget()
    yield
    patch.undo()
    _forget()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Controls at their start, for the shipped model."""
    torch.manual_seed(0)
    made = CtrlRegen(small_marks.pipeline(), thresholds=(50, 100)).eval()
    patch = pytest.MonkeyPatch()

    def system(context, seed, variant="default"):
        made.semantic, made.spatial = claims.WEIGHED[variant]
        return made

    patch.setattr(claims, "system", system)
    _forget()
    yield made
    patch.undo()
    _forget()


def test_every_claim_is_found():
    assert [c.headline for c in claims_of(system("ctrlregen"))] == [True, False, False, False]


def test_missing_controls_name_the_command(tmp_path):
    with pytest.raises(MissingRunsError, match="vestige learn ctrlregen"):
        claims.clean_noise_removes_strong_marks.check(ClaimContext(None, limit=2, runs=tmp_path))


def test_the_table_of_removal_has_the_baselines(untrained):
    evidence = claims.clean_noise_removes_strong_marks.check(CONTEXT)
    rows = {(row["mark"], row["attack"]): row for row in evidence.table}
    assert {("loud", name) for name in ("jpeg 25", "blur 2", "autoencoder", "paraphrase s=0.6, true caption")} <= set(
        rows
    )
    assert {("strong", "CtrlRegen s=1"), ("loud, at edges", "CtrlRegen s=1, colours as made")} <= set(rows)
    assert rows["loud", "none"]["4 bits"] == 1.0
    assert 18 < rows["loud", "none"]["psnr"] < 24
    assert rows["strong", "none"]["psnr"] > rows["loud", "none"]["psnr"] + 3
    assert rows["loud, at edges", "none"]["psnr"] > rows["loud", "none"]["psnr"]
    assert rows["loud", "CtrlRegen s=1"]["psnr"] < rows["loud", "jpeg 75"]["psnr"]
    assert "plain at equal psnr, seed 0" in {name for _, name in rows}


def test_untrained_edges_change_nothing(untrained):
    evidence = claims.both_controls_matter.check(CONTEXT)
    assert not evidence.holds
    rows = {row["attack"]: row for row in evidence.table}
    assert rows["edges off"]["psnr"] == rows["default"]["psnr"]
    assert rows["tokens off"]["psnr"] != rows["default"]["psnr"]


def test_points_of_equal_accuracy_are_compared(untrained):
    evidence = claims.controls_keep_more_at_equal_accuracy.check(CONTEXT)
    assert evidence.note.startswith(str(sum(" at the accuracy of " in row["attack"] for row in evidence.table)))


@pytest.fixture
def made_up(untrained, monkeypatch):
    """An attack that turns half of the bits, and noise that hurts more and leaves them."""

    def noisy(images, level, seed):
        return eight_bit(images + level * rng(seed, "n").standard_normal(images.shape).astype(np.float32))

    def controlled(context, kind, which, level, seed, count, arm="default"):
        case = claims._case(kind, seed, count)
        if which == "clean":
            return case.clean
        turned = np.where(np.arange(claims.BITS) % 8 < 8 * level // (2 * claims.WHOLE), ~case.bits, case.bits)
        pattern = (np.where(turned, 1, -1).astype(np.float32) @ case.mark.carriers).reshape(case.cover.shape)
        return noisy(case.cover + 2 * pattern, 0.01 + 0.2 * (arm != "default"), seed)

    def plain(level, seed, count):
        return noisy(claims._case("loud", seed, count).marked, 0.05 * level, seed)

    monkeypatch.setattr(claims, "_match", lambda made, given: made)
    monkeypatch.setattr(claims, "_baselines", lambda context: [])
    monkeypatch.setattr(
        claims, "_deep", lambda a, b: dict.fromkeys(claims.FIDELITY[1:], np.square(a - b).mean((1, 2, 3)))
    )
    monkeypatch.setattr(claims, "_controlled", controlled)
    monkeypatch.setattr(claims, "_plain", plain)
    return controlled


def test_a_good_attack_meets_the_claims(made_up, monkeypatch):
    context = ClaimContext(None, limit=8)
    assert claims.clean_noise_removes_strong_marks.check(context).holds
    assert claims.both_controls_matter.check(context).holds
    assert claims.accuracy_falls_with_strength.check(context).holds
    # One that leaves the mark does not.
    monkeypatch.setattr(claims, "_controlled", lambda c, kind, which, level, *rest: made_up(c, kind, which, 0, *rest))
    assert not claims.clean_noise_removes_strong_marks.check(context).holds
    assert not claims.accuracy_falls_with_strength.check(context).holds
    # Nor do controls that make no difference.
    monkeypatch.setattr(claims, "_controlled", lambda *given: made_up(*given[:6]))
    assert not claims.both_controls_matter.check(context).holds


def test_bits_turned_round_are_not_removed():
    assert claims.removes_more([0.5, 0.51, 0.5], [0.6, 0.62, 0.61])[0]
    assert not claims.removes_more([0.6, 0.62, 0.61], [0.6, 0.62, 0.61])[0]
    assert not claims.removes_more([0.1, 0.1, 0.1], [0.5, 0.5, 0.5])[0]


def test_the_better_of_two_attacks_on_the_same_bits_is_found(made_up, monkeypatch):
    def worse(context, kind, which, level, seed, count, arm=""):
        return made_up(context, kind, which, level, seed, count, "worse")

    monkeypatch.setattr(claims, "NOISED", (2, 14, 15))
    monkeypatch.setattr(claims, "_plain", lambda level, seed, count: worse(None, "loud", "marked", level, seed, count))
    assert claims.controls_keep_more_at_equal_accuracy.check(CONTEXT).holds
    monkeypatch.setattr(claims, "_controlled", worse)
    assert not claims.controls_keep_more_at_equal_accuracy.check(CONTEXT).holds


def test_a_curve_is_read_between_its_points():
    rows = [{"x": 30.0, "y": 1.0}, {"x": 20.0, "y": 0.8}, {"x": 10.0, "y": 0.5}]
    assert claims._at(rows, "x", 25.0, "y") == pytest.approx(0.9)
    assert claims._at(rows, "x", 5.0, "y") == 0.5
