"""Try to bring a forgotten class back from the activations of an inner layer."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.core.files import write_atomic
from vestige.core.work import Result, Work
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.samples import Samples, joined
from vestige.nn.access import block_names
from vestige.unlearning.intake import Asked
from vestige.unlearning.sae_restore import SaeRestore, verdict
from vestige.unlearning.tools._request import asked, like, models, reference, rounded

MODES = ("inject_experts", "self")


def attack(work: Work) -> Result:
    """``attack UNLEARNED --model ORIGINAL --data FOLDER --set label=CLASS --out restored.csv``: strengthen the latents
    that stand for the class in the unlearned model and write what it calls each test picture of the class then.

    ``--set mode``: inject_experts (the original's codes, as published) or self (the model's own, amplified); ``alpha``:
    how strong; ``layer``: where.
    """
    out = work.out_file(".csv")
    label, mode, alpha = work.option("label", ""), work.option("mode", MODES[0]), work.option("alpha", 5.0)
    options = _options(work)
    original = work.needed("model", "the model before it was made to forget")
    request = asked(_turned(work, original), label)
    work.settled()
    number, test, _ = _sets(request, label)
    unlearned = like(work.path(0, "a model that was made to forget"), work, request)
    sae, experts = _fitted(request, number, options)
    said = sae.restore(unlearned, test, experts, mode=mode, alpha=alpha, original=request.problem.model).argmax(1)
    before = say(unlearned, test).outputs.argmax(1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "label", "before", "restored"))
    own = test.labels.numpy() == number
    for i in np.flatnonzero(own).tolist():
        writer.writerow((i, request.names[number], request.names[before[i]], request.names[said[i]]))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, text.getvalue())
    figures = {
        "before": float((before[own] == number).mean()), "restored": float((said[own] == number).mean()),
        "others called so": float((said[~own] == number).mean()), "latents": len(experts),
    }  # fmt: skip
    return Result(figures=rounded(figures), files=[out])


def measure(work: Work) -> Result:
    """``measure ORIGINAL UNLEARNED --data FOLDER --set label=CLASS [--reference RETRAINED]``: how far the class comes
    back, as shares of the original's accuracy on it.

    "restored" is with the model's own later layers, as published; "read" is what the original's later layers make of
    the model's activations, nothing strengthened: not restoration, but what is still there for another reader. A
    retrained model shows how much of either any network gives, and a verdict is given beside it.
    """
    label = work.option("label", "")
    options = _options(work)
    request = asked(work, label)
    again = reference(work, request)
    work.settled()
    number, test, tuning = _sets(request, label)
    sae, experts = _fitted(request, number, options)
    original, kept = request.problem.model, request.problem.retain_sample(1000)
    compared = models(work, request)
    if len(compared) < 2:
        raise UsageError("Give the model before forgetting and the one after.")
    compared = dict(list(compared.items())[1:]) | ({"retrained": again} if again is not None else {})
    rows: list[dict[str, Any]] = []
    for name, model in compared.items():
        row: dict[str, Any] = {"model": name}
        for mode in MODES:
            found = sae.measure(original, model, number, test, tuning, experts, mode=mode)
            row |= {"before": found["before"], f"restored, {mode}": found["restored"]}
            row[f"false, {mode}"] = found["false_restoration"]
        row["read"] = sae.measure(original, model, number, test, tuning, experts, retained=kept)["read"]
        rows.append(rounded(row))
    said = []
    if again is not None:
        for row in rows[:-1]:
            row["verdict"] = verdict(row["read"], rows[-1]["read"])
        said = [f"{r['model']}: the class is {r['verdict']} at this layer." for r in rows[:-1]]
    return Result(figures={k: v for k, v in rows[0].items() if k != "model"}, rows=rows, said=said)


def _turned(work: Work, original: Any) -> Work:
    """The same work with the original as its first model."""
    from dataclasses import replace

    return replace(work, paths=(original, *work.paths))


def _options(work: Work) -> dict[str, Any]:
    return {
        "layer": work.option("layer", ""), "latents": work.option("latents", 0), "k": work.option("k", 16),
        "epochs": work.option("epochs", 8),
    }  # fmt: skip


def usual_layer(model: nn.Module) -> str:
    """The last block but one that is not the head: late enough for classes, early enough to have layers behind it."""
    names = block_names(model)
    if "layer3" in dict(model.named_modules()):
        return "layer3"
    if len(names) < 3:
        raise UsageError(f"Name a layer with --set layer; the model has {', '.join(names)}.")
    return names[-3]


def _fitted(request: Asked, number: int, options: dict[str, Any]) -> tuple[SaeRestore, Tensor]:
    problem = request.problem
    layer = options["layer"] or usual_layer(problem.model)
    if layer not in dict(problem.model.named_modules()):
        raise UsageError(f"The model has no layer {layer!r}; it has {', '.join(block_names(problem.model))}.")
    sae = SaeRestore(layer, options["latents"] or None, options["k"], epochs=options["epochs"], seed=problem.seed)
    shown = problem.train.sample(2000, problem.seed)
    sae.fit(problem.model, shown.sample(800, problem.seed))
    return sae, sae.expert_latents(problem.model, shown, number)


def _sets(request: Asked, label: str) -> tuple[int, Samples, Samples]:
    """The class, test pictures to report on and training pictures to choose the strength by, with other classes."""
    problem = request.problem
    if not label and len(problem.classes) != 1:
        raise UsageError("Name the forgotten class with --set label=CLASS.")
    number = request.label(label) if label else problem.classes[0]
    if problem.test_forget is None or problem.test is None:
        raise UsageError("There are no test pictures of the forgotten class, or only of it.")
    tuning = joined([problem.forget.sample(200, 1), problem.retain.sample(200, 2)])
    return number, joined([problem.test_forget, problem.test.sample(400, 1)]), tuning
