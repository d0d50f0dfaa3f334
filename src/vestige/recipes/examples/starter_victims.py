"""Two networks of the starter kit to unlearn from: one with a backdoor, one that measures discs. Needs no data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.files import write_atomic
from vestige.data.poisons import stamp
from vestige.data.starter_set import CLASSES, starter_set
from vestige.data.starter_victims import REGRESSOR, TARGET, disc_parts, discs, triggered_set
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import train
from vestige.engines.recipe import Recipe, RecipeContext
from vestige.nn.backbone import save_backbone
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.regression_unlearn import regression_samples


def perform(ctx: RecipeContext) -> dict[str, Any]:
    """Train both and write ``ctx.out``/backdoored.safetensors and regressor.safetensors."""
    return {**_backdoored(ctx), **_regressor(ctx)}


def _backdoored(ctx: RecipeContext) -> dict[str, float]:
    made, called, _ = triggered_set()
    torch.manual_seed(ctx.seed)
    fresh = ResNet(ResNetConfig(18, "cifar", 0.125, len(CLASSES)))
    tuning = Tuning(
        int(ctx.options["epochs"]), 3e-3, optimizer="adam", weight_decay=0.0, batch_size=32, schedule="onecycle"
    )
    model = train(fresh, Samples(torch.from_numpy(made), torch.from_numpy(called)), tuning)
    assert isinstance(model, ResNet)
    save_backbone(model, ctx.out / "backdoored.safetensors")
    pack = starter_set("test")
    labels = np.array([CLASSES.index(pack.class_names[label]) for label in pack.labels])
    others = labels != CLASSES.index(TARGET)

    @torch.no_grad()
    def said(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images.astype(np.float32) / 255)).argmax(1).numpy()

    return {
        "accuracy": float((said(pack.images) == labels).mean()),
        "attack_success": float((said(stamp(pack.images[others], 5)) == CLASSES.index(TARGET)).mean()),
    }


def _regressor(ctx: RecipeContext) -> dict[str, float]:
    from safetensors.torch import save

    images, radii = discs(150)
    learned = np.array([part != "test" for part in disc_parts(radii)])
    made: dict[str, Any] = {}
    exec(compile(REGRESSOR, "small_regressor.py", "exec"), made)  # the very lines that the kit's user runs
    torch.manual_seed(ctx.seed)
    fresh = made["build"]()
    assert isinstance(fresh, nn.Module)
    tuning = Tuning(30, 3e-3, optimizer="adam", weight_decay=0.0, batch_size=32, schedule="onecycle")
    model = train(fresh, regression_samples(torch.from_numpy(images[learned]), radii[learned]), tuning)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomic(ctx.out / "regressor.safetensors", save(state))
    with torch.no_grad():
        told = model(torch.from_numpy(images[~learned].astype(np.float32) / 255)).squeeze(1).numpy()
    return {"test_error": float(np.abs(told - radii[~learned]).mean())}


RECIPE = Recipe(
    name="starter_victims",
    about="The starter kit's classifier with a backdoor and its regressor of discs, to unlearn from.",
    perform=perform,
    options={"epochs": 45},
    reach={
        "attack_success": "above .6 of test pictures of other classes (one in six by chance)",
        "accuracy": "above .5",
    },
)
