"""Marks for Safe-SD: QR-like patterns of random modules, as pictures and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError

#: Modules along a side of a mark, as in the smallest QR code.
GRID = 21


def modules(marks: Tensor, grid: int = GRID) -> Tensor:
    """Soft modules N×grid×grid of marks N×C×H×W in [0, 1]: the mean over each module's area, above 0 for white.

    >>> import torch
    >>> modules(torch.ones(1, 3, 64, 64)).allclose(torch.ones(1, 21, 21))
    True
    """
    grey = marks.mean(1)
    rows, columns = (_shares(length, grid).to(grey) for length in grey.shape[1:])
    return 2 * (rows @ grey @ columns.T) - 1


def _shares(length: int, grid: int) -> Tensor:
    """grid×length: what part of each module lies in each pixel; rows sum to 1."""
    edges = torch.linspace(0, length, grid + 1, dtype=torch.float64)
    pixels = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp_min(0) * grid / length).float()


def free_modules(grid: int = GRID) -> np.ndarray:
    """bool grid×grid: True where a mark's modules are free, outside the finder and timing patterns of a QR code."""
    free = np.ones((grid, grid), bool)
    if grid >= GRID:
        for rows, columns in (
            (slice(0, 8), slice(0, 8)),
            (slice(0, 8), slice(-8, None)),
            (slice(-8, None), slice(0, 8)),
        ):
            free[rows, columns] = False
        free[6, 8:-8] = free[8:-8, 6] = False
    return free


def qr_modules(bits: np.ndarray | Sequence[int], grid: int = GRID) -> np.ndarray:
    """QR-like modules, bool grid×grid, True for white: finder and timing patterns, and the bits repeated over the rest.

    bits: 1 to as many as there are free modules (239). Raises UsageError for other numbers. Such a mark is no code that
    telephones read: it has no masking, format bits or Reed-Solomon words; repetition is its error correction.

    >>> int(free_modules().sum()), qr_modules([1])[free_modules()].all()
    (239, np.True_)
    """
    free = free_modules(grid)
    sent = np.asarray(bits).astype(bool).reshape(-1)
    if not 1 <= len(sent) <= free.sum():
        raise UsageError(f"A mark of {grid}×{grid} modules holds 1 to {free.sum()} bits; got {len(sent)}.")
    made = np.ones((grid, grid), bool)
    if grid >= GRID:
        ring = np.maximum(*np.abs(np.mgrid[-3:4, -3:4]))
        finder = ring == 2  # white ring between the dark rim and the dark middle
        made[:7, :7] = made[:7, -7:] = made[-7:, :7] = finder
        line = np.arange(8, grid - 8) % 2 == 1
        made[6, 8:-8] = made[8:-8, 6] = line
    made[free] = sent[np.arange(free.sum()) % len(sent)]
    return made


def repeated_bits(soft: np.ndarray, length: int) -> np.ndarray:
    """The bits of `qr_modules` by soft majority over their repetitions: soft modules grid×grid -> bool (length,)."""
    values = np.asarray(soft)[free_modules(len(soft))]
    if not 1 <= length <= len(values):
        raise UsageError(
            f"A mark of {len(soft)}×{len(soft)} modules holds 1 to {len(values)} bits; asked for {length}."
        )
    return np.array([values[i::length].sum() > 0 for i in range(length)])


def mark_picture(squares: np.ndarray, size: int) -> np.ndarray:
    """Modules as a picture float32 3×size×size in [0, 1]; a pixel on an edge is mixed by area."""
    import cv2

    large = np.asarray(squares, np.float32).repeat(size, 0).repeat(size, 1)
    return np.repeat(cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)[None], 3, 0)


def random_marks(count: int, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Marks with every free module drawn on its own: modules bool count×21×21 and pictures float32 count×3×S×S."""
    drawn = [qr_modules(generator.integers(0, 2, int(free_modules().sum()))) for _ in range(count)]
    return np.stack(drawn), np.stack([mark_picture(squares, size) for squares in drawn])


def modules_right(soft: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,): share of the free modules read right, before any error correction.

    soft: N×21×21, above 0 for white. wanted: bool N×21×21.
    """
    free = free_modules(wanted.shape[-1])
    return ((np.asarray(soft) > 0) == wanted)[:, free].mean(1)


class ImageInImage(nn.Module):
    """The rival that works after the fact: h = x + 0.1 tanh H([x, P(w)]), ŵ = R(h), a mark as a picture in a picture.

    Source: Hiding Images in Plain Sight: Deep Steganography, NeurIPS 2017; small here, and trained through distortions.

    >>> net = ImageInImage(4)
    >>> net.show(net.embed(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))).shape
    torch.Size([1, 3, 16, 16])
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.prepare = _convolutions(3, width, 8, 2)
        self.hide, self.show = _convolutions(11, width, 3, 3), _convolutions(3, width, 3, 4)

    def embed(self, images: Tensor, marks: Tensor) -> Tensor:
        """Pictures with the marks in them, N×3×H×W each."""
        return images + 0.1 * torch.tanh(self.hide(torch.cat([images, self.prepare(marks)], 1)))


def _convolutions(inside: int, width: int, outside: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(inside if i == 0 else width, width, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, outside, 3, 1, 1))
