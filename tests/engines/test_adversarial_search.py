import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.engines.adversarial_toys import Blobs, accuracy, assert_on_grid, levels_changed, make, trained
from vestige.core.errors import MissingDependencyError
from vestige.engines.adversarial import (
    NES,
    Budget,
    Classification,
    Maximise,
    Placement,
    evolve,
    evolve_perturbation,
    latent_search,
    pgd,
    place_patch,
    random_placement,
    round8,
    universal_patch,
    universal_perturbation,
)


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def test_set():
    return make(48, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_perturbation_fools_on_many_unseen_pictures(model, test_set, norm):
    images, labels = make(96, 5)
    budget = Budget(norm, 16 / 255 if norm == "linf" else 1.5)
    result = universal_perturbation(images, Classification(model, labels), budget, epochs=4, batch_size=32)
    change = result.change
    assert change.shape == (1, 3, 16, 16)
    levels = (change * 255).double()
    assert (levels - levels.round()).abs().max() < 1e-3
    size = levels.abs().max() if norm == "linf" else levels.norm()
    assert size <= budget.epsilon * 255 + 1e-3
    assert result.success_rate == max(result.history) > result.clean_success_rate + 0.2
    assert len(result.history) == 4
    assert result.queries == 9
    unseen, truth = test_set
    flipped = change * (2 * (torch.rand(change.shape, generator=torch.Generator().manual_seed(0)) > 0.5) - 1)
    fooled, control = (1 - accuracy(model, (unseen + c).clamp(0, 1), truth) for c in (change, flipped))
    assert fooled > control + 0.15


def test_patches_are_pasted_where_they_should_be():
    patch = torch.arange(12.0).reshape(1, 3, 4).expand(3, 3, 4) / 13
    where = Placement(*(torch.tensor([v, w]) for v, w in ((3.0, 8.0), (2.5, 6.5), (0.0, 0.0), (1.0, 1.0))))
    images = torch.full((2, 3, 10, 10), 0.5, requires_grad=True)
    pasted = place_patch(images, patch, where)
    torch.testing.assert_close(pasted[0, :, 1:4, 1:5], patch)
    torch.testing.assert_close(pasted[1, :, 5:8, 6:10], patch)
    assert (pasted[0] != 0.5).any(0).sum() == 12
    pasted.sum().backward()
    assert images.grad[0].sum() == 3 * (100 - 12)
    turned = place_patch(
        torch.zeros(1, 3, 9, 9), torch.ones(3, 3, 5), Placement(*torch.tensor([[4.5], [4.5], [90.0], [1.0]]))
    )
    assert turned[0, 0].sum(0).nonzero().flatten().tolist() == [3, 4, 5]
    assert turned[0, 0].sum(1).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    corner = torch.zeros(3, 4, 4)
    corner[:, 0, :] = 1  # the top edge turns to the right for a positive angle (clockwise, rows grow downwards)
    right = place_patch(torch.zeros(1, 3, 8, 8), corner, Placement(*torch.tensor([[4.0], [4.0], [90.0], [1.0]])))[0, 0]
    assert right[:, 5].sum() == pytest.approx(4, abs=0.1)
    large = place_patch(
        torch.zeros(1, 3, 9, 9), torch.ones(3, 2, 2), Placement(*torch.tensor([[4.5], [4.5], [0.0], [2.5]]))
    )
    assert large[0, 0].sum() == 25


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8), st.floats(0, 90))
@settings(max_examples=30, deadline=None)
def test_random_placements_stay_inside(seed, height, width, turn):
    where = random_placement(20, (14, 15), (height, width), torch.Generator().manual_seed(seed), turn=turn)
    pasted = place_patch(torch.zeros(20, 3, 18, 19), torch.ones(3, height, width), Placement(
        where.column + 2, where.row + 2, where.turn, where.scale,
    ))  # fmt: skip
    assert pasted[:, :, :2].sum() == pasted[:, :, 16:].sum() == pasted[..., :2].sum() == pasted[..., 17:].sum() == 0
    if turn == 0:
        assert (pasted[:, 0].sum((1, 2)) == height * width).all()


def test_one_patch_works_at_many_places(model, test_set):
    images, labels = make(96, 6)
    target = torch.zeros_like(labels)
    aim = Classification(model, target, targeted=True)
    result = universal_patch(images, aim, (7, 7), epochs=8, batch_size=32, learning_rate=0.1, turn=10, seed=2)
    assert_on_grid(result.change)
    assert result.change.shape == (3, 7, 7)
    assert result.success_rate == max(result.history) > result.clean_success_rate + 0.15
    unseen, truth = test_set
    others = unseen[truth != 0]
    where = random_placement(len(others), (16, 16), (7, 7), torch.Generator().manual_seed(9), turn=10)
    with torch.no_grad():
        hit, control = (
            (model(round8(place_patch(others, patch, where))).argmax(1) == 0).float().mean().item()
            for patch in (result.change, torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(1)))
        )
    assert hit > control + 0.15


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_latent_searches_reach_a_class(model, search):
    start = torch.zeros(3, 6)
    aim = Classification(model, torch.tensor([0, 1, 2]), targeted=True, loss="margin")
    if search == "gradient":
        result = latent_search(Blobs(), aim, start, steps=40, learning_rate=0.1, confidence=0.5)
        again = latent_search(Blobs(), aim, start, steps=40, learning_rate=0.1, confidence=0.5)
    else:
        np.random.seed(0)
        state = np.random.get_state()[1].copy()
        result = evolve(Blobs(), aim, start, max_queries=300, confidence=0.5, seed=1)
        assert (np.random.get_state()[1] == state).all()
        again = evolve(Blobs(), aim, start, max_queries=300, confidence=0.5, seed=1)
    assert result.success.all()
    assert (result.clean_margin <= 0.5).sum() >= 2  # at most one class holds for the grey start
    assert (result.margin > 0.5).all()
    assert torch.equal(result.queries > 1, result.clean_margin <= 0.5)
    assert result.queries.max() <= 300
    assert_on_grid(result.images)
    torch.testing.assert_close(result.images, round8(Blobs()(result.latents)))
    with torch.no_grad():
        assert model(result.images).argmax(1).tolist() == [0, 1, 2]
    assert torch.equal(result.latents, again.latents)


def test_latent_search_keeps_its_radius_and_its_prior():
    start = torch.ones(2, 4)
    bright = Maximise(lambda x, chosen: x.mean((1, 2, 3)))

    def generator(z):
        return torch.sigmoid(0.5 * z.sum(1) - 2)[:, None, None, None].expand(-1, 3, 4, 4)

    near = latent_search(generator, bright, start, steps=60, learning_rate=0.1, radius=0.5)
    torch.testing.assert_close((near.latents - start).norm(dim=1), torch.tensor([0.5, 0.5]), atol=0.03, rtol=0)
    free = latent_search(generator, bright, start, steps=60, learning_rate=0.1)
    held = latent_search(generator, Maximise(lambda x, c: 0 * x.mean((1, 2, 3))), start, prior_weight=1.0, steps=5)
    assert (free.loss > near.loss).all()
    assert torch.equal(held.latents, start)  # nothing gained, nothing kept
    assert not free.success.any()


def test_evolution_keeps_to_its_queries_and_handles_many_dimensions():
    calls = []

    def count(images, chosen):
        calls.append(len(images))
        return -(images - 0.7).square().mean((1, 2, 3))

    result = evolve(
        lambda z: torch.sigmoid(z).reshape(-1, 3, 16, 16), Maximise(count), torch.zeros(1, 768), max_queries=200,
        population=20, sigma=0.3,
    )  # fmt: skip
    assert sum(calls) == result.queries.item() == 1 + 180
    assert result.loss.item() > -(0.2**2)
    assert set(calls) == {1, 20}


def test_estimated_gradients_point_along_the_true_ones(model, test_set):
    images, labels = (t[:4] for t in test_set)
    aim = Classification(model, labels, loss="margin")
    x = images.clone().requires_grad_()
    (true,) = torch.autograd.grad(aim(x, torch.arange(4), 0).loss.sum(), x)
    cosines = []
    for directions in (20, 400):
        estimate = NES(directions, 0.005)(aim, images, torch.arange(4), 0, torch.Generator().manual_seed(0))
        cosines.append(F.cosine_similarity(estimate.gradient.flatten(1), true.flatten(1)).mean().item())
    assert cosines[1] > 0.4
    assert 0.05 < cosines[0] < cosines[1]
    torch.testing.assert_close(estimate.scores.margin, aim(images, torch.arange(4), 0).margin)


@pytest.mark.parametrize("attack", ["nes", "evolution"])
def test_black_box_attacks_need_no_gradient(model, test_set, attack):
    images, labels = (t[:12] for t in test_set)

    class Blind:
        calls = 0

        def __call__(self, x, chosen, step):
            assert not torch.is_grad_enabled()
            self.calls += len(x)
            return Classification(model, labels, loss="margin")(x, chosen, step)

    blind, budget = Blind(), Budget("linf", 16 / 255)
    if attack == "nes":
        result = pgd(
            images, blind, budget, steps=20, step_size=4 / 255, momentum=0.7, gradient=NES(25, 0.02), max_queries=700
        )
    else:
        result = evolve_perturbation(images, blind, budget, cells=8, max_queries=700)
    assert result.queries.sum().item() == blind.calls
    assert result.queries.max() <= 700
    assert result.margin.mean() > result.clean_margin.mean() + 1
    assert result.success.float().mean() >= 0.5
    assert levels_changed(result.images, images).abs().max() <= 16
    assert_on_grid(result.images)


def test_evolution_of_perturbations_keeps_an_l2_budget():
    images = torch.full((1, 3, 8, 8), 0.6).mul(255).round() / 255
    darker = Maximise(lambda x, chosen: -x.mean((1, 2, 3)))
    result = evolve_perturbation(images, darker, Budget("l2", 0.5), cells=2, max_queries=150)
    assert result.l2.item() <= 0.5
    best = -(images.mean() - 0.5 / (3 * 64) ** 0.5)
    assert result.loss.item() > best - 0.01


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingDependencyError, match="pip install cma"):
        evolve(lambda z: z, Maximise(lambda x, c: x), torch.zeros(1, 3))
