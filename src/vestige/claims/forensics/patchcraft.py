"""Claims of PatchCraft at small size: one generator to learn from, the others never seen.

All networks see the same pictures in as many steps; squares of 64 pixels, smashed into squares of 8. The generator to
learn from is the zoo's adversarial one that enlarges reduced photographs (weights/zoo_gan_sr.safetensors), so that what
is shown gives nothing away; sources of its family count as seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.generated_baselines import LGradNet
from vestige.claims.forensics.generated_study import (
    areas,
    available,
    by_family,
    logistic,
    metadata,
    pictures,
    rounded,
    spectrum,
)
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.fakes import as_float
from vestige.engines.train import TrainConfig
from vestige.forensics.generated import TraceDetector, fit_detector, logits
from vestige.forensics.npr import TraceResNet
from vestige.forensics.patchcraft import PatchCraftNet
from vestige.metrics.detection import equal_error
from vestige.nn.features import extract_features, load_feature_net

STEPS, BATCH, SEEDS = 150, 32, 3
_SMALL: dict[str, Any] = {"patch": 8, "grid": 5, "width": 16}
_RESNET: dict[str, Any] = {"depth": 18, "stages": 4, "width": 0.5, "stem": "large"}
OURS = "PatchCraft"
NETWORKS: dict[str, Callable[[], TraceDetector]] = {
    OURS: lambda: PatchCraftNet(**_SMALL),
    "without Smash & Reconstruct": lambda: PatchCraftNet(**_SMALL, smashed=False),
    "both instead of their contrast": lambda: PatchCraftNet(**_SMALL, contrast="concat"),
    "ResNet-18 on RGB": lambda: TraceResNet("rgb", **_RESNET),
    "ResNet-18 on SRM": lambda: TraceResNet("srm", **_RESNET),
    "NPR": lambda: TraceResNet("npr", width=0.5),
    "LGrad": lambda: LGradNet(**_RESNET),
}
SHUFFLED = "NPR, shuffled labels"


def learnt_from(context: ClaimContext) -> str:
    """The generator that all detectors learn from."""
    return "zoo_gan_sr" if "zoo_gan_sr" in available(context) else "up_transposed"


def _steps(context: ClaimContext) -> int:
    return 4 if context.limit else STEPS


def _seeds(context: ClaimContext) -> range:
    return range(context.seed, context.seed + (1 if context.limit else SEEDS))


@cache
def _trained(context: ClaimContext, name: str, seed: int) -> TraceDetector:
    import torch

    source = learnt_from(context)
    made = pictures(context, "train", [source])
    real, fake = made.real, made.fakes[source]
    if name == SHUFFLED:
        both = np.concatenate([real, fake])[rng(seed, "shuffled").permutation(len(real) + len(fake))]
        real, fake = both[: len(real)], both[len(real) :]
    torch.manual_seed(seed)
    model = NETWORKS["NPR" if name == SHUFFLED else name]()
    config = TrainConfig(
        steps=_steps(context), batch_size=BATCH, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, seed=seed
    )
    return fit_detector(model, real, fake, config)


@cache
def _found(context: ClaimContext, name: str, seed: int) -> dict[str, float]:
    """AUROC of every source on test photographs."""
    made, model = pictures(context, "test"), _trained(context, name, seed)
    return areas(logits(model, made.real), {source: logits(model, images) for source, images in made.fakes.items()})


@cache
def _row(context: ClaimContext, name: str) -> dict[str, Any]:
    """Means over seeds: the generator learnt from, every family not seen, and their mean with its spread."""
    seeds = _seeds(context)[: 1 if name == SHUFFLED else None]
    return _summary(context, name, [_found(context, name, seed) for seed in seeds])


def _summary(context: ClaimContext, name: str, found: list[dict[str, float]]) -> dict[str, Any]:
    families, source = available(context), learnt_from(context)
    unseen = [n for n, family in families.items() if family != families[source]]
    means = [by_family(one, families, unseen) for one in found]
    return {
        "detector": name,
        "not seen": float(np.mean([m["mean"] for m in means])),
        "spread": float(np.std([m["mean"] for m in means])),
        "learnt": float(np.mean([one[source] for one in found])),
        **{kind: float(np.mean([m[kind] for m in means])) for kind in means[0] if kind != "mean"},
    }


def _plain(context: ClaimContext) -> list[dict[str, Any]]:
    """Rows of the baselines that are no networks of ours, and of the controls."""
    source = learnt_from(context)
    train, test = pictures(context, "train", [source]), pictures(context, "test")
    net = load_feature_net()
    rows = []
    for name, features, shuffled in (
        ("FreDect (spectrum, linear)", spectrum, None),
        ("UnivFD (frozen features, linear)", lambda images: extract_features(net, images), None),
        ("control: file size and colours alone", metadata, None),
        ("control: spectrum, shuffled labels", spectrum, context.seed),
    ):
        real, fake, others = (features(x) for x in (train.real, train.fakes[source], test.real))
        made = {n: features(images) for n, images in test.fakes.items()}
        rows.append(_summary(context, name, [logistic(real, fake, others, made, shuffled=shuffled)]))
    return rows


@claim(
    "learnt from one generator, mean AUROC on families never seen is >= 0.05 above that of a ResNet-18 on RGB, and of "
    "one on the SRM residual of the whole picture"
)
def generalises(context: ClaimContext) -> Evidence:
    names = (OURS, "ResNet-18 on RGB", "ResNet-18 on SRM", "NPR", "LGrad", SHUFFLED)
    rows = [_row(context, name) for name in names]
    ours, rgb, srm = (row["not seen"] for row in rows[:3])
    counts = f"{_steps(context)} steps, {len(_seeds(context))} seeds"
    note = f"learnt from {learnt_from(context)}; {counts}; means over families, then seeds"
    return Evidence(ours >= max(rgb, srm) + 0.05, rounded([*rows, *_plain(context)]), note)


@claim("leaving Smash & Reconstruct out, or showing both textures instead of their contrast, costs >= 0.02 of AUROC")
def both_parts_help(context: ClaimContext) -> Evidence:
    rows = [_row(context, name) for name in list(NETWORKS)[:3]]
    ours, *others = (row["not seen"] for row in rows)
    return Evidence(all(ours - other >= 0.02 for other in others), rounded(rows), "on families never seen")


@claim("accuracy on pictures of all sources under JPEG 90 is within 0.10 of the clean one")
def survives_jpeg(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    val, test = pictures(context, "val"), pictures(context, "test")
    for name in (OURS, "ResNet-18 on RGB", "ResNet-18 on SRM", "NPR"):
        model = _trained(context, name, context.seed)
        images, generated = val.both()
        threshold = equal_error(generated, logits(model, images)).threshold
        for quality in (0, 90, 70):

            def flagged(x: np.ndarray, quality: int = quality) -> np.ndarray:
                return logits(model, distort(as_float(x), "jpeg", quality) if quality else x) >= threshold  # noqa: B023

            hits = [float(flagged(images).mean()) for images in test.fakes.values()]
            accuracy = (float(np.mean(hits)) + 1 - float(flagged(test.real).mean())) / 2
            rows.append({"detector": name, "JPEG": quality or "none", "accuracy": accuracy})
    drop = rows[0]["accuracy"] - rows[1]["accuracy"]
    chance = rows[0]["accuracy"] <= 0.55  # a detector at chance survives anything
    note = "threshold of equal errors on validation photographs; balanced over real and generated"
    return Evidence(drop <= 0.10 and not chance, rounded(rows), note)
