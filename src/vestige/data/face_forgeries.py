"""Small stand-ins for the ways faces are forged: swapped, reenacted, re-rendered and re-synthesised inner faces.

They leave the kinds of traces that real tools leave (a blended border, a warp, a low-rank rendering, up-sampling) on
aligned crops, so that detectors can be trained on some and tested on others. Images are float32 3×H×W in [0, 1]; the
face is taken to fill the middle of the crop, as in the faces pack. Every result is rounded to eight bits, like the
untouched pictures it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

#: Multipliers of red, green and blue, and a gamma: palettes of skin and light that stand for groups. They name nobody.
PALETTES: dict[str, tuple[float, float, float, float]] = {
    "palette 1": (1.0, 0.92, 0.84, 0.85),
    "palette 2": (1.0, 0.86, 0.70, 1.0),
    "palette 3": (0.95, 0.78, 0.62, 1.25),
    "palette 4": (0.85, 0.68, 0.55, 1.6),
}


@dataclass(frozen=True)
class FaceBasis:
    """Mean and leading principal directions of inner faces: what `rerender` draws with. directions: K×(3·H·W)."""

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, faces: np.ndarray, rank: int = 24) -> FaceBasis:
        """From float faces N×3×H×W, at least two.

        Source: Eigenfaces for Recognition, J. Cognitive Neuroscience 1991.
        """
        if faces.ndim != 4 or len(faces) < 2:
            raise UsageError(f"A basis needs at least two faces N×3×H×W, got shape {faces.shape}.")
        flat = faces.reshape(len(faces), -1).astype(np.float32)
        mean = flat.mean(0)
        directions = np.linalg.svd(flat - mean, full_matrices=False)[2][:rank]
        return cls(mean, directions)

    def render(self, face: np.ndarray) -> np.ndarray:
        """The nearest face the basis can draw."""
        offset = face.ravel() - self.mean
        return (self.mean + (self.directions @ offset) @ self.directions).reshape(face.shape)


def inner_face(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """A feathered ellipse over the inner face, float32 1×H×W in [0, 1], a little different every time."""
    import cv2

    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    centre = np.array([0.53, 0.5]) + generator.uniform(-0.04, 0.04, 2)
    radii = np.array([0.32, 0.3]) * generator.uniform(0.85, 1.15, 2)
    distance = ((rows / height - centre[0]) / radii[0]) ** 2 + ((columns / width - centre[1]) / radii[1]) ** 2
    hard = (distance <= 1).astype(np.float32)
    feather = float(generator.uniform(0.01, 0.05)) * min(height, width)
    return cv2.GaussianBlur(hard, (0, 0), max(feather, 0.5))[None]


def _matched(patch: np.ndarray, face: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The patch with the face's mean and spread of every channel inside the mask."""
    weight = mask / mask.sum()
    moments = []
    for picture in (patch, face):
        mean = (picture * weight).sum((1, 2), keepdims=True)
        moments.append((mean, np.sqrt(((picture - mean) ** 2 * weight).sum((1, 2), keepdims=True))))
    (mean, spread), (wanted, wanted_spread) = moments
    return (patch - mean) * (wanted_spread / np.maximum(spread, 1e-3)) + wanted


def _swap(face: np.ndarray, mask: np.ndarray, draw: np.random.Generator, donor: np.ndarray, basis: Any) -> np.ndarray:
    return _matched(donor, face, mask)


def _warp(face: np.ndarray, mask: np.ndarray, draw: np.random.Generator, donor: Any, basis: Any) -> np.ndarray:
    import cv2

    height, width = face.shape[1:]
    coarse = draw.normal(0, 0.03 * min(height, width), (2, 4, 4)).astype(np.float32)
    flow = [cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in coarse]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(
        np.ascontiguousarray(face.transpose(1, 2, 0)), columns + flow[0], rows + flow[1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    return moved.transpose(2, 0, 1)


def _rerender(
    face: np.ndarray, mask: np.ndarray, draw: np.random.Generator, donor: Any, basis: FaceBasis
) -> np.ndarray:
    return basis.render(face)


def _resynthesise(face: np.ndarray, mask: np.ndarray, draw: np.random.Generator, donor: Any, basis: Any) -> np.ndarray:
    import cv2

    height, width = face.shape[1:]
    planes = np.ascontiguousarray(face.transpose(1, 2, 0))
    small = cv2.resize(planes, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).astype(np.float32)
    large = cv2.filter2D(large, -1, kernel, borderType=cv2.BORDER_REFLECT)
    sharper = large + 0.8 * (large - cv2.GaussianBlur(large, (0, 0), 1.0))
    return sharper.transpose(2, 0, 1)


_Forge = Callable[[np.ndarray, np.ndarray, np.random.Generator, Any, Any], np.ndarray]
FORGERIES: dict[str, _Forge] = {"swap": _swap, "warp": _warp, "rerender": _rerender, "resynthesise": _resynthesise}


def forge_face(
    face: np.ndarray, kind: str, *, donor: np.ndarray | None = None, basis: FaceBasis | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A forged face and the bool mask 1×H×W of what was forged.

    kind: "swap" (the inner face of ``donor``, another person, with this one's colours), "warp" (moved by a smooth
    field, as reenactment does), "rerender" (drawn by ``basis``, as an autoencoder does) or "resynthesise" (reduced
    and up-sampled, as a generator's last layer does). Raises UsageError for other kinds, for a face that is no float
    3×H×W of 16 pixels or more, and where the donor or the basis is missing or has another size.

    >>> face = np.random.default_rng(0).random((3, 32, 32), np.float32)
    >>> forged, mask = forge_face(face, "warp")
    >>> forged.shape, bool((forged[:, ~mask[0]] == np.round(face[:, ~mask[0]] * 255) / np.float32(255)).all())
    ((3, 32, 32), True)
    """
    if kind not in FORGERIES:
        raise UsageError(f"There is no forgery {kind!r}; choose one of {', '.join(FORGERIES)}.")
    if face.ndim != 3 or len(face) != 3 or min(face.shape[1:]) < 16 or not np.issubdtype(face.dtype, np.floating):
        raise UsageError(f"A face is a float 3×H×W array of 16 pixels or more a side, got {face.dtype} {face.shape}.")
    if kind == "swap" and (donor is None or donor.shape != face.shape):
        raise UsageError("A swap needs the face of a donor in the same size.")
    if kind == "rerender" and (basis is None or basis.mean.size != face.size):
        raise UsageError("Re-rendering needs a basis made from faces of the same size.")
    draw = rng(seed, "face forgery", kind)
    soft = inner_face(face.shape[1], face.shape[2], draw)
    soft[soft < 1 / 64] = 0  # outside, nothing changes
    patch = FORGERIES[kind](face.astype(np.float32), soft, draw, donor, basis)
    forged = soft * patch + (1 - soft) * face
    return np.round(np.clip(forged, 0, 1) * 255).astype(np.float32) / np.float32(255), soft > 0


def in_palette(face: np.ndarray, name: str) -> np.ndarray:
    """The face in the colours of one of the `PALETTES`, float32 in [0, 1], before rounding.

    >>> in_palette(np.full((3, 4, 4), 0.5, np.float32), "palette 1").shape
    (3, 4, 4)
    """
    if name not in PALETTES:
        raise UsageError(f"There is no palette {name!r}; choose one of {', '.join(PALETTES)}.")
    *colour, gamma = PALETTES[name]
    return np.clip(face, 0, 1).astype(np.float32) ** np.float32(gamma) * np.array(colour, np.float32)[:, None, None]
