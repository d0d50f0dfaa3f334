"""ZK-APEX: the mask, the compensation, and that what is proved is what the model holds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.unlearning.toys import pictures, toy_problem, trained
from vestige.core.errors import NotVerifiedError, UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.fisher import sample_gradients
from vestige.engines.forgetting.samples import Samples
from vestige.nn.vit import ViT, ViTConfig
from vestige.unlearning.proofs.kkt import fault
from vestige.unlearning.proofs.spotcheck import Prover, Verifier
from vestige.unlearning.zk_apex import ZkApex, compensation, explain

METHOD = ZkApex(fraction=0.1, block=16, personal=16, gradients=40)


def made(method=METHOD):
    problem = toy_problem("class")
    mask = method.mask(problem.model, problem.forget, problem.retain)
    return method.compensate(problem.model, problem.retain, mask, request="class 1"), mask


def test_compensation_minimises_the_quadratic_form_under_its_constraint():
    g = np.random.default_rng(0)
    theta, gradients, masked = g.normal(size=12), g.normal(size=(5, 12)), np.arange(12) % 4 == 1
    delta = compensation(theta, gradients, masked, 0.1)
    np.testing.assert_allclose(delta[masked], -theta[masked], rtol=1e-6)
    f = gradients.T @ gradients / 5 + 0.1 * np.eye(12)
    np.testing.assert_allclose((f @ delta)[~masked], 0, atol=1e-6)
    for _ in range(20):
        other = delta + np.where(masked, 0, 0.1 * g.normal(size=12))
        assert other @ f @ other > delta @ f @ delta
    assert not compensation(theta, gradients, np.zeros(12, bool), 0.1).any()
    np.testing.assert_allclose(compensation(theta, gradients, np.ones(12, bool), 0.1), -theta, rtol=1e-6)


def test_the_expected_increase_of_the_loss_is_that_of_its_equation():
    model, samples = trained(), pictures(12, 5)
    (each,) = sample_gradients(model, samples, only=["body.0.weight"])
    w, g = model.body[0].weight, each["body.0.weight"]
    expected = -g.mean(0) * w + 0.5 * g.pow(2).mean(0) * w**2
    found = ZkApex(layers=("body.0.weight",)).increase(model, samples)["body.0.weight"]
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("score", ["ratio", "difference"])
def test_the_mask_is_the_top_share_over_all_layers(score):
    _, mask = made(ZkApex(fraction=0.1, block=16, personal=16, gradients=40, score=score))
    total = sum(m.numel() for m in mask.values())
    assert sum(int(m.sum()) for m in mask.values()) == round(0.1 * total)
    assert set(mask) == {"body.0.weight", "body.4.weight"}  # the head is left alone


def test_in_a_transformer_the_expansion_matrices_are_masked():
    model = nn.Sequential(ViT(ViTConfig(width=16, depth=2, heads=2)), nn.Flatten(), nn.LazyLinear(3))
    assert METHOD.names(model) == ["0.blocks.0.mlp.fc1.weight", "0.blocks.1.mlp.fc1.weight"]


def test_what_is_committed_is_what_the_model_holds():
    update, mask = made()
    weights = dict(update.model.named_parameters())
    flat = np.concatenate([b.theta_new for b in update.blocks]) / 2.0**24
    at = 0
    for name, m in mask.items():
        size = m.numel()
        np.testing.assert_allclose(weights[name].detach().flatten().numpy(), flat[at : at + size], atol=1e-7)
        assert not weights[name][m].any()
        at += size + -size % 16
    assert at == len(flat)
    assert all(fault(b, update.masked[b.number], update.statement) == "" for b in update.blocks)
    untouched = [n for n in weights if n not in mask]
    original = dict(trained().named_parameters())
    assert all(torch.equal(weights[n], original[n]) for n in untouched)
    assert 0 < update.growth < 10


def test_the_class_fades_and_compensation_is_nearer_to_the_original_than_zeroing():
    problem = toy_problem("class")
    update, mask = made()
    zeroed = copy.deepcopy(problem.model)
    with torch.no_grad():
        for name, m in mask.items():
            dict(zeroed.named_parameters())[name][m] = 0
    before, ours, masked = (
        METHOD.measure(m, problem.forget, problem.retain) for m in (problem.model, update.model, zeroed)
    )
    assert ours["forget"] < before["forget"]
    kept = problem.retain
    off = {n: np.abs(say(m, kept).probs - say(problem.model, kept).probs).mean() for n, m in
           (("ours", update.model), ("masked", zeroed))}  # fmt: skip
    assert off["ours"] < off["masked"]
    assert masked["personal"] <= before["personal"]


def test_a_client_proves_its_update_and_not_another_ones():
    update, _ = made()
    verifier, prover = Verifier(update.statement, update.masked), Prover(update.blocks, update.statement)
    verifier.verify(prover.open(verifier.receive(prover.root)))
    other, _ = made(ZkApex(fraction=0.1, block=16, personal=16, gradients=40, damping=30.0))
    cheat = Prover(other.blocks, update.statement)
    with pytest.raises(NotVerifiedError):
        verifier.verify(cheat.open(verifier.receive(cheat.root)))


def test_the_words_say_what_is_not_proved():
    for phrase in ("NOT proved", "genuine data", "served", "one chance in a million"):
        assert phrase in explain()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 1.0}, "fraction"), ({"damping": 0.0}, "damping"), ({"block": 1}, "two weights"),
        ({"score": "sum"}, "ratio or difference"), ({"personal": 0}, "at least one gradient"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        ZkApex(**options)


def test_missing_weights_and_data_are_refused():
    problem = toy_problem("class")
    with pytest.raises(UsageError, match=r"no weight 'nothing\.weight'"):
        ZkApex(layers=("nothing.weight",)).names(problem.model)
    with pytest.raises(UsageError, match="before its head"):
        METHOD.names(nn.Sequential(nn.Linear(3, 2)))
    _, mask = made()
    with pytest.raises(UsageError, match="no personal sample"):
        METHOD.compensate(problem.model, Samples(torch.zeros(0, 3, 8, 8)), mask)
