"""Forged faces kept beside the runs: forging ten thousand pictures takes minutes, and dozens of arms share them."""

from __future__ import annotations

from pathlib import Path

import torch

from vestige.data import face_forgeries, forged_faces
from vestige.data.forged_faces import Faces
from vestige.data.packs import has_pack
from vestige.engines.kept import kept_arrays


def faces_of(part: str, size: int, count: int, *, limit: int = 0, root: Path | None = None) -> Faces:
    """`forged_faces` of a part; limit: at most so many faces, for trial runs, of which nothing is kept."""
    if limit:
        return forged_faces.forged_faces(part, size, min(count, limit), root=root)
    made: dict[str, Faces] = {}

    def make() -> dict[str, object]:
        faces = made["faces"] = forged_faces.forged_faces(part, size, count, root=root)
        return {
            "images": faces.images.numpy(), "methods": faces.methods.numpy(), "people": faces.people.numpy(),
            "groups": faces.groups.numpy(), "names": list(faces.names),
        }  # fmt: skip

    settings = {"part": part, "size": size, "count": count, "people": has_pack("people", root)}
    found = kept_arrays("faces", settings, (forged_faces, face_forgeries), make)  # type: ignore[arg-type]
    if "faces" in made:
        return made["faces"]
    images, methods, people, groups = (torch.from_numpy(found[k]) for k in ("images", "methods", "people", "groups"))
    return Faces(images, methods, people, groups, tuple(str(name) for name in found["names"]))
