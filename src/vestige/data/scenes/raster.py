"""Objects drawn into layers: colour, light, highlight and outline kept apart, so that every style starts from the
same geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vestige.data.scenes.model import COLOURS, LIGHTS, SIZES, SceneObject
from vestige.data.scenes.shapes import SHAPES, Part

#: Distance between horizon and ground contact at depth 1, as a fraction of the height.
DROP = 0.5
#: Nearest distance at which an object is still drawn.
NEAR = 0.3
RED, GREEN, BLUE, LIGHT, GLOSS, BULGE, OUTLINE = range(7)


@dataclass(frozen=True)
class Camera:
    """Position relative to the scene's own camera: x to the right, z forward, in the unit of depth."""

    x: float = 0.0
    z: float = 0.0


@dataclass
class Layers:
    """Everything drawn about the objects, at working resolution (side S).

    paint: float32 S×S×7 — red, green, blue, light, highlight and bulge multiplied by coverage, then outline strength.
    cover: float32 S×S, how much of a pixel any object takes. visible: float32 K×S×S, how much each object takes.
    shadow: float32 S×S in [0, 1] on the ground. depths: K distances, infinite for objects that are not in view.
    """

    paint: np.ndarray
    cover: np.ndarray
    visible: np.ndarray
    shadow: np.ndarray
    depths: np.ndarray


@dataclass(frozen=True)
class _Placed:
    """Maps object coordinates to working pixels: turned by angle about its middle, mirrored, scaled, moved."""

    item: SceneObject
    depth: float
    scale: float
    x: float
    y: float
    side: int

    def points(self, contour: np.ndarray) -> np.ndarray:
        flat = contour * (-1, 1) if self.item.mirrored else contour
        if self.item.angle:
            t = np.radians(self.item.angle)
            turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
            flat = (flat - (0, 0.5)) @ turn + (0, 0.5)
        return flat * (self.scale, -self.scale) + (self.x, self.y)


def place(item: SceneObject, horizon: float, camera: Camera, side: int) -> _Placed | None:
    """Where an object falls in the picture of this camera; None behind it."""
    depth = item.depth - camera.z
    if depth < NEAR:
        return None
    x = 0.5 + ((item.x - 0.5) * item.depth - camera.x) / depth
    scale = SIZES[item.size] / depth * side
    y = (horizon + DROP / depth) * side - item.lift * scale
    return _Placed(item, depth, scale, x * side, y, side)


def draw_objects(items: Sequence[SceneObject], horizon: float, light: str, camera: Camera, side: int) -> Layers:
    """Draw the objects from the farthest to the nearest."""
    placed = [place(item, horizon, camera, side) for item in items]
    layers = Layers(
        np.zeros((side, side, 7), np.float32),
        np.zeros((side, side), np.float32),
        np.zeros((len(items), side, side), np.float32),
        _shadows([p for p in placed if p], light, side),
        np.array([np.inf if p is None else p.depth for p in placed], np.float32),
    )
    towards = np.array(LIGHTS[light], np.float32)
    for k in sorted(range(len(items)), key=lambda k: -layers.depths[k]):
        at = placed[k]
        if at is None:
            continue
        for part in SHAPES[at.item.kind]:
            _draw_part(layers, k, part, at, towards)
    return layers


def _draw_part(layers: Layers, index: int, part: Part, at: _Placed, towards: np.ndarray) -> None:
    side = at.side
    contours = [at.points(c) for c in part.contours]
    line = max(1, round(side / 115))
    low = np.floor(contours[0].min(axis=0)).astype(int) - line - 1
    high = np.ceil(contours[0].max(axis=0)).astype(int) + line + 2
    x0, y0 = (max(0, int(v)) for v in low)
    x1, y1 = (min(side, int(v)) for v in high)
    if x0 >= x1 or y0 >= y1:
        return
    shape = (y1 - y0, x1 - x0)
    fixed = [np.round((c - (x0, y0)) * 16).astype(np.int32) for c in contours]
    filled = np.zeros(shape, np.uint8)
    cv2.fillPoly(filled, fixed, 255, cv2.LINE_AA, 4)
    alpha = filled.astype(np.float32) * np.float32(1 / 255)
    columns = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(at.x)) / np.float32(at.scale)
    rows = (np.float32(at.y) - np.arange(y0, y1, dtype=np.float32) - 0.5) / np.float32(at.scale)
    u, v = columns[None, :], rows[:, None]
    normal = _normals(part, filled, u, v, contours[0], at)
    colour = _colour(part, at, u, v)
    # the foot of an object gets less light from the sky
    grounded = np.clip(0.72 + 2.2 * (v + at.item.lift), 0.72, 1.0)
    diffuse = np.clip(normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2], 0, 1) * grounded
    halfway = towards + np.array([0, 0, 1], np.float32)
    halfway = (halfway / np.linalg.norm(halfway)).astype(np.float32)
    shine = np.clip(normal[0] * halfway[0] + normal[1] * halfway[1] + normal[2] * halfway[2], 0, 1)
    shine = shine * shine
    shine *= shine
    shine *= shine
    new = np.zeros((*shape, 7), np.float32)
    new[..., :3] = colour
    new[..., LIGHT] = diffuse
    new[..., GLOSS] = shine * shine * shine * np.float32(part.gloss)
    new[..., BULGE] = normal[2] * np.float32(0.25 * SIZES[at.item.size])
    window = (slice(y0, y1), slice(x0, x1))
    paint = layers.paint[window]
    paint += alpha[..., None] * (new - paint)
    cover = layers.cover[window]
    cover += alpha * (1 - cover)
    visible = layers.visible[(slice(None), *window)]
    own = visible[index] + alpha * (1 - visible[index])
    visible *= 1 - alpha
    visible[index] = own
    if part.outlined:
        drawn = np.zeros(shape, np.uint8)
        cv2.polylines(drawn, fixed, True, 255, line, cv2.LINE_AA, 4)
        np.maximum(paint[..., OUTLINE], drawn.astype(np.float32) * np.float32(1 / 255), out=paint[..., OUTLINE])


def _normals(
    part: Part, filled: np.ndarray, u: np.ndarray, v: np.ndarray, outline: np.ndarray, at: _Placed
) -> tuple[np.ndarray | float, ...]:
    """Surface normals (x right, y up, z towards the camera) of a part over its window."""
    if part.form == "flat":
        n = np.array(part.normal) / np.linalg.norm(part.normal)
        sign = -1 if at.item.mirrored else 1
        return tuple(np.full(filled.shape, c, np.float32) for c in (n[0] * sign, n[1], n[2]))
    if part.form == "puff":
        return _pillow(filled, max(2.0, 0.4 * at.scale))
    low = (outline.min(axis=0) - (at.x, at.y)) / (at.scale, -at.scale)
    high = (outline.max(axis=0) - (at.x, at.y)) / (at.scale, -at.scale)
    x = (2 * (u - low[0]) / (high[0] - low[0]) - 1).astype(np.float32)
    y = (2 * (v - high[1]) / (low[1] - high[1]) - 1).astype(np.float32)
    if part.form == "cone":
        x = x / np.clip((1 - y) / 2, 0.05, 1)
    if part.form in ("cone", "column"):
        across = np.broadcast_to(np.clip(x, -1, 1), filled.shape)
        up = np.float32(0.35 if part.form == "cone" else 0.12)
        scale = np.float32(np.sqrt(1 - up * up))
        return across * scale, np.full(filled.shape, up), np.sqrt(1 - across * across) * scale
    squared = x * x + y * y
    inside = np.sqrt(np.clip(1 - squared, 0, 1))
    shrink = 1 / np.sqrt(np.maximum(squared + inside * inside, 1e-6))
    return x * shrink, y * shrink, inside * shrink


def _pillow(filled: np.ndarray, reach: float) -> tuple[np.ndarray, ...]:
    """Normals of an outline blown up like a pillow: a quarter circle over the distance from the edge."""
    distance = cv2.distanceTransform(np.pad(filled, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    reach = max(1.0, min(reach, float(distance.max())))
    t = np.minimum(distance / reach, 1)
    height = reach * np.sqrt(t * (2 - t))
    blur = int(reach / 2) * 2 + 1
    height = cv2.GaussianBlur(height, (blur, blur), 0)
    gx, gy = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    z = 1 / np.sqrt(1 + gx * gx + gy * gy)
    return -gx * z, gy * z, z


def _colour(part: Part, at: _Placed, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour of a part: one RGB, or h×w×3 where the object's texture covers it."""
    if not isinstance(part.fill, str):
        return np.array(part.fill, np.float32)
    own = np.array(COLOURS[at.item.colour], np.float32)
    if part.fill == "dark":
        return own * np.float32(0.66)
    if part.fill == "light":
        return own + (1 - own) * np.float32(0.45)
    if not part.textured or at.item.texture == "solid":
        return own
    contrast = own * np.float32(0.45) if own @ (0.3, 0.59, 0.11) > 0.62 else own + (1 - own) * np.float32(0.8)
    pattern = _pattern(at.item.texture, u, v, at.scale)
    return own + pattern[..., None] * (contrast - own)


def _pattern(texture: str, u: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """h×w in [0, 1]: where the second colour shows; edges as soft as one pixel."""
    period = np.float32(0.21)
    sharp = np.float32(scale * period / 2.5)
    if texture == "striped":
        wave = np.abs(((v + 0.25 * u) / period) % 1 - 0.5) - 0.28
        return np.clip(0.5 - wave * sharp * 1.4, 0, 1)
    if texture == "checked":
        a = np.abs((u / (2 * period) + 0.25) % 1 - 0.5) - 0.25
        b = np.abs((v / (2 * period) + 0.25) % 1 - 0.5) - 0.25
        a, b = np.clip(a * 2 * sharp * 2, -1, 1), np.clip(b * 2 * sharp * 2, -1, 1)
        return 0.5 - 0.5 * a * b
    row = np.floor(v / period)
    du = (u / period + 0.5 * (row % 2)) % 1 - 0.5
    dv = (v / period) % 1 - 0.5
    return np.clip(0.5 + (0.30 - np.sqrt(du * du + dv * dv)) * sharp * 2, 0, 1)


def _shadows(placed: Sequence[_Placed], light: str, side: int) -> np.ndarray:
    """Soft shadows: every outline laid down on the ground away from the light, and a dark contact below it."""
    half = max(16, side // 2)
    ratio = half / side
    total = np.zeros((half, half), np.float32)
    towards = LIGHTS[light]
    lean, length = -0.8 * towards[0] / towards[1], 0.12 + 0.22 * (1 - towards[1])
    for at in placed:
        foot = at.y + at.item.lift * at.scale
        mask: np.ndarray = np.zeros((half, half), np.uint8)
        polygons = []
        for part in SHAPES[at.item.kind]:
            flat = at.points(part.contours[0])
            high = foot - flat[:, 1]
            laid = np.stack([flat[:, 0] + lean * high, foot - length * high], axis=1) * ratio
            polygons.append(np.round(laid * 16).astype(np.int32))
        for polygon in polygons:
            cv2.fillConvexPoly(mask, cv2.convexHull(polygon), 150, cv2.LINE_8, 4)
        blur = int(at.scale * ratio * 0.06) * 2 + 1
        mask = cv2.GaussianBlur(mask, (blur, blur), 0)
        contact: np.ndarray = np.zeros((half, half), np.uint8)
        centre = (round(at.x * ratio * 16), round((foot - 0.01 * at.scale) * ratio * 16))
        axes = (round(0.33 * at.scale * ratio * 16), round(0.06 * at.scale * ratio * 16))
        cv2.ellipse(contact, centre, axes, 0, 0, 360, round(160 / (1 + 3 * at.item.lift)), -1, cv2.LINE_8, 4)
        contact = cv2.blur(contact, (blur, max(1, blur // 2)))
        np.maximum(total, np.maximum(mask, contact).astype(np.float32) * np.float32(1 / 255), out=total)
    return cv2.resize(total, (side, side), interpolation=cv2.INTER_LINEAR)
