"""The two stages that tell photographs, laundered photographs and pictures synthetic from the start apart.

    vestige learn laundering
    vestige learn laundering --variant one_stage --seed 1

Pristine: squares of 64 pixels of photographs reduced by two. Laundered: the same through the autoencoder of
weights/laundering_model. Full: samples of the latent diffusion model of that folder. All are handled alike (scaled,
brightened, JPEG 60 to 97 with and without halved colour, or lossless) before crops are cut. The folder is written by
the recipes zoo_vae and zoo_diffusion. Photographs to train, to validate and to judge by are different ones.

The threshold of `vestige find` is set on photographs of another collection, by
`vestige.bench.forensics.examiner_threshold`.

Options: squares of each photograph; limit, the number of photographs, 0 all; width of the networks; front, "srm", "npr"
or "patchcraft"; laundered, whether laundered pictures are learnt from (without, the second stage stays as it is);
labels, "true", or "shuffled" for the control; sampler_steps; crop; rate, the share of photographs that may be flagged.

Figures on test photographs: shares recognised of each kind and their mean, "balanced accuracy"; the same by two
thresholds on the first stage alone, chosen on validation photographs, "by margin"; the share of laundered photographs
called synthetic.

Result: laundering.safetensors, of the default variant; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vestige.bench.controls import shuffled
from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.bench.forensics.laundered import by_margin, network, shares, treated
from vestige.core.errors import UsageError
from vestige.data.fakes import handled
from vestige.engines.fakes import autoencoder_source
from vestige.engines.recipe import Job, Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.forensics import laundering_data
from vestige.forensics.laundering import LABELS, LaunderingDetector, LaunderingNet, laundering_training
from vestige.forensics.laundering_data import three_kinds
from vestige.forensics.learned import save_network


def build(ctx: RecipeContext) -> Job:
    """Both stages and the pictures they learn from."""
    o = ctx.options
    if o["labels"] not in ("true", "shuffled"):
        raise UsageError(f"labels is true or shuffled; got {o['labels']!r}.")
    sets = {
        part: three_kinds(
            part, squares=int(o["squares"]) if part == "train" else 1, limit=int(o["limit"]),
            steps=int(o["sampler_steps"]), seed=ctx.seed,
        )
        for part in ("train", "val", "test")
    }  # fmt: skip
    train, val = sets["train"], treated(sets["val"], ctx.seed)
    if o["labels"] == "shuffled":
        every = shuffled(np.concatenate([train[label] for label in LABELS]), ctx.seed)
        train = dict(zip(LABELS, np.array_split(every, len(LABELS)), strict=True))
    batches, step = laundering_training(
        train, ctx.config.batch_size, crop=int(o["crop"]), laundered=bool(o["laundered"]),
        augment=lambda picture, seed: handled(picture[None], seed)[0],
    )  # fmt: skip

    def detector(module: nn.Module) -> LaunderingDetector:
        assert isinstance(module, LaunderingNet)
        return LaunderingDetector(network=module.eval(), crop=int(o["crop"]))

    def validate(module: nn.Module) -> dict[str, float]:
        found = detector(module)
        if o["laundered"]:
            return shares(found, *val)
        known = val[1] != 1  # what it tells apart: photographs and pictures synthetic from the start
        called = found.score(val[0][known])["real_vs_synth"] >= 0
        return {"balanced accuracy": float(np.mean([(called == k)[val[1][known] == 2 * k].mean() for k in (0, 1)]))}

    def evaluate(module: nn.Module) -> dict[str, Any]:
        found, (pictures, kinds) = detector(module), treated(sets["test"], ctx.seed)
        scores = found.score(pictures)["real_vs_synth"]
        figures: dict[str, Any] = dict(shares(found, pictures, kinds))
        for name, value in by_margin(found, val, (pictures, kinds)).items():
            figures[f"by margin, {name}"] = value
        for kind, label in enumerate(LABELS):
            if (kinds == kind).any():
                figures[f"{label} called synthetic"] = float((scores[kinds == kind] >= 0).mean())
        return {**figures, "pictures": len(kinds)}

    def save(module: nn.Module, out: Path) -> None:
        if ctx.variant != RECIPE.default or not isinstance(module, LaunderingNet):
            return
        facts: dict[str, Any] = {"pictures": {label: len(train[label]) for label in LABELS}, "crop": int(o["crop"])}
        makers = [autoencoder_source(laundering_data.MODEL, "laundering_model")]
        facts |= threshold_on_photographs(
            detector(module), makers, float(o["rate"]), limit=int(o["limit"]), seed=ctx.seed
        )
        save_network(out / "laundering.safetensors", module, "laundering", facts)

    return Job(network(o["front"], float(o["width"])), step, batches, validate=validate, evaluate=evaluate, save=save)


_THREE = (0, 1, 2)
RECIPE = Recipe(
    name="laundering",
    about="Two stages that tell photographs, photographs through an autoencoder and generated pictures apart.",
    build=build,
    config=TrainConfig(
        steps=2000, batch_size=64, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=30, clip=1.0, ema=0.98,
        log_every=25, validate_every=100, checkpoint_every=200,
    ),
    reach={"balanced accuracy": "0.85 on photographs held out, and above one stage read from its margin"},
    options={
        "squares": 1, "limit": 0, "width": 0.25, "front": "srm", "sampler_steps": 15, "crop": 32, "rate": 0.02,
        "laundered": True, "labels": "true",
    },
    variants={
        "default": Variant("the two stages", seeds=_THREE),
        "one_stage": Variant("real or synthetic, without laundered pictures", {"laundered": False}, seeds=_THREE),
        "npr": Variant("NPR's front in place of the rich model's", {"front": "npr"}),
        "patchcraft": Variant("PatchCraft in both stages", {"front": "patchcraft"}),
        "shuffled_labels": Variant("the two stages with shuffled labels", {"labels": "shuffled"}),
    },
    judged_by="balanced accuracy",
)  # fmt: skip
