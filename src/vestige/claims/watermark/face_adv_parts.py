"""Faces, recognisers and marks that the claims about face recognition are measured with; each is trained in a minute.

Thirty people are known to the recognisers by six photographs each, two more people not at all. Of everyone, two other
photographs set thresholds and two more are probe and gallery. Trained parts are kept under
results/runs/face_adv_watermark, and a training that was stopped continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.generation import runs
from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.packs import load_pack
from vestige.engines.marking.distort import DistortionLayer, Draw
from vestige.engines.marking.evaluate import draw_bits
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial, straight_clamp
from vestige.engines.marking.stages import ramp
from vestige.engines.train import TrainConfig
from vestige.nn.messages import check_bits
from vestige.nn.resnet import ResNet, ResNetConfig

SIZE, BITS = 64, 16
KNOWN = 30
#: Photographs of a person: to train on, to set thresholds, and probe and gallery.
TRAINED, TUNED = 6, 2
MARGIN, SCALE = 0.2, 16.0
#: Largest standard deviation of the noise that the recognisers are trained with.
NOISE = 0.01
_SYSTEM = "face_adv_watermark"
#: What the marks are trained to survive.
_BANK = (
    Draw("identity"), Draw("jpeg", 95, 60), Draw("noise", 0, 0.03), Draw("blur", 0.3, 0.8),
    Draw("brightness", 0.8, 1.2),
)  # fmt: skip


@dataclass(frozen=True)
class Faces:
    """Pictures float N×3×64×64 with eight-bit values; people: int64 N.

    probes and gallery: two photographs of everyone, each in both parts; ``people`` of these two.
    """

    train: Tensor
    labels: Tensor
    tuning: Tensor
    tuning_people: Tensor
    probes: Tensor
    gallery: Tensor
    people: Tensor


def faces(folder: Path) -> Faces:
    """The faces pack, always split the same way. Raises InputError when it has too few people or photographs."""
    pack = load_pack(folder, SIZE, label="person")
    images = torch.from_numpy(pack.images).float() / 255
    everyone = np.unique(pack.labels)
    shown = [rng(0, "photographs", int(p)).permutation(np.flatnonzero(pack.labels == p)) for p in everyone]
    if len(shown) <= KNOWN or min(len(s) for s in shown) < TRAINED + TUNED + 2:
        raise InputError(f"{folder} needs {KNOWN + 1} people with {TRAINED + TUNED + 2} photographs each.")
    order = [int(i) for i in rng(0, "people").permutation(len(shown))]
    known = [shown[i][:TRAINED] for i in order[:KNOWN]]
    tuned = [shown[i][TRAINED : TRAINED + TUNED] for i in order]
    first, second = (np.array([shown[i][TRAINED + TUNED + k] for i in order]) for k in (0, 1))
    people = torch.arange(len(order))
    return Faces(
        images[np.concatenate(known)], torch.arange(KNOWN).repeat_interleave(TRAINED),
        images[np.concatenate(tuned)], people.repeat_interleave(TUNED),
        images[np.concatenate([first, second])], images[np.concatenate([second, first])], people.repeat(2),
    )  # fmt: skip


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


def recogniser(data: Faces, seed: int, *, width: float = 0.25, steps: int = 350, trial: bool = False) -> FaceNet:
    """A recogniser of the thirty, in evaluation mode, on pictures shifted, mirrored, lightened and noised."""
    settings = {"width": width, "steps": steps, "seed": seed, "margin": MARGIN, "noise": NOISE, "people": KNOWN}

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(data.train), (48,), generator=generator)
        x = F.pad(data.train[chosen], (4, 4, 4, 4), mode="reflect")
        cut = []
        for picture in x:
            top, left, flip = (int(torch.randint(n, (), generator=generator)) for n in (9, 9, 2))
            picture = picture[:, top : top + SIZE, left : left + SIZE]
            cut.append(picture.flip(2) if flip else picture)
        gain, offset, sigma = (torch.rand((48, 1, 1, 1), generator=generator) for _ in range(3))
        noise = NOISE * sigma * torch.randn((48, 3, SIZE, SIZE), generator=generator)
        return ((torch.stack(cut) - 0.5) * (0.8 + 0.4 * gain) + 0.4 + 0.2 * offset + noise).clamp(0, 1), data.labels[
            chosen
        ]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, FaceNet)
        return {"loss": model.loss(*batch)}

    model = _seeded(lambda: FaceNet(KNOWN, width=width), seed)
    config = TrainConfig(steps=steps, batch_size=48, lr=2e-3, weight_decay=0.05, warmup=0.1, seed=seed)
    out = runs.run_folder(_SYSTEM, "recogniser", settings, trial)
    made = runs.trained(model, step, batches, config, out).requires_grad_(False)
    assert isinstance(made, FaceNet)
    return made


def watermarker(data: Faces, seed: int, *, width: int = 24, steps: int = 300, trial: bool = False) -> FaceMark:
    """A mark trained on the photographs that the recognisers know, in evaluation mode."""
    build = partial(FaceMark, width=width)
    settings = {**build().settings, "steps": steps, "seed": seed, "bank": [d.name for d in _BANK]}
    layer, count = DistortionLayer(_BANK), 24

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        chosen = torch.randint(len(data.train), (count,), generator=generator)
        return data.train[chosen], torch.from_numpy(draw_bits(seed, count, BITS, number)).float(), number

    def step(model: nn.Module, batch: tuple[Tensor, Tensor, int], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, FaceMark)
        images, bits, number = batch
        masks = torch.ones((len(images), 1, SIZE, SIZE), dtype=torch.bool)
        embedded = straight_clamp(model.embed(images, bits))
        severity = ramp(number, [(0.2 * steps, 0.0), (0.6 * steps, 1.0)])
        attacked, moved = embedded, masks
        if severity > 0:
            attacked, moved = layer(embedded, masks, rng(seed, "distortion", number), cover=images, severity=severity)
        trial = Trial(images, bits, masks, embedded, attacked, moved, model.read(attacked), images.new_zeros(()))
        found = model.objective(trial, lambda name: ramp(number, [(0.4 * steps, 0.0), (0.7 * steps, 1.0)]))
        return {**found, "bits_right": trial.accuracy()}

    model = _seeded(build, seed)
    config = TrainConfig(steps=steps, batch_size=count, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, seed=seed)
    out = runs.run_folder(_SYSTEM, "watermarker", settings, trial)
    made = runs.trained(model, step, batches, config, out).requires_grad_(False)
    assert isinstance(made, FaceMark)
    return made


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
