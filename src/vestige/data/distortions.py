"""What happens to pictures on their way: recompression, rescaling, cropping, filtering, recapture.

Every distortion has one name and one strength scale for two twins. The real twin takes numpy arrays and uses the
codecs and filters that ordinary programs use; the differentiable twin takes torch tensors and lets gradients reach
the input. A distortion is planned once (sizes, positions, kernels, seeds) as a few primitive steps, and both twins
carry out the same plan, so they agree by construction. Geometric distortions carry masks along.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.distortion_plans import DISTORTIONS, Distortion, Scene

__all__ = ["DISTORTIONS", "Chain", "Distortion", "compose", "distort", "distort_with_mask"]

T = TypeVar("T")


def distort(images: T, name: str, strength: float, *, seed: int | None = 0, cover: T | None = None) -> T:
    """Apply one distortion: numpy arrays go through the real twin, torch tensors through the differentiable one.

    images: float N×3×H×W sRGB in [0, 1]; the result has the same type and eight-bit values, as a saved file has (the
    differentiable twin rounds straight through, so gradients pass). Real results are float32. Positions, directions
    and noise differ between the pictures of a batch and follow from ``seed``; ``seed=None`` is the canonical form
    (centred windows, level paths; noise as with seed 0). cover: what `dropout` and `cropout` fall back to.
    Gradients: JPEG through kornia's soft rounding, WebP and AVIF straight through the real codec.
    Raises UsageError for an unknown name, a strength out of range or a wrong shape; InputError for samples that are
    not finite; LimitError when the result would be too large.

    >>> distort(np.zeros((1, 3, 32, 48), np.float32), "resize", 0.5).shape
    (1, 3, 16, 24)
    """
    return _apply(images, None, name, strength, seed, cover, ())[0]


def distort_with_mask(
    images: T, masks: T, name: str, strength: float, *, seed: int | None = 0, cover: T | None = None
) -> tuple[T, T]:
    """As `distort`, moving bool masks N×1×H×W with the pixels.

    Moved masks are re-binarised at one half. Pixels that come from outside the picture, and pixels that an overlay,
    a dropout or a cropout replaced, are False. Masks of other distortions come back unchanged.

    >>> picture, mask = np.zeros((1, 3, 8, 8), np.float32), np.ones((1, 1, 8, 8), bool)
    >>> distort_with_mask(picture, mask, "crop", 0.25)[1].shape
    (1, 1, 4, 4)
    """
    distorted, moved = _apply(images, masks, name, strength, seed, cover, ())
    assert moved is not None
    return distorted, moved


@dataclass(frozen=True)
class Chain:
    """Distortions one after the other; each result is rounded to eight bits, as if saved in between."""

    steps: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """Names and strengths, for tables: ``jpeg:70+resize:0.5``."""
        return "+".join(f"{name}:{strength:g}" for name, strength in self.steps)

    def __call__(self, images: T, *, seed: int | None = 0, cover: T | None = None) -> T:
        """Apply the chain as `distort` does; a cover has to have the size the pictures have at its step."""
        for index, (name, strength) in enumerate(self.steps):
            images, _ = _apply(images, None, name, strength, seed, cover, (index,))
        return images

    def with_mask(self, images: T, masks: T, *, seed: int | None = 0, cover: T | None = None) -> tuple[T, T]:
        """Apply the chain as `distort_with_mask` does."""
        moved: T | None = masks
        for index, (name, strength) in enumerate(self.steps):
            images, moved = _apply(images, moved, name, strength, seed, cover, (index,))
        assert moved is not None
        return images, moved


def compose(steps: Sequence[tuple[str, float]]) -> Chain:
    """Chain distortions; raises UsageError for an unknown name or a strength out of range.

    >>> compose([("jpeg", 70), ("resize", 0.5)])(np.zeros((1, 3, 32, 48), np.float32)).shape
    (1, 3, 16, 24)
    """
    for name, strength in steps:
        _lookup(name, strength)
    return Chain(tuple((name, float(strength)) for name, strength in steps))


def _lookup(name: str, strength: float) -> Distortion:
    if name not in DISTORTIONS:
        raise UsageError(f"There is no distortion {name!r}; choose one of {', '.join(DISTORTIONS)}.")
    found = DISTORTIONS[name]
    if not found.low <= strength <= found.high:
        raise UsageError(
            f"The strength of {name} is the {found.meaning}, from {found.low:g} to {found.high:g}; got {strength:g}."
        )
    return found


def _apply(
    images: Any, masks: Any, name: str, strength: float, seed: int | None, cover: Any, path: tuple[object, ...]
) -> tuple[Any, Any]:
    found = _lookup(name, strength)
    torch = sys.modules.get("torch")
    on_torch = torch is not None and isinstance(images, torch.Tensor)
    _check(images, masks, cover, on_torch)
    if on_torch:
        from vestige.data import distortions_torch as twin
    else:
        from vestige.data import distortions_real as twin  # type: ignore[no-redef]
    count, _, height, width = images.shape
    path = (seed or 0, *path, name)
    generator = None if seed is None else rng(*path)  # type: ignore[arg-type]
    steps = found.plan(float(strength), Scene(count, height, width, generator, path))
    return twin.run(steps, images, cover), None if masks is None else twin.run_mask(steps, masks)


def _check(images: Any, masks: Any, cover: Any, on_torch: bool) -> None:
    if not on_torch and not isinstance(images, np.ndarray):
        raise UsageError(f"Pictures must be a numpy array or a torch tensor; got {type(images).__name__}.")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise UsageError(f"Pictures must have shape N×3×H×W with at least one pixel; got {shape}.")
    if not (images.dtype.is_floating_point if on_torch else images.dtype.kind == "f"):
        raise UsageError(f"Pictures must be floating point in [0, 1]; got {images.dtype}, so divide by 255 first.")
    if not on_torch and not np.isfinite(images).all():
        raise InputError("The picture holds samples that are not finite (NaN or infinity); repair it first.")
    if masks is not None and (type(masks) is not type(images) or tuple(masks.shape) != (shape[0], 1, *shape[2:])):
        raise UsageError(f"Masks must be of the pictures' type with shape {(shape[0], 1, *shape[2:])}.")
    if cover is not None and (type(cover) is not type(images) or tuple(cover.shape) != shape):
        raise UsageError(f"The cover must have the pictures' type and shape {shape}.")
