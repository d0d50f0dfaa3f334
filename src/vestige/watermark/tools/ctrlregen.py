"""Redraw a picture from clean noise under its own meaning and edges, to remove a mark.

The controls are those shipped for the shipped model of drawn scenes, or ``--set controls=FILE``, written by
``vestige learn ctrlregen``, for it or for the model that they were trained with (``--model``). ``--set strength``: 1
starts from pure noise (CtrlRegen), less from the picture noised to that share of the chain (CtrlRegen+).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vestige.core.errors import InputError
from vestige.core.work import Result, Work
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.runs import finished
from vestige.watermark.ctrlregen import TRAIN, CtrlRegen
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.tools.redrawing import changed, model_of, targets


def attack(work: Work) -> Result:
    """Write the redrawn picture, of the size of the input, with the input's colours."""
    strength, steps, side = work.option("strength", 1.0), work.option("steps", 50), work.option("side", 0)
    colours, guidance, negative = (
        work.option("colours", True),
        work.option("guidance", 2.0),
        work.option("negative", ""),
    )
    controls = controls_file(work)
    work.settled()
    where = targets(work)
    model = model_of(work)
    if not isinstance(model, TextToImage):
        raise InputError(f"{work.model} is no text-to-image model; CtrlRegen needs one.")
    system = CtrlRegen(model, weights=controls).eval()

    def change(image: np.ndarray) -> np.ndarray:
        said = [work.prompt] if work.prompt else ()
        return system.remove(
            image, strength, prompts=said, negative=negative, guidance=guidance, steps=steps, seed=work.seed,
            colours=colours,
        )  # fmt: skip

    return changed(work, change, side, where)


def controls_file(work: Work) -> Path:
    """``--set controls=FILE``, else the shipped controls, else those of a finished run. Raises InputError."""
    named = work.option("controls", "")
    if named:
        if not Path(named).is_file():
            raise InputError(f"{named} is not there; train controls with: {TRAIN}")
        return Path(named)
    run = finished("ctrlregen", "default", 0)
    choices = [WEIGHTS / "ctrlregen.safetensors", *([run.folder / "ctrlregen.safetensors"] if run else [])]
    if work.model is not None:
        choices.reverse()  # a model of the user's has controls of the user's
    for path in choices:
        if path.is_file():
            return path
    raise InputError(f"There are no controls of CtrlRegen; train them with: {TRAIN}")
