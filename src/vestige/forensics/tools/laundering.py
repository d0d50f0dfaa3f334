"""Photographs through an autoencoder, and what that does to detectors and to the noise of the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic
from vestige.core.image_io import save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.forensics.laundering import SMALLEST, Launderer, LaunderingDetector
from vestige.forensics.learned import WEIGHTS


def attack(work: Work) -> Result:
    """Each picture encoded and decoded by an autoencoder, which changes little to see and its traces altogether.

    ``--model``: the folder of a diffusers autoencoder or pipeline, by default a small one of ours. ``--set passes=1``.
    One picture goes to the file ``-o``, a folder of pictures to a new folder of PNG files.
    """
    launderer, passes = _launderer(work), work.option("passes", 1)
    if not 1 <= passes <= 100:
        raise UsageError("passes lies from 1 to 100.")
    if len(work.paths) == 1 and not work.path().is_dir():
        out = work.out_file()
        subject = work.picture()
        made = launderer.launder(subject.image, passes)
        save_image(out, to_uint8(made))
        return Result({"PSNR in dB": _psnr(subject.image, made)}, [out])
    found, pictures = [], work.pictures()
    with folder_atomic(work.out_folder()) as place:
        for subject in work.track(pictures, "laundering"):
            made = launderer.launder(subject.image, passes)
            target = place / Path(subject.source).with_suffix(".png")
            if target.exists():
                raise InputError(f"Two pictures are called {subject.source}; rename one of them.")
            target.parent.mkdir(parents=True, exist_ok=True)
            save_image(target, to_uint8(made))
            found.append(_psnr(subject.image, made))
    assert work.out is not None
    return Result({"pictures": len(found), "mean PSNR in dB": float(np.mean(found))}, [work.out])


def measure(work: Work) -> Result:
    """What laundering does to photographs of yours: what the detector calls them before and after, how much of the fine
    noise survives (correlation of the residuals, by which cameras are named), and the PSNR.

    ``--data``: pictures synthetic from the start, which are then told apart as well. ``--model``: another autoencoder.
    """
    launderer, detector = _launderer(work), LaunderingDetector()
    _ = detector.network
    photographs = [s for s in work.pictures("photographs") if min(s.width, s.height) >= SMALLEST]
    if not photographs:
        raise InputError(f"No picture has {SMALLEST} pixels a side or more, which the detector needs.")
    rows: list[dict[str, Any]] = []
    kept, quality = [], []
    calls: dict[str, list[str]] = {"as taken": [], "laundered": []}
    for subject in work.track(photographs, "laundering"):
        made = launderer.launder(subject.image)
        before = subject.image[:, :, : made.shape[2], : made.shape[3]]
        calls["as taken"] += detector.classify(before)
        calls["laundered"] += detector.classify(made)
        kept.append(_alike(before[0], made[0]))
        quality.append(_psnr(before, made))
    if work.data is not None:
        from vestige.core.dataset import DatasetSubject

        full = [item.subject() for item in DatasetSubject.open(work.needed("data", "pictures made by a generator"))]
        calls["synthetic"] = [c for s in full if min(s.width, s.height) >= SMALLEST for c in detector.classify(s.image)]
    for name, called in calls.items():
        if called:
            shares = {
                f"called {label}": called.count(label) / len(called) for label in ("pristine", "laundered", "full")
            }
            rows.append({"pictures": name, "count": len(called), **shares})
    figures = {"photographs": len(kept), "PSNR in dB": float(np.mean(quality)), "noise kept": float(np.mean(kept))}
    return Result(figures, rows=rows)


def _launderer(work: Work) -> Launderer:
    folder = WEIGHTS / "laundering_model" if work.model is None else work.needed("model", "a diffusers autoencoder")
    return Launderer(folder)


def _psnr(before: np.ndarray, after: np.ndarray) -> float:
    error = float(np.mean((before[:, :, : after.shape[2], : after.shape[3]] - after) ** 2))
    return -10 * float(np.log10(max(error, 1e-12)))


def _alike(before: np.ndarray, after: np.ndarray) -> float:
    """Correlation of what a median filter takes away, 3×H×W each."""
    import cv2

    residual = []
    for image in (before, after):
        pixels = (image.transpose(1, 2, 0) * 255).astype(np.float32)
        residual.append((pixels - cv2.medianBlur(np.ascontiguousarray(pixels), 3)).ravel())
    a, b = (x - x.mean() for x in residual)
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b / scale) if scale > 0 else 0.0
