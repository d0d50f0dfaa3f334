"""Faces before a camera with depth and infrared, live or presented: prints, bent prints, screens and masks.

Small stand-ins for the recordings of face anti-spoofing: a photograph of a face gives the colours, a dome the depth,
and another reflectance under frontal light the infrared picture. What an attack gets wrong differs by kind: a print
and a screen are flat, a screen is dark in infrared, a mask has the depth of a face and the wrong reflectance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng

MODALITIES = ("rgb", "depth", "ir")
ATTACKS = ("print", "bent print", "screen", "mask")


@dataclass(frozen=True)
class Camera:
    """A domain: what its camera and light do. noise: of colours, depth and infrared; gain: of depth and infrared."""

    tint: tuple[float, float, float]
    gamma: float
    noise: tuple[float, float, float]
    blur: float
    gain: tuple[float, float]


CAMERAS = (
    Camera((1.0, 0.95, 0.9), 1.0, (0.01, 0.02, 0.02), 0.3, (1.0, 1.0)),
    Camera((0.85, 0.95, 1.0), 1.4, (0.03, 0.04, 0.03), 0.6, (0.8, 0.7)),
    Camera((1.0, 0.85, 0.7), 0.75, (0.02, 0.08, 0.05), 0.9, (0.9, 1.2)),
    Camera((0.9, 1.0, 0.85), 1.1, (0.05, 0.03, 0.08), 0.4, (1.2, 0.85)),
)


def _varied(
    attack: str, ir: np.ndarray, skin: np.ndarray, depth: np.ndarray, flat: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Infrared and depth of another material and of a sensor that fails in one of four presentations."""
    alike = draw.uniform(0, 0.7) if attack else 0.0  # how far what is shown reflects like skin
    ir = ((1 - alike) * ir + alike * skin) * draw.uniform(0.7, 1.3)
    if draw.random() < 0.25:
        depth = draw.uniform(0.3, 0.9) * flat + draw.normal(0, 0.1, depth.shape)
    return ir, depth


def present(
    face: np.ndarray, attack: str = "", *, camera: int = 0, seed: int = 0, varied: bool = False
) -> dict[str, np.ndarray]:
    """{"rgb", "depth", "ir"}: float32 3×H×W in [0, 1] each; depth and infrared repeat one plane.

    face: float H×W or 3×H×W in [0, 1], the face in its middle. attack: "" for a live face, or one of `ATTACKS`. camera:
    of `CAMERAS`. varied: materials differ from one presentation to the next, some masks reflect infrared nearly like
    skin, and the depth sensor fails now and then, so that no modality tells by itself. Raises UsageError for
    other values.

    >>> {name: x.shape for name, x in present(np.full((32, 32), 0.5), "print").items()}["depth"]
    (3, 32, 32)
    """
    if attack not in ("", *ATTACKS) or not 0 <= camera < len(CAMERAS) or face.ndim not in (2, 3):
        raise UsageError(f"A presentation is live or {', '.join(ATTACKS)}, before camera 0 to {len(CAMERAS) - 1}.")
    draw, taken = rng(seed, "presentation", attack, camera), CAMERAS[camera]
    grey = (face if face.ndim == 2 else face.mean(0)).astype(np.float32)
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    x, y = x - draw.uniform(-0.1, 0.1), y - draw.uniform(-0.1, 0.1)
    dome = np.sqrt(np.clip(1 - (x / 0.75) ** 2 - (y / 0.95) ** 2, 0, None))
    nose = 0.25 * np.exp(-((x / 0.12) ** 2 + ((y - 0.1) / 0.2) ** 2))
    body = np.clip(dome + nose * (dome > 0), 0, 1.2)
    # Skin evens out in infrared, and frontal light falls off with the slope of the surface.
    skin = (0.35 + 0.5 * cv2.GaussianBlur(grey, (0, 0), 1.5)) * (0.3 + 0.7 * np.clip(dome, 0, 1))
    planes: list[np.ndarray] = [grey * np.ones((3, 1, 1)), body, skin]
    colours, depth, ir = planes
    slope = draw.uniform(-0.3, 0.3, 2)
    flat = 0.5 + slope[0] * x + slope[1] * y
    if attack in ("print", "bent print"):
        colours = 0.15 + 0.75 * colours * np.array([1.0, 0.97, 0.9])[:, None, None]
        depth = flat if attack == "print" else flat + draw.uniform(0.2, 0.5) * (1 - x**2)
        ir = 0.6 + 0.15 * grey
    elif attack == "screen":
        waves = np.sin(
            2
            * np.pi
            * (draw.uniform(0.2, 0.45) * np.arange(width)[None] + draw.uniform(-0.2, 0.2) * np.arange(height)[:, None])
        )
        colours = colours * (1 + 0.06 * waves) * np.array([0.92, 0.97, 1.05])[:, None, None]
        depth, ir = flat, 0.08 + 0.03 * draw.random((height, width))
    elif attack == "mask":
        colours = np.stack([cv2.GaussianBlur(c, (0, 0), 1.2) for c in colours])
        ir = (0.25 + 0.2 * grey) * (0.5 + 0.5 * np.clip(dome, 0, 1)) ** 0.5
    if varied:
        ir, depth = _varied(attack, ir, skin, depth, flat, rng(seed, "materials", attack, camera))
    planes = [colours * np.array(taken.tint)[:, None, None], depth * taken.gain[0] * 0.7, ir * taken.gain[1]]
    found = {}
    for name, plane, noise in zip(MODALITIES, planes, taken.noise, strict=True):
        three = np.clip(np.broadcast_to(plane, (3, height, width)), 0, 1) ** (taken.gamma if name == "rgb" else 1.0)
        blurred = np.stack([cv2.GaussianBlur(np.ascontiguousarray(c), (0, 0), taken.blur) for c in three])
        grain = draw.normal(0, noise, (3 if name == "rgb" else 1, height, width))
        found[name] = np.round(np.clip(blurred + grain, 0, 1) * 255).astype(np.float32) / np.float32(255)
    return found
