"""Claims of the representation audit: head edits and collapse are told from retraining.

The eraser claims use the wing's shared CIFAR-10 original. Its downstream sets are rendered scenes: objects that have
nothing to do with the forgotten class, and styles. The Top protocol uses a source of scene classes drawn as photographs
and, downstream, four of these classes in other styles.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.world import FOLDER, Settings, World, kept, world
from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.unlearning.erased import ERASERS, erased
from vestige.core.runtime import rng
from vestige.data.scenes import render_pack
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import retrain, train
from vestige.metrics.representation import knn_probe
from vestige.unlearning.baselines import GradAscent
from vestige.unlearning.repr_audit import ReprAudit, halves, most_similar

SOURCE = ("ball", "tree", "car", "star", "cup", "umbrella", "fish", "house", "boat", "cat", "rocket", "lamp")
DOWNSTREAM = ("fish", "cup", "rocket", "tree")
SCENES = Settings("scenes", images=2400, width=0.125, epochs=10, lr=0.1, augment="none")


def _samples(pack: object, names: tuple[str, ...]) -> Samples:
    labels = [names.index(pack.class_names[i]) for i in pack.labels]  # type: ignore[attr-defined]
    return Samples(torch.from_numpy(pack.images), torch.tensor(labels))  # type: ignore[attr-defined]


@cache
def scenes(count: int, names: tuple[str, ...], styles: tuple[str, ...], seed: int) -> Samples:
    """One large object a picture, labelled by its place in ``names``."""
    return _samples(render_pack(count, 32, seed, classes=names, styles=styles, n_objects=1, object_size="large"), names)


@cache
def downstream(count: int = 500) -> dict[str, Samples]:
    """Two tasks that no model was trained on: rendered objects, and the style that scenes are drawn in."""
    styles = ("photo", "cartoon", "sketch", "mosaic")
    pack = render_pack(count, 32, 503, styles=styles, n_objects=1, label="style")
    return {
        "objects": scenes(count, ("ball", "tree", "car", "fish", "cup", "star"), ("cartoon",), 502),
        "styles": _samples(pack, styles),
    }


@cache
def _world(context: ClaimContext) -> World:
    context.pack("cifar10")
    return world("class", context.seed, data=context.data)


@cache
def _second_retrain(context: ClaimContext) -> nn.Module:
    """Another seed of the reference: two retrained models differ too, and that is the ceiling."""
    w = _world(context)
    recipe = {"settings": repr(Settings()), "seed": context.seed, "retrain": "class", "again": 1}
    return kept(FOLDER, recipe, Settings().build, lambda: retrain(w.problem, context.seed + 2000))[0]


@cache
def rows(context: ClaimContext) -> list[dict[str, Any]]:
    """The audit of every eraser; the retrained model's second seed brackets it."""
    w = _world(context)
    audit = ReprAudit(w.problem, w.reference, downstream())
    models = {name: erased(w, name) for name in ("original", "silenced head", "tuned head", *ERASERS)}
    models |= {"GA, collapsed": _collapsed(context), "retrain": w.reference}
    models["retrain, 2nd seed"] = _second_retrain(context)
    return [{"model": name, **audit.measure(model)} for name, model in models.items()]


def _collapsed(context: ClaimContext) -> nn.Module:
    """Gradient ascent for ten epochs at the largest rate that leaves finite outputs: forgets everything."""
    problem = _world(context).problem
    for lr in (1e-2, 5e-3, 2e-3):
        model = GradAscent(lr=lr, epochs=10).erase(problem)
        if np.isfinite(represent(model, problem.retain_sample(200))).all():
            return model
    return model


def _row(table: list[dict[str, Any]], name: str) -> dict[str, float]:
    return next(r for r in table if r["model"] == name)


@claim(
    "a head-only eraser (forget logits to -inf) gets AGL >= 0.9 and is exposed: CKA to the original >= 0.99, a new "
    "head recovers >= 90 % forget accuracy while the retrained model's recovery is lower by >= 15 points"
)
def exposes_a_head_edit(context: ClaimContext) -> Evidence:
    table = rows(context)
    cheat, reference = _row(table, "silenced head"), _row(table, "retrain")
    holds = (
        cheat["AGL"] >= 0.9
        and cheat["cka_original"] >= 0.99
        and cheat["recovery"] >= 0.9
        and reference["recovery"] <= cheat["recovery"] - 0.15
    )
    ceiling = _row(table, "retrain, 2nd seed")["AGR"]
    note = f"AGR of the head edit {cheat['AGR']:.2f}, of a second retrained model {ceiling:.2f}"
    return Evidence(holds, table, note)


@claim("gradient ascent that collapses shows the other failure: downstream k-NN accuracy drops by >= 15 points")
def shows_a_collapse(context: ClaimContext) -> Evidence:
    table = rows(context)
    before, after = _row(table, "original"), _row(table, "GA, collapsed")
    drops = {name: before[f"knn_{name}"] - after[f"knn_{name}"] for name in downstream()}
    return Evidence(
        max(drops.values()) >= 0.15, [r for r in table if r["model"] in ("original", "GA", "GA, collapsed", "retrain")],
        "; ".join(f"{n} −{100 * d:.1f} points" for n, d in drops.items()),
    )  # fmt: skip


@claim(
    "the Top protocol separates retrained from original on downstream k-NN by >= 2x the Random protocol's separation"
)
def top_forgetting_separates(context: ClaimContext) -> Evidence:
    seed = context.seed
    source, test = scenes(2400, SOURCE, ("photo",), 600 + seed), scenes(600, SOURCE, ("photo",), 700 + seed)
    task = scenes(600, DOWNSTREAM, ("watercolour", "cartoon", "sketch"), 800 + seed)

    def build() -> nn.Module:
        from vestige.nn.resnet import ResNet, ResNetConfig

        return ResNet(ResNetConfig(18, "cifar", SCENES.width, len(SOURCE)))

    def trained(kind: str, number: int, gone: tuple[int, ...]) -> nn.Module:
        stay = source.take(~torch.isin(source.labels, torch.tensor(gone, dtype=torch.int64)))
        torch.manual_seed(seed + number)
        fresh = build()
        recipe = {"audit": kind, "seed": seed + number, "gone": list(gone), "settings": repr(SCENES)}
        return kept(FOLDER, recipe, build, lambda: train(fresh, stay, replace(SCENES.training, seed=seed + number)))[0]

    original = trained("scenes original", 0, ())
    # The independent encoder that ranks the classes has other weights and another order of pictures.
    judge = trained("scenes original", 50, ())
    top, _ = most_similar(represent(judge, source), source.labels.numpy(), represent(judge, task), len(DOWNSTREAM))
    drawn = rng(seed, "random protocol").permutation(len(SOURCE))[: len(DOWNSTREAM)]
    gone = {"retrained, Top": sorted(top), "retrained, Random": sorted(int(c) for c in drawn)}
    models = {"original": original, "original, 2nd seed": judge}
    models |= {name: trained("scenes retrain", 1, tuple(classes)) for name, classes in gone.items()}
    fit, held = halves(task, seed)
    table: list[dict[str, Any]] = []
    for name, model in models.items():
        out = gone.get(name, [])
        known = test.take(~torch.isin(test.labels, torch.tensor(out, dtype=torch.int64)))
        knn = knn_probe(represent(model, fit), fit.labels.numpy(), represent(model, held), held.labels.numpy())
        table.append({"model": name, "forgets": ", ".join(SOURCE[c] for c in out) or "nothing",
                      "source accuracy": say(model, known).accuracy, "downstream k-NN": knn})  # fmt: skip
    accuracy = {r["model"]: r["downstream k-NN"] for r in table}
    top_apart, random_apart = (accuracy["original"] - accuracy[name] for name in gone)
    task_classes = {SOURCE.index(c) for c in DOWNSTREAM}
    shared = {name: len(task_classes & set(classes)) for name, classes in gone.items()}
    note = (
        f"separation Top {top_apart:.3f}, Random {random_apart:.3f}; downstream classes among the forgotten, by name: "
        f"Top {shared['retrained, Top']}, Random {shared['retrained, Random']} of {len(task_classes)}"
    )
    return Evidence(top_apart > 0 and top_apart >= 2 * random_apart, table, note)


@claim("the ordering of erasers by H-LR differs from the ordering by AGL")
def orderings_differ(context: ClaimContext) -> Evidence:
    from scipy.stats import kendalltau

    table = [r for r in rows(context) if not str(r["model"]).startswith("retrain")]
    agl, both = (sorted(table, key=itemgetter(key), reverse=True) for key in ("AGL", "H-LR"))
    first, second = ([str(r["model"]) for r in order] for order in (agl, both))
    tau = float(kendalltau([r["AGL"] for r in table], [r["H-LR"] for r in table]).statistic)
    note = f"Kendall tau {tau:.2f}; first by AGL: {', '.join(first[:3])}; by H-LR: {', '.join(second[:3])}"
    return Evidence(first != second and not np.isnan(tau), both, note)
