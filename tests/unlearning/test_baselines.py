"""The standard erasers do what their losses say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unlearning.toys import pictures, toy_problem
from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.unlearning import baselines as base
from vestige.unlearning.baselines_fisher import FisherForget, Influence


def accuracies(model, problem) -> tuple[float, float]:
    return say(model, problem.forget).accuracy, say(model, problem.retain).accuracy


@pytest.mark.parametrize(
    "eraser",
    [
        base.Retrain(),
        base.RandomLabels(lr=0.05, epochs=10),
        base.BadTeacher(lr=1e-2, epochs=15, share=1.0),
        base.NegGradPlus(weight=0.9, lr=0.05, epochs=10),
        base.SalUn(lr=0.05, epochs=12),
        base.Scrub(lr=5e-3, epochs=8, msteps=3),
    ],
    ids=lambda e: e.slug,
)
def test_a_class_is_forgotten_and_the_rest_is_kept(eraser):
    problem = toy_problem("class")
    forget, retain = accuracies(eraser.erase(problem), problem)
    assert forget <= 0.2
    assert retain >= 0.8


@pytest.mark.parametrize("eraser", [base.GradAscent(lr=0.01, epochs=5), base.BoundaryShrink(lr=0.01, epochs=8)])
def test_erasers_without_retained_data_lower_the_forget_accuracy(eraser):
    problem = toy_problem("class")
    before, _ = accuracies(problem.model, problem)
    assert accuracies(eraser.erase(problem), problem)[0] < before - 0.2


def test_gradient_ascent_stops_when_the_retained_accuracy_collapses():
    problem = toy_problem("class")
    wild, careful = (base.GradAscent(lr=0.05, epochs=30, collapse=c).erase(problem) for c in (0.0, 0.6))
    assert accuracies(careful, problem)[1] >= accuracies(wild, problem)[1]


def test_layerwise_erasers_leave_the_other_blocks_alone():
    problem = toy_problem("class")
    for eraser in (base.CFk(k=1, epochs=2), base.EUk(k=1, epochs=2)):
        model = eraser.erase(problem)
        assert all(
            torch.equal(a, b)
            for a, b in zip(model.body.state_dict().values(), problem.model.body.state_dict().values())
        )
        assert not torch.equal(model.head.weight, problem.model.head.weight)
    with pytest.raises(UsageError, match="blocks"):
        base.CFk(k=99).erase(problem)


def test_random_labels_are_other_ones():
    labels = torch.arange(200) % 4
    assert (base.other_labels(labels, 4, 0) != labels).all()
    assert (base.other_labels(labels, 4, 0, true_allowed=True) == labels).any()
    with pytest.raises(UsageError, match="two classes"):
        base.other_labels(labels, 1, 0)


def test_the_saliency_mask_covers_its_share_and_the_others_do_not_move():
    problem = toy_problem("class")
    mask = base.saliency_mask(problem, 0.3)
    kept = sum(float(m.sum()) for m in mask.values()) / sum(m.numel() for m in mask.values())
    assert kept == pytest.approx(0.3, abs=0.02)
    assert all(m.all() for m in base.saliency_mask(problem, 1.0).values())
    model = base.SalUn(share=0.3, epochs=2).erase(problem)
    for name, p in model.named_parameters():
        still = mask[name] == 0
        assert torch.equal(p[still], dict(problem.model.named_parameters())[name][still])
    with pytest.raises(UsageError, match="share"):
        base.saliency_mask(problem, 0.0)


def test_bad_teacher_ends_nearer_to_the_random_teacher():
    from vestige.metrics.unlearning import zrf

    problem = toy_problem("class")
    bad = say(problem.fresh(problem.seed + 5), problem.forget).probs
    before, after = (
        zrf(say(m, problem.forget).probs, bad)
        for m in (problem.model, base.BadTeacher(lr=1e-2, epochs=10).erase(problem))
    )
    assert after > before + 0.1


def test_rewinding_needs_validation_samples_and_returns_a_checkpoint():
    problem = toy_problem("class")
    model = base.Scrub(epochs=3, rewind=True).erase(problem)
    assert say(model, problem.retain).accuracy > 0.5
    with pytest.raises(InputError, match="validation"):
        base.Scrub(rewind=True).erase(replace(problem, val=None))


def test_unsir_never_looks_at_the_pictures_to_forget():
    problem = toy_problem("class")
    blank = problem.train.inputs.clone()
    blank[problem.forget_idx] = 0
    blind = replace(problem, train=replace(problem.train, inputs=blank))
    one, two = (base.Unsir(noise=16, steps=5).erase(p) for p in (problem, blind))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_an_influence_step_raises_the_loss_of_what_is_forgotten():
    problem = toy_problem("class")
    model = Influence(alpha=3.0, samples=60).erase(problem)
    assert say(model, problem.forget).loss > say(problem.model, problem.forget).loss


def test_fisher_noise_is_where_it_was_asked_for():
    problem = toy_problem("class")
    model = FisherForget(alpha=1e-2, samples=60).erase(problem)
    assert torch.equal(model.body[0].weight, problem.model.body[0].weight)
    moved = (model.head.weight - problem.model.head.weight).abs().mean(1)
    assert moved[1] > moved[[0, 2, 3]].max()
    everywhere = FisherForget(alpha=1e-2, where="all", samples=60).erase(problem)
    assert not torch.equal(everywhere.body[0].weight, problem.model.body[0].weight)


def test_pruned_weights_stay_zero_under_every_eraser():
    problem = toy_problem("class")
    mask = {"head.weight": (torch.arange(64).reshape(4, 16) % 2).float()}
    problem = replace(problem, mask=mask)
    with torch.no_grad():
        model = problem.copy()
        model.head.weight *= mask["head.weight"]
    problem = replace(problem, model=model)
    for eraser in (base.FineTune(epochs=1), base.EUk(k=1, epochs=1), base.SalUn(epochs=1), Influence(samples=20)):
        assert (eraser.erase(problem).head.weight[mask["head.weight"] == 0] == 0).all(), eraser.slug
    assert (base.Retrain().erase(problem).head.weight[mask["head.weight"] == 0] == 0).all()


def test_labels_beyond_the_outputs_are_refused():
    problem = toy_problem("class")
    wrong = replace(problem, train=pictures(160, 0).with_targets(problem.train.labels + 2))
    with pytest.raises(InputError, match="outputs"):
        base.FineTune(epochs=1).erase(wrong)
