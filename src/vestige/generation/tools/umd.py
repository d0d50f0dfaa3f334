"""Pictures from a UMD that the user trained."""

from __future__ import annotations

from pathlib import Path

import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import device
from vestige.core.work import Result, Work
from vestige.engines.runs import runs_root
from vestige.generation.tools._common import count_of, picture_file, steps_of, written
from vestige.generation.umd import UMD, load_umd

#: Variant of the recipe whose finished run is taken without ``--model``.
DEFAULT_RUN = "umd"


def make(work: Work) -> Result:
    """Draw pictures like those the model learned from.

    ``--model``: umd.safetensors of a run, by default the one in the folder of runs. ``--prompt``: a class, by name or
    number, of a model that was fine-tuned with labels. ``--set``: count (default 16, as one sheet), steps, guidance.
    """
    work.only(0)
    picture_file(work)
    count = count_of(work) if "count" in work.options else 16
    steps, guidance = steps_of(work, 125), work.option("guidance", 2.0)
    work.settled()
    model, classes = load_umd(weights_of(work))
    labels = None
    if work.prompt.strip():
        labels = torch.full((count,), class_number(work.prompt.strip(), model, classes))
    model = model.to(device(work.device)).eval()
    labels = None if labels is None else labels.to(device(work.device))
    guided = guidance if labels is not None else 1.0
    images = model.sample(count, seed=work.seed, labels=labels, guidance=guided, steps=steps).cpu()
    return written(work, images, [], {"pictures": count, "steps": steps})


def weights_of(work: Work) -> Path:
    """``--model``, else the finished run; raises InputError that says how to train one."""
    if work.model is not None:
        return work.model_file(what="umd.safetensors of a run")
    path = runs_root() / "umd" / DEFAULT_RUN / "0" / "umd.safetensors"
    if not path.is_file():
        raise InputError("There is no trained UMD; 'vestige learn umd' trains one, --model names its umd.safetensors.")
    return path


def class_number(word: str, model: UMD, classes: list[str]) -> int:
    """The class of a name or number; raises UsageError with the names that the model knows."""
    if not model.config.classes:
        raise UsageError("This UMD was trained without labels; leave --prompt out.")
    if word.isdigit() and int(word) < model.config.classes:
        return int(word)
    if word in classes:
        return classes.index(word)
    known = ", ".join(classes) if classes else f"0 to {model.config.classes - 1}"
    raise UsageError(f"This UMD has no class {word!r}; it has {known}.")
