"""A small face recogniser and a small mark, which the attack on both is tried on: one pair, one file of weights.

A recogniser gives unit-norm embeddings of faces of 64×64 pixels. The mark is of the HiDDeN kind. Full-size networks
take their places: anything that maps pictures to embeddings, and any `EmbedderReader`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError
from vestige.engines.described import read_description, save_described
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.engines.run_state import load_trained
from vestige.nn.messages import check_bits
from vestige.nn.resnet import ResNet, ResNetConfig

SIZE, BITS = 64, 16
MARGIN, SCALE = 0.2, 16.0


class FaceNet(nn.Module):
    """Unit-norm embeddings from a small ResNet, trained with a cosine margin: L = CE(s·(cos θ − m·[own person])).

    Source: CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018.
    """

    def __init__(self, people: int, *, width: float = 0.25, dimensions: int = 64) -> None:
        super().__init__()
        self.net = ResNet(ResNetConfig(18, "imagenet", width, dimensions))
        self.centres = nn.Parameter(torch.randn(people, dimensions))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.net(images), dim=1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        cosines = self(images) @ F.normalize(self.centres, dim=1).T
        margin = MARGIN * F.one_hot(labels, len(self.centres))
        return F.cross_entropy(SCALE * (cosines - margin), labels)


class FaceMark(EmbedderReader):
    """A small mark of the HiDDeN kind: a strided embedder and reader, the change free but for the loss.

    L = BCE(bits) + ``image_weight``·MSE(x_w, x) in [-1, 1] units, the latter with the stage "fidelity".
    Source: HiDDeN: Hiding Data with Deep Networks, ECCV 2018 (these layers are this implementation's).
    """

    def __init__(self, bits: int = BITS, size: int = SIZE, *, width: int = 24, image_weight: float = 0.7) -> None:
        super().__init__()
        self.bits, self.size, self.image_weight = bits, size, image_weight
        self.settings = {"bits": bits, "size": size, "width": width, "image_weight": image_weight}
        self.message = nn.Linear(bits, 16 * 64)
        self.look = _layer(3, width, 2)
        self.mix = nn.Sequential(_layer(width + 16, width, 1), _layer(width, width, 1))
        self.change = nn.Conv2d(width + 3, 3, 3, 1, 1)
        widths = (3, width, 32, 48, 48)
        self.reader = nn.Sequential(*(_layer(a, b, 2) for a, b in pairwise(widths)))
        self.head = nn.Linear(48 * (size // 16) ** 2, bits)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        x = 2 * images - 1
        planes = F.relu(self.message(2 * check_bits(bits, self.bits) - 1)).view(-1, 16, 8, 8)
        seen = self.look(x)
        mixed = self.mix(torch.cat([seen, F.interpolate(planes, seen.shape[2:], mode="bilinear")], 1))
        change = self.change(torch.cat([F.interpolate(mixed, x.shape[2:]), x], 1))
        return images + change.float() / 10

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        return BitReading(self.head(self.reader(2 * images - 1).flatten(1)))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        image = 4 * F.mse_loss(trial.embedded, trial.images)
        return {
            "loss": message + level("fidelity") * self.image_weight * image,
            "message": message.detach(),
            "image": image.detach(),
        }


def _layer(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class Unmarked(EmbedderReader):
    """Leaves pictures as they are: with it the attack is plain evasion."""

    bits, size = BITS, SIZE

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        return images


class FacePair(nn.Module):
    """A recogniser and a mark that were trained side by side on the same faces; neither knows of the other.

    threshold: the cosine from which the recogniser calls two faces the same, a buffer that training sets.
    """

    threshold: Tensor

    def __init__(self, people: int, *, width: float = 0.25, mark_width: int = 24) -> None:
        super().__init__()
        self.settings = {"people": people, "width": width, "mark_width": mark_width}
        self.recogniser = FaceNet(people, width=width)
        self.watermarker = FaceMark(width=mark_width)
        self.register_buffer("threshold", torch.tensor(0.5))


def save_pair(pair: FacePair, path: str | Path) -> None:
    """Write a pair with its settings; `load_pair` reads it back."""
    save_described(path, pair, "face_adv_watermark", pair.settings)


def load_pair(path: str | Path) -> FacePair:
    """The pair of `save_pair`, frozen and in evaluation mode. Raises InputError for other files."""
    settings = read_description(path, "face_adv_watermark")
    try:
        pair = FacePair(int(settings["people"]), width=float(settings["width"]), mark_width=int(settings["mark_width"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} does not say which networks it holds; train them again.") from None
    load_trained(path, pair)
    return pair.eval().requires_grad_(False)
