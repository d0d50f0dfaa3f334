"""WOUAF on files: a user's own copy of a generator, and the user whose copy made a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.errors import NOT_MARKED, OK, InputError, UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.marking.residual import to_native
from vestige.nn.vae import decode, encode
from vestige.watermark.users import UserRegistry
from vestige.watermark.wouaf import Wouaf


def mark(work: Work) -> Result:
    """Copy a diffusers folder (a pipeline or its autoencoder) with a user's fingerprint in its image decoder.

    ``--user`` names the user, who enters the ``--registry``; ``--key`` decides the fingerprints; ``--model``: weights
    of `vestige learn wouaf` for another autoencoder than the shipped one. A scene drawn through the copy is written
    beside it, to try ``read`` on.
    """
    folder = work.only(1).path(0, "a diffusers folder")
    out = work.out_folder()
    if not work.message or work.reference is None:
        raise UsageError("wouaf needs the user's name with --user and the file of all users with --registry.")
    work.settled()
    vae = load_autoencoder(folder)
    system = Wouaf(work.model, device=work.device)
    registry = work.reference
    users = UserRegistry.load(registry, work.key) if registry.exists() else UserRegistry(system.bits, work.key)
    if users.bits != system.bits:
        raise InputError(f"{registry} has fingerprints of {users.bits} bits; this network reads {system.bits}.")
    known = work.message in users
    bits = users[work.message] if known else users.register(work.message)
    sample = through(system.stamp(bits, vae), scene(system.network.size))
    system.stamp_folder(folder, out, bits)
    if not known:
        users.save(registry)  # after the folder, so that no user is listed whose model does not exist
    picture = out.parent / f"{out.name}-picture.png"
    save_image(picture, to_uint8(sample))
    said = (
        f"Pictures that {out} makes are {work.message}'s; {registry} lists {len(users)} user{'s' * (len(users) > 1)}."
    )
    return Result({"users": len(users), "bits": users.bits}, [out, registry, picture], [said])


def read(work: Work) -> Result:
    """The bits that the reader sees in a picture; with ``--reference`` (the registry) the user they belong to."""
    return _named(work, NOT_MARKED)


def find(work: Work) -> Result:
    """Which user of the registry (``--reference``) made each picture."""
    work.needed("reference", "the file of users that 'vestige mark --method wouaf' writes")
    return _named(work, OK)


def _named(work: Work, nobody: int) -> Result:
    rate = work.option("rate", 1e-3)
    work.settled()
    if not 0 < rate < 1:
        raise UsageError(f"The rate of false names lies between 0 and 1, got {rate:g}.")
    subjects = work.pictures()
    system = Wouaf(work.model, device=work.device)
    users = None
    if work.reference is not None:
        registry = work.needed("reference", "the registry of users")
        users = UserRegistry.load(registry, b"reading needs no key")
        system = Wouaf(network=system.network, users=users, device=work.device)
    rows: list[dict[str, Any]] = []
    for subject in work.track(subjects, "reading"):
        row: dict[str, Any] = {"picture": subject.source}
        if users is None:
            soft = system.read(subject.image)[0]
            row["bits"] = "".join("01"[int(v > 0)] for v in soft)
        else:
            (seen,) = system.attribute(subject.image)
            row |= {
                "user": seen.user if seen.p_value <= rate else "", "nearest": seen.user or "", "matches": seen.matches,
                "bits": users.bits, "p_value": seen.p_value,
            }  # fmt: skip
        rows.append(row)
    unnamed = users is not None and not all(row["user"] for row in rows)
    return Result(rows=rows, exit_code=nobody if unnamed else OK)


def scene(size: int) -> np.ndarray:
    """A rendered scene float32 1×3×size×size that no training drew."""
    return render_pack(1, size, 77, first=31_000).images.astype(np.float32) / np.float32(255)


@torch.no_grad()
def through(vae: Any, images: np.ndarray) -> np.ndarray:
    """Pictures float32 N×3×S×S encoded and decoded again."""
    return np.asarray((decode(vae, encode(vae, torch.from_numpy(images) * 2 - 1)) / 2 + 0.5).clamp(0, 1).numpy())


def picture_for(vae: Any, image: np.ndarray) -> np.ndarray:
    """A picture 1×3×H×W at the size an autoencoder makes."""
    size = vae.config.sample_size
    side = int(size[0] if isinstance(size, list | tuple) else size)
    return np.asarray(to_native(torch.from_numpy(np.ascontiguousarray(image)), side).numpy())


def folder_of(path: Path) -> Any:
    """The autoencoder of a diffusers folder; raises InputError, naming what is wanted, when it is none."""
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give a diffusers folder of a pipeline or an autoencoder.")
    return load_autoencoder(path)
