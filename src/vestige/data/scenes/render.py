"""Scenes into pictures: single views, stereo pairs, short videos, and words on top."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.data.scenes.backgrounds import FAR, draw_stage
from vestige.data.scenes.model import Scene, SceneObject, TextOverlay, object_box
from vestige.data.scenes.raster import Camera, draw_objects
from vestige.data.scenes.styles import STYLE_FUNCTIONS, Drawing

_FONTS = {"sans": "DejaVuSans-Bold.ttf", "serif": "DejaVuSerif-Bold.ttf", "mono": "DejaVuSansMono-Bold.ttf"}
_STILL = Camera()


@dataclass(frozen=True)
class Rendered:
    """A rendered scene of K objects and M words.

    image: float32 3×H×W in [0, 1]. masks: bool K×H×W, the visible part of each object, in the order of
    ``scene.objects``; they do not overlap. depth: float32 H×W, every object a plane at its own depth, which is what
    views and videos move. bulge: float32 H×W, how far a surface comes forward of ``depth``. text_masks: bool M×H×W.
    """

    image: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)
    depth: np.ndarray = field(repr=False)
    bulge: np.ndarray = field(repr=False)
    text_masks: np.ndarray = field(repr=False)
    caption: str = ""
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Views:
    """Two views of a scene. disparity: float32 H×W in pixels; what the left view shows at column x, the right view
    shows at x - disparity. visible: bool H×W, where the right view shows it too."""

    left: Rendered
    right: Rendered
    disparity: np.ndarray = field(repr=False)
    visible: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Video:
    """frames: float32 T×3×H×W in [0, 1]. masks: bool T×K×H×W. depth: float32 T×H×W. scenes: the T scenes drawn."""

    frames: np.ndarray = field(repr=False)
    masks: np.ndarray = field(repr=False)
    depth: np.ndarray = field(repr=False)
    scenes: tuple[Scene, ...] = field(repr=False)
    cameras: tuple[Camera, ...] = field(repr=False)
    caption: str = ""


def render(scene: Scene, size: int = 64, camera: Camera = _STILL) -> Rendered:
    """Draw a scene at size×size (32 to 512), with anti-aliasing by twofold supersampling.

    Same scene and size, same bytes. Raises UsageError for a size out of range.

    >>> from vestige.data.scenes import sample_scene
    >>> render(sample_scene(0, n_objects=2), 64).masks.shape
    (2, 64, 64)
    """
    if not 32 <= size <= 512:
        raise UsageError(f"size is {size}; scenes are drawn at 32 to 512 pixels.")
    side = 2 * size
    layers = draw_objects(scene.objects, scene.horizon, scene.light, camera, side)
    stage = draw_stage(scene, camera, side)
    drawing = Drawing(layers, stage, scene.seed)
    image = np.clip(_halve(STYLE_FUNCTIONS[scene.style](drawing)), 0, 1)
    masks, depth, bulge = _geometry(drawing)
    text_masks = np.zeros((len(scene.texts), size, size), bool)
    for index, text in enumerate(scene.texts):
        text_masks[index] = _write(image, text)
    return Rendered(
        np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32),
        masks,
        depth,
        bulge,
        text_masks,
        scene.caption,
        scene.attributes,
    )


def render_views(scene: Scene, baseline: float = 0.08, size: int = 64) -> Views:
    """The scene from two cameras side by side, ``baseline`` apart (in the unit of depth).

    Objects move by baseline / depth of the width, are drawn anew and cover what is behind them; the ground moves
    row by row. Words stay in place, as they lie on the picture, not in the scene.
    """
    left, right = (render(scene, size, Camera(x=s * baseline / 2)) for s in (-1, 1))
    disparity = np.where(left.depth < FAR, baseline / left.depth * size, 0).astype(np.float32)
    target = np.round(np.arange(size)[None, :] - disparity).astype(int)
    inside = (target >= 0) & (target < size)
    rows = np.arange(size)[:, None]
    seen = right.depth[rows, target.clip(0, size - 1)]
    return Views(left, right, disparity, inside & (np.abs(seen - left.depth) < 0.02 * left.depth))


def render_video(
    scene: Scene, frames: int = 16, size: int = 64, camera_motion: tuple[float, float] = (0.0, 0.0)
) -> Video:
    """A clip in which objects move by their ``velocity`` (change of x and depth over the clip), turning back at the
    picture's border, balls bouncing; the camera moves by ``camera_motion`` (right, forward) over the clip.

    Raises UsageError for fewer than one frame.
    """
    if frames < 1:
        raise UsageError(f"frames is {frames}; a clip needs at least one.")
    times = [t / max(frames - 1, 1) for t in range(frames)]
    scenes = tuple(replace(scene, objects=tuple(_moved(o, t) for o in scene.objects)) for t in times)
    cameras = tuple(Camera(camera_motion[0] * t, camera_motion[1] * t) for t in times)
    drawn = [render(s, size, c) for s, c in zip(scenes, cameras)]
    return Video(
        np.stack([r.image for r in drawn]),
        np.stack([r.masks for r in drawn]),
        np.stack([r.depth for r in drawn]),
        scenes,
        cameras,
        scene.caption,
    )


def _moved(item: SceneObject, t: float) -> SceneObject:
    left, _, right, _ = object_box(item)
    low, high = min(item.x - left, item.x), max(1 - (right - item.x), item.x)
    way = (item.x + item.velocity[0] * t - low) % max(2 * (high - low), 1e-6)
    x = low + min(way, 2 * (high - low) - way)
    lift = item.lift + (0.35 * abs(np.sin(3 * np.pi * t)) if item.kind == "ball" and any(item.velocity) else 0.0)
    return replace(item, x=float(x), depth=max(0.5, item.depth + item.velocity[1] * t), lift=float(lift))


def _geometry(drawing: Drawing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, depth and bulge at half the working resolution; a pixel belongs to what covers most of it."""
    layers = drawing.layers
    depth = drawing.stage.depth[1::2, ::2].copy()
    shape = depth.shape
    cover = _halve(layers.cover)
    masks = np.zeros((len(layers.visible), *shape), bool)
    if len(masks):
        shares = np.stack([1 - cover, *(_halve(v) for v in layers.visible)])
        owner = shares.argmax(axis=0)
        for k in range(len(masks)):
            masks[k] = owner == k + 1
            depth[masks[k]] = layers.depths[k]
    bulge = np.where(masks.any(axis=0), _halve(drawing.bulge), 0).astype(np.float32)
    return masks, depth, bulge


def _halve(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


# ---------------------------------------------------------------- words


def _write(image: np.ndarray, text: TextOverlay) -> np.ndarray:
    """Draw a word into the H×W×3 image in place; returns where it changed it, bool H×W."""
    side = image.shape[0]
    fill, edge = _word_layers(text, side)
    ink = np.float32(0.0 if sum(text.colour) > 1.5 else 1.0)
    for layer, colour in ((edge, np.full(3, ink)), (fill, np.array(text.colour, np.float32))):
        alpha = (layer * np.float32(text.opacity / 255))[..., None]
        image += alpha * (colour - image)
    return np.maximum(fill, edge) >= 64


@lru_cache(maxsize=64)
def _word_layers(text: TextOverlay, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (0 to 255) of the letters and of their outline, drawn at four times the size."""
    from PIL import Image, ImageDraw

    big = 4 * side
    font = _font(text.font, max(8, round(text.height * big * 1.35)))
    stroke = max(1, round(text.height * big * 0.09)) if text.outline else 0
    layers = []
    for width in (0, stroke):
        canvas = Image.new("L", (big, big), 0)
        ImageDraw.Draw(canvas).text(
            (text.x * big, text.y * big), text.word, 255, font=font, anchor="mm", stroke_width=width
        )
        if text.angle:
            middle = (text.x * big, text.y * big)
            canvas = canvas.rotate(text.angle, Image.Resampling.BICUBIC, center=middle)
        layers.append(cv2.resize(np.asarray(canvas), (side, side), interpolation=cv2.INTER_AREA))
    return layers[0], layers[1]


@lru_cache(maxsize=32)
def _font(name: str, size: int) -> Any:
    """A font that comes with matplotlib, found without importing it."""
    from PIL import ImageFont

    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
        path = Path(folder, "mpl-data", "fonts", "ttf", _FONTS[name])
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def contact_sheet(images: Sequence[np.ndarray], columns: int = 8, gap: int = 2) -> np.ndarray:
    """Equal 3×H×W pictures in rows, white between them: float32 3×H'×W'."""
    if not images:
        raise UsageError("A contact sheet needs at least one picture.")
    _, height, width = images[0].shape
    rows = -(-len(images) // columns)
    sheet = np.ones((3, rows * (height + gap) - gap, columns * (width + gap) - gap), np.float32)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, y : y + height, x : x + width] = image
    return sheet
