"""Differentiable distances between pictures as people see them: multi-scale SSIM and distance of deep features.

Pictures are torch tensors, float N×3×H×W sRGB in [0, 1]; results are tensors (N,) on the same device, through which
gradients pass. For PSNR and single-scale SSIM on numpy arrays see `vestige.metrics.quality`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vestige.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

#: Exponents of the five scales, fine to coarse (Wang et al. 2003).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _check(a: Tensor, b: Tensor) -> None:
    import torch

    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        raise UsageError(f"Pictures must be torch tensors; got {type(a).__name__} and {type(b).__name__}.")
    if a.ndim != 4 or a.shape != b.shape or a.numel() == 0:
        raise UsageError(f"Pictures are compared as N×C×H×W of one shape; got {tuple(a.shape)} and {tuple(b.shape)}.")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise UsageError(f"Pictures must be floating point in [0, 1]; got {a.dtype} and {b.dtype}.")


def ms_ssim(original: Tensor, changed: Tensor, *, scales: int = 5) -> Tensor:
    """Multi-scale structural similarity of every picture, (N,) in [0, 1], 1 for equal pictures.

    Π_j cs_j^{w_j} · ssim_M^{w_M}: contrast and structure cs_j at every scale j (each half the size of the one before,
    11×11 Gaussian windows of deviation 1.5 that lie inside the picture), and at the coarsest, M, luminance too. With
    fewer than five scales the first weights are used, rescaled to sum to 1; such figures compare only among
    themselves. Negative factors count as 0. Raises UsageError for other shapes or sides too short for the scales (five
    need 176 pixels, three 44).
    Source: Z. Wang et al., Multi-scale structural similarity for image quality assessment, Asilomar 2003.

    >>> import torch
    >>> ms_ssim(torch.zeros(1, 3, 48, 48), torch.zeros(1, 3, 48, 48), scales=3).tolist()
    [1.0]
    """
    import torch
    from torch.nn import functional as F

    _check(original, changed)
    if not 1 <= scales <= len(SCALE_WEIGHTS):
        raise UsageError(f"Multi-scale similarity has 1 to {len(SCALE_WEIGHTS)} scales; got {scales}.")
    side, needed = min(original.shape[2:]), 11 * 2 ** (scales - 1)
    if side < needed:
        fitting = max((side // 11).bit_length(), 0)
        advice = f"use scales={fitting}" if fitting else "use larger pictures"
        raise UsageError(
            f"Similarity at {scales} scales needs sides of at least {needed} pixels, got {side}; {advice}."
        )
    weights = SCALE_WEIGHTS[:scales]
    x, y = original, changed
    value = original.new_ones(len(original))
    for index, weight in enumerate(weights):
        if index:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _local_similarity(x, y)
        last = index == scales - 1
        factor = (luminance * structure if last else structure).mean((1, 2, 3))
        # x^w has no finite slope at 0, so factors at or below it are cut off from the gradient.
        value = value * torch.where(factor > 0, factor.clamp_min(1e-12) ** (weight / sum(weights)), 0.0)
    return value


def _local_similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure of every window that lies inside the pictures, N×C×(H−10)×(W−10) each."""
    import torch
    from torch.nn import functional as F

    offsets = torch.arange(-5, 6, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    rows, columns = (
        kernel.view(1, 1, 11, 1).repeat(channels, 1, 1, 1),
        kernel.view(1, 1, 1, 11).repeat(channels, 1, 1, 1),
    )
    stacked = torch.cat([x, y, x * x, y * y, x * y])
    smooth = F.conv2d(F.conv2d(stacked, rows, groups=channels), columns, groups=channels)
    mean_x, mean_y, xx, yy, xy = smooth.chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    return luminance, structure


def perceptual_distance(
    original: Tensor,
    changed: Tensor,
    features: Callable[[Tensor], Sequence[Tensor]],
    *,
    layer_weights: Sequence[float] | None = None,
) -> Tensor:
    """Distance of deep features (LPIPS-like), (N,), 0 for equal pictures.

    d = Σ_l w_l · mean over positions of ‖û_l − v̂_l‖², where û, v̂ are the feature vectors over channels at a position,
    scaled to unit length. features: network from pictures to a list of maps N×C_l×H_l×W_l. layer_weights: w_l, by
    default all 1 (the published metric also learns a weight for every channel from people's judgements; this one does
    not, so its figures compare only for the same network). Raises UsageError for wrong shapes or numbers of weights.
    Source: R. Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.

    >>> import torch
    >>> a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    >>> perceptual_distance(a, a, lambda x: [x]).tolist(), bool(perceptual_distance(a, b, lambda x: [x]) > 0)
    ([0.0], True)
    """
    import torch

    _check(original, changed)
    # One pass over both, so that layers with batch statistics see them alike.
    maps = list(features(torch.cat([original, changed])))
    weights = [1.0] * len(maps) if layer_weights is None else list(layer_weights)
    n = len(original)
    if not maps or len(weights) != len(maps) or any(m.ndim != 4 or len(m) != 2 * n for m in maps):
        raise UsageError(
            f"The feature network must return maps N×C×H×W, one for each layer weight; got {len(maps)} maps and "
            f"{len(weights)} weights."
        )
    total = original.new_zeros(n)
    for weight, layer in zip(weights, maps, strict=True):
        # The small constant keeps the gradient finite where all channels are zero.
        unit = layer * torch.rsqrt(layer.square().sum(1, keepdim=True) + 1e-10)
        total = total + weight * (unit[:n] - unit[n:]).square().sum(1).mean((1, 2))
    return total
