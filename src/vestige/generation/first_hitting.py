"""Masked token models without time: exact sampling from one reveal to the next, and an audit of categorical draws.

A masked diffusion model needs no time as input, its loss is that of any-order autoregression, and its samples can be
drawn with one network call and one draw per token. Audited here: drawing with 32-bit Gumbel noise truncates it, which
lowers the temperature, the more the finer the time grid and the larger the vocabulary.

Source: Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling,
ICLR 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.discrete import Drawn, TokenModel, ancestral, first_hitting, masked_loss, top_confidence

#: The largest Gumbel number from uniform numbers of 24 (float32) and 53 (float64) bits: -log(-log(1 - 2^-bits)).
LARGEST_GUMBEL = {torch.float32: 24 * float(np.log(2)), torch.float64: 53 * float(np.log(2))}


@dataclass
class FirstHitting:
    """A masked model with its time-free loss, its samplers and the audit of what they draw.

    model: see `vestige.engines.diffusion.discrete.TokenModel`. length: L. mask: id of a hidden place. sampler:
    "first_hitting" (exact, L/parallel calls), "ancestral" (``steps`` grid points) or "top_confidence" (biased).

    >>> table = torch.log_softmax(torch.randn(4, 10, generator=torch.Generator().manual_seed(0)), -1)
    >>> def model(x, places):  # independent places with known laws
    ...     rows = table.expand(len(x), -1, -1)
    ...     return rows if places is None else rows.gather(1, places[..., None].expand(-1, -1, 10))
    >>> FirstHitting(model, 4, mask=10).sample(3).shape
    torch.Size([3, 4])
    """

    model: TokenModel
    length: int
    mask: int
    sampler: Literal["first_hitting", "ancestral", "top_confidence"] = "first_hitting"
    steps: int = 256
    parallel: int = 1
    dtype: torch.dtype = torch.float64
    cached: bool = True

    def loss(self, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The negative evidence bound of token sequences N×L, in nats per sequence."""
        return masked_loss(self.model, tokens, self.mask, generator)

    def fill(self, known: torch.Tensor, *, seed: int = 0) -> Drawn:
        """Sequences N×L whose places that hold ``mask`` are drawn given the others, by the exact sampler."""
        generator = torch.Generator().manual_seed(seed)
        shape = (int(known.shape[0]), int(known.shape[1]))
        return first_hitting(
            self.model, shape, self.mask, generator, parallel=self.parallel, dtype=self.dtype, known=known
        )

    def draw(self, n: int, *, seed: int = 0) -> Drawn:
        """n sequences with the number of network calls and categorical draws."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n, self.length)
        if self.sampler == "first_hitting":
            return first_hitting(self.model, shape, self.mask, generator, parallel=self.parallel, dtype=self.dtype)
        if self.sampler == "ancestral":
            return ancestral(self.model, shape, self.mask, self.steps, generator, dtype=self.dtype, cached=self.cached)
        if self.sampler == "top_confidence":
            return top_confidence(self.model, shape, self.mask, generator, parallel=self.parallel)
        raise UsageError(f"There is no sampler {self.sampler!r}; choose first_hitting, ancestral or top_confidence.")

    def sample(self, n: int, *, seed: int = 0) -> torch.Tensor:
        """n sequences, int64 N×L."""
        return self.draw(n, seed=seed).tokens

    def measure(self, tokens: torch.Tensor, law: np.ndarray | None = None) -> dict[str, float]:
        """Audit of sequences; see `audit`."""
        return audit(tokens, law)


def truncated_law(p: Any, largest: float = LARGEST_GUMBEL[torch.float32]) -> np.ndarray:
    """The law that Gumbel-max truly draws from when its noise cannot exceed ``largest`` = M.

    With e = exp(-M), probabilities sorted ascending and S_i = sum_{j>=i} p_j,
        P'_k = p_k sum_{i<=k} (1/S_i) exp((K - i + 1) e) [exp(-S_i e/p_i) - exp(-S_i e/p_{i-1})],   p_0 = 0.
    Large probabilities gain. p: float64 (K,), positive and adding up to 1. Raises UsageError otherwise.

    >>> law = truncated_law([0.001, 0.999], largest=2.0)
    >>> bool(law[1] > 0.999 and abs(law.sum() - 1) < 1e-9)
    True
    """
    p = _law(p)
    order = np.argsort(p, kind="stable")
    rising = p[order]
    tail = np.cumsum(rising[::-1])[::-1]
    before = np.concatenate([[0.0], rising[:-1]])
    e = np.exp(-largest)
    count = len(p)
    with np.errstate(divide="ignore"):
        # exp((K - i + 1) e) makes up for the noise cut off; inside the exponents, which stay <= 0, it cannot overflow.
        grow = (count - np.arange(count)) * e
        beta = (np.exp(grow - tail * e / rising) - np.exp(grow - tail * e / before)) / tail
    law = np.empty(count)
    law[order] = rising * np.cumsum(beta)
    return law


def gridded_law(p: Any, bits: int = 24) -> np.ndarray:
    """The law that Gumbel-max draws from when its uniform numbers are multiples of d = 2^-bits, as they are drawn.

    -log u then is about d, 2d, 3d ... with probability d each where rare outcomes win, which gives
        P'_k ∝ p_k r / (exp(r) - 1),    r = d / p_k,
    where `truncated_law`, with noise cut off at the largest number that occurs, has about p_k exp(-r): numbers are
    rounded to the grid, not lost. p: float64 (K,), positive and adding up to 1. Raises UsageError otherwise.

    >>> p = [0.001, 0.999]
    >>> bool(truncated_law(p, 10 * np.log(2))[0] < gridded_law(p, 10)[0] < 0.001)
    True
    """
    p = _law(p)
    if bits < 1:
        raise UsageError(f"bits is {bits}; it must be at least 1.")
    r = 2.0**-bits / p
    with np.errstate(over="ignore"):
        law = np.where(r > 0, p * r / np.expm1(np.maximum(r, 1e-300)), p)
    return law / law.sum()


def ancestral_law(
    p: Any, steps: int, largest: float = LARGEST_GUMBEL[torch.float32], *, bits: int | None = None
) -> np.ndarray:
    """The law of a token that the ancestral sampler draws on a grid of N steps with Gumbel noise of few bits.

    At step i (N ... 1) the outcomes are the V tokens with p/i and "stay hidden" with 1 - 1/i; each such draw follows
    `truncated_law`, or `gridded_law` when ``bits`` are given. The finer the grid, the rarer every token's outcome, and
    the more the rare ones lose.

    >>> p = np.array([0.9999, 0.0001])
    >>> bool(ancestral_law(p, 64)[1] > ancestral_law(p, 2048)[1])
    True
    """
    p = np.asarray(p, np.float64)
    if steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1.")

    def draw(outcomes: np.ndarray) -> np.ndarray:
        return truncated_law(outcomes, largest) if bits is None else gridded_law(outcomes, bits)

    law, hidden = np.zeros_like(p), 1.0
    for i in range(steps, 1, -1):
        drawn = draw(np.append(p / i, 1 - 1 / i))
        law += hidden * drawn[:-1]
        hidden *= drawn[-1]
    return law + hidden * draw(p)


def audit(tokens: torch.Tensor, law: np.ndarray | None = None) -> dict[str, float]:
    """Entropy of the token frequencies within sequences, share of distinct pairs, and the effective temperature.

    tokens: N×L. entropy: mean over sequences of -sum f log f, nats. distinct_2: distinct neighbour pairs / pairs.
    temperature (with ``law`` (V,), the true frequencies): T that fits the observed frequencies best as law^(1/T).
    """
    rows = tokens.cpu().numpy()
    entropies = []
    for row in rows:
        f = np.unique(row, return_counts=True)[1] / rows.shape[1]
        entropies.append(float(-(f * np.log(f)).sum()))
    found = {"entropy": float(np.mean(entropies))}
    if rows.shape[1] > 1:
        pairs = np.stack([rows[:, :-1].ravel(), rows[:, 1:].ravel()], 1)
        found["distinct_2"] = len(np.unique(pairs, axis=0)) / len(pairs)
    if law is not None:
        found["temperature"] = effective_temperature(np.bincount(rows.ravel(), minlength=len(law)), law)
    return found


def effective_temperature(counts: np.ndarray, law: np.ndarray) -> float:
    """argmin_T KL(counts ‖ softmax(log law / T)): 1 for honest draws, below 1 when large probabilities gained."""
    from scipy.optimize import minimize_scalar

    f, logs = counts / counts.sum(), np.log(np.asarray(law, np.float64))

    def cost(t: float) -> float:
        scaled = logs / t
        top = scaled.max()
        return float(top + np.log(np.exp(scaled - top).sum()) - (f * scaled).sum())

    return float(minimize_scalar(cost, bounds=(0.05, 5.0), method="bounded", options={"xatol": 1e-6}).x)


def _law(p: Any) -> np.ndarray:
    p = np.asarray(p, np.float64)
    if p.ndim != 1 or not len(p) or p.min() <= 0 or abs(p.sum() - 1) > 1e-6:
        raise UsageError("A law must be one row of positive probabilities that add up to 1.")
    return p


class MarkovModel:
    """The exact denoiser of a stationary Markov chain: the perfect `TokenModel`, for audits without training.

    p(x_l | nearest revealed a on the left at distance i, b on the right at distance j) ∝ (P^i)[a, x] (P^j)[x, b]; with
    no left neighbour the stationary law stands in, with no right one the last factor is 1. transition: V×V, rows add up
    to 1. calls counts evaluations.
    """

    def __init__(self, transition: torch.Tensor, length: int, mask: int | None = None) -> None:
        if transition.ndim != 2 or transition.shape[0] != transition.shape[1] or length < 1:
            raise UsageError(f"A transition matrix is square; got {tuple(transition.shape)}.")
        step = transition.double()
        powers = [torch.eye(len(step), dtype=torch.float64)]
        for _ in range(length):
            powers.append(powers[-1] @ step)
        self.powers = torch.stack(powers)
        self.mask = len(step) if mask is None else mask
        values, vectors = torch.linalg.eig(step.T)
        top = vectors[:, values.real.argmax()].real
        self.stationary = top / top.sum()

    def __call__(self, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """log p N×K×V at ``places`` N×K, or everywhere; at a revealed place all mass is on its token."""
        n, length = x.shape
        if places is None:
            places = torch.arange(length, device=x.device).expand(n, -1)
        at = torch.arange(length, device=x.device)
        seen = x != self.mask
        left = torch.where(seen, at, -1).cummax(1).values.gather(1, places)
        right = torch.where(seen, at, length).flip(1).cummin(1).values.flip(1).gather(1, places)
        before = x.gather(1, left.clamp(min=0)) % len(self.stationary)
        after = x.gather(1, right.clamp(max=length - 1)) % len(self.stationary)
        from_left = self.powers[(places - left).clamp(max=length), before]
        from_left = torch.where((left >= 0)[..., None], from_left, self.stationary)
        to_right = self.powers.transpose(1, 2)[(right - places).clamp(max=length), after]
        to_right = torch.where((right < length)[..., None], to_right, 1.0)
        joint = from_left * to_right
        return (joint / joint.sum(-1, keepdim=True)).log()

    def bigrams(self) -> np.ndarray:
        """The law of neighbouring tokens, V×V."""
        return (self.stationary[:, None] * self.powers[1]).numpy()
