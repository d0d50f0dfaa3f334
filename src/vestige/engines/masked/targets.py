"""What is predicted about a token: pixels, oriented gradients, its place, or what a teacher sees in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.vit import ViT, ViTConfig, patchify


class PixelTarget(nn.Module):
    """The normalised pixels of each patch: (x - mean) / √(var + 1e-6) over the patch's own p²·3 values (norm), or x.

    forward(images N×3×H×W in [0, 1], patches N×L×(p²·3) as the encoder normalised them) -> N×L×dim. The variance is
    the unbiased one, as in the published code.

    Source: Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.
    """

    def __init__(self, config: ViTConfig, norm: bool = True) -> None:
        super().__init__()
        self.norm = norm
        self.dim = 3 * config.patch_size**2

    def forward(self, images: Tensor, patches: Tensor) -> Tensor:
        if not self.norm:
            return patches
        variance, mean = torch.var_mean(patches, -1, keepdim=True)
        return (patches - mean) * (variance + 1e-6).rsqrt()


class HogTarget(nn.Module):
    """Histograms of oriented gradients for each channel, over square cells inside each patch.

    Central differences (zero at the border of the image); the magnitude is added to one of ``bins`` bins of the
    orientation modulo 180°; each histogram is divided by the cell's area and brought to zero mean and unit variance
    over its bins. Values of a patch go cell by cell (reading order), then channel, then bin: dim = (p/cell)²·3·bins.
    Raises UsageError when cells do not fill a patch.

    Source: Masked Feature Prediction for Self-Supervised Visual Pre-Training, CVPR 2022; without block normalisation
    and with whitened bins as in Disjoint Masking with Joint Distillation, 2022.
    """

    def __init__(self, config: ViTConfig, cell: int | None = None, bins: int = 9) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.cell = cell if cell is not None else min(8, config.patch_size)
        self.bins = bins
        if self.cell < 1 or self.patch % self.cell or bins < 2:
            raise UsageError(f"Cells of {self.cell} pixels do not fill a patch of {self.patch}, or bins < 2 ({bins}).")
        self.dim = (self.patch // self.cell) ** 2 * 3 * bins

    @torch.no_grad()
    def forward(self, images: Tensor, patches: Tensor) -> Tensor:
        return patchify(self.histograms(images), self.patch // self.cell)

    def histograms(self, images: Tensor) -> Tensor:
        """N×3×H×W -> N×(3·bins)×(H/cell)×(W/cell), whitened over the bins."""
        right, down = torch.zeros_like(images), torch.zeros_like(images)
        right[..., 1:-1] = images[..., 2:] - images[..., :-2]
        down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
        angle = torch.atan2(down, right) / torch.pi % 1.0  # in half turns; 180° is 0°
        index = (angle * self.bins).long().clamp_(max=self.bins - 1)
        votes = images.new_zeros(*images.shape, self.bins)
        votes.scatter_(-1, index[..., None], torch.hypot(down, right)[..., None])
        n, c, h, w = images.shape
        votes = votes.permute(0, 1, 4, 2, 3).reshape(n, c * self.bins, h, w)
        cells = F.avg_pool2d(votes, self.cell)
        whitened = F.layer_norm(cells.view(n, c, self.bins, -1).transpose(2, 3), (self.bins,))
        return whitened.transpose(2, 3).reshape(n, c * self.bins, *cells.shape[2:])


class PositionTarget(nn.Module):
    """The cell a token came from, as a distribution over all cells that is smooth in space.

    w_ij = exp(-dist(i, j)² / σ²), rows normalised; one-hot for σ = 0. dist counts cells.
    forward(ids N×K, sigma) -> N×K×L.

    Source: DropPos: Pre-Training Vision Transformers by Reconstructing Dropped Positions, NeurIPS 2023.

    >>> PositionTarget((2, 2))(torch.tensor([[3]]), 0.0).tolist()
    [[[0.0, 0.0, 0.0, 1.0]]]
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.dim = grid[0] * grid[1]
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        cells = torch.stack([rows.flatten(), columns.flatten()], 1).float()
        squared = (cells[:, None] - cells[None]).square().sum(-1)
        self.register_buffer("squared_distance", squared, persistent=False)

    def forward(self, ids: Tensor, sigma: float) -> Tensor:
        distance = self.get_buffer("squared_distance")
        # below 0.1 cells every neighbour underflows to 0, and dividing by σ² would not be safe
        table = torch.eye(self.dim, device=ids.device) if sigma < 0.1 else (-distance / sigma**2).softmax(-1)
        return F.embedding(ids, table)


class TeacherTarget(nn.Module):
    """What a frozen encoder makes of the whole image: its tokens after the chosen number of blocks.

    forward(images, patches) -> N×L×(width·len(layers)); each layer is brought to zero mean and unit variance over its
    channels (norm). layers: numbers of blocks, counted from the end when negative (-1: the output of the last).

    Source: data2vec and Stare at What You See: Masked Image Modeling without Reconstruction, CVPR 2023.
    """

    def __init__(self, teacher: ViT, layers: tuple[int, ...] = (-1,), norm: bool = True) -> None:
        super().__init__()
        depth = len(teacher.blocks)
        if not layers or not all(-depth <= layer <= depth and layer for layer in layers):
            raise UsageError(
                f"layers is {layers}; a teacher of {depth} blocks has layers 1 to {depth} or their negatives."
            )
        self.teacher = teacher.eval().requires_grad_(False)
        self.layers = [layer if layer > 0 else depth + 1 + layer for layer in layers]
        self.norm = norm
        self.dim = teacher.width * len(layers)

    def train(self, mode: bool = True) -> TeacherTarget:
        """The teacher stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, patches: Tensor) -> Tensor:
        kept = [tokens[:, self.teacher.extra :] for tokens in self.teacher.outputs(images, self.layers)]
        return torch.cat([F.layer_norm(t, t.shape[-1:]) if self.norm else t for t in kept], -1)
