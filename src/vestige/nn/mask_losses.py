"""What networks that draw masks minimise: overlap and structure, each a mean over pictures.

logits, masks: N×1×H×W; masks are float in [0, 1]. All are computed in float32, since sums over a picture overflow half
precision.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 Σ p·q + 10⁻⁶) / max(Σ(p + q), 10⁻³), p = sigmoid(logits): 0 on a perfect hard answer.

    >>> import torch
    >>> abs(dice_loss(torch.full((1, 1, 2, 2), 30.0), torch.ones(1, 1, 2, 2)).item()) < 1e-6
    True
    """
    p, q = logits.float().sigmoid().flatten(1), masks.float().flatten(1)
    return (1 - (2 * (p * q).sum(1) + 1e-6) / (p + q).sum(1).clamp_min(1e-3)).mean()


def soft_iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (Σ p·q + 10⁻⁶) / (Σ (p + q - p·q) + 10⁻⁶): 0 also where nothing is marked and nothing is there."""
    p, q = logits.float().sigmoid().flatten(1), masks.float().flatten(1)
    both = (p * q).sum(1)
    return (1 - (both + 1e-6) / ((p + q).sum(1) - both + 1e-6)).mean()


@lru_cache(maxsize=16)
def _smoothing(length: int, window: int, sigma: float = 1.5) -> Tensor:
    """length×length: a Gaussian window along a line that is mirrored at its ends, float64."""
    reach = window // 2
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * sigma**2))
    matrix = torch.zeros(length, length, dtype=torch.float64)
    places = torch.arange(length)
    for offset, tap in zip(range(-reach, reach + 1), (taps / taps.sum()).tolist(), strict=True):
        source = (places + offset).abs()
        source = torch.where(source >= length, 2 * (length - 1) - source, source)
        matrix[places, source] += tap
    return matrix


def ssim_loss(logits: Tensor, masks: Tensor, window: int = 11) -> Tensor:
    """1 - SSIM of probabilities and masks, a Gaussian window with σ 1.5 (Wang et al., IEEE TIP 2004).

    The window is cut to the largest odd side that fits the picture. It is laid on by two matrix products, which on
    single channels cost a fraction of a convolution.
    """
    side = min(window, *logits.shape[2:])
    side -= (side + 1) % 2
    p, q = logits.float().sigmoid(), masks.float()
    down, across = (_smoothing(n, side).to(p) for n in logits.shape[2:])
    means = down @ torch.stack([p, q, p * p, q * q, p * q]) @ across.T
    mean_p, mean_q = means[0], means[1]
    square_p, square_q, product = mean_p.square(), mean_q.square(), mean_p * mean_q
    alike = (2 * product + 1e-4) * (2 * (means[4] - product) + 9e-4)
    most = (square_p + square_q + 1e-4) * (means[2] - square_p + means[3] - square_q + 9e-4)
    return 1 - (alike / most).mean()


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy + (1 - SSIM) + (1 - soft IoU), unit weights (BASNet, CVPR 2019)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), masks.float())
    return entropy + ssim_loss(logits, masks) + soft_iou_loss(logits, masks)


def balanced_bce(logits: Tensor, labels: Tensor, most: float = 100.0) -> Tensor:
    """Binary cross-entropy whose positives weigh (1 - p) / p, clamped to [1, most], p their share in each column.

    logits, labels: N×K.
    """
    share = labels.float().mean(0)
    weight = ((1 - share) / share.clamp_min(1e-6)).clamp(1, most)
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=weight)
