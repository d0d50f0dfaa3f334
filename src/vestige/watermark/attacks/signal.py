"""Attacks without a model: the distortions of `vestige.data.distortions`, denoising, dither, pasting, platforms."""

from __future__ import annotations

import math

import numpy as np

from vestige.core.runtime import rng
from vestige.data.distortions import compose, distort
from vestige.data.distortions_real import resize
from vestige.watermark.attacks.registry import ATTACKS, Context, ImageAttack, Pictures, Run, register

#: name: (family, ladder, quick), strengths from mild to severe. Their ranges and meanings come from the distortions.
_DISTORTIONS: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "identity": ("signal", (0,), (0,)),
    "blur": ("signal", (0.5, 1, 2, 3), (1,)),
    "median": ("signal", (3, 5, 7), (3,)),
    "motion_blur": ("signal", (3, 5, 9), (5,)),
    "sharpen": ("signal", (1, 2, 4), (2,)),
    "noise": ("signal", (0.01, 0.02, 0.05, 0.1), (0.02,)),
    "salt_pepper": ("signal", (0.005, 0.01, 0.05, 0.1), (0.01,)),
    "brightness": ("signal", (1.2, 0.8, 1.5, 0.5, 2), (1.2, 0.8)),
    "contrast": ("signal", (1.2, 0.8, 1.5, 0.5, 2), (1.2, 0.8)),
    "saturation": ("signal", (1.5, 0.5, 0), (0.5,)),
    "hue": ("signal", (0.02, 0.05, 0.1, 0.25), (0.05,)),
    "gamma": ("signal", (0.8, 1.25, 0.5, 2), (1.25,)),
    "quantize": ("signal", (6, 5, 4, 3), (5,)),
    "overlay": ("signal", (0.05, 0.1, 0.2, 0.4), (0.1,)),
    "jpeg": ("compression", (90, 75, 50, 30, 10), (75, 50)),
    "webp": ("compression", (90, 70, 50, 30), (70,)),
    "avif": ("compression", (75, 60, 45, 30), (60,)),
    "resize": ("geometric", (1.5, 0.75, 0.5, 0.25), (0.5, 1.5)),
    "resize_back": ("geometric", (0.75, 0.5, 0.25), (0.5,)),
    "crop": ("geometric", (0.9, 0.8, 0.5, 0.25, 0.1), (0.8, 0.5)),
    "crop_resize": ("geometric", (0.9, 0.75, 0.5, 0.25), (0.75,)),
    "rotate": ("geometric", (1, 2, 5, 15, 45), (5, 15)),
    "flip": ("geometric", (1, 2, 3), (1,)),
    "aspect": ("geometric", (1.1, 1.25, 1.5), (1.25,)),
    "perspective": ("geometric", (0.05, 0.1, 0.2), (0.1,)),
    "border": ("geometric", (0.05, 0.1, 0.2), (0.1,)),
    "screenshot": ("platform", (0.25, 0.5, 0.75, 1), (0.5,)),
    "print_scan": ("platform", (0.25, 0.5, 0.75, 1), (0.5,)),
}


def _distortion(name: str) -> Run:
    return lambda images, strength, seed, context: distort(images, name, strength, seed=seed)


def _register_distortions() -> None:
    from vestige.data.distortions import DISTORTIONS

    for name, (family, ladder, quick) in _DISTORTIONS.items():
        found = DISTORTIONS[name]
        ATTACKS[name] = ImageAttack(
            name, family, found.meaning, ladder, quick, found.low, found.high, aligned=not found.geometric,
            run=_distortion(name),
        )  # fmt: skip


_register_distortions()


@register("signal", "filter strength h of non-local means in grey levels", (3, 6, 10, 15), (6,), 0, 100)
def _denoise(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    import cv2

    pixels = np.floor(images.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    pictures = [np.ascontiguousarray(p.transpose(1, 2, 0)) for p in pixels]
    made = [cv2.fastNlMeansDenoisingColored(p, None, strength, strength, 5, 15) for p in pictures]
    return np.stack(made).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


@register("signal", "half-width in grey levels of the uniform noise added before rounding", (1, 2, 4), (1,), 0, 255)
def _dither(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    generator = rng(seed, "dither")
    return images + generator.uniform(-strength / 255, strength / 255, images.shape).astype(np.float32)


@register(
    "platform",
    "scale factor of both sides before saving as JPEG of quality 70",
    (0.9, 0.75, 0.5, 0.33),
    (0.5,),
    0.01,
    8,
    aligned=False,
)
def _platform(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return compose([("resize", strength), ("jpeg", 70)])(images, seed=seed)


@register(
    "platform",
    "fraction of the area kept, then halved scale, a caption box of 5 % and JPEG 60",
    (0.9, 0.75, 0.5),
    (0.75,),
    0.01,
    1,
    aligned=False,
)
def _repost(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return compose([("crop", strength), ("resize", 0.5), ("overlay", 0.05), ("jpeg", 60)])(images, seed=seed)


@register(
    "platform",
    "number of the frame of a seeded pan, zoom and turn over the picture, each frame compressed",
    (4, 9, 14, 19),
    (9,),
    1,
    100,
    aligned=False,
)
def _video(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    import cv2

    height, width = images.shape[2:]
    frames = []
    for index, picture in enumerate(images):
        pan_x, pan_y, zoom, turn = rng(seed, "video", index).uniform(-1, 1, 4)
        # A 20-frame clip drifts by up to 10 % of the sides, 15 % in scale and 4 degrees.
        part = strength / 20
        matrix = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), 4 * turn * part, 1 + 0.15 * abs(zoom) * part
        )
        matrix[:, 2] += (0.1 * pan_x * part * width, 0.1 * pan_y * part * height)
        moved = cv2.warpAffine(
            np.ascontiguousarray(picture.transpose(1, 2, 0)), matrix, (width, height), None, cv2.INTER_LINEAR,
            cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        frames.append(moved.transpose(2, 0, 1))
    return distort(np.stack(frames), "jpeg", 60)


@register(
    "geometric",
    "fraction of the sides that the picture takes of the one it is pasted into (the size grows)",
    (0.8, 0.6, 0.4),
    (0.6,),
    0.05,
    1,
    aligned=False,
)
def _crop_paste(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    """The middle 81 % of the picture, at its own scale, in a picture of the pool (smooth colour without one)."""
    part = distort(images, "crop", 0.81, seed=seed)
    height, width = part.shape[2:]
    high, wide = max(height, math.ceil(height / strength)), max(width, math.ceil(width / strength))
    generator = rng(seed, "crop_paste")
    made = []
    for index, picture in enumerate(part):
        canvas = _scene(context, index, high, wide, generator)
        top, left = (int(generator.integers(0, spare + 1)) for spare in (high - height, wide - width))
        canvas[:, top : top + height, left : left + width] = picture
        made.append(canvas)
    return distort(np.stack(made), "jpeg", 85)


def _scene(context: Context, index: int, height: int, width: int, generator: np.random.Generator) -> Pictures:
    if len(context.pool):
        return fitted(context.pool[(index + 1) % len(context.pool)], height, width)[0].copy()
    coarse = generator.uniform(0.1, 0.9, (1, 3, 4, 4)).astype(np.float32)
    return resize(coarse, height, width)[0].clip(0, 1)


def fitted(picture: Pictures, height: int, width: int) -> Pictures:
    """1×3×h×w scaled to cover height×width and cut to it around the middle."""
    old_height, old_width = picture.shape[2:]
    scale = max(height / old_height, width / old_width)
    high, wide = max(height, round(old_height * scale)), max(width, round(old_width * scale))
    scaled = picture if (high, wide) == (old_height, old_width) else resize(picture, high, wide)
    top, left = (high - height) // 2, (wide - width) // 2
    return scaled[:, :, top : top + height, left : left + width].clip(0, 1)
