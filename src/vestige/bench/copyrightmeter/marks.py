"""Watermarks: in the starting noise of generated pictures (read after DDIM inversion), and added to finished ones.

Sources: Tree-Ring Watermarks: Fingerprints for Diffusion Images that are Invisible and Robust, NeurIPS 2023; Gaussian
Shading: Provable Performance-Lossless Image Watermarking for Diffusion Models, CVPR 2024; Secure Spread Spectrum
Watermarking for Multimedia, IEEE TIP 1997 (its form for 32 pixels is that of `claims.watermark.small_marks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from vestige.bench.copyrightmeter.world import (
    PROMPTS,
    Settings,
    fidelity,
    generator_model,
    judge,
    scenes_of,
    start_noise,
)
from vestige.bench.watermark.small_marks import BITS, SmallMark, renders
from vestige.core.runtime import rng
from vestige.engines.diffusion.inversion import invert
from vestige.engines.diffusion.schedules import grid
from vestige.metrics.detection import null_threshold
from vestige.metrics.quality import psnr
from vestige.watermark.copyrightmeter.imitation import draw, eight_bit
from vestige.watermark.copyrightmeter.purify import purified

PROTECTIONS = ("Tree-Ring", "Gaussian Shading", "spread spectrum")
BASELINES = ("none",)
ATTACKS = (
    "identity", "JPEG 75", "brightness 1.5", "rotation 10", "crop 75 % enlarged", "blur 1", "DiffPure 0.2",
)  # fmt: skip
RATE = 0.01
#: Marked renders that the reader of an upgraded spread-spectrum mark is trained on.
TRAINING = 2000


class NoiseMark(Protocol):
    """A keyed mark of starting noise N×C×H×W; every row has a key of its own, an integer."""

    def stamp(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray: ...

    def scores(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """(N,), higher for noise that carries the mark of its key."""
        ...

    def accuracy(self, noise: np.ndarray, keys: np.ndarray) -> float | None:
        """Share of bits that come back, None without a payload."""
        ...


@dataclass(frozen=True)
class TreeRing:
    """Rings of constant values in the spectrum of one channel: F(z)[r] = k_r for radii up to ``radius``.

    score = Re⟨F(ẑ), k⟩ / (‖F(ẑ)‖ ‖k‖) over the rings: inversion shrinks the noise, which a distance would count against
    the mark. Values are real, so that the marked noise is; their size is that of white noise's spectrum.
    """

    radius: int = 10
    channel: int = 1

    def _rings(self, side: int) -> np.ndarray:
        offsets = np.arange(side) - side // 2
        return np.round(np.hypot(offsets[:, None], offsets)).astype(int)

    def _values(self, key: int, side: int) -> np.ndarray:
        return rng(int(key), "tree-ring").standard_normal(self.radius + 1) * side

    def stamp(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray:
        side, made = noise.shape[-1], noise.copy()
        rings = self._rings(side)
        inside = rings <= self.radius
        for row, key in zip(made, keys, strict=True):
            spectrum = np.fft.fftshift(np.fft.fft2(row[self.channel]))
            spectrum[inside] = self._values(key, side)[rings[inside]]
            row[self.channel] = np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        return made

    def scores(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray:
        side = noise.shape[-1]
        rings = self._rings(side)
        inside = rings <= self.radius
        found = np.fft.fftshift(np.fft.fft2(noise[:, self.channel]), axes=(1, 2))[:, inside]
        wanted = np.stack([self._values(key, side)[rings[inside]] for key in keys])
        sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        return (found * wanted).sum(1).real / np.maximum(sizes, 1e-12)

    def accuracy(self, noise: np.ndarray, keys: np.ndarray) -> float | None:
        return None


@dataclass(frozen=True)
class GaussianShading:
    """Signs of the noise carry the payload, repeated and encrypted: z = |n| where bit ⊕ keystream is 1, else −|n|.

    The noise stays standard normal for anyone without the key. score: mean agreement of signs with the key's payload,
    each weighted by Φ(|ẑ|) − ½, how surely it is one.
    """

    bits: int = BITS

    def _signs(self, key: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        generator = rng(int(key), "shading")
        payload = generator.integers(0, 2, self.bits).astype(bool)
        place = generator.permutation(int(np.prod(shape))) % self.bits
        stream = generator.integers(0, 2, place.size).astype(bool)
        return payload, place, stream

    def stamp(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray:
        made = np.abs(noise)
        for row, key in zip(made, keys, strict=True):
            payload, place, stream = self._signs(key, row.shape)
            row *= np.where(payload[place] ^ stream, 1, -1).reshape(row.shape)
        return made

    def scores(self, noise: np.ndarray, keys: np.ndarray) -> np.ndarray:
        sure = norm.cdf(np.abs(noise)) - 0.5
        found = []
        for row, weight, key in zip(noise, sure, keys, strict=True):
            payload, place, stream = self._signs(key, row.shape)
            wanted = np.where(payload[place] ^ stream, 1, -1)
            found.append(np.mean(np.sign(row.ravel()) * wanted * weight.ravel()))
        return np.array(found)

    def accuracy(self, noise: np.ndarray, keys: np.ndarray) -> float | None:
        right = []
        for row, key in zip(noise, keys, strict=True):
            payload, place, stream = self._signs(key, row.shape)
            votes = np.bincount(place, np.where((row.ravel() > 0) ^ stream, 1, -1), self.bits)
            right.append(np.mean((votes > 0) == payload))
        return float(np.mean(right))


NOISE_MARKS: dict[str, NoiseMark] = {"Tree-Ring": TreeRing(), "Gaussian Shading": GaussianShading()}


class SpreadSpectrum:
    """16 keyed carriers added to finished pictures, read by a linear detector; every picture has bits of its own.

    against: an attack that the detector is trained on: ridge regression of the bits on attacked marked renders.
    """

    def __init__(self, seed: int, against: str = "", training: int = TRAINING) -> None:
        self.mark = SmallMark("faint", seed)
        if against:
            images = renders(training, seed + 177)[0]
            bits = self.bits(np.arange(len(images)) + 10**6)
            taken = purified(against, torch.from_numpy(self.mark.mark(images, bits)), seed, generator_model()).numpy()
            x = taken.reshape(len(taken), -1).astype(np.float64)
            self.mark._mean = x.mean(0)
            x -= self.mark._mean
            # (xᵀx/n + r I)⁻¹ xᵀy/n by its dual, which is smaller where there are fewer pictures than samples of one.
            gram = x @ x.T / len(x)
            gram[np.diag_indices_from(gram)] += 0.02 * np.trace(gram) / x.shape[1]
            self.mark.weights = x.T @ np.linalg.solve(gram, np.where(bits, 1.0, -1.0) / len(x))

    @staticmethod
    def bits(keys: np.ndarray) -> np.ndarray:
        """bool N×16, those of integer keys."""
        return np.stack([rng(int(k), "spread bits").integers(0, 2, BITS).astype(bool) for k in keys])


@cache
def _spread(seed: int, against: str, training: int) -> SpreadSpectrum:
    return SpreadSpectrum(seed, against, training)


@lru_cache(maxsize=16)
def pictures(protection: str, seed: int, settings: Settings, part: str) -> Tensor:
    """Generated pictures of a part ("marked", "clean" or "null"), with the mark where it is in the noise."""
    model = generator_model()
    shift = {"marked": 0, "clean": 1, "null": 2}[part]
    asked = scenes_of(settings.pictures, PROMPTS, seed + 700 + 100 * shift).captions
    noise = start_noise(len(asked), seed, "mark", part)
    if protection in NOISE_MARKS and part == "marked":
        noise = torch.from_numpy(NOISE_MARKS[protection].stamp(noise.numpy(), own_keys(seed, settings))).float()
    # Guidance leads away from what inversion undoes: with weight 3 the noise found correlates 0.15 with the true one,
    # without guidance 0.5 (ten steps), so marked pictures are drawn without.
    images = draw(model.denoiser(asked), noise, model, settings.inversion, "ddim")
    if protection == "spread spectrum" and part == "marked":
        bits = SpreadSpectrum.bits(own_keys(seed, settings))
        images = torch.from_numpy(_spread(seed, "", TRAINING).mark.mark(images.numpy(), bits))
    return images


def own_keys(seed: int, settings: Settings) -> np.ndarray:
    """One key for each marked picture."""
    return seed * 10_000 + np.arange(settings.pictures)


@lru_cache(maxsize=64)
def _noise_of(protection: str, part: str, attack: str, seed: int, settings: Settings) -> np.ndarray:
    """Starting noise that DDIM inversion under the empty prompt finds in attacked pictures."""
    model = generator_model()
    images = purified(attack, pictures(protection, seed, settings, part), seed + 1, generator_model())
    with torch.no_grad():
        found = invert(model.denoiser(""), model.encode(images), grid(model.table, settings.inversion))
    return found.numpy()


def _read(
    protection: str, part: str, attack: str, seed: int, settings: Settings, against: str, keys: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Scores and bit accuracy of attacked pictures under keys. Unmarked pictures are shared between the marks."""
    source = protection if part == "marked" else "none"
    if protection == "spread spectrum":
        reader = _spread(seed, against, min(TRAINING, settings.scenes)).mark
        images = eight_bit(
            purified(attack, pictures(source, seed, settings, part), seed + 1, generator_model())
        ).numpy()
        bits = SpreadSpectrum.bits(keys)
        return reader.score(images, bits), reader.accuracy(images, bits)
    noise = _noise_of(source, part, attack, seed, settings)
    mark = NOISE_MARKS[protection]
    return mark.scores(noise, keys), mark.accuracy(noise, keys)


def _flagged(
    protection: str, part: str, attack: str, seed: int, settings: Settings, against: str
) -> tuple[float, float | None]:
    """Share of pictures called marked at 1 % false positives, and bit accuracy.

    The threshold comes from other unmarked pictures put through the same attack, each read with many keys.
    """
    null = np.concatenate(
        [
            _read(protection, "null", attack, seed, settings, against, own_keys(seed, settings) + 10**5 * (k + 1))[0]
            for k in range(settings.keys)
        ]
    )
    threshold = null_threshold(null, RATE)
    scores, accuracy = _read(protection, part, attack, seed, settings, against, own_keys(seed, settings))
    return float((scores >= threshold).mean()), accuracy


def measure(protection: str, attack: str, seed: int, settings: Settings, against: str = "") -> dict[str, float]:
    """One cell. raw: share of marked pictures that are found at 1 % false positives. See `protocol.Cell`.

    The baseline's raw is the share of unmarked pictures that the readers call marked, over all marks.
    """
    if protection == "none":
        found = [_flagged(p, "clean", attack, seed, settings, "")[0] for p in PROTECTIONS]
        return {"raw": float(np.mean(found)), "full": 1.0, "fidelity": 1.0, "damage": 0.0, "psnr": 99.0}
    net = judge(settings.scenes)
    marked = pictures(protection, seed, settings, "marked")
    plain = pictures("none", seed, settings, "marked")
    taken = purified(attack, marked, seed + 1, generator_model())
    share, accuracy = _flagged(protection, "marked", attack, seed, settings, against)
    asked = scenes_of(settings.pictures, PROMPTS, seed + 700).object.numpy()
    right = [float((net.objects(images) == asked).mean()) for images in (marked, plain)]
    row = {
        "raw": share,
        "fidelity": fidelity(right[0] / max(right[1], 1e-6), net.distance(marked, plain)),
        "damage": 1 - net.kept(marked, taken),
        "psnr": float(np.minimum(psnr(marked.numpy(), taken.numpy()), 99).mean()),
    }
    return row if accuracy is None else {**row, "bit_accuracy": accuracy}
