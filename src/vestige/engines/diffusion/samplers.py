"""Samplers over a grid of noise levels: ancestral (DDPM), DDIM, DPM-Solver++(2M), Euler for flows, consistency steps.

All work from the x0 and e estimates of a `Denoiser`, so that they serve every prediction and schedule. With (a, s) the
(alpha, sigma) of the present level and (a', s') of the next one, a final step leads to (1, 0).

Sources: Denoising Diffusion Implicit Models, ICLR 2021; DPM-Solver++, arXiv 2022; Classifier-Free Diffusion Guidance,
NeurIPS workshop 2021; Common Diffusion Noise Schedules and Sample Steps are Flawed, WACV 2024 (rescaled guidance);
Consistency Models, ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import expm1, inf, log
from typing import Any, Literal

import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.schedules import Prediction, Schedule, to_eps, to_x0

Sampler = Literal["ddim", "ddpm", "dpm++", "consistency"]
Network = Callable[..., torch.Tensor]


@dataclass
class Denoiser:
    """A network with what is needed to read x0 and e from its output.

    network: (x N×..., time N, condition) -> prediction, where the condition is a tensor N×... or None.
    condition, null: for classifier-free guidance; with ``guidance`` w and a null, one batched call of 2N gives
    output = null + w·(condition - null). w = 1 makes a single plain call. rescale: phi of rescaled guidance.
    guided: (lowest, highest) level at which guidance acts. clip: x0 estimates are clamped to ±clip.
    calls counts network evaluations (a guided one counts once); rows counts the pictures put through it.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction = "eps"
    condition: torch.Tensor | None = None
    null: torch.Tensor | None = None
    guidance: float = 1.0
    rescale: float = 0.0
    guided: tuple[int, int] | None = None
    clip: float | None = None
    calls: int = 0
    rows: int = 0

    def output(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """The guided network output at one level, for all of x N×..."""
        time = self.schedule.network_time(level).to(x.device)
        inside = self.guided is None or self.guided[0] <= level <= self.guided[1]
        condition = _rows(self.condition, len(x))
        self.calls += 1
        if self.null is None or condition is None or self.guidance == 1.0 or not inside:
            self.rows += len(x)
            return self.network(x, time.expand(len(x)), condition)
        self.rows += 2 * len(x)
        null = _rows(self.null, len(x))
        assert null is not None
        both = self.network(torch.cat([x, x]), time.expand(2 * len(x)), torch.cat([null, condition]))
        free, conditioned = both.chunk(2)
        guided = free + self.guidance * (conditioned - free)
        if self.rescale:
            axes = tuple(range(1, x.ndim))
            matched = guided * (conditioned.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
            guided = self.rescale * matched + (1 - self.rescale) * guided
        return guided

    def estimate(self, x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(x0, e) estimates at one level; with ``clip``, e is what the clamped x0 implies."""
        output = self.output(x, level)
        alpha, sigma = (float(table[level]) for table in (self.schedule.alpha, self.schedule.sigma))
        a, s = torch.tensor(alpha, dtype=x.dtype, device=x.device), torch.tensor(sigma, dtype=x.dtype, device=x.device)
        x0 = to_x0(output, x, a, s, self.prediction)
        if self.clip is None:
            return x0, to_eps(output, x, a, s, self.prediction)
        x0 = x0.clamp(-self.clip, self.clip)
        return x0, (x - a * x0) / s


def _rows(condition: torch.Tensor | None, count: int) -> torch.Tensor | None:
    if condition is None or len(condition) == count:
        return condition
    if len(condition) == 1:
        return condition.expand(count, *condition.shape[1:])
    raise UsageError(f"There are {len(condition)} conditions for {count} samples; give one, or one for each.")


@dataclass
class Step:
    """What ``on_step`` sees after each step and may change: ``x`` is what the next step starts from.

    index: 0 ... n-1. level: where the network was called; next_level: where x now is, -1 when clean.
    """

    index: int
    level: int
    next_level: int
    x: torch.Tensor
    x0: torch.Tensor
    eps: torch.Tensor


def ddim_step(
    x0: torch.Tensor,
    eps: torch.Tensor,
    here: tuple[float, float],
    there: tuple[float, float],
    eta: float = 0.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """x' = a' x0 + sqrt(s'² - d²) e + d n, d = eta·(s'/s)·sqrt(1 - a²/a'²); eta 0 DDIM, 1 ancestral (DDPM).

    here, there: (alpha, sigma). For flow tables d uses (a s'/(a' s))² in place of the VP form, equal to it there.
    """
    (a, s), (a_next, s_next) = here, there
    spread = 0.0
    if eta and s_next:
        ratio = (a * s_next) / (a_next * s)
        spread = eta * s_next * max(0.0, 1 - ratio**2) ** 0.5
    x = a_next * x0 + max(0.0, s_next**2 - spread**2) ** 0.5 * eps
    return x if noise is None or not spread else x + spread * noise


def sample(
    denoiser: Denoiser,
    start: torch.Tensor,
    levels: torch.Tensor | Sequence[int],
    method: Sampler = "ddim",
    *,
    eta: float | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[Step], Any] | None = None,
) -> torch.Tensor:
    """Run ``start`` (at the first of the falling ``levels``) to a clean sample of the same shape.

    method: "ddim" (eta, default 0), "ddpm" (eta 1), "dpm++" (second-order multistep; first-order at both ends), or
    "consistency" (x' = a' x0 + s' n: all noise is renewed). generator: for the noise of stochastic methods; drawn on
    the generator's device, so that a CPU generator gives equal noise everywhere.
    Raises UsageError for levels that do not fall and for a stochastic method without generator.

    >>> from vestige.engines.diffusion.schedules import cosine, grid
    >>> table = cosine()
    >>> exact = Denoiser(lambda x, t, c: torch.zeros_like(x), table, "x0")  # data is a single point at 0
    >>> float(sample(exact, torch.ones(1, 1), grid(table, 10)).abs().max())
    0.0
    """
    steps = [int(level) for level in levels]
    if not steps or any(b >= a for a, b in pairwise(steps)) or not 0 <= steps[-1] <= steps[0] < len(denoiser.schedule):
        raise UsageError(f"Levels must fall from below {len(denoiser.schedule)} to 0 or above; got {steps[:4]}...")
    if method not in ("ddim", "ddpm", "dpm++", "consistency"):
        raise UsageError(f"There is no sampler {method!r}; choose ddim, ddpm, dpm++ or consistency.")
    eta = {"ddpm": 1.0}.get(method, 0.0) if eta is None else eta
    stochastic = method == "consistency" or (method in ("ddim", "ddpm") and eta > 0)
    if stochastic and generator is None:
        raise UsageError(f"The sampler {method} with eta {eta:g} draws noise; give a generator.")
    table = denoiser.schedule
    pairs = [(float(table.alpha[i]), float(table.sigma[i])) for i in steps] + [(1.0, 0.0)]
    x = start
    previous: torch.Tensor | None = None
    with torch.no_grad():
        for i, level in enumerate(steps):
            x0, eps = denoiser.estimate(x, level)
            last = i + 1 == len(steps)
            noise = None
            if stochastic and not last:
                assert generator is not None
                noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
            if last:
                x = x0
            elif method == "dpm++":
                x = _dpm_step(x, x0, previous, pairs[i - 1] if i else None, pairs[i], pairs[i + 1])
            elif method == "consistency":
                assert noise is not None
                x = pairs[i + 1][0] * x0 + pairs[i + 1][1] * noise
            else:
                x = ddim_step(x0, eps, pairs[i], pairs[i + 1], eta, noise)
            previous = x0
            if on_step is not None:
                state = Step(i, level, -1 if last else steps[i + 1], x, x0, eps)
                on_step(state)
                x = state.x
    return x


def _dpm_step(
    x: torch.Tensor,
    x0: torch.Tensor,
    x0_before: torch.Tensor | None,
    before: tuple[float, float] | None,
    here: tuple[float, float],
    there: tuple[float, float],
) -> torch.Tensor:
    """x' = (s'/s) x - a'(exp(-h) - 1) D, D = x0 + (x0 - x0_before)/(2r), h = lambda' - lambda, r = h_before/h.

    From a level without signal (lambda = -inf) the step is exact at first order: x' = a' x0 + (s'/s) x.
    """

    def lam(pair: tuple[float, float]) -> float:
        return log(pair[0] / pair[1]) if pair[0] > 0 else -inf

    h = lam(there) - lam(here)
    estimate = x0
    if before is not None and x0_before is not None and lam(before) > -inf:
        ratio = (lam(here) - lam(before)) / h
        estimate = x0 + (x0 - x0_before) / (2 * ratio)
    return (there[1] / here[1]) * x - there[0] * expm1(-h) * estimate
