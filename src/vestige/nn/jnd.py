"""How much each pixel may change before people notice: a map from background brightness and local contrast.

Sources: C.-H. Chou, Y.-C. Li, A perceptually tuned subband image coder based on the measure of just-noticeable-
distortion profile, IEEE TCSVT 1995 (brightness); J. Wu et al., Enhanced just noticeable difference model for images
with pattern complexity, IEEE TIP 2017 (contrast, in the form that learned marks use); X. K. Yang et al., Just
noticeable distortion model and its applications in video coding, Signal Processing: Image Communication 2005 (sum).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError

#: Rec. 601 luma.
_LUMA = (0.299, 0.587, 0.114)
#: Pixels of context on every side that the map of a pixel depends on.
REACH = 2


def luminance(images: Tensor) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B in grey levels of 0 … 255: N×3×H×W in [0, 1] -> N×1×H×W."""
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    return 255 * (images * weights[:, None, None]).sum(1, keepdim=True)


def jnd(images: Tensor) -> Tensor:
    """Just-noticeable difference of every pixel, float N×1×H×W on the [0, 1] scale.

    J = max(LA + CM − 0.3 min(LA, CM), 0) / 255 in the luminance Y of 0 … 255, with

    LA = 17 (1 − √(B/127)) for B ≤ 127, else 3 (B − 127)/128 + 3;    CM = 0.117 · 16 g^2.4 / (g² + 26²),

    B the weighted mean of the 24 pixels around (two inside, one on the rim, /32) and g the Sobel gradient's length.
    Gradients reach the pictures; edges repeat. images: float N×3×H×W sRGB in [0, 1]; raises UsageError otherwise.

    >>> (jnd(torch.ones(1, 3, 8, 8)) * 255)[0, 0, 4, 4].round().item()  # white: 3 · 128/128 + 3
    6.0
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0 or not images.is_floating_point():
        raise UsageError(f"Pictures must be float N×3×H×W in [0, 1]; got {images.dtype} {tuple(images.shape)}.")
    luma = F.pad(luminance(images), (REACH,) * 4, mode="replicate")
    background = F.conv2d(luma, _background(luma)) / 32
    horizontal = F.conv2d(luma[:, :, 1:-1, 1:-1], _sobel(luma))
    vertical = F.conv2d(luma[:, :, 1:-1, 1:-1], _sobel(luma).transpose(2, 3))
    # Written in g², whose powers have a gradient at 0 where those of g have none.
    square = horizontal**2 + vertical**2
    # The floor keeps the slope of the root finite at black.
    dark = 17 * (1 - (background / 127).clamp_min(1e-12).sqrt())
    adaptation = torch.where(background <= 127, dark, 3 * (background - 127) / 128 + 3)
    contrast = 0.117 * 16 * square**1.2 / (square + 26**2)
    return (adaptation + contrast - 0.3 * torch.minimum(adaptation, contrast)).clamp_min(0) / 255


def _background(like: Tensor) -> Tensor:
    kernel = torch.ones(1, 1, 5, 5, dtype=like.dtype, device=like.device)
    kernel[..., 1:4, 1:4] = 2
    kernel[..., 2, 2] = 0
    return kernel


def _sobel(like: Tensor) -> Tensor:
    rows = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=like.dtype, device=like.device)
    return rows[None, None]
