"""Master pictures against a user's model of pictures and captions, and the model made harder to fool."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.forensics.clipmasterprints import GapShift, Method, folded, mine
from vestige.nn.image_text import ImageText, load_image_text

_CLIP = "a folder of transformers with a CLIP model"


def attack(work: Work) -> Result:
    """One picture that ``--model`` matches to all captions at once.

    The captions are the lines of ``--data`` (a text file) or ``--prompt`` with ";" between them. A picture that is
    given moves within ±epsilon grey levels at its own size; without one it starts from noise. ``--set`` takes steps
    and epsilon.
    """
    out = work.only(1).out_file()
    captions = _captions(work)
    model = load_image_text(work.needed("model", _CLIP))
    steps, epsilon = work.option("steps", 200), work.option("epsilon", 15.0)
    if not 1 <= steps <= 100_000 or not 0 < epsilon <= 255:
        raise UsageError("steps lies from 1 to 100000 and epsilon above 0 and up to 255 grey levels.")
    start = torch.from_numpy(work.picture().image).float() if work.paths else None
    method = cast(Method, "sgd" if start is None else "pgd")
    found = mine(model, captions, method, start=start, steps=steps, epsilon=epsilon / 255, seed=work.seed)
    save_image(out, to_uint8(found.numpy()))
    before = {} if start is None else _named("before", similarities(model, start, captions))
    after = similarities(model, found, captions)
    said = f"One picture for {len(captions)} captions; a model that trusts the highest similarity is misled by it."
    return Result({"captions": len(captions), **before, **_named("after", after)}, [out], [said])


def erase(work: Work) -> Result:
    """The model with the gap between its pictures and captions closed by a share, as a folder like the one given.

    Inputs: the model, and a folder of pictures with a sub-folder for each class (caption "a photo of a CLASS"), or a
    data set with a column "caption". ``--set share=0.25``: how much of the gap.
    """
    out = work.only(2).out_folder()
    model, data = load_image_text(work.path(0, _CLIP)), work.dataset(1, "pictures with captions")
    share = work.option("share", 0.25)
    if not 0 < share <= 1:
        raise UsageError("share lies above 0 and up to 1.")
    pictures: list[Tensor] = []
    captions: list[str] = []
    for index in work.track(range(len(data)), "reading"):
        item = data[index]
        words = item.fields.get("caption") or (f"a photo of a {item.label}" if item.label is not None else "")
        if not isinstance(words, str) or not words:
            raise InputError(f"{item.name} has no caption: give a folder for each class, or a column 'caption'.")
        x = torch.from_numpy(item.subject().image).float()
        size = (model.side, model.side)
        pictures.append(F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True))
        captions.append(words)
    if len(pictures) < 2:
        raise InputError("The gap between pictures and captions takes two pairs or more.")
    images, known = torch.cat(pictures), sorted(set(captions))
    shift = GapShift(model, share).fit(images, captions)
    changed = folded(model, shift.gap, share)
    from vestige.nn.image_text import save_image_text

    truth = np.array([known.index(c) for c in captions])
    right = {name: float((_scores(m, images, known).argmax(1) == truth).mean()) for name, m in
             (("before", model), ("after", changed))}  # fmt: skip
    save_image_text(changed, out)
    figures = {"pairs": len(images), "gap": float(shift.gap.norm()), "gap left": float((1 - share) * shift.gap.norm()),
               **{f"right caption {name}": value for name, value in right.items()}}  # fmt: skip
    said = (
        "Master pictures that were made without knowing of the shift lose most; those made against this model do not."
    )
    return Result(figures, [out], [said])


def similarities(model: ImageText, images: Tensor, captions: list[str]) -> np.ndarray:
    """float N×K cosines."""
    return _scores(model, images, captions)


@torch.no_grad()
def _scores(model: ImageText, images: Tensor, captions: list[str]) -> np.ndarray:
    pictures = torch.cat([model.images(part) for part in images.split(64)])
    return (F.normalize(pictures, dim=1) @ F.normalize(model.texts(captions), dim=1).T).numpy()


def _named(when: str, found: np.ndarray) -> dict[str, Any]:
    return {f"least similarity {when}": float(found.min()), f"mean similarity {when}": float(found.mean())}


def _captions(work: Work) -> list[str]:
    if work.data is not None:
        path: Path = work.needed("data", "a text file, a caption a line")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"--data {path} is no text file; give captions, one a line.") from None
    else:
        lines = work.prompt.split(";")
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found or len(found) > 10_000:
        raise UsageError('Give captions with --data FILE, one a line, or --prompt "one; another".')
    return found
