"""What unlearning is tried on: pictures, a trained original and its retrained reference, trained once and kept.

Originals and references lie as safetensors in a folder, named by a hash of everything they depend on, so that the
benchmark, every claim and every seed share them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.runtime import rng
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem, class_problem, random_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import retrain, train
from vestige.nn.resnet import ResNet, ResNetConfig

#: Raised when originals trained before must not be used any more.
SCHEMA = 1
KINDS = ("class", "random")
#: Hyper-parameters are chosen on this seed: it has a pool of pictures, a class and networks of its own, and validation
#: samples in place of the test samples.
TUNING_SEED = 109
#: Where originals are kept unless another folder is named.
FOLDER = Path("out/unlearning")
OBJECTS = ("ball", "tree", "car", "star", "cup", "umbrella")


@dataclass(frozen=True)
class Settings:
    """data: "cifar10" (a pack) or "scenes" (rendered, no data needed). images, val, test: how many. width: of a
    ResNet-18 for small pictures. epochs, lr, batch_size, augment: of the original and of every retraining, SGD with
    momentum 0.9, weight decay 5e-4 and one cycle of the rate. Without augmentation a small network remembers its
    training pictures, which is what membership attacks and forgetting are about."""

    data: str = "cifar10"
    images: int = 5000
    val: int = 1000
    test: int = 2000
    width: float = 0.125
    epochs: int = 12
    lr: float = 0.2
    batch_size: int = 64
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.data not in ("cifar10", "scenes"):
            raise UsageError(f"data is {self.data!r}; choose cifar10 or scenes.")
        if min(self.images, self.val, self.test, self.epochs, self.batch_size) < 1 or not self.width > 0:
            raise UsageError("Images, epochs, batch size and width must be positive.")

    @property
    def classes(self) -> int:
        return 10 if self.data == "cifar10" else len(OBJECTS)

    def build(self) -> nn.Module:
        """A fresh network."""
        return ResNet(ResNetConfig(18, "cifar", self.width, self.classes))

    @property
    def training(self) -> Tuning:
        return Tuning(self.epochs, self.lr, batch_size=self.batch_size, schedule="onecycle", augment=self.augment)


#: For tests and for a first look: minutes become seconds.
SMALL = Settings("scenes", images=600, val=200, test=300, width=0.0625, epochs=4, batch_size=64)


@dataclass(frozen=True, eq=False)
class World:
    """A problem with its retrained model, and the seconds that training and retraining took when they ran."""

    problem: ForgetProblem
    reference: nn.Module
    seconds: dict[str, float]


def world(
    kind: str = "class",
    seed: int = 0,
    settings: Settings | None = None,
    *,
    data: Path | None = None,
    folder: Path = FOLDER,
) -> World:
    """Forget class ``seed`` modulo the number of classes, or a random tenth of the training pictures.

    data: the folder of data packs, for cifar10. Training takes about a minute of one core the first time. With
    `TUNING_SEED` the test samples are the validation samples. Raises UsageError for an unknown kind, InputError without
    the pack.
    """
    if kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; choose {' or '.join(KINDS)}.")
    settings = settings or Settings()
    train_set, val, test = splits(settings, seed, data)
    model, first = original(settings, seed, data=data, folder=folder)
    problem = posed(kind, seed, settings, model, (train_set, val, test))
    reference, again = kept(
        folder, {"settings": asdict(settings), "seed": seed, "retrain": kind}, settings.build, lambda: retrain(problem)
    )
    return World(problem, reference, {"original": first, "retrain": again})


def posed(
    kind: str, seed: int, settings: Settings, model: nn.Module, parts: tuple[Samples, Samples, Samples]
) -> ForgetProblem:
    """The problem of that kind for a model trained on the first of ``parts`` (training, validation, test)."""
    train_set, val, test = parts
    if seed == TUNING_SEED:
        test = val
    more: dict[str, Any] = {
        "val": val, "training": replace(settings.training, seed=seed), "build": settings.build,
        "augment": settings.augment, "seed": seed,
    }  # fmt: skip
    if kind == "class":
        return class_problem(model, train_set, seed % settings.classes, test=test, **more)
    return random_problem(model, train_set, 0.1, test=test, **more)


def original(
    settings: Settings, seed: int, *, data: Path | None = None, folder: Path = FOLDER
) -> tuple[nn.Module, float]:
    """The network trained on all training pictures of that seed, and the seconds it took when it was trained."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = settings.build()
        return train(fresh, splits(settings, seed, data)[0], replace(settings.training, seed=seed))

    return kept(folder, {"settings": asdict(settings), "seed": seed}, settings.build, make)


def kept(
    folder: Path, recipe: dict[str, object], build: Callable[[], nn.Module], make: Callable[[], nn.Module]
) -> tuple[nn.Module, float]:
    """The model of that recipe from ``folder``, made and stored there when it is missing; and the seconds of making it.

    The recipe must name everything the model depends on; its hash is the file's name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    key = hashlib.sha256(json.dumps([SCHEMA, recipe], sort_keys=True).encode()).hexdigest()[:20]
    path, note = folder / "models" / f"{key}.safetensors", folder / "models" / f"{key}.json"
    if path.is_file() and note.is_file():
        model = build()
        try:
            model.load_state_dict(load(path.read_bytes()))
            return model.eval(), float(json.loads(note.read_text())["seconds"])
        except (SafetensorError, RuntimeError, KeyError, ValueError):
            pass  # torn or foreign: made again
    with measured() as cost:
        model = make()
    write_atomic(path, save({n: v.contiguous() for n, v in model.state_dict().items()}))
    stamp = {"seconds": cost.seconds, "recipe": recipe, "date": time.strftime("%Y-%m-%d")}
    write_atomic(note, json.dumps(stamp, indent=1))
    return model.eval(), cost.seconds


def splits(settings: Settings, seed: int, data: Path | None = None) -> tuple[Samples, Samples, Samples]:
    """Training, validation and test samples; the seed draws the first two from one pool, the test samples are fixed.

    The pool of `TUNING_SEED` shares no picture with that of all other seeds.
    """
    pool, test = _pools(settings, None if data is None else str(data), seed == TUNING_SEED)
    order = rng(seed, "unlearning split").permutation(len(pool))
    return pool.take(order[: settings.images]), pool.take(order[settings.images :]), test


@lru_cache(maxsize=4)
def _pools(settings: Settings, data: str | None, tuning: bool) -> tuple[Samples, Samples]:
    count = settings.images + settings.val
    if settings.data == "scenes":
        return _scenes(count, 13 if tuning else 11), _scenes(settings.test, 12)
    from vestige.data.packs import CIFAR10, find_data_root, load_pack

    root = find_data_root() if data is None else Path(data)
    if root is None or not (root / "cifar10" / "train.parquet").is_file():
        raise InputError("The pack cifar10 is not there; set VESTIGE_DATA or --data, or choose the data 'scenes'.")
    # Items evenly spaced: twice as many have the same ones at even places and others between them.
    wanted = 2 * count if tuning else count
    packs = [
        load_pack(root / "cifar10" / f"{part}.parquet", limit=n, class_names=CIFAR10)
        for part, n in (("train", wanted), ("test", settings.test))
    ]
    if len(packs[0]) < wanted:
        raise InputError(f"The pack has {len(packs[0])} training pictures; {wanted} are asked for.")
    pool, test = (Samples(torch.from_numpy(p.images), torch.from_numpy(p.labels)) for p in packs)
    return pool.take(range(1, wanted, 2)) if tuning else pool, test


def _scenes(count: int, seed: int) -> Samples:
    from vestige.data.scenes import render_pack

    pack = render_pack(count, 32, seed, classes=OBJECTS, n_objects=1, styles=("photo", "cartoon"))
    labels = np.array([OBJECTS.index(pack.class_names[label]) for label in pack.labels], np.int64)
    return Samples(torch.from_numpy(pack.images), torch.from_numpy(labels))
