"""Random edits of the kind that copies go through, for networks that learn to see past them."""

from __future__ import annotations

import cv2
import numpy as np

from vestige.data.distortions_real import codec


def edited(pixels: np.ndarray, size: int, random: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """A crop of the picture, uint8 size×size×3, after up to five edits of one geometry and four looks.

    pixels: uint8 H×W×3. strength: 0 leaves the crop, 1 crops down to a tenth of the area and edits heavily.
    """
    out = _cropped(pixels, size, random, strength)
    chances = {
        _flipped: 0.5, _turned: 0.3, _coloured: 0.6, _blurred: 0.25, _noisy: 0.15, _greyed: 0.15, _covered: 0.3,
        _worded: 0.25, _framed: 0.2, _pixelated: 0.1, _saved: 0.6,
    }  # fmt: skip
    for edit, chance in chances.items():
        if random.random() < chance * strength:
            out = edit(out, random)
    return out


def _cropped(pixels: np.ndarray, size: int, random: np.random.Generator, strength: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    area = random.uniform(1 - 0.9 * strength, 1)
    aspect = np.exp(random.uniform(-0.4, 0.4) * strength)
    h = int(np.clip(round(height * np.sqrt(area / aspect)), 8, height))
    w = int(np.clip(round(width * np.sqrt(area * aspect)), 8, width))
    y, x = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
    part = pixels[y : y + h, x : x + w]
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if min(h, w) > size else cv2.INTER_LINEAR)


def _flipped(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(p[:, ::-1] if random.random() < 0.85 else p[::-1])


def _turned(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    size = p.shape[0]
    angle = 90.0 * random.integers(4) if random.random() < 0.3 else random.uniform(-35, 35)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, random.uniform(0.9, 1.3))
    border = cv2.BORDER_REFLECT if random.random() < 0.5 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(p, matrix, (size, size), borderMode=border)


def _coloured(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    hsv = cv2.cvtColor(p, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + random.uniform(-25, 25)) % 180
    hsv[..., 1] *= random.uniform(0.3, 1.6)
    out = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    out = (out - 128) * random.uniform(0.6, 1.5) + 128 + random.uniform(-45, 45)
    return out.clip(0, 255).astype(np.uint8)


def _blurred(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(p, (0, 0), random.uniform(0.5, 2.5))


def _noisy(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return (p + random.normal(0, random.uniform(4, 25), p.shape)).clip(0, 255).astype(np.uint8)


def _greyed(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _covered(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One to three discs or boxes of one colour."""
    out, size = p.copy(), p.shape[0]
    for _ in range(int(random.integers(1, 4))):
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        x, y = (int(v) for v in random.integers(0, size, 2))
        r = int(size * random.uniform(0.05, 0.2))
        if random.random() < 0.5:
            cv2.circle(out, (x, y), r, colour, -1)
        else:
            cv2.rectangle(out, (x - r, y - r), (x + r, y + r // 2), colour, -1)
    return out


def _worded(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    out, size = p.copy(), p.shape[0]
    for _ in range(int(random.integers(1, 4))):
        text = "".join(chr(c) for c in random.integers(65, 91, int(random.integers(3, 10))))
        at = (int(random.integers(0, size // 2)), int(random.integers(size // 6, size)))
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        font = int(random.choice([cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
        cv2.putText(out, text, at, font, size / 200 * random.uniform(0.7, 2), colour, int(random.integers(1, 3)))
    return out


def _framed(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The picture smaller on a ground: a border, a screenshot's bars, another picture's place."""
    size = p.shape[0]
    h, w = (max(8, round(size * random.uniform(0.55, 0.95))) for _ in range(2))
    ground = np.empty_like(p)
    ground[:] = random.integers(0, 256, 3)
    if random.random() < 0.4:
        ground[: size // 12] = ground[-size // 12 :] = random.integers(0, 256, 3)
    y, x = int(random.integers(0, size - h + 1)), int(random.integers(0, size - w + 1))
    ground[y : y + h, x : x + w] = cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA)
    return ground


def _pixelated(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    size = p.shape[0]
    small = cv2.resize(p, (int(size * random.uniform(0.25, 0.6)),) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_NEAREST)


def _saved(p: np.ndarray, random: np.random.Generator) -> np.ndarray:
    images = p.transpose(2, 0, 1)[None].astype(np.float32) / 255
    saved = codec(images, "JPEG", int(random.integers(15, 90)))
    return (saved[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
