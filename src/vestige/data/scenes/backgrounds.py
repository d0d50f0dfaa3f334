"""Stages: a textured ground in perspective below the horizon, a sky or a wall above it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from vestige.core.runtime import rng
from vestige.data.scenes.model import Scene
from vestige.data.scenes.raster import DROP, Camera

#: Depth of what is never reached (sky, far ground) and of the wall of an indoor stage.
FAR = 10.0
WALL = 2.6
INDOOR = ("wood", "tiles", "studio")

_GROUND = {
    "grass": (0.36, 0.56, 0.24), "sand": (0.88, 0.76, 0.54), "snow": (0.90, 0.93, 0.97), "road": (0.40, 0.40, 0.42),
    "water": (0.24, 0.50, 0.66), "wood": (0.66, 0.45, 0.28), "tiles": (0.82, 0.80, 0.76), "studio": (0.72, 0.71, 0.72),
}  # fmt: skip
_SKIES = (((0.36, 0.60, 0.90), (0.82, 0.91, 0.98)), ((0.42, 0.50, 0.78), (0.98, 0.80, 0.66)),
          ((0.62, 0.70, 0.78), (0.88, 0.90, 0.92)))  # fmt: skip
_WALLS = ((0.90, 0.86, 0.76), (0.72, 0.80, 0.80), (0.85, 0.74, 0.70), (0.78, 0.80, 0.68), (0.70, 0.74, 0.84))


@dataclass
class Stage:
    """The background at working resolution.

    colour: float32 S×S×3 with all textures. plain: the same without texture, for flat styles. light: float32 S×S.
    ground: bool S×S. depth: float32 S×S.
    """

    colour: np.ndarray
    plain: np.ndarray
    light: np.ndarray
    ground: np.ndarray
    depth: np.ndarray


def draw_stage(scene: Scene, camera: Camera, side: int) -> Stage:
    """Draw the background; textures move with the camera as their distance asks for."""
    g = rng(scene.seed, "stage")
    name, indoor = scene.background, scene.background in INDOOR
    wall = WALL - camera.z
    edge = scene.horizon + (DROP / wall if indoor else DROP / FAR)
    first = int(np.clip(round(edge * side), 1, side - 1))
    y = (np.arange(side, dtype=np.float32) + 0.5) / side
    x = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    distance = np.full(side, wall if indoor else FAR, np.float32)
    distance[first:] = np.minimum(DROP / np.maximum(y[first:] - scene.horizon, 1e-3), distance[0])

    tint = 1 + g.uniform(-0.06, 0.06, 3)
    base = np.clip(np.array(_GROUND[name]) * tint, 0, 1).astype(np.float32)
    tile = _tile(name, side)
    z = distance[first:, None]
    along = (x[None, :] * z + camera.x + g.uniform(0, 8)) * side
    away = np.broadcast_to((z + camera.z + g.uniform(0, 8)) * side, along.shape)
    texture = _sample(tile, along, away)
    # the texture fades where a pixel spans more ground than a texel
    texture = 1 + (texture - 1) * np.clip(1.5 / (z[..., None] ** 2 * 0.9 + 0.35), 0, 1)
    colour = np.empty((side, side, 3), np.float32)
    plain = np.empty_like(colour)
    plain[first:] = base
    colour[first:] = base * texture
    if indoor:
        _draw_wall(scene, g, colour[:first], plain[:first], x, y[:first], camera, edge, side)
    else:
        _draw_sky(g, colour[:first], plain[:first], side)
        haze = np.clip((distance[first:] - 1.5) / (FAR - 1.5), 0, 1)[:, None, None] * np.float32(0.55)
        for layer in (colour, plain):
            layer[first:] += haze * (plain[first - 1, side // 2] - layer[first:])
    if indoor:  # a lit stage: brighter in the middle
        colour *= (1.05 - 0.35 * (x[None, :] ** 2 + (y[:, None] - 0.55) ** 2))[..., None]
    light = np.full((side, side), 0.80, np.float32)
    ground = np.zeros((side, side), bool)
    ground[first:] = True
    return Stage(colour.clip(0, 1), plain, light, ground, np.repeat(distance[:, None], side, axis=1))


def _sample(tile: np.ndarray, along: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Look a tile up at positions in texels, repeating it."""
    size = tile.shape[0]
    return cv2.remap(
        tile,
        (along % size).astype(np.float32),
        (away % size).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def _draw_sky(g: np.random.Generator, colour: np.ndarray, plain: np.ndarray, side: int) -> None:
    rows = colour.shape[0]
    top, bottom = (np.array(c, np.float32) for c in _SKIES[int(g.choice(3, p=(0.6, 0.2, 0.2)))])
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
    plain[:] = top + t * (bottom - top)
    clouds = _clouds(side)
    shift = int(g.random() * side)
    cover = np.take(clouds[:rows], np.arange(shift, shift + side), axis=1, mode="wrap")[..., None]
    colour[:] = plain + cover * np.float32(g.uniform(0.25, 0.75)) * (0.97 - plain)
    # a line of hills on the horizon
    line = _ridge(side)
    shift = int(g.random() * side)
    height = np.take(line, np.arange(shift, shift + side), mode="wrap") * np.float32(g.uniform(0.04, 0.12)) * side
    hill = np.clip(height[None, :] - (rows - 0.5 - np.arange(rows, dtype=np.float32))[:, None] + 0.5, 0, 1)[..., None]
    tone = (0.55 * np.array([0.42, 0.54, 0.52], np.float32) + 0.45 * bottom) * np.float32(g.uniform(0.85, 1.05))
    for layer in (colour, plain):
        layer += hill * (tone - layer)


def _draw_wall(
    scene: Scene, g: np.random.Generator, colour: np.ndarray, plain: np.ndarray, x: np.ndarray, y: np.ndarray,
    camera: Camera, edge: float, side: int,
) -> None:  # fmt: skip
    base = np.array(_WALLS[int(g.integers(len(_WALLS)))], np.float32)
    wall = WALL - camera.z
    if scene.background == "studio":
        floor = np.array(_GROUND["studio"], np.float32)
        t = np.clip((edge - y) / 0.35, 0, 1)[:, None, None]
        plain[:] = floor + t * t * (3 - 2 * t) * (base * 0.92 - floor)
        colour[:] = plain
        return
    plain[:] = base
    kind = ("stripes", "plaster", "bricks")[int(g.integers(3))]
    along = np.broadcast_to((x[None, :] * wall + camera.x + 4) * side / 2, (len(y), side))
    up = np.broadcast_to(((edge - y) * wall)[:, None] * side / 2, (len(y), side))
    colour[:] = plain * _sample(_tile(kind, side), along, up)
    board = (edge - y) * wall
    skirting = ((board > 0) & (board < 0.1))[:, None, None]
    for layer in (colour, plain):
        np.copyto(layer, base * 0.45 + 0.5, where=skirting)


# ---------------------------------------------------------------- textures that repeat, one per kind and resolution


def _noise(g: np.random.Generator, side: int, cell: float, stretch: float = 1.0) -> np.ndarray:
    """float32 side×side that repeats, mean 0, s.d. 1, with features of about ``cell`` (fraction of the side)."""
    rows = max(2, min(side, round(1 / cell)))
    columns = max(2, min(side, round(1 / (cell * stretch))))
    coarse = g.standard_normal((rows, columns)).astype(np.float32)
    wrapped = np.pad(coarse, 2, mode="wrap")
    scale_y, scale_x = side / rows, side / columns
    fine = cv2.resize(
        wrapped, (round((columns + 4) * scale_x), round((rows + 4) * scale_y)), interpolation=cv2.INTER_CUBIC
    )
    fine = fine[round(2 * scale_y) :, round(2 * scale_x) :][:side, :side]
    return (fine - fine.mean()) / max(float(fine.std()), 1e-6)


@lru_cache(maxsize=24)
def _tile(kind: str, side: int) -> np.ndarray:
    """float32 side×side×3 factor around 1 that covers one unit of the ground (two of a wall)."""
    g = rng(0, "tile", kind)
    t = (np.arange(side, dtype=np.float32) + 0.5) / side
    grey: np.ndarray = np.zeros((side, side), np.float32)
    warm: np.ndarray = np.zeros_like(grey)
    if kind == "grass":
        grey = 0.10 * _noise(g, side, 1 / 8) + 0.10 * _noise(g, side, 1 / 90, 0.3) + 0.05 * _noise(g, side, 1 / 30)
        warm = 0.06 * _noise(g, side, 1 / 6)
    elif kind == "sand":
        ripples = np.sin(2 * np.pi * (7 * t[:, None] + 0.14 * _noise(g, side, 1 / 4)))
        grey = 0.055 * ripples + 0.03 * _noise(g, side, 1 / 10) + 0.035 * _noise(g, side, 1 / 200)
    elif kind == "snow":
        grey = 0.035 * _noise(g, side, 1 / 5) + 0.012 * _noise(g, side, 1 / 60)
        warm = -0.02 * _noise(g, side, 1 / 5)
    elif kind == "road":
        grey = 0.07 * _noise(g, side, 1 / 160) + 0.04 * _noise(g, side, 1 / 6)
        dash = (np.abs(t[None, :] - 0.5) < 0.035) & (np.abs(t[:, None] - 0.5) < 0.25)
        grey = np.where(dash, 1.1 + 0.3 * grey, grey)
    elif kind == "water":
        waves = np.sin(2 * np.pi * (9 * t[:, None] + 0.35 * _noise(g, side, 1 / 7, 2.5)))
        grey = 0.10 * waves + 0.07 * _noise(g, side, 1 / 24, 4.0)
        warm = -0.03 * waves
    elif kind == "wood":
        plank = np.floor(t * 5).astype(int)
        tone = g.uniform(-0.13, 0.13, 5).astype(np.float32)[plank]
        grain = _noise(g, side, 1 / 6, 0.06)
        gap = np.abs((t * 5) % 1 - 0.5) > 0.465
        grey = tone[None, :] + 0.05 * grain - 0.4 * gap[None, :]
        warm = 0.03 * grain
    elif kind == "tiles":
        cell = np.floor(t * 4).astype(int)
        checker = ((cell[:, None] + cell[None, :]) % 2).astype(np.float32)
        joint = np.abs((t * 4) % 1 - 0.5) > 0.47
        grey = -0.30 * checker - 0.25 * (joint[:, None] | joint[None, :]) + 0.02 * _noise(g, side, 1 / 20)
    elif kind == "bricks":
        row = np.floor(t * 14).astype(int)
        shifted = t[None, :] * 5 + 0.5 * (row % 2)[:, None]
        joint = (np.abs(shifted % 1 - 0.5) > 0.46) | (np.abs((t * 14) % 1 - 0.5) > 0.40)[:, None]
        tone = g.uniform(-0.08, 0.08, (14, 6)).astype(np.float32)[row[:, None], np.floor(shifted).astype(int) % 5]
        grey = np.where(joint, 0.06, tone - 0.10) + 0.02 * _noise(g, side, 1 / 90)
    elif kind == "stripes":
        grey = np.broadcast_to(np.where((t * 10) % 1 < 0.5, -0.05, 0.03), (side, side)).astype(np.float32)
    else:  # plaster, studio paper
        grey = (0.02 if kind == "plaster" else 0.006) * _noise(g, side, 1 / 12)
    factor = 1 + grey[..., None] + warm[..., None] * np.array([1.0, 0.3, -0.8], np.float32)
    # blurred to what this resolution can carry
    return cv2.GaussianBlur(factor.astype(np.float32), (3, 3), 0, borderType=cv2.BORDER_REFLECT)


@lru_cache(maxsize=8)
def _clouds(side: int) -> np.ndarray:
    g = rng(0, "clouds")
    field = _noise(g, side, 1 / 5, 1.6) + 0.6 * _noise(g, side, 1 / 11, 1.6) + 0.35 * _noise(g, side, 1 / 26, 1.4)
    return np.clip((field - 0.25) / 1.2, 0, 1).astype(np.float32)


@lru_cache(maxsize=8)
def _ridge(side: int) -> np.ndarray:
    t = np.arange(side, dtype=np.float32) / side * 2 * np.pi
    g = rng(0, "ridge")
    waves = [np.sin(k * t + g.uniform(0, 6.28)) / k**0.9 for k in (1, 2, 3, 5, 8)]
    line = np.sum(waves, axis=0)
    return ((line - line.min()) / (line.max() - line.min())).astype(np.float32)
