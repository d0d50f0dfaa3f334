"""Make a regressor forget pictures, and measure how it forgot.

Pictures lie in a folder for each target, named by its number: 23/face.png, 7.5/001.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import device as device_of
from vestige.core.work import Result, Work
from vestige.data.labelled import Pictures, overlap, read_pictures, usual_side
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.nn.classifier import Classifier, load_classifier
from vestige.unlearning.intake import outputs_of, parts_of
from vestige.unlearning.regression_unlearn import Blindspot, GaussianTargets, regression_row, regression_samples
from vestige.unlearning.tools._request import named, rounded


def erase(work: Work) -> Result | None:
    """``erase MODEL --forget FOLDER --retain FOLDER [--test FOLDER] --build MODULE:FUNCTION --out NEW`` for a network
    with one output. ``--set targets=gaussian`` teaches random targets in place of Blindspot. A classifier is left to
    the ordinary way."""
    work.only(1)
    retain = work.retain
    if retain is None:
        raise UsageError("Give --forget and --retain, folders with a folder for every target, as 23/face.png.")
    paths = {"forget": work.needed("data", "what is to be forgotten"), "retain": retain}
    for path in (retain, *([work.test] if work.test else [])):
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
    paths |= {"test": work.test} if work.test else {}
    classifier = load_classifier(work.path(0, "a regressor"), build=work.build)
    side = work.option("size", 0) or classifier.size or usual_side(retain)
    if outputs_of(classifier.model, side, work.path(0)) != 1:
        return None
    out = work.out_file()
    if out.exists():
        raise InputError(f"{out} exists already; choose another name.")
    kind = work.option("targets", "blindspot")
    usual = Blindspot()
    how: dict[str, Any] = {
        "lr": work.option("lr", usual.lr), "epochs": work.option("epochs", usual.epochs),
        "batch_size": work.option("batch_size", 64), "schedule": "linear",
    }  # fmt: skip
    if kind not in ("blindspot", "gaussian"):
        raise UsageError(f"targets is {kind!r}; choose blindspot or gaussian.")
    method = GaussianTargets(**how) if kind == "gaussian" else Blindspot(beta=work.option("beta", usual.beta), **how)
    work.settled()
    problem = _problem(classifier, paths, side, work)
    model = method.erase(problem)
    out.parent.mkdir(parents=True, exist_ok=True)
    classifier.save(model, out)
    figures: dict[str, float] = {}
    for name, found in (("before", problem.model), ("after", model)):
        figures |= {f"error on forgotten, {name}": say(found, problem.forget).loss}
        figures |= {f"error on retained, {name}": say(found, problem.retain).loss}
        if problem.test is not None:
            figures |= {f"error on test, {name}": say(found, problem.test).loss}
    return Result(figures=rounded(figures), files=[out], said=[f"{len(problem.forget)} pictures were forgotten."])


def measure(work: Work) -> Result:
    """``measure BEFORE AFTER --data FOLDER --build ... [--reference RETRAINED]``: mean absolute errors on what was
    forgotten, on what was kept and on test pictures; with a retrained model also the distance of the predictions (W1),
    membership and how much faster it relearns (AIN, ideal 1)."""
    folder = work.needed("data", "a folder with requests, retain and test, a folder for every target in each")
    first = load_classifier(work.path(0, "a regressor"), build=work.build)
    paths = parts_of(folder)
    side = work.option("size", 0) or first.size or usual_side(paths["retain"])
    work.settled()
    if outputs_of(first.model, side, work.path(0)) != 1:
        raise InputError(f"{work.path(0)} is no regressor: it has more than one output; try --method repr_audit.")
    problem = _problem(first, paths, side, work)
    again = None
    if work.reference is not None:
        again = load_classifier(work.needed("reference", "a retrained model"), build=work.build).model
    rows = []
    for i, name in enumerate(named(work)):
        model = first.model
        if i:
            model = load_classifier(work.path(i), build=work.build).model.to(device_of(work.device))
        rows.append(rounded({"model": name, **_row(model, problem, again)}))
    return Result(figures={k: v for k, v in rows[-1].items() if k != "model"}, rows=rows)


def _row(model: nn.Module, problem: ForgetProblem, again: nn.Module | None) -> dict[str, float]:
    if again is not None:
        return regression_row(model, problem, again)
    assert problem.test is not None
    parts = {"MAE D_f": problem.forget, "MAE D_r": problem.retain, "MAE test": problem.test}
    return {name: say(model, samples).loss for name, samples in parts.items()}


def _problem(classifier: Classifier, paths: dict[str, Path], side: int, work: Work) -> ForgetProblem:
    read = {name: read_pictures(path, side, f"reading {name}") for name, path in paths.items()}
    for one, other in (("forget", "retain"), ("forget", "test"), ("retain", "test")):
        if one in read and other in read and (twins := overlap(read[one], read[other])):
            raise InputError(f"{twins[0][0]} is in both {paths[one]} and {paths[other]}; take it out of one.")
    samples = {name: _targets(one, paths[name]) for name, one in read.items()}
    train, asked = joined([samples["forget"], samples["retain"]]), len(samples["forget"])
    return ForgetProblem(
        classifier.model.to(device_of(work.device)), train, np.arange(asked), np.arange(asked, len(train)),
        kind="range", test=samples.get("test"), seed=work.seed,
    )  # fmt: skip


def _targets(pictures: Pictures, folder: Path) -> Samples:
    """The names of the folders as targets; raises InputError for a name that is no number."""
    try:
        targets = [float(str(label)) for label in pictures.labels]
    except ValueError:
        name = next(str(label) for label in pictures.labels if not _number(str(label)))
        raise InputError(
            f"{folder} has a folder {name!r}, which is no number; name folders by their target, as 23/face.png."
        ) from None
    return regression_samples(torch.from_numpy(pictures.images), targets)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
