"""Masked token diffusion: draws, loss and samplers against laws that are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from vestige.core.errors import UsageError
from vestige.engines.diffusion.discrete import (
    ancestral,
    categorical,
    expected_calls,
    first_hitting,
    hide,
    masked_loss,
    top_confidence,
)

V, L, MASK = 3, 4, 3


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law() -> torch.Tensor:
    """A random joint law of four tokens of three words, with strong dependence: 3×3×3×3."""
    logits = 1.5 * torch.randn((V,) * L, generator=gen(4), dtype=torch.float64)
    return torch.softmax(logits.flatten(), 0).reshape((V,) * L)


class Exact:
    """The exact posterior p(x_l | revealed) of `law`, by summing it out."""

    def __init__(self) -> None:
        joint = law()
        self.table = torch.empty((V + 1) ** L, L, V, dtype=torch.float64)
        for code in range((V + 1) ** L):
            state = [code // (V + 1) ** i % (V + 1) for i in range(L)]
            part = joint
            for axis, token in enumerate(state):
                if token < V:
                    part = part.index_select(axis, torch.tensor([token]))
            for axis, token in enumerate(state):
                p = part.sum([a for a in range(L) if a != axis]) / part.sum()
                self.table[code, axis] = p if token == MASK else torch.eye(V, dtype=torch.float64)[token]

    def __call__(self, x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        rows = self.table[(x * (V + 1) ** torch.arange(L)).sum(1)]
        if places is not None:
            rows = rows.gather(1, places[..., None].expand(-1, -1, V))
        return rows.log()


EXACT = Exact()
N = 20_000


def p_value(tokens: torch.Tensor) -> float:
    codes = (tokens * V ** torch.arange(L - 1, -1, -1)).sum(1)
    counts = np.bincount(codes.numpy(), minlength=V**L)
    expected = law().flatten().numpy() * len(tokens)
    rare = expected < 5
    groups = [np.append(a[~rare], a[rare].sum()) for a in (counts, expected)]
    return float(chisquare(*groups).pvalue)


def test_first_hitting_and_ancestral_draw_the_true_joint_law():
    hit = first_hitting(EXACT, (N, L), MASK, gen(1))
    assert hit.calls == L
    assert hit.draws == N * L
    assert p_value(hit.tokens) > 0.01
    # A grid reveals several places in one step now and then, so it must be fine beside the number of samples.
    for joint in (True, False):
        drawn = ancestral(EXACT, (4000, L), MASK, 256, gen(2), joint=joint)
        assert p_value(drawn.tokens) > 0.01
        assert same_law(hit.tokens, drawn.tokens) > 0.01
        assert hit.calls < drawn.calls / 20
    assert p_value(ancestral(EXACT, (N, L), MASK, 4, gen(2)).tokens) < 1e-6


def same_law(a: torch.Tensor, b: torch.Tensor) -> float:
    """p-value of the chi-square test that two samples have one law; rare outcomes are put together."""
    table = np.stack([frequencies(x) * len(x) for x in (a, b)])
    rare = table.sum(0) < 40
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], 1)
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


def frequencies(tokens: torch.Tensor) -> np.ndarray:
    codes = (tokens * V ** torch.arange(L - 1, -1, -1)).sum(1).numpy()
    return np.bincount(codes, minlength=V**L) / len(codes)


def test_parallel_reveals_lose_the_dependence_and_top_confidence_is_biased():
    truth = law().flatten().numpy()

    def away(tokens: torch.Tensor) -> float:
        return float(np.abs(frequencies(tokens) - truth).sum() / 2)

    exact, two, four = (away(first_hitting(EXACT, (N, L), MASK, gen(5), parallel=k).tokens) for k in (1, 2, 4))
    assert exact < 0.03 < two < four
    assert first_hitting(EXACT, (2, L), MASK, gen(), parallel=3).calls == 2
    assert away(top_confidence(EXACT, (N, L), MASK, gen(6)).tokens) > 2 * exact


def test_number_of_calls_of_the_cached_ancestral_sampler():
    steps, length = 50, 12

    def model(x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        return torch.full((*x.shape, 2), math.log(0.5))

    cached = [ancestral(model, (1, length), 2, steps, gen(s)).calls for s in range(120)]
    assert np.mean(cached) == pytest.approx(expected_calls(steps, length), rel=0.05)
    assert ancestral(model, (400, length), 2, steps, gen(), cached=False).calls == steps


def test_ancestral_leaves_no_mask_and_reveals_on_schedule():
    seen: list[float] = []

    def model(x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        seen.append(float((x == 2).float().mean()))
        return torch.full((*x.shape, 2), math.log(0.5))

    drawn = ancestral(model, (200, 50), 2, 10, gen(), cached=False)
    assert int(drawn.tokens.max()) < 2
    assert seen == pytest.approx([1 - i / 10 for i in range(10)], abs=0.02)


def test_hitting_times_are_order_statistics_of_uniform_numbers():
    times: list[torch.Tensor] = []

    def model(x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        assert places is not None
        return torch.zeros(*places.shape, 2)

    first_hitting(model, (4000, 9), 2, gen(), on_time=lambda t: times.append(t.clone()))
    means = torch.stack(times).mean(1)
    assert means.tolist() == pytest.approx([(9 - i) / 10 for i in range(9)], abs=0.02)


@pytest.mark.parametrize("method", ["gumbel", "race", "inverse"])
def test_categorical_draws_the_law(method):
    p = torch.tensor([0.02, 0.5, 0.18, 0.3], dtype=torch.float64)
    counts = torch.bincount(categorical(p.log().expand(40_000, -1), gen(1), method), minlength=4).numpy()
    assert chisquare(counts, p.numpy() * 40_000).pvalue > 0.01
    impossible = torch.tensor([-torch.inf, 0.0, -torch.inf]).expand(500, -1)
    assert (categorical(impossible, gen(), method) == 1).all()
    assert categorical(p.log().expand(2, 3, -1), gen(), method).shape == (2, 3)


def test_unnormalised_scores_are_fine_and_bad_requests_refused():
    assert int(categorical(torch.tensor([[5.0, 80.0]]), gen(), "inverse")) == 1
    with pytest.raises(UsageError, match="no way"):
        categorical(torch.zeros(1, 2), gen(), "alias")
    with pytest.raises(UsageError, match="at least 1"):
        first_hitting(EXACT, (1, 0), MASK, gen())
    with pytest.raises(UsageError, match="at least 1"):
        ancestral(EXACT, (1, 4), MASK, 0, gen())


def test_hiding_takes_exact_counts_at_uniform_places():
    tokens = torch.zeros(3000, 6, dtype=torch.long)
    hidden = hide(tokens, torch.arange(3000) % 7, 9, gen()) == 9
    assert torch.equal(hidden.sum(1), torch.arange(3000) % 7)
    assert hidden.float().mean(0).tolist() == pytest.approx([0.5] * 6, abs=0.03)


def test_loss_is_the_entropy_for_the_exact_model_and_larger_for_others():
    joint = law().flatten()
    codes = categorical(joint.log().expand(6000, -1), gen(8))
    tokens = torch.stack([codes // V**i % V for i in range(L - 1, -1, -1)], 1)
    entropy = float(-(joint * joint.log()).sum())
    found = float(masked_loss(EXACT, tokens, MASK, gen(9)))
    assert found == pytest.approx(entropy, rel=0.03)
    assert float(masked_loss(lambda x, p: torch.full((*x.shape, V), -math.log(V)), tokens, MASK, gen(9))) > found + 0.3
    weight = torch.zeros(V, requires_grad=True)
    masked_loss(lambda x, p: torch.log_softmax(weight, 0).expand(*x.shape, V), tokens, MASK, gen(9)).backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0
