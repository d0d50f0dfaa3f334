"""The problem and the one loop: what is shown to erasers, what may change, what is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.unlearning.toys import ToyNet, pictures, toy_problem, trained
from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.evaluate import evaluate, relearning_curve, represent, represent_layers, say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import ascend, fit, kl, task_loss
from vestige.engines.forgetting.problem import (
    ForgetProblem,
    class_problem,
    corrective_problem,
    group_problem,
    random_problem,
    range_problem,
)
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.forgetting.train import retrain, train


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_cover_everything_once_in_an_order_of_the_seed():
    samples = pictures(50, 0)
    orders = [torch.cat([b.index for b in samples.batches(16, seed=s)]).tolist() for s in (1, 1, 2)]
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[1] != orders[2]
    first = next(samples.batches(16))
    assert first.x.dtype == torch.float32
    assert 0 <= float(first.x.min()) <= float(first.x.max()) <= 1
    assert [len(b) for b in samples.take(range(33)).batches(16, drop_single=True)] == [16, 16]


def test_augmentation_moves_pictures_and_leaves_other_inputs_alone():
    samples = pictures(8, 0)
    plain, shifted = (next(samples.batches(8, seed=3, augment=a)) for a in ("none", "crop_flip"))
    assert torch.equal(plain.index, shifted.index)
    assert plain.x.shape == shifted.x.shape
    assert not torch.equal(plain.x, shifted.x)
    table = Samples(torch.rand(6, 4), torch.rand(6))
    assert torch.equal(next(table.batches(6, augment="flip")).x, table.inputs)
    with pytest.raises(UsageError, match="augment"):
        next(samples.batches(8, augment="spin"))


def test_joined_samples_keep_flags_and_lose_labels_that_a_part_lacks():
    one, two = pictures(4, 0).marked(True), pictures(3, 1)
    assert joined([one, two]).forget.tolist() == [True] * 4 + [False] * 3
    assert joined([one, two.with_targets(None)]).targets is None
    with pytest.raises(InputError, match="targets"):
        Samples(torch.zeros(3, 2), torch.zeros(2))


# ── the problem ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_problem_parts_training_and_test():
    problem = toy_problem("class")
    assert set(problem.forget.labels.tolist()) == {1}
    assert 1 not in problem.retain.labels
    assert 1 not in problem.test.labels
    assert set(problem.test_forget.labels.tolist()) == {1}
    assert len(problem.forget) + len(problem.retain) == len(problem.train)
    assert problem.n_outputs == 4
    assert problem.classification


def test_a_random_problem_depends_on_the_seed_alone():
    train_set = pictures(100, 0)
    one, two, other = (random_problem(trained(), train_set, 0.1, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.forget_idx, two.forget_idx)
    assert not torch.equal(one.forget_idx, other.forget_idx)
    assert len(one.forget) == 10
    assert torch.equal(one.retain_sample(7).index, two.retain_sample(7).index)


def test_the_corrective_setting_shows_a_part_and_hides_the_rest_among_the_retained():
    bad = np.arange(0, 40, 2)
    small, large = (corrective_problem(trained(), pictures(100, 0), bad, known, seed=3) for known in (0.25, 0.5))
    assert len(small.forget) == 5
    assert len(small.retain) == 95
    assert len(small.forget_idx) == 20
    assert set(small.known_idx.tolist()) <= set(large.known_idx.tolist())
    hidden = set(bad.tolist()) - set(small.known_idx.tolist())
    assert hidden <= set(small.retain.index.tolist())


def test_groups_and_ranges():
    people = np.repeat(np.arange(10), 10)
    problem = group_problem(
        trained(), pictures(100, 0), people, [2, 5], test=pictures(20, 1), test_groups=[2] * 5 + [9] * 15
    )
    assert set(people[problem.forget_idx.numpy()]) == {2, 5}
    assert len(problem.test_forget) == 5
    values = Samples(torch.rand(30, 3), torch.linspace(0, 1, 30))
    problem = range_problem(nn.Linear(3, 1), values, 0.0, 0.3, test=values)
    assert float(problem.forget.labels.max()) <= 0.3 < float(problem.retain.labels.min())
    assert len(problem.test_forget) == len(problem.forget)
    assert not problem.classification


def test_wrong_problems_are_refused_in_one_sentence():
    samples, model = pictures(20, 0), trained()
    with pytest.raises(InputError, match="nothing to forget"):
        ForgetProblem(model, samples, [], [1, 2])
    with pytest.raises(InputError, match="both"):
        ForgetProblem(model, samples, [1, 2], [2, 3])
    with pytest.raises(InputError, match="other classes"):
        class_problem(model, samples, 9, test=samples)
    with pytest.raises(UsageError, match="share"):
        random_problem(model, samples, 1.0)
    with pytest.raises(InputError, match="known_idx"):
        ForgetProblem(model, samples, [1, 2], [3], known_idx=[4])
    with pytest.raises(InputError, match="range"):
        range_problem(nn.Linear(2, 1), Samples(torch.rand(4, 2), torch.rand(4)), 5, 6)


def test_the_importance_of_all_data_is_computed_once():
    problem = toy_problem()
    with measured() as first:
        one = problem.importance_of_all()
    with measured() as second:
        two = problem.importance_of_all()
    assert one is two
    assert first.forward == len(problem.train)
    assert second.forward == 0
    assert problem.importance_of_all(most=20) is not one


# ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tuning_changes_a_copy_and_counts_what_it_does():
    model, samples = trained(), pictures(40, 3)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with measured() as cost:
        tuned = tune(model, [Phase(samples, fit)], Tuning(2, 0.05, batch_size=16))
    assert (cost.forward, cost.backward, cost.steps) == (80, 80, 6)
    assert cost.seconds > 0
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert not same(tuned.model, model)
    assert len(tuned.losses) == 2
    assert all(p.is_contiguous() for p in tuned.model.parameters())
    assert same(tuned.model, tune(model, [Phase(samples, fit)], Tuning(2, 0.05, batch_size=16)).model)


def test_masked_weights_stay_whatever_momentum_and_decay_do():
    model = trained()
    mask = {"head.weight": torch.zeros(4, 16), "body.0.weight": (torch.rand(8, 3, 3, 3) > 0.5).float()}
    tuning = Tuning(3, 0.1, weight_decay=0.1)
    tuned = tune(model, [Phase(pictures(40, 3), fit)], tuning, mask=mask).model
    assert torch.equal(tuned.head.weight, model.head.weight)
    changed = tuned.body[0].weight != model.body[0].weight
    assert torch.equal(changed, mask["body.0.weight"] > 0)
    with pytest.raises(UsageError, match="mask"):
        tune(model, [Phase(pictures(8, 0), fit)], mask={"nothing": torch.ones(1)})


def test_frozen_parts_keep_weights_and_running_statistics():
    model = trained()
    only_head = Tuning(2, 0.1, trainable=lambda name: name.startswith("head"))
    tuned = tune(model, [Phase(pictures(40, 3), fit)], only_head).model
    assert same(tuned.body, model.body)
    assert not torch.equal(tuned.head.weight, model.head.weight)
    frozen = tune(model, [Phase(pictures(40, 3), fit)], Tuning(1, 0.1, freeze_bn=True)).model
    assert torch.equal(frozen.body[1].running_mean, model.body[1].running_mean)
    assert not torch.equal(frozen.body[1].weight, model.body[1].weight)
    with pytest.raises(UsageError, match="trainable"):
        tune(model, [Phase(pictures(8, 0), fit)], Tuning(trainable=lambda name: False))


def test_phases_alternate_and_end_when_told():
    seen = []

    def note(name):
        def loss(model, batch, beside):
            seen.append((name, None if beside is None else len(beside)))
            return fit(model, batch)

        return loss

    samples = pictures(8, 0)
    phases = [Phase(samples, note("a"), last=1), Phase(samples, note("b"), beside=pictures(4, 1), first=1)]
    tune(trained(), phases, Tuning(3, 0.01, batch_size=8))
    assert seen == [("a", None), ("b", 4), ("b", 4)]


def test_several_losses_of_a_phase_have_optimisers_of_their_own():
    still = tune(trained(), [Phase(pictures(8, 0), (fit, fit), lr=(0.0, 0.0))], Tuning(1, 0.1, weight_decay=0.0)).model
    moved = tune(trained(), [Phase(pictures(8, 0), (fit, fit), lr=(0.0, 0.1))], Tuning(1, 0.1, weight_decay=0.0)).model
    assert torch.equal(still.head.weight, trained().head.weight)
    assert not torch.equal(moved.head.weight, trained().head.weight)


def test_a_loss_that_is_not_finite_ends_with_the_last_good_weights():
    calls = []

    def breaks(model, batch, beside):
        calls.append(1)
        return fit(model, batch) * (float("nan") if len(calls) == 3 else 1)

    tuned = tune(trained(), [Phase(pictures(8, 0), breaks)], Tuning(5, 0.05, batch_size=8))
    assert "not finite in epoch 3" in tuned.stopped
    assert all(torch.isfinite(p).all() for p in tuned.model.parameters())
    assert same(tuned.model, tune(trained(), [Phase(pictures(8, 0), fit)], Tuning(2, 0.05, batch_size=8)).model)


def test_teachers_are_frozen_for_the_time_and_counted():
    teacher = ToyNet().train()

    def imitate(model, batch, beside):
        assert not teacher.training
        return kl(teacher(batch.x), model(batch.x))

    with measured() as cost:
        tune(trained(), [Phase(pictures(8, 0), imitate)], Tuning(1, 0.01), teachers=(teacher,))
    assert cost.forward == 16
    assert teacher.training
    assert all(p.requires_grad for p in teacher.parameters())
    assert not teacher._forward_hooks


def test_l1_shrinks_and_clipping_bounds():
    def norm(m):
        return float(sum(p.detach().abs().sum() for p in m.parameters()))

    plain, sparse = (
        tune(trained(), [Phase(pictures(40, 3), fit)], Tuning(3, 0.05), l1=l1).model
        for l1 in (None, lambda epoch: 0.02)
    )
    assert norm(sparse) < norm(plain)
    step = Tuning(1, 1.0, momentum=0.0, weight_decay=0.0, clip=1e-3, batch_size=64)
    clipped = tune(trained(), [Phase(pictures(40, 3), ascend)], step).model
    moved = sum(float((a - b).pow(2).sum()) for a, b in zip(clipped.parameters(), trained().parameters()))
    assert moved**0.5 <= 1.01e-3


def test_schedules_end_at_zero_and_unknown_ones_are_refused():
    rates = []

    def watch(epoch, model):
        rates.append(epoch)
        return epoch == 1

    tuned = tune(trained(), [Phase(pictures(8, 0), fit)], Tuning(5, 0.1, schedule="onecycle"), after_epoch=watch)
    assert rates == [0, 1]
    assert "after epoch 2" in tuned.stopped
    with pytest.raises(UsageError, match="schedule"):
        Tuning(schedule="square")
    with pytest.raises(UsageError, match="optimizer"):
        Tuning(optimizer="lion")


# ── training and evaluation ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_original_knows_the_class_and_the_retrained_model_does_not():
    problem = toy_problem("class")
    reference = retrain(problem)
    row = evaluate(problem.model, problem, reference)
    expected = evaluate(reference, problem, reference)
    assert row["UA"] < 0.2
    assert row["RA"] > 0.8
    assert expected["UA"] == 1
    assert expected["gap"] == 0
    assert expected["ToW"] == 1
    assert row["gap"] > 0.2
    assert row["TFA"] > 0.8
    assert expected["TFA"] == 0
    assert {"mia_efficacy", "mia_privacy", "mia_entropy", "mia_forget_vs_test", "ZRF"} <= set(row)
    assert not same(reference, problem.fresh(problem.seed + 1000))


def test_what_a_model_says_and_represents():
    problem = toy_problem()
    said = say(problem.model, problem.test)
    assert said.probs.sum(1) == pytest.approx(1)
    assert said.losses.mean() == pytest.approx(said.loss)
    assert represent(problem.model, problem.test).shape == (len(problem.test), 16)
    assert represent_layers(problem.model, problem.test, ["body.0"])["body.0"].shape == (len(problem.test), 8)
    with pytest.raises(UsageError, match="labels"):
        _ = say(problem.model, problem.test.with_targets(None)).accuracy


def test_relearning_lowers_the_loss():
    problem = toy_problem()
    curve = relearning_curve(retrain(problem), problem.train, problem.forget, epochs=3, tuning=Tuning(lr=0.05))
    assert len(curve) == 4
    assert curve[-1] < curve[0]


def test_regressors_train_on_absolute_error():
    torch.manual_seed(0)
    x = torch.rand(60, 3)
    samples = Samples(x, x @ torch.tensor([1.0, -2.0, 0.5]))
    model = train(
        nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1)), samples, Tuning(60, 0.05, batch_size=16)
    )
    assert say(model, samples).loss < 0.1
    assert float(task_loss(torch.tensor([[1.0]]), torch.tensor([3.0]))) == 2
    with pytest.raises(UsageError, match="converge"):
        train(nn.Linear(3, 1), samples.with_targets(torch.full((60,), float("nan"))), Tuning(1))
