"""The representation audit of every model on the bed, and the Top protocol on rendered scenes.

    vestige learn repr_audit --seed 0
    vestige learn repr_audit --variant top

The default variant needs the bed's run of that seed; its downstream sets are rendered scenes, which have nothing to do
with the forgotten class. "top": a source of scene classes drawn as photographs; downstream, four of these classes in
other styles; the classes nearest to that task are forgotten, or random ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.bed import Bed, fresh, load_bed, settings_of, taught
from vestige.core.errors import UsageError, VestigeError
from vestige.core.runtime import rng
from vestige.data.scenes import render_pack
from vestige.engines import parts
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.metrics.representation import knn_probe
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.baselines import GradAscent
from vestige.unlearning.repr_audit import ReprAudit, halves, most_similar

SOURCE = ("ball", "tree", "car", "star", "cup", "umbrella", "fish", "house", "boat", "cat", "rocket", "lamp")
DOWNSTREAM = ("fish", "cup", "rocket", "tree")
COLLAPSED = "grad_ascent, collapsed"


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """The audit's rows, or those of the Top protocol."""
    return top(ctx) if ctx.options["mode"] == "top" else audited(ctx)


def audited(ctx: RecipeContext) -> Mapping[str, Any]:
    """A row for every model of the bed's run; the retrained model's second seed brackets them."""
    bed = load_bed(ctx.seed)
    problem = bed.problems["class"]
    tasks = downstream(int(ctx.options["downstream"]))
    audit = ReprAudit(problem, bed.references["class"], tasks)
    models, rows = models_of(bed), list[dict[str, Any]]()
    try:
        models[COLLAPSED] = parts.weights(ctx, COLLAPSED, problem.copy(), lambda _: collapsed(bed))
    except UsageError as error:
        rows.append({"method": COLLAPSED, "seed": ctx.seed, "error": str(error)})
    for name, model in models.items():
        try:
            found = parts.figures(ctx, f"{name}.row", partial(audit.measure, model))
        except (VestigeError, ValueError) as error:
            rows.append({"method": name, "seed": ctx.seed, "error": str(error)})
            continue
        rows.append({"method": name, "seed": ctx.seed, **found})
    return {"rows": rows, "tasks": list(tasks)}


def models_of(bed: Bed) -> dict[str, nn.Module]:
    """Every model of the bed's class problem, by its name in the table."""
    problem = bed.problems["class"]
    models: dict[str, nn.Module] = {"original": problem.model, "retrain": bed.references["class"]}
    for row in bed.rows:
        if row["problem"] == "class" and row["method"] not in models and "error" not in row:
            untrained = row["method"] == "untrained"
            models[row["method"]] = (
                fresh(bed.settings, problem.seed + 987_654) if untrained else bed.model("class", row["method"])
            )
    return models


def collapsed(bed: Bed) -> nn.Module:
    """Gradient ascent for ten epochs at the largest rate that leaves finite outputs: forgets everything."""
    problem = bed.problems["class"]
    for lr in (1e-2, 5e-3, 2e-3, 5e-4):
        model = GradAscent(lr=lr, epochs=10).erase(problem)
        if np.isfinite(represent(model, problem.retain_sample(200))).all():
            return model
    raise UsageError("Gradient ascent leaves no finite outputs at any rate tried.")


def samples_of(pack: Any, names: tuple[str, ...]) -> Samples:
    """A pack of scenes, labelled by the place of its class in ``names``."""
    labels = [names.index(pack.class_names[i]) for i in pack.labels]
    return Samples(torch.from_numpy(pack.images), torch.tensor(labels))


def scenes(count: int, names: tuple[str, ...], styles: tuple[str, ...], seed: int) -> Samples:
    """One large object a picture, labelled by its place in ``names``."""
    pack = render_pack(count, 32, seed, classes=names, styles=styles, n_objects=1, object_size="large")
    return samples_of(pack, names)


def downstream(count: int) -> dict[str, Samples]:
    """Two tasks that no model was trained on: rendered objects, and the style that scenes are drawn in."""
    styles = ("photo", "cartoon", "sketch", "mosaic")
    pack = render_pack(count, 32, 503, styles=styles, n_objects=1, label="style")
    objects = scenes(count, ("ball", "tree", "car", "fish", "cup", "star"), ("cartoon",), 502)
    return {"objects": objects, "styles": samples_of(pack, styles)}


def top(ctx: RecipeContext) -> Mapping[str, Any]:
    """Retraining without the classes nearest to a task, and without random ones."""
    seed, count = ctx.seed, int(ctx.options["images"])
    settings = replace(settings_of(ctx.options, ctx.config.lr, ctx.config.batch_size), data="scenes")
    source, test = scenes(count, SOURCE, ("photo",), 600 + seed), scenes(count // 4, SOURCE, ("photo",), 700 + seed)
    val = scenes(int(ctx.options["held"]), SOURCE, ("photo",), 750 + seed)
    task = scenes(count // 4, DOWNSTREAM, ("watercolour", "cartoon", "sketch"), 800 + seed)

    def build() -> nn.Module:
        return ResNet(ResNetConfig(18, settings.stem, settings.width, len(SOURCE)))

    def trained(name: str, number: int, gone: tuple[int, ...] = ()) -> nn.Module:
        inside, watched = (s.take(~torch.isin(s.labels, torch.tensor(gone, dtype=torch.int64))) for s in (source, val))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            start = build()
        return taught(ctx, name, start, inside, replace(settings.training, seed=seed + number), watched)

    original = trained("original", 0)
    # The independent encoder that ranks the classes has other weights and another order of pictures.
    judge = trained("original, 2nd seed", 50)
    nearest, _ = most_similar(represent(judge, source), source.labels.numpy(), represent(judge, task), len(DOWNSTREAM))
    drawn = rng(seed, "random protocol").permutation(len(SOURCE))[: len(DOWNSTREAM)]
    gone = {"retrained, Top": tuple(sorted(nearest)), "retrained, Random": tuple(sorted(int(c) for c in drawn))}
    models = {"original": original, "original, 2nd seed": judge}
    models |= {name: trained(name, 1, classes) for name, classes in gone.items()}
    fit_on, held = halves(task, seed)
    rows = []
    for name, model in models.items():
        out = gone.get(name, ())
        known = test.take(~torch.isin(test.labels, torch.tensor(out, dtype=torch.int64)))
        knn = knn_probe(represent(model, fit_on), fit_on.labels.numpy(), represent(model, held), held.labels.numpy())
        rows.append({
            "method": name, "seed": seed, "forgets": ", ".join(SOURCE[c] for c in out) or "nothing",
            "source accuracy": say(model, known).accuracy, "downstream k-NN": knn,
        })  # fmt: skip
    task_classes = {SOURCE.index(c) for c in DOWNSTREAM}
    return {"rows": rows, "shared": {name: len(task_classes & set(classes)) for name, classes in gone.items()}}


RECIPE = Recipe(
    name="repr_audit",
    about="The representation audit of the bed's models, and the Top protocol on rendered scenes.",
    perform=perform,
    config=TrainConfig(lr=0.1, batch_size=64),
    options={
        "mode": "audit", "downstream": 500, "source": "scenes", "images": 2400, "held": 400, "tested": 600,
        "net_width": 0.25, "passes": 20,
    },
    variants={
        "default": Variant("every model of the bed's class problem", seeds=(0, 1, 2)),
        "top": Variant("classes forgotten because they are near to a task", {"mode": "top"}, seeds=(0, 1, 2)),
    },
    judged_by="accuracy",
)  # fmt: skip
