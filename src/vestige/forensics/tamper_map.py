"""The default examiner of edits: where the local traces of a picture contradict the rest of it.

A small U-Net reads `trace_maps`, each also relative to the picture it is from, and the copy-move examiner's map. It was
trained on eleven kinds of edits; because it compares regions with their own picture, it also answers to others.

Sources: ManTra-Net: Manipulation Tracing Network for Detection and Localization of Image Forgeries With Anomalous
Features, CVPR 2019 (deviation from the picture's own statistics); U-Net: Convolutional Networks for Biomedical Image
Segmentation, MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.findings import Finding
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.copy_move import CopyMove
from vestige.forensics.learned import load_network
from vestige.forensics.traces import CHANNELS, STRIDE, trace_maps
from vestige.nn.conv_unet import ConvUNet

#: Shares of the map whose largest logits, on average, say whether there is an edit at all.
SHARES = (0.01, 0.05, 0.2, 1.0)
SMALLEST = 64


class TraceNet(nn.Module):
    """Trace maps N×C×h×w -> (logits of the map N×1×h×w, logit of an edit anywhere N).

    Every map enters twice: in units of what is usual among pictures (`calibrate`), and of what is usual in its own,
    (f − mean) / (deviation + 1/20). Both go through one 1×1 convolution whose weights follow from the picture. The
    second logit is a linear function of the means of the largest 1, 5, 20 and 100 % of the first.

    >>> pixel, whole = TraceNet(base=8, levels=2)(torch.randn(2, CHANNELS + 1, 20, 30))
    >>> pixel.shape, whole.shape
    (torch.Size([2, 1, 20, 30]), torch.Size([2]))
    """

    def __init__(self, channels: int = CHANNELS + 1, width: int = 48, base: int = 32, levels: int = 3) -> None:
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
        self.body = ConvUNet(width, base=base, levels=levels, outside=1)
        self.whole = nn.Linear(len(SHARES), 1)

    def calibrate(self, maps: Tensor) -> None:
        """Take mean and deviation of each map over pictures N×C×h×w as what is usual."""
        self.usual.copy_(maps.mean((0, 2, 3)))
        self.spread.copy_(maps.std((0, 2, 3)).clamp_min(1e-3))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        x = (maps.float() - self.usual[:, None, None]) / self.spread[:, None, None]
        height, width = x.shape[2:]
        mean, deviation = x.mean((2, 3)), x.std((2, 3), correction=0)
        own = self.relative / (deviation[:, None] + 0.05)
        mixed = torch.einsum("noc,nchw->nohw", self.absolute + own, x)
        mixed = mixed + (self.bias - torch.einsum("noc,nc->no", own, mean))[..., None, None]
        multiple = 2 ** self.settings["levels"]
        mixed = F.pad(F.silu(mixed), (0, -width % multiple, 0, -height % multiple), mode="replicate")
        pixel = self.body(mixed)[:, :, :height, :width].float()
        ordered = pixel.flatten(1).sort(1, descending=True).values
        tops = [ordered[:, : max(1, round(share * ordered.shape[1]))].mean(1) for share in SHARES]
        return pixel, self.whole(torch.stack(tops, 1))[:, 0]


def maps_of(subject: ImageSubject) -> np.ndarray:
    """float32 (CHANNELS + 1)×⌈H/4⌉×⌈W/4⌉: the traces, and where the picture repeats itself."""
    import cv2

    traces = trace_maps(subject.pixels)
    finding = subject.shared("copy_move", lambda: CopyMove().find(subject))
    height, width = traces.shape[1:]
    copied = np.zeros((height, width), np.float32)
    if finding.applies and finding.map is not None:
        copied[:] = cv2.resize(finding.map, (width, height), interpolation=cv2.INTER_AREA)
    return np.concatenate([traces, copied[None]])


class TamperMap:
    """Where a picture was edited, and how likely it was at all.

    score: calibrated probability of an edit. The map holds the probability of every place, in steps of four pixels.
    weights: a file that the recipe wrote, by default the shipped one. network: one to use instead. Applies to pictures
    of 64 pixels a side or more that are not flat.

    >>> from vestige.core.image_io import encode
    >>> network = TraceNet(base=8, levels=2).eval()
    >>> TamperMap(network=network).find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "tamper_map"
    kind = "edit"

    def __init__(self, weights: str | Path | None = None, *, network: TraceNet | None = None) -> None:
        self._weights, self._network = weights, network
        self._facts: Mapping[str, Any] = {}

    @property
    def network(self) -> TraceNet:
        """Loaded when it is first needed; raises InputError, with the command that trains it, when it is missing."""
        if self._network is None:
            self._network, self._facts = load_network(self.slug, TraceNet, self._weights)
        return self._network

    @torch.no_grad()
    def localise(self, subject: ImageSubject) -> tuple[np.ndarray, float]:
        """A picture of 64 pixels or more -> (probabilities ⌈H/4⌉×⌈W/4⌉, log-odds of an edit anywhere)."""
        network = self.network
        pixel, whole = network(torch.from_numpy(maps_of(subject))[None])
        scale, shift = (float(self._facts.get(k, v)) for k, v in (("scale", 1.0), ("shift", 0.0)))
        return torch.sigmoid(pixel[0, 0]).numpy(), scale * float(whole[0]) + shift

    def find(self, subject: ImageSubject) -> Finding:
        """Score and map; does not apply to tiny and to flat pictures."""
        if min(subject.height, subject.width) < SMALLEST:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {SMALLEST} pixels a side."
            )
        if float(subject.luma.std()) < 2:
            return Finding.not_applicable(self.slug, self.kind, "the picture is flat and holds no traces to compare.")
        chances, odds = self.localise(subject)
        probability = float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))
        threshold = float(self._facts.get("threshold", 0.5))
        share = float((chances > 0.5).mean())
        return Finding(
            self.slug,
            self.kind,
            probability,
            "Noise, compression or colour traces of a region differ from the rest of the picture, as they do after a "
            "local edit; the map shows where. Local processing without intent to deceive leaves the same traces.",
            "The traces of processing are alike all over the picture.",
            flagged=probability > threshold,
            threshold=threshold,
            false_positive_rate=self._facts.get("false_positive_rate"),
            evidence=(f"{share:.0%} of the picture looks edited", f"probability of an edit {probability:.0%}"),
            map=chances.astype(np.float32),
            map_caption="probability that a place was edited",
        )


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
    """(logits float32 N×h×w, logits N) of trace maps."""
    found: Sequence[tuple[Tensor, Tensor]]
    with torch.no_grad():
        device = network.usual.device
        found = [network(part.to(device)) for part in stack.split(batch)]
    return torch.cat([p[:, 0] for p, _ in found]).cpu().numpy(), torch.cat([w for _, w in found]).cpu().numpy()


def calibration(odds: np.ndarray, edited: np.ndarray, rate: float = 0.05) -> dict[str, float]:
    """Scale and shift that turn the network's log-odds into those of validation pictures, and a threshold.

    threshold: probability that at most ``rate`` of the unedited pictures reach. The logistic fit weighs both classes
    alike, as if half of all pictures were edited.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e3, class_weight="balanced").fit(odds[:, None], edited)
    scale, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    clean = np.sort(1 / (1 + np.exp(-(scale * odds[~edited] + shift))))
    allowed = int(rate * len(clean))
    threshold = float(clean[-1 - allowed]) if len(clean) else 0.5
    return {"scale": scale, "shift": shift, "threshold": threshold, "false_positive_rate": rate}
