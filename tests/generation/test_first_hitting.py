"""The audit of categorical draws and the time-free sampler on languages with a known law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from vestige.core.errors import UsageError
from vestige.engines.diffusion.discrete import categorical
from vestige.generation.first_hitting import (
    LARGEST_GUMBEL,
    FirstHitting,
    MarkovModel,
    ancestral_law,
    audit,
    effective_temperature,
    gridded_law,
    truncated_law,
)


def chain(size: int = 5) -> torch.Tensor:
    return torch.softmax(1.5 * torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double(), 1)


def zipf(size: int) -> np.ndarray:
    p = 1 / np.arange(1, size + 1)
    return p / p.sum()


def independent(p: np.ndarray, length: int):
    rows = torch.from_numpy(np.log(p))

    def model(x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        return rows.expand(*(x if places is None else places).shape, -1)

    return model


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), largest=st.floats(0.5, 40))
def test_truncated_law_is_a_law_and_favours_the_large(seed, size, largest):
    p = np.random.default_rng(seed).dirichlet(np.full(size, 0.5)) + 1e-12
    p /= p.sum()
    law = truncated_law(p, largest)
    assert law.sum() == pytest.approx(1, abs=1e-6)
    assert (law >= 0).all()
    order = np.argsort(p)
    gain = law[order] / p[order]
    assert (np.diff(gain) >= -1e-6 * np.abs(gain[1:])).all()


def test_truncated_law_equals_simulated_truncated_gumbel():
    p = np.array([0.02, 0.08, 0.3, 0.6])
    g = np.random.default_rng(0)
    largest = 1.5
    u = g.random((200_000, 4)) * np.exp(-np.exp(-largest))  # Gumbel numbers given that they are below the limit
    winners = (np.log(p) - np.log(-np.log(u))).argmax(1)
    counts = np.bincount(winners, minlength=4)
    assert chisquare(counts, truncated_law(p, largest) * len(u)).pvalue > 0.01
    assert chisquare(counts, p * len(u)).pvalue < 1e-9
    with pytest.raises(UsageError, match="positive"):
        truncated_law([0.5, 0.4])


def test_gridded_law_equals_draws_from_uniform_numbers_on_a_grid():
    p = np.array([0.9, 0.09, 0.008, 0.0015, 0.0005])
    d = 2.0**-11
    u = np.floor(np.random.default_rng(0).random((400_000, 5)) / d) * d
    with np.errstate(divide="ignore"):
        winners = (np.log(p) - np.log(-np.log(u))).argmax(1)
    counts = np.bincount(winners, minlength=5)
    wanted = gridded_law(p, 11)
    assert np.abs(counts / len(u) - wanted).max() < 1e-3
    assert counts[3:] / len(u) == pytest.approx(wanted[3:], rel=0.1)
    assert counts[4] / len(u) > 1.3 * truncated_law(p, 11 * np.log(2))[4]  # the cut-off formula loses too many
    assert np.allclose(gridded_law(p, 60), p)
    with pytest.raises(UsageError, match="at least 1"):
        gridded_law(p, 0)


def test_draws_with_few_bits_starve_rare_outcomes():
    # float16 uniform numbers have 11 bits, which shows in thousands of draws what 24 bits show in billions.
    p = np.concatenate([np.full(100, 1e-4), [0.99]])
    logs = torch.from_numpy(np.log(p)).expand(20_000, -1)
    honest, coarse = (
        int((categorical(logs, torch.Generator().manual_seed(0), dtype=d) < 100).sum())
        for d in (torch.float64, torch.float16)
    )
    assert abs(honest - 200) < 60
    assert truncated_law(p, 11 * np.log(2))[:100].sum() * 20_000 < 5
    assert coarse < 25


def test_largest_gumbel_numbers():
    u32 = torch.tensor(1 - 2.0**-24, dtype=torch.float64)
    assert float(-torch.log(-torch.log(u32))) == pytest.approx(LARGEST_GUMBEL[torch.float32], abs=1e-6)
    drawn = torch.rand(2**20, generator=torch.Generator().manual_seed(0))
    assert float(drawn.max()) <= 1 - 2.0**-24
    assert float(drawn.min()) >= 0


def test_fine_grids_lose_entropy_in_float32_only():
    p = zipf(4096)

    def entropy(law: np.ndarray) -> float:
        return float(-(law * np.log(law)).sum())

    single = [entropy(ancestral_law(p, n)) for n in (16, 128, 512)]
    assert single[0] > single[1] > single[2]
    assert entropy(p) > single[2]
    assert entropy(p) == pytest.approx(entropy(ancestral_law(p, 128, LARGEST_GUMBEL[torch.float64])), abs=1e-6)
    assert effective_temperature(ancestral_law(p, 512), p) < 1
    assert single[2] < entropy(ancestral_law(p, 512, bits=24)) < entropy(p)
    with pytest.raises(UsageError, match="at least 1"):
        ancestral_law(p, 0)


def test_samplers_on_independent_tokens_have_their_law():
    p, length = zipf(64), 16
    for sampler, n in (("first_hitting", 200), ("ancestral", 100)):
        system = FirstHitting(independent(p, length), length, 64, sampler=sampler, steps=64)
        counts = np.bincount(system.sample(n).flatten().numpy(), minlength=64)
        assert chisquare(counts, p * n * length).pvalue > 0.005
        assert system.measure(system.sample(n), p)["temperature"] == pytest.approx(1, abs=0.1)


def test_first_hitting_has_the_bigrams_of_the_chain_with_one_call_a_token():
    model, length = MarkovModel(chain(), 12), 12
    system = FirstHitting(model, length, model.mask)
    drawn = system.draw(1500, seed=3)
    assert drawn.calls == length
    pairs = (drawn.tokens[:, :-1] * 5 + drawn.tokens[:, 1:])[
        :, ::4
    ].flatten()  # far enough apart to count as independent
    counts = np.bincount(pairs.numpy(), minlength=25)
    assert chisquare(counts, model.bigrams().ravel() * len(pairs)).pvalue > 0.005
    fast = FirstHitting(model, length, model.mask, parallel=6).draw(1500)
    assert fast.calls == 2
    there = np.bincount((fast.tokens[:, :-1] * 5 + fast.tokens[:, 1:]).flatten().numpy(), minlength=25)
    every = np.bincount((drawn.tokens[:, :-1] * 5 + drawn.tokens[:, 1:]).flatten().numpy(), minlength=25)
    off, exact = (np.abs(c / c.sum() - model.bigrams().ravel()).sum() for c in (there, every))
    assert off > 2 * exact


def test_markov_model_is_the_exact_posterior():
    p = chain(3)
    model = MarkovModel(p, 4)
    found = model(torch.tensor([[1, 3, 3, 2]]), None).exp()[0]
    joint = p[1][:, None] * p * p[:, 2]
    joint = joint / joint.sum()
    assert torch.allclose(found[1], joint.sum(1))
    assert torch.allclose(found[2], joint.sum(0))
    assert torch.equal(found[0], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    free = model(torch.full((1, 4), 3), torch.tensor([[2]])).exp()[0, 0]
    assert torch.allclose(free, model.stationary)
    assert torch.allclose(model.stationary @ p, model.stationary)
    with pytest.raises(UsageError, match="square"):
        MarkovModel(torch.ones(2, 3), 4)


def test_loss_learns_the_law_of_tokens():
    table = torch.zeros(6, requires_grad=True)
    system = FirstHitting(lambda x, p: torch.log_softmax(table, 0).expand(*x.shape, 6), 10, 6)
    p = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    data = torch.multinomial(p, 4000, replacement=True, generator=torch.Generator().manual_seed(0)).reshape(400, 10)
    optimiser, g = torch.optim.Adam([table], 0.08), torch.Generator().manual_seed(1)
    for _ in range(80):
        optimiser.zero_grad()
        system.loss(data, g).backward()
        optimiser.step()
    assert torch.softmax(table, 0).detach().numpy() == pytest.approx(p.numpy(), abs=0.04)


@pytest.mark.parametrize("truth", [0.6, 1.0, 1.4])
def test_effective_temperature_is_found(truth):
    p = zipf(200)
    cooled = p ** (1 / truth)
    assert effective_temperature(cooled / cooled.sum(), p) == pytest.approx(truth, abs=1e-3)


def test_audit_counts_and_unknown_samplers():
    figures = audit(torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]]))
    assert figures["entropy"] == pytest.approx(np.log(2) / 2)
    assert figures["distinct_2"] == pytest.approx(4 / 6)
    with pytest.raises(UsageError, match="no sampler"):
        FirstHitting(independent(zipf(3), 4), 4, 3, sampler="greedy").sample(1)
