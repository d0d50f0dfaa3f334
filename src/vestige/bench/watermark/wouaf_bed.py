"""What WOUAF and Stable Signature are tested on: pictures, users, latents that no encoder gave, post-processing.

Pictures are rendered scenes and photographs of a collection that no training used, at the decoder's own size. Users of
the tests have fingerprints of odd weight; the training uses even weight only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.packs import load_pack
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.metrics.bits import bit_accuracy
from vestige.nn.vae import decode
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.wouaf import WouafNet

#: The card's post-processing, each at its strongest.
AFTER = (
    ("identity", 0), ("crop_resize", 0.8), ("rotate", 30), ("rotate", -30), ("blur", 1), ("blur", 2),
    ("brightness", 0.7), ("brightness", 1.3), ("noise", 0.2), ("overlay", 0.2), ("jpeg", 90), ("jpeg", 50),
)  # fmt: skip


def original() -> Any:
    """The autoencoder before any fingerprint; raises InputError where it is not installed."""
    folder = WEIGHTS / "scenes_vae"
    if not folder.is_dir():
        raise InputError("The autoencoder scenes_vae is not installed; train it with: vestige learn scenes_vae.")
    return load_autoencoder(folder)


def pictures(data: Path | None, size: int, count: int, first: int = 0, seed: int = 0) -> Tensor:
    """float count×3×S×S in [0, 1]: renders of a series of their own, and every third one a photograph of "scenery"."""
    drawn = render_pack(count, size, 77 + seed, first=first).images
    if data is not None and (data / "scenery").is_dir():
        photos = load_pack(data / "scenery", size).images
        places = range(0, count, 3)
        drawn = drawn.copy()
        for n, place in enumerate(places):
            drawn[place] = photos[(first + n) % len(photos)]
    return torch.from_numpy(drawn).float() / 255


def fingerprints(bits: int, count: int, seed: int, *path: object, odd: bool = True) -> np.ndarray:
    """bool count×L; of odd weight, which no training used, or of even weight."""
    drawn = rng(seed, "fingerprints", *path).integers(0, 2, (count, bits)).astype(bool)
    drawn[:, -1] = (drawn[:, :-1].sum(1) % 2 == 0) == odd
    return drawn


@torch.no_grad()
def drawn_latents(encode: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Tensor:
    """Latents no encoder gave, in place of diffusion samples: between two pictures' latents, with noise.

    encode: pictures in [0, 1] -> scaled latents.

    z = (1 − t) z_a + t z_b + 0.3 ε over √((1 − t)² + t² + 0.09), t uniform in [0.2, 0.8]; of unit variance.
    """
    z = torch.cat([encode(part) for part in images.split(32)])
    draws = rng(seed, "latents")
    t = torch.from_numpy(draws.uniform(0.2, 0.8, (len(z), 1, 1, 1))).float()
    noise = torch.from_numpy(draws.standard_normal(z.shape).astype(np.float32))
    mixed = (1 - t) * z + t * z[torch.from_numpy(draws.permutation(len(z)))] + 0.3 * noise
    return mixed / ((1 - t) ** 2 + t**2 + 0.09).sqrt()


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> np.ndarray:
    """float32 pictures with eight-bit values."""
    return np.concatenate([eight(decode(vae, part) / 2 + 0.5) for part in latents.split(32)])


@torch.no_grad()
def decoded_for(net: WouafNet, latents: Tensor, bits: np.ndarray) -> np.ndarray:
    """As `decoded`, every picture by the decoder of its own user."""
    rows = torch.from_numpy(bits.astype(np.float32))
    parts = zip(latents.split(32), rows.split(32), strict=True)
    return np.concatenate([eight(net.decode(z, b)) for z, b in parts])


def eight(images: Tensor) -> np.ndarray:
    """Rounded as a file would be."""
    return np.asarray((torch.floor(images.clamp(0, 1) * 255 + 0.5) / 255).float().numpy())


def survival(
    name: str, made: np.ndarray, bits: np.ndarray, read: Callable[[np.ndarray], np.ndarray], seed: int
) -> dict[str, Any]:
    """Bit accuracy of pictures after each of `AFTER`, its mean and least; read: pictures -> logits N×L."""
    row: dict[str, Any] = {"method": name, "pictures": len(made), "bits": bits.shape[1]}
    right = {}
    for kind, strength in AFTER:
        soft = read(np.asarray(distort(made, kind, strength, seed=seed), np.float32))
        right[f"{kind} {strength:g}"] = round(float(bit_accuracy(bits, soft > 0).mean()), 4)
    return row | right | {"mean": float(np.mean(list(right.values()))), "weakest": min(right.values())}
