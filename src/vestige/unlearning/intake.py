"""From folders that somebody names to a `ForgetProblem`: read strictly, and refused before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import device as device_of
from vestige.data.labelled import Pictures, class_numbers, overlap, read_pictures, usual_side
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.forgetting.train import usual_training
from vestige.nn.classifier import Classifier, load_classifier

#: Folders of a deletion request below one folder, as the starter kit has them.
PARTS = ("requests", "retain", "test")
#: Fewest retained and test pictures that rates can be told from.
FEWEST = 20


@dataclass(frozen=True)
class Asked:
    """A request as it was read. pictures: the forgotten ones. names: of the classes, in the order of the outputs."""

    classifier: Classifier
    problem: ForgetProblem = field(repr=False)
    pictures: Pictures = field(repr=False)
    names: tuple[str, ...] = ()

    def label(self, name: str) -> int:
        """The number of the class of that name or number. Raises UsageError when there is none."""
        return class_number(name, self.names)


def class_number(name: str, names: Sequence[str]) -> int:
    """The place of a class among the names, or the number that ``name`` is.

    >>> class_number("dog", ["cat", "dog"]), class_number("0", ["cat", "dog"])
    (1, 0)
    """
    if name in names:
        return list(names).index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise UsageError(f"There is no class {name!r}; the model has {', '.join(names[:8])}.")


def parts_of(folder: Path) -> dict[str, Path]:
    """The folders requests, retain and test below ``folder``. Raises InputError when one is missing."""
    found = {part: folder / part for part in PARTS}
    missing = [part for part, path in found.items() if not path.is_dir()]
    if missing:
        raise InputError(
            f"{folder} has no folder {missing[0]!r}; it must hold requests (what is to be forgotten), retain (the "
            "other training pictures) and test (pictures never trained on), each as class/*.png."
        )
    return {"forget": found["requests"], "retain": found["retain"], "test": found["test"]}


def read_request(
    model: Path,
    paths: dict[str, Path],
    *,
    build: str = "",
    size: int = 0,
    classes: Sequence[str] = (),
    label: str = "",
    device: str = "auto",
    seed: int = 0,
) -> Asked:
    """The problem that a model and the folders "forget", "retain" and "test" make.

    build: see `load_classifier`. size: side of the pictures, 0 for the model's own or the first picture's. classes:
    their names in the order of the outputs. label: forget every training picture of this class in place of the folder
    of requests. The problem is of kind "class" when no retained picture has a forgotten class.

    Raises InputError and UsageError for what cannot be used.
    """
    classifier = load_classifier(model, build=build)
    side = size or classifier.size or usual_side(paths["retain"])
    sets = {name: read_pictures(path, side, f"reading {name}") for name, path in paths.items()}
    for one, other in (("forget", "retain"), ("forget", "test"), ("retain", "test")):
        if one in sets and other in sets and (twins := overlap(sets[one], sets[other])):
            many = f"{len(twins)} pictures are" if len(twins) > 1 else "One picture is"
            raise InputError(
                f"{many} in both {paths[one]} and {paths[other]} ({twins[0][0]} and {twins[0][1]}, for one); take "
                f"{'them' if len(twins) > 1 else 'it'} out of one."
            )
    outputs = outputs_of(classifier.model, side, model)
    numbers, names = class_numbers(sets, outputs, tuple(classes) or classifier.classes)
    samples = {
        name: Samples(torch.from_numpy(one.images), torch.from_numpy(numbers[name])) for name, one in sets.items()
    }
    if "test" not in samples:
        raise UsageError(
            "Give --test FOLDER with pictures the model was never trained on; the audit compares with them."
        )
    train = joined([samples["forget"], samples["retain"]])
    asked = np.arange(len(train)) < len(samples["forget"])
    if label:
        asked = train.labels.numpy() == class_number(label, names)
        if not asked.any() or asked.all():
            raise InputError(
                f"Forgetting {label} needs pictures of it and of other classes among the training pictures."
            )
    gone, kept = set(train.labels[asked].tolist()), set(train.labels[~asked].tolist())
    whole, test = not gone & kept, samples["test"]
    of_gone = torch.isin(test.labels, torch.tensor(sorted(gone)))
    parted = whole and bool(of_gone.any())
    parts: dict[str, Any] = {
        "test": test.take(~of_gone) if parted else test, "test_forget": test.take(of_gone) if parted else None,
    }  # fmt: skip
    if len(parts["test"]) < FEWEST or int((~asked).sum()) < FEWEST:
        raise InputError(f"The retained and the test pictures of other classes must be at least {FEWEST} each.")
    problem = ForgetProblem(
        classifier.model.to(device_of(device)), train, np.flatnonzero(asked), np.flatnonzero(~asked),
        kind="class" if whole else "random", classes=tuple(sorted(gone)) if whole else (),
        training=usual_training(classifier.model), augment="flip", seed=seed, **parts,
    )  # fmt: skip
    return Asked(classifier, problem, sets["forget"], names)


def outputs_of(model: nn.Module, side: int, name: Path) -> int:
    """How many numbers the model gives for a picture of that side; raises InputError when it takes none."""
    with torch.no_grad():
        try:
            said = model(torch.zeros(2, 3, side, side))
            return int(getattr(said, "logits", said).shape[-1])
        except Exception as error:  # code of any library
            raise InputError(
                f"{name} does not take pictures of {side} pixels ({' '.join(str(error).split())[:120]})."
            ) from None
