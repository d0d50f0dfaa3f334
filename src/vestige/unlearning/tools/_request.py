"""What the tools of this wing share: a request in one folder, and the models that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vestige.core.errors import InputError
from vestige.core.work import Work
from vestige.nn.classifier import load_classifier
from vestige.unlearning.intake import Asked, parts_of, read_request


def asked(work: Work, label: str = "") -> Asked:
    """The request in ``--data`` (folders requests, retain and test) to the first model.

    label: forget the whole class of that name in place of the requests.
    """
    model = work.path(0, "a classifier")
    folder = work.needed("data", "a folder with the folders requests, retain and test, each class/*.png")
    return read_request(
        model, parts_of(folder), build=work.build, size=work.option("size", 0), label=label, device=work.device,
        seed=work.seed,
    )  # fmt: skip


def models(work: Work, request: Asked) -> dict[str, nn.Module]:
    """Every input as a model, by file name: the first is the one before forgetting. Raises InputError for outputs of
    another number."""
    names = named(work)
    return {n: request.problem.model if i == 0 else like(work.path(i), work, request) for i, n in enumerate(names)}


def named(work: Work) -> list[str]:
    """The inputs by file name, by their whole path where two have the same."""
    paths = [work.path(i, "a model") for i in range(max(1, len(work.paths)))]
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def reference(work: Work, request: Asked) -> nn.Module | None:
    """``--reference``: a model retrained without what is to be forgotten."""
    return None if work.reference is None else like(work.needed("reference", "a retrained model"), work, request)


def like(path: Path, work: Work, request: Asked) -> nn.Module:
    """A model with the outputs of the first."""
    from vestige.unlearning.intake import outputs_of

    model = load_classifier(path, build=work.build).model
    side = int(request.problem.train.inputs.shape[-1])
    if outputs_of(model, side, path) != request.problem.n_outputs:
        raise InputError(f"{path} has other outputs than {work.paths[0]}; compare models of one kind.")
    return model.to(next(request.problem.model.parameters()).device)


def rounded(row: Mapping[str, Any], digits: int = 4) -> dict[str, Any]:
    """A row for a table."""
    return {name: round(value, digits) if isinstance(value, float) else value for name, value in row.items()}
