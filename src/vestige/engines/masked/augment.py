"""Augmentation of whole batches at once; every number comes from one generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _uniform(n: int, low: float, high: float, generator: torch.Generator, device: torch.device) -> Tensor:
    drawn = torch.rand(n, generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(device)


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Tensor:
    """Cut a rectangle out of each image, resize it to the full size (bilinear) and flip it at random.

    images: N×3×H×W, float in [0, 1] or uint8 -> float32 of the same shape. scale: share of the area. ratio: width over
    height, drawn evenly in its logarithm; sides are capped at the image's.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    n, device = len(images), images.device
    area = _uniform(n, *scale, generator, device)
    aspect = _uniform(n, math.log(ratio[0]), math.log(ratio[1]), generator, device).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x = (2 * _uniform(n, 0, 1, generator, device) - 1) * (1 - width)
    y = (2 * _uniform(n, 0, 1, generator, device) - 1) * (1 - height)
    mirrored = torch.where(_uniform(n, 0, 1, generator, device) < flip, -1.0, 1.0)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width * mirrored, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def pad_crop(images: Tensor, generator: torch.Generator, *, pad: int = 4, flip: float = 0.5) -> Tensor:
    """Shift each image by up to ``pad`` pixels, the border mirrored, and flip it at random; pixels stay exact."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    n, channels, height, width = images.shape
    device = images.device
    down = _uniform(n, 0, 2 * pad + 1, generator, device).long()
    right = _uniform(n, 0, 2 * pad + 1, generator, device).long()
    columns = torch.arange(width, device=device)
    mirrored = (_uniform(n, 0, 1, generator, device) < flip)[:, None]
    columns = torch.where(mirrored, columns.flip(0), columns) + right[:, None]
    rows = torch.arange(height, device=device) + down[:, None]
    padded = F.pad(images, (pad,) * 4, mode="reflect")
    image = torch.arange(n, device=device)[:, None, None, None]
    return padded[image, torch.arange(channels, device=device)[None, :, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]  # fmt: skip


def colour_jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    p: float = 0.8,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image by random factors, with probability p.

    Factors are even in [1 - x, 1 + x]; the hue turns by up to ``hue`` of a full circle in YIQ.
    """
    n, device = len(images), images.device
    shape = (n, 1, 1, 1)
    factors = [_uniform(n, 1 - f, 1 + f, generator, device).view(shape) for f in (brightness, contrast, saturation)]
    angle = 2 * math.pi * _uniform(n, -hue, hue, generator, device)
    wanted = (_uniform(n, 0, 1, generator, device) < p).view(shape)
    x = (images * factors[0]).clamp(0, 1)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + factors[1] * (x - mean)).clamp(0, 1)
    luma = grey(x)
    x = (luma + factors[2] * (x - luma)).clamp(0, 1)
    yiq = _YIQ.to(device)
    turn = torch.zeros(n, 3, 3, device=device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    turned = ((torch.linalg.inv(yiq) @ turn @ yiq) @ x.flatten(2)).view_as(x).clamp(0, 1)
    return torch.where(wanted, turned, images)


def grey(images: Tensor) -> Tensor:
    """BT.601 luma, N×1×H×W."""
    return 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]


def one_of_three(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exactly one of: greyscale, solarise (invert what is above one half), Gaussian blur of σ in [0.1, 2] pixels."""
    n, device = len(images), images.device
    choice = _uniform(n, 0, 3, generator, device).long().view(n, 1, 1, 1)
    sigma = _uniform(n, 0.1, 2.0, generator, device)
    offsets = torch.arange(-4, 5, device=device)
    kernel = (-(offsets**2) / (2 * sigma[:, None] ** 2)).softmax(1).repeat_interleave(3, 0)
    flat = F.pad(images, (4, 4, 4, 4), mode="reflect" if min(images.shape[-2:]) > 4 else "replicate")
    flat = flat.view(1, -1, *flat.shape[-2:])
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=3 * n)
    blurred = F.conv2d(flat, kernel[:, None, None, :], groups=3 * n).view_as(images)
    solarised = torch.where(images > 0.5, 1 - images, images)
    return torch.where(choice == 0, grey(images).expand_as(images), torch.where(choice == 1, solarised, blurred))
