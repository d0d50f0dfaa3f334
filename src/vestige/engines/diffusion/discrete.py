"""Masked (absorbing-state) diffusion of tokens: corruption, loss, samplers, and the one place where tokens are drawn.

Tokens x: int64 N×L; a place is hidden by the id ``mask``. A `TokenModel` maps such sequences to the log-probabilities
of the clean token at every place, N×L×V (V without the mask). Under the linear schedule alpha_t = 1 - t each place is
hidden with probability t, independently.

Sources: Simple and Effective Masked Diffusion Language Models, NeurIPS 2024; Masked Diffusion Models are Secretly
Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling, ICLR 2025; MaskGIT, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import torch

from vestige.core.errors import UsageError

Method = Literal["gumbel", "inverse", "race"]
#: (sequences N×L with masks, rows of places to read N×K or None for all) -> log-probabilities N×K×V.
TokenModel = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass
class Drawn:
    """Sequences and what they cost: calls of the network, and the number of V-wide categorical draws."""

    tokens: torch.Tensor
    calls: int
    draws: int


def categorical(
    log_p: torch.Tensor,
    generator: torch.Generator,
    method: Method = "gumbel",
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Draw from log-probabilities ...×V -> int64 (...). They need not be normalised.

    gumbel: argmax(log p + G), G = -log(-log u); race: argmin(E/p), E = -log(1 - u); inverse: first place where the
    running sum exceeds u. dtype is that of the uniform numbers, and it matters: with 24-bit u the largest G is 24 ln 2
    = 16.6, so that rare tokens hardly win and the draw is that of a lower temperature. float64 reaches 36.7.
    Raises UsageError for other methods.
    """
    log_p = log_p.to(dtype)
    if method == "inverse":
        running = torch.softmax(log_p, -1).cumsum(-1)
        u = torch.rand(log_p.shape[:-1], generator=generator, device=generator.device, dtype=dtype).to(log_p.device)
        at = torch.searchsorted(running, (u * running[..., -1]).unsqueeze(-1), right=True).squeeze(-1)
        return at.clamp(max=log_p.shape[-1] - 1)
    if method not in ("gumbel", "race"):
        raise UsageError(f"There is no way {method!r} to draw; choose gumbel, race or inverse.")
    u = torch.rand(log_p.shape, generator=generator, device=generator.device, dtype=dtype).to(log_p.device)
    if method == "race":
        return (torch.log(-torch.log1p(-u)) - log_p).argmin(-1)
    # u = 0 gives G = -inf, which never wins; u < 1 always, so G stays finite above.
    return (log_p - torch.log(-torch.log(u))).argmax(-1)


def hide(tokens: torch.Tensor, counts: torch.Tensor, mask: int, generator: torch.Generator) -> torch.Tensor:
    """tokens N×L with ``counts[i]`` places of row i, chosen uniformly, replaced by ``mask``."""
    order = torch.rand(tokens.shape, generator=generator, device=generator.device).to(tokens.device).argsort(1)
    return torch.where(order.argsort(1) < counts[:, None], mask, tokens)


def masked_loss(
    model: TokenModel, tokens: torch.Tensor, mask: int, generator: torch.Generator, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Time-free loss: n ~ U{1..L} hidden places, L/n · sum of their cross-entropies, mean over N.

    Its mean is the negative evidence bound of the whole sequence in nats: that of any-order autoregression.
    """
    n, length = tokens.shape
    if counts is None:
        counts = torch.randint(1, length + 1, (n,), generator=generator, device=generator.device).to(tokens.device)
    hidden = hide(tokens, counts, mask, generator)
    log_p = model(hidden, None).gather(-1, tokens[..., None]).squeeze(-1)
    return -((log_p * (hidden == mask)).sum(1) * length / counts).mean()


@torch.no_grad()
def ancestral(
    model: TokenModel,
    shape: tuple[int, int],
    mask: int,
    steps: int,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float64,
    cached: bool = True,
    joint: bool = True,
) -> Drawn:
    """Reverse process on the grid t = 1, 1 - 1/N, ..., 0 with alpha_t = 1 - t.

    From t to s a hidden place becomes token k with probability (1 - s/t) p_k and stays hidden with s/t. joint: one
    categorical over the V + 1 outcomes at every place, as usually done (and where ``dtype`` float32 distorts);
    otherwise whether a place is revealed is drawn first, then its token. cached: the network is called again only after
    something was revealed: about N(1 - (1 - 1/N)^L) calls for one sequence instead of N.
    """
    _check(shape, steps)
    x = torch.full(shape, mask, device=generator.device)
    log_p: torch.Tensor | None = None
    calls = draws = 0
    for i in range(steps, 0, -1):
        hidden = x == mask
        if not hidden.any():
            break
        if log_p is None or not cached:
            log_p = model(x, None)
            calls += 1
        stay = (i - 1) / i
        rows = log_p[hidden]
        if joint:
            staying = rows.new_full((len(rows), 1), log(stay) if stay else -inf)
            found = categorical(torch.cat([rows + log(1 - stay), staying], -1), generator, dtype=dtype)
            revealed = found < rows.shape[-1]
            draws += len(rows)
        else:
            u = torch.rand(len(rows), generator=generator, device=generator.device, dtype=dtype).to(x.device)
            revealed = u >= stay
            found = torch.zeros(len(rows), dtype=torch.long, device=x.device)
            found[revealed] = categorical(rows[revealed], generator, dtype=dtype)
            draws += int(revealed.sum())
        if revealed.any():
            x[hidden] = torch.where(revealed, found, mask)
            log_p = None
    return Drawn(x, calls, draws)


@torch.no_grad()
def first_hitting(
    model: TokenModel,
    shape: tuple[int, int],
    mask: int,
    generator: torch.Generator,
    *,
    parallel: int = 1,
    dtype: torch.dtype = torch.float64,
    method: Method = "gumbel",
    on_time: Callable[[torch.Tensor], None] | None = None,
    known: torch.Tensor | None = None,
) -> Drawn:
    """Go from one reveal to the next instead of through a time grid: exact, with L calls and one draw each.

    While n places are hidden, the next reveal happens at t <- t·u^(1/n) and hits one of them uniformly. A model that
    does not see t needs no times; ``on_time`` is given them (N,) before each call for one that does. parallel: k
    places are revealed by one call, L/k calls in all, ignoring how they depend on each other. known: sequences N×L to
    fill in, ``mask`` where a place is hidden, as many in each. Raises UsageError when their counts differ.
    """
    _check(shape, parallel)
    n, length = shape
    x = torch.full(shape, mask, device=generator.device)
    chances = torch.rand(shape, generator=generator, device=generator.device)
    if known is not None:
        hidden = (known == mask).to(x.device)
        if known.shape != shape or len(hidden.sum(1).unique()) != 1 or not hidden.any():
            raise UsageError("Every sequence to fill in must have as many hidden places, at least one.")
        x, length = known.to(x.device), int(hidden[0].sum())
        chances = chances + 2 * (~hidden)
    order = chances.argsort(1)[:, :length]
    time = torch.ones(n, dtype=torch.float64, device=x.device)
    calls = 0
    for begin in range(0, length, parallel):
        places = order[:, begin : begin + parallel]
        if on_time is not None:
            for left in range(length - begin, length - begin - places.shape[1], -1):
                u = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
                time = time * u ** (1 / left)
            on_time(time)
        log_p = model(x, places)
        calls += 1
        x = x.scatter(1, places, categorical(log_p, generator, method, dtype))
    return Drawn(x, calls, n * length)


@torch.no_grad()
def top_confidence(
    model: TokenModel, shape: tuple[int, int], mask: int, generator: torch.Generator, *, parallel: int = 1
) -> Drawn:
    """Draw a token at every hidden place and keep the ``parallel`` most probable ones (MaskGIT).

    Looks good and is biased: likely tokens are kept more often than their law says. For comparison.
    """
    _check(shape, parallel)
    length = shape[1]
    x = torch.full(shape, mask, device=generator.device)
    calls = draws = 0
    for begin in range(0, length, parallel):
        log_p = model(x, None)
        calls += 1
        drawn = categorical(log_p, generator)
        sure = log_p.gather(-1, drawn[..., None]).squeeze(-1).masked_fill(x != mask, -torch.inf)
        draws += int((x == mask).sum())
        places = sure.topk(min(parallel, length - begin), 1).indices
        x = x.scatter(1, places, drawn.gather(1, places))
    return Drawn(x, calls, draws)


def expected_calls(steps: int, length: int) -> float:
    """Mean number of network calls of the cached ancestral sampler for one sequence: N(1 - (1 - 1/N)^L)."""
    return steps * (1 - (1 - 1 / steps) ** length)


def _check(shape: tuple[int, int], count: int) -> None:
    if min(shape) < 1 or count < 1:
        raise UsageError("The number of sequences, their length and the number of steps must be at least 1.")
