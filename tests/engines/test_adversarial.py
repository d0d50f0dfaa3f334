import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.adversarial_toys import CLASSES, Blobs, accuracy, assert_on_grid, levels_changed, make, trained
from vestige.core.errors import InputError, UsageError
from vestige.data.distortions import compose, distort
from vestige.engines.adversarial import (
    NES,
    Budget,
    Classification,
    Expected,
    Maximise,
    Scores,
    evolve,
    evolve_perturbation,
    latent_search,
    pgd,
    universal_patch,
    universal_perturbation,
)


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def test_set():
    return make(48, 1)


BUDGETS = [Budget("linf", 8 / 255), Budget("linf", 2.7 / 255), Budget("l2", 0.8), Budget("l2", 0.05)]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_attacks_lower_accuracy_within_the_budget_after_saving(model, test_set, budget):
    images, labels = test_set
    assert accuracy(model, images, labels) > 0.95
    result = pgd(images, Classification(model, labels), budget, steps=15, seed=1)
    assert_on_grid(result.images)
    change = levels_changed(result.images, images)
    if budget.norm == "linf":
        assert change.abs().max() <= int(budget.epsilon * 255 + 1e-6)
    else:
        assert change.double().flatten(1).norm(dim=1).max() <= budget.epsilon * 255
    attacked = accuracy(model, result.images, labels)
    if budget.epsilon in (8 / 255, 0.8):
        assert attacked < 0.3
    # What is reported was measured on exactly what is returned.
    torch.testing.assert_close(attacked, 1 - result.success.float().mean().item())
    with torch.no_grad():
        again = Classification(model, labels)(result.images, torch.arange(48), 0)
    torch.testing.assert_close(result.margin, again.margin)
    torch.testing.assert_close(result.loss, again.loss)
    assert (result.margin >= result.clean_margin).all()
    torch.testing.assert_close(result.linf, change.abs().flatten(1).amax(1) / 255)
    torch.testing.assert_close(result.l2, change.double().flatten(1).norm(dim=1).float() / 255)
    noise = budget.settle(budget.random_point(images, torch.Generator().manual_seed(0)), images)
    assert accuracy(model, noise, labels) >= attacked


@given(st.integers(0, 10**6), st.sampled_from(["linf", "l2"]), st.floats(1 / 255, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_settling_any_picture_keeps_the_budget(seed, norm, epsilon, eight_bit):
    generator = torch.Generator().manual_seed(seed)
    budget = Budget(norm, epsilon, eight_bit)
    original = torch.randint(0, 256, (3, 3, 4, 5), generator=generator) / 255
    moved = (
        original + torch.randn(3, 3, 4, 5, generator=generator) * torch.tensor([0.01, 0.3, 5.0])[:, None, None, None]
    )
    settled = budget.settle(moved, original)
    assert settled.min() >= 0
    assert settled.max() <= 1
    change = (settled - original).double().flatten(1)
    if eight_bit:
        assert_on_grid(settled)
        change = levels_changed(settled, original).double().flatten(1) / 255
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= epsilon + (1e-9 if eight_bit else 1e-5)).all()
    start = budget.random_point(original, generator)
    assert (start.sub(original).flatten(1).norm(float("inf") if norm == "linf" else 2, dim=1) <= epsilon + 1e-5).all()
    # A change that fits already and is on the grid is left alone.
    torch.testing.assert_close(budget.settle(settled, original), settled)


def test_an_l2_change_uses_its_budget():
    generator = torch.Generator().manual_seed(0)
    original = torch.full((4, 3, 16, 16), 128 / 255)
    settled = Budget("l2", 1.0).settle(original + torch.randn(4, 3, 16, 16, generator=generator), original)
    assert (settled - original).flatten(1).norm(dim=1).min() > 0.97


def test_linf_attack_on_a_linear_model_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, 8, generator=generator)
    images = torch.full((2, 3, 8, 8), 100 / 255)
    score = Maximise(lambda x, chosen: (x * weight).sum((1, 2, 3)))
    result = pgd(images, score, Budget("linf", 6 / 255), steps=10, seed=0)
    torch.testing.assert_close(result.images, images + weight.sign() * 6 / 255)
    l2 = pgd(images, score, Budget("l2", 0.5, eight_bit=False), steps=40, step_size=0.5)
    torch.testing.assert_close(l2.images - images, (0.5 * weight / weight.norm()).expand_as(images), atol=2e-4, rtol=0)
    assert not result.success.any()  # no threshold, no aim
    assert "margin" not in result.summary()


def test_targets_are_reached(model, test_set):
    images, labels = test_set
    wanted = (labels + 1) % CLASSES
    for loss in ("cross-entropy", "margin"):
        aim = Classification(model, wanted, targeted=True, loss=loss)
        result = pgd(images, aim, Budget("linf", 14 / 255), steps=20, momentum=0.75)
        with torch.no_grad():
            hit = model(result.images).argmax(1) == wanted
        assert hit.float().mean() > 0.8
        assert torch.equal(hit, result.success)


def test_early_stop_spends_fewer_queries_and_later_steps_raise_the_margin(model, test_set):
    images, labels = test_set
    aim, budget = Classification(model, labels), Budget("linf", 10 / 255)
    short = pgd(images, aim, budget, steps=12)
    full = pgd(images, aim, budget, steps=12, early_stop=False)
    assert (full.queries == 14).all()  # the clean picture, twelve gradients, the last iterate
    assert (short.queries <= full.queries).all()
    assert short.queries.float().mean() < 12
    assert full.margin.mean() > short.margin.mean()
    confident = pgd(images, aim, budget, steps=12, confidence=1.0)
    assert (confident.margin[confident.success] > 1.0).all()
    assert confident.queries.sum() >= short.queries.sum()
    limited = pgd(images, aim, budget, steps=12, max_queries=4, early_stop=False)
    assert (limited.queries <= 4).all()
    wrong = Classification(model, (labels + 1) % CLASSES)
    solved = pgd(images, wrong, budget, steps=5)
    unchanged = solved.clean_margin > 0
    assert unchanged.float().mean() > 0.9
    assert torch.equal(solved.images[unchanged], images[unchanged])
    assert (solved.queries[unchanged] == 1).all()


def test_restarts_and_steps_help(model, test_set):
    images, labels = test_set
    aim, budget = Classification(model, labels), Budget("linf", 3 / 255)
    once = pgd(images, aim, budget, steps=3, seed=0)
    thrice = pgd(images, aim, budget, steps=3, restarts=4, seed=0)
    assert (thrice.margin >= once.margin).all()
    assert (thrice.margin > once.margin).any()
    assert (thrice.queries[~once.success] > once.queries[~once.success]).all()


def test_seeds_masks_starts_and_batches(model, test_set):
    images, labels = test_set
    aim, budget = Classification(model, labels), Budget("linf", 4 / 255)
    torch.manual_seed(0)
    first = pgd(images, aim, budget, steps=4, seed=3)
    torch.manual_seed(1)
    assert torch.equal(pgd(images, aim, budget, steps=4, seed=3).images, first.images)
    assert not torch.equal(pgd(images, aim, budget, steps=4, seed=4).images, first.images)
    steady = pgd(images, aim, budget, steps=4, random_start=False)
    split = pgd(images, aim, budget, steps=4, random_start=False, batch_size=7)
    torch.testing.assert_close(split.images, steady.images)
    assert torch.equal(split.queries, steady.queries)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:9] = True
    masked = pgd(images, aim, budget, steps=4, mask=mask)
    change = (masked.images != images).any(1, keepdim=True)
    assert change.any()
    assert not (change & ~mask).any()
    far = pgd(images, aim, budget, steps=1, start=torch.ones_like(images), step_size=1e-9, early_stop=False)
    expected = images + (4 / 255)
    moved = far.margin > far.clean_margin
    torch.testing.assert_close(far.images[moved], expected.clamp(0, 1)[moved])


def test_expectation_makes_attacks_survive_the_distortion(model, test_set):
    images, labels = test_set
    plain, budget = Classification(model, labels, loss="margin"), Budget("linf", 5 / 255)
    survives = Expected(plain, [("blur", 1.0), compose([("identity", 0)])], draws=2, seed=1)
    assert survives.cost == 2
    without = pgd(images, plain, budget, steps=12, early_stop=False, momentum=0.5)
    with_ = pgd(images, survives, budget, steps=12, early_stop=False, momentum=0.5)
    assert (with_.queries == 2 * 14).all()

    def errors(pictures):
        return 1 - accuracy(model, distort(pictures, "blur", 1.0, seed=99), labels)

    assert errors(images) < 0.1
    assert errors(with_.images) > errors(without.images) + 0.05
    custom = Expected(plain, [lambda x, seed: x * 0 + seed % 2], draws=3)
    assert custom(images, torch.arange(48), 0).loss.shape == (48,)
    # Drawing anew in every step, and the same in every run.
    noisy = Expected(plain, [("noise", 0.1)], draws=2)
    everything = torch.arange(48)
    losses = [noisy(images, everything, step).loss for step in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_double_precision_is_kept(model, test_set):
    images, labels = test_set
    doubled = pgd(images[:3].double(), Classification(lambda x: model(x.float()), labels), Budget("l2", 0.5), steps=2)
    assert doubled.images.dtype == torch.float64


def test_refusals(model, test_set):
    images, labels = test_set
    aim, budget = Classification(model, labels), Budget("linf", 8 / 255)
    with pytest.raises(UsageError, match="at least 1/255"):
        Budget("linf", 0.5 / 255)
    with pytest.raises(UsageError, match="at least 1/255"):
        Budget("l2", 0.001)
    with pytest.raises(UsageError, match="'linf' or 'l2'"):
        Budget("l1", 1.0)
    with pytest.raises(UsageError, match="eight-bit values"):
        pgd(images * 0.999, aim, budget)
    with pytest.raises(UsageError, match=r"lie in \[0, 1\]"):
        pgd(images * 2, aim, budget)
    with pytest.raises(UsageError, match="divide by 255"):
        pgd((images * 255).to(torch.uint8), aim, budget)
    with pytest.raises(UsageError, match="N×3×H×W"):
        pgd(images[0], aim, budget)
    with pytest.raises(InputError, match="not finite"):
        pgd(images * torch.nan, aim, budget)
    with pytest.raises(UsageError, match="at least one step"):
        pgd(images, aim, budget, steps=0)
    with pytest.raises(UsageError, match="mask must be bool"):
        pgd(images, aim, budget, mask=torch.ones(1, 1, 3, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="Start pictures"):
        pgd(images, aim, budget, start=images[:1])
    with pytest.raises(InputError, match="objective is not finite"):
        pgd(images, Maximise(lambda x, c: x.mean((1, 2, 3)) * torch.nan), budget)
    with pytest.raises(UsageError, match="a loss and a margin for each"):
        pgd(images, lambda x, c, s: Scores(x.mean(), x.mean()), budget)
    with pytest.raises(UsageError, match="use gradient=NES"):
        pgd(images, Maximise(lambda x, c: x.detach().mean((1, 2, 3))), budget)
    with pytest.raises(UsageError, match="int64 labels"):
        Classification(model, labels.float())
    with pytest.raises(UsageError, match="3 labels for picture"):
        pgd(images, Classification(model, labels[:3]), budget)
    with pytest.raises(UsageError, match="0 … 2"):
        pgd(images, Classification(model, labels + 5), budget)
    with pytest.raises(UsageError, match="no distortion"):
        Expected(aim, [("melt", 1)])
    with pytest.raises(UsageError, match="at least one distortion"):
        Expected(aim, [])
    with pytest.raises(UsageError, match="does not fit"):
        universal_patch(images, aim, (17, 3))
    with pytest.raises(UsageError, match="at least one epoch"):
        universal_perturbation(images, aim, budget, epochs=0)
    with pytest.raises(UsageError, match="positive sigma"):
        NES(3, 0)
    with pytest.raises(UsageError, match="1 to 16 cells"):
        evolve_perturbation(images, aim, budget, cells=17)
    with pytest.raises(UsageError, match="must draw"):
        latent_search(lambda z: z, aim, torch.zeros(2, 3))
    with pytest.raises(UsageError, match="finite floats"):
        evolve(Blobs(), aim, torch.zeros(2, 6) / 0)
    with pytest.raises(UsageError, match="population"):
        evolve(Blobs(), aim, torch.zeros(2, 6), population=1)
    with pytest.raises(UsageError, match="use evolve"):
        latent_search(lambda z: Blobs()(z).detach(), Maximise(lambda x, c: x.mean((1, 2, 3))), torch.zeros(2, 6))
