"""Real and forged faces for detectors to learn from and be judged on: photographs of many people, cut by person.

The ``people`` pack gives the faces and their groups (the collection's own words, and its own labels); drawn faces take
its place where there is no data. Every face comes with one version of each of the `FORGERIES`, made with donors of the
same part, so that nobody is in two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.drawn_faces import drawn_faces
from vestige.data.face_forgeries import FORGERIES, FaceBasis, forge_face
from vestige.data.packs import has_pack, named_pack

METHODS = tuple(FORGERIES)
#: Numbers of the people pack in words. The last one holds everybody else and is no group to compare.
GROUPS = ("White", "Black", "Asian", "Indian", "other")
_BASIS = 400  # faces that the basis of re-rendered ones is made from


@dataclass(frozen=True)
class Faces:
    """images: uint8 N×3×S×S. methods: int64 N, 0 real, otherwise 1 + the place in `METHODS`. people: int64 N.
    groups: int64 N, the place in ``names``."""

    images: Tensor
    methods: Tensor
    people: Tensor
    groups: Tensor
    names: tuple[str, ...] = GROUPS

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: Tensor) -> Faces:
        """The rows that are chosen, by number or by a bool for each."""
        return Faces(self.images[chosen], self.methods[chosen], self.people[chosen], self.groups[chosen], self.names)

    def without(self, *methods: str) -> Faces:
        """All but the forgeries of these methods."""
        kept = torch.ones(len(self), dtype=torch.bool)
        for method in methods:
            kept &= self.methods != 1 + METHODS.index(method)
        return self.take(kept)

    def only(self, *methods: str) -> Faces:
        """Real faces and the forgeries of these methods."""
        return self.without(*(m for m in METHODS if m not in methods))

    @property
    def fake(self) -> np.ndarray:
        """bool N."""
        return (self.methods > 0).numpy()

    def shuffled(self, seed: int) -> Faces:
        """The same pictures with methods dealt out anew: what is learnt from them is noise."""
        order = torch.from_numpy(rng(seed, "shuffled labels").permutation(len(self)))
        return Faces(self.images, self.methods[order], self.people, self.groups, self.names)

    def paired(self, half: int, generator: torch.Generator) -> Faces:
        """``half`` real faces, then as many forged ones, drawn with replacement."""
        sides = [torch.nonzero(found).squeeze(1) for found in (self.methods == 0, self.methods > 0)]
        return self.take(torch.cat([s[torch.randint(len(s), (half,), generator=generator)] for s in sides]))


@lru_cache(maxsize=4)
def portraits(
    part: str, size: int, count: int, seed: int = 0, root: Path | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(uint8 N×3×S×S, int64 N group, names of groups) of a part ("train", "val" or "test") of the people pack.

    At most ``count`` faces, one a person as far as is known; drawn faces, whose groups are tones of skin, without the
    pack. root: the folder of packs. Raises InputError for a pack that is damaged.

    >>> portraits("val", 32, 12)[0].shape[1:]
    (3, 32, 32)
    """
    if has_pack("people", root):
        pack = named_pack("people", part, root=root, size=size)
        order = rng(seed, "portraits", part).permutation(len(pack))[:count]
        return np.ascontiguousarray(pack.images[order]), np.array(pack.fields["group"], np.int64)[order], GROUPS
    number = ("train", "val", "test").index(part)
    images, _, tones = drawn_faces(max(8, count), 1, size, 3 * seed + number)
    return np.ascontiguousarray(images), tones, tuple(f"tone {t}" for t in range(1, 6))


@lru_cache(maxsize=6)
def forged_faces(part: str, size: int, count: int, seed: int = 0, root: Path | None = None) -> Faces:
    """At most ``count`` faces of a part, each with its four forgeries; parts share nobody.

    >>> len(forged_faces("val", 32, 10)) % 5
    0
    """
    known, groups, names = portraits(part, size, count, seed, root)
    faces, draw = known.astype(np.float32) / 255, rng(seed, "forged", part)
    basis = FaceBasis.of(faces[:_BASIS])
    images, methods = [known], [np.zeros(len(known), np.int64)]
    for number, kind in enumerate(METHODS, 1):
        forged = np.empty_like(known)
        for i, face in enumerate(faces):
            donor = faces[(i + 1 + int(draw.integers(len(faces) - 1))) % len(faces)]
            made, _ = forge_face(face, kind, donor=donor, basis=basis, seed=int(draw.integers(2**31)))
            forged[i] = np.round(made * 255).astype(np.uint8)
        images.append(forged)
        methods.append(np.full(len(known), number, np.int64))
    times = 1 + len(METHODS)
    return Faces(
        torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(methods)),
        torch.arange(len(known)).repeat(times), torch.from_numpy(groups).repeat(times), names,
    )  # fmt: skip


def handled(images: Tensor, generator: torch.Generator) -> Tensor:
    """What happens to pictures of faces: float N×3×S×S in [0, 1] of uint8 ones, on eight bits.

    Half are mirrored; brightness and contrast move by up to a tenth, a little blur and JPEG 40 to 100 with colours
    halved come to half of the pictures each, real and forged alike.
    """
    draw = rng(int(torch.randint(2**62, (), generator=generator)), "handled faces")
    found = []
    for image in images.numpy():
        pixels = np.ascontiguousarray((image[:, :, ::-1] if draw.random() < 0.5 else image).transpose(1, 2, 0))
        if draw.random() < 0.5:
            gain, shift = draw.uniform(0.9, 1.1), draw.uniform(-25, 25)
            pixels = ((pixels.astype(np.float32) - 128) * gain + 128 + shift).clip(0, 255).astype(np.uint8)
        if draw.random() < 0.5:
            pixels = cv2.GaussianBlur(pixels, (0, 0), float(draw.uniform(0.2, 0.7)))
        found.append(saved(pixels, int(draw.integers(40, 101))) if draw.random() < 0.5 else pixels)
    return torch.from_numpy(np.stack(found).transpose(0, 3, 1, 2).copy()).float() / 255


def resaved(images: Tensor, quality: int = 70) -> Tensor:
    """uint8 N×3×S×S through JPEG with colours halved, uint8 again."""
    each = [saved(np.ascontiguousarray(image.transpose(1, 2, 0)), quality) for image in images.numpy()]
    return torch.from_numpy(np.stack(each).transpose(0, 3, 1, 2).copy())


def saved(pixels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 H×W×3 through JPEG 4:2:0."""
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    done, data = cv2.imencode(".jpg", pixels[:, :, ::-1], settings)
    if not done:
        raise UsageError(f"A picture of {pixels.shape} cannot be saved as JPEG {quality}.")
    again = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert again is not None
    return again[:, :, ::-1]


@torch.no_grad()
def answers(network: torch.nn.Module, images: Tensor, batch: int = 128) -> np.ndarray:
    """Outputs N of a network in evaluation mode for uint8 pictures N×3×S×S."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    parts = [network(x.to(device).float() / 255).flatten().cpu() for x in images.split(batch)]
    return torch.cat(parts).numpy()


def by_method(faces: Faces, scores: np.ndarray, methods: Sequence[str] = METHODS) -> dict[str, float]:
    """{method: AUC of its forgeries against the real faces} of scores for all faces."""
    from vestige.metrics.detection import auroc

    kinds = faces.methods.numpy()
    found = {}
    for name in methods:
        chosen = (kinds == 0) | (kinds == 1 + METHODS.index(name))
        found[name] = auroc(kinds[chosen] > 0, scores[chosen])
    return found
