"""PatchCraft: generated pictures by the contrast of their rich and poor textures.

Generators draw flat regions and busy ones with the same filters, cameras do not record them alike. The picture is cut
into small squares at random, which destroys what it shows; the plainest and the busiest are put together as two
pictures, and a network looks at the difference of their filtered versions.

Source: PatchCraft: Exploring Texture Patch for Efficient AI-generated Image Detection, arXiv 2311.12397 (2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.forensics.generated import GeneratedExaminer, TraceDetector, logits, picture_digest
from vestige.nn.residual import srm_kernels

CONTRASTS = ("difference", "concat")


def diversity(patches: Tensor) -> Tensor:
    """Σ |differences| of neighbours across, down and along both diagonals: ...×C×P×P -> ....

    >>> diversity(torch.full((2, 3, 8, 8), 0.5)).tolist()
    [0.0, 0.0]
    """
    x = patches
    parts = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([part.abs().sum((-3, -2, -1)) for part in parts]).sum(0)


def smash(
    images: Tensor, patch: int = 32, grid: int = 8, oversample: int = 3, *, seed: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Smash & Reconstruct: N×3×H×W -> (poor, rich), each N×3×(grid·patch)×(grid·patch).

    Of ``oversample``·grid² random squares of ``patch`` pixels, the grid² of least `diversity` make the poor picture,
    row by row from the plainest on, and the grid² of most the rich one, from the busiest on. Squares may overlap.
    Places follow from ``seed`` and the picture (in eight bits), so that batches do not matter; or from ``generator``.
    Pictures smaller than a square are enlarged to one. Raises UsageError for oversample below 2.

    >>> smash(torch.rand(2, 3, 40, 50), patch=8, grid=4)[0].shape
    torch.Size([2, 3, 32, 32])
    """
    if oversample < 2 or min(patch, grid) < 1:
        raise UsageError("Smashing needs a patch and a grid of at least 1, and at least twice as many squares.")
    if min(images.shape[2:]) < patch:
        size = (max(patch, images.shape[2]), max(patch, images.shape[3]))
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    n, channels, height, width = images.shape
    count, spare = oversample * grid * grid, (height - patch + 1, width - patch + 1)
    if generator is not None:
        device = generator.device
        tops, lefts = (torch.randint(s, (n, count), generator=generator, device=device) for s in spare)
    else:
        draws = [rng(seed, "smash", picture_digest(image)) for image in images]
        tops, lefts = (torch.from_numpy(np.stack([d.integers(0, s, count) for d in draws])) for s in spare)
    within = torch.arange(patch, device=images.device)
    rows = tops.to(images.device)[..., None] + within  # N×count×patch
    columns = lefts.to(images.device)[..., None] + within
    which = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    # Advanced indices in front: N×count×patch×patch×C.
    patches = images.permute(0, 2, 3, 1)[which, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)
    order = diversity(patches).argsort(dim=1, stable=True)
    tiles = grid * grid

    def tiled(chosen: Tensor) -> Tensor:
        picked = patches[torch.arange(n, device=images.device)[:, None], chosen]
        whole = picked.reshape(n, grid, grid, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
        return whole.reshape(n, channels, grid * patch, grid * patch)

    return tiled(order[:, :tiles]), tiled(order[:, -tiles:].flip(1))


class TextureFilter(nn.Module):
    """The 30 filters of the rich model on every colour plane, a 3×3 convolution over the 90 maps, norm, hard tanh.

    Both steps are linear, so they are carried out as one 7×7 convolution with their composed kernel, which costs a
    fifth; away from the border the result is the same.

    >>> TextureFilter(4)(torch.rand(1, 3, 16, 16)).shape
    torch.Size([1, 4, 16, 16])
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.mix = nn.Conv2d(90, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.kernels: Tensor
        self.register_buffer("kernels", torch.from_numpy(srm_kernels(30).copy()), persistent=False)

    def composed(self) -> Tensor:
        """width×3×7×7: the kernel of both steps."""
        width = len(self.mix.weight)
        planes = self.mix.weight.reshape(width * 3, 30, 3, 3)
        # A correlation with the turned kernel is their full convolution.
        return F.conv2d(planes, self.kernels.flip(1, 2)[None].to(planes), padding=4).reshape(width, 3, 7, 7)

    def forward(self, images: Tensor) -> Tensor:
        mode = "reflect" if min(images.shape[2:]) > 3 else "replicate"
        found = F.conv2d(F.pad(images, (3,) * 4, mode=mode), self.composed(), self.mix.bias)
        return F.hardtanh(self.norm(found), -5, 5)


def _convolutions(inside: int, width: int, count: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(inside, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inside = width
    return layers


class PatchCraftNet(TraceDetector):
    """logit = C(F(poor) - F(rich)), with F a `TextureFilter` and C ten 3×3 convolutions.

    patch, grid, oversample: see `smash`; the paper has 32, 8 and 3. width: channels throughout, 32 in the paper.
    For comparison: contrast "concat" shows C both instead of their difference, and smashed=False the filtered picture
    itself. seed: of the squares in evaluation. Raises UsageError for other settings.
    """

    def __init__(
        self, patch: int = 32, grid: int = 8, *, oversample: int = 3, width: int = 32, contrast: str = "difference",
        smashed: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if contrast not in CONTRASTS:
            raise UsageError(f"contrast is {contrast!r}; choose one of {', '.join(CONTRASTS)}.")
        if not 4 <= patch <= 256 or not 1 <= grid <= 32 or not 2 <= oversample <= 16 or not 1 <= width <= 1024:
            raise UsageError(f"A network with patch {patch}, grid {grid} and width {width} cannot be built.")
        self.settings = {
            "patch": patch, "grid": grid, "oversample": oversample, "width": width, "contrast": contrast,
            "smashed": smashed,
        }  # fmt: skip
        self.seed = 0
        self.filter = TextureFilter(width)
        inside = 2 * width if smashed and contrast == "concat" else width
        layers = _convolutions(inside, width, 4)
        for count in (2, 2, 2):
            layers += [nn.AvgPool2d(3, 2, 1), *_convolutions(width, width, count)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)

    def contrasted(self, poor: Tensor, rich: Tensor) -> Tensor:
        """What the classifier sees of the two pictures."""
        poor, rich = self.filter(torch.cat([poor, rich])).chunk(2)
        return poor - rich if self.settings["contrast"] == "difference" else torch.cat([poor, rich], 1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        s = self.settings
        if not s["smashed"]:
            seen = self.filter(images)
        else:
            poor_rich = smash(images, s["patch"], s["grid"], s["oversample"], seed=self.seed, generator=generator)
            seen = self.contrasted(*poor_rich)
        return self.head(self.layers(seen).mean((2, 3))).squeeze(1)


class PatchCraft(GeneratedExaminer):
    """PatchCraft as an examiner of whole pictures: score, fit and find.

    Arguments as in `GeneratedExaminer`; ``draws`` sets of random squares are averaged.

    >>> detector = PatchCraft(network=PatchCraftNet(patch=8, grid=4, width=4))
    >>> bool((detector.score(np.zeros((2, 3, 32, 32), np.uint8)) <= 1).all())
    True
    """

    slug = "patchcraft"
    found = "has the same traces in plain and in busy places, as generators leave them"

    @staticmethod
    def build(**settings: Any) -> PatchCraftNet:
        return PatchCraftNet(**settings)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float64 N, the mean over ``draws``."""
        assert isinstance(self.network, PatchCraftNet)
        values = []
        for draw in range(self.draws):
            self.network.seed = draw
            values.append(logits(self.network, images))
        self.network.seed = 0
        return np.mean(values, 0)
