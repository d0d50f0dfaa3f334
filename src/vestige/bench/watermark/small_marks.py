"""Marks for rendered scenes of the size of the diffusion model that comes with vestige.

No photographic mark fits into so few pixels, so claims about redrawing use these: L keyed carriers added at a chosen
root mean square, read by the linear detector that is best for the pictures at hand, W = (Σ + r·tr(Σ)/d)⁻¹ C with Σ the
covariance of renders. "faint" carriers are white and small, as pixel marks are; "strong" ones are broad and larger, as
StegaStamp's are. They stand for the two classes of marks the papers tell apart, not for any mark of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.scenes import render_pack
from vestige.watermark.attacks.registry import eight_bit

BITS = 16
#: Root mean square in grey levels, and blur of the carriers in pixels of a picture of 32.
KINDS = {"faint": (2.0, 0.0), "strong": (12.0, 2.0)}


def pipeline() -> Any:
    """The text-to-image model of scenes that comes with vestige; raises InputError where it is not there."""
    import vestige
    from vestige.engines.diffusion.pipeline import load_pipeline

    folder = Path(vestige.__file__).parent / "weights" / "scenes_text2image"
    if not folder.is_dir():
        raise InputError(
            "This redraws scenes with weights/scenes_text2image, which is not there; 'vestige learn scenes_text2image'."
        )
    return load_pipeline(folder)


@cache
def side() -> int:
    """Side in pixels of the pictures that the model draws; 32 where there is no model."""
    from vestige.watermark.attacks.regeneration import native

    try:
        return int(native(pipeline()).size)
    except InputError:
        return 32


@cache
def renders(count: int, seed: int) -> tuple[np.ndarray, tuple[str, ...], tuple[Any, ...]]:
    """Pictures float32 N×3×S×S of `side` S, captions and scenes with one object, as the model was trained on."""
    halves = [
        render_pack(count // 2, side(), seed, first=500_000 + i * count, n_objects=1, object_size=size)
        for i, size in enumerate(("medium", "large"))
    ]
    images = np.concatenate([h.images for h in halves]).astype(np.float32) / np.float32(255)
    captions = tuple(c for h in halves for c in h.fields["caption"])
    return images, captions, tuple(s for h in halves for s in h.fields["scene"])


@dataclass
class SmallMark:
    """kind: "faint" or "strong". See the module."""

    kind: str
    seed: int = 0
    carriers: np.ndarray = field(init=False, repr=False)
    weights: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        level, blur = KINDS[self.kind]
        size = side()
        made = rng(self.seed, "carriers", self.kind).standard_normal((BITS, 3, size, size))
        if blur:
            made = np.stack([[cv2.GaussianBlur(c, (0, 0), blur * size / 32) for c in carrier] for carrier in made])
        flat = np.linalg.qr(made.reshape(BITS, -1).T)[0].T  # orthonormal, so that every bit has the same energy
        self.carriers = (flat * (level / 255) * np.sqrt(flat.shape[1] / BITS)).astype(np.float32)
        self._mean, self.weights = linear_detector(renders(2000, self.seed + 77)[0], self.carriers)

    def mark(self, images: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Marked pictures with eight-bit values; bits: bool N×16."""
        signs = np.where(bits, 1, -1).astype(np.float32)
        return eight_bit(images + (signs @ self.carriers).reshape(-1, *images.shape[1:]))

    def votes(self, images: np.ndarray) -> np.ndarray:
        """N×16, positive for a one."""
        return (images.reshape(len(images), -1) - self._mean) @ self.weights

    def score(self, images: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """(N,): how much the pictures speak for these bits."""
        return (self.votes(images) * np.where(bits, 1, -1)).sum(1)

    def accuracy(self, images: np.ndarray, bits: np.ndarray) -> float:
        """Share of bits that come back."""
        return float(((self.votes(images) > 0) == bits).mean())


def linear_detector(images: np.ndarray, carriers: np.ndarray, ridge: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) of pictures and W = (Σ + r·tr(Σ)/D · I)⁻¹ C, D×L, Σ their covariance and C the carriers L×D.

    By the dual where there are fewer pictures N than numbers D: with X the centred pictures, λ = r·tr(Σ)/D and
    Σ = XᵀX/(N - 1):  W = (C - Xᵀ (X Xᵀ + λ (N - 1) I)⁻¹ X C) / λ.
    """
    x = images.reshape(len(images), -1).astype(np.float64)
    mean = x.mean(0)
    x = x - mean
    wanted = carriers.T.astype(np.float64)
    count, size = len(x) - 1, x.shape[1]
    penalty = ridge * float(np.square(x).sum()) / count / size
    if len(x) >= size:
        return mean, np.linalg.solve(x.T @ x / count + penalty * np.eye(size), wanted)
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += penalty * count
    return mean, (wanted - x.T @ np.linalg.solve(gram, x @ wanted)) / penalty
