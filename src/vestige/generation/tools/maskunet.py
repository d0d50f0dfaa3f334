"""Pictures drawn with weights switched off by trained masks."""

from __future__ import annotations

from pathlib import Path

from vestige.core.errors import InputError
from vestige.core.work import Result, Work
from vestige.engines.runs import runs_root
from vestige.generation.maskunet import load_masks, masks_base
from vestige.generation.tools._common import (
    SHIPPED,
    count_of,
    own_model,
    picture_file,
    prompt_of,
    steps_of,
    strangers,
    written,
)


def make(work: Work) -> Result:
    """Draw ``--prompt`` with the masks of ``--model`` (masks.safetensors of a run; the finished run without one).

    ``--set``: base (the diffusers folder that the masks were trained for, where it has moved), count, steps, guidance.
    """
    work.only(0)
    picture_file(work)
    prompt, count, steps = prompt_of(work), count_of(work), steps_of(work, 10)
    guidance, base = work.option("guidance", 3.0), work.option("base", "")
    work.settled()
    masks = masks_of(work)
    base = base or masks_base(masks)
    model = own_model(work, Path(base) if base else SHIPPED)
    masked = load_masks(masks, model).to(model.device)
    images = masked.sample([prompt] * count, seed=work.seed, steps=steps, guidance=guidance)
    zeros = list(masked.sparsity().values())
    figures: dict[str, float | int | str] = {"pictures": count, "weights switched off": sum(zeros) / len(zeros)}
    return written(work, images, strangers(model, prompt), figures)


def masks_of(work: Work) -> Path:
    """``--model``, else the finished run; raises InputError that says how to train masks."""
    if work.model is not None:
        return work.model_file(what="masks.safetensors of a run")
    path = runs_root() / "maskunet" / "masks" / "0" / "masks.safetensors"
    if not path.is_file():
        raise InputError(
            "There are no trained masks; 'vestige learn maskunet' trains them, --model names their masks.safetensors."
        )
    return path
