"""Photographs, laundered photographs and pictures synthetic from the start, of one autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vestige.core.errors import InputError
from vestige.core.image_io import to_uint8
from vestige.data.fakes import as_float, squares
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.forensics.laundering import Launderer
from vestige.forensics.learned import WEIGHTS

#: A latent diffusion model of squares of photographs, with its autoencoder.
MODEL = WEIGHTS / "laundering_model"


def photographs(
    part: str, *, size: int = 64, per_photo: int = 1, limit: int = 0, seed: int = 0, root: Path | None = None
) -> np.ndarray:
    """uint8 N×3×size×size of photographs reduced by two; without the photos pack, rendered scenes.

    root: the folder of packs, by default `find_data_root`.
    """
    if has_pack("photos", root):
        images = named_pack("photos", part, root=root, size=256, limit=limit or None).images
        if len(images):
            return squares(images, size, per_photo=per_photo, seed=seed)[0]
    count = {"train": limit or 400, "val": max(8, (limit or 400) // 8), "test": max(8, (limit or 400) // 8)}[part]
    return squares(render_pack(count, 2 * size, seed).images, size, per_photo=per_photo, seed=seed)[0]


def synthetic(
    count: int, *, model: str | Path | None = None, size: int = 64, steps: int = 15, seed: int = 0
) -> np.ndarray:
    """Samples of a diffusion model of ours, by default `MODEL`: uint8 count×3×size×size; InputError for others."""
    pipeline = load_pipeline(model or MODEL)
    if not isinstance(pipeline, TextToImage):
        raise InputError(f"{model or MODEL} holds no model that draws here; give a folder that zoo_diffusion wrote.")
    made = pipeline.eval().sample([""] * count, seed=seed, steps=steps, guidance=1.0, size=size, batch=64)
    return np.stack([to_uint8(picture[None]).transpose(2, 0, 1) for picture in made.cpu().numpy()])


def laundered(pictures: np.ndarray, model: str | Path | None = None) -> np.ndarray:
    """uint8 N×3×H×W through an autoencoder, by default that of `MODEL`, once."""
    made = Launderer(model or MODEL).launder(as_float(pictures))
    return np.round(made * 255).astype(np.uint8)


def three_kinds(
    part: str, *, squares: int = 1, limit: int = 0, steps: int = 15, seed: int = 0, root: Path | None = None
) -> dict[str, np.ndarray]:
    """Pristine, laundered and full pictures of one part, as many of each; samples of parts differ in their seed.

    root: the folder of packs, by default `find_data_root`.
    """
    real = photographs(part, per_photo=squares, limit=limit, seed=seed, root=root)
    number = ("train", "val", "test").index(part)
    full = synthetic(len(real), steps=steps, seed=10 * seed + number)
    return {"pristine": real, "laundered": laundered(real), "full": full}
