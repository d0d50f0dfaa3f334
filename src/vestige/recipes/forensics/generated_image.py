"""Detectors of generated pictures: PatchCraft, NPR and residual networks, on one data set and one schedule.

    vestige learn generated_image --set detector=patchcraft
    vestige learn generated_image --set detector=npr --set held=autoencoder
    vestige learn generated_image --set preset=gpu --set steps=10000 --set precision=auto

Real pictures are squares of photographs reduced by two; every source of the zoo (`vestige.engines.fakes`, and the
up-sampling and fitted ones of `vestige.data.fakes`) re-makes them, and all are saved alike. Photographs to train, to
validate and to judge by are different ones, and the fitted sources learn from others still.

Options: detector "patchcraft", "npr", "rgb" (a ResNet on the picture) or "srm" (on its noise residual). train: the
sources to learn from, separated by "+", or "all"; held: a family of `vestige.data.fakes.FAMILIES` to leave out, so that
its figures are those of generators never seen. preset: "cpu" or "gpu" (sizes of the papers). size of the squares,
squares of each photograph, limit the number of photographs (0 all), crop and augment, see
`vestige.forensics.generated.training`. diffusion: sources that redraw with a diffusion model, which take most of the
preparation. lossless: share saved without loss. cache: a file (.npz) that the sets are kept in, for runs that differ in
the detector or in what is held out; it is written by the first and must be of the same pictures.

Evaluation: AUROC of every source on photographs kept apart, the mean over the sources that were not learnt from, and
the mean under JPEG. Result: DETECTOR.safetensors; for the examiners, a copy of it goes into the package's weights.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.data.distortions import distort
from vestige.data.fakes import FAMILIES, FakeSet, as_float, fake_set, squares
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.fakes import WEIGHTS, zoo
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics.generated import TraceDetector, logits, training
from vestige.forensics.learned import save_network
from vestige.forensics.npr import TraceResNet
from vestige.forensics.patchcraft import PatchCraftNet
from vestige.metrics.detection import auroc

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "patchcraft": {"patch": 8, "grid": 6, "width": 24},
        "npr": {"width": 0.5},
        "rgb": {"front": "rgb", "depth": 18, "stages": 4, "width": 0.5, "stem": "large"},
        "srm": {"front": "srm", "depth": 18, "stages": 4, "width": 0.5, "stem": "large"},
    },
    "gpu": {
        "patchcraft": {"patch": 16, "grid": 8, "width": 32},
        "npr": {},
        "rgb": {"front": "rgb", "depth": 50, "stages": 4, "stem": "large"},
        "srm": {"front": "srm", "depth": 50, "stages": 4, "stem": "large"},
    },
}


def build(ctx: RecipeContext) -> Job:
    """The detector of the preset and the sets it learns from."""
    o = ctx.options
    if o["preset"] not in PRESETS or o["detector"] not in PRESETS["cpu"] or o["held"] not in ("", *FAMILIES):
        raise UsageError(
            f"preset is one of {', '.join(PRESETS)}, detector one of {', '.join(PRESETS['cpu'])} and held empty or one "
            f"of {', '.join(FAMILIES)}."
        )
    parts = sets(ctx)
    learnt = chosen(parts["train"], o["train"], o["held"])
    fake = np.concatenate([parts["train"].fakes[name] for name in learnt])
    kind = PatchCraftNet if o["detector"] == "patchcraft" else TraceResNet
    model: TraceDetector = kind(**PRESETS[o["preset"]][o["detector"]])
    batches, step = training(
        parts["train"].real, fake, ctx.config.batch_size, crop=int(o["crop"]), augment=float(o["augment"])
    )

    def validate(module: nn.Module) -> dict[str, float]:
        found = areas(module, parts["val"])
        return {"auroc learnt": mean(found, learnt), "auroc others": mean(found, set(found) - set(learnt))}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        found, jpeg = areas(module, parts["test"]), areas(module, parts["test"], quality=80)
        others = set(found) - set(learnt)
        return {
            **{f"{name}{'' if name in learnt else ' (not learnt)'}": value for name, value in found.items()},
            "learnt": mean(found, learnt), "not learnt": mean(found, others),
            "learnt, JPEG 80": mean(jpeg, learnt), "not learnt, JPEG 80": mean(jpeg, others),
        }  # fmt: skip

    def save(module: nn.Module, out: Path) -> None:
        facts = {"learnt": learnt, "held": o["held"], "real pictures": len(parts["train"].real), "size": int(o["size"])}
        save_network(out / f"{o['detector']}.safetensors", module, o["detector"], facts)

    return Job(model, step, batches, validate=validate, evaluate=evaluate, save=save)


def sets(ctx: RecipeContext) -> dict[str, FakeSet]:
    """Real and generated squares of the training, validation and test photographs."""
    o = ctx.options
    key = [ctx.seed, *(o[name] for name in ("size", "squares", "limit", "diffusion", "lossless")), *_weights()]
    cache = Path(o["cache"]) if o["cache"] else None
    if cache is not None and cache.is_file():
        return _read(cache, repr(key))
    photographs = _photographs(int(o["limit"]), int(o["size"]), ctx.seed)
    cut = {
        part: squares(images, int(o["size"]), per_photo=int(o["squares"]), seed=ctx.seed)
        for part, images in photographs.items()
    }
    sources = zoo(as_float(cut["fit"][0]), size=int(o["size"]), diffusion=bool(o["diffusion"]), seed=ctx.seed)
    found = {
        part: fake_set(cut[part][0], sources, cut[part][1], seed=ctx.seed + i, lossless=float(o["lossless"]))
        for i, part in enumerate(("train", "val", "test"))
    }
    if cache is not None:
        _write(cache, repr(key), found)
    return found


def _weights() -> list[str]:
    """What the zoo is made of: a zoo with more generators makes other sets."""
    return sorted(path.name for path in WEIGHTS.iterdir() if path.name.startswith(("zoo_", "scenes_")))


def _write(path: Path, key: str, parts: dict[str, FakeSet]) -> None:
    arrays = {"key": np.array(key)}
    for part, made in parts.items():
        arrays |= {f"{part}|real": made.real, f"{part}|photo": made.photo}
        arrays |= {f"{part}|{made.families[name]}|{name}": images for name, images in made.fakes.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def _read(path: Path, key: str) -> dict[str, FakeSet]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        same = str(arrays.pop("key")) == key
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path} holds no sets of this recipe; delete it.") from None
    if not same:
        raise InputError(f"{path} holds sets of other settings or of another zoo; delete it or name another cache.")
    found = {}
    for part in ("train", "val", "test"):
        fakes = {n.split("|")[2]: x for n, x in arrays.items() if n.startswith(f"{part}|") and n.count("|") == 2}
        families = {n.split("|")[2]: n.split("|")[1] for n in arrays if n.startswith(f"{part}|") and n.count("|") == 2}
        found[part] = FakeSet(arrays[f"{part}|real"], fakes, families, arrays[f"{part}|photo"])
    return found


def _photographs(limit: int, size: int, seed: int) -> dict[str, np.ndarray]:
    """uint8 N×3×S×S by part; without the photos pack, rendered scenes."""
    found: dict[str, np.ndarray] = {}
    if has_pack("photos"):
        found = {p: named_pack("photos", p, size=256, limit=limit or None).images for p in ("train", "val", "test")}
    if not found or not all(len(images) for images in found.values()):
        count = limit or 400
        counts = {"train": count, "val": max(8, count // 8), "test": max(8, count // 8)}
        found = {p: render_pack(n, 2 * size, seed + i).images for i, (p, n) in enumerate(counts.items())}
    apart = max(8, len(found["train"]) // 10)
    return {**found, "train": found["train"][apart:], "fit": found["train"][:apart]}


def chosen(made: FakeSet, names: str, held: str) -> list[str]:
    """The sources to learn from; raises UsageError when there are none."""
    listed = list(made.fakes) if names == "all" else names.split("+")
    unknown = sorted(set(listed) - set(made.fakes))
    learnt = [name for name in listed if name not in unknown and made.families[name] != held]
    if unknown or not learnt:
        raise UsageError(f"train names sources out of {', '.join(made.fakes)}, not all of one family that is held out.")
    return learnt


def areas(module: nn.Module, made: FakeSet, *, quality: int = 0) -> dict[str, float]:
    """AUROC of every source against the real squares; quality: of JPEG that both go through first."""
    assert isinstance(module, TraceDetector)

    def scored(images: np.ndarray) -> np.ndarray:
        return logits(module, distort(as_float(images), "jpeg", quality) if quality else images)

    real = scored(made.real)
    scores = {name: scored(images) for name, images in made.fakes.items()}
    return {
        name: auroc(np.repeat([False, True], [len(real), len(fake)]), np.append(real, fake))
        for name, fake in scores.items()
    }


def mean(found: dict[str, float], names: Any) -> float:
    return float(np.mean([found[name] for name in names])) if names else float("nan")


RECIPE = Recipe(
    name="generated_image",
    about="Detectors of generated pictures: PatchCraft, NPR and residual networks, learnt from a zoo of generators.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=32, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=50, clip=1.0, ema=0.99,
        log_every=25, validate_every=500, checkpoint_every=200,
    ),
    reach={"not learnt": "0.9 averaged over families left out in turn (one run for each)"},
    options={
        "detector": "patchcraft", "preset": "cpu", "train": "all", "held": "", "size": 64, "squares": 2, "limit": 0,
        "crop": 56, "augment": 0.1, "diffusion": True, "lossless": 0.4,
        "cache": "",
    },
)  # fmt: skip
