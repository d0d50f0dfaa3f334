"""Generated and re-made pictures by family, and sets of real and generated pictures that differ in nothing else.

A detector learns from some families and is tested on others. A `FakeSource` re-makes photographs, or makes pictures
of their size; the sources of this module need no network: up-sampling stages with fixed random filters, and decoders
fitted by least squares. Sources with networks come from `vestige.engines.fakes`.

House rules that `fake_set` keeps: real and generated pictures have one size, come from the same photographs, and are
saved the same way: the i-th picture of every source has the codec and quality of the i-th real one. Photographs are
reduced by a whole factor before squares are cut out of them, which takes their JPEG grid away and, unlike other
factors, leaves no period of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import convolve

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode, encode, to_uint8
from vestige.core.runtime import rng

#: What sources of a family have in common.
FAMILIES = {
    "upsampling": "up-sampling stages with fixed random filters",
    "fitted": "a sub-pixel decoder fitted to photographs by least squares, with drawn detail",
    "synthesis": "detail drawn from statistics or borrowed from other photographs",
    "autoencoder": "round trips through a trained autoencoder",
    "gan": "an adversarially trained generator",
    "diffusion": "a diffusion model: samples or redrawn photographs",
}

#: (photographs float32 N×3×H×W in [0, 1], seed) -> pictures of the same shape.
Maker = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class FakeSource:
    """Something that makes pictures. paired: the i-th picture shows what the i-th photograph shows.

    Raises UsageError for an unknown family.
    """

    name: str
    family: str
    make: Maker = field(repr=False, compare=False)
    paired: bool = True

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UsageError(f"There is no family {self.family!r}; choose one of {', '.join(FAMILIES)}.")

    def __call__(self, photographs: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """float32 N×3×H×W with eight-bit values; same photographs and seed, same pictures.

        Raises UsageError for other arrays, InputError for samples that are not finite.
        """
        images = _checked(photographs)
        made = np.asarray(self.make(images, seed), np.float32)
        if made.shape != images.shape:
            raise UsageError(f"The source {self.name} makes pictures {made.shape[1:]}, not {images.shape[1:]}.")
        if not np.isfinite(made).all():
            raise InputError(f"The source {self.name} made samples that are not finite; its weights are damaged.")
        return _eight_bit(made)


def _checked(images: np.ndarray) -> np.ndarray:
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[1] != 3 or images.dtype.kind != "f":
        raise UsageError("Photographs are a float array N×3×H×W in [0, 1].")
    if min(images.shape[2:]) < 8 or any(side % 4 for side in images.shape[2:]):
        raise UsageError(f"Sides must be multiples of 4 from 8 on; got {images.shape[3]}×{images.shape[2]}.")
    if not np.isfinite(images).all():
        raise InputError("The photographs hold samples that are not finite (NaN or infinity).")
    return images.astype(np.float32)


def _eight_bit(x: np.ndarray) -> np.ndarray:
    return np.round(x.clip(0, 1) * np.float32(255)) / np.float32(255)


def shrunk(images: np.ndarray, factor: int) -> np.ndarray:
    """N×3×H×W -> means of factor×factor blocks."""
    n, c, h, w = images.shape
    return images.reshape(n, c, h // factor, factor, w // factor, factor).mean((3, 5), dtype=np.float32)


# Up-sampling stages with fixed filters.

UPSAMPLERS = ("nearest", "bilinear", "bicubic", "transposed", "subpixel")
_CHANNELS = 6


class UpsamplingStage:
    """The last stage of an imagined generator: mix channels, enlarge by two, filter, bend, mix back.

    kind: of `UPSAMPLERS`. variant: which fixed random filters; another variant is another generator of the family.
    A photograph reduced by two goes in with noise of ``noise`` for detail. "transposed" inserts zeros and filters, so
    that the four phases get unequal gains; "subpixel" filters each phase by itself. The result is brought to the
    photograph's power at every radius of frequency, so that sharpness does not give it away and the pattern must.

    Source: Deconvolution and Checkerboard Artifacts, Distill 2016; Watch your Up-Convolution, CVPR 2020.

    >>> UpsamplingStage("nearest")(np.full((1, 3, 16, 16), 0.5, np.float32), 0).shape
    (1, 3, 16, 16)
    """

    def __init__(self, kind: str, variant: int = 0, *, noise: float = 0.01) -> None:
        if kind not in UPSAMPLERS:
            raise UsageError(f"There is no up-sampler {kind!r}; choose one of {', '.join(UPSAMPLERS)}.")
        self.kind, self.noise = kind, noise
        draw = rng(variant, "up-sampling filters", kind)
        self.mix = np.linalg.qr(draw.standard_normal((_CHANNELS, 3)))[0].astype(np.float32)
        self.bias = draw.normal(0, 0.2, _CHANNELS).astype(np.float32)
        count = 4 if kind == "subpixel" else 1
        self.kernels = np.stack([[_near_identity(draw) for _ in range(_CHANNELS)] for _ in range(count)])
        spread = draw.uniform(0.97, 1.03, (_CHANNELS, 3, 3))
        tent = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
        self.transposed = (tent * spread).astype(np.float32)

    def __call__(self, photographs: np.ndarray, seed: int) -> np.ndarray:
        low = shrunk(photographs, 2)
        grain = [rng(seed, "grain", self.kind, i).standard_normal(low.shape[1:], np.float32) for i in range(len(low))]
        features = np.einsum("fc,nchw->nfhw", self.mix, low + self.noise * np.stack(grain))
        large = self._enlarged(features)
        bent = large + 0.05 * np.maximum(large - self.bias[:, None, None], 0)
        made = np.einsum("fc,nfhw->nchw", self.mix, bent)
        return _as_sharp_as(made, photographs)

    def _enlarged(self, features: np.ndarray) -> np.ndarray:
        n, c, h, w = features.shape
        large = np.zeros((n, c, 2 * h, 2 * w), np.float32)
        if self.kind == "subpixel":
            for phase, kernels in enumerate(self.kernels):
                large[:, :, phase // 2 :: 2, phase % 2 :: 2] = _filtered(features, kernels)
            return large
        if self.kind == "transposed":
            large[:, :, ::2, ::2] = features
            # A row and a column of zeros would follow the last ones and darken that border.
            large = np.pad(large, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
            return _filtered(_filtered(large, self.transposed), self.kernels[0])[:, :, 2:-2, 2:-2]
        if self.kind == "nearest":
            large = features.repeat(2, 2).repeat(2, 3)
        else:
            how = cv2.INTER_LINEAR if self.kind == "bilinear" else cv2.INTER_CUBIC
            flat = features.reshape(n * c, h, w)
            large = np.stack([cv2.resize(f, (2 * w, 2 * h), interpolation=how) for f in flat]).reshape(large.shape)
        return _filtered(large, self.kernels[0])


def _near_identity(draw: np.random.Generator) -> np.ndarray:
    """A 3×3 filter of sum 1 close to the identity."""
    kernel = draw.normal(0, 0.03, (3, 3))
    kernel[1, 1] += 1 - kernel.sum()
    return kernel.astype(np.float32)


def _filtered(features: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Every channel of N×C×H×W with its own 3×3 filter."""
    parts = [convolve(features[:, c], kernel[None], mode="nearest") for c, kernel in enumerate(kernels)]
    return np.stack(parts, 1)


def _as_sharp_as(made: np.ndarray, photographs: np.ndarray, bands: int = 16) -> np.ndarray:
    """Scale the cosine coefficients of every picture, in rings of frequency, to the power of its photograph."""
    height, width = made.shape[2:]
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width)[None] / width)
    place = (radius / np.sqrt(2) * (bands - 1)).astype(np.float32)
    ring = np.round(place).astype(int)
    coefficients = dctn(made, axes=(2, 3), norm="ortho")
    wanted = dctn(photographs, axes=(2, 3), norm="ortho")
    count = np.bincount(ring.ravel(), minlength=bands).clip(1)
    for n in range(len(made)):
        powers = [np.bincount(ring.ravel(), (x[n] ** 2).sum(0).ravel(), bands) / count for x in (coefficients, wanted)]
        gain = np.sqrt((powers[1] + 1e-9) / (powers[0] + 1e-9)).clip(0.25, 6)
        coefficients[n] *= np.interp(place, np.arange(bands), gain).astype(np.float32)
    return idctn(coefficients, axes=(2, 3), norm="ortho").astype(np.float32)


#: Sources that need neither weights nor photographs to be fitted to.
SOURCES: dict[str, FakeSource] = {
    f"up_{kind}": FakeSource(f"up_{kind}", "upsampling", UpsamplingStage(kind)) for kind in UPSAMPLERS
}


# A decoder fitted by least squares.


class FittedDecoder:
    """A small generator of photographs from their reduced copies: one hidden layer of random features, then blocks.

    For every low-resolution pixel, its 3×3 neighbourhood p, less its mean m and over its spread s, gives the block of
    factor×factor pixels it stands for: y = m + s·(B [p; relu(W p)] + L z). W is random and fixed, B is the ridge
    solution on ``photographs``, L Lᵀ the covariance of what B leaves, z ~ N(0, I): detail that a regression alone would
    not have. Like every sub-pixel decoder it treats the places inside a block differently, which is its trace.

    photographs: float N×3×H×W in [0, 1]. Raises UsageError for a factor other than 2 and 4 or too few pictures.

    >>> g = np.random.default_rng(0)
    >>> FittedDecoder(g.random((8, 3, 32, 32), np.float32))(g.random((2, 3, 16, 16), np.float32), 0).shape
    (2, 3, 16, 16)
    """

    def __init__(
        self, photographs: np.ndarray, factor: int = 2, *, hidden: int = 96, detail: float = 0.4, seed: int = 0
    ) -> None:
        images = _checked(photographs)
        if factor not in (2, 4):
            raise UsageError(f"A fitted decoder enlarges by 2 or 4, not by {factor}.")
        self.factor, self.detail = factor, detail
        draw = rng(seed, "fitted decoder", factor)
        self.weights = (draw.standard_normal((27, hidden)) / 3).astype(np.float32)
        inputs, means, spreads = self._inputs(shrunk(images, factor))
        blocks = self._blocks(images)
        wanted = (blocks - means[:, None, :]) / spreads[:, None, None]
        chosen = draw.permutation(len(inputs))[:40_000]
        if len(chosen) < 2 * inputs.shape[1]:
            raise UsageError("There are too few photographs to fit a decoder to; give more or larger ones.")
        x, y = inputs[chosen].astype(np.float64), wanted[chosen].reshape(len(chosen), -1).astype(np.float64)
        gram = x.T @ x
        self.table = np.linalg.solve(gram + 1e-3 * len(x) * np.eye(len(gram)), x.T @ y).astype(np.float32)
        # Flat places with a chance edge would dominate a plain covariance.
        left = np.clip(y - x @ self.table, -2, 2)
        covariance = left.T @ left / len(left)
        self.root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(covariance))).astype(np.float32)

    def _inputs(self, low: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features M×F, means of the channels M×3, spreads M) of the neighbourhoods of N×3×h×w, M = N·h·w."""
        padded = np.pad(low, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 3, 9)
        means = patches.mean(2)
        centred = (patches - means[:, :, None]).reshape(len(patches), 27)
        spreads = np.sqrt((centred**2).mean(1)) + np.float32(0.01)
        scaled = centred / spreads[:, None]
        hidden = np.maximum(scaled @ self.weights, 0)
        return np.concatenate([scaled, hidden, np.ones((len(scaled), 1), np.float32)], 1), means, spreads

    def _blocks(self, images: np.ndarray) -> np.ndarray:
        """N×3×H×W -> M×factor²×3."""
        n, _, height, width = images.shape
        f = self.factor
        cut = images.reshape(n, 3, height // f, f, width // f, f).transpose(0, 2, 4, 3, 5, 1)
        return cut.reshape(-1, f * f, 3)

    def __call__(self, photographs: np.ndarray, seed: int) -> np.ndarray:
        n, _, height, width = photographs.shape
        f = self.factor
        made = np.empty_like(photographs)
        for i in range(n):  # one at a time: the features of many pictures are large
            inputs, means, spreads = self._inputs(shrunk(photographs[i : i + 1], f))
            z = rng(seed, "detail", f, i).standard_normal((len(inputs), len(self.root)), np.float32)
            blocks = (inputs @ self.table + self.detail * z @ self.root.T).reshape(len(inputs), f * f, 3)
            blocks = blocks * spreads[:, None, None] + means[:, None, :]
            parts = blocks.reshape(height // f, width // f, f, f, 3).transpose(4, 0, 2, 1, 3)
            made[i] = parts.reshape(3, height, width)
        return made


def fitted_sources(photographs: np.ndarray, factors: Iterable[int] = (2, 4), *, seed: int = 0) -> list[FakeSource]:
    """`FittedDecoder` sources "fitted_x2" and "fitted_x4", fitted to photographs that are used for nothing else."""
    return [FakeSource(f"fitted_x{f}", "fitted", FittedDecoder(photographs, f, seed=seed)) for f in factors]


# Sets of real and generated pictures.


@dataclass(frozen=True)
class FakeSet:
    """real: uint8 N×3×S×S. fakes: {source: uint8 N×3×S×S}. families: {source: family}. photo: int N, the photograph
    each row comes from: sets are split by it, never by row."""

    real: np.ndarray = field(repr=False)
    fakes: dict[str, np.ndarray] = field(repr=False)
    families: dict[str, str]
    photo: np.ndarray = field(repr=False)

    def of(self, family: str) -> list[str]:
        """The sources of a family."""
        return [name for name, found in self.families.items() if found == family]

    def both(self, sources: Iterable[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(pictures uint8 M×3×S×S, bool M: generated): the real ones, then those of the sources (all by default)."""
        names = list(self.fakes) if sources is None else list(sources)
        pictures = np.concatenate([self.real, *(self.fakes[name] for name in names)])
        return pictures, np.arange(len(pictures)) >= len(self.real)


def squares(
    photographs: np.ndarray, size: int = 64, *, per_photo: int = 2, reduce: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random squares of photographs reduced by a whole factor: uint8 N×3×size×size, and the photograph of each, int N.

    photographs: uint8 M×3×H×W. Raises UsageError when they are too small.

    >>> squares(np.zeros((3, 3, 64, 80), np.uint8), 16)[0].shape
    (6, 3, 16, 16)
    """
    height, width = (side // reduce for side in photographs.shape[2:])
    if min(height, width) < size or per_photo < 1:
        raise UsageError(f"Photographs reduced by {reduce} must have sides of at least {size} pixels.")
    cut = np.empty((len(photographs) * per_photo, 3, size, size), np.uint8)
    for i, photograph in enumerate(photographs):
        whole = photograph[None, :, : height * reduce, : width * reduce].astype(np.float32)
        small = np.round(shrunk(whole, reduce)[0]).astype(np.uint8)
        draw = rng(seed, "squares", i)
        for k in range(per_photo):
            top, left = int(draw.integers(height - size + 1)), int(draw.integers(width - size + 1))
            cut[i * per_photo + k] = small[:, top : top + size, left : left + size]
    return cut, np.arange(len(photographs)).repeat(per_photo)


def saved(images: np.ndarray, seed: int = 0, *, lossless: float = 0.4, worst: int = 70) -> np.ndarray:
    """Pictures as files of mixed kinds give them back: uint8 N×3×H×W, a share lossless, the others JPEG.

    Codec, quality (``worst`` to 97) and chroma of row i depend on the seed and i alone, so that real and generated
    pictures have them alike.
    """
    result = np.empty_like(images)
    for i, image in enumerate(images):
        draw = rng(seed, "saved", i)
        plain, quality, chroma = draw.random() < lossless, int(draw.integers(worst, 98)), int(draw.choice((0, 2)))
        if plain:
            result[i] = image
        else:
            data = encode(np.ascontiguousarray(image.transpose(1, 2, 0)), "JPEG", quality=quality, subsampling=chroma)
            result[i] = decode(data).pixels.transpose(2, 0, 1)
    return result


def handled(images: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Squares after ordinary handling: uint8 N×3×S×S -> N pictures uint8 3×H×W of three quarters of S up to S.

    Half are reduced or enlarged (to 75, 88, 125 or 150 %, then cut to S), a quarter brightened or darkened, a third
    saved without loss and the others as JPEG of quality 60 to 97. What happens to row i follows from the seed and i
    alone, so that real and generated pictures have it alike.
    """
    found = []
    for i, image in enumerate(images):
        draw = rng(seed, "handled", i)
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        scale = float(draw.choice((0.75, 0.875, 1.25, 1.5)))
        resize, adjust, lossless = draw.random() < 0.5, draw.random() < 0.25, draw.random() < 0.33
        gain, offset, places = draw.uniform(0.85, 1.15), draw.uniform(-12, 12), draw.random(2)
        quality, chroma = int(draw.integers(60, 98)), int(draw.choice((0, 2)))
        if resize:
            side = round(scale * pixels.shape[0])
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, (side, side), interpolation=how)
            top, left = (int(place * max(1, side - len(image[0]) + 1)) for place in places)
            pixels = pixels[top : top + len(image[0]), left : left + len(image[0])]
        if adjust:
            pixels = (pixels * gain + offset).clip(0, 255).astype(np.uint8)
        if not lossless:
            pixels = decode(encode(np.ascontiguousarray(pixels), "JPEG", quality=quality, subsampling=chroma)).pixels
        found.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return found


def fake_set(
    real: np.ndarray, sources: Iterable[FakeSource], photo: np.ndarray | None = None, *, seed: int = 0,
    lossless: float = 0.4,
) -> FakeSet:  # fmt: skip
    """Re-make real squares (uint8 N×3×S×S) by every source and save all of them the same way.

    photo: as from `squares`; without it every row is a photograph of its own. lossless: see `saved`; 1 saves nothing.
    Raises UsageError for sources of the same name and pictures of another type.
    """
    chosen = list(sources)
    names = [source.name for source in chosen]
    if len(set(names)) < len(names) or real.dtype != np.uint8:
        raise UsageError("Sources need different names, and real pictures are uint8 N×3×S×S.")
    pictures = as_float(real)
    fakes = {}
    for source in chosen:
        made = np.concatenate([to_uint8(picture)[None] for picture in source(pictures, seed=seed)])
        fakes[source.name] = saved(made.transpose(0, 3, 1, 2), seed, lossless=lossless)
    rows = np.arange(len(real)) if photo is None else np.asarray(photo)
    return FakeSet(saved(real, seed, lossless=lossless), fakes, {source.name: source.family for source in chosen}, rows)


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 N×3×H×W -> float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
