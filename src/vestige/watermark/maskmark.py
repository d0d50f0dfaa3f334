"""MaskMark: one learned mark for the whole picture or a chosen region, found again by a map and read from what is left.

Source: Mask Image Watermarking, NeurIPS 2025 (arXiv 2504.12739).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.findings import Finding
from vestige.core.keys import PUBLIC_KEY, fingerprint
from vestige.core.roles import Reading
from vestige.core.subjects import ImageSubject
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.engines.marking.residual import to_native
from vestige.nn.conv_unet import ConvUNet, NestedUNet
from vestige.nn.jnd import jnd
from vestige.nn.messages import LinearPlane, PlaneReader, check_side
from vestige.watermark.learned import BitCode, LearnedMark, as_tensor, reading_of

#: The eye minds changes of blue least: factors on the visibility map for red, green and blue when marking.
CHANNELS = (0.75, 0.5, 1.0)
_TO_RGB = 3  # channels between the reader's U-Net and its plane


class MaskMarkNet(EmbedderReader):
    """x_w = x + μ·J·(E(x, m) − x), read from x'·map with map the reader's own segmentation of the marked pixels.

    Encoder: U-Net on [x, plane of the message, mask (variant "ED" only)], its features joined with x by a 1×1
    convolution. J: just-noticeable difference. Map: small U²-Net. Bits: U-Net, then the way back from the plane.

    L = MSE(x_w, x) + w_dec (MSE(bits) + ½ MSE(map, m')),  w_dec from 20 to ``decoder_weight``, in [-1, 1] units.

    J, the image term and the fall of w_dec come with the stage "fidelity"; while its level rises J is J^level, so that
    the change shrinks evenly. bits: L; the size must be at least 2L and divisible by 2^levels. base, reader_base: first
    widths of the two U-Nets (64 and 128 in the paper). middle, outside: widths of the U²-Net. decoder_weight: 0.2;
    0.3 to fine-tune. Raises UsageError for sizes that do not fit.

    Source: Mask Image Watermarking, NeurIPS 2025.

    >>> net = MaskMarkNet(8, 32, base=4, reader_base=4, levels=2, middle=2, outside=4)
    >>> x = net.embed(torch.rand(1, 3, 32, 32), torch.zeros(1, 8))
    >>> found = net.read(x)
    >>> found.soft.shape, found.presence.shape
    (torch.Size([1, 8]), torch.Size([1, 1, 32, 32]))
    """

    localises = True

    def __init__(
        self,
        bits: int = 32,
        size: int = 256,
        *,
        variant: Literal["D", "ED"] = "D",
        base: int = 64,
        reader_base: int = 128,
        levels: int = 4,
        middle: int = 16,
        outside: int = 64,
        decoder_weight: float = 0.2,
    ) -> None:
        super().__init__()
        if variant not in ("D", "ED") or size % 2**levels:
            raise UsageError(f"MaskMark is D or ED and its size divisible by {2**levels}; got {variant!r} and {size}.")
        check_side(bits, size, size)
        self.bits, self.size, self.variant, self.decoder_weight = bits, size, variant, decoder_weight
        self.settings = {
            "bits": bits, "size": size, "variant": variant, "base": base, "reader_base": reader_base,
            "levels": levels, "middle": middle, "outside": outside, "decoder_weight": decoder_weight,
        }  # fmt: skip
        self.plane = LinearPlane(bits)
        self.encoder = ConvUNet(6 + (variant == "ED"), base, levels)
        self.merge = nn.Conv2d(base + 3, 3, 1)
        with torch.no_grad():  # the encoder starts from the picture itself, not from noise
            self.merge.weight[:, base:, 0, 0] = torch.eye(3)
            self.merge.bias.zero_()  # type: ignore[union-attr]
        self.locate = NestedUNet(3, middle, outside)
        self.lift = nn.Conv2d(3, reader_base, 3, 1, 1)
        self.reader = ConvUNet(reader_base, reader_base, levels, _TO_RGB)
        self.gather = PlaneReader(bits, _TO_RGB)
        self.visibility = 1.0  # exponent of J: 0 before the stage "fidelity", 1 with it
        self.channels: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def prepare(self, level: Level) -> None:
        self.visibility = level("fidelity")

    def raw(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        """E(x, m) in [-1, 1] units, before perceptual scaling."""
        x = 2 * images - 1
        parts = [x, self.plane(bits, *images.shape[2:])]
        if self.variant == "ED":
            parts.append(torch.ones_like(x[:, :1]) if masks is None else masks.to(x))
        return self.merge(torch.cat([self.encoder(torch.cat(parts, 1)), x], 1)).float()

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        change = self.raw(images, bits, masks) / 2 + 0.5 - images
        if self.visibility > 0:
            seen = jnd(images.float())
            # A floor, because a root of 0 has no slope; at level 1 the map is the paper's exactly.
            seen = seen if self.visibility >= 1 else seen.clamp_min(1e-4) ** self.visibility
            change = change * seen * images.new_tensor(self.channels)[:, None, None]
        return images + change

    def presence(self, images: Tensor) -> Tensor:
        """Where the mark is, N×1×H×W in [0, 1]."""
        return torch.sigmoid(self.locate(2 * images - 1).float())

    def soft_bits(self, images: Tensor, masks: Tensor) -> Tensor:
        """Bits N×L around 0 read from the pixels inside bool or float masks N×1×H×W; the others are zeroed."""
        x = (2 * images - 1) * masks.to(images)
        return self.gather(self.reader(self.lift(x))).float() - 0.5

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        found = self.presence(images)
        return BitReading(self.soft_bits(images, found > 0.5 if masks is None else masks), found)

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        assert trial.reading.presence is not None
        image = 4 * F.mse_loss(trial.embedded, trial.images)
        message = trial.bit_loss(F.mse_loss, trial.reading.soft + 0.5)
        place = F.mse_loss(trial.reading.presence, trial.moved.float())
        begun = level("fidelity")
        weight = 20 + begun * (self.decoder_weight - 20)
        loss = begun * image + weight * (message + 0.5 * place)
        return {"loss": loss, "image": image.detach(), "message": message.detach(), "place": place.detach()}


class MaskMark(LearnedMark):
    """MaskMark-D or -ED (whichever the weights are) as a keyed mark: in the whole picture or regions, with a map.

    At use the change is 1.3 (D) or 1.75 (ED) times that of training and spread over red, green and blue by
    `CHANNELS`. mark takes masks; `mark_regions` puts several messages into one picture; read tries the whole map,
    then every connected part of it. smallest: share of the area below which a part is not read. The other arguments
    are those of `LearnedMark`.

    Source: Mask Image Watermarking, NeurIPS 2025.

    >>> net = MaskMarkNet(16, 32, base=4, reader_base=4, levels=2, middle=2, outside=4)
    >>> mark = MaskMark(network=net)
    >>> mark.mark(np.zeros((1, 3, 40, 50), np.float32), np.ones(32), PUBLIC_KEY).shape
    (1, 3, 40, 50)
    """

    slug = "maskmark"
    kind = "mark"

    def __init__(self, weights: Any = None, *, smallest: float = 0.01, **options: Any) -> None:
        if not 0 < smallest < 1:
            raise UsageError(f"smallest is a share of the area between 0 and 1; got {smallest:g}.")
        super().__init__(weights, **options)
        assert isinstance(self.network, MaskMarkNet)
        self.net = self.network
        self.smallest = smallest
        self.net.channels = CHANNELS
        if options.get("strength") is None:
            self.strength = 1.3 if self.net.variant == "D" else 1.75

    @staticmethod
    def build(**settings: Any) -> MaskMarkNet:
        return MaskMarkNet(**settings)

    def mark(
        self, images: np.ndarray, payload: str | np.ndarray, key: bytes, masks: np.ndarray | None = None
    ) -> np.ndarray:
        """As `LearnedMark.mark`; with masks one word of the network's own length fills the region."""
        return self._mark(images, payload, key, masks, self.grid if masks is None else (1, 1))

    def mark_regions(
        self, images: np.ndarray, payloads: Sequence[str | np.ndarray], masks: Sequence[np.ndarray], key: bytes
    ) -> np.ndarray:
        """Several messages in each picture, one for each of the masks (bool N×1×H×W), which must not overlap.

        Leave a gap between regions: parts of the map that touch are read as one. Raises UsageError when masks overlap
        or their number is not that of the payloads.
        """
        if len(payloads) != len(masks) or not masks:
            raise UsageError(f"There are {len(payloads)} payloads for {len(masks)} regions; give one for each.")
        if (np.sum([m.astype(np.uint8) for m in masks], axis=0) > 1).any():
            raise UsageError("The regions overlap; a pixel can carry one message.")
        for payload, mask in zip(payloads, masks, strict=True):
            images = self.mark(images, payload, key, mask)
        return images

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """As `LearnedMark.read`; ``details`` has the map (float32 S×S), the marked share of the area, and ``marks``:
        the `Reading` of every connected part that verifies, largest first, with its mask."""
        found = [self._read_regions(picture[None], BitCode(key, self.bits)) for picture in as_tensor(images)]
        if self.grid == (1, 1):
            return found
        # A word over the parts of the whole picture has the longer tag, so it goes before those of regions.
        divided = super().read(images, key)
        return [
            replace(whole, details={**(whole.details or {}), **(one.details or {}), "marks": []})
            if whole.outcome == "read"
            else one
            for whole, one in zip(divided, found, strict=True)
        ]

    def read_all(self, images: np.ndarray, key: bytes) -> list[list[Reading]]:
        """Every mark of each picture that verifies: one Reading for each connected part, or for the whole map."""
        found = []
        for reading in self.read(images, key):
            assert reading.details is not None
            found.append(reading.details["marks"] or ([reading] if reading.outcome == "read" else []))
        return found

    @torch.no_grad()
    def _read_regions(self, picture: Tensor, code: BitCode) -> Reading:
        device = next(self.net.parameters()).device
        small = to_native(picture, self.net.size).to(device)
        presence = self.net.presence(small)[0, 0].cpu().numpy()
        regions = components(presence > 0.5, self.smallest)
        # A map of several parts is also read as one: distortions tear a single mark apart.
        whole = presence > 0.5
        masks = [whole] + (regions if len(regions) > 1 else [])
        stack = torch.from_numpy(np.stack(masks))[:, None].to(device)
        softs = self.net.soft_bits(small.expand(len(masks), -1, -1, -1), stack).cpu().numpy()
        area = float(whole.mean())
        marks = []
        for mask, soft in zip(masks[1:], softs[1:], strict=True):
            one = reading_of(code, [soft], {"mask": mask})
            if one.outcome == "read":
                marks.append(one)
        attempts = list(softs) if area > 0 else []
        return reading_of(code, attempts, {"map": presence.astype(np.float32), "area": area, "marks": marks})

    def find(self, subject: ImageSubject) -> Finding:
        """Where the picture carries a mark of this kind, whoever made it; the public key tells whether it is ours.

        The threshold is the largest area that the map called marked on the unmarked pictures kept with the weights.
        """
        alarms = self.facts.get("alarm_areas", [])
        if not alarms:
            return Finding.not_applicable(self.slug, self.kind, "these weights have no measured rate of false alarms.")
        if min(subject.height, subject.width) < self.net.size // 2:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {self.net.size // 2} pixels a side."
            )
        (reading,) = self.read(subject.image, PUBLIC_KEY)
        assert reading.details is not None
        area, threshold = float(reading.details["area"]), max(float(max(alarms)), self.smallest)
        rate = 1 / (1 + int(self.facts.get("unmarked", len(alarms))))
        read = reading.outcome == "read"
        whose = (
            f"It was made with the key {fingerprint(PUBLIC_KEY)} (public)."
            if read
            else "Its key is not the public one."
        )
        return Finding(
            examiner=self.slug,
            kind=self.kind,
            score=area,
            flagged=read or area > threshold,
            threshold=threshold,
            false_positive_rate=rate,
            when_flagged=f"A learned mark covers about {area:.0%} of the picture. {whose}",
            when_clear="No learned mark of this kind stands out.",
            evidence=(f"marked area {area:.1%}; unmarked pictures reach {threshold:.1%}",),
            map=reading.details["map"],
            map_caption="where the reader sees the mark",
            details={"outcome": reading.outcome, "message": reading.message},
        )


def components(mask: np.ndarray, smallest: float = 0.01) -> list[np.ndarray]:
    """Connected parts (8 neighbours) of a bool map, largest first, without those below that share of the map.

    >>> parts = components(np.array([[1, 0, 0, 1], [1, 0, 0, 0]], bool), 0.05)
    >>> [int(p.sum()) for p in parts]
    [2, 1]
    """
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    parts = [labels == i for i in range(1, count)]
    parts = [p for p in parts if p.mean() >= smallest]
    return sorted(parts, key=lambda p: -int(p.sum()))
