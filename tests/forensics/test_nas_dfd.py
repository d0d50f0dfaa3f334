"""The search: candidates, pruning, genotypes and a run from end to end on faces with a fine pattern."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.bench.forensics.face_detectors import XceptionSmall
from vestige.core.errors import InputError, UsageError
from vestige.forensics.nas_dfd import CDCSpace, NasDFD, build, importance, search
from vestige.nn.darts import EDGES, KINDS, Genotype, SuperNetwork, channel_shuffle
from vestige.nn.residual import CentralDifferenceConv2d
from vestige.recipes.forensics.nas_dfd import CHANNELS, LAYERS

SMALL = CDCSpace((0.0, 0.7))


def batch(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    images = F.interpolate(torch.rand(8, 3, 4, 4, generator=generator), (16, 16), mode="bilinear")
    labels = (torch.arange(8) >= 4).float()
    pattern = 0.2 * (torch.arange(16)[:, None] + torch.arange(16)).remainder(2)
    return (0.8 * images + labels[:, None, None, None] * pattern), labels


def test_central_differences_at_both_ends() -> None:
    torch.manual_seed(0)
    plain = CentralDifferenceConv2d(2, 3, 3, padding=1, theta=0.0)
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(plain(x), F.conv2d(x, plain.weight, plain.bias, padding=1))
    full = CentralDifferenceConv2d(2, 3, 3, padding=1, theta=1.0, bias=False)
    assert full(torch.ones(1, 2, 6, 6))[..., 1:5, 1:5].abs().max() < 1e-5


@pytest.mark.parametrize("name", CDCSpace().names)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_candidate_keeps_channels_and_takes_its_stride(name: str, stride: int) -> None:
    module = CDCSpace().make(name, 4, stride, True)
    assert module(torch.randn(2, 4, 8, 8)).shape == (2, 4, 8 // stride, 8 // stride)


def test_shuffling_is_a_permutation() -> None:
    x = torch.arange(12.0).view(1, 12, 1, 1)
    assert sorted(channel_shuffle(x, 3).flatten().tolist()) == x.flatten().tolist()


def test_a_pruned_network_equals_one_with_the_candidate_silent() -> None:
    torch.manual_seed(0)
    net = SuperNetwork(SMALL.names, SMALL.make, 4, 2, 2).eval()
    images = torch.rand(2, 3, 16, 16)
    worst = {kind: [torch.arange(len(SMALL.names)).float() for _ in EDGES] for kind in KINDS}  # "none" goes
    with torch.no_grad():
        for kind in KINDS:
            for a in net.alphas[kind]:
                a[0] = -50  # nothing of it is in the mixture
        before = net(images)
        net.prune(worst)
        torch.testing.assert_close(net(images), before)
    assert net.names["normal"][0] == list(SMALL.names[1:])
    assert len(net.alphas["reduce"][3]) == len(SMALL.names) - 1
    weights = {id(p) for p in net.weights()}
    assert not weights & {id(p) for p in net.architecture()}


def test_importance_prefers_what_scores_higher() -> None:
    torch.manual_seed(0)
    net = SuperNetwork(SMALL.names, SMALL.make, 4, 2, 2)
    counts = {kind: [torch.ones(len(SMALL.names)) for _ in EDGES] for kind in KINDS}
    sums = {kind: [torch.full((len(SMALL.names),), 0.5) for _ in EDGES] for kind in KINDS}
    sums["normal"][2][3] = 0.9
    counts["normal"][2][4] = 0
    found = importance(net, sums, counts)["normal"][2]
    assert int(found.argmax()) == 3
    assert torch.isfinite(found).all()


def test_genotypes_have_eight_edges_and_survive_json() -> None:
    torch.manual_seed(0)
    found = SuperNetwork(SMALL.names, SMALL.make, 4, 2, 2).genotype()
    for one in (found, Genotype.random(SMALL.names, np.random.default_rng(1))):
        assert len(one.normal) == len(one.reduce) == 8
        assert "none" not in one.operations
        assert Genotype.from_json(one.to_json()) == one
    with pytest.raises(InputError, match="genotype"):
        Genotype.from_json('{"normal": 3}')
    with pytest.raises(InputError, match="two edges"):
        Genotype((("skip", 0),) * 7, (("skip", 0),) * 8)


def test_a_search_runs_and_what_it_finds_learns() -> None:
    found = search(SMALL, batch, batch, channels=4, cells=2, k=2, steps=9, warmup=2, prune_every=2, seed=1)
    assert found == search(SMALL, batch, batch, channels=4, cells=2, k=2, steps=9, warmup=2, prune_every=2, seed=1)
    assert 0 <= SMALL.differences(found) <= 1
    torch.manual_seed(0)
    net = build(found, 4, 4, space=SMALL, drop_path=0.0)
    assert len(net.cells) == 4
    images, labels = batch(0, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = NasDFD.loss(net, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert NasDFD(net, side=16).score(images).shape == (8,)


def test_what_they_are_compared_with_is_of_their_size() -> None:
    torch.manual_seed(0)
    draw, net = np.random.default_rng(0), XceptionSmall()
    assert net(torch.rand(2, 3, 40, 40)).shape == (2, 1)
    found = [build(Genotype.random(CDCSpace().names, draw), CHANNELS, LAYERS) for _ in range(8)]
    size, *sizes = (sum(p.numel() for p in each.parameters()) for each in (net, *found))
    assert min(sizes) < size < max(sizes)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="distinct"):
        CDCSpace((0.5, 0.5))
    with pytest.raises(UsageError, match="candidate"):
        SMALL.make("sep_0.3", 4, 1, True)
    with pytest.raises(UsageError, match="warm up"):
        search(SMALL, batch, batch, steps=2, warmup=2)
