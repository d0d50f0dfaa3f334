"""Blind restoration by hierarchical contrast: the detector's encoder, a decoder without what it found, a refiner.

The decoder attends to and convolves what is sound alone, at every scale by the mask found there; the refiner is a gated
U-Net. Detector and both learn together, first with true masks in the decoder, then with those that are found. The
adversarial and perceptual terms of the paper are left out; in their place a fourth output of the refiner says how much
of its filling counts, so that a picture need not suffer where the mask is wrong.

Source: Hierarchical Contrastive Learning for Pattern-Generalizable Image Corruption Detection, ICCV 2023.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.forensics.hcl import HCLNet, WindowBlock, coarse_to_fine, hcl_loss
from vestige.forensics.learned import load_network

SIDE = 128


class GatedUNet(nn.Module):
    """Fills what a mask says is missing: pictures N×3×H×W and masks N×1×H×W (1 missing) -> N×3×H×W.

    Convolutions are gated, f·sigmoid(g), so that the network decides where its input is worth something. Sides are
    multiples of 8. Outside the mask the picture is kept. doubt: a fourth output scales what is filled in.

    Source of the gates: Free-Form Image Inpainting with Gated Convolution, ICCV 2019.
    """

    def __init__(self, width: int = 24, doubt: bool = False) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "doubt": doubt}
        sizes = (4, width, 2 * width, 4 * width, 4 * width)
        self.down = nn.ModuleList(nn.Conv2d(a, 2 * b, 3, 2 if a > 4 else 1, 1) for a, b in itertools.pairwise(sizes))
        self.wide = nn.ModuleList(nn.Conv2d(sizes[4], 2 * sizes[4], 3, 1, r, r) for r in (2, 4))
        self.up = nn.ModuleList(
            nn.Conv2d(sizes[k + 1] + sizes[k], 2 * sizes[k], 3, 1, 1) for k in range(len(sizes) - 2, 0, -1)
        )
        self.last = nn.Conv2d(width, 4 if doubt else 3, 3, 1, 1)

    def forward(self, images: Tensor, mask: Tensor, start: Tensor | None = None) -> Tensor:
        """start: a first filling to improve on, in place of nothing."""
        missing = mask.to(images)
        begun = images * (1 - missing) + (0 if start is None else missing * start)
        x, kept = torch.cat([begun, missing], 1), []
        for layer in self.down:
            x = _gated(layer(x))
            kept.append(x)
        for layer in self.wide:
            x = x + _gated(layer(x))
        for layer, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = _gated(layer(torch.cat([F.interpolate(x, skip.shape[2:], mode="nearest"), skip], 1)))
        found = self.last(x).sigmoid()
        share = missing * found[:, 3:] if found.shape[1] == 4 else missing
        return share * found[:, :3] + (1 - share) * images


def _gated(x: Tensor) -> Tensor:
    features, gate = x.chunk(2, 1)
    return F.elu(features) * gate.sigmoid()


class PartialConv(nn.Module):
    """A 3×3 convolution of what is sound, weighed up for what is not: N×C×H×W and N×1×H×W (1 sound) -> the same pair.

    Source: Image Inpainting for Irregular Holes Using Partial Convolutions, ECCV 2018.
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, 1, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(1, outside, 1, 1))

    def forward(self, x: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        share = F.avg_pool2d(sound, 3, 1, 1, count_include_pad=False)
        found = self.conv(x * sound) / share.clamp_min(0.1) * (share > 0) + self.bias
        return F.gelu(found), F.max_pool2d(sound, 3, 1, 1)


class HCLRestoreNet(nn.Module):
    """Pictures N×3×H×W in [0, 1], sides multiples of 32 -> the pictures with what covers them replaced.

    dims, depths, proj: of the detector, see `HCLNet`. width: of the refiner.

    >>> HCLRestoreNet((8, 16, 32), (1, 1, 1), width=8).eval()(torch.rand(1, 3, 32, 64)).shape
    torch.Size([1, 3, 32, 64])
    """

    def __init__(
        self, dims: Sequence[int] = (64, 128, 256), depths: Sequence[int] = (6, 4, 2), proj: int = 64, width: int = 64
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"dims": list(dims), "depths": list(depths), "proj": proj, "width": width}
        self.detector = HCLNet(dims, depths, proj)
        self.middle = nn.ModuleList(WindowBlock(dims[2], 4, shifted) for shifted in (False, True))
        self.decode = nn.ModuleList(PartialConv(dims[k + 1] + dims[k], dims[k]) for k in (1, 0))
        self.draw = nn.Conv2d(dims[0], 3, 3, 1, 1)
        self.refine = GatedUNet(width, doubt=True)

    def found(self, projections: Sequence[Tensor], images: Tensor) -> Tensor:
        """The soft mask N×1×H×W of the detector, every picture taken to be covered."""
        levels = coarse_to_fine(projections, self.detector.judge, iterations=3 if self.training else 5, gate=False)
        return F.interpolate(levels[-1].corrupted, images.shape[2:], mode="nearest")

    def filled(self, images: Tensor, maps: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        """(first filling, refined picture) by features and a mask N×1×H×W in [0, 1]; the mask is grown by two pixels,
        because what covers a picture blends into it at its edge."""
        missing = F.max_pool2d(mask.to(images), 5, 1, 2)
        scales = [missing, *(F.max_pool2d(missing, 2**k) for k in (1, 2))]
        x = maps[2]
        for block in self.middle:
            x = block(x, scales[2])
        sound = 1 - scales[2]
        for layer, level in zip(self.decode, (1, 0), strict=True):
            x, sound = (F.interpolate(part, scale_factor=2, mode="nearest") for part in (x, sound))
            joined = torch.cat([x, maps[level] * (1 - scales[level])], 1)
            x, sound = layer(joined, torch.maximum(sound, 1 - scales[level]))
        first = self.draw(x).sigmoid()
        return first, self.refine(images, missing, first)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: in place of the one that is found."""
        maps = self.detector.maps(images)
        known = self.found(self.detector.projections(maps), images) if mask is None else mask
        return self.filled(images, maps, known)[1]


def restore_loss(
    net: HCLRestoreNet, images: Tensor, mask: Tensor, originals: Tensor, generator: torch.Generator, *,
    blind: bool, samples: int = 192, hard: int = 96,
) -> dict[str, Tensor]:  # fmt: skip
    """0.1·contrast and the judge + L1 of the first filling + L1 of the refined picture.

    blind: the decoder gets the mask that is found, as in the second half of the training, else the true one.
    """
    maps = net.detector.maps(images)
    projections = net.detector.projections(maps)
    told = hcl_loss(net.detector, images, mask, generator, samples=samples, hard=hard, projections=projections)
    known = net.found([z.detach() for z in projections], images) if blind else mask
    first, refined = net.filled(images, maps, known)
    terms = F.l1_loss(first, originals), F.l1_loss(refined, originals)
    return {"loss": 0.1 * told["loss"] + terms[0] + terms[1], "first": terms[0].detach(), "refined": terms[1].detach()}


class HCLRestorer:
    """Blind restoration by a trained `HCLRestoreNet`, or by weights that the recipe ``hcl_restore`` wrote.

    Without both, those of the package or of the user's finished run. Raises InputError where there are none.
    """

    slug = "hcl_restore"

    def __init__(self, network: HCLRestoreNet | None = None, *, weights: str | Path | None = None) -> None:
        if network is None:
            network = load_network(self.slug, HCLRestoreNet, weights)[0]
        self.network = network.eval()

    @torch.no_grad()
    def restore(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """float32 N×3×H×W in [0, 1], sides multiples of 32; masks: bool N×1×H×W, True missing, else what is found."""
        x = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        mask = None if masks is None else torch.from_numpy(np.ascontiguousarray(masks))
        return self.network(x, mask).clamp(0, 1).numpy()

    @torch.no_grad()
    def restore_whole(self, image: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(picture, bool 1×1×H×W of what was filled) of one picture 1×3×H×W of any size.

        It is filled at 128×128 and the filling enlarged; every other pixel stays. Raises UsageError for several.
        """
        if len(image) != 1:
            raise UsageError(f"One picture at a time is restored at its own size; got {len(image)}.")
        height, width = image.shape[2:]
        small = _resized(image[0].transpose(1, 2, 0), (SIDE, SIDE))
        x = torch.from_numpy(small.transpose(2, 0, 1).copy())[None]
        if masks is None:
            maps = self.network.detector.projections(self.network.detector.maps(x))
            known = coarse_to_fine(maps, self.network.detector.judge, iterations=5)[-1].corrupted >= 0.5
        else:
            share = _resized(masks[0, 0].astype(np.float32), (SIDE, SIDE))
            known = torch.from_numpy(share > 0)[None, None]
        region = (
            cv2.resize(known[0, 0].numpy().astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        )
        if masks is not None:
            region = masks[0, 0]
        filling = self.network(x, known.float()).clamp(0, 1)[0].numpy().transpose(1, 2, 0)
        large = _resized(np.ascontiguousarray(filling), (height, width)).clip(0, 1)
        found = np.where(region[..., None], large, image[0].transpose(1, 2, 0))
        return found.transpose(2, 0, 1)[None].astype(np.float32), region[None, None]


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(picture, np.float32), size[::-1], interpolation=how)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """The mask widened by ``pixels`` on all sides, bool N×1×H×W."""
    return F.max_pool2d(mask.float(), 2 * pixels + 1, 1, pixels) > 0.5
