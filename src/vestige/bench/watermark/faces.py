"""Faces that the attack on marked faces is trained and measured with: photographs of the faces pack, or drawn people.

Thirty people are known to the recognisers by six photographs each, two more people not at all. Of everyone, two other
photographs set thresholds and two more are probe and gallery.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.drawn_faces import drawn_faces
from vestige.data.packs import load_pack
from vestige.watermark.face_adv_nets import SIZE

KNOWN = 30
#: Photographs of a person: to train on, to set thresholds, and probe and gallery.
TRAINED, TUNED = 6, 2


@dataclass(frozen=True)
class Faces:
    """Pictures float N×3×64×64 with eight-bit values; people: int64 N.

    probes and gallery: two photographs of everyone, each in both parts; ``people`` of these two.
    """

    train: Tensor
    labels: Tensor
    tuning: Tensor
    tuning_people: Tensor
    probes: Tensor
    gallery: Tensor
    people: Tensor


def faces(folder: Path | None) -> Faces:
    """The faces pack, or drawn people for None, always split the same way.

    Raises InputError when it has too few people or photographs.
    """
    if folder is None:
        pixels, labels, _ = drawn_faces(KNOWN + 2, TRAINED + TUNED + 2, SIZE)
    else:
        pack = load_pack(folder, SIZE, label="person")
        assert pack.labels is not None
        pixels, labels = pack.images, pack.labels
    images = torch.from_numpy(pixels).float() / 255
    shown = [rng(0, "photographs", int(p)).permutation(np.flatnonzero(labels == p)) for p in np.unique(labels)]
    if len(shown) <= KNOWN or min(len(s) for s in shown) < TRAINED + TUNED + 2:
        raise InputError(f"{folder} needs {KNOWN + 1} people with {TRAINED + TUNED + 2} photographs each.")
    order = [int(i) for i in rng(0, "people").permutation(len(shown))]
    known = [shown[i][:TRAINED] for i in order[:KNOWN]]
    tuned = [shown[i][TRAINED : TRAINED + TUNED] for i in order]
    first, second = (np.array([shown[i][TRAINED + TUNED + k] for i in order]) for k in (0, 1))
    people = torch.arange(len(order))
    return Faces(
        images[np.concatenate(known)], torch.arange(KNOWN).repeat_interleave(TRAINED),
        images[np.concatenate(tuned)], people.repeat_interleave(TUNED),
        images[np.concatenate([first, second])], images[np.concatenate([second, first])], people.repeat(2),
    )  # fmt: skip
