"""Evidence that a square of pixels was generated, in seven groups of measurements that need no training.

residual: how strong, how peaked and how correlated with themselves the rich model's residuals are, and those of the
colours with each other. spectrum: power at every radius of frequency and at the places where up-sampling leaves peaks.
grid: how differently the places of 2×2, 4×4 and 8×8 blocks behave. texture: what plain and busy patches have
differently. patterns: how often short runs of rounded residuals occur. perturbation: how far faint noise and blur move
the square in a frozen network. reconstruction: what an autoencoder that made none of the pictures gives back of it.

Sources: Rich Models for Steganalysis of Digital Images, IEEE TIFS 2012 (residuals, patterns); Watch your
Up-Convolution, CVPR 2020 (spectrum); Rethinking the Up-Sampling Operations in CNN-based Generative Network, CVPR 2024
(grid); PatchCraft, arXiv 2311.12397 (texture); RIGID, arXiv 2405.20112 (perturbation); AEROBLADE, CVPR 2024
(reconstruction).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.learned import WEIGHTS
from vestige.forensics.rigid import RIGID
from vestige.nn.residual import neighbour_residual, srm_kernels

#: Residuals of the rich model that textures are compared in.
_TEXTURE = (0, 2, 4, 8, 9, 12, 20, 24, 28, 29)
_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 3), (3, 0), (0, 4), (4, 0))
_RINGS = 20
#: Frequencies in cycles per pixel where up-sampling by two and four repeats the spectrum.
_PEAKS = ((0.5, 0), (0, 0.5), (0.5, 0.5), (0.25, 0), (0, 0.25), (0.25, 0.25), (0.25, 0.5), (0.5, 0.25))
#: The autoencoder that pictures are given back by: part of a shipped generator that is in no family of fakes.
_REFERENCE = WEIGHTS / "safe_sd" / "vae"


@cache
def _kernels() -> Tensor:
    return torch.from_numpy(srm_kernels(30).copy())


def _luma(x: Tensor) -> Tensor:
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _profile(logs: Tensor) -> Tensor:
    """N×K -> N×(K + 1): deviations from the mean, and the mean."""
    mean = logs.mean(1, keepdim=True)
    return torch.cat([logs - mean, mean], 1)


def _residual(x: Tensor) -> Tensor:
    r = F.conv2d(_luma(x), _kernels()[:, None])
    size = r.abs()
    mean, root = size.mean((2, 3)), r.square().mean((2, 3)).sqrt()
    found = [_profile(torch.log(mean + 0.1)), torch.log((root + 0.1) / (mean + 0.1)), (size < 0.5).float().mean((2, 3))]
    for k in (0, 2, 8, 28, 29):
        q = r[:, k]
        energy = q.square().mean((1, 2)) + 0.05
        height, width = q.shape[1:]
        lagged = [(q[:, dy:, dx:] * q[:, : height - dy, : width - dx]).mean((1, 2)) / energy for dy, dx in _LAGS]
        found.append(torch.stack(lagged, 1))
    planes = F.conv2d(x.flatten(0, 1)[:, None], _kernels()[[28, 0]][:, None]).unflatten(0, (len(x), 3))
    energy = planes.square().mean((3, 4)) + 0.1
    for a, b in ((0, 1), (1, 2), (0, 2)):
        found.append((planes[:, a] * planes[:, b]).mean((2, 3)) / (energy[:, a] * energy[:, b]).sqrt())
    found += [torch.log(energy[:, 0] / energy[:, 1]), torch.log(energy[:, 2] / energy[:, 1])]
    for a in (2, 0):
        colour = x[:, a] - x[:, 1]
        steps = [colour.diff(dim=d).abs().mean((1, 2)) + 0.1 for d in (1, 2)]
        double = [(colour[:, 2:] - colour[:, :-2]).abs(), (colour[:, :, 2:] - colour[:, :, :-2]).abs()]
        ratios = [torch.log((d.mean((1, 2)) + 0.1) / s) for d, s in zip(double, steps, strict=True)]
        found.append(torch.stack([*ratios, torch.log(steps[0] + steps[1])], 1))
    return torch.cat(found, 1)


def _spectrum(x: Tensor) -> Tensor:
    y = _luma(x)[:, 0]
    height, width = y.shape[1:]
    taper = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    power = torch.fft.rfft2((y - y.mean((1, 2), keepdim=True)) * taper).abs().square() * (64 * 64 / (height * width))
    logs = torch.log(power + 1)
    down, right = torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width)[None]
    radius = (down.square() + right.square()).sqrt()
    ring = F.one_hot((radius / 0.7072 * _RINGS).long().clamp(max=_RINGS - 1), _RINGS).float()
    rings = torch.einsum("nhw,hwb->nb", logs, ring) / ring.sum((0, 1))
    high = radius > 0.25
    along = high & ((down < 0.06) | (right < 0.06))
    across = high & ((down - right).abs() < 0.06)
    usual = logs[:, high].mean(1)
    found = [_profile(rings), rings.diff(n=2, dim=1)]
    found += [(logs[:, part].mean(1) - usual)[:, None] for part in (along, across)]
    for u, v in _PEAKS:
        near = ((down - u).abs() < 0.1) & ((right - v).abs() < 0.1)
        at = ((down - u).abs() < 0.025) & ((right - v).abs() < 0.025)
        peak = torch.log(power[:, at].mean(1) + 1)
        found.append((peak - logs[:, near & ~at].mean(1))[:, None])
    return torch.cat(found, 1)


def _grid(x: Tensor) -> Tensor:
    y, found = _luma(x), []
    for k in (0, 2, 28):
        size = F.conv2d(y, _kernels()[k][None, None]).abs()[:, 0].clamp(max=20)
        height, width = (side // 8 * 8 for side in size.shape[1:])
        for period in (2, 4, 8):
            cut = size[:, :height, :width].unflatten(1, (-1, period)).unflatten(3, (-1, period))
            places = cut.mean((1, 3))
            places = places / (places.mean((1, 2), keepdim=True) + 0.02)
            spread = [places.var((1, 2)), places.mean(1).var(1), places.mean(2).var(1)]
            found.append(torch.log(torch.stack(spread, 1) + 1e-4))
    even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
    blocks = neighbour_residual(even).unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    right, below, diagonal = blocks[:, :, :, 0, :, 1], blocks[:, :, :, 1, :, 0], blocks[:, :, :, 1, :, 1]
    others = torch.stack([right, below, diagonal])
    energy = others.square().mean((2, 3, 4)) + 0.1
    found.append(torch.log(torch.stack([energy[2] / energy[0], energy[2] / energy[1], energy[0] + energy[1]], 1)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        found.append(((others[a] * others[b]).mean((1, 2, 3)) / (energy[a] * energy[b]).sqrt())[:, None])
    found.append((others.abs() < 0.6).float().mean((2, 3, 4)).T)
    bent = (diagonal - right - below).square().mean((1, 2, 3)) + 0.1
    found.append(torch.log(bent / energy[2])[:, None])
    return torch.cat(found, 1)


def _texture(x: Tensor, patch: int = 16) -> Tensor:
    y = _luma(x)
    r = F.conv2d(F.pad(y, (2,) * 4, mode="reflect"), _kernels()[list(_TEXTURE)][:, None])
    height, width = (side // patch * patch for side in y.shape[2:])

    def means(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps[:, :, :height, :width], patch).flatten(2)

    steps = y.diff(dim=3, append=y[..., -1:]).abs() + y.diff(dim=2, append=y[:, :, -1:]).abs()
    order = means(steps)[:, 0].argsort(1)
    third = order.shape[1] // 3
    right = F.pad(r[..., 1:] * r[..., :-1], (0, 1))
    below = F.pad(r[:, :, 1:] * r[:, :, :-1], (0, 0, 0, 1))
    measured = [means(maps) for maps in (r.abs(), r.square(), right, below)]
    found = []
    for chosen in (order[:, :third], order[:, -third:]):
        where = chosen[:, None].expand(-1, len(_TEXTURE), -1)
        size, square, across, down = (maps.gather(2, where).mean(2) for maps in measured)
        peaked = torch.log((square.sqrt() + 0.1) / (size + 0.1))
        lags = [across / (square + 0.05), down / (square + 0.05)]
        found.append(torch.cat([_profile(torch.log(size + 0.1)), peaked, *lags], 1))
    return torch.cat([*found, found[0] - found[1]], 1)


@cache
def _orbits() -> tuple[Tensor, Tensor]:
    """(the four runs of three that are one by sign and direction, 4×125; the first of each, K)."""
    a, b, c = (torch.arange(125) // 25, torch.arange(125) // 5 % 5, torch.arange(125) % 5)
    same = torch.stack([25 * p + 5 * q + r for p, q, r in ((a, b, c), (c, b, a))])
    same = torch.cat([same, 124 - same])
    return same, (same.min(0).values == torch.arange(125)).nonzero()[:, 0]


def _patterns(x: Tensor) -> Tensor:
    y, found = _luma(x).round(), []
    same, first = _orbits()
    for k in (8, 28, 0, 29):
        kernel = _kernels()[k]
        unit = kernel / kernel.abs().max() if k in (0, 8) else kernel
        r = F.conv2d(y, unit[None, None])[:, 0].round().clamp(-2, 2).long() + 2
        shares = torch.zeros(len(x), 125)
        for turned in (r, r.transpose(1, 2)):
            runs = (25 * turned[:, :, :-2] + 5 * turned[:, :, 1:-1] + turned[:, :, 2:]).flatten(1)
            shares.scatter_add_(1, runs, torch.full(runs.shape, 0.5 / runs.shape[1]))
        found.append(torch.log(shares[:, same].mean(1)[:, first] + 1e-3))
    return torch.cat(found, 1)


@cache
def _probes() -> tuple[RIGID, ...]:
    return RIGID(lambda_=0.1, draws=1), RIGID(mode="blur")


def _perturbation(x: Tensor) -> Tensor:
    top, left = ((side - 32) // 2 for side in x.shape[2:])  # the middle is enough, and four times as fast
    middle = x[:, :, top : top + 32, left : left + 32] / 255
    moved = [torch.from_numpy(np.log(probe.score(middle) + 1e-6)) for probe in _probes()]
    return torch.stack([*moved, moved[0] - moved[1]], 1).float()


@cache
def _reference() -> Any:
    from vestige.engines.diffusion.autoencoders import load_autoencoder

    return load_autoencoder(_REFERENCE).eval()


def _reconstruction(x: Tensor) -> Tensor:
    from vestige.engines.diffusion.latent import decode_latents, encode_images

    multiple = 8
    a = x[:, :, : x.shape[2] // multiple * multiple, : x.shape[3] // multiple * multiple] / 255
    b, found = decode_latents(_reference(), encode_images(_reference(), a, batch=64), batch=64), []
    for _ in range(3):
        steps = [(a.diff(dim=d), b.diff(dim=d)) for d in (2, 3)]
        sizes = [torch.stack([s, t, s - t]) for s, t in steps]
        own, given, apart = sum((x.abs().mean((2, 3, 4)) for x in sizes), torch.tensor(1e-3))
        found += [torch.log(apart), torch.log(apart / own), torch.log(given / own)]
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return torch.stack(found, 1)


GROUPS: dict[str, Callable[[Tensor], Tensor]] = {
    "residual": _residual,
    "spectrum": _spectrum,
    "grid": _grid,
    "texture": _texture,
    "patterns": _patterns,
    "perturbation": _perturbation,
    "reconstruction": _reconstruction,
}


@cache
def group_sizes() -> dict[str, int]:
    """How many measurements each group has."""
    x = torch.zeros(1, 3, 48, 48)
    with torch.no_grad():
        return {name: measure(x).shape[1] for name, measure in GROUPS.items()}


@torch.no_grad()
def evidence(images: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """uint8 N×3×H×W -> float32 N×F, the groups one after another in the order of `GROUPS`.

    Raises UsageError for other arrays and for sides below 48 pixels.

    >>> evidence(np.zeros((2, 3, 48, 48), np.uint8)).shape == (2, sum(group_sizes().values()))
    True
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or min(images.shape[2:]) < 48:
        raise UsageError(f"Evidence is measured in uint8 N×3×H×W from 48 pixels on; got {images.dtype} {images.shape}.")
    parts = []
    for at in range(0, len(images), batch):
        x = torch.from_numpy(np.ascontiguousarray(images[at : at + batch])).float()
        parts.append(torch.cat([measure(x) for measure in GROUPS.values()], 1).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, sum(group_sizes().values())), np.float32)
