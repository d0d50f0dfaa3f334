"""Claims of RIGID with encoders that have seen no generated picture.

Encoders: a MAE ViT (weights/mae_cifar.safetensors) where it is installed, else the shipped feature network, which
learnt from drawn scenes. The encoder and the resize protocol are fixed before looking at any generator, the sign is
that of the paper; a column shows the sign that the other families of generators would choose on validation
photographs. The table has the noise in both conventions.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.generated_study import (
    areas,
    available,
    by_family,
    logistic,
    pictures,
    rounded,
)
from vestige.data.distortions import distort
from vestige.data.fakes import FakeSet, as_float
from vestige.engines.fakes import WEIGHTS, autoencoder_source
from vestige.forensics.rigid import RIGID
from vestige.nn.backbone import load_backbone
from vestige.nn.features import FeatureNet, load_feature_net
from vestige.nn.vit import ViT

SOURCES = (
    "up_transposed", "up_bicubic", "fitted_x2", "drawn_coefficients", "scenes_vae", "zoo_gan_sr", "redrawn_0.3",
    "zoo_redrawn_0.3",
)  # fmt: skip
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SEEDS, LEVEL, COUNT = 3, 0.05, 40
_MAE = WEIGHTS / "mae_cifar.safetensors"


def _names(context: ClaimContext) -> list[str]:
    """The sources that are judged: one or two of every family."""
    return [name for name in available(context) if name in SOURCES]


def _set(context: ClaimContext, part: str) -> FakeSet:
    found = pictures(context, part, _names(context))
    return FakeSet(
        found.real[:COUNT], {n: x[:COUNT] for n, x in found.fakes.items()}, found.families, found.photo[:COUNT]
    )


@cache
def _encoder(kind: str, seed: int = 0) -> tuple[Any, int | None]:
    """(encoder, side that pictures are resized to): "trained" or "random"."""
    if _MAE.is_file():
        trained = load_backbone(_MAE)
        assert isinstance(trained, ViT)
        torch.manual_seed(seed)
        return (trained if kind == "trained" else ViT(trained.config).eval()), trained.config.image_size
    if kind == "trained":
        return load_feature_net(), None
    return FeatureNet(seed=seed).eval(), None


def _rigid(kind: str = "trained", seed: int = 0, **options: Any) -> RIGID:
    encoder, size = _encoder(kind, seed)
    return RIGID(encoder, LEVEL, **{"size": size, **options})


def _scores(score: Any, made: FakeSet, quality: int = 0) -> dict[str, float]:
    def scored(images: np.ndarray) -> np.ndarray:
        return score(distort(as_float(images), "jpeg", quality) if quality else as_float(images))

    return areas(scored(made.real), {name: scored(images) for name, images in made.fakes.items()})


def _row(context: ClaimContext, name: str, found: dict[str, float]) -> dict[str, Any]:
    """Means over families, the weakest source, and every source."""
    means = by_family(found, available(context), found)
    return {"detector": name, "mean": means["mean"], "lowest": min(found.values()), **found}


@cache
def _ours(context: ClaimContext) -> dict[str, Any]:
    return _row(context, "RIGID", _scores(_rigid().score, _set(context, "test")))


def _note(context: ClaimContext) -> str:
    rigid = _rigid()
    protocol = "at their own 64 pixels" if rigid.size is None else f"resized to {rigid.size} pixels"
    name = "MAE ViT" if _MAE.is_file() else "feature network of drawn scenes"
    return (
        f"{name}; pictures {protocol}; lambda {LEVEL} normalised = {float(rigid.scale().mean()):.4f} in [0, 1]; "
        f"{rigid.draws} draws; sign 1"
    )


@claim(
    "mean AUROC over families >= 0.60, no generator below 0.45, and >= 0.08 above the same encoder with random weights"
)
def beats_chance_and_random_weights(context: ClaimContext) -> Evidence:
    test, ours = _set(context, "test"), _ours(context)
    seeds = range(context.seed, context.seed + (1 if context.limit else SEEDS))
    rows = [ours]
    random = [_row(context, f"random weights, seed {s}", _scores(_rigid("random", s).score, test)) for s in seeds]
    rows += random
    for name, options in (
        ("RIGID, blurred copy", {"mode": "blur"}),
        ("RIGID, smaller distance of noise and blur", {"mode": "both"}),
        ("RIGID, noisy copy in eight bits", {"quantise": True}),
        ("RIGID, resized to 32 pixels", {"size": 32}),
    ):
        rows.append(_row(context, name, _scores(_rigid(**options).score, test)))
    rows += _others(context)
    level = float(np.mean([row["mean"] for row in random]))
    holds = ours["mean"] >= 0.60 and ours["lowest"] >= 0.45 and ours["mean"] >= level + 0.08
    return Evidence(bool(holds), rounded(rows), _note(context))


@claim("the distance in features is >= 0.08 of mean AUROC ahead of the distance in pixels under the same noise")
def beats_pixels(context: ClaimContext) -> Evidence:
    size, scale = _rigid().size, float(_rigid().scale().mean())
    pixels = RIGID(partial(torch.flatten, start_dim=1), scale, "pixel", size=size)
    rows = [_ours(context), _row(context, "pixels", _scores(pixels.score, _set(context, "test")))]
    return Evidence(rows[0]["mean"] >= rows[1]["mean"] + 0.08, rounded(rows), _note(context))


@claim("mean AUROC under JPEG 70 on both classes is within 0.07 of the clean one")
def survives_jpeg(context: ClaimContext) -> Evidence:
    rows = [_ours(context), _row(context, "RIGID, JPEG 70", _scores(_rigid().score, _set(context, "test"), 70))]
    chance = abs(rows[0]["mean"] - 0.5) < 0.05  # a score that says nothing survives anything
    return Evidence(abs(rows[0]["mean"] - rows[1]["mean"]) <= 0.07 and not chance, rounded(rows), _note(context))


@claim("one sign serves every generator at every noise level from 0.01 to 0.5 of the normalised input")
def one_sign_serves(context: ClaimContext) -> Evidence:
    made, val = _set(context, "test"), _set(context, "val")
    half = slice(0, max(4, COUNT // 2))
    rows = []
    for part, images in (("test", made), ("validation", val)):
        fakes = {name: x[half] for name, x in images.fakes.items()}
        levels = LEVELS[::3] if context.limit else LEVELS
        rows += [{"part": part, **r} for r in _rigid(draws=1).sweep(levels, images.real[half], fakes)]
    families = available(context)
    for row in rows:
        level, own = row["lambda (normalised)"], families[row["generator"]]
        others = [
            r["auroc"] for r in rows
            if r["part"] == "validation" and r["lambda (normalised)"] == level and families[r["generator"]] != own
        ]  # fmt: skip
        row["sign by the other families"] = 1 if np.mean(others) >= 0.5 else -1
    judged = [row for row in rows if row["part"] == "test"]
    wrong = [row for row in judged if row["sign"] != 1 and row["auroc"] < 0.45]
    note = f"{len(wrong)} of {len(judged)} cells below 0.45; {_note(context)}"
    return Evidence(not wrong, rounded(judged), note)


def _others(context: ClaimContext) -> list[dict[str, Any]]:
    """Baselines: reconstruction error, distance to known photographs, and a linear probe that is trained."""
    test, train = _set(context, "test"), pictures(context, "train", ["up_transposed", "fitted_x2"])
    encoder = _rigid().encoder[0]
    size = _rigid().size

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(as_float(images) if images.dtype == np.uint8 else images)
        x = x if size is None else F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        return torch.cat([encoder(part).flatten(1) for part in x.split(64)]).numpy()

    trip = autoencoder_source(WEIGHTS / "scenes_vae", "round trip")
    known = features(train.real)

    def nearest(images: np.ndarray) -> np.ndarray:
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (features(images), known)]
        return 1 - (unit[0] @ unit[1].T).max(1)

    rows = [
        _row(context, "round trip, gradient distance (for AEROBLADE)",
             _scores(lambda x: -gradient_distance(torch.from_numpy(x), torch.from_numpy(trip(x))), test)),
        _row(context, "distance to the nearest of the known photographs", _scores(nearest, test)),
    ]  # fmt: skip
    made = {name: features(images) for name, images in test.fakes.items()}
    for source, fake in train.fakes.items():
        found = logistic(known, features(fake), features(test.real), made)
        rows.append(_row(context, f"UnivFD: linear probe, trained on {source}", found))
    return rows


def gradient_distance(a: Tensor, b: Tensor, scales: int = 3) -> np.ndarray:
    """(N,): mean |∇a - ∇b| over scales that halve the side; stands for LPIPS, whose weights are not here."""
    total = torch.zeros(len(a))
    for _ in range(scales):
        for axis in (2, 3):
            total += (a.diff(dim=axis) - b.diff(dim=axis)).abs().mean((1, 2, 3))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return (total / (2 * scales)).numpy()
