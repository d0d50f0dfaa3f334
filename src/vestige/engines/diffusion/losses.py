"""Training losses of Gaussian diffusion.

Sources: Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV 2023; Variational Diffusion Models,
NeurIPS 2021 (stratified times); Scaling Rectified Flow Transformers, ICML 2024 (logit-normal times).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.schedules import Prediction, Schedule, target


def min_snr_weight(snr: torch.Tensor, prediction: Prediction, gamma: float = 5.0) -> torch.Tensor:
    """Weight on the squared error of the network's own target: min(SNR, gamma) on the x0 error, converted.

    eps: min(SNR, g)/SNR; x0: min(SNR, g); v: min(SNR, g)/(SNR + 1); flow: 1. At SNR = 0 the eps weight is its limit, 1.

    >>> min_snr_weight(torch.tensor([0.5, 20.0]), "eps").tolist()
    [1.0, 0.25]
    """
    capped = snr.clamp(max=gamma)
    if prediction == "eps":
        return torch.where(snr > 0, capped / snr.clamp(min=torch.finfo(snr.dtype).tiny), 1.0)
    if prediction == "x0":
        return capped
    if prediction == "v":
        return capped / (snr + 1)
    if prediction == "flow":
        return torch.ones_like(snr)
    raise UsageError(f"There is no prediction {prediction!r}; choose eps, x0, v or flow.")


def stratified_levels(count: int, table: Schedule, generator: torch.Generator) -> torch.Tensor:
    """int64 (count,): levels spread evenly over the schedule, ((u + i/count) mod 1)·T with one random u."""
    start = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    u = (start + torch.arange(count, device=generator.device, dtype=torch.float64) / count) % 1
    return (u * len(table)).long().clamp(max=len(table) - 1)


def logit_normal_levels(count: int, table: Schedule, generator: torch.Generator) -> torch.Tensor:
    """int64 (count,): sigmoid(N(0, 1))·T, dense in the middle; the usual choice for flow matching."""
    u = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64).sigmoid()
    return (u * len(table)).long().clamp(max=len(table) - 1)


def diffusion_loss(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    table: Schedule,
    prediction: Prediction,
    generator: torch.Generator,
    *,
    gamma: float | None = 5.0,
    levels: torch.Tensor | None = None,
    weight_map: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean squared error of the prediction at random levels, a scalar.

    network: (x_t, time N) -> prediction. gamma: of `min_snr_weight`; None for weight 1. levels: chosen ones (N)
    instead of stratified (VP) or logit-normal (flow) draws. weight_map: N×1×H×W or alike, multiplies the error.
    """
    if levels is None:
        draw = logit_normal_levels if table.kind == "flow" else stratified_levels
        levels = draw(len(x0), table, generator)
    noise = torch.randn(x0.shape, generator=generator, device=generator.device, dtype=x0.dtype).to(x0.device)
    alpha, sigma = table.at(levels, x0)
    time = table.network_time(levels.cpu()).to(x0.device)
    error = (network(alpha * x0 + sigma * noise, time) - target(x0, noise, alpha, sigma, prediction)).square()
    if weight_map is not None:
        error = error * weight_map
    per_item = error.flatten(1).mean(1)
    if gamma is not None:
        per_item = per_item * min_snr_weight(table.snr[levels.cpu()], prediction, gamma).to(per_item)
    return per_item.mean()
