"""Change a face so that recognition fails only once somebody marks the picture, and measure whether it does.

Both networks, a recogniser and a mark, come from one file: ``--model pair.safetensors`` of ``vestige learn
face_adv_watermark``, by default that of the finished run. They see faces at 64×64 pixels; the change is found there and
enlarged to the picture, which should show a face and little else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.core.work import Result, Work
from vestige.engines.adversarial.budget import round8
from vestige.engines.runs import finished
from vestige.watermark.face_adv_nets import BITS, SIZE, FacePair, load_pair
from vestige.watermark.face_adv_watermark import FaceAdvWatermark, similarity, threshold_at, watermarked
from vestige.watermark.tools.redrawing import changed, resized, targets

TRAIN = "vestige learn face_adv_watermark"
_FALSE_MATCHES = 0.01


@dataclass(frozen=True)
class _Settings:
    epsilon: float
    steps: int
    keep: float


def attack(work: Work) -> Result:
    """Write the changed face. ``--set epsilon`` (in grey levels), ``steps`` and ``keep`` are those of the attack."""
    chosen = _settings(work)
    work.settled()
    where = targets(work)
    pair = load(work)
    method = _method(pair, chosen, work.seed)
    figures: dict[str, float] = {}

    def change(image: np.ndarray) -> np.ndarray:
        small = round8(torch.from_numpy(resized(image, (SIZE, SIZE)).clip(0, 1)))
        bits = _bits(work.seed, len(small))
        moved = method.attack(small, bits)
        most = chosen.epsilon / 255
        found = image + resized((moved - small).numpy(), image.shape[2:]).clip(-most, most)
        made: np.ndarray = round8(torch.from_numpy(found.clip(0, 1))).numpy()
        figures.update(_own_match(pair, small, torch.from_numpy(resized(made, (SIZE, SIZE)).clip(0, 1)), bits))
        return made

    result = changed(work, change, 0, where)
    if len(result.files) == 1:
        said = [*result.said, f"The recogniser calls two faces the same from a cosine of {float(pair.threshold):.2f}."]
        return Result(figures={**result.figures, **figures}, files=result.files, said=said)
    return result


def _own_match(pair: FacePair, before: torch.Tensor, after: torch.Tensor, bits: torch.Tensor) -> dict[str, float]:
    """Cosine of the picture with itself: changed, marked, changed and marked."""
    with torch.no_grad():
        own = pair.recogniser(before)
        seen = {
            "changed": after, "marked": watermarked(pair.watermarker, before, bits),
            "changed and marked": watermarked(pair.watermarker, after, bits),
        }  # fmt: skip
        return {
            f"cosine to the untouched face, {k}": float(similarity(pair.recogniser, x, own)[0]) for k, x in seen.items()
        }


def measure(work: Work) -> Result:
    """The four-way table on a folder of faces, PERSON/VIEW.png: two views or more of two people or more.

    The first view of everyone is attacked and the second is the gallery. The threshold lets one pair of different
    people in a hundred match, on the folder's own pictures.
    """
    work.only(1)
    chosen = _settings(work)
    work.settled()
    probes, gallery = _probes(work)
    pair = load(work)
    with torch.no_grad():
        one, two = pair.recogniser(probes), pair.recogniser(gallery)
    different = ~torch.eye(len(probes), dtype=torch.bool)
    threshold = threshold_at((one @ two.T)[different], _FALSE_MATCHES)
    method = _method(pair, chosen, work.seed, threshold)
    bits = _bits(work.seed, len(probes))
    signs = rng(work.seed, "signs").choice(np.array([-1.0, 1.0], np.float32), tuple(probes.shape))
    random = round8((probes + chosen.epsilon / 255 * torch.from_numpy(signs)).clamp(0, 1))
    rows: list[dict[str, Any]] = [
        {"change": name, **method.measure(probes, gallery, bits, moved)}
        for name, moved in (("adversarial", method.attack(probes, bits)), ("random signs", random))
    ]
    said = [
        f"{len(probes)} people; matching from a cosine of {threshold:.2f}; changes of {chosen.epsilon:g} grey levels"
    ]
    drop = rows[0]["plain"] - rows[0]["perturbed, marked"]
    early = rows[0]["plain"] - rows[0]["perturbed"]
    return Result(rows=rows, said=said, figures={"matching lost after marking": drop, "matching lost before": early})


def _probes(work: Work) -> tuple[torch.Tensor, torch.Tensor]:
    views: dict[str, list[np.ndarray]] = {}
    for item in work.dataset(0, "a folder of faces, PERSON/VIEW.png"):
        if item.label is None:
            raise InputError(f"{work.paths[0]} has pictures outside of folders; it takes PERSON/VIEW.png.")
        person = views.setdefault(str(item.label), [])
        if len(person) < 2:
            person.append(resized(item.subject().image, (SIZE, SIZE))[0].clip(0, 1))
    pairs = [v for _, v in sorted(views.items()) if len(v) == 2]
    if len(pairs) < 2:
        raise InputError(f"{work.paths[0]} needs two people or more with two pictures each, PERSON/VIEW.png.")
    first, second = (round8(torch.from_numpy(np.stack([p[i] for p in pairs]))) for i in (0, 1))
    return first, second


def _settings(work: Work) -> _Settings:
    found = _Settings(work.option("epsilon", 4.0), work.option("steps", 40), work.option("keep", 1.0))
    if not 0 < found.epsilon <= 64 or found.steps < 1 or found.keep < 0:
        raise UsageError("epsilon lies above 0 and up to 64 grey levels, steps are at least 1, keep is not negative.")
    return found


def _method(pair: FacePair, chosen: _Settings, seed: int, threshold: float | None = None) -> FaceAdvWatermark:
    return FaceAdvWatermark(
        pair.watermarker, pair.recogniser, chosen.epsilon / 255, keep=chosen.keep, steps=chosen.steps, readable=0.1,
        threshold=float(pair.threshold) if threshold is None else threshold, seed=seed,
    )  # fmt: skip


def _bits(seed: int, count: int) -> torch.Tensor:
    return torch.from_numpy(rng(seed, "message").integers(0, 2, (count, BITS))).float()


def load(work: Work) -> FacePair:
    """The pair of ``--model`` or of the finished run. Raises InputError with the command that trains one."""
    if work.model is not None:
        return load_pair(work.needed("model", "pair.safetensors of a run"))
    run = finished("face_adv_watermark", "default", 0)
    path = Path() if run is None else run.folder / "pair.safetensors"
    if run is None or not path.is_file():
        raise InputError(f"There is no trained pair of recogniser and mark yet; train one with: {TRAIN}")
    return load_pair(path)
