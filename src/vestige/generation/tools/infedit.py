"""Edit a picture of the user's by a pair of prompts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.generation.infedit import InfEdit
from vestige.generation.tools._common import own_model, picture_file, prompt_of, steps_of, strangers


def make(work: Work) -> Result:
    """Change the picture from what ``--set source="..."`` says of it to what ``--prompt`` says.

    ``--set keep="grass,sky"``: words of the source whose places stay as they are; target_guidance, strength,
    cross_share, self_share, edit_threshold, steps: as in `InfEdit`. ``--model``: a diffusers folder. A picture that is
    larger than the model draws is edited at the model's size and the difference is laid over it, so that what the edit
    leaves alone keeps its detail.
    """
    work.only(1)
    subject, out, prompt = work.picture(0), picture_file(work), prompt_of(work)
    source = work.option("source", "")
    keep = [word.strip() for word in work.option("keep", "").split(",") if word.strip()]
    own = ("target_guidance", "strength", "cross_share", "self_share", "edit_threshold")
    settings: dict[str, Any] = {name: work.option(name, float(getattr(InfEdit, name))) for name in own}
    steps = steps_of(work, 15)
    work.settled()
    if not 0 < settings["strength"] <= 1:
        raise UsageError(f"strength is {settings['strength']:g}; it must be above 0 and at most 1.")
    model = own_model(work)
    image = torch.from_numpy(subject.image)
    edited = edit_any_size(model, InfEdit(model, steps=steps, **settings), image, source, prompt, keep, work.seed)
    save_image(out, to_uint8(edited.numpy()))
    change = float((edited - image).abs().mean())
    said = strangers(model, source, prompt)
    if not source:
        said.append('Say what the picture shows with --set source="..." to keep more of it.')
    return Result(figures={"steps": steps, "mean change": change}, files=[out], said=said)


def edit_any_size(
    model: TextToImage, editor: InfEdit, image: torch.Tensor, source: str, target: str, keep: list[str], seed: int
) -> torch.Tensor:
    """Image 1×3×H×W -> edited, same size: edit(small) where it is the model's size, else image + enlarged difference
    between the edited small picture and the small picture as the model decodes it."""
    height, width = working_size(model, int(image.shape[2]), int(image.shape[3]))
    if (height, width) == tuple(image.shape[2:]):
        return editor.edit(image, source, target, keep=keep, seed=seed).cpu()
    small = F.interpolate(image, (height, width), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    with torch.no_grad():
        plain = model.decode(model.encode(small)).cpu()
    difference = editor.edit(small, source, target, keep=keep, seed=seed).cpu() - plain
    grown = F.interpolate(difference, image.shape[2:], mode="bicubic", align_corners=False)
    return (image + grown).clamp(0, 1)


def working_size(model: TextToImage, height: int, width: int) -> tuple[int, int]:
    """The size nearest to the picture's shape that has about as many pixels as the model's own pictures."""
    factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
    multiple = factor * 2 ** (len(model.unet.config.block_out_channels) - 1)
    _, rows, columns = model.latent_shape()
    area = rows * columns * factor**2
    scale = math.sqrt(area / (height * width))
    fitted = (max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))
    first, second = fitted
    return first, second
