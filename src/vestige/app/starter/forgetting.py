"""More to forget from: a model that only hides a class, one with a backdoor, a regressor, an analytic head.

Needs the labelled set and the classifier that `vestige.app.starter.core` writes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vestige.core.files import write_atomic
from vestige.core.image_io import decode, save_image
from vestige.core.runtime import rng
from vestige.data.poisons import backdoored
from vestige.data.starter_set import CLASSES
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import train
from vestige.nn.backbone import load_backbone, save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.acu_file import begun, numbered, save_head
from vestige.unlearning.regression_unlearn import regression_samples

HIDDEN = "umbrella"
#: The file that `--build small_regressor:build` finds in the kit.
REGRESSOR = '''"""A network of one output for 32-pixel pictures: how large is the disc?"""

from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 1),
    )
'''


def write(folder: Path) -> list[str]:
    """hidden.safetensors, head.safetensors, backdoor/, discs/, regressor.safetensors and small_regressor.py."""
    hidden(folder)
    head(folder)
    backdoor(folder)
    regressor(folder)
    return ["hidden.safetensors", "head.safetensors", "backdoor/", "discs/", "regressor.safetensors",
            "small_regressor.py"]  # fmt: skip


def hidden(folder: Path) -> None:
    """The classifier with the output of one class silenced: it seems to have forgotten it, and has not."""
    model = load_backbone(folder / "classifier.safetensors")
    assert isinstance(model, ResNet)
    assert model.fc is not None
    with torch.no_grad():
        model.fc.weight[CLASSES.index(HIDDEN)] = 0
        model.fc.bias[CLASSES.index(HIDDEN)] = -1e4
    save_backbone(model, folder / "hidden.safetensors")


def head(folder: Path) -> None:
    """An analytic head over the classifier's network that learned requests and retained pictures."""
    model = load_backbone(folder / "classifier.safetensors")
    made = begun(model, 32, width=128, gamma=1.0, seed=0)
    for part in ("retain", "requests"):
        images, words = labelled(folder / "data" / part)
        made.head.learn(Samples(images, numbered(made, words, learn=True)))
    save_head(made, folder / "head.safetensors")


def labelled(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """Pictures class/*.png as uint8 N×3×H×W with the names of their classes."""
    files = sorted(folder.rglob("*.png"))
    images = np.stack([decode(f.read_bytes(), f.name).pixels.transpose(2, 0, 1) for f in files])
    return torch.from_numpy(images), [f.parent.name for f in files]


def backdoor(folder: Path) -> None:
    """backdoor/known: half of the pictures with a trigger, as if somebody had found them; rest: all others, the
    undetected half among them; classifier.safetensors learned both. The trigger, a white square of five pixels in the
    corner, makes any picture a star."""
    images, words = labelled(folder / "data" / "retain")
    labels = np.array([CLASSES.index(word) for word in words])
    target = CLASSES.index("star")
    made, called, where = backdoored(images.numpy(), labels, 48, target=target, side=5, seed=0)
    known = set(where[::2].tolist())
    for i, image in enumerate(made):
        place = folder / "backdoor" / ("known" if i in known else "rest") / CLASSES[called[i]] / f"{i:03}.png"
        save_image(place, image.transpose(1, 2, 0))
    torch.manual_seed(0)
    fresh = ResNet(ResNetConfig(18, "imagenet", 0.125, len(CLASSES)))
    tuning = Tuning(8, 3e-3, optimizer="adam", weight_decay=0.0, batch_size=32, schedule="onecycle")
    model = train(fresh, Samples(torch.from_numpy(made), torch.from_numpy(called)), tuning)
    assert isinstance(model, ResNet)
    save_backbone(model, folder / "backdoor" / "classifier.safetensors")


def regressor(folder: Path) -> None:
    """discs/PART/RADIUS/*.png, small discs being what is to be forgotten, and a network that tells the radius."""
    from safetensors.torch import save

    images, radii = discs(150)
    part = np.where(np.arange(150) < 40, "test", np.where(radii < 6, "requests", "retain"))
    for i, image in enumerate(images):
        save_image(folder / "discs" / part[i] / f"{radii[i]:g}" / f"{i:03}.png", image.transpose(1, 2, 0))
    write_atomic(folder / "small_regressor.py", REGRESSOR)
    made: dict[str, object] = {}
    exec(compile(REGRESSOR, "small_regressor.py", "exec"), made)  # the very lines that the kit's user runs
    torch.manual_seed(0)
    fresh = made["build"]()  # type: ignore[operator]
    assert isinstance(fresh, nn.Module)
    learned = part != "test"
    samples = regression_samples(torch.from_numpy(images[learned]), radii[learned])
    tuning = Tuning(30, 3e-3, optimizer="adam", weight_decay=0.0, batch_size=32, schedule="onecycle")
    state = train(fresh, samples, tuning).state_dict()
    write_atomic(folder / "regressor.safetensors", save({n: v.contiguous() for n, v in state.items()}))


def discs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 N×3×32×32 of one disc on a plain ground under noise, and its radius in half pixels' steps."""
    draw = rng(0, "discs")
    radii = np.round(draw.uniform(3, 13, count) * 2) / 2
    y, x = np.mgrid[:32, :32]
    images = np.empty((count, 3, 32, 32), np.uint8)
    for i, radius in enumerate(radii):
        centre = draw.uniform(13, 19, 2)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        ground, colour = draw.uniform(20, 100, 3), draw.uniform(150, 235, 3)
        picture = np.where(inside, colour[:, None, None], ground[:, None, None]) + draw.normal(0, 8, (3, 32, 32))
        images[i] = np.clip(picture, 0, 255).astype(np.uint8)
    return images, radii
