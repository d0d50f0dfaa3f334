"""Noise schedules and the four things a denoiser may predict.

A schedule is a table of (alpha_i, sigma_i), i = 0 (almost clean) ... T-1 (almost noise), with

    x_i = alpha_i x0 + sigma_i e,    e ~ N(0, 1),    SNR_i = alpha_i² / sigma_i²,    lambda_i = log(alpha_i / sigma_i).

Tables are computed and kept in float64: near i = 0 float32 loses lambda. Variance-preserving (VP) schedules have
alpha² + sigma² = 1; flow matching has alpha = 1 - s, sigma = s.

Predictions: ``eps`` = e; ``x0``; ``v`` = alpha e - sigma x0 (VP only); ``flow`` = e - x0.

Sources: Denoising Diffusion Probabilistic Models, NeurIPS 2020 (linear); Improved DDPM, ICML 2021 (cosine);
Progressive Distillation, ICLR 2022 (v); Common Diffusion Noise Schedules and Sample Steps are Flawed, WACV 2024
(zero terminal SNR); Flow Matching for Generative Modeling, ICLR 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from vestige.core.errors import UsageError

Prediction = Literal["eps", "x0", "v", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("eps", "x0", "v", "flow")
Spacing = Literal["trailing", "leading", "linspace", "lambda"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha, sigma: float64 tables of T levels on the CPU; times: what the network is told at each
    level, int64 (its number) or float64.

    kind: "vp" or "flow". name and options describe it for `diffusers_config`.
    """

    alpha: torch.Tensor = field(repr=False)
    sigma: torch.Tensor = field(repr=False)
    times: torch.Tensor = field(repr=False)
    kind: Literal["vp", "flow"] = "vp"
    name: str = "cosine"
    options: tuple[tuple[str, float], ...] = ()

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def snr(self) -> torch.Tensor:
        """float64 (T,): alpha² / sigma²."""
        return (self.alpha / self.sigma) ** 2

    @property
    def log_snr(self) -> torch.Tensor:
        """float64 (T,): lambda = log(alpha / sigma), falling."""
        return torch.log(self.alpha) - torch.log(self.sigma)

    def at(self, index: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(alpha, sigma) at levels ``index`` (N), shaped and typed to multiply ``like`` (N×...)."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        where = index.to(self.alpha.device)
        return tuple(table[where].to(like.device, like.dtype).reshape(shape) for table in (self.alpha, self.sigma))  # type: ignore[return-value]

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """alpha x0 + sigma e at levels ``index`` (N)."""
        alpha, sigma = self.at(index, x0)
        return alpha * x0 + sigma * noise

    def network_time(self, index: torch.Tensor | int) -> torch.Tensor:
        """What the network is told at levels ``index``: their number on discrete schedules, 1000·sigma on flows."""
        times = self.times[index]
        return times.float() if times.is_floating_point() else times

    def zero_terminal(self) -> Schedule:
        """The same schedule stretched so that the last level holds no signal: sqrt(abar) is shifted and scaled.

        Only v and flow predictions are defined there. Raises UsageError for flow schedules, which end so already.
        """
        if self.kind != "vp":
            raise UsageError("A flow schedule already ends in pure noise; use it as it is.")
        first, last = self.alpha[0], self.alpha[-1]
        alpha = (self.alpha - last) * first / (first - last)
        return replace(
            self, alpha=alpha, sigma=torch.sqrt(1 - alpha**2), options=(*self.options, ("zero_terminal", 1.0))
        )

    def diffusers_config(self) -> dict[str, object]:
        """The entries of a diffusers scheduler config that describe this schedule."""
        if self.kind == "flow":
            return {"num_train_timesteps": len(self), "shift": dict(self.options).get("shift", 1.0)}
        options = dict(self.options)
        beta = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}.get(self.name)
        if beta is None:
            raise UsageError(f"diffusers has no schedule {self.name!r}; use linear, scaled_linear or cosine.")
        config: dict[str, object] = {"num_train_timesteps": len(self), "beta_schedule": beta}
        if "start" in options:
            config |= {"beta_start": options["start"], "beta_end": options["end"]}
        if "zero_terminal" in options:
            config["rescale_betas_zero_snr"] = True
        return config


def from_betas(betas: torch.Tensor, name: str, **options: float) -> Schedule:
    """A VP schedule from float64 betas (T,): alpha² = prod(1 - beta)."""
    abar = torch.cumprod(1 - betas.double(), 0)
    return Schedule(abar.sqrt(), (1 - abar).sqrt(), torch.arange(len(betas)), "vp", name, tuple(options.items()))


def linear(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
    """beta from ``start`` to ``end`` in equal steps."""
    return from_betas(torch.linspace(start, end, steps, dtype=torch.float64), "linear", start=start, end=end)


def scaled_linear(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
    """sqrt(beta) from sqrt(start) to sqrt(end) in equal steps: the schedule of latent diffusion."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return from_betas(betas, "scaled_linear", start=start, end=end)


def cosine(steps: int = 1000, offset: float = 0.008) -> Schedule:
    """abar(u) = cos²((u + s)/(1 + s)·π/2) / cos²(s/(1 + s)·π/2); beta = 1 - abar_{i+1}/abar_i, at most 0.999."""
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - curve[1:] / curve[:-1]).clamp(max=0.999), "cosine")


def continuous_vp(steps: int = 100_000, first: float = 1e-3) -> Schedule:
    """The VP diffusion log alpha(t) = -19.9 t²/4 - 0.1 t/2 tabulated finely on t = first ... 1."""
    t = torch.linspace(first, 1, steps, dtype=torch.float64)
    log_alpha = -19.9 * t**2 / 4 - 0.1 * t / 2
    return Schedule(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt(), t * 1000, "vp", "continuous_vp")


def flow(steps: int = 1000, shift: float = 1.0) -> Schedule:
    """Straight paths: alpha = 1 - s, sigma = s, s = shift·u/(1 + (shift - 1)·u) for u = 1/T ... 1."""
    u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    s = shift * u / (1 + (shift - 1) * u)
    return Schedule(1 - s, s, 1000 * s, "flow", "flow", (("shift", shift),))


SCHEDULES = {"linear": linear, "scaled_linear": scaled_linear, "cosine": cosine, "flow": flow}


def schedule(name: str, **options: float) -> Schedule:
    """The schedule of that name. Raises UsageError for an unknown one.

    >>> round(float(schedule("cosine").log_snr[500]), 2)
    -0.02
    """
    if name not in SCHEDULES:
        raise UsageError(f"There is no schedule {name!r}; choose one of {', '.join(SCHEDULES)}.")
    return SCHEDULES[name](**options)  # type: ignore[operator]


def to_x0(
    output: torch.Tensor, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, prediction: Prediction
) -> torch.Tensor:
    """The clean image: eps (x - sigma e)/alpha; v alpha x - sigma v; flow (x - sigma u)/(alpha + sigma).

    The v form holds for alpha² + sigma² = 1. eps is undefined where alpha = 0.
    """
    if prediction == "x0":
        return output
    if prediction == "eps":
        return (x - sigma * output) / alpha
    if prediction == "v":
        return alpha * x - sigma * output
    if prediction == "flow":
        return (x - sigma * output) / (alpha + sigma)
    raise UsageError(f"There is no prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}.")


def to_eps(
    output: torch.Tensor, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, prediction: Prediction
) -> torch.Tensor:
    """The noise: x0 (x - alpha x0)/sigma; v sigma x + alpha v; flow (x + alpha u)/(alpha + sigma)."""
    if prediction == "eps":
        return output
    if prediction == "x0":
        return (x - alpha * output) / sigma
    if prediction == "v":
        return sigma * x + alpha * output
    if prediction == "flow":
        return (x + alpha * output) / (alpha + sigma)
    raise UsageError(f"There is no prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}.")


def target(
    x0: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, prediction: Prediction
) -> torch.Tensor:
    """What a perfect network would output: the prediction made from x0 and e themselves."""
    if prediction == "x0":
        return x0
    if prediction == "eps":
        return noise
    if prediction == "v":
        return alpha * noise - sigma * x0
    if prediction == "flow":
        return noise - x0
    raise UsageError(f"There is no prediction {prediction!r}; choose one of {', '.join(PREDICTIONS)}.")


def grid(table: Schedule, steps: int, spacing: Spacing = "trailing") -> torch.Tensor:
    """int64, at most (steps,): falling levels at which a sampler calls the network.

    trailing: T/n·k - 1 for k = n ... 1, starts at pure noise (diffusers' "trailing"); leading: (T // n)·k + 1, as
    Stable Diffusion does (diffusers' "leading" with steps_offset 1); linspace: T-1 ... 0; lambda: nearest to equal
    steps in log SNR, where high-order solvers keep their order. Raises UsageError for steps outside 1 ... T.
    """
    size = len(table)
    if not 1 <= steps <= size:
        raise UsageError(f"steps is {steps}; the schedule allows 1 to {size}.")
    if spacing == "trailing":
        levels = (torch.arange(steps, 0, -1, dtype=torch.float64) * size / steps).round().long() - 1
    elif spacing == "leading":
        levels = (torch.arange(steps).flip(0) * (size // steps) + 1).clamp(max=size - 1)
    elif spacing == "linspace":
        levels = torch.linspace(size - 1, 0, steps, dtype=torch.float64).round().long()
    elif spacing == "lambda":
        log_snr = table.log_snr
        finite = torch.isfinite(log_snr)
        rising = log_snr.flip(0)
        wanted = torch.linspace(float(log_snr[finite][-1]), float(log_snr[0]), steps, dtype=torch.float64)
        right = torch.searchsorted(rising.contiguous(), wanted).clamp(1, size - 1)
        nearer = right - ((wanted - rising[right - 1]) < (rising[right] - wanted)).long()
        levels = size - 1 - nearer
    else:
        raise UsageError(f"There is no spacing {spacing!r}; choose trailing, leading, linspace or lambda.")
    return torch.unique_consecutive(levels)
