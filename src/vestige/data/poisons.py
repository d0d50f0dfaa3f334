"""Manipulated training data with known ground truth: a trigger patch with a target label, two classes confused."""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng


def stamp(images: np.ndarray, side: int = 3, value: int = 255) -> np.ndarray:
    """uint8 pictures N×C×H×W with a square patch in the bottom right corner; a copy.

    Raises UsageError for a patch that is empty or does not fit.

    >>> int(stamp(np.zeros((1, 3, 8, 8), np.uint8)).sum()) == 3 * 9 * 255
    True
    """
    if not 1 <= side <= min(images.shape[2:]):
        raise UsageError(f"A patch of {side} pixels does not fit pictures of {images.shape[2]}×{images.shape[3]}.")
    made = images.copy()
    made[:, :, -side:, -side:] = value
    return made


def visible(images: np.ndarray, least: float = 64, side: int = 3, value: int = 255) -> np.ndarray:
    """Whether `stamp` changes the patch's place by at least ``least`` grey levels on average, bool N.

    On a corner that is as bright as the patch nothing is stamped that a network could see.

    >>> visible(np.stack([np.zeros((3, 8, 8), np.uint8), np.full((3, 8, 8), 250, np.uint8)])).tolist()
    [True, False]
    """
    corner = images[:, :, -side:, -side:].astype(np.float64)
    return np.asarray(np.abs(value - corner).mean((1, 2, 3)) >= least)


def backdoored(
    images: np.ndarray, labels: np.ndarray, count: int, *, target: int = 0, side: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamp ``count`` pictures of other classes at random and call them ``target``: (images, labels, their positions).

    Source: BadNets, IEEE Access 2019, as used by Corrective Machine Unlearning, TMLR 2024.
    """
    chosen = _drawn(np.flatnonzero(labels != target), count, seed, "backdoor")
    images, labels = images.copy(), labels.copy()
    images[chosen] = stamp(images[chosen], side)
    labels[chosen] = target
    return images, labels, chosen


def confused(
    labels: np.ndarray, first: int, second: int, count: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Swap the labels of count/2 samples of each of two classes: (labels, positions). Source: as `backdoored`.

    >>> confused(np.array([0, 0, 1, 1, 2]), 0, 1, 4)[0].tolist()
    [1, 1, 0, 0, 2]
    """
    made = labels.copy()
    parts = []
    for own, other in ((first, second), (second, first)):
        chosen = _drawn(np.flatnonzero(labels == own), count // 2, seed, f"confusion {own}")
        made[chosen] = other
        parts.append(chosen)
    return made, np.sort(np.concatenate(parts))


def _drawn(candidates: np.ndarray, count: int, seed: int, what: str) -> np.ndarray:
    if not 1 <= count <= len(candidates):
        raise UsageError(f"{count} samples are to be manipulated; {len(candidates)} qualify.")
    return np.sort(rng(seed, what).permutation(candidates)[:count])
