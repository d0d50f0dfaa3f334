"""ForgetMe on a user's own picture: remove what a mask covers or what a prompt names, and score a removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import save_image, to_float, to_uint8
from vestige.core.work import Result, Work
from vestige.data.packs import resize
from vestige.metrics.entangled import entangled
from vestige.unlearning.forgetme import ForgetMe, named_region, pixels_of

_PIPELINE = "a folder of a diffusers text-to-image pipeline, which finds what the prompt names"


def erase(work: Work) -> Result:
    """The picture without what ``--mask`` covers, or without what ``--prompt`` names to the pipeline ``--model``; the
    mask that was used lies beside it as OUT-mask.png.

    Settings: fill (telea, navier-stokes; diffusion with a model), radius, feather and grow of the mask, steps, and for
    a prompt share, the part of the picture that may be taken (0: by threshold).
    """
    subject = work.only(1).picture(0)
    fill, share = work.option("fill", "telea"), work.option("share", 0.0)
    options: dict[str, Any] = {
        name: work.option(name, default)
        for name, default in (("radius", 3.0), ("feather", 3.0), ("grow", 3), ("steps", 20), ("repeats", 3))
    }
    work.settled()
    out = work.out_file()
    beside = out.with_name(f"{out.stem}-mask.png")
    if beside.exists():
        raise InputError(f"{beside} exists already, and the mask would be written there; choose another --out.")
    if work.mask is None and not work.prompt:
        raise UsageError('Say what to forget: --mask FILE, or --prompt "the red ball" with --model PIPELINE.')
    model = None
    if work.mask is None or fill == "diffusion":
        model = _pipeline(work.needed("model", _PIPELINE), work.device)
    image = to_float(subject.pixels)[0]
    how = "by the mask"
    if work.mask is not None:
        mask = work.masked(subject)[0, 0]
    else:
        mask, how = named_region(model, image, work.prompt, share=share or None, seed=work.seed), "by the prompt"
    if not mask.any():
        raise InputError("The mask is empty, so there is nothing to forget in this picture.")
    eraser = ForgetMe(fill, model=model if fill == "diffusion" else None, seed=work.seed, **options)
    made, refined = _filled(eraser, image, mask)
    save_image(out, to_uint8(made))
    save_image(beside, refined.astype(np.uint8) * 255)
    score = entangled(image[None], made[None], refined[None, None]) if not refined.all() else {}
    return Result(
        {"share of the picture": float(refined.mean()),
         **({"Entangled-D": float(score["D"][0]), "Entangled-S": float(score["consistency"][0])} if score else {})},
        [out, beside],
        [f"What was found {how} is filled with {fill}; look at {beside.name} to see whether it is what you meant."],
    )  # fmt: skip


def measure(work: Work) -> Result:
    """``measure BEFORE AFTER --mask MASK``: Entangled-D, corrected and as released, its parts, and Entangled-S.

    With one picture, the edited one, there is only Entangled-S: does the filled part fit what is around it?
    """
    first = work.only(2).picture(0)
    mask = work.masked(first)
    typical = work.option("replaced", 0.25)
    work.settled()
    if len(work.paths) == 1:
        from vestige.metrics.entangled import consistency

        return Result({"Entangled-S": float(consistency(first.image, mask)[0])})
    second = work.picture(1)
    if second.pixels.shape != first.pixels.shape:
        raise UsageError("The pictures before and after have different sizes, so they cannot be compared.")
    corrected = entangled(first.image, second.image, mask, replaced=typical)
    released = entangled(first.image, second.image, mask, variant="released")
    return Result(
        {
            "Entangled-D": float(corrected["D"][0]), "removed and kept (S)": float(corrected["S"][0]),
            "fits in (consistency)": float(corrected["consistency"][0]),
            "Entangled-D as released": float(released["D"][0]), "Entangled-S": float(released["consistency"][0]),
        },
        said=["More is better. The released form gives a picture that was not edited the best mark; the corrected one "
              "gives it none."],
    )  # fmt: skip


def _pipeline(folder: Path, device: str) -> Any:
    from vestige.core.runtime import device as device_of
    from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline

    model = load_pipeline(folder)
    if not isinstance(model, TextToImage):
        raise InputError(f"{folder} is a pipeline of another kind; one text encoder, an autoencoder and a UNet fit.")
    return model.eval().requires_grad_(False).to(device_of(device))


def _filled(eraser: ForgetMe, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(picture, refined mask) at the picture's own size; a diffusion model fills at its size."""
    if eraser.fill != "diffusion":
        made, refined = eraser.erase(image[None], mask[None, None])
        return made[0], refined[0, 0]
    side = pixels_of(eraser.model)
    small = resize(to_uint8(image), (side, side), "stretch")
    hole = resize(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2), (side, side), "stretch")[..., 0] > 0
    made, refined = eraser.erase(to_float(small), hole[None, None])
    height, width = image.shape[1:]
    large = to_float(resize(to_uint8(made[0]), (height, width), "stretch"))[0]
    wide = resize(np.repeat(refined[0, 0][..., None].astype(np.uint8) * 255, 3, 2), (height, width), "stretch")
    where = wide[..., 0] > 127
    return np.where(where, large, image).astype(np.float32), where
