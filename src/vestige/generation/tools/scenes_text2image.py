"""Pictures from a caption, by the shipped model or any diffusers folder."""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.generation.tools._common import any_model, count_of, picture_file, prompt_of, steps_of, strangers, written


def make(work: Work) -> Result:
    """Draw ``--prompt``. ``--set``: count, steps, guidance. ``--model``: a diffusers folder."""
    work.only(0)
    picture_file(work)
    prompt, count, steps = prompt_of(work), count_of(work), steps_of(work, 25)
    guidance = work.option("guidance", 3.0)
    work.settled()
    model = any_model(work)
    images = model.sample([prompt] * count, seed=work.seed, steps=steps, guidance=guidance)
    return written(work, images, strangers(model, prompt), {"pictures": count, "steps": steps})
