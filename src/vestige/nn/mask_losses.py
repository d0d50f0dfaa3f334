"""What networks that draw masks minimise: overlap and structure, each a mean over pictures.

logits, masks: N×1×H×W; masks are float in [0, 1]. All are computed in float32, since sums over a picture overflow half
precision.
"""

from __future__ import annotations

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


def ssim_loss(logits: Tensor, masks: Tensor, window: int = 11) -> Tensor:
    """1 - SSIM of probabilities and masks, a Gaussian window with σ 1.5 (Wang et al., IEEE TIP 2004).

    The window is cut to the largest odd side that fits the picture.
    """
    from kornia.metrics import ssim

    side = min(window, *logits.shape[2:])
    return 1 - ssim(logits.float().sigmoid(), masks.float(), side - (side + 1) % 2).mean()


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
