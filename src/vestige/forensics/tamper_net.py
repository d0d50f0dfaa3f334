"""The network behind the default examiner of edits, and what its training needs.

Sources: ManTra-Net: Manipulation Tracing Network for Detection and Localization of Image Forgeries With Anomalous
Features, CVPR 2019 (deviation from the picture's own statistics); U-Net: Convolutional Networks for Biomedical Image
Segmentation, MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.tamper_inputs import maps_of
from vestige.forensics.traces import CHANNELS, STRIDE
from vestige.nn.conv_unet import ConvUNet

#: Shares of the map whose largest logits, on average, say whether there is an edit at all.
SHARES = (0.01, 0.05, 0.2, 1.0)


class TraceNet(nn.Module):
    """Trace maps N×C×h×w -> (logits of the map N×1×h×w, logit of an edit anywhere N).

    Every map enters twice: in units of what is usual among pictures (`calibrate`), and of what is usual in its own,
    (f − mean) / (deviation + 1/20). Both go through one 1×1 convolution whose weights follow from the picture. A U-Net
    compares regions at half that resolution; its answer, enlarged, and the mixed maps give every place its logit. The
    second logit is a linear function of the means of the largest 1, 5, 20 and 100 % of the first.

    >>> pixel, whole = TraceNet(base=8, levels=2)(torch.randn(2, CHANNELS + 1, 20, 30))
    >>> pixel.shape, whole.shape
    (torch.Size([2, 1, 20, 30]), torch.Size([2]))
    """

    def __init__(self, channels: int = CHANNELS + 1, width: int = 32, base: int = 16, levels: int = 3) -> None:
        super().__init__()
        if min(channels, width, base, levels) < 1:
            raise UsageError("Channels, widths and levels of the network are at least 1.")
        self.settings = {"channels": channels, "width": width, "base": base, "levels": levels}
        self.usual: Tensor
        self.spread: Tensor
        self.register_buffer("usual", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        self.absolute = nn.Parameter(torch.randn(width, channels) / channels**0.5)
        self.relative = nn.Parameter(torch.randn(width, channels) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.body = ConvUNet(width, base=base, levels=levels)
        self.last = nn.Sequential(nn.Conv2d(width + base, 16, 1), nn.SiLU(), nn.Conv2d(16, 1, 1))
        self.whole = nn.Linear(len(SHARES), 1)

    def calibrate(self, maps: Tensor) -> None:
        """Take mean and deviation of each map over pictures N×C×h×w as what is usual."""
        self.usual.copy_(maps.mean((0, 2, 3)))
        self.spread.copy_(maps.std((0, 2, 3)).clamp_min(1e-3))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        x = (maps.float() - self.usual[:, None, None]) / self.spread[:, None, None]
        height, width = x.shape[2:]
        mean = x.mean((2, 3))
        deviation = (x.square().mean((2, 3)) - mean.square()).clamp_min(0).sqrt()
        own = self.relative / (deviation[:, None] + 0.05)
        mixed = torch.einsum("noc,nchw->nohw", self.absolute + own, x)
        mixed = mixed + (self.bias - torch.einsum("noc,nc->no", own, mean))[..., None, None]
        multiple = 2 ** (self.settings["levels"] + 1)
        mixed = F.pad(F.silu(mixed), (0, -width % multiple, 0, -height % multiple), mode="replicate")
        seen = F.interpolate(self.body(F.avg_pool2d(mixed, 2)), scale_factor=2, mode="bilinear", align_corners=False)
        pixel = self.last(torch.cat([mixed, seen], 1))[:, :, :height, :width].float()
        ordered = pixel.flatten(1).sort(1, descending=True).values
        tops = [ordered[:, : max(1, round(share * ordered.shape[1]))].mean(1) for share in SHARES]
        return pixel, self.whole(torch.stack(tops, 1))[:, 0]

    def at_two_scales(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(logits N×1×h×w, logits N) of maps N×C×h×w: mean of the answers to them and to their means over 2×2 places.

        The finer maps show small regions, the coarser ones large regions.
        """
        pixel, whole = self(maps)
        coarse, again = self(halved(maps))
        coarse = F.interpolate(coarse, size=pixel.shape[2:], mode="bilinear", align_corners=False)
        return (pixel + coarse) / 2, (whole + again) / 2


def halved(maps: Tensor) -> Tensor:
    """N×C×h×w -> N×C×⌈h/2⌉×⌈w/2⌉ means."""
    return F.avg_pool2d(maps.float(), 2, ceil_mode=True)


def mirrored(maps: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps and masks N×·×h×w, each picture turned left to right and upside down by chance.

    The traces of a mirrored picture are, but for the two diagonals of a few filters, the mirrored traces.
    """
    for axis in (2, 3):
        turned = (torch.rand(len(maps), generator=generator) < 0.5).to(maps.device)[:, None, None, None]
        maps, masks = (torch.where(turned, x.flip(axis), x) for x in (maps, masks))
    return maps, masks


def trace_stack(images: np.ndarray) -> Tensor:
    """uint8 N×3×S×S -> float16 N×(CHANNELS + 1)×S/4×S/4, for training on many pictures."""
    stack = torch.empty(len(images), CHANNELS + 1, *(-(-n // STRIDE) for n in images.shape[2:]), dtype=torch.float16)
    for row, image in enumerate(images):
        data = encode(np.ascontiguousarray(image.transpose(1, 2, 0)), "PNG")
        stack[row] = torch.from_numpy(maps_of(ImageSubject(data)))
    return stack


def masks_at(masks: np.ndarray) -> Tensor:
    """bool N×1×H×W -> float32 N×1×⌈H/4⌉×⌈W/4⌉: the edited share of each place."""
    return F.avg_pool2d(torch.from_numpy(masks).float(), STRIDE, ceil_mode=True)


def localisation_loss(pixel: Tensor, whole: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """BCE of the map + (1 − Dice) of edited pictures + BCE of "edited at all"."""
    edited = (masks.amax((1, 2, 3)) > 0.5).float()
    cross = F.binary_cross_entropy_with_logits(pixel, masks)
    chances = torch.sigmoid(pixel)
    overlap = 2 * (chances * masks).sum((1, 2, 3)) / ((chances + masks).sum((1, 2, 3)) + 1e-6)
    dice = ((1 - overlap) * edited).sum() / edited.sum().clamp_min(1)
    any_edit = F.binary_cross_entropy_with_logits(whole, edited)
    return {"loss": 2 * cross + 0.5 * dice + 0.5 * any_edit, "map": cross.detach(), "image": any_edit.detach()}


def pixel_scores(network: TraceNet, stack: Tensor, batch: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """(logits float32 N×h×w, logits N) of trace maps, at two scales."""
    found: Sequence[tuple[Tensor, Tensor]]
    with torch.no_grad():
        device = network.usual.device
        found = [network.at_two_scales(part.to(device)) for part in stack.split(batch)]
    return torch.cat([p[:, 0] for p, _ in found]).cpu().numpy(), torch.cat([w for _, w in found]).cpu().numpy()
