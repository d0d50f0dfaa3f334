"""Attacks that redraw a picture with a diffusion model, on pictures of any size.

``--model`` is a diffusers folder (one of ours, Stable Diffusion 1 or 2, or an unconditional pixel model); without one
the model of drawn scenes that comes with vestige, which paints drawings. A picture is redrawn in overlapping tiles of
the model's own size. ``--set side=N`` redraws a copy whose longer side has N pixels, which is faster, and enlarges it
again: what is finer than that copy is lost as well. ``--set steps`` are those of the whole chain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import format_for, save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.watermark.learned import WEIGHTS

SHIPPED = WEIGHTS / "scenes_text2image"
Change = Callable[[np.ndarray], np.ndarray]


def model_folder(work: Work) -> Path:
    """The folder of ``--model``, or the shipped one; raises InputError where it is missing."""
    if work.model is not None:
        return work.needed("model", "a diffusers folder")
    if not SHIPPED.is_dir():
        raise InputError("This needs a diffusion model: give --model FOLDER, or 'vestige learn scenes_text2image'.")
    return SHIPPED


def model_of(work: Work) -> Any:
    """The diffusion model that redraws. Raises InputError or UsageError for folders of another kind."""
    from vestige.watermark.attacks.regeneration import load_model

    return load_model(model_folder(work))


def targets(work: Work) -> list[Path]:
    """Where each picture goes: the file ``--out`` for one, the folder ``--out`` for several, else beside the input as
    NAME-method.png. Raises UsageError where an input would be overwritten or a name says no format."""
    subjects = work.pictures("a picture")
    single = len(work.paths) == 1 and not work.paths[0].is_dir() and len(subjects) == 1
    if single and (work.out is None or not work.out.is_dir()):
        named = work.paths[0].with_name(f"{work.paths[0].stem}-{work.method}.png")
        found = [work.out_file() if work.out is not None else named]
    elif work.out is None:
        raise UsageError("Several pictures need --out FOLDER.")
    elif work.out.is_file():
        raise UsageError(f"--out {work.out} is a file; several pictures need a folder.")
    else:
        found = [work.out / f"{Path(s.source).stem}.png" for s in subjects]
    for target in found:
        format_for(target)
        if found.count(target) > 1:
            raise UsageError(f"Two pictures would be written to {target}; rename one of them.")
        taken = [p for p in work.paths if p.is_file()]
        if target.exists() and any(target.samefile(p) for p in taken):
            raise UsageError(f"{target} is an input; choose another --out.")
    if work.out is not None and any(p.is_dir() and work.out.resolve() == p.resolve() for p in work.paths):
        raise UsageError(f"--out {work.out} is an input; choose another folder.")
    return found


def changed(work: Work, change: Change, side: int = 0, where: list[Path] | None = None) -> Result:
    """Apply ``change`` (float 1×3×h×w -> the same shape) to every picture; outputs have the size of the inputs.

    side: the longer side of the copy that is changed; 0 for the picture's own.
    """
    if side < 0 or 0 < side < 8:
        raise UsageError(f"--set side={side} must be 0, for the picture's own size, or at least 8 pixels.")
    where = where if where is not None else targets(work)
    files = []
    rows: list[dict[str, Any]] = []
    for subject, target in zip(work.pictures(), where, strict=True):
        image = subject.image
        made = resized(change(at_side(image, side)), image.shape[2:]).clip(0, 1)
        save_image(target, to_uint8(made))
        error = float(np.mean((made - image) ** 2))
        rows.append({"file": str(target), "psnr": min(99.0, -10 * float(np.log10(max(error, 1e-10))))})
        files.append(target)
    said = [f"{row['file']}: {work.verb} by {work.method} (PSNR {row['psnr']:.1f} dB)" for row in rows]
    return Result(figures={"psnr": rows[0]["psnr"]} if len(rows) == 1 else {}, rows=rows[1:] and rows, files=files,
                  said=said)  # fmt: skip


def at_side(image: np.ndarray, side: int) -> np.ndarray:
    """N×3×H×W scaled down so that its longer side has ``side`` pixels; as it is where it is smaller, or for 0."""
    height, width = image.shape[2:]
    if not side or max(height, width) <= side:
        return image
    scale = side / max(height, width)
    return resized(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def resized(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """N×3×H×W at another size: areas averaged when it becomes smaller, cubic when larger; the same array at its own."""
    height, width = size[-2:]
    if image.shape[2:] == (height, width):
        return image
    how = cv2.INTER_AREA if height * width < image.shape[2] * image.shape[3] else cv2.INTER_CUBIC
    made = [cv2.resize(picture.transpose(1, 2, 0), (width, height), interpolation=how) for picture in image]
    return np.stack(made).transpose(0, 3, 1, 2).astype(np.float32)


def stack(work: Work, index: int, side: int, what: str) -> np.ndarray:
    """Every picture of the folder at ``index``, scaled to side×side: float N×3×S×S. Raises InputError for one alone."""
    pictures = [resized(item.subject().image, (side, side))[0] for item in work.dataset(index, what)]
    if len(pictures) < 2:
        raise InputError(f"{work.paths[index]} holds {len(pictures)} picture; {work.method} compares sets of them.")
    return np.stack(pictures)
