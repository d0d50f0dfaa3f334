"""Whether a correction undid a manipulation: accuracy on what it hurts, and on everything else."""

from __future__ import annotations

import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.data.labelled import class_numbers, read_pictures, usual_side
from vestige.engines.forgetting.samples import Samples
from vestige.nn.classifier import load_classifier
from vestige.unlearning.corrective import Corrective, trigger_success, triggered
from vestige.unlearning.intake import class_number, outputs_of
from vestige.unlearning.tools._request import named, rounded


def measure(work: Work) -> Result:
    """``measure MODEL... --data FOLDER``: clean pictures with true labels that no model was trained on.

    Without more, the manipulation is a trigger: a white square of ``--set side=3`` pixels in the bottom right corner
    that calls pictures ``--set target=CLASS`` (the first class unless named). With ``--reference FOLDER`` it is
    whatever hurts the pictures of that folder, which have true labels too. "corrected" is the accuracy on the hurt
    pictures, "retained" that on the clean ones.
    """
    data = work.needed("data", "clean pictures with true labels, class/*.png, that no model was trained on")
    target, side = work.option("target", ""), work.option("side", 3)
    size = work.option("size", 0)
    work.settled()
    loaded = {n: load_classifier(work.path(i), build=work.build) for i, n in enumerate(named(work))}
    pixels = size or next(iter(loaded.values())).size or usual_side(data)
    sets = {"clean": read_pictures(data, pixels)}
    if work.reference is not None:
        sets["hurt"] = read_pictures(work.needed("reference", "a folder of hurt pictures"), pixels)
    outputs = {name: outputs_of(c.model, pixels, c.source) for name, c in loaded.items()}
    if len(set(outputs.values())) > 1:
        raise InputError("The models have different numbers of outputs; compare models of one kind.")
    numbers, names = class_numbers(sets, next(iter(outputs.values())), next(iter(loaded.values())).classes)
    samples = {
        name: Samples(torch.from_numpy(one.images), torch.from_numpy(numbers[name])) for name, one in sets.items()
    }
    aim = class_number(target, names) if target else 0
    if not 1 <= side <= pixels:
        raise UsageError(f"A trigger of {side} pixels does not fit pictures of {pixels}.")
    hurt = samples.get("hurt") or triggered(samples["clean"], aim, side)
    rows = []
    for name, classifier in loaded.items():
        row = Corrective.measure(classifier.model, hurt, samples["clean"])
        if "hurt" not in samples:
            row["trigger success"] = trigger_success(classifier.model, hurt, aim)
        rows.append(rounded({"model": name, **row}))
    return Result(figures={k: v for k, v in rows[-1].items() if k != "model"}, rows=rows)
