"""Noise level: a region whose finest detail is stronger or weaker than its texture explains.

Every picture has one chain of sensor, scaling and coding, which ties the energy of the finest band to the energy of
the coarser bands and to brightness. Per block, with w1 the diagonal band and w2, w3 the coarser ones of a Haar
pyramid,

    log|w1| = f(log|w2|, log|w3|, brightness) + z,

f being fitted to the picture itself with robust weights. Added grain lifts z over a region, blur, denoising and
inpainting lower it, and pasted parts with another past may do either. The score compares the most deviating
connected region with what regions of the same size do elsewhere in the picture.

Sources: Exposing Region Splicing Forgeries with Blind Local Noise Estimation, IJCV 2014; Using noise inconsistencies
for blind image forensics, Image and Vision Computing 2009 (wavelet noise estimate by the median).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

#: Picture side in blocks below which there is nothing to compare a region with.
_FEWEST = 10


class NoiseLevel:
    """Finds a connected region whose noise level deviates from the rest of the picture.

    block: side of a block in pixels (blocks overlap by half). regions: sides of the compared regions as shares of the
    shorter side of the picture.

    >>> from vestige.core.image_io import encode
    >>> g = np.random.default_rng(0)
    >>> picture = cv2.GaussianBlur(g.normal(128, 200, (256, 256)), (0, 0), 6) + g.normal(0, 3, (256, 256))
    >>> picture[60:140, 60:140] += g.normal(0, 9, (80, 80))
    >>> finding = NoiseLevel().find(ImageSubject(encode(picture.clip(0, 255).astype(np.uint8), "PNG")))
    >>> bool(finding.map[100, 100] > finding.map[220, 220])
    True
    """

    slug = "noise_level"
    kind = "edit"

    def __init__(self, *, block: int = 16, regions: tuple[float, ...] = (0.16, 0.24, 0.34)) -> None:
        self.block = block
        self.regions = regions

    def find(self, subject: ImageSubject) -> Finding:
        """Score and map; does not apply to tiny pictures and to pictures without noise (flat, graphics)."""
        luma = subject.luma
        step = self.block // 2
        if min(luma.shape) < _FEWEST * step:
            return Finding.not_applicable(
                self.slug, self.kind, f"the picture is smaller than {_FEWEST * step} pixels on a side."
            )
        # blocks grow with the picture: a region is judged by its share, and memory stays bounded
        scale = max(1, round(math.sqrt(luma.size / 1_500_000)))
        features = _block_features(luma, step * scale)
        usable = features[-1] > 0
        if usable.mean() < 0.25:
            return Finding.not_applicable(
                self.slug, self.kind, "most of the picture is flat or clipped and carries no noise to measure."
            )
        deviation = _deviation(features, usable)
        score, sign, smooth = _strongest_region(deviation, usable, self.regions)
        marked = np.clip(sign * smooth / 6.0, 0, 1).astype(np.float32)
        full = cv2.resize(marked, None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
        share = float((marked > 0.5).mean())
        factor = math.exp(sign * float(np.median(np.abs(deviation[marked > 0.5])))) if share else 1.0
        kind = "stronger" if sign > 0 else "weaker"
        return Finding(
            self.slug,
            self.kind,
            score,
            "One region has a noise level that its texture and brightness do not explain, as after local blurring, "
            "denoising, added grain or pasting; shallow depth of field can look alike.",
            "No region has a noise level that stands out from the rest of the picture.",
            evidence=(
                f"the most deviating region has finest detail {kind} than expected from its texture, by a factor of about "
                f"{factor:.2f}, over {100 * share:.1f} % of the picture",
            ),
            map=subject.upright(full),
            map_caption=f"parts with {kind} noise than their texture and brightness explain",
            details={"factor": round(factor, 3), "share": round(share, 4)},
        )


def _block_features(luma: np.ndarray, step: int) -> np.ndarray:
    """float32 5×h×w on a grid of ``step`` pixels: log energy of three bands, brightness and usability."""
    height, width = (n // step for n in luma.shape)
    out = np.zeros((5, height, width), np.float32)
    rows = max(1, 2_000_000 // (step * luma.shape[1]))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        y0, y1 = max(top * step - 8, 0), min(bottom * step + 8, luma.shape[0])
        strip = np.ascontiguousarray(luma[y0:y1, : width * step])
        inner = slice(top * step - y0, bottom * step - y0)
        smooth1 = cv2.GaussianBlur(strip, (0, 0), 1.0)
        smooth2 = cv2.GaussianBlur(strip, (0, 0), 2.2)
        d = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
        bands = (np.abs(cv2.filter2D(strip, -1, d)), np.abs(smooth1 - smooth2), np.abs(smooth2 - cv2.GaussianBlur(smooth2, (0, 0), 3.5)))  # fmt: skip
        for k, band in enumerate(bands):
            out[k, top:bottom] = _cells(band[inner], step)
        out[3, top:bottom] = _cells(strip[inner], step)
        clipped = ((strip[inner] < 2) | (strip[inner] > 253)).astype(np.float32)
        out[4, top:bottom] = _cells(clipped, step) < 0.3
    out[4] *= (out[1] > 0.12) | (out[0] > 0.12)
    out[:3] = np.log(out[:3] + np.float32(0.15))
    out[3] /= 128.0
    return out


def _cells(values: np.ndarray, step: int) -> np.ndarray:
    return values.reshape(values.shape[0] // step, step, values.shape[1] // step, step).mean((1, 3))


def _deviation(features: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Log residual of the finest band given the coarser ones and brightness, by reweighted least squares (h×w)."""
    fine, mid, coarse, light = features[:4].astype(np.float64)
    columns = [np.ones_like(mid), mid, coarse, light, mid * mid, light * light, mid * coarse]
    x = np.stack([c[usable] for c in columns], 1)
    y = fine[usable]
    weight = np.ones(len(y))
    ridge = 1e-3 * len(y) * np.eye(x.shape[1])
    for _ in range(8):
        wx = x * weight[:, None]
        solution = np.linalg.solve(wx.T @ x + ridge, wx.T @ y)
        residual = y - x @ solution
        spread = 1.4826 * np.median(np.abs(residual)) + 1e-3
        weight = 1.0 / (1.0 + (residual / (2.0 * spread)) ** 2)
    out = np.zeros(fine.shape)
    out[usable] = residual
    return out


def _strongest_region(deviation: np.ndarray, usable: np.ndarray, shares: tuple[float, ...]) -> tuple[float, int, np.ndarray]:
    """Score, sign and smoothed z (h×w) of the region that departs most from all regions of its size."""
    side = min(deviation.shape)
    best: tuple[float, int, np.ndarray] = (-1.0, 1, np.zeros(deviation.shape))
    values = deviation[usable]
    spread = 1.4826 * float(np.median(np.abs(values - np.median(values)))) + 0.03
    z = np.where(usable, np.clip((deviation - np.median(values)) / spread, -5, 5), 0).astype(np.float32)
    mask = usable.astype(np.float32)
    for share in shares:
        k = max(3, round(share * side)) | 1
        inside = cv2.blur(mask, (k, k), borderType=cv2.BORDER_CONSTANT)
        mean = cv2.blur(z, (k, k), borderType=cv2.BORDER_CONSTANT) / np.maximum(inside, 0.05)
        valid = inside > 0.35
        if valid.sum() < 12:
            continue
        centre = np.median(mean[valid])
        scatter = 1.4826 * float(np.median(np.abs(mean[valid] - centre))) + 0.12
        field = np.where(valid, (mean - centre) / scatter, 0)
        for sign in (1, -1):
            top = float((sign * field).max())
            if top > best[0]:
                best = (top, sign, field)
    return math.log1p(max(best[0], 0.0)), best[1], best[2]
