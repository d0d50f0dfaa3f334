"""Claims of UMD against its own special cases, all settings of one class: MAE, DiT, a masked DiT, random weights.

CIFAR-10 at 16 pixels; every setting sees the same pictures in the same order and encodes as many. Finished runs are
kept under results/runs/umd with their figures and are not done again; one that was stopped continues.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.runtime import rng
from vestige.data.packs import CIFAR10, Pack, load_pack, split
from vestige.engines.masked.evaluate import linear_probe
from vestige.engines.train import TrainConfig
from vestige.generation.umd import UMD, UMDConfig
from vestige.nn.features import extract_features

SIZE = 16
SETTINGS: dict[str, dict[str, Any]] = {
    "UMD": {},
    "MAE": {"clean_share": 1.0},
    "DiT": {"clean_share": 0.0, "noisy_mask": 0.0},
    "MaskDiT": {"clean_share": 0.0, "noisy_mask": 0.5},
}
NETWORK: dict[str, Any] = {
    "size": SIZE, "patch": 4, "width": 96, "depth": 4, "decoder_depth": 1, "heads": 3, "classes": 10,
}  # fmt: skip
TRAINING: dict[str, Any] = {"steps": 400, "batch_size": 128, "lr": 1e-3, "weight_decay": 0.05, "checkpoint_every": 100}
#: With labels and no masks, as diffusion alone is trained; the same for every start.
TUNING: dict[str, Any] = {**TRAINING, "steps": 250, "betas": (0.9, 0.999), "weight_decay": 0.0, "ema": 0.99}
TUNED: dict[str, Any] = {"clean_share": 0.05, "noisy_mask": 0.0}
#: Noise levels at which features are read; None is the clean picture, told as such.
LEVELS = (None, 0, 50, 100, 200, 400)
SEEDS, SAMPLE_SEEDS = 3, 2
PICTURES, A_CLASS, VALIDATION, TEST = 20_000, 100, 1000, 4000
SAMPLES, SAMPLE_STEPS, GUIDANCE = 500, 25, 2.0


class Data(NamedTuple):
    """train: pictures without labels. labelled: some of each class of them, for the probe."""

    train: Pack
    labelled: Pack
    validation: Pack
    test: Pack


@lru_cache(maxsize=1)
def data(folder: Path, limit: int) -> Data:
    """CIFAR-10 shrunk; validation pictures are a tenth of the training file, by name."""
    options: dict[str, Any] = {"class_names": CIFAR10}
    known = load_pack(folder / "train.parquet", SIZE, 10 * limit if limit else PICTURES * 10 // 9, **options)
    parts = split(known.names, {"train": 0.9, "val": 0.1})
    train, validation = known.take(parts["train"]), known.take(parts["val"][: limit or VALIDATION])
    order = rng(0, "labelled").permutation(len(train))
    few = max(2, limit // 5) if limit else A_CLASS
    chosen = [i for label in range(len(CIFAR10)) for i in order[train.labels[order] == label][:few]]
    test = load_pack(folder / "test.parquet", SIZE, limit or TEST, **options)
    return Data(train, train.take(chosen), validation, test)


def _data(context: ClaimContext) -> Data:
    return data(context.pack("cifar10"), context.limit)


def network(setting: str, seed: int) -> UMD:
    """The untrained network of a setting; all settings of one seed start from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UMD(UMDConfig(**NETWORK, **SETTINGS[setting]))


def _train(
    model: UMD, training: dict[str, Any], labels: bool, name: str, settings: dict[str, Any], context: ClaimContext
) -> tuple[UMD, Path]:
    """Train on the pictures and their mirror images; the folder of the run too."""
    pack = _data(context).train
    pictures, classes = torch.from_numpy(pack.images), torch.from_numpy(pack.labels)
    shortened = {"steps": 2, "batch_size": 4} if context.limit else {}
    config = TrainConfig(**{**training, **shortened}, seed=settings["seed"])

    def batches(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(pictures), (config.batch_size,), generator=generator)
        flip = torch.rand(len(chosen), generator=generator) < 0.5
        x = pictures[chosen]
        return torch.where(flip[:, None, None, None], x.flip(3), x).float() / 255, classes[chosen]

    def step(module: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        assert isinstance(module, UMD)
        return module.loss(batch[0], generator, batch[1] if labels else None)

    # What is done with a trained network is part of a run as well: its figures are kept beside its weights.
    shape = {"network": NETWORK, "training": {**training, **shortened}, "pictures": len(pack), "limit": context.limit}
    after = {"levels": LEVELS, "samples": [SAMPLES, SAMPLE_STEPS, GUIDANCE], "probe": [A_CLASS, VALIDATION, TEST]}
    out = runs.run_folder("umd", name, {**settings, **shape, **after}, trial=bool(context.limit))
    done = runs.trained(model, step, batches, config, out)
    assert isinstance(done, UMD)
    return done, out


def pretrained(setting: str, seed: int, context: ClaimContext) -> tuple[UMD, Path]:
    """A network trained without labels."""
    options = {"setting": setting, "flags": SETTINGS[setting], "seed": seed}
    return _train(network(setting, seed), TRAINING, False, f"{setting.lower()}-{seed}", options, context)


def probes(model: UMD, levels: tuple[int | None, ...], context: ClaimContext, seed: int) -> dict[str, Any]:
    """Test accuracy of a linear probe at the noise level that is best on validation pictures."""
    parts = _data(context)

    def features(pack: Pack, level: int | None) -> torch.Tensor:
        images = torch.from_numpy(pack.images)
        return torch.cat([model.represent(part.float() / 255, level, seed) for part in images.split(500)])

    def accuracy(level: int | None, pack: Pack) -> float:
        return linear_probe(
            features(parts.labelled, level), torch.from_numpy(parts.labelled.labels),
            features(pack, level), torch.from_numpy(pack.labels), seed=seed,
        )  # fmt: skip

    scores = [accuracy(level, parts.validation) for level in levels] if len(levels) > 1 else [0.0]
    best = levels[int(np.argmax(scores))]
    return {"accuracy": accuracy(best, parts.test), "level": best, "validation": scores}


def _probe_pixels(context: ClaimContext, seed: int) -> dict[str, Any]:
    parts = _data(context)
    (x, y), (test_x, truth) = (
        (torch.from_numpy(pack.images).flatten(1).float() / 255, torch.from_numpy(pack.labels))
        for pack in (parts.labelled, parts.test)
    )
    return {"accuracy": linear_probe(x, y, test_x, truth, seed=seed), "level": None}


def probed(setting: str, seed: int, context: ClaimContext) -> dict[str, Any]:
    """Probe figures of a trained network, of a random one (whose blocks start as the identity, so that its class tokens
    see nothing) or of the pixels: clean features where the objective has clean pictures, else the best level."""
    if setting == "random":
        return probes(network("UMD", seed).eval(), (None,), context, seed)
    if setting == "pixels":
        return _probe_pixels(context, seed)
    levels = LEVELS if SETTINGS[setting].get("clean_share") == 0.0 else (None,)
    model, out = pretrained(setting, seed, context)
    return runs.figures_of(out, lambda: probes(model, levels, context, seed))


@claim(
    "a linear probe with 100 labels a class on UMD's features beats the DiT setting at its best noise level by >= 3 "
    "points and is within 5 points of the MAE setting, at equal encoder passes (3 seeds)"
)
def features_are_as_good_as_those_of_mae(context: ClaimContext) -> Evidence:
    rows, mean = [], {}
    seeds = range(context.seed, context.seed + (1 if context.limit else SEEDS))
    for setting in (*SETTINGS, "random", "pixels"):
        found = [probed(setting, seed, context) for seed in seeds]
        each = [f["accuracy"] for f in found]
        mean[setting] = float(np.mean(each))
        levels = ["clean" if f["level"] is None else str(f["level"]) for f in found]
        rows.append(
            {
                "setting": setting, "accuracy": mean[setting], "lowest": min(each), "highest": max(each),
                "read at": ", ".join(levels), "seeds": len(each), "pictures encoded": _encoded(setting, context),
            }
        )  # fmt: skip
    holds = mean["UMD"] >= mean["DiT"] + 0.03 and mean["UMD"] >= mean["MAE"] - 0.05
    parts = _data(context)
    note = f"{len(parts.labelled)} labelled, {len(parts.test)} test pictures of 16×16; chance 0.1."
    return Evidence(holds and mean["UMD"] > mean["pixels"], rows, note)


def _encoded(setting: str, context: ClaimContext) -> int:
    return 0 if setting in ("random", "pixels") or context.limit else TRAINING["steps"] * TRAINING["batch_size"]


def tuned(setting: str, seed: int, context: ClaimContext) -> dict[str, Any]:
    """Fine-tune with labels and compare samples with test pictures."""
    model = pretrained(setting, seed, context)[0] if setting != "random" else network("UMD", seed)
    model.config = replace(model.config, **TUNED)
    options = {"setting": setting, "seed": seed, "tuned": TUNED}
    model, out = _train(model.train(), TUNING, True, f"{setting.lower()}-{seed}-tuned", options, context)
    return runs.figures_of(out, lambda: _sampled(model, seed, context))


def _sampled(model: UMD, seed: int, context: ClaimContext) -> dict[str, Any]:
    count, steps = (context.limit, 2) if context.limit else (SAMPLES, SAMPLE_STEPS)
    labels = torch.arange(count) % len(CIFAR10)
    with torch.no_grad():
        made = model.sample(count, seed=seed, labels=labels, guidance=GUIDANCE, steps=steps)
    return {"distance": runs.set_distance(_features(_data(context).test.images), _features(made)), "samples": count}


def _features(images: Any) -> np.ndarray:
    return extract_features(runs.judge(), images, size=32)


def _floor(context: ClaimContext) -> float:
    parts = _data(context)
    count = context.limit or SAMPLES
    return runs.set_distance(_features(parts.test.images), _features(parts.train.images[:count]))


@claim(
    "after fine-tuning with labels UMD's samples are at most 1.15 times as far from test pictures as those from the "
    "DiT setting and at most 0.85 times as far as from the MAE setting (Fréchet distance, 2 seeds)"
)
def samples_are_as_good_as_those_of_dit(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    mean = {}
    seeds = range(context.seed, context.seed + (1 if context.limit else SAMPLE_SEEDS))
    for setting in ("UMD", "DiT", "MAE", "random"):
        found = [tuned(setting, seed, context) for seed in seeds]
        each = [f["distance"] for f in found]
        mean[setting] = float(np.mean(each))
        rows.append(
            {
                "start": setting, "distance": mean[setting], "lowest": min(each), "highest": max(each),
                "samples": found[0]["samples"], "seeds": len(each),
            }
        )  # fmt: skip
    rows.append({"start": "training pictures (the floor)", "distance": _floor(context), "samples": SAMPLES})
    holds = mean["UMD"] <= 1.15 * mean["DiT"] and mean["UMD"] <= 0.85 * mean["MAE"]
    return Evidence(holds, rows, f"Features: {runs.judge().provenance}, trained on scenes, pictures enlarged to 32.")
