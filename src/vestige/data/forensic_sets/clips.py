"""Frames of clips, evenly spaced."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np

from vestige.core.errors import InputError
from vestige.core.video import SUFFIXES as CLIPS
from vestige.core.video import VideoSubject

__all__ = ["CLIPS", "clip_frame"]


def clip_frame(path: Path, number: int, count: int) -> np.ndarray:
    """uint8 H×W×3: the ``number``-th (from 0) of ``count`` frames that are evenly spread over a clip.

    Raises InputError for clips that are missing, damaged or too short, LimitError for clips beyond the limits.
    """
    frames = _frames(path, count)
    if number >= len(frames):
        raise InputError(f"{path} has only {len(frames)} of the {count} frames that are to be taken from it.")
    return frames[number]


@lru_cache(2)  # a clip and its mask, while frame after frame of them is asked for
def _frames(path: Path, count: int) -> tuple[np.ndarray, ...]:
    clip = VideoSubject.open(path)
    every = clip.seconds / count if clip.seconds else None
    return tuple(pixels for _, pixels in itertools.islice(clip.frames(every), count))
