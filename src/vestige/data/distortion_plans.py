"""The catalogue of distortions: names, strength scales, ladders, and how each becomes a plan of primitive steps.

A plan fixes everything both twins have to agree on (sizes, positions, kernels, seeds); `distortions_real` and
`distortions_torch` know how to carry out the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vestige.core.errors import LimitError

#: Rec. 601 luma, the grey that JPEG and image editors use.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MAX_PIXELS = 120_000_000

#: One primitive step: its name in the twins' tables and its parameters.
Step = tuple[str, dict[str, Any]]


@dataclass
class Scene:
    """The batch a plan is made for: its current size, its generator (None: canonical form) and its seed path."""

    count: int
    height: int
    width: int
    generator: np.random.Generator | None
    path: tuple[object, ...]

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform draws of shape count×shape; the middle of the range in the canonical form."""
        size = (self.count, *shape)
        if self.generator is None:
            return np.full(size, (low + high) / 2)
        return self.generator.uniform(low, high, size)

    def corner(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Top rows and left columns of height×width windows inside the picture; centred in the canonical form."""
        spare = (self.height - height, self.width - width)
        tops, lefts = (np.floor(self.uniform(0, s + 1)).astype(int).clip(0, s) for s in spare)
        return (tops, lefts) if self.generator is not None else (tops * 0 + spare[0] // 2, lefts * 0 + spare[1] // 2)

    def resized(self, height: float, width: float) -> Step:
        """A resize step to that size, rounded and at least one pixel; it becomes the current size."""
        self.height, self.width = max(1, round(height)), max(1, round(width))
        if self.height * self.width > MAX_PIXELS:
            raise LimitError(
                f"The distorted picture would have {self.height * self.width / 1e6:.0f} megapixels; the limit is "
                f"{MAX_PIXELS / 1e6:.0f}, so use a smaller scale."
            )
        return "resize", {"height": self.height, "width": self.width}

    def padded(self, top: int, bottom: int, left: int, right: int, colour: float) -> Step:
        """A padding step; the padded size becomes the current size."""
        self.height += top + bottom
        self.width += left + right
        return "pad", {"top": top, "bottom": bottom, "left": left, "right": right, "colour": colour}


Plan = Callable[[float, Scene], list[Step]]


@dataclass(frozen=True)
class Distortion:
    """A named distortion.

    meaning: what its strength stands for. ladder: strengths from mild to severe, as benchmarks use them. low, high:
    the allowed range. geometric: pixels move or the size changes, so masks have to be moved too. randomised: the
    result depends on the seed.
    """

    name: str
    meaning: str
    ladder: tuple[float, ...]
    low: float
    high: float
    geometric: bool
    randomised: bool
    plan: Plan = field(repr=False)


DISTORTIONS: dict[str, Distortion] = {}


def _register(
    meaning: str,
    ladder: tuple[float, ...],
    low: float,
    high: float,
    *,
    geometric: bool = False,
    randomised: bool = False,
) -> Callable[[Plan], Plan]:
    def add(plan: Plan) -> Plan:
        name = plan.__name__.removeprefix("_")
        DISTORTIONS[name] = Distortion(name, meaning, ladder, low, high, geometric, randomised, plan)
        return plan

    return add


@_register("has no effect beyond eight-bit rounding", (0,), -math.inf, math.inf)
def _identity(v: float, s: Scene) -> list[Step]:
    return []


@_register("JPEG quality, 4:2:0 chroma", (95, 90, 80, 70, 50, 30, 10), 1, 100)
def _jpeg(v: float, s: Scene) -> list[Step]:
    return [("codec", {"format": "JPEG", "quality": round(v)})]


@_register("WebP quality; 100 is lossless", (90, 80, 70, 50, 30), 1, 100)
def _webp(v: float, s: Scene) -> list[Step]:
    return [("codec", {"format": "WEBP", "quality": round(v)})]


@_register("AVIF quality, 4:2:0 chroma", (90, 75, 60, 45, 30), 1, 100)
def _avif(v: float, s: Scene) -> list[Step]:
    return [("codec", {"format": "AVIF", "quality": round(v)})]


@_register("scale factor of both sides; the size changes", (0.9, 0.75, 0.5, 0.25), 0.01, 8, geometric=True)
def _resize(v: float, s: Scene) -> list[Step]:
    return [s.resized(s.height * v, s.width * v)]


@_register("scale factor of both sides, then back to the original size", (0.9, 0.75, 0.5, 0.25), 0.01, 8)
def _resize_back(v: float, s: Scene) -> list[Step]:
    height, width = s.height, s.width
    return [s.resized(height * v, width * v), s.resized(height, width)]


def _cropped(v: float, s: Scene) -> Step:
    height, width = max(1, round(s.height * math.sqrt(v))), max(1, round(s.width * math.sqrt(v)))
    tops, lefts = s.corner(height, width)
    s.height, s.width = height, width
    return "crop", {"tops": tops, "lefts": lefts, "height": height, "width": width}


_AREA = (0.9, 0.75, 0.5, 0.25, 0.1)


@_register("fraction of the area that is kept; the size changes", _AREA, 1e-4, 1, geometric=True, randomised=True)
def _crop(v: float, s: Scene) -> list[Step]:
    return [_cropped(v, s)]


@_register("fraction of the area that is kept and enlarged back", _AREA, 1e-4, 1, geometric=True, randomised=True)
def _crop_resize(v: float, s: Scene) -> list[Step]:
    height, width = s.height, s.width
    return [_cropped(v, s), s.resized(height, width)]


@_register(
    "degrees counter-clockwise; the size stays, corners turn black",
    (1, 5, 10, 25, 45, 90),
    -360,
    360,
    geometric=True,
)
def _rotate(v: float, s: Scene) -> list[Step]:
    cos, sin = math.cos(math.radians(v)), math.sin(math.radians(v))
    x, y = (s.width - 1) / 2, (s.height - 1) / 2
    matrix = np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]])
    return [("warp", {"matrices": np.repeat(matrix[None], s.count, 0), "fill": 0.0})]


@_register("1 mirrors left-right, 2 top-bottom, 3 both", (1, 2, 3), 1, 3, geometric=True)
def _flip(v: float, s: Scene) -> list[Step]:
    return [("flip", {"columns": round(v) in (1, 3), "rows": round(v) in (2, 3)})]


@_register(
    "stretch of the width over the height at equal area; the size changes",
    (1.1, 1.25, 1.5, 2),
    0.1,
    10,
    geometric=True,
)
def _aspect(v: float, s: Scene) -> list[Step]:
    return [s.resized(s.height / math.sqrt(v), s.width * math.sqrt(v))]


def _keystone(v: float, s: Scene, fill: float) -> Step:
    import cv2

    sides = np.array([max(s.width - 1, 1), max(s.height - 1, 1)], float)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    inward = s.uniform(0, v / 2, 4, 2)
    if s.generator is None:
        inward[:] = np.array([[v / 2, 0], [v / 2, 0], [0, 0], [0, 0]])
    moved = (corners + (1 - 2 * corners) * inward) * sides
    original = (corners * sides).astype(np.float32)
    matrices = [cv2.getPerspectiveTransform(m.astype(np.float32), original) for m in moved]
    return "warp", {"matrices": np.stack(matrices), "fill": fill}


@_register(
    "corners move inward by up to half this fraction of the sides; the size stays, the rest turns black",
    (0.05, 0.1, 0.2, 0.3, 0.5),
    0,
    0.9,
    geometric=True,
    randomised=True,
)
def _perspective(v: float, s: Scene) -> list[Step]:
    return [_keystone(v, s, 0.0)]


def _blurred(sigma: float) -> Step:
    return "blur", {"sigma": sigma, "size": 2 * math.ceil(3 * sigma) + 1}


@_register("standard deviation of the Gaussian in pixels", (0.5, 1, 2, 3, 4), 0.05, 50)
def _blur(v: float, s: Scene) -> list[Step]:
    return [_blurred(v)]


@_register("side of the window in pixels (odd)", (3, 5, 7), 1, 31)
def _median(v: float, s: Scene) -> list[Step]:
    return [("median", {"size": 2 * (round(v) // 2) + 1})]


@_register("length of the straight path in pixels; its direction is seeded", (3, 5, 9, 15), 1, 101, randomised=True)
def _motion_blur(v: float, s: Scene) -> list[Step]:
    half = math.ceil((v - 1) / 2)
    along = np.linspace(-(v - 1) / 2, (v - 1) / 2, 8 * half + 1)
    kernels = np.zeros((s.count, 2 * half + 3, 2 * half + 3), np.float32)
    for kernel, angle in zip(kernels, s.uniform(-math.pi / 2, math.pi / 2), strict=True):
        x, y = half + 1 + along * math.cos(angle), half + 1 + along * math.sin(angle)
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        for dy in (0, 1):
            for dx in (0, 1):
                np.add.at(kernel, (row + dy, column + dx), (1 - abs(x - column - dx)) * (1 - abs(y - row - dy)))
    return [("convolve", {"kernels": kernels / kernels.sum((1, 2), keepdims=True)})]


@_register("amount a of the unsharp mask x + a·(x − blur(x)) with sigma 1", (0.5, 1, 2, 4), 0, 20)
def _sharpen(v: float, s: Scene) -> list[Step]:
    offsets = np.arange(-3, 4)
    gaussian = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2)
    kernel = -v * gaussian / gaussian.sum()
    kernel[3, 3] += 1 + v
    return [("convolve", {"kernels": np.repeat(kernel[None].astype(np.float32), s.count, 0)})]


@_register(
    "standard deviation of Gaussian noise on the [0, 1] scale", (0.01, 0.02, 0.05, 0.1, 0.2), 0, 2, randomised=True
)
def _noise(v: float, s: Scene) -> list[Step]:
    return [("noise", {"sigma": v, "path": s.path})]


@_register("fraction of pixels set to black or white", (0.005, 0.01, 0.05, 0.1, 0.2), 0, 1, randomised=True)
def _salt_pepper(v: float, s: Scene) -> list[Step]:
    return [("salt_pepper", {"fraction": v, "path": s.path})]


def _colour(matrix: np.ndarray) -> Step:
    return "colour", {"matrix": np.asarray(matrix, np.float32)}


_FACTORS = (1.1, 0.9, 1.3, 0.7, 1.5, 0.5)


@_register("factor on all samples", _FACTORS, 0, 10)
def _brightness(v: float, s: Scene) -> list[Step]:
    return [_colour(v * np.eye(3))]


@_register("factor on the distance from the mean grey of the picture", _FACTORS, 0, 10)
def _contrast(v: float, s: Scene) -> list[Step]:
    return [("contrast", {"factor": v})]


@_register("factor on the distance from each pixel's grey", (1.3, 0.7, 1.5, 0.5, 2, 0), 0, 10)
def _saturation(v: float, s: Scene) -> list[Step]:
    return [_colour(v * np.eye(3) + (1 - v) * np.outer(np.ones(3), LUMA))]


@_register("turn of the colour circle, 1 being the full circle", (0.02, 0.05, 0.1, 0.25, 0.5), -1, 1)
def _hue(v: float, s: Scene) -> list[Step]:
    return [("hue", {"turn": v})]


@_register("exponent on samples in [0, 1]", (0.9, 1.1, 0.7, 1.4, 0.5, 2), 0.1, 10)
def _gamma(v: float, s: Scene) -> list[Step]:
    return [("gamma", {"exponent": v})]


@_register("fraction of the colour that is removed", (1,), 0, 1)
def _grayscale(v: float, s: Scene) -> list[Step]:
    return _saturation(1 - v, s)


@_register("bits kept for each channel", (6, 5, 4, 3, 2), 1, 8)
def _quantize(v: float, s: Scene) -> list[Step]:
    return [("quantize", {"levels": 2 ** round(v) - 1})]


@_register("fraction of the area under an opaque caption box", (0.02, 0.05, 0.1, 0.2, 0.4), 0, 1, randomised=True)
def _overlay(v: float, s: Scene) -> list[Step]:
    import cv2

    area = v * s.height * s.width
    width = min(s.width, max(1, round(math.sqrt(3 * area))))
    height = min(s.height, max(1, round(area / width))) if area >= 0.5 else 0
    box = np.full((max(height, 1), width), 245, np.uint8)
    (text_width, text_height), _ = cv2.getTextSize("SAMPLE", cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = 0.8 * min(width / text_width, max(height, 1) / text_height)
    origin = (round((width - scale * text_width) / 2), round((height + scale * text_height) / 2))
    cv2.putText(box, "SAMPLE", origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 30, max(1, round(2 * scale)), cv2.LINE_AA)
    tops, lefts = s.corner(height, width)
    return [("overlay", {"tops": tops, "lefts": lefts, "patch": box[:height].astype(np.float32) / 255})]


@_register(
    "thickness of the bars over the shorter side; the size grows",
    (0.05, 0.1, 0.2, 0.4),
    0,
    4,
    geometric=True,
    randomised=True,
)
def _border(v: float, s: Scene) -> list[Step]:
    bar = round(v * min(s.height, s.width))
    kind, colour = (0, 0) if s.generator is None else s.generator.integers(3, size=2)
    across, along = bar * (kind != 1), bar * (kind != 0)
    return [s.padded(across, across, along, along, (0.0, 1.0, 0.5)[colour])]


@_register(
    "severity in [0, 1] of a screen recapture: halved scale, blur, tone, window frame, JPEG 70 at 1",
    (0.25, 0.5, 0.75, 1),
    0,
    1,
    geometric=True,
    randomised=True,
)
def _screenshot(v: float, s: Scene) -> list[Step]:
    steps = [s.resized(s.height * (1 - v / 2), s.width * (1 - v / 2))]
    shift = np.repeat(np.eye(3)[None], s.count, 0)
    shift[:, :2, 2] = s.uniform(0, 1, 2) - 0.5
    frame, bar = round(0.02 * s.width), round(0.08 * s.height)
    steps += [
        ("warp", {"matrices": shift, "fill": None}),
        ("gamma", {"exponent": 1 + 0.15 * v}),
        _blurred(0.05 + 0.55 * v),
        s.padded(bar, frame, frame, frame, 0.92),
    ]
    return steps if v < 0.5 else [*steps, ("codec", {"format": "JPEG", "quality": round(95 - 25 * v)})]


@_register(
    "severity in [0, 1] of printing and scanning: keystone, blur, flat tones, shading, noise, JPEG 80",
    (0.25, 0.5, 0.75, 1),
    0,
    1,
    geometric=True,
    randomised=True,
)
def _print_scan(v: float, s: Scene) -> list[Step]:
    direction = s.uniform(-math.pi, math.pi)[:, None, None, None]
    y, x = np.linspace(-0.5, 0.5, s.height)[:, None], np.linspace(-0.5, 0.5, s.width)[None]
    field = 1 - 0.15 * v * (0.7 + np.cos(direction) * x + np.sin(direction) * y)
    return [
        _keystone(0.06 * v, s, 1.0),
        _blurred(0.3 + 0.9 * v),
        ("contrast", {"factor": 1 - 0.25 * v}),
        ("multiply", {"field": field.astype(np.float32)}),
        ("noise", {"sigma": 0.02 * v, "path": s.path}),
        ("codec", {"format": "JPEG", "quality": 80}),
    ]


@_register("fraction of pixels taken from the cover (black without one)", (0.1, 0.3, 0.5, 0.7), 0, 1, randomised=True)
def _dropout(v: float, s: Scene) -> list[Step]:
    return [("dropout", {"fraction": v, "path": s.path})]


@_register(
    "fraction of the area, outside one window, taken from the cover (black without one)",
    (0.1, 0.3, 0.5, 0.7, 0.9),
    0,
    1,
    randomised=True,
)
def _cropout(v: float, s: Scene) -> list[Step]:
    height, width = round(s.height * math.sqrt(1 - v)), round(s.width * math.sqrt(1 - v))
    tops, lefts = s.corner(height, width)
    return [("cropout", {"tops": tops, "lefts": lefts, "height": height, "width": width})]
