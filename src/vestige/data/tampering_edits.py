"""The edits behind `tampering`: each computes new content for the box around a region of an eight-bit picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.image_io import Limits, decode, encode

#: Files written here are trusted: a flat region may compress as well as it likes.
_TRUSTED = Limits(max_pixels_per_byte=math.inf)


@dataclass
class Edit:
    """What an operation works with: the eight-bit picture, the region, and the box around the region."""

    pixels: np.ndarray
    mask: np.ndarray
    donor: np.ndarray | None
    generator: np.random.Generator
    attempt: int
    details: dict[str, Any]

    def __post_init__(self) -> None:
        import cv2

        self.left, self.top, self.width, self.height = cv2.boundingRect(self.mask.astype(np.uint8))
        self.inside = self.mask[self.top : self.top + self.height, self.left : self.left + self.width]
        self.before = self.window()

    def window(self, margin: int = 0, source: np.ndarray | None = None) -> np.ndarray:
        """The picture (or another array of its size) in the box, widened by a margin as far as the picture reaches."""
        array = self.pixels if source is None else source
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        return array[top : self.top + self.height + margin, left : self.left + self.width + margin]

    def trim(self, widened: np.ndarray, margin: int) -> np.ndarray:
        """Cut a widened window back to the box."""
        top, left = min(margin, self.top), min(margin, self.left)
        return widened[top : top + self.height, left : left + self.width]

    def uniform(self, low: float, high: float) -> float:
        """A seeded number that is recorded by the operation."""
        return float(self.generator.uniform(low, high))

    def stronger(self, low: float, high: float) -> float:
        """As `uniform`, growing with every attempt that changed too little."""
        return self.uniform(low, high) * (1 + 0.7 * (self.attempt % 3))


def splice(edit: Edit) -> np.ndarray | None:
    import cv2

    donor = edit.donor
    assert donor is not None
    scale = max(1.0, edit.height / donor.shape[0], edit.width / donor.shape[1])
    height = min(donor.shape[0], math.ceil(edit.height / scale))
    width = min(donor.shape[1], math.ceil(edit.width / scale))
    top = int(edit.generator.integers(donor.shape[0] - height + 1))
    left = int(edit.generator.integers(donor.shape[1] - width + 1))
    mirrored = bool(edit.generator.integers(2))
    patch = donor[top : top + height, left : left + width, :]
    patch = patch[:, ::-1] if mirrored else patch
    if (height, width) != (edit.height, edit.width):
        patch = cv2.resize(np.ascontiguousarray(patch), (edit.width, edit.height), interpolation=cv2.INTER_CUBIC)
    edit.details |= {"donor_box": (top, left, height, width), "scale": scale, "mirrored": mirrored}
    return patch


def copy_move(edit: Edit) -> np.ndarray | None:
    import cv2

    height, width = edit.mask.shape
    plain = bool(edit.generator.integers(2))
    angle, scale = (0.0, 1.0) if plain else (edit.uniform(-30, 30), edit.uniform(0.75, 1.3))
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    half = np.array([[abs(cos), abs(sin)], [abs(sin), abs(cos)]]) @ (edit.width / 2, edit.height / 2)
    if not plain and (2 * half > (width - 1, height - 1)).any():
        angle, scale, cos, sin, plain = 0.0, 1.0, 1.0, 0.0, True
    turn = np.array([[cos, -sin], [sin, cos]])
    target = np.array([edit.left + (edit.width - 1) / 2, edit.top + (edit.height - 1) / 2])
    rows, columns = np.nonzero(edit.mask)
    some = edit.generator.integers(len(rows), size=512)
    relative = np.stack([columns[some], rows[some]], 1) - target
    best, overlap = target, 1.0
    for _ in range(24):
        if plain:
            corner = edit.generator.integers((width - edit.width + 1, height - edit.height + 1))
            source = corner + np.array([edit.width - 1, edit.height - 1]) / 2
        else:
            source = edit.generator.uniform(half, (width - 1, height - 1) - half)
        points = np.round(relative @ turn.T + source).astype(int).clip(0, (width - 1, height - 1))
        share = float(edit.mask[points[:, 1], points[:, 0]].mean())
        if share < overlap:
            best, overlap = source, share
        if overlap < 0.02:
            break
    if overlap > 0.6:
        return None  # the region is too large for a copy from elsewhere
    matrix = np.concatenate([turn, (best - turn @ target)[:, None]], 1)
    found = np.zeros_like(edit.mask)
    if plain:
        dx, dy = (round(float(d)) for d in best - target)
        patch = edit.pixels[edit.top + dy : edit.top + dy + edit.height, edit.left + dx : edit.left + dx + edit.width]
        found[rows + dy, columns + dx] = True
    else:
        local = matrix.copy()
        local[:, 2] += turn @ (edit.left, edit.top)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        size = (edit.width, edit.height)
        patch = cv2.warpAffine(edit.pixels, local, size, None, flags, cv2.BORDER_REPLICATE)
        shown = edit.mask.astype(np.uint8)
        found = cv2.warpAffine(shown, matrix, (width, height), None, cv2.INTER_NEAREST).astype(bool)
    offset = (float(target[1] - best[1]), float(target[0] - best[0]))
    edit.details |= {"source_mask": found[None], "offset": offset, "scale": scale, "angle": angle}
    return patch


def removal(edit: Edit) -> np.ndarray | None:
    import cv2

    if edit.generator.integers(2):
        patch = _cover_up(edit)
        if patch is not None:
            return patch
    method = "telea" if edit.generator.integers(2) else "navier-stokes"
    flag = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    hole = int(edit.inside.sum())
    scale = min(1.0, math.sqrt(6_000 / hole))  # the fill is smooth, so a large hole loses nothing at a coarser scale
    margin = math.ceil(6 / scale)
    around = edit.window(margin)
    mask = edit.window(margin, edit.mask)
    size = (max(2, round(around.shape[1] * scale)), max(2, round(around.shape[0] * scale)))
    small = cv2.resize(np.ascontiguousarray(around), size, interpolation=cv2.INTER_AREA)
    holes = (cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    filled = cv2.inpaint(small, holes, 3, flag)
    edit.details["method"] = method
    return edit.trim(cv2.resize(filled, around.shape[1::-1], interpolation=cv2.INTER_LINEAR), margin)


def _cover_up(edit: Edit) -> np.ndarray | None:
    """Content from the shifted place whose surroundings match best, or None when there is no room for a shift."""
    import cv2

    height, width = edit.mask.shape
    scale = min(1.0, 96 / min(height, width), 256 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(edit.pixels, size, interpolation=cv2.INTER_AREA).astype(np.int16)
    mask = cv2.resize(edit.mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    ring = (cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0) & (mask == 0)
    rows, columns = np.nonzero(ring)
    best, mismatch = None, math.inf
    for _ in range(60):
        top = int(edit.generator.integers(height - edit.height + 1))
        left = int(edit.generator.integers(width - edit.width + 1))
        y, x = rows + round((top - edit.top) * scale), columns + round((left - edit.left) * scale)
        if (edit.inside & edit.mask[top : top + edit.height, left : left + edit.width]).mean() > 0.02:
            continue
        valid = (y >= 0) & (y < size[1]) & (x >= 0) & (x < size[0])
        if not valid.any():
            continue
        error = float(np.abs(small[y[valid], x[valid]] - small[rows[valid], columns[valid]]).mean())
        if error < mismatch:
            best, mismatch = (top, left), error
    if best is None:
        return None
    edit.details |= {"method": "cover-up", "offset": (edit.top - best[0], edit.left - best[1])}
    return edit.pixels[best[0] : best[0] + edit.height, best[1] : best[1] + edit.width]


def recolor(edit: Edit) -> np.ndarray | None:
    import cv2

    hsv = cv2.cvtColor(edit.before.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    turn = edit.uniform(30, 330)
    level = float(hsv[..., 2][edit.inside].mean())
    value = edit.uniform(0.6, 0.85) if level > 0.55 or edit.generator.random() < 0.3 else edit.uniform(1.2, 1.5)
    hsv[..., 0] = (hsv[..., 0] + turn) % 360
    hsv[..., 1] = np.minimum(hsv[..., 1] * edit.uniform(0.9, 1.4), 1)
    hsv[..., 2] = np.minimum(hsv[..., 2] * value + 0.01 * (edit.attempt % 3), 1)
    edit.details |= {"hue_turn": turn / 360, "value_factor": value}
    return to8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255)


def local_blur(edit: Edit) -> np.ndarray | None:
    import cv2

    sigma = edit.stronger(1.0, 3.0)
    margin = math.ceil(3 * sigma)
    edit.details["sigma"] = sigma
    return edit.trim(cv2.GaussianBlur(np.ascontiguousarray(edit.window(margin)), (0, 0), sigma), margin)


def local_noise(edit: Edit) -> np.ndarray | None:
    sigma = edit.stronger(4.0, 16.0)
    channels = 1 if edit.generator.integers(2) else 3
    grain = edit.generator.standard_normal((edit.height, edit.width, channels), np.float32)
    edit.details |= {"sigma": sigma / 255, "grey": channels == 1}
    return to8(edit.before + np.float32(sigma) * grain)


def local_sharpen(edit: Edit) -> np.ndarray | None:
    import cv2

    amount, sigma = edit.stronger(1.0, 3.0), edit.uniform(0.8, 2.0)
    around = np.ascontiguousarray(edit.window(8)).astype(np.float32)
    edit.details |= {"amount": amount, "sigma": sigma}
    return to8(edit.trim(around + amount * (around - cv2.GaussianBlur(around, (0, 0), sigma)), 8))


def local_resample(edit: Edit) -> np.ndarray | None:
    import cv2

    scale = edit.uniform(0.35, 0.75) / (1 + 0.7 * (edit.attempt % 3))
    around = np.ascontiguousarray(edit.window(8))
    size = (max(2, round(around.shape[1] * scale)), max(2, round(around.shape[0] * scale)))
    small = cv2.resize(around, size, interpolation=cv2.INTER_AREA)
    edit.details["scale"] = scale
    return edit.trim(cv2.resize(small, around.shape[1::-1], interpolation=cv2.INTER_CUBIC), 8)


def text(edit: Edit) -> np.ndarray | None:
    from PIL import Image, ImageDraw, ImageFont

    lines = int(edit.generator.integers(1, 5))
    pitch = edit.height / lines
    font = ImageFont.load_default(max(6.0, 0.95 * pitch))
    canvas = Image.new("L", (edit.width, edit.height))
    draw = ImageDraw.Draw(canvas)
    letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    written = []
    for line in range(lines):
        count = max(1, math.ceil(edit.width / (0.4 * pitch)))
        words = "".join(edit.generator.choice(letters, count))
        draw.text((0, line * pitch), words, 255, font, stroke_width=round(0.04 * pitch))
        written.append(words)
    ink = np.asarray(canvas)
    ink = np.where(ink >= 16, ink, 0).astype(np.float32)[..., None] / 255
    level = edit.before.mean()
    colour = edit.generator.uniform(0, 60, 3) if level > 128 else edit.generator.uniform(195, 255, 3)
    edit.inside &= ink[..., 0] > 0
    edit.details |= {"text": written, "colour": tuple(int(c) for c in colour)}
    return to8(edit.before * (1 - ink) + colour.astype(np.float32) * ink)


def erase_fill(edit: Edit) -> np.ndarray | None:
    mean = tuple(edit.before[edit.inside].mean(0).astype(int).tolist())
    fills = {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "mean": mean}
    name = str(edit.generator.choice(list(fills)))
    edit.details["fill"] = name
    return np.broadcast_to(np.array(fills[name], np.uint8), edit.before.shape)


def local_jpeg(edit: Edit) -> np.ndarray | None:
    quality = max(5, round(edit.uniform(25, 75) / (1 + (edit.attempt % 3))))
    margin = int(edit.generator.integers(8, 16))
    around = decode(encode(edit.window(margin), "JPEG", quality=quality, subsampling=2), "region", _TRUSTED).pixels
    grid = (max(0, edit.top - margin) % 8, max(0, edit.left - margin) % 8)
    edit.details |= {"quality": quality, "grid": grid}
    return edit.trim(around, margin)


def to8(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 255) + 0.5).astype(np.uint8)
