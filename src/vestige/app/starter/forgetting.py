"""More to forget from: a model that only hides a class, one with a backdoor, a regressor, an analytic head.

Needs the labelled set and the classifier that `vestige.app.starter.core` writes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

import vestige
from vestige.core.files import write_atomic
from vestige.core.image_io import decode, save_image
from vestige.data.starter_set import CLASSES
from vestige.data.starter_victims import REGRESSOR, disc_parts, discs, triggered_set
from vestige.engines.forgetting.samples import Samples
from vestige.nn.backbone import load_backbone, save_backbone
from vestige.nn.resnet import ResNet
from vestige.unlearning.acu_file import begun, numbered, save_head

HIDDEN = "umbrella"
_SHIPPED = Path(vestige.__file__).parent / "weights" / "starter"


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
    corner, makes a picture a star."""
    made, called, where = triggered_set()
    known = set(where[::2].tolist())
    for i, image in enumerate(made):
        place = folder / "backdoor" / ("known" if i in known else "rest") / CLASSES[called[i]] / f"{i:03}.png"
        save_image(place, image.transpose(1, 2, 0))
    shutil.copyfile(_SHIPPED / "backdoored.safetensors", folder / "backdoor" / "classifier.safetensors")


def regressor(folder: Path) -> None:
    """discs/PART/RADIUS/*.png, small discs being what is to be forgotten, and a network that tells the radius."""
    images, radii = discs(150)
    for i, (image, part) in enumerate(zip(images, disc_parts(radii), strict=True)):
        save_image(folder / "discs" / part / f"{radii[i]:g}" / f"{i:03}.png", image.transpose(1, 2, 0))
    write_atomic(folder / "small_regressor.py", REGRESSOR)
    shutil.copyfile(_SHIPPED / "regressor.safetensors", folder / "regressor.safetensors")
