"""What the claims of the generation wing share: the shipped pipeline, its judge, held-out scenes and set distances."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.bench.store import results_root
from vestige.core.errors import InputError
from vestige.core.files import read_json, write_json
from vestige.data.scenes import CLASSES, STYLES, Scene, render, sample_scene
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.diffusion.schedules import Prediction, Schedule, cosine
from vestige.metrics.distribution import frechet_distance, squared_mmd
from vestige.nn import features
from vestige.nn.features import FeatureNet, load_feature_net
from vestige.nn.text import build_tokenizer, text_encoder
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae

#: The shipped text-to-image model, and where runs of claims are kept.
PIPELINE = Path(features.__file__).parent.parent / "weights" / "scenes_text2image"
RUNS = results_root() / "runs"
#: The model and the judge were trained on scenes of series 0, fewer than this.
TRAINED_SERIES, TRAINED_SCENES = 0, 60_000
#: The sizes of object that the shipped model was trained on (the recipe's option "sizes").
OBJECT_SIZES = ("large",)
RECIPE = "scenes_text2image"


def pipeline(folder: Path | None = None) -> TextToImage:
    """The shipped text-to-image model, or the one in ``folder``; loaded once.

    Raises InputError when it is not there, saying how to make one.
    """
    return _load(folder or PIPELINE)


@cache
def _load(folder: Path) -> TextToImage:
    if not folder.is_dir():
        raise InputError(f"There is no text-to-image model in {folder}; train one with 'vestige learn {RECIPE}'.")
    model = load_pipeline(folder)
    if not isinstance(model, TextToImage):
        raise InputError(f"{folder} is no pipeline of this recipe; train one with 'vestige learn {RECIPE}'.")
    return model.eval().requires_grad_(False)


def judge(path: Path | None = None) -> FeatureNet:
    """The classifier of object and style, trained on real renders alone; also the features of set distances.

    Raises InputError when no weights with both heads are shipped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights have no heads and are refused here
        net = load_feature_net(path)
    sizes = {name: head.out_features for name, head in net.heads.items()}
    if sizes.get("object") != len(CLASSES) or sizes.get("style") != len(STYLES):
        raise InputError("No judge of object and style is shipped as vestige/weights/feature_net.safetensors.")
    return net


def random_pipeline(
    table: Schedule | None = None, prediction: Prediction = "v", size: int = 16, seed: int = 0
) -> TextToImage:
    """A tiny pixel-space model with random weights, for equalities that hold whatever the weights are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer((sample_scene(i).caption for i in range(200)), 24)
        unet = text_unet(size, 3, "tiny", 32)
        model = TextToImage(
            unet, identity_vae(), text_encoder(tokenizer, 32, 1, 2), tokenizer, table or cosine(), prediction
        )
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes with their renders: images float32 N×3×S×S in [0, 1]; object and style: class numbers int64 N."""

    scenes: list[Scene]
    images: torch.Tensor
    object: torch.Tensor
    style: torch.Tensor

    @property
    def captions(self) -> list[str]:
        return [scene.caption for scene in self.scenes]

    def __len__(self) -> int:
        return len(self.scenes)


def words_of(scene: Scene) -> tuple[str, ...]:
    """What the caption of a one-object scene says, but for the size."""
    thing = scene.objects[0]
    return thing.kind, thing.colour, thing.texture, scene.style, scene.background


@cache
def trained_words() -> frozenset[tuple[str, ...]]:
    """`words_of` every scene that training may have seen."""
    numbers = range(TRAINED_SERIES * 1_000_003, TRAINED_SERIES * 1_000_003 + TRAINED_SCENES)
    return frozenset(words_of(sample_scene(number, n_objects=1)) for number in numbers)


def unseen(series: int, **options: Any) -> Iterator[Scene]:
    """One-object scenes whose captions training has not seen, in whatever size of object; without end.

    series: any number but 0, that of the training scenes. options: as in `sample_scene`.
    """
    number = series * 1_000_003
    while True:
        scene = sample_scene(number, n_objects=1, object_size=OBJECT_SIZES[number % len(OBJECT_SIZES)], **options)
        number += 1
        if words_of(scene) not in trained_words():
            yield scene


@lru_cache(maxsize=8)
def held_out(count: int, series: int, size: int) -> Scenes:
    """``count`` unseen scenes, rendered."""
    source = unseen(series)
    return rendered([next(source) for _ in range(count)], size)


def rendered(scenes: Sequence[Scene], size: int) -> Scenes:
    """Scenes of one object each with their pictures and classes."""
    images = np.stack([render(scene, size).image for scene in scenes])
    kinds = [CLASSES.index(scene.objects[0].kind) for scene in scenes]
    styles = [STYLES.index(scene.style) for scene in scenes]
    return Scenes(list(scenes), torch.from_numpy(images), torch.tensor(kinds), torch.tensor(styles))


@torch.no_grad()
def read(net: FeatureNet, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The classes the judge reads, int64 N for each head."""
    parts = [net.classify(part) for part in images.split(256)]
    return {name: torch.cat([p[name].argmax(1) for p in parts]) for name in parts[0]}


def agreement(net: FeatureNet, images: torch.Tensor, wanted: Scenes) -> dict[str, torch.Tensor]:
    """bool N: whether the judge reads the "object" and the "style" of the captions, and "both"."""
    found = read(net, images)
    right = {"object": found["object"] == wanted.object, "style": found["style"] == wanted.style}
    return {**right, "both": right["object"] & right["style"]}


def set_distance(real: np.ndarray, made: np.ndarray) -> float:
    """Fréchet distance of features; in a trial with fewer samples than dimensions the squared kernel distance."""
    if min(len(real), len(made)) > real.shape[1]:
        return frechet_distance(real, made)
    return squared_mmd(real, made)


def pixel_gaussian(images: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Pictures whose every sample is normal with the mean and spread of that sample over ``images``, clamped."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, *images.shape[1:]), generator=generator)
    return (images.mean(0) + images.std(0) * noise).clamp(0, 1)


class Counter:
    """calls and rows of a network since it was made; see `counted`."""

    calls = 0
    rows = 0


@contextmanager
def counted(model: TextToImage) -> Iterator[Counter]:
    """Count the calls of the UNet of a model within the block, and the pictures they were for."""
    counter = Counter()

    def count(module: Any, args: Any, output: Any) -> None:
        counter.calls += 1
        counter.rows += len(output[0])

    handle = model.unet.register_forward_hook(count)
    try:
        yield counter
    finally:
        handle.remove()


@cache
def _trials() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vestige-trial-")


def run_folder(system: str, name: str, settings: Mapping[str, Any], trial: bool = False) -> Path:
    """Where a run with these settings (JSON values) is kept; trials go to a folder that ends with the process."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    return (Path(_trials().name) if trial else RUNS) / system / f"{name}-{digest}"


def figures_of(out: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures recorded in the folder of a run, computed and recorded the first time."""
    path = out / "figures.json"
    if not path.is_file():
        write_json(path, compute())
    return read_json(path)
