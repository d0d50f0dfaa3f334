"""The networks of `recolor`: a small one on co-occurrence maps, and those on pixels that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.nn.cooccurrence import SETS, cooccurrence, standing


def _block(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU, halving."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)
    )


class RecolorNet(nn.Module):
    """Co-occurrence maps N×M×(2T+1)×(2T+1) -> log-odds N that the colours were re-mapped.

    Maps are raised by log(1 + 10⁴ C) and standardised one by one with statistics of the training; three blocks of 3×3
    convolution and pooling, then two linear layers. sets: the maps it takes, see `vestige.nn.cooccurrence`.

    >>> net = RecolorNet().eval()
    >>> net(net.maps(torch.rand(2, 3, 32, 32))).shape
    torch.Size([2])
    """

    def __init__(
        self, sets: Sequence[str] = SETS, T: int = 15, widths: Sequence[int] = (32, 64, 128), hidden: int = 256
    ) -> None:
        super().__init__()
        if not sets or set(sets) - set(SETS):
            raise UsageError(f"Sets of maps are {' and '.join(SETS)}; got {', '.join(sets) or 'none'}.")
        self.settings: dict[str, Any] = {"sets": list(sets), "T": T, "widths": list(widths), "hidden": hidden}
        self.sets, self.T = tuple(name for name in SETS if name in sets), T
        inside = 12 * len(self.sets)
        side = 2 * T + 1
        self.scale = nn.BatchNorm2d(inside, affine=False)
        blocks = []
        for width in widths:
            blocks.append(_block(inside, width))
            inside, side = width, side // 2
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(inside * side * side, hidden), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def maps(self, images: Tensor, soft: bool = False) -> Tensor:
        """What `forward` takes, of pictures N×3×H×W; soft: with gradients to the pixels."""
        return cooccurrence(images, self.T, soft=soft, sets=self.sets)

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(self.blocks(self.scale(standing(maps)))).squeeze(1)


class PixelNet(nn.Module):
    """The comparison: sRGB N×3×H×W in [0, 1] -> log-odds N, four blocks and a mean over the picture."""

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 96)) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"widths": list(widths)}
        steps = zip((3, *widths), widths)
        self.blocks = nn.Sequential(*(_block(a, b, 2 if a == 3 else 1) for a, b in steps))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(widths[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks((images - 0.5) / 0.25).mean((2, 3))).squeeze(1)


def illumination(images: Tensor, reach: int = 3) -> Tensor:
    """N×3×H×W -> the colour of the light around each square of 4×4 pixels, of length 1: N×3×(H/4)×(W/4).

    By the grey-edge hypothesis (Edge-Based Color Constancy, IEEE TIP 2007) it is the mean size of the steps between
    neighbours in each channel, here up to ``reach`` squares around.

    >>> illumination(torch.rand(1, 3, 32, 32), 2).norm(dim=1).allclose(torch.ones(1, 8, 8))
    True
    """
    x = F.pad(images, (0, 1, 0, 1), mode="replicate")
    steps = F.avg_pool2d((x[:, :, :-1, 1:] - images).abs() + (x[:, :, 1:, :-1] - images).abs(), 4)
    around = F.avg_pool2d(steps, 2 * reach + 1, 1, reach, count_include_pad=False) + 1e-4
    return F.normalize(around, dim=1)


class ThreeInputNet(nn.Module):
    """A comparison on three inputs: sRGB N×3×H×W in [0, 1] -> log-odds N.

    The picture, the differences of its channels and the map of its `illumination`, which is a quarter of the size, go
    through streams of their own, which are joined before the last block.

    Source: Recolored Image Detection via a Deep Discriminative Model, IEEE TIFS 2019 (the inputs alone).
    """

    def __init__(self, widths: Sequence[int] = (8, 24, 36), joined: int = 96) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"widths": list(widths), "joined": joined}
        first, *others = widths
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(nn.Conv2d(3, first, 3, 1, 1), nn.ReLU()) if light else _block(3, first, 2),
                *(_block(a, b) for a, b in pairwise((first, *others))),
            )
            for light in (False, False, True)
        )
        self.join = _block(3 * widths[-1], joined)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(joined, 1))

    def forward(self, images: Tensor) -> Tensor:
        inputs = ((images - 0.5) / 0.25, 5 * (images - images.roll(-1, 1)), 5 * (illumination(images) - 3**-0.5))
        found = [stream(x) for stream, x in zip(self.streams, inputs, strict=True)]
        size = found[2].shape[2:]  # of sides that are no multiples of 4 the streams keep a row more or less
        found = [F.adaptive_avg_pool2d(x, size) if x.shape[2:] != size else x for x in found]
        return self.head(self.join(torch.cat(found, 1)).mean((2, 3))).squeeze(1)


#: Networks of a `Contest` that read the pixels.
ON_PIXELS = {"pixels": PixelNet, "inputs": ThreeInputNet}


class Contest(nn.Module):
    """Networks that are trained on the same batches and share nothing: the system and what it is compared with.

    ``nets``: "all" (both sets of maps), "channels" (inter-channel maps alone), "spatial" where asked for, "pixels"
    (`PixelNet`), "inputs" (`ThreeInputNet`).
    """

    def __init__(self, names: Sequence[str] = ("all", "channels", "pixels", "inputs")) -> None:
        super().__init__()
        sets = {"all": SETS, "channels": ("channels",), "spatial": ("spatial",)}
        unknown = set(names) - {*sets, *ON_PIXELS}
        if unknown or not names:
            raise UsageError(
                f"Networks are all, channels, spatial, {' and '.join(ON_PIXELS)}; got {', '.join(names) or 'none'}."
            )
        self.nets = nn.ModuleDict(
            {name: ON_PIXELS[name]() if name in ON_PIXELS else RecolorNet(sets[name]) for name in names}
        )

    def forward(self, maps: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Log-odds by name, of maps N×24×31×31 and pictures N×3×H×W in [0, 1]."""
        half = maps.shape[1] // 2
        parts = {"all": maps, "spatial": maps[:, :half], "channels": maps[:, half:]}
        return {name: net(parts.get(name, images)) for name, net in self.nets.items()}


@torch.no_grad()
def log_odds_of(network: nn.Module, values: Tensor, batch: int = 64) -> Tensor:
    """Outputs N of a network in evaluation mode, in batches; uint8 pictures are brought to [0, 1]."""
    was = network.training
    network.eval()
    try:
        found = []
        for part in values.split(batch):
            found.append(network(part.float() / 255 if part.dtype == torch.uint8 else part.float()))
        return torch.cat(found)
    finally:
        network.train(was)
