"""Sparse autoencoders and what they bring back."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from tests.unlearning.toys import pictures, toy_problem
from vestige.core.errors import UsageError
from vestige.engines.forgetting.samples import joined
from vestige.engines.forgetting.train import retrain
from vestige.nn.sae import SparseAutoencoder, train_sae
from vestige.unlearning.repr_audit import silenced
from vestige.unlearning.sae_restore import MOST_FALSE, SaeRestore, replaced, tokens, verdict


def test_at_most_k_latents_are_on_and_training_explains_the_activations():
    g = torch.Generator().manual_seed(0)
    directions = torch.randn(12, 8, generator=g)
    codes = torch.rand(600, 12, generator=g) * (torch.rand(600, 12, generator=g) < 0.15)
    x = codes @ directions + 3
    sae = train_sae(x, 24, 4, epochs=25, batch=100, lr=5e-3)
    assert int((sae.codes(x) > 0).sum(1).max()) <= 4
    fresh = SparseAutoencoder(8, 24, 4)
    fresh.fit_scale(x)
    with torch.no_grad():
        unexplained = [float((s(x) - x).pow(2).mean() / x.var(0).mean()) for s in (sae, fresh)]
    assert unexplained[0] < 0.4
    assert unexplained[0] < unexplained[1] / 2
    change = sae.change(sae.codes(x) * 0)
    assert float(change.detach().abs().max()) == 0


def test_bad_sizes_are_refused():
    with pytest.raises(UsageError, match="can be on"):
        SparseAutoencoder(8, 4, k=5)
    with pytest.raises(UsageError, match="at least two"):
        train_sae(torch.zeros(1, 4))


@pytest.mark.parametrize("shape", [(3, 5, 4, 2), (3, 7, 5), (3, 5)])
def test_tokens_come_back_in_place(shape):
    x = torch.rand(shape)
    t, back = tokens(x)
    assert t.shape[2] == 5
    assert torch.equal(back(t), x)


@cache
def fitted() -> SaeRestore:
    problem = toy_problem("class")
    return SaeRestore("body.3", 32, 8, experts=6, epochs=4).fit(problem.model, problem.train)


def test_a_silenced_class_is_read_from_the_activations_and_a_deleted_one_less():
    problem, audit = toy_problem("class"), fitted()
    test, tuning = joined([problem.test_forget, problem.test]), problem.val
    experts = audit.expert_latents(problem.model, problem.train, 1)
    assert len(experts.unique()) == len(experts) > 0
    hidden = audit.measure(
        problem.model, silenced(problem), 1, test, tuning, experts, retained=problem.retain, alphas=(0.0, 1.0)
    )
    assert hidden["before"] == 0
    assert hidden["restored"] == pytest.approx(1, abs=0.05)
    # With its own head the silenced network can say nothing, whatever is strengthened.
    own = audit.measure(problem.model, silenced(problem), 1, test, tuning, experts, alphas=(1.0,))
    assert own["restored"] == 0
    reference = retrain(problem)
    again = audit.measure(
        problem.model, reference, 1, test, tuning, experts, retained=problem.retain, alphas=(0.0, 1.0)
    )
    assert 0 <= again["restored"] <= 1.3
    assert {"alpha", "false_restoration", "others"} <= set(again)


def test_a_strength_that_makes_the_class_of_anything_is_not_chosen():
    problem, audit = toy_problem("class"), fitted()
    test = joined([problem.test_forget, problem.test])
    experts = audit.expert_latents(problem.model, problem.train, 1)

    def found(*alphas):
        return audit.measure(
            problem.model, silenced(problem), 1, test, test, experts, retained=problem.retain, alphas=alphas
        )

    assert found(300.0)["false_restoration"] > MOST_FALSE
    chosen = found(0.0, 300.0)
    assert chosen["alpha"] == 0
    assert chosen["false_restoration"] <= MOST_FALSE


def test_injecting_into_the_original_changes_nothing():
    problem, audit = toy_problem("class"), fitted()
    experts = audit.expert_latents(problem.model, problem.train, 1)
    with torch.no_grad():
        plain = problem.model(next(problem.test.batches(60)).x).double().numpy()
    made = audit.restore(problem.model, problem.test, experts, mode="inject_experts", alpha=5.0, original=problem.model)
    assert made == pytest.approx(plain, abs=1e-5)
    assert not any(part._forward_hooks for part in problem.model.modules())


def test_random_latents_leave_the_experts_out():
    problem, audit = toy_problem("class"), fitted()
    experts = audit.expert_latents(problem.model, problem.train, 1)
    other = audit.random_active(problem.model, problem.train, len(experts), beside=experts)
    assert not set(other.tolist()) & set(experts.tolist())


def test_a_class_token_is_transplanted_only_where_there_is_one():
    class Tokens(nn.Module):
        """A class token that sums patches, as a stand-in for a transformer."""

        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 4, 4)
            self.mix = nn.Linear(6, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            t = self.patch(x).flatten(2).transpose(1, 2)
            t = self.mix(torch.cat([t.mean(1, keepdim=True), t], 1))
            return self.head(t[:, 0])

    torch.manual_seed(0)
    one, two, samples = Tokens(), Tokens(), pictures(20, 4)
    audit = SaeRestore("mix", 12, 3, class_token=True, epochs=1).fit(one, samples)
    chosen = torch.arange(2)
    made = audit.restore(two, samples, chosen, mode="inject_cls", alpha=1.0, original=one)
    with torch.no_grad():
        x = next(samples.batches(20)).x
        with replaced(two, "mix", lambda t: t):
            pass
        # At α = 1 the class token is the original's own, read by the other network's head.
        t = one.patch(x).flatten(2).transpose(1, 2)
        expected = two.head(one.mix(torch.cat([t.mean(1, keepdim=True), t], 1))[:, 0])
    assert made == pytest.approx(expected.double().numpy(), abs=1e-5)
    with pytest.raises(UsageError, match="class token"):
        fitted().restore(toy_problem().model, samples, chosen, mode="inject_cls", original=toy_problem().model)


def test_wrong_use_is_refused():
    problem = toy_problem("class")
    with pytest.raises(UsageError, match="Fit"):
        SaeRestore("body.3").restore(problem.model, problem.test, torch.arange(1))
    with pytest.raises(UsageError, match="mode"):
        fitted().restore(problem.model, problem.test, torch.arange(1), mode="magic")
    with pytest.raises(UsageError, match="original"):
        fitted().restore(problem.model, problem.test, torch.arange(1), mode="inject_experts")
    with pytest.raises(UsageError, match="original alone"):
        fitted().restore(
            problem.model, problem.test, torch.arange(1), mode="inject_experts", original=problem.model,
            stitch=torch.eye(17)[:, :16],
        )  # fmt: skip
    with pytest.raises(UsageError, match="class 9"):
        fitted().expert_latents(problem.model, problem.train, 9)
    assert verdict(0.7, 0.6) == "deleted"
