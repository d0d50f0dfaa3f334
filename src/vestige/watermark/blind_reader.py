"""Blind reading of a spread-spectrum tile: alignment by pilots, decoding, presence test, localisation.

The picture is read as it stands first (any crop, mirror image or quarter turn: the folded tile is mirrored and turned,
not the picture). Only when that fails, `registration` proposes scales, rotations and aspect ratios; each is tested on
the rectified picture, refined by the drift of the pilots' shift across it, and decoded. Reading stops at the first
payload that authenticates. P-values are corrected for every alignment and decoding tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vestige.core.roles import Reading
from vestige.watermark.carriers import TILE, Carriers, fold, whiten
from vestige.watermark.informed import data_blocks
from vestige.watermark.payload import TAG_BITS, Decoded, PayloadCode
from vestige.watermark.registration import candidates, drift

CELL = 16  # pixels a side of a cell of the localisation map
SIGNIFICANT = 1e-6  # presence is claimed below this corrected p-value
_RINGS = 6  # of frequencies, as many carriers in each
_PLAUSIBLE = math.log(1e-3)  # alignments with a higher p-value are not decoded


@dataclass
class _View:
    """The picture in mark coordinates (its centre at the canvas' centre), and where the pilots place it.

    white: whitened luma. masked: the same times the pilots' mask, from which shift, log_p and phasors come.
    """

    linear: np.ndarray
    luma: np.ndarray
    white: np.ndarray
    masked: np.ndarray
    shift: np.ndarray
    log_p: float
    phasors: np.ndarray


class BlindReader:
    """Reads one image 3×H×W.

    free: bool H×W, what may be looked at (everything by default). region, scales, trials: as in
    `SpreadSpectrum`; with no trials nothing is searched for.
    """

    def __init__(
        self,
        carriers: Carriers,
        code: PayloadCode,
        image: np.ndarray,
        free: np.ndarray | None = None,
        *,
        region: int,
        scales: tuple[float, float],
        trials: int,
    ) -> None:
        self.carriers, self.code = carriers, code
        self.region, self.scales, self.trials = region, scales, trials
        self.shape = image.shape[1:]
        inside = middle(self.shape, int(region * scales[1]))
        self.luma = luma_of(image[(slice(None), *inside)])
        self.free = None if free is None or free.all() else free[inside]
        self.origin = np.array([inside[1].start, inside[0].start])
        self.tried = self.decoded = 0
        self.best: tuple[_View, list[Decoded]] | None = None

    def read(self) -> Reading:
        if min(self.luma.shape) < 64:
            return Reading("absent", 1.0, details={"why": "the image is smaller than 64×64 pixels"})
        for view in self._views():
            found = self._decode(view)
            if found is not None:
                return self._report(*found)
        assert self.best is not None  # the unchanged picture is always looked at
        return self._report(*self.best)

    def _views(self) -> Iterator[_View]:
        """Alignments worth decoding: the picture as it is, mirrored or turned; then what the search proposes."""
        view = self._view(np.eye(2))
        if self._counts(view):
            yield view
        folded = fold(view.masked)
        for turns in range(4):
            for mirror in (1.0, -1.0):
                if turns == 0 and mirror == 1.0:
                    continue
                self.tried += 1
                # Folding the mirrored or turned picture shifts the tile only, which aligning finds out.
                tile = np.rot90(folded, turns)[:, :: int(mirror)]
                if self.carriers.align(self.carriers.phasors(tile))[1] < _PLAUSIBLE:
                    turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
                    yield self._view(turn @ np.diag([mirror, 1.0]))
        if not self.trials:
            return
        part = self.luma[middle(self.luma.shape, 1024)]
        proposed, number = candidates(part, self.carriers, self.trials, self.scales)
        self.tried += number
        for linear in proposed:
            view = self._view(linear)
            if self._counts(view):
                yield view

    def _counts(self, view: _View) -> bool:
        """Keep the view if it is the best so far; true if it is worth decoding."""
        self.tried += 1
        if self.best is None or view.log_p < self.best[0].log_p:
            self.best = (view, [])
        return view.log_p < _PLAUSIBLE

    def _decode(self, view: _View) -> tuple[_View, list[Decoded]] | None:
        """The payload of a view, refined twice if needed; None when no attempt authenticates."""
        assert self.best is not None
        for refinement in range(3):
            if refinement:
                change = np.eye(2) + drift(view.masked, self.carriers, view.shift)
                linear = view.linear @ np.linalg.inv(change)
                # Reduced pictures have lost the higher carriers; more of the mark makes up for it.
                wide = 2 if np.linalg.norm(linear, 2) < 0.75 else 1
                view = self._view(linear, view.log_p, wide)
            for soft in self._soft(view):
                self.decoded += 2
                attempts = self.code.decode(soft)
                if attempts[0].authentic:
                    return view, attempts
            if view.log_p <= self.best[0].log_p:
                self.best = (view, attempts)
        return None

    def _view(self, linear: np.ndarray, log_p: float | None = None, wide: int = 1) -> _View:
        """The picture under a linear part. log_p: that of the view it refines, to be kept. wide: times ``region``."""
        luma, valid = self._rectify(linear, wide)
        white = masked = whiten(luma, valid)
        if self.carriers.binding is not None:
            masked = white * self.carriers.binding.mask(luma)
        phasors = self.carriers.phasors(fold(masked))
        shift, own = self.carriers.align(phasors)
        return _View(linear, luma, white, masked, shift, own if log_p is None else log_p, phasors)

    def _soft(self, view: _View) -> Iterator[np.ndarray]:
        """Soft chips of a view, (slots,): of all blocks alike, then with less of those whose content is cut off."""
        aligned, known, _ = self._blocks(view)
        if self.carriers.binding is None:
            yield self.carriers.soft_chips(aligned.sum((0, 1)))
            return
        for weight in (known**0.5, known**4):
            total = np.einsum("rc,rcm->m", weight.astype(np.float32), aligned)
            noise = 1e-9 + np.einsum(
                "rc,rcm->m", np.square(weight, dtype=np.float32), aligned.real**2 + aligned.imag**2
            )
            yield self.carriers.soft_chips(total * self._trust(total, noise))

    def _trust(self, total: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Weights of carriers (M,) with sums over blocks ``total`` and what the noise of these would be as power.

        Compression and reduction take the high frequencies first: how far the power in a ring of frequencies exceeds
        that of noise says how much is left there.
        """
        radius = np.hypot(*self.carriers.data.frequencies.T)
        ring = np.argsort(np.argsort(radius, kind="stable")) * _RINGS // len(radius)
        counts = np.bincount(ring, minlength=_RINGS)
        excess = np.bincount(ring, np.abs(total) ** 2 / noise, _RINGS) / counts - 1
        left = np.maximum(excess, 0)
        weights: np.ndarray = (np.sqrt(left + 0.25 * left.mean() + 1e-3)[ring] / np.sqrt(noise)).astype(np.float32)
        return weights

    def _blocks(self, view: _View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Data carriers of every block of the mark in a view, turns and signs undone, (rows, columns, M) complex; the
        share of each block's content that is in view; and pixels (x, y) by which the blocks begin before the view.
        """
        binding, waves = self.carriers.binding, self.carriers.data
        offset = view.shift % TILE
        before = np.floor(offset).astype(int) % (waves.side // 2)
        spare = ((int(before[1]), 0), (int(before[0]), 0))
        white = np.pad(view.white, spare)
        aligned = waves.shifted(data_blocks(white, self.carriers), offset - before)
        rows, columns = aligned.shape[:2]
        if binding is None:
            return aligned, np.ones((rows, columns)), before
        described = binding.describe(np.pad(view.luma, spare, mode="edge"), rows, columns)
        aligned *= binding.signs(described)
        shares = [binding.known(n, m, b) for n, m, b in zip((rows, columns), white.shape, before[::-1])]
        return aligned, np.outer(*shares), before

    def _rectify(self, linear: np.ndarray, wide: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Luma in mark coordinates and where it is known: canvas point c shows image point middle + A (c - middle)."""
        height, width = self.luma.shape
        if np.array_equal(linear, np.eye(2)):
            inside = middle(self.luma.shape, self.region)
            return self.luma[inside], None if self.free is None else self.free[inside]
        inverse = np.linalg.inv(linear)
        size = [max(16, min(self.region * wide, round(float(n)))) for n in np.abs(inverse) @ (width, height)]
        scale = math.sqrt(abs(np.linalg.det(linear)))
        luma = cv2.GaussianBlur(self.luma, (0, 0), 0.35 * scale) if scale > 1.2 else self.luma
        matrix = self._matrix(linear, size)
        canvas = cv2.warpAffine(
            luma, matrix, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        known = np.ones(luma.shape, np.uint8) if self.free is None else self.free.astype(np.uint8)
        valid = cv2.warpAffine(known, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        return canvas, valid.astype(bool)

    def _matrix(self, linear: np.ndarray, size: list[int]) -> np.ndarray:
        """2×3 map from canvas to luma points."""
        centre = (np.array(self.luma.shape[::-1]) - 1) / 2
        if np.array_equal(linear, np.eye(2)):  # a cut-out, not a resampled picture
            inside = middle(self.luma.shape, self.region)
            return np.column_stack([linear, [inside[1].start, inside[0].start]])
        return np.column_stack([linear, centre - linear @ ((np.array(size) - 1) / 2)])

    def _report(self, view: _View, attempts: list[Decoded]) -> Reading:
        p_value = math.exp(min(0.0, view.log_p + math.log(self.tried)))
        linear = view.linear
        flipped = bool(np.linalg.det(linear) < 0)
        spread = np.linalg.svd(linear, compute_uv=False)
        details: dict[str, Any] = {
            "scale": float(math.sqrt(spread[0] * spread[1])),
            "rotation": math.degrees(math.atan2(*(linear[::-1, 0] * (-1 if flipped else 1)))),
            "stretch": float(spread[0] / spread[1]),
            "flipped": flipped,
            "shift": tuple(float(v) % TILE for v in view.shift),
            "raw_bits": {len(a.raw_bits): a.raw_bits for a in attempts},
        }
        if attempts and attempts[0].authentic:
            found = attempts[0]
            details["map"] = self._map(view, found)
            p_value = min(1.0, 2 * min(p_value, self.decoded * 2.0**-TAG_BITS))
            return Reading("read", p_value, found.bits, found.message, found.agreement, details)
        outcome = "unreadable" if p_value < SIGNIFICANT else "absent"
        return Reading(outcome, p_value, None, None, attempts[0].agreement if attempts else 0.0, details)

    def _map(self, view: _View, found: Decoded) -> np.ndarray:
        """Presence of the codeword in every block, in standard deviations, over the cells of the image."""
        assert found.bits is not None
        chips = self.code.encode(found.message if found.message is not None else found.bits)
        aligned, _, before = self._blocks(view)
        soft = self.carriers.soft_chips(aligned)
        presence = (soft @ chips) / np.sqrt((soft**2).sum(-1) + 1e-6)
        matrix = self._matrix(view.linear, list(view.white.shape[::-1]))
        height, width = (-(-n // CELL) for n in self.shape)
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        cells = np.stack([x, y], -1) * CELL + (CELL - 1) / 2 - self.origin - matrix[:, 2]
        canvas = cells @ np.linalg.inv(matrix[:, :2]).T
        inside = ((canvas > -CELL) & (canvas < np.array(view.white.shape[::-1]) + CELL)).all(-1)
        hop = self.carriers.data.side // 2
        at = ((canvas + before + 0.5) / hop).astype(np.float32)  # in blocks, whose middles are a hop apart
        smooth = cv2.remap(
            presence.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.where(inside, smooth, np.float32(np.nan))


def luma_of(image: np.ndarray) -> np.ndarray:
    """BT.601 luma in grey levels 0 to 255 of 3×H×W."""
    luma = image[0] * np.float32(0.299 * 255)
    luma += image[1] * np.float32(0.587 * 255)
    luma += image[2] * np.float32(0.114 * 255)
    return luma


def middle(shape: tuple[int, ...], largest: int) -> tuple[slice, slice]:
    """The central part of an h×w array, at most ``largest`` a side."""
    starts = [max(n - largest, 0) // 2 for n in shape]
    rows, columns = (slice(a, a + min(n, largest)) for a, n in zip(starts, shape))
    return rows, columns
