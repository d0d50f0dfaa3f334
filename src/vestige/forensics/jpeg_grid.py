"""Where the picture sits on a JPEG grid other than the file's own.

Compression leaves zeros on its 8×8 grid. A picture cropped after an earlier compression, or a region pasted from a
compressed one, keeps an old grid whose origin is, 63 times out of 64, not the file's.

Source: ZERO: a local JPEG grid origin detector based on the number of DCT zeros and its applications in image
forensics, IPOL 11, 2021. The chance level of a vote is here measured on control phases of the same picture, which
lets the test run on files that were saved as JPEG again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import control_phases, grid_votes
from vestige.forensics.jpeg_parse import luma_steps


@dataclass(frozen=True)
class GridReading:
    """Grid votes of one picture and what they show.

    shares: share of the votes for each of the 64 phases. whole: phase of a second grid under most of the picture, or
    None. whole_evidence, local_evidence: −log10 of the number of false alarms expected by chance, 0 or more.
    local: phase of the strongest region, or None. density: −log10 of the tail probability around every
    cell for the phases that stand out somewhere. tests: log10 of their number. cells: votes cast.
    """

    shares: np.ndarray
    whole: int | None
    whole_evidence: float
    local: int | None
    local_evidence: float
    density: np.ndarray
    tests: float
    cells: int


def binomial_evidence(hits: np.ndarray, trials: np.ndarray, chance: np.ndarray | float) -> np.ndarray:
    """−log10 of Hoeffding's bound on P(Binomial(trials, chance) ≥ hits); 0 where hits are no more than expected.

    >>> round(float(binomial_evidence(np.array(30.0), np.array(60.0), 1 / 64)), 1)
    36.3
    """
    hits, trials = np.asarray(hits, np.float32), np.asarray(trials, np.float32)
    rate = np.clip(hits / np.maximum(trials, 1), 1e-6, 1 - 1e-6)
    gain = rate * np.log10(rate / chance) + (1 - rate) * np.log10((1 - rate) / (1 - chance))
    return np.where(rate > chance, trials * gain, 0).astype(np.float32)


def _chances(counts: np.ndarray, main: int | None) -> np.ndarray:
    """Chance that a vote falls on each phase although there is no grid there, from its controls and the median."""
    total = max(counts.sum(), 1.0)
    control = np.empty(64)
    for phase in range(64):
        peers = [counts[m] for m in control_phases(phase) if m != main]
        control[phase] = max([float(np.median(counts)), *peers]) + 1
    return np.clip(control / total, 1 / 64, 0.5)


def _pooled(flags: np.ndarray, step: int) -> np.ndarray:
    """Counts of True in step×step cells."""
    if step == 1:
        return flags.astype(np.float32)
    h, w = -(-flags.shape[0] // step), -(-flags.shape[1] // step)
    padded = np.zeros((h * step, w * step), np.float32)
    padded[: flags.shape[0], : flags.shape[1]] = flags
    return padded.reshape(h, step, w, step).sum(axis=(1, 3))


def _covers(votes: np.ndarray, phase: int, chance: float) -> bool:
    """Whether a phase stands out in most parts of the picture, not in one region."""
    found = []
    for rows in np.array_split(votes, 3):
        for tile in np.array_split(rows, 3, axis=1):
            cast, hits = (tile >= 0).sum(), (tile == phase).sum()
            if cast >= 8:
                found.append(hits > 2 * chance * cast and binomial_evidence(hits, cast, chance) > 1)
    return bool(found) and float(np.mean(found)) >= 0.65


def _box(field: np.ndarray, side: int) -> np.ndarray:
    return cv2.boxFilter(field, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)


def read_grid(votes: np.ndarray, main: int | None, windows: tuple[int, ...] = (5, 9, 17)) -> GridReading:
    """Test a field of grid votes for a second grid under the whole picture and for regions with a foreign one.

    votes: int8 (by, bx) of `grid_votes`. main: the file's own phase, which no region is tested for; None for files
    without a grid. windows: sides of the tested squares, in cells.
    """
    cast = votes >= 0
    counts = np.bincount(votes[cast], minlength=64).astype(float)
    total, chances = counts.sum(), _chances(counts, main)
    evidence = binomial_evidence(counts, np.full(64, total), chances)
    if main is not None:
        evidence[main] = 0
    top = int(evidence.argmax())
    whole, whole_evidence = None, 0.0
    if evidence[top] - np.log10(64) > 2 and _covers(votes, top, chances[top]):
        whole, whole_evidence = top, float(evidence[top] - np.log10(64))
    step = max(1, -(-max(votes.shape) // 128))
    trials = _pooled(cast, step)
    sides = [w for w in windows if w <= min(trials.shape)] or [1]
    tests = float(np.log10(63 * trials.size * len(sides)))
    around = {side: _box(trials, side) for side in sides}
    density, local, best = np.zeros(trials.shape, np.float32), None, 0.0
    hits = [_pooled(votes == phase, step) for phase in range(64)]
    # repeated texture and other codecs favour control phases alike, but only in places
    rates = [(_box(h, sides[-1]) + 1) / (around[sides[-1]] + 64) for h in hits]
    for phase in range(64):
        if phase == main or counts[phase] < 4 or (phase == whole == 0):
            continue
        chance = np.full(trials.shape, chances[phase], np.float32)
        for other in control_phases(phase):
            if other != main:
                np.maximum(chance, rates[other], out=chance)
        np.minimum(chance, 0.5, out=chance)
        fields = [binomial_evidence(_box(hits[phase], w), around[w], chance) for w in sides]
        strongest = max(fields, key=np.max)
        if strongest.max() > tests:
            np.maximum(density, strongest, out=density)
        if phase != whole and strongest.max() > best:
            best, local = float(strongest.max()), phase
    return GridReading(
        counts / max(total, 1), whole, whole_evidence, local if best > tests else None, max(best - tests, 0.0),
        density, tests, int(total),
    )  # fmt: skip


def dead_zones(table: np.ndarray | None) -> np.ndarray:
    """How near to zero a coefficient counts as one, by frequency; DC never counts.

    After a JPEG file's own quantisation an old zero is blurred by about its step.
    """
    zones = np.full(64, 0.5) if table is None else np.maximum(0.5, 0.5 * table.reshape(64))
    zones[0] = 0
    return zones


def _reading(subject: ImageSubject, row_pixels: int, windows: tuple[int, ...]) -> GridReading:
    """The grid votes of a picture, read once for both examiners. Raises InputError where they do not apply."""
    table = luma_steps(subject)
    luma = subject.luma
    if min(luma.shape) < 64:
        raise InputError("the picture is smaller than 64×64 pixels")
    main = None if table is None else 0
    step = max(1, -(-luma.size // row_pixels))  # above row_pixels, one of several rows of cells votes
    return read_grid(grid_votes(luma, dead_zones(table), main, step), main, windows)


@dataclass(frozen=True)
class JpegGrid:
    """Finds regions whose JPEG grid does not coincide with the rest of the picture, as after pasting.

    Every cell votes for the grid phase with most DCT zeros; for a window with n votes, k of them for phase p, and
    chance level c_p, the number of false alarms is ``tests · P(Binomial(n, c_p) ≥ k)``. The score is
    ``log(1 + max(0, −log10 NFA))``. A second grid under the whole picture is left to `JpegCrop`.

    row_pixels: above this many samples one of several rows of cells votes. windows: tested squares, in cells of 8
    pixels. Any picture of 64×64 pixels or more; the map is 1 on regions with a foreign grid.

    Source: the votes and their test follow "ZERO: a local JPEG grid origin detector based on the number of DCT
    zeros", IPOL 2021.

    >>> from vestige.core.image_io import encode
    >>> JpegGrid().find(ImageSubject(encode(np.zeros((80, 80, 3), np.uint8), "PNG"))).score
    0.0
    """

    row_pixels: int = 6_000_000
    windows: tuple[int, ...] = (5, 9, 17)
    slug: ClassVar[str] = "jpeg_grid"
    photographs: ClassVar[bool] = True

    def find(self, subject: ImageSubject) -> Finding:
        try:
            reading = subject.shared(f"jpeg grid {self}", lambda: _reading(subject, self.row_pixels, self.windows))
        except InputError as error:
            return Finding.not_applicable(self.slug, "edit", str(error))
        evidence = [f"{reading.cells} cells voted for a JPEG grid"]
        if reading.local is not None:
            row, column = divmod(reading.local, 8)
            evidence.append(f"a region has its own grid, starting at row {row}, column {column}")
        low = reading.tests / 2
        map = np.clip((reading.density - low) / (low + 10), 0, 1).astype(np.float32)
        return Finding(
            self.slug,
            "edit",
            float(np.log1p(reading.local_evidence)),
            "Part of the picture carries traces of a JPEG grid of its own, as after pasting from a compressed picture; "
            "pictures set into a page or a collage carry them too, and texture that repeats every eight pixels can "
            "imitate them.",
            "No region has a JPEG grid of its own.",
            evidence=tuple(evidence),
            map=subject.upright(map),
            map_caption="regions with a JPEG grid other than the picture's own",
            details={
                "region_phase": None if reading.local is None else list(divmod(reading.local, 8)),
                "region_evidence": round(reading.local_evidence, 3),
                "share_of_votes": round(float(reading.shares.max()), 4),
            },
        )


@dataclass(frozen=True)
class JpegCrop:
    """Finds a second JPEG grid under the whole picture, as after cropping, turning or framing a compressed picture.

    The test is that of `JpegGrid` on all votes together; the phase must stand out in most parts of the picture. An
    earlier grid that starts at the corner shows compression without a crop and is left to `JpegDouble`.
    """

    row_pixels: int = 6_000_000
    windows: tuple[int, ...] = (5, 9, 17)
    slug: ClassVar[str] = "jpeg_crop"
    photographs: ClassVar[bool] = True

    def find(self, subject: ImageSubject) -> Finding:
        grid = JpegGrid(self.row_pixels, self.windows)
        try:
            reading = subject.shared(f"jpeg grid {grid}", lambda: _reading(subject, self.row_pixels, self.windows))
        except InputError as error:
            return Finding.not_applicable(self.slug, "history", str(error))
        cropped = reading.whole not in (None, 0)
        row, column = divmod(reading.whole or 0, 8)
        said = f"a second grid starts at row {row}, column {column} under most of the picture"
        return Finding(
            self.slug,
            "history",
            float(np.log1p(reading.whole_evidence)) if cropped else 0.0,
            "A second JPEG grid lies under most of the picture, out of place. Cropping after an earlier compression "
            "leaves one, and so do turning or mirroring, a frame or a screenshot around a compressed picture, and "
            "frames of a film.",
            "No earlier JPEG grid out of place lies under the whole picture.",
            evidence=(said,) if cropped else (),
            details={
                "whole_phase": None if reading.whole is None else [row, column],
                "whole_evidence": round(reading.whole_evidence, 3),
            },
        )
