"""FairFD: the measure on answers with a known bias, and what pruning removes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vestige.app.starter.fairness import write
from vestige.bench.forensics.fairness import skewed
from vestige.core.errors import InputError, UsageError
from vestige.core.roles import Measure
from vestige.core.work import Work
from vestige.data.forged_faces import forged_faces
from vestige.forensics.fairfd import FairFD, biased_answers, bpfa_prune
from vestige.forensics.learned import default_weights
from vestige.forensics.tools.fairfd import erase, measure
from vestige.forensics.ucf import UCF
from vestige.recipes.forensics.fairfd import cvar


def test_averaged_metrics_follow_a_bias_that_the_naive_ones_do_not_see():
    found = []
    for bias in (0.0, 0.2, 0.4):
        answers = biased_answers(bias, 3, 4, 2000, np.random.default_rng(0))
        found.append(FairFD().measure(*answers))
    averaged, naive = ([row[f"{family}-dpd"] for row in found] for family in ("aa", "naive"))
    assert averaged[0] < averaged[1] - 0.1 < averaged[2] - 0.2
    assert max(naive) < 0.05
    assert all(row["accuracy"] == pytest.approx(0.7, abs=0.02) for row in found)
    assert isinstance(FairFD(), Measure)


def test_the_threshold_decides_what_counts_as_fake():
    scores, approach, group = [0.4, 0.4, 0.45, 0.45], ["real", "real", "swap", "swap"], ["a", "b", "a", "b"]
    assert FairFD().measure(scores, approach, group)["accuracy"] == 0.5
    assert FairFD(threshold=0.42).measure(scores, approach, group)["accuracy"] == 1.0


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.LazyLinear(1))


def _groups(shift: float) -> dict[str, list[torch.Tensor]]:
    base = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return {"a": [base[:3], base[3:]], "b": [base + shift]}


@pytest.mark.parametrize("by", ["fair", "weight", "activation"])
def test_pruning_zeroes_that_share_of_every_convolution(by):
    model = _net().train()
    model(torch.zeros(1, 3, 8, 8))
    zeroed = bpfa_prune(model, _groups(0.5), fraction=0.1, by=by)
    assert zeroed == {"0": 21, "2": 28}
    assert [int((m.weight == 0).sum()) for m in model if isinstance(m, nn.Conv2d)] == [21, 28]
    assert model.training


def test_weights_of_the_channel_that_tells_groups_apart_go_first():
    grey = torch.ones(2, 1, 4, 4)

    class Differing(nn.Module):  # the first channel sees the group, the second does not
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, groups=2, bias=False)
            with torch.no_grad():
                self.conv.weight[:] = torch.tensor([0.6, 0.5])[:, None, None, None]

        def forward(self, x):
            return self.conv(torch.cat([x, torch.ones_like(x)], 1))

    fair, plain = Differing(), Differing()
    groups = {"a": [grey], "b": [2 * grey]}
    bpfa_prune(fair, groups, fraction=0.5)
    bpfa_prune(plain, groups, fraction=0.5, by="weight")
    assert fair.conv.weight.flatten().tolist() == pytest.approx([0.0, 0.5])
    assert plain.conv.weight.flatten().tolist() == pytest.approx([0.6, 0.0])


def test_alike_groups_prune_by_size_alone():
    grey = torch.ones(2, 3, 8, 8)
    fair, plain = _net(), _net()
    for model in (fair, plain):
        model(grey)
    bpfa_prune(fair, {"a": [grey], "b": [grey]}, fraction=0.2)
    bpfa_prune(plain, {"a": [grey], "b": [grey]}, fraction=0.2, by="weight")
    torch.testing.assert_close(fair[0].weight, plain[0].weight)


@pytest.mark.parametrize(
    ("groups", "options"),
    [
        ({"a": [torch.zeros(1, 3, 8, 8)]}, {}),
        ({"a": [torch.zeros(1, 3, 8, 8)], "b": []}, {}),
        ({"a": [torch.zeros(1, 3, 8, 8)], "b": [torch.zeros(1, 3, 8, 8)]}, {"fraction": 1.0}),
        ({"a": [torch.zeros(1, 3, 8, 8)], "b": [torch.zeros(1, 3, 8, 8)]}, {"by": "luck"}),
    ],
)
def test_pruning_refuses_what_it_cannot_do(groups, options):
    with pytest.raises(UsageError):
        bpfa_prune(_net(), groups, **options)
    with pytest.raises(UsageError, match="no convolution"):
        bpfa_prune(nn.Linear(2, 2), {"a": [], "b": []})


def test_the_tail_of_losses_is_their_mean_or_that_of_the_worst():
    losses = torch.tensor([0.2, 0.8, 0.1, 0.5, 0.4], requires_grad=True)
    assert cvar(losses, 1.0).item() == pytest.approx(0.4)
    assert cvar(losses, 0.4).item() == pytest.approx(0.65)
    assert cvar(losses, 0.01).item() == pytest.approx(0.8)
    cvar(losses, 0.5).backward()  # two and a half of five
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0, 0.4, 0, 0.4, 0.2])


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fairness")
    write(folder)
    return folder


def work(verb: str, *paths: Path, **options) -> Work:
    return Work(verb, "fairfd", paths, **options)


def test_a_table_of_scores_is_measured_and_its_cells_are_written(kit: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.csv"
    found = measure(work("measure", kit / "scores.csv", out=out))
    assert found.figures["aa-dpd"] > found.figures["naive-dpd"]
    assert len(out.read_text().splitlines()) == 5
    assert len(found.rows) == 4


def test_faces_by_group_are_measured_and_a_detector_is_pruned(kit: Path, tmp_path: Path) -> None:
    detector, out = kit / "detector.safetensors", tmp_path / "fairer.safetensors"
    found = measure(work("measure", kit / "groups", model=detector, options={"threshold": "equal"}))
    assert {row["approach"] for row in found.rows} == {"real", "warp", "resynthesise"}
    pruned = erase(work("erase", detector, kit / "groups", out=out, options={"fraction": "0.05"}))
    assert pruned.figures["weights set to zero"] > 0
    assert (UCF(weights=out).needed().forgery[0].weight == 0).any()
    assert UCF(weights=out).facts["pruned"]["fraction"] == 0.05


@pytest.mark.parametrize("name", ["detector.safetensors", "missing.csv"])
def test_what_is_no_table_is_refused(kit: Path, name: str) -> None:
    with pytest.raises(InputError):
        measure(work("measure", kit / name))


def test_wrong_detectors_and_groups_are_refused(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--model"):
        measure(work("measure", kit / "groups"))
    with pytest.raises(InputError, match="no weights of an examiner"):
        erase(work("erase", kit / "scores.csv", kit / "groups", out=tmp_path / "x.safetensors"))
    with pytest.raises(InputError, match="two folders"):
        erase(work("erase", kit / "detector.safetensors", kit / "groups" / "tone-1", out=tmp_path / "x.safetensors"))
    assert not (tmp_path / "x.safetensors").exists()


def test_weights_are_found_in_the_folder_of_runs(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path))
    assert default_weights("ucf") is None
    place = tmp_path / "ucf" / "all" / "0"
    place.mkdir(parents=True)
    shutil.copyfile(kit / "detector.safetensors", place / "ucf.safetensors")
    assert default_weights("ucf") is None  # not finished
    (place / "metrics.json").write_text("{}")
    assert default_weights("ucf") == place / "ucf.safetensors"
    assert UCF().side == 48


def test_skewed_faces_have_the_share_that_is_asked_for() -> None:
    faces = forged_faces("train", 32, 80)
    faces = faces.take(faces.groups < 4)
    found = skewed(faces, 0.7, 0)
    first = (found.groups == 0).float().mean().item()
    assert first == pytest.approx(0.7, abs=0.12)
    assert len(found) % 5 == 0
