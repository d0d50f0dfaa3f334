"""SAE restoration of the forgotten class in every model of the bed.

    vestige learn sae_restore --seed 0

"inject_experts" and "self" are judged with the unlearned network's own later layers, as published. "read" is what the
original's later layers make of the activations through a map fitted on retained pictures, nothing strengthened: no
restoration, but what an edit of the last layers leaves behind; it stands in a column of its own. The strength is
chosen on validation pictures among those that call at most 5 % more of the other pictures the class. Control: as many
random active latents at the same strength. Needs the bed's run of that seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from vestige.bench.unlearning.bed import Bed, load_bed
from vestige.core.errors import VestigeError
from vestige.engines import parts
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.train import TrainConfig
from vestige.recipes.unlearning.repr_audit import models_of
from vestige.unlearning.sae_restore import SaeRestore

MODES = ("inject_experts", "self")


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Restoration of every model in every mode, by experts and by random latents."""
    o, bed = ctx.options, load_bed(ctx.seed)
    problem = bed.problems["class"]
    audit = SaeRestore(str(o["layer"]), int(o["latents"]) or None, int(o["k"]), epochs=int(o["passes"]), seed=ctx.seed)
    audit.fit(problem.model, problem.train.sample(int(o["shown"]), ctx.seed))
    shown = problem.train.sample(2000, ctx.seed)
    experts = audit.expert_latents(problem.model, shown, problem.classes[0])
    others = audit.random_active(problem.model, shown, len(experts), beside=experts, seed=ctx.seed)
    rows = []
    for name, model in models_of(bed).items():
        if name == "original":
            continue
        try:
            found = parts.figures(ctx, f"{name}.row", partial(restored, audit, bed, model, experts, others))
        except VestigeError as error:
            rows.append({"method": name, "seed": ctx.seed, "error": str(error)})
            continue
        rows.append({"method": name, "seed": ctx.seed, **found})
    return {"rows": rows, "latents": len(experts)}


def restored(audit: SaeRestore, bed: Bed, model: nn.Module, experts: Tensor, others: Tensor) -> dict[str, float]:
    """One row: "before", and for each mode the restoration by experts and by random latents; "read"."""
    label, test, val, retained = sets(bed)
    original = bed.problems["class"].model
    row: dict[str, float] = {}
    for mode in MODES:
        found = audit.measure(original, model, label, test, val, experts, mode=mode)
        row |= {"before": found["before"], mode: found["restored"], f"{mode}: false": found["false_restoration"]}
        row[f"{mode}: α"] = found["alpha"]
        control = audit.measure(original, model, label, test, val, others, mode=mode, alphas=(found["alpha"],))
        row[f"{mode}, random"] = control["restored"]
    through = audit.measure(original, model, label, test, val, experts, retained=retained)
    row |= {"read": through["read"], "read, strengthened": through["restored"]}
    row["read, strengthened: false"] = through["false_restoration"]
    return row


def sets(bed: Bed) -> tuple[int, Samples, Samples, Samples]:
    """The class, test samples, validation samples and retained training samples for the map."""
    p = bed.problems["class"]
    assert p.test is not None
    assert p.test_forget is not None
    assert p.val is not None
    label = p.classes[0]
    own, others = p.val.take(p.val.labels == label), p.val.take(p.val.labels != label)
    test, val = joined([p.test_forget, p.test.sample(400, 1)]), joined([own, others.sample(200, 2)])
    return label, test, val, p.retain_sample(1000)


RECIPE = Recipe(
    name="sae_restore",
    about="How far the forgotten class comes back from an inner layer of every model of the bed.",
    perform=perform,
    config=TrainConfig(),
    options={"layer": "layer3", "latents": 192, "k": 16, "passes": 20, "shown": 6000},
    variants={"default": Variant("experts and random latents, in every mode", seeds=(0, 1, 2))},
)
