"""Which training pictures are hardest to make a classifier forget, and what models still say about them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.runtime import device as device_of
from vestige.core.work import Result, Work
from vestige.data.labelled import Pictures, class_numbers, read_pictures, usual_side
from vestige.engines.forgetting.samples import Samples
from vestige.nn.classifier import load_classifier
from vestige.unlearning.intake import outputs_of
from vestige.unlearning.tools._request import named, rounded
from vestige.unlearning.worst_case import WorstCase, heuristic


def attack(work: Work) -> Result:
    """``attack MODEL --data FOLDER --out hardest.csv``: choose ``--set count=N`` of the training pictures (a tenth
    unless named) whose influence on the model is hardest to erase, hardest first."""
    out = work.out_file(".csv")
    model, pictures, samples = _read(work)
    count, method = _count(work, len(samples)), _method(work)
    work.settled()
    chosen, weights = method.attack(model, samples, count)
    order = chosen[np.argsort(-weights[chosen], kind="stable")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "label", "weight", "number"))
    for i in order.tolist():
        writer.writerow((pictures.names[i], pictures.labels[i], f"{weights[i]:.4f}", i))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, text.getvalue())
    found = method.measure(model, samples, chosen)
    first = pictures.names[order[0]]
    said = f"{count} of {len(samples)} training pictures are the hardest to forget; the first is {first}."
    return Result(figures={"chosen": count, **rounded(found)}, files=[out], said=[said])


def measure(work: Work) -> Result:
    """``measure MODEL... --data FOLDER [--reference hardest.csv]``: what each model says about the hardest set and
    about a random one of equal size. Without a list that ``attack`` wrote, the set is chosen for the first model.

    A model that forgot should be wrong about both; "left" is how much more of the hardest set it names than of the
    random one.
    """
    model, pictures, samples = _read(work)
    if work.reference is None:
        count, method = _count(work, len(samples)), _method(work)
        work.settled()
        worst = method.attack(model, samples, count)[0]
    else:
        work.settled()
        worst = _listed(work.needed("reference", "a list that 'vestige attack' wrote"), pictures)
    random = heuristic("random", model, samples, len(worst), work.seed)
    rows = []
    device = next(model.parameters()).device
    for i, name in enumerate(named(work)):
        other = model if i == 0 else load_classifier(work.path(i), build=work.build).model.to(device)
        on_worst, on_random = (WorstCase.measure(other, samples, s) for s in (worst, random))
        rows.append(rounded({
            "model": name, "UA worst": on_worst["UA"], "UA random": on_random["UA"],
            "loss worst": on_worst["loss"], "loss random": on_random["loss"],
            "left": on_random["UA"] - on_worst["UA"],
        }))  # fmt: skip
    return Result(figures={k: v for k, v in rows[-1].items() if k != "model"}, rows=rows)


def _read(work: Work) -> tuple[nn.Module, Pictures, Samples]:
    path = work.path(0, "a classifier")
    data = work.needed("data", "its training pictures, class/*.png")
    classifier = load_classifier(path, build=work.build)
    side = work.option("size", 0) or classifier.size or usual_side(data)
    pictures = read_pictures(data, side)
    outputs = outputs_of(classifier.model, side, path)
    numbers, _ = class_numbers({"data": pictures}, outputs, classifier.classes)
    samples = Samples(torch.from_numpy(pictures.images), torch.from_numpy(numbers["data"]))
    return classifier.model.to(device_of(work.device)), pictures, samples


def _count(work: Work, pictures: int) -> int:
    count = work.option("count", max(1, pictures // 10))
    if not 1 <= count < pictures:
        raise UsageError(f"count is {count}; of {pictures} pictures 1 to {pictures - 1} can be chosen.")
    return count


def _method(work: Work) -> WorstCase:
    usual = WorstCase()
    return WorstCase(
        rounds=work.option("rounds", usual.rounds), epochs=work.option("epochs", usual.epochs),
        beta=work.option("beta", usual.beta), easiest=work.option("easiest", usual.easiest), seed=work.seed,
    )  # fmt: skip


def _listed(path: Path, pictures: Pictures) -> np.ndarray:
    places = {name: i for i, name in enumerate(pictures.names)}
    try:
        names = [row["file"] for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))]
        chosen = np.array(sorted(places[name] for name in names), np.int64)
    except (OSError, UnicodeDecodeError, KeyError, TypeError):
        raise InputError(
            f"{path} is no list of these pictures; 'vestige attack --method worst_case' writes one."
        ) from None
    if not 1 <= len(chosen) < len(pictures):
        raise InputError(f"{path} names {len(chosen)} of {len(pictures)} pictures; it must name some and not all.")
    return chosen
