"""The methods behind `recolouring`: each gives new colours to an eight-bit picture and leaves its shapes."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from vestige.data.tampering_edits import to8
from vestige.data.tampering_regions import draw_region


@dataclass
class Work:
    """What a method works with.

    pixels: uint8 H×W×3. reference: the same of another size, for methods that take colours from a picture. strength:
    1, growing with every attempt that changed too little. mask: bool H×W, set by methods that leave a part as it is.
    """

    pixels: np.ndarray
    reference: np.ndarray | None
    generator: np.random.Generator
    strength: float = 1.0
    mask: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def lab(self) -> np.ndarray:
        return to_lab(self.pixels)

    @cached_property
    def reference_lab(self) -> np.ndarray:
        assert self.reference is not None
        return to_lab(self.reference)

    def uniform(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def turn(self, low: float = 40.0, high: float = 320.0) -> float:
        """An angle on the colour circle, in radians."""
        return math.radians(self.uniform(low, high))


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) float32 H×W×3 of sRGB uint8 H×W×3."""
    return cv2.cvtColor(pixels.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """uint8 H×W×3; colours outside sRGB are clipped."""
    return to8(cv2.cvtColor(np.ascontiguousarray(lab, np.float32), cv2.COLOR_LAB2RGB) * np.float32(255))


def statistics_transfer(work: Work) -> np.ndarray:
    """Mean and standard deviation of each Lab channel become the reference's (Reinhard et al., IEEE CG&A 2001).

    The paper's lαβ is replaced by Lab; a channel grows threefold at most, so that noise is not blown up.
    """
    mine, other = work.lab, work.reference_lab
    gain = np.clip(other.std((0, 1)) / np.maximum(mine.std((0, 1)), 1e-3), 0.25, 3.0)
    return from_lab((mine - mine.mean((0, 1))) * gain + other.mean((0, 1)))


def histogram_matching(work: Work) -> np.ndarray:
    """Every RGB channel gets the reference's distribution: y = F_ref⁻¹(F(x))."""
    assert work.reference is not None
    table = np.empty((1, 256, 3), np.uint8)
    levels = np.arange(256)
    for channel in range(3):
        counts = [np.bincount(p[..., channel].ravel(), minlength=256) for p in (work.pixels, work.reference)]
        mine, other = (np.cumsum(c) / c.sum() for c in counts)
        held = np.flatnonzero(counts[1])
        table[0, :, channel] = to8(np.interp(mine[levels], other[held], held.astype(float)))
    return cv2.LUT(work.pixels, table)


def palette_transfer(work: Work) -> np.ndarray:
    """The main colours move to those of the reference, all others with their neighbours among them.

    x' = x + Σ_k w_k(x) (c'_k - c_k), w_k ∝ exp(-|x - c_k|² / 2s²) with s the mean distance of the main colours. The
    main colours are k-means centres, paired by lightness, as in Palette-based Photo Recoloring, SIGGRAPH 2015; a third
    of the change in lightness is made.
    """
    count = int(work.generator.integers(3, 7))
    mine, other = (_palette(lab, count, work.generator) for lab in (work.lab, work.reference_lab))
    move = (other - mine).astype(np.float32)
    move[:, 0] /= 3
    apart = np.linalg.norm(mine[:, None] - mine[None], axis=2)
    spread = max(float(apart[np.triu_indices(len(mine), 1)].mean()) / 2, 5.0)
    weights = np.stack([np.square(work.lab - c).sum(2) for c in mine.astype(np.float32)])
    weights = np.exp((weights.min(0) - weights) / np.float32(2 * spread**2))
    weights /= weights.sum(0)
    work.details["colours"] = count
    return from_lab(work.lab + np.einsum("khw,kc->hwc", weights, move))


def segment_hues(work: Work) -> np.ndarray:
    """Segments of similar colour and place turn to hues of their own, with soft borders between them."""
    lab, count = work.lab, int(work.generator.integers(2, 6))
    height, width = lab.shape[:2]
    scale = min(1.0, 96 / max(height, width))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    small = cv2.resize(lab, size, interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32) * np.float32(40 / max(size))
    points = np.concatenate([small * np.array([0.5, 1, 1], np.float32), y[..., None], x[..., None]], 2).reshape(-1, 5)
    start = points[work.generator.choice(len(points), count, replace=False)]
    _, labels = _clusters(points, start)
    share: np.ndarray = np.stack([(labels == k).reshape(small.shape[:2]) for k in range(count)], 2).astype(np.float32)
    share = cv2.GaussianBlur(share, (0, 0), 1.0).reshape(*small.shape[:2], count)
    share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, count)
    a, b = lab[..., 1], lab[..., 2]
    moved = np.zeros((height, width, 2), np.float32)
    for k in range(count):
        turn, chroma = work.turn(), work.uniform(0.8, 1.3)
        tint, where = work.strength * work.uniform(4, 14), work.turn(0, 360)  # grey has no hue to turn
        cos, sin = chroma * math.cos(turn), chroma * math.sin(turn)
        moved[..., 0] += share[..., k] * (cos * a - sin * b + tint * math.cos(where))
        moved[..., 1] += share[..., k] * (sin * a + cos * b + tint * math.sin(where))
    work.details["segments"] = count
    return from_lab(np.dstack([lab[..., 0], moved / np.maximum(share.sum(2, keepdims=True), 1e-6)]))


def hue_and_curves(work: Work) -> np.ndarray:
    """Turn about the grey axis of RGB, then a tone curve for each channel."""
    turn = work.turn()
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = grey + math.cos(turn) * (np.eye(3) - grey) + math.sin(turn) * across
    turned = (work.pixels.astype(np.float32) @ rotation.T.astype(np.float32)).clip(0, 255)
    knots = np.array([0, 64, 128, 192, 255.0])
    for channel in range(3):
        bent = knots + np.array([0, *work.generator.uniform(-1, 1, 3), 0]) * 24 * min(work.strength, 2)
        curve = PchipInterpolator(knots, np.maximum.accumulate(bent))(np.arange(256))
        turned[..., channel] = np.interp(turned[..., channel], np.arange(256), curve)
    work.details["turn"] = math.degrees(turn)
    return to8(turned)


def graded(work: Work) -> np.ndarray:
    """A smooth random 3-D table with tinted shadows and highlights, looked up with trilinear interpolation."""
    from PIL import Image, ImageFilter

    side = 9
    axis = np.linspace(0, 1, side, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # Pillow lets red run fastest
    table = np.stack([red, green, blue], 3)
    light = table.mean(3, keepdims=True)
    for weight in (1 - light, light):
        table = table + weight * work.generator.uniform(-0.16, 0.16, 3).astype(np.float32) * work.strength
    noise = work.generator.standard_normal((side, side, side, 3)).astype(np.float32)
    noise = gaussian_filter(noise, (1.2, 1.2, 1.2, 0))
    noise *= 0.05 * work.strength / max(float(noise.std()), 1e-6)
    saturation = work.uniform(0.6, 1.5)
    table = light + (table + noise - light) * np.float32(saturation)
    lut = ImageFilter.Color3DLUT(side, table.clip(0, 1).ravel().tolist())
    work.details["saturation"] = saturation
    return np.asarray(Image.fromarray(work.pixels).filter(lut))


def feature_statistics(work: Work) -> np.ndarray:
    """Mean and deviation of every band of a Laplacian pyramid become the reference's.

    Adaptive instance normalisation (ICCV 2017) with a fixed invertible filter bank in place of a trained network:
    bands of decorrelated Lab channels; the gain of the finest bands is kept within 1/1.5 and 1.5.
    """
    assert work.reference is not None
    levels = max(1, min(4, int(math.log2(max(2, min(*work.pixels.shape[:2], *work.reference.shape[:2])))) - 3))
    mine, other = (_pyramid(lab, levels) for lab in (work.lab, work.reference_lab))
    for level, (band, wanted) in enumerate(zip(mine, other, strict=True)):
        reach = 1.5 if level < levels else 3.0
        gain = np.clip(wanted.std((0, 1)) / np.maximum(band.std((0, 1)), 1e-3), 1 / reach, reach)
        mine[level] = ((band - band.mean((0, 1))) * gain + wanted.mean((0, 1))).astype(np.float32)
    built = mine[-1]
    for band in mine[-2::-1]:
        built = cv2.pyrUp(built, dstsize=band.shape[1::-1]) + band
    work.details["bands"] = len(mine)
    return from_lab(built)


def colourised(work: Work) -> np.ndarray:
    """Colours are thrown away and painted anew: each place takes those of the reference's place of the same lightness
    and texture (Transferring Color to Greyscale Images, SIGGRAPH 2002), smoothed along the picture's edges."""
    grey = cv2.cvtColor(work.pixels, cv2.COLOR_RGB2GRAY)
    mine = to_lab(np.repeat(grey[..., None], 3, 2))[..., 0]
    other = work.reference_lab[..., 0]
    rows, columns = (work.generator.integers(0, n, 600) for n in other.shape)
    keys = [np.stack([light, 2 * _deviation(light)], 2) for light in (mine, other)]
    keys[1] = (keys[1] - keys[1].mean((0, 1))) * (keys[0].std((0, 1)) / np.maximum(keys[1].std((0, 1)), 1e-3))
    keys[1] += keys[0].mean((0, 1))
    scale = min(1.0, 128 / max(mine.shape))
    size = (max(2, round(mine.shape[1] * scale)), max(2, round(mine.shape[0] * scale)))
    asked = cv2.resize(keys[0], size, interpolation=cv2.INTER_AREA)
    _, nearest = cKDTree(keys[1][rows, columns]).query(asked)
    colours = work.reference_lab[rows, columns, 1:][nearest]
    colours = cv2.resize(cv2.blur(colours, (3, 3)), mine.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return from_lab(np.dstack([mine, _along_edges(colours, mine / 100)]))


def painted(work: Work) -> np.ndarray:
    """A region with soft edges is dyed: its lightness stays, hue and chroma become those of one colour."""
    height, width = work.pixels.shape[:2]
    mask, shape = draw_region(work.generator, height, width, area=(0.15, 0.5))
    feather = work.uniform(0.01, 0.04) * min(height, width) + 0.5
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), feather)
    chroma = np.linalg.norm(work.lab[..., 1:], axis=2)
    dyed = 0.5 * chroma + work.strength * work.uniform(12, 28)
    where = work.turn(0, 360)
    target = np.dstack([dyed * math.cos(where), dyed * math.sin(where)]).astype(np.float32)
    lab = work.lab.copy()
    lab[..., 1:] += weight[..., None] * (target - lab[..., 1:])
    work.mask = weight > 0.02
    work.details |= {"shape": shape, "area": float(mask.mean())}
    return np.where(work.mask[..., None], from_lab(lab), work.pixels)


def _palette(lab: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Main colours K×3, dark to light."""
    points = lab.reshape(-1, 3)
    points = points[generator.integers(0, len(points), 2000)]
    order = np.argsort(points[:, 0], kind="stable")
    start = points[order[np.linspace(0, len(points) - 1, 2 * count + 1).astype(int)[1::2]]]
    centres, _ = _clusters(points, start)
    return centres[np.argsort(centres[:, 0], kind="stable")]


def _clusters(points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and labels of k-means from given centres; one that attracts nothing stays where it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return kmeans2(points, start, iter=8, minit="matrix", missing="warn")


def _pyramid(lab: np.ndarray, levels: int) -> list[np.ndarray]:
    """Bands from fine to coarse and the rest; `cv2.pyrUp` of the rest plus the bands gives the picture back."""
    bands, current = [], lab
    for _ in range(levels):
        smaller = cv2.pyrDown(current)
        bands.append(current - cv2.pyrUp(smaller, dstsize=current.shape[1::-1]))
        current = smaller
    return [*bands, current]


def _deviation(plane: np.ndarray) -> np.ndarray:
    mean = cv2.blur(plane, (5, 5))
    return np.sqrt(np.maximum(cv2.blur(plane * plane, (5, 5)) - mean * mean, 0))


def _along_edges(colours: np.ndarray, guide: np.ndarray, radius: int = 6, smooth: float = 1e-3) -> np.ndarray:
    """Guided filter: colours become locally linear in the guide (He et al., ECCV 2010)."""
    window = (2 * radius + 1,) * 2
    mean = cv2.blur(guide, window)
    variance = cv2.blur(guide * guide, window) - mean * mean
    found = []
    for channel in np.moveaxis(colours, 2, 0):
        average = cv2.blur(channel, window)
        slope = (cv2.blur(guide * channel, window) - mean * average) / (variance + smooth)
        found.append(cv2.blur(slope, window) * guide + cv2.blur(average - slope * mean, window))
    return np.dstack(found)
