"""UMD: one auto-encoder that fills in masked patches and removes noise, then, with labels, draws pictures of a class.

    vestige learn umd
    vestige learn umd --data FOLDER --set size=32 --set width=192 --set depth=6
    vestige make --method umd --model RUN/umd.safetensors -o drawn.png

Learns from CIFAR-10, a folder of the user's pictures, or, where there is neither, drawn scenes. Trained without labels
first (``steps`` updates); where there are labels, fine-tuned with them and without masks (``tuning`` updates), the same
for every arm. Options: setting, "umd" or one of its special cases "mae", "dit", "maskdit", or "random" (no
pre-training); size, patch, width, depth, decoder_depth, heads: of the network; pictures, labels (a class), judged: how
many are learned from, probed with and judged by; samples: drawn to be compared with test pictures, in sample_steps.

Results: umd.safetensors (draws) and features.safetensors (as pre-trained, for features).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vestige.bench.generation import runs
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.packs import CIFAR10, Pack, has_pack, load_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines import parts
from vestige.engines.masked.evaluate import linear_probe
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.generation.umd import UMD, UMDConfig, save_umd
from vestige.nn.features import extract_features

SETTINGS: dict[str, dict[str, Any]] = {
    "umd": {},
    "mae": {"clean_share": 1.0},
    "dit": {"clean_share": 0.0, "noisy_mask": 0.0},
    "maskdit": {"clean_share": 0.0, "noisy_mask": 0.5},
    "random": {},
}
#: Noise levels at which features are read where the objective has no clean pictures; None is the clean picture.
LEVELS: tuple[int | None, ...] = (None, 0, 50, 100, 200, 400)
GUIDANCE = 2.0


class Data(NamedTuple):
    """train: pictures, their labels unused at first. labelled: some of each class, for the probe; None without labels.
    validation, test: held out."""

    train: Pack
    labelled: Pack | None
    validation: Pack
    test: Pack | None


def data_of(ctx: RecipeContext) -> Data:
    """CIFAR-10, the user's pictures or scenes. Raises InputError for folders of fewer than eight pictures."""
    o = ctx.options
    size, limit = int(o["size"]), int(o["pictures"]) or None
    if ctx.pictures is None and has_pack("cifar10"):
        cut = None if limit is None else limit * 10 // 9
        known, held = (named_pack("cifar10", p, size=size, limit=cut) for p in ("train", "val"))
        order = rng(0, "labelled").permutation(len(known))
        few = int(o["labels"])
        chosen = [i for label in range(len(CIFAR10)) for i in order[known.labels[order] == label][:few]]
        test = named_pack("cifar10", "test", size=size, limit=int(o["judged"]))
        return Data(known, known.take(chosen), held.take(range(min(len(held), 1000))), test)
    if ctx.pictures is not None:
        pack = load_pack(ctx.pictures, size, limit)
        if len(pack) < 8:
            raise InputError(f"{ctx.pictures} has {len(pack)} pictures; learning needs at least 8.")
    else:
        pack = render_pack(min(limit or 2000, 2000), size, ctx.seed, n_objects=1, object_size="large")
    order = rng(0, "held out").permutation(len(pack))
    count = min(1000, max(2, len(pack) // 10))
    train, held = pack.take(order[count:]), pack.take(order[:count])
    known_classes = len(pack.class_names) > 1 and pack.labels.min() >= 0
    return Data(train, train if known_classes else None, held, held if known_classes else None)


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Pre-train, probe, fine-tune with labels, draw and compare."""
    o = ctx.options
    setting = str(o["setting"])
    if setting not in SETTINGS:
        raise UsageError(f"setting is {setting!r}; choose one of {', '.join(SETTINGS)}.")
    data = data_of(ctx)
    classes = list(data.train.class_names) if data.labelled is not None else []
    model = network(o, setting, len(classes), ctx.seed)
    updates = 0
    if setting != "random":
        updates = ctx.config.steps
        model = _umd(parts.trained(ctx, "pretrained", _job(ctx, model, data, False)))
    save_umd(model, ctx.out / "features.safetensors")
    figures: dict[str, Any] = parts.figures(ctx, "probes", lambda: probes(model.cpu(), setting, data, ctx.seed))
    if classes:
        tuned = network(o, setting, len(classes), ctx.seed)
        tuned.load_state_dict(model.state_dict())
        tuned.config = dataclasses.replace(tuned.config, clean_share=0.05, noisy_mask=0.0)
        steps = int(o["tuning"])
        config = dataclasses.replace(
            ctx.config, steps=steps, betas=(0.9, 0.999), weight_decay=0.0, ema=0.99, validate_every=max(1, steps // 20)
        )
        model = _umd(parts.trained(ctx, "tuned", _job(ctx, tuned, data, True, config), config))
        updates += steps
        figures |= parts.figures(ctx, "samples", lambda: compared(model.cpu(), data, o, ctx.seed))
    save_umd(model, ctx.out / "umd.safetensors", classes)
    return {**figures, "updates": updates, "pictures encoded": updates * ctx.config.batch_size}


def network(o: Mapping[str, Any], setting: str, classes: int, seed: int) -> UMD:
    """The untrained network of a setting; all settings of one seed start from the same weights."""
    sizes = {name: int(o[name]) for name in ("size", "patch", "width", "depth", "decoder_depth", "heads")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UMD(UMDConfig(**sizes, classes=classes, **SETTINGS[setting]))


def _umd(model: nn.Module) -> UMD:
    assert isinstance(model, UMD)
    return model


def _job(ctx: RecipeContext, model: UMD, data: Data, labels: bool, config: TrainConfig | None = None) -> Job:
    """Training on the pictures and their mirror images; followed by the loss on pictures held out."""
    pictures, classes = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    count = min((config or ctx.config).batch_size, len(pictures))
    held = torch.from_numpy(data.validation.images).float() / 255
    known = torch.from_numpy(data.validation.labels)

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(pictures), (count,), generator=generator)
        flip = torch.rand(count, generator=generator) < 0.5
        x = pictures[chosen]
        return torch.where(flip[:, None, None, None], x.flip(3), x).float() / 255, classes[chosen]

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return _umd(module).loss(batch[0], generator, batch[1] if labels else None)

    def validate(module: nn.Module) -> dict[str, float]:
        generator = torch.Generator(ctx.device).manual_seed(0)
        x = held.to(ctx.device)
        found = _umd(module).loss(x, generator, known.to(ctx.device) if labels else None)
        return {name: float(value) for name, value in found.items()}

    return Job(model, step, batches, validate=validate)


@torch.no_grad()
def probes(model: UMD, setting: str, data: Data, seed: int) -> dict[str, Any]:
    """Test accuracy of a linear probe at the noise level that is best on validation pictures, and of pixels."""
    labelled, test = data.labelled, data.test
    if labelled is None or test is None:
        return {}
    model.eval()

    def accuracy(features: Callable[[Pack], torch.Tensor], judged: Pack) -> float:
        labels, truth = torch.from_numpy(labelled.labels), torch.from_numpy(judged.labels)
        return linear_probe(features(labelled), labels, features(judged), truth, seed=seed)

    def at(level: int | None) -> Callable[[Pack], torch.Tensor]:
        def features(pack: Pack) -> torch.Tensor:
            images = torch.from_numpy(pack.images)
            return torch.cat([model.represent(part.float() / 255, level, seed) for part in images.split(500)])

        return features

    levels: Sequence[int | None] = LEVELS if SETTINGS[setting].get("clean_share") == 0.0 else (None,)
    scores = [accuracy(at(level), data.validation) for level in levels] if len(levels) > 1 else [0.0]
    best = levels[int(np.argmax(scores))]
    pixels = accuracy(lambda pack: torch.from_numpy(pack.images).flatten(1).float() / 255, test)
    return {"linear": accuracy(at(best), test), "read at": "clean" if best is None else best, "linear pixels": pixels}


def compared(model: UMD, data: Data, o: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Distance of samples to test pictures, and of training pictures to them (the floor)."""
    count = int(o["samples"])
    assert data.test is not None
    if len(data.test) < 100 or count < 2:  # a handful of pictures has no distribution to speak of
        return {}
    labels = torch.arange(count) % model.config.classes
    made = model.eval().sample(count, seed=seed, labels=labels, guidance=GUIDANCE, steps=int(o["sample_steps"]))
    judge = runs.judge()
    real, drawn, train = (
        extract_features(judge, images, size=32) for images in (data.test.images, made, data.train.images[:count])
    )
    return {"distance": runs.set_distance(real, drawn), "distance real": runs.set_distance(real, train)}


def _arm(about: str, setting: str, seeds: tuple[int, ...] = (0, 1, 2)) -> Variant:
    return Variant(about, {"setting": setting}, seeds=seeds)


RECIPE = Recipe(
    name="umd",
    about="One auto-encoder for features and for drawing, trained to fill in patches and to remove noise.",
    perform=perform,
    config=TrainConfig(
        steps=2400, batch_size=128, lr=1e-3, weight_decay=0.05, validate_every=120, checkpoint_every=100
    ),
    reach={"linear": "above that of the arm dit"},
    options={
        "setting": "umd", "size": 16, "patch": 4, "width": 96, "depth": 4, "decoder_depth": 1, "heads": 3,
        "pictures": 20_000, "labels": 100, "judged": 4000, "tuning": 400, "samples": 500, "sample_steps": 25,
    },
    variants={
        "umd": _arm("half of a batch clean and masked, half noised and masked less", "umd"),
        "dit": _arm("noised pictures alone, nothing masked: a diffusion transformer", "dit"),
        "mae": _arm("clean pictures alone, three quarters masked: a masked auto-encoder", "mae"),
        "maskdit": _arm("noised pictures alone, half masked", "maskdit", (0,)),
        "random": _arm("no pre-training: what the probe and the fine-tuning do alone", "random"),
    },
    takes_pictures=True,
    judged_by="-loss",
)  # fmt: skip
