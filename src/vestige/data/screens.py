"""What screens show, drawn from seeds, and what happens to a screen on its way into a screenshot.

Kinds: "text" (pages of text), "ui" (flat boxes, bars and buttons), "photos" (tiles of photographs), "scenes" (tiles of
rendered scenes) and "mix" (windows of the other kinds on a desktop). Words are made of random syllables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.packs import resize
from vestige.data.scenes import render_pack

KINDS = ("text", "ui", "photos", "scenes", "mix")
_SYLLABLES = (
    "an ar be co da de el en er fa ga il in is ka la le ma me mi na ne no or pa pe ra re ri ro sa se si so ta te ti to "
    "un ur va ve vi"
)
_CONTENT = ("text", "ui", "photos", "scenes")  # what a window of a mixed screen may hold
_TITLE = 12  # pixels of a window's title bar

Colour = tuple[int, int, int]


def render_screens(
    kind: str, count: int, size: int | tuple[int, int] = 256, seed: int = 0, *, pool: np.ndarray | None = None
) -> np.ndarray:
    """``count`` screens of one kind: uint8 N×3×H×W sRGB; number i depends on the seed and i alone.

    size: side, or (height, width), at least 32. pool: photographs uint8 K×3×h×w, needed for "photos"; without them a
    mixed screen has none. Raises UsageError for an unknown kind, a count below 1, a small size or a missing pool.

    >>> render_screens("text", 2, (64, 96)).shape
    (2, 3, 64, 96)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if kind not in KINDS:
        raise UsageError(f"A screen is one of {', '.join(KINDS)}; got {kind!r}.")
    if count < 1 or min(height, width) < 32:
        raise UsageError(f"Screens are at least 1 and 32 pixels a side; got {count} of {width}×{height}.")
    if pool is not None and (pool.dtype != np.uint8 or pool.ndim != 4 or pool.shape[1] != 3 or pool.size == 0):
        raise UsageError(f"The pool is uint8 K×3×h×w; got {pool.dtype} {pool.shape}.")
    if kind == "photos" and pool is None:
        raise UsageError("Screens of photographs need a pool of photographs.")
    screens = [_draw(kind, height, width, rng(seed, "screen", kind, i), pool) for i in range(count)]
    return np.ascontiguousarray(np.stack(screens).transpose(0, 3, 1, 2))


def _draw(kind: str, height: int, width: int, draws: np.random.Generator, pool: np.ndarray | None) -> np.ndarray:
    """One screen, uint8 H×W×3."""
    if kind == "text":
        return _text(height, width, draws)
    if kind == "ui":
        return _boxes(height, width, draws)
    if kind == "mix":
        return _desktop(height, width, draws, pool)
    return _tiles(kind, height, width, draws, pool)


def _words(draws: np.random.Generator, count: int) -> str:
    words = ("".join(draws.choice(_SYLLABLES.split(), int(n))) for n in draws.integers(1, 5, count))
    return " ".join(w.capitalize() if draws.random() < 0.1 else w for w in words)


def _grey(draws: np.random.Generator, low: int, high: int, tint: int = 8) -> Colour:
    """A nearly grey colour between two levels."""
    level = int(draws.integers(low, high + 1))
    red, green, blue = (int(v) for v in (level + draws.integers(-tint, tint + 1, 3)).clip(0, 255))
    return red, green, blue


def _vivid(draws: np.random.Generator) -> Colour:
    hue, saturation, value = draws.integers(180), draws.integers(110, 230), draws.integers(120, 240)
    red, green, blue = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def _text(height: int, width: int, draws: np.random.Generator) -> np.ndarray:
    """A page: a heading, then paragraphs in one or two columns, dark on light in three of four."""
    dark = draws.random() < 0.25
    paper = _grey(draws, 15, 45) if dark else (255, 255, 255) if draws.random() < 0.5 else _grey(draws, 235, 250, 4)
    ink = _grey(draws, 190, 240) if dark else _grey(draws, 0, 70)
    page = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(page)
    letters = float(draws.uniform(8, 15))
    body, heading = ImageFont.load_default(letters), ImageFont.load_default(letters * draws.uniform(1.3, 2))
    margin, gap = int(draws.integers(4, 17)), letters * draws.uniform(1.2, 1.6)
    columns = 2 if width >= 200 and draws.random() < 0.3 else 1
    column = (width - margin * (columns + 1)) / columns
    top = float(margin)
    if draws.random() < 0.7:
        pen.text((margin, top), _words(draws, 6), _vivid(draws) if draws.random() < 0.3 else ink, heading)
        top += 2.4 * gap
    for index in range(columns):
        left, y = margin + index * (column + margin), top
        while y < height - gap:
            if draws.random() < 0.12:
                y += 0.8 * gap
            share = column * (draws.uniform(0.3, 0.8) if draws.random() < 0.15 else 1.0)
            line = _words(draws, 1)
            while pen.textlength(longer := f"{line} {_words(draws, 1)}", body) < share:
                line = longer
            pen.text((left, y), line, ink, body)
            y += gap
    return np.asarray(page)


def _boxes(height: int, width: int, draws: np.random.Generator) -> np.ndarray:
    """A flat user interface: a bar, a side panel, cards with labels, buttons and lines."""
    dark = draws.random() < 0.3
    ground = _grey(draws, 25, 50) if dark else _grey(draws, 225, 250)
    card = _grey(draws, 50, 75) if dark else (255, 255, 255)
    ink = _grey(draws, 190, 235) if dark else _grey(draws, 20, 80)
    accent = _vivid(draws)
    screen = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(screen)
    bar, side = int(draws.integers(14, 27)), int(width * draws.uniform(0, 0.3))
    small = ImageFont.load_default(float(draws.uniform(8, 12)))
    pen.rectangle((0, bar, side, height), fill=_grey(draws, 40, 70) if dark else _grey(draws, 205, 235))
    pen.rectangle((0, 0, width, bar), fill=accent if draws.random() < 0.6 else card)
    pen.text((6, 2), _words(draws, 2), ink, small)
    for y in range(bar + 8, height - 12, int(draws.integers(14, 24))):
        if side > 40:
            pen.text((5, y), _words(draws, 1)[: side // 7], ink, small)
    step_y, step_x = (int(n) for n in draws.integers(45, 110, 2))
    for y in range(bar + 8, height - 20, step_y + 8):
        for x in range(side + 8, width - 20, step_x + 8):
            end = (min(x + step_x, width - 6), min(y + step_y, height - 6))
            fill = _vivid(draws) if draws.random() < 0.2 else card
            pen.rounded_rectangle((x, y, *end), int(draws.integers(0, 7)), fill=fill, outline=_grey(draws, 120, 190))
            pen.text((x + 5, y + 4), _words(draws, 1)[: (end[0] - x) // 8], ink, small)
            if draws.random() < 0.5 and end[1] - y > 34:
                pen.rounded_rectangle((x + 5, end[1] - 16, min(x + 40, end[0] - 4), end[1] - 5), 3, fill=accent)
            if draws.random() < 0.4:
                pen.line((x + 5, y + 20, end[0] - 5, y + 20), fill=_grey(draws, 150, 200), width=1)
    return np.asarray(screen)


def _tiles(kind: str, height: int, width: int, draws: np.random.Generator, pool: np.ndarray | None) -> np.ndarray:
    """Pictures with gutters, up to four by four (scenes: two by two), or one that fills the screen."""
    most = min(4 if kind == "photos" else 2, min(height, width) // 60)  # scenes take a fifth of a second each
    rows, columns = (int(n) for n in draws.integers(1, 1 + max(1, most), 2))
    gutter = 0 if rows * columns == 1 else int(draws.integers(0, 9))
    screen = np.empty((height, width, 3), np.uint8)
    screen[:] = _grey(draws, 10, 40) if draws.random() < 0.5 else _grey(draws, 230, 255)
    down = np.linspace(gutter, height, rows + 1).round().astype(int)
    right = np.linspace(gutter, width, columns + 1).round().astype(int)
    for top, bottom in pairwise(down):
        for left, end in pairwise(right):
            room = (int(bottom - top - gutter), int(end - left - gutter))
            if kind == "photos":
                assert pool is not None
                picture = pool[int(draws.integers(len(pool)))].transpose(1, 2, 0)
            else:
                picture = render_pack(1, min(max(room), 128), int(draws.integers(2**31))).images[0].transpose(1, 2, 0)
            part = resize(np.ascontiguousarray(picture), room)
            screen[top : top + room[0], left : left + room[1]] = part[:, ::-1] if draws.random() < 0.5 else part
    return screen


def _desktop(height: int, width: int, draws: np.random.Generator, pool: np.ndarray | None) -> np.ndarray:
    """Two to four windows of other kinds, one over the other, on a plain ground, a scene or a photograph."""
    kinds = [k for k in _CONTENT if k != "photos" or pool is not None]
    screen = np.empty((height, width, 3), np.uint8)
    screen[:] = _vivid(draws) if draws.random() < 0.5 else _grey(draws, 30, 220)
    if draws.random() < 0.5:
        screen[:] = _draw(str(draws.choice(kinds[2:])), height, width, draws, pool)
    for _ in range(int(draws.integers(2, 5))):
        tall, wide = (max(32 + _TITLE, int(n * draws.uniform(0.4, 0.8))) for n in (height, width))
        tall, wide = min(tall, height), min(wide, width)
        top, left = int(draws.integers(height - tall + 1)), int(draws.integers(width - wide + 1))
        screen[top : top + tall, left : left + wide] = _window(str(draws.choice(kinds)), tall, wide, draws, pool)
    return screen


def _window(kind: str, height: int, width: int, draws: np.random.Generator, pool: np.ndarray | None) -> np.ndarray:
    """A window with a title bar where there is room for one."""
    bar = _TITLE if height >= 32 + _TITLE else 0
    window = np.empty((height, width, 3), np.uint8)
    window[:bar] = _grey(draws, 60, 210)
    inside = _draw(kind, max(height - bar, 32), max(width, 32), draws, pool)
    window[bar:] = inside[: height - bar, :width]
    window[[0, -1]], window[:, [0, -1]] = 90, 90
    return window


@dataclass(frozen=True)
class Shot:
    """How a screenshot is taken and passed on: a window over the screen, then crop, scale and JPEG, in this order.

    crop: share of the area that is kept. scale: factor on both sides. quality: of the JPEG file, None for a lossless
    one. cover: share of the screen under another window, unmarked and opaque. Raises UsageError for values out of
    range.

    >>> Shot(crop=0.25, scale=2.0)(np.zeros((1, 3, 64, 96), np.float32)).shape
    (1, 3, 64, 96)
    """

    crop: float = 1.0
    scale: float = 1.0
    quality: int | None = None
    cover: float = 0.0

    def __post_init__(self) -> None:
        fine = 0 < self.crop <= 1 and 0.1 <= self.scale <= 4 and 0 <= self.cover < 1
        if not fine or not (self.quality is None or 1 <= self.quality <= 100):
            raise UsageError(f"{self} is out of range: crop (0, 1], scale 0.1 to 4, quality 1 to 100, cover below 1.")

    @property
    def name(self) -> str:
        """For tables."""
        file = "lossless" if self.quality is None else f"JPEG {self.quality}"
        return f"crop {self.crop:.2g}, scale {self.scale:.3g}, {file}, cover {self.cover:.2g}"

    def __call__(self, screens: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """screens float N×3×H×W in [0, 1] -> float32 with eight-bit values; places differ between the pictures."""
        images = covered(screens, self.cover, seed) if self.cover else screens
        if self.crop < 1:
            images = distort(images, "crop", self.crop, seed=seed)
        if self.scale != 1:
            images = distort(images, "resize", self.scale, seed=seed)
        return distort(images, "identity", 0) if self.quality is None else distort(images, "jpeg", self.quality)


def covered(screens: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Screens float N×3×H×W with an opaque window of that share of the area at a random place of each."""
    screens = np.array(screens, np.float32)
    height, width = screens.shape[2:]
    for index, screen in enumerate(screens):
        draws = rng(seed, "covering window", index)
        stretch = math.exp(draws.uniform(-0.3, 0.3))
        tall = min(height, max(1, round(height * math.sqrt(share) * stretch)))
        wide = min(width, max(1, round(height * width * share / tall)))
        top, left = int(draws.integers(height - tall + 1)), int(draws.integers(width - wide + 1))
        window = _window(str(draws.choice(("text", "ui"))), tall, wide, draws, None)
        screen[:, top : top + tall, left : left + wide] = window.transpose(2, 0, 1).astype(np.float32) / 255
    return screens


def draw_shot(draws: np.random.Generator) -> Shot:
    """A screenshot as they are taken: crop 40 to 100 %, scale 0.5 to 2, JPEG 50 to 95, half covered by up to 30 %."""
    return Shot(
        crop=float(draws.uniform(0.4, 1)),
        scale=float(2 ** draws.uniform(-1, 1)),
        quality=int(draws.integers(50, 96)),
        cover=float(draws.uniform(0.05, 0.3)) if draws.random() < 0.5 else 0.0,
    )
