"""Attacks of someone who can have pictures marked: averaging residuals away, and forging marks.

A mark that adds much the same pattern to every picture is found by averaging: of K marked pictures the contents differ
and the pattern stays. Sources: Kutter, Voloshynovskiy, Herrigel, Watermark copy attack, SPIE 2000 (copying a mark);
Robustness of AI-Image Detectors: Fundamental Limits and Practical Attacks, ICLR 2024 (spoofing by marked noise);
Yang et al., Can Simple Averaging Defeat Modern Watermarks?, NeurIPS 2024 (averaging).
"""

from __future__ import annotations

import numpy as np

from vestige.core.runtime import rng
from vestige.watermark.attacks.registry import Context, Pictures, eight_bit, register
from vestige.watermark.attacks.signal import fitted


def residual(images: Pictures) -> Pictures:
    """What a denoiser takes away, N×3×H×W: the detail in which faint marks live, and the picture's own noise."""
    import cv2

    def one(picture: Pictures) -> Pictures:
        # Wiener filter on a 3×3 neighbourhood: flat areas are smoothed, edges stay out of the residual.
        mean = np.stack([cv2.blur(c, (3, 3), borderType=cv2.BORDER_REFLECT) for c in picture])
        square = np.stack([cv2.blur(c * c, (3, 3), borderType=cv2.BORDER_REFLECT) for c in picture])
        variance = np.maximum(square - mean * mean, 0)
        noise = np.median(variance)
        share = np.minimum(noise / np.maximum(variance, 1e-8), 1)
        return share * (picture - mean)

    return np.stack([one(p) for p in images.astype(np.float32)])


def _marked(context: Context, count: int, height: int, width: int) -> Pictures:
    """``count`` marked pictures of one size, from the pool, mirrored when it has to be used again."""
    assert context.service is not None
    chosen = []
    for i in range(count):
        picture = fitted(context.pool[i % len(context.pool)], height, width)
        chosen.append(picture[..., ::-1] if (i // len(context.pool)) % 2 else picture)
    return eight_bit(context.service(np.ascontiguousarray(np.concatenate(chosen))))


@register(
    "collusion",
    "number of marked pictures whose mean residual is taken as the mark and subtracted",
    (4, 8, 16, 32),
    (8,),
    1,
    1000,
    needs=("service", "pool"),
)
def _average(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    marked = _marked(context, round(strength), *images.shape[2:])
    pattern = residual(marked).mean(0)
    return images - pattern


@register(
    "forgery",
    "factor on the residual of a marked picture that is added to an unmarked one",
    (0.5, 1, 2),
    (1,),
    0,
    20,
    needs=("service", "pool"),
    forges=True,
)
def _copy(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    (source,) = _marked(context, 1, *images.shape[2:])
    return images + np.float32(strength) * residual(source[None])


@register(
    "forgery",
    "number of marked pictures whose mean residual is added to an unmarked one",
    (4, 8, 16, 32),
    (8,),
    1,
    1000,
    needs=("service", "pool"),
    forges=True,
)
def _forge_average(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return images + residual(_marked(context, round(strength), *images.shape[2:])).mean(0)


@register(
    "forgery",
    "largest grey level of the marked noise that is added to the darkened picture",
    (128, 192, 255),
    (255,),
    1,
    255,
    needs=("service",),
    forges=True,
)
def _spoof(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    """x_s = clip(0.7 x + n_w·M/max(n_w)), n_w marked noise stretched to [0, strength], M = 255 - max(0.7 x)."""
    assert context.service is not None
    noise = rng(seed, "spoof").standard_normal(images.shape).astype(np.float32)
    low, high = noise.min((1, 2, 3), keepdims=True), noise.max((1, 2, 3), keepdims=True)
    stretched = (noise - low) / np.maximum(high - low, 1e-6) * np.float32(strength / 255)
    marked = eight_bit(context.service(eight_bit(stretched)))
    dark = np.float32(0.7) * images
    room = 1 - dark.max((1, 2, 3), keepdims=True)
    return dark + marked * room / np.maximum(marked.max((1, 2, 3), keepdims=True), 1e-6)


@register(
    "substitution",
    "largest change in grey levels against a classifier that stands in for the detector",
    (4, 8, 12),
    (8,),
    0.1,
    64,
    needs=("substitute",),
)
def _substitute(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return np.concatenate(
        [context.substitute.attack(one[None], epsilon=strength / 255, steps=40, passes=1) for one in images]
    )
