"""Real and forged faces that the face systems are trained and judged on: the faces pack, cut by person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vestige.claims import ClaimContext
from vestige.core.runtime import rng
from vestige.data.face_forgeries import FORGERIES, FaceBasis, forge_face
from vestige.data.packs import load_pack

METHODS = tuple(FORGERIES)
SIDE = 40


@dataclass(frozen=True)
class Faces:
    """images: N×3×S×S in [0, 1]. methods: int64 N, 0 real, otherwise 1 + the place in `METHODS`. people: int64 N."""

    images: Tensor
    methods: Tensor
    people: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: Tensor) -> Faces:
        return Faces(self.images[chosen], self.methods[chosen], self.people[chosen])

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
        return (self.methods > 0).numpy()

    def paired(self, half: int, generator: torch.Generator) -> Faces:
        """``half`` real faces, then as many forged ones."""
        sides = [torch.nonzero(found).squeeze(1) for found in (self.methods == 0, self.methods > 0)]
        return self.take(torch.cat([s[torch.randint(len(s), (half,), generator=generator)] for s in sides]))


@lru_cache(maxsize=2)
def faces_by_person(context: ClaimContext) -> dict[str, Faces]:
    """{"train", "val", "test"}: every face and its four forgeries; donors and the basis are of the same part."""
    pack = load_pack(context.pack("faces"), size=SIDE, label="person")
    people = rng(context.seed, "people").permutation(np.unique(pack.labels))
    cuts = np.split(people, [len(people) * 5 // 8, len(people) * 6 // 8])
    found = {}
    for part, chosen in zip(("train", "val", "test"), cuts, strict=True):
        mine = np.flatnonzero(np.isin(pack.labels, chosen))
        mine = mine[:: max(1, len(mine) // (4 * context.limit))] if context.limit else mine
        faces, draw = pack.images[mine].astype(np.float32) / 255, rng(context.seed, "forged", part)
        basis, labels = FaceBasis.of(faces), pack.labels[mine]
        images, methods = list(faces), [0] * len(faces)
        for i, face in enumerate(faces):
            strangers = np.flatnonzero(labels != labels[i])
            for number, kind in enumerate(METHODS, 1):
                donor = faces[draw.choice(strangers)]
                images.append(forge_face(face, kind, donor=donor, basis=basis, seed=int(draw.integers(2**31)))[0])
                methods.append(number)
        owners = np.concatenate([labels, np.repeat(labels, len(METHODS))])
        found[part] = Faces(torch.from_numpy(np.stack(images)), torch.tensor(methods), torch.from_numpy(owners))
    return found


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures mirrored."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


@torch.no_grad()
def log_odds(network: torch.nn.Module, faces: Faces) -> np.ndarray:
    """Outputs N of a network in evaluation mode."""
    return torch.cat([network(part) for part in faces.images.split(128)]).numpy()
