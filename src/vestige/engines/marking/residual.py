"""Marks of one size on pictures of every size: the change is computed small and added at full size.

    r = E(x↓) − x↓,     x_w = clip(x + strength · m · r↑)

with x↓ the picture squeezed to the embedder's square and r↑ the change stretched back (bicubic), whatever the aspect.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.marking.model import BitReading, EmbedderReader
from vestige.nn.jnd import REACH, jnd

#: Pixels of a full-size picture that are changed at once; bounds the memory beside the picture.
_STRIP = 2_000_000


def to_native(images: Tensor, size: int) -> Tensor:
    """Squeeze N×3×H×W to N×3×size×size: bicubic with anti-aliasing, clipped to [0, 1].

    >>> to_native(torch.zeros(1, 3, 40, 60), 16).shape
    torch.Size([1, 3, 16, 16])
    """
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def masks_to_native(masks: Tensor, size: int) -> Tensor:
    """Squeeze bool N×1×H×W to N×1×size×size: True where at least half of the area is."""
    if masks.shape[2:] == (size, size):
        return masks
    return F.adaptive_avg_pool2d(masks.float(), size) >= 0.5


def stretching(source: int, target: int, device: torch.device | None = None) -> Tensor:
    """The matrix target×source that resamples bicubically along one side; with anti-aliasing when it shrinks.

    >>> stretching(4, 4).equal(torch.eye(4))
    True
    """
    impulses = torch.eye(source, device=device)[None, None]
    return F.interpolate(impulses, (target, source), mode="bicubic", antialias=target < source)[0, 0]


@torch.no_grad()
def add_residual(
    images: Tensor, residual: Tensor, *, masks: Tensor | None = None, strength: float = 1.0, limit: float | None = None
) -> Tensor:
    """x + strength · m · r↑, clipped to [0, 1]; works in strips, without gradients.

    images: N×3×H×W in [0, 1]. residual: N×3×S×S. masks: bool N×1×H×W; outside them nothing changes. limit: the change
    of a pixel is at most so many just-noticeable differences of the full-size picture (see `vestige.nn.jnd`).
    """
    height, width = images.shape[2:]
    down = stretching(residual.shape[2], height, images.device)
    across = stretching(residual.shape[3], width, images.device).T
    rows = max(1, _STRIP // width)
    marked = torch.empty_like(images)
    for index in range(len(images)):
        picture, change = images[index : index + 1], residual[index].to(images)
        for top in range(0, height, rows):
            end = min(top + rows, height)
            strip = strength * (down[top:end] @ change @ across)[None]
            if limit is not None:
                first, last = max(top - REACH, 0), min(end + REACH, height)
                bound = limit * jnd(picture[:, :, first:last])[:, :, top - first : end - first]
                strip = torch.minimum(torch.maximum(strip, -bound), bound)
            if masks is not None:
                strip = strip * masks[index : index + 1, :, top:end]
            marked[index, :, top:end] = (picture[:, :, top:end] + strip)[0].clamp(0, 1)
    return marked


@torch.no_grad()
def embed_at_native(
    model: EmbedderReader,
    images: Tensor,
    bits: Tensor,
    *,
    masks: Tensor | None = None,
    strength: float = 1.0,
    limit: float | None = None,
) -> Tensor:
    """Mark pictures of any size and aspect: N×3×H×W in [0, 1], bits N×L -> the same shape, on the same device.

    masks, strength, limit: as in `add_residual`. Raises UsageError when shapes do not fit together.
    """
    check_pictures(images)
    if masks is not None and (masks.dtype != torch.bool or masks.shape != (len(images), 1, *images.shape[2:])):
        raise UsageError(f"Masks must be bool {(len(images), 1, *images.shape[2:])}; got {tuple(masks.shape)}.")
    if bits.shape != (len(images), model.bits):
        raise UsageError(f"Messages must have shape {(len(images), model.bits)}; got {tuple(bits.shape)}.")
    device = next(model.parameters()).device
    small = to_native(images.float(), model.size).to(device)
    where = None if masks is None else masks_to_native(masks, model.size).to(device)
    residual = (model.embed(small, bits.float().to(device), where).float() - small).to(images.device)
    return add_residual(images, residual, masks=masks, strength=strength, limit=limit)


@torch.no_grad()
def read_at_native(model: EmbedderReader, images: Tensor) -> BitReading:
    """Read pictures of any size; the presence map, where there is one, has the model's own size."""
    check_pictures(images)
    found = model.read(to_native(images.float(), model.size).to(next(model.parameters()).device))
    return BitReading(*(None if part is None else part.float().to(images.device) for part in found))  # type: ignore[arg-type]


def check_pictures(images: Tensor) -> None:
    """Raises UsageError unless images are a float tensor N×3×H×W with pixels."""
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0 or not images.is_floating_point():
        raise UsageError(f"Pictures must be float N×3×H×W in [0, 1]; got {images.dtype} {tuple(images.shape)}.")
