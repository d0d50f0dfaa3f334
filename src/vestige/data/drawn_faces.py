"""Drawn faces of people who do not exist: head, hair, eyes, brows, nose and mouth, seen in several poses and lights.

They stand in for photographs of faces where there are none: in the starter kit, in tests, in trial runs of recipes.
"""

from __future__ import annotations

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

_SKIN = ((245, 214, 190), (224, 172, 130), (178, 125, 88), (120, 78, 54), (88, 58, 42))
_HAIR = ((40, 28, 22), (92, 60, 34), (168, 120, 62), (210, 190, 150), (120, 40, 24), (130, 130, 134))
_EYES = ((70, 45, 25), (50, 90, 130), (70, 110, 70), (60, 60, 60))
_SCALE = 4  # drawn larger and reduced, so that edges are smooth


def drawn_faces(persons: int, views: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(uint8 N×3×S×S, int64 N the person, int64 N the tone of skin from 0 light to 4 dark), N = persons·views.

    Raises UsageError for counts below one or a size below 16.

    >>> drawn_faces(2, 3, 32)[0].shape
    (6, 3, 32, 32)
    """
    if persons < 1 or views < 1 or size < 16:
        raise UsageError(f"Faces need a person, a view and 16 pixels at least; got {persons}, {views} and {size}.")
    images, tones = [], []
    for person in range(persons):
        who = rng(seed, "drawn face", person)
        tone = int(who.integers(len(_SKIN)))
        look = {
            "skin": np.array(_SKIN[tone], float) + who.normal(0, 6, 3),
            "hair": np.array(_HAIR[int(who.integers(len(_HAIR)))], float) + who.normal(0, 8, 3),
            "eyes": np.array(_EYES[int(who.integers(len(_EYES)))], float),
            "shape": who.uniform((0.27, 0.35, 0.10, 0.35, 0.05), (0.33, 0.42, 0.15, 0.55, 0.12)),
            "style": who.integers(3),
        }
        for view in range(views):
            images.append(_draw(look, size, rng(seed, "drawn face", person, view)))
            tones.append(tone)
    at = np.arange(persons * views)
    return np.stack(images).transpose(0, 3, 1, 2), at // views, np.array(tones)


def _draw(look: dict, size: int, g: np.random.Generator) -> np.ndarray:
    """uint8 S×S×3: one view of a face."""
    side = size * _SCALE
    backdrop = np.array(g.uniform(70, 200, 3))
    slope = np.linspace(-25, 25, side)[:, None, None] * g.uniform(-1, 1)
    canvas = np.clip(backdrop + slope + np.zeros((side, side, 3)), 0, 255).astype(np.uint8)
    wide, high, apart, mouth, nose = look["shape"]
    turn, tilt = g.uniform(-0.05, 0.05), g.uniform(-8, 8)
    cx, cy = 0.5 + g.uniform(-0.03, 0.03), 0.53 + g.uniform(-0.03, 0.03)

    def at(x: float, y: float) -> tuple[int, int]:
        return int((cx + x) * side), int((cy + y) * side)

    def oval(x: float, y: float, rx: float, ry: float, colour: np.ndarray, start: int = 0, end: int = 360) -> None:
        axes = (max(1, int(rx * side)), max(1, int(ry * side)))
        cv2.ellipse(canvas, at(x, y), axes, tilt, start, end, [float(c) for c in np.clip(colour, 0, 255)], -1)

    skin, hair = look["skin"], look["hair"]
    if look["style"] == 2:  # long hair falls behind the head
        oval(0, 0.08, wide * 1.25, high * 1.15, hair * 0.85)
    oval(0, -0.06, wide * 1.12, high * 1.02, hair)
    cv2.rectangle(canvas, at(-0.12, 0.3), at(0.12, 0.6), [float(c) for c in skin * 0.85], -1)
    oval(0, 0, wide, high, skin)
    oval(0, -high * (0.86 if look["style"] else 1.0), wide * 0.95, high * 0.32, hair)
    smile = g.uniform(-0.02, 0.05)
    for way in (-1, 1):
        x = way * apart + turn
        oval(x, -0.05, 0.06, 0.032, np.array([250, 250, 248]))
        oval(x + turn * 0.2, -0.05, 0.026, 0.03, look["eyes"])
        oval(x + turn * 0.2, -0.05, 0.012, 0.014, np.zeros(3))
        oval(x, -0.125, 0.07, 0.016, hair * 0.8)
    oval(turn * 1.4, 0.06, nose * 0.45, nose * 0.8, skin * 0.88)
    oval(turn, 0.2, 0.2 * mouth, 0.03 + max(smile, 0), np.array([170, 70, 75]))
    light = 1 + 0.25 * g.uniform(-1, 1) * np.linspace(-1, 1, side)[None, :, None]
    noisy = canvas * light + g.normal(0, 3, (side, side, 1))
    small = cv2.resize(noisy.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(small * g.uniform(0.85, 1.1) + 0.5, 0, 255).astype(np.uint8)
