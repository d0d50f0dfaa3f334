"""Stable Signature on files: a decoder fine-tuned for one message, pictures drawn with it, the message read back."""

from __future__ import annotations

import shutil

import numpy as np
import torch

from vestige.core.dataset import DatasetSubject
from vestige.core.errors import NOT_MARKED, InputError, UsageError
from vestige.core.files import folder_atomic
from vestige.core.image_io import save_image, to_uint8
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.core.work import Result, Work
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.autoencoders import autoencoder_folder
from vestige.engines.marking.residual import to_native
from vestige.metrics.bits import match_p_value
from vestige.metrics.quality import psnr
from vestige.watermark.stable_signature import StableSignature, shipped_extractor
from vestige.watermark.tools.wouaf import folder_of, picture_for, through
from vestige.watermark.wouaf import without_weights

_PICTURES, _FALSE = 96, 1e-3


def mark(work: Work) -> Result:
    """Fine-tune the image decoder of a diffusers folder until all it makes reads as one message of the key.

    A second input is a folder of pictures to fine-tune on; without it they are rendered scenes. Settings: steps, lr,
    image_weight.
    """
    folder = work.only(2).path(0, "a diffusers folder")
    out = work.out_folder()
    steps, lr, weight = work.option("steps", 100), work.option("lr", 5e-4), work.option("image_weight", 0.2)
    work.settled()
    vae = folder_of(folder)
    extractor, size = shipped_extractor(work.model)
    pictures = _pictures(work, size)
    method = StableSignature(extractor, steps=steps, lr=lr, image_weight=weight, seed=work.seed)
    bits = message_of(work.key, method.length(pictures[:1]))
    tuned = method.stamp(vae, bits, pictures)
    shown = pictures[:16].numpy()
    made, plain = through(tuned, shown), through(vae, shown)
    right = float(((method.read(made) > 0) == bits).mean())
    inside = autoencoder_folder(folder).relative_to(folder)
    with folder_atomic(out) as copied:
        shutil.copytree(folder, copied, ignore=without_weights(folder / inside), dirs_exist_ok=True)
        tuned.save_pretrained(copied / inside, safe_serialization=True)
    figures = {"bits": len(bits), "bits read from its pictures": right, "psnr to the plain decoder": _mean(made, plain)}
    return Result(figures, [out], [f"Pictures that {out} makes carry the message of this key."])


def make(work: Work) -> Result:
    """The picture, encoded and then drawn by the decoder of ``--model``, a folder that ``mark`` wrote."""
    subject = work.only(1).picture(0)
    folder = work.model_file(what="the folder that 'vestige mark --method stable_signature' wrote")
    out = work.out_file()
    work.settled()
    vae = folder_of(folder)
    drawn = through(vae, picture_for(vae, subject.image))
    save_image(out, to_uint8(drawn))
    return Result({"width": drawn.shape[3], "height": drawn.shape[2]}, [out])


def read(work: Work) -> Result:
    """Whether pictures carry the message of the key; exit code 4 when one does not."""
    subjects = work.pictures()
    work.settled()
    extractor, size = shipped_extractor(work.model)
    method = StableSignature(extractor)
    rows = []
    for subject in work.track(subjects, "reading"):
        seen = method.read(to_native(torch.from_numpy(subject.image), size).numpy())[0] > 0
        bits = message_of(work.key, len(seen))
        matches = int((seen == bits).sum())
        p_value = float(match_p_value(matches, len(bits)))
        rows.append(
            {
                "picture": subject.source, "marked": "yes" if p_value <= _FALSE else "no", "matches": matches,
                "bits": len(bits), "p_value": p_value,
            }
        )  # fmt: skip
    return Result(rows=rows, exit_code=0 if all(row["marked"] == "yes" for row in rows) else NOT_MARKED)


def message_of(key: bytes, length: int) -> np.ndarray:
    """The message of a key, bool (length,)."""
    seed = int.from_bytes(derive(key, "stable signature")[:8], "little")
    return rng(seed, "message").integers(0, 2, length).astype(bool)


def _pictures(work: Work, size: int) -> torch.Tensor:
    """float N×3×size×size in [0, 1], of the second input or rendered."""
    if len(work.paths) < 2:
        return torch.from_numpy(render_pack(_PICTURES, size, 91).images).float() / 255
    folder = work.path(1, "a folder of pictures")
    items = list(DatasetSubject.open(folder))[:500]
    if len(items) < 2:
        raise InputError(f"{folder} holds too few pictures to fine-tune a decoder on; give at least two.")
    squares = [to_native(torch.from_numpy(item.subject().image), size) for item in items]
    return torch.cat(squares)


def _mean(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise UsageError("The decoders draw pictures of different sizes.")
    return float(np.minimum(psnr(b, a), 99.0).mean())
