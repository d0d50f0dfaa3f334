"""Noise level: a region whose finest detail is stronger or weaker than its texture explains.

Every picture has one chain of sensor, scaling and coding, which ties the energy of the finest band to the energy of
the coarser bands and to brightness. Per block, with w1 the finest diagonal band and w2, w3 coarser band-passes,

    log|w1| = f(log|w2|, log|w3|, brightness) + z,

f f being fitted to the picture itself with robust weights. Added grain lifts z over a region, blur, denoising and
inpainting lower it, and pasted parts with another past may do either. A region counts by the z that four fifths of
its blocks reach, so that texture, which is never that even, is discounted. The statistic is weak by nature: depth of
field and materials change the finest band too.

Sources: Exposing Region Splicing Forgeries with Blind Local Noise Estimation, IJCV 2014; Using noise inconsistencies
for blind image forensics, Image and Vision Computing 2009 (wavelet noise estimate by the median).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.ndimage import percentile_filter

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

#: Picture side in blocks below which there is nothing to compare a region with.
_FEWEST = 10
#: Deviation (log units) that one untouched photograph in fifty reaches, for weaker and for stronger noise.
_USUAL = (1.0, 1.0)


class NoiseLevel:
    """Finds a region whose noise level deviates from the rest of the picture.

    block: least side of a block in pixels; blocks grow with the picture, ``across`` of them fitting its shorter side.
    region: side of the compared regions as a share of the shorter side. agreeing: share of the blocks of a region that
    have to deviate.

    >>> from vestige.core.image_io import encode
    >>> g = np.random.default_rng(0)
    >>> picture = cv2.GaussianBlur(g.normal(128, 200, (256, 256)), (0, 0), 6) + g.normal(0, 3, (256, 256))
    >>> picture[60:140, 60:140] += g.normal(0, 9, (80, 80))
    >>> finding = NoiseLevel().find(ImageSubject(encode(picture.clip(0, 255).astype(np.uint8), "PNG")))
    >>> bool(finding.map[12, 12] > finding.map[27, 27])
    True
    """

    slug = "noise_level"
    photographs = True
    kind = "edit"

    def __init__(self, *, block: int = 8, across: int = 48, region: float = 0.16, agreeing: float = 0.8) -> None:
        self.block = block
        self.across = across
        self.region = region
        self.agreeing = agreeing

    def find(self, subject: ImageSubject) -> Finding:
        """Score and map; does not apply to tiny pictures and to pictures without noise (flat, graphics)."""
        luma = subject.luma
        if min(luma.shape) < _FEWEST * self.block:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {_FEWEST * self.block} pixels on a side."
            )
        features = _block_features(luma, max(self.block, min(luma.shape) // self.across))
        usable = features[-1] > 0
        if usable.mean() < 0.25:
            return Finding.not_applicable(
                self.slug, self.kind, "most of the picture is flat or clipped and carries no noise to measure."
            )
        weaker = -_deviation(features[[0, 2, 3, 4]], usable)
        stronger = _deviation(features[1:5], usable)
        regions = [self._agreed(z, usable) for z in (weaker, stronger)]
        relative = [float(r.max()) / usual for r, usual in zip(regions, _USUAL, strict=True)]
        which = int(relative[1] > relative[0])
        kind = ("weaker", "stronger")[which]
        marked = np.clip(regions[which] / (1.5 * _USUAL[which]), 0, 1).astype(np.float32)
        amount = float(regions[which].max())
        share = float((regions[which] > 0.7 * amount).mean())
        return Finding(
            self.slug,
            self.kind,
            relative[which],
            "One region has a noise level that its texture and brightness do not explain, as after local blurring, "
            "denoising, added grain or pasting; shallow depth of field, deep shadow or an unusual material can look "
            "alike.",
            "No region has a noise level that stands out from the rest of the picture.",
            evidence=(
                f"the most deviating region has finest detail {kind} than its texture predicts, by a factor of "
                f"{math.exp(amount):.1f}, around {100 * share:.1f} % of the picture",
            ),
            map=subject.upright(marked),
            map_caption=f"parts with {kind} noise than their texture and brightness explain",
            details={"weaker": round(relative[0], 4), "stronger": round(relative[1], 4)},
        )

    def _agreed(self, z: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """For every block, the z that the agreeing share of some region around it reaches (h×w, 0 where none does)."""
        side = max(3, round(self.region * min(z.shape))) | 1
        low = percentile_filter(np.where(usable, z, -9.0), 100 * (1 - self.agreeing), side, mode="constant", cval=-9.0)
        return np.maximum(cv2.dilate(low.astype(np.float32), np.ones((side - 2, side - 2), np.uint8)), 0)


def _block_features(luma: np.ndarray, step: int) -> np.ndarray:
    """float32 6×h×w on a grid of ``step`` pixels.

    Log energy of the finest band by its mean and by its median (the floor between textures), log energy of two
    coarser bands, brightness, and whether the block is neither clipped nor empty.
    """
    height, width = (n // step for n in luma.shape)
    out = np.zeros((6, height, width), np.float32)
    rows = max(1, 1_000_000 // (step * luma.shape[1]))
    diagonal = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        y0, y1 = max(top * step - 16, 0), min(bottom * step + 16, luma.shape[0])
        strip = np.ascontiguousarray(luma[y0:y1, : width * step])
        inner = slice(top * step - y0, bottom * step - y0)
        smooth = [cv2.GaussianBlur(strip, (0, 0), sigma) for sigma in (1.0, 2.2, 4.1)]
        finest = _cells(np.abs(cv2.filter2D(strip, -1, diagonal))[inner], step)
        out[0, top:bottom] = finest.mean(-1)
        out[1, top:bottom] = np.median(finest, axis=-1) * (0.798 / 0.6745)
        out[2, top:bottom] = _cells(np.abs(smooth[0] - smooth[1])[inner], step).mean(-1)
        out[3, top:bottom] = _cells(np.abs(smooth[1] - smooth[2])[inner], step).mean(-1)
        out[4, top:bottom] = _cells(strip[inner], step).mean(-1) / 128.0
        clipped = (strip[inner] < 2) | (strip[inner] > 253)
        out[5, top:bottom] = _cells(clipped, step).mean(-1) < 0.3
    out[5] *= (out[0] > 0.12) | (out[2] > 0.12)
    out[:4] = np.log(out[:4] + np.float32(0.15))
    return out


def _cells(values: np.ndarray, step: int) -> np.ndarray:
    """h×w -> (h/step)×(w/step)×step²."""
    height, width = values.shape[0] // step, values.shape[1] // step
    return values.reshape(height, step, width, step).swapaxes(1, 2).reshape(height, width, step * step)


def _deviation(features: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Log residual h×w of the finest band given two coarser ones and brightness, by reweighted least squares."""
    fine, mid, coarse, light = features.astype(np.float64)
    columns = [np.ones_like(mid), mid, coarse, light, mid * mid, light * light, mid * coarse]
    x = np.stack([c[usable] for c in columns], 1)
    y = fine[usable]
    weight = np.ones(len(y))
    residual = y
    for _ in range(8):
        wx = x * weight[:, None]
        solution = np.linalg.solve(wx.T @ x + 1e-3 * len(y) * np.eye(x.shape[1]), wx.T @ y)
        residual = y - x @ solution
        spread = 1.4826 * np.median(np.abs(residual)) + 1e-3
        weight = 1.0 / (1.0 + (residual / (2.0 * spread)) ** 2)
    out = np.zeros(fine.shape)
    out[usable] = residual - np.median(residual)
    return out
