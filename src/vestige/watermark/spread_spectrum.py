"""Default image mark: a keyed spread-spectrum tile with pilots, informed embedding and blind registration.

The spectrum of a tile of 128×128 pixels holds 32 pilots and about 1350 data carriers between 0.04 and 0.25 cycles per
pixel (`carriers`). A convolutional codeword with an authentication tag (`payload`) modulates the data carriers, every
code bit several times. The tile repeats over the picture, or (`content_bound`, parameter ``bound``) the content around
every block turns each data carrier's sign and the content around every pixel the pilots', with the key (`binding`), so
that neither adding up the tiles of a picture nor adding up many pictures shows the mark. The same change is added to
the three channels:

    y = x + a · w,     a = α √c · ((2 σ² + c) / c)^(p/2) · flat(σ²),     c = (0.03 · 255)²,

σ² the local variance of the high-passed luma: with p = 1 every place would lose the same structural similarity; a
smaller p moves energy to where the host is weak. w is fitted to the host (`informed`), and the strength of the whole
to how safely the mark is read from it after compression, within a budget for the peak signal-to-noise ratio.

The reader whitens, folds the picture to one tile and decodes the soft carriers; of a bound mark it multiplies by the
mask that it sees in the picture itself before it looks for the pilots, and undoes the data's signs block by block. It
looks at the picture as it stands first (any crop, mirror image or quarter turn), and only when that fails searches for
scale, rotation and aspect (`blind_reader`, `registration`).

Sources: I. Cox, J. Kilian, F. Leighton, T. Shamoon, Secure spread spectrum watermarking for multimedia, IEEE TIP 1997;
M. Kutter, SPIE 1998, and S. Pereira, T. Pun, IEEE TIP 2000 (tiles and pilots); S. Voloshynovskiy et al., A stochastic
approach to content adaptive digital image watermarking, IH 1999 (masking); H. Malvar, D. Florencio, Improved spread
spectrum, IEEE Trans. Signal Processing 2003 (host compensation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.watermark.blind_reader import CELL, SIGNIFICANT, BlindReader, luma_of
from vestige.watermark.carriers import TILE, Carriers, grid
from vestige.watermark.informed import Bound, margins, panel_change
from vestige.watermark.payload import PayloadCode
from vestige.watermark.pictures import checked

_PANEL = 1024  # pixels a side, about, that are marked at once
_C2 = (0.03 * 255) ** 2  # the constant of structural similarity, in squared grey levels
_NEEDED = (1.2, 1.2)  # margins of code bits and pilots that a marked panel should have (see `informed.margins`)
_AMPLE = 1.8  # times what is needed: more is spent on fidelity
_SMALL = 160_000  # pixels


_Kind = tuple[Carriers, PayloadCode, int]  # and alignments tried after a search; 0: no search


@dataclass
class SpreadSpectrum:
    """Spread-spectrum watermark with authentication, blind registration and localisation.

    strength: α, root mean square of the mark in flat, noisy areas over √c. masking: p. quality: lowest peak
    signal-to-noise ratio in decibels, less up to ``reserve`` for pictures so busy that the mark would drown, where it
    is least visible. ease: lowest factor on the strength where the mark has more than ample margins. graphics: factor
    on the strength where the picture is perfectly flat. region: largest side of the part a reader looks at, in mark
    pixels. scales: range of resizing searched. trials: alignments tested on the rectified picture.

    >>> from vestige.core.keys import PUBLIC_KEY
    >>> image = np.random.default_rng(0).random((1, 3, 256, 256), np.float32) * 0.2 + 0.4
    >>> marked = SpreadSpectrum().mark(image, "hello", PUBLIC_KEY)
    >>> SpreadSpectrum().read(marked, PUBLIC_KEY)[0].message
    'hello'
    """

    strength: float = 0.17
    masking: float = 0.75
    quality: float = 40.5
    reserve: float = 2.5
    ease: float = 0.7
    graphics: float = 0.6
    region: int = 1024
    scales: tuple[float, float] = (0.24, 2.1)
    trials: int = 6
    bound: bool = False

    slug = "spread_spectrum"
    minimum_side = 128

    def __post_init__(self) -> None:
        if not (self.strength > 0 and 0 <= self.masking <= 1 and 0 < self.graphics <= 1):
            raise UsageError("strength must be positive, masking lie in 0 to 1 and graphics above 0 and up to 1.")
        if not (self.quality > 0 and 0 <= self.reserve <= 10 and 0 < self.ease <= 1):
            raise UsageError("quality must be positive, reserve lie in 0 to 10 decibels and ease above 0 and up to 1.")
        if not (0 < self.scales[0] <= 1 <= self.scales[1] and self.trials >= 1):
            raise UsageError("scales must enclose 1 and trials be at least 1.")
        if self.region < 2 * TILE:
            raise UsageError(f"region must be at least {2 * TILE} pixels, got {self.region}.")

    # marking ----------------------------------------------------------------------------------------------------------

    def mark(
        self, images: np.ndarray, payload: str | np.ndarray, key: bytes, masks: np.ndarray | None = None
    ) -> np.ndarray:
        """Images of the same shape that carry the payload; float32 in [0, 1].

        payload: 1 to 64 bits (bool) or a text that fits into them (see `payload.pack`). masks: bool N×1×H×W, where
        the mark goes (everywhere by default); several regions of a picture can carry different payloads. Raises
        UsageError when the payload does not fit, the images are not float N×3×H×W of at least 128×128 pixels or the
        masks have another shape; InputError when samples are not finite.
        """
        images = checked(images, self.minimum_side)
        height, width = images.shape[2:]
        if masks is not None and (masks.dtype != bool or masks.shape != (len(images), 1, height, width)):
            raise UsageError(f"Masks are bool arrays of shape {(len(images), 1, height, width)}.")
        carriers = Carriers(key, self.bound)
        code = PayloadCode(key, carriers.slots)
        chips, groups = code.encode(payload), code.groups(payload)
        marked = images.copy()
        for index, image in enumerate(marked):
            whole = luma_of(image)
            content = None if carriers.binding is None else Content(carriers, whole)
            # Panels bound the memory; they start at whole tiles, so that the mark continues across them.
            for rows in _panels(height):
                for columns in _panels(width):
                    part = image[:, rows, columns]
                    luma = whole[rows, columns]
                    bound = None if content is None else content.panel(rows, columns)
                    amplitude = self._amplitude(luma)
                    if masks is not None:
                        inside = masks[index, 0, rows, columns].astype(np.float32)
                        amplitude *= inside * cv2.GaussianBlur(inside, (0, 0), 2.0)
                    part += self._change(luma, carriers, chips, groups, amplitude, bound) / np.float32(255)
                    np.clip(part, 0.0, 1.0, out=part)
        return marked

    def _change(
        self,
        luma: np.ndarray,
        carriers: Carriers,
        chips: np.ndarray,
        groups: np.ndarray,
        amplitude: np.ndarray,
        bound: Bound | None,
    ) -> np.ndarray:
        """Change of a panel, in grey levels, within ``quality``.

        It is weaker where the mark would be safe anyway, stronger by up to ``reserve``, but not above the amplitude,
        where the host would drown it.
        """
        budget = 255 * 10 ** (-self.quality / 20) / max(math.sqrt(float(np.mean(amplitude**2))), 1e-6)
        change = panel_change(luma, carriers, chips, groups, amplitude * np.float32(min(1.0, budget)), bound)
        safety = min(np.divide(margins(luma + change, carriers, chips, groups, bound), _NEEDED))
        # Large pictures are likely to be reduced, so they keep the margins that their size gives them.
        ample = _AMPLE * math.sqrt(max(1.0, luma.size / _SMALL))
        if safety > ample:
            return change * np.float32(max(ample / safety, self.ease))
        for decibels in np.arange(1.0, self.reserve + 0.5):
            if budget >= 1.0 or safety >= 1.0:
                break
            factor = min(1.0, budget * 10 ** (decibels / 20))
            change = panel_change(luma, carriers, chips, groups, amplitude * np.float32(factor), bound)
            safety = min(np.divide(margins(luma + change, carriers, chips, groups, bound), _NEEDED))
        return change

    def _amplitude(self, luma: np.ndarray) -> np.ndarray:
        """Root mean square that the mark may have at every pixel, in grey levels."""
        residual = luma - cv2.GaussianBlur(luma, (0, 0), 2.0)
        variance = cv2.GaussianBlur(residual * residual, (0, 0), 4.0)
        amplitude = self.strength * math.sqrt(_C2) * (1 + 2 / _C2 * variance) ** (self.masking / 2)
        # Perfectly flat places have no noise of their own that would hide a mark.
        amplitude *= self.graphics + (1 - self.graphics) * np.minimum(variance, 0.5) / 0.5
        return np.asarray(amplitude, np.float32)

    # reading ----------------------------------------------------------------------------------------------------------

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """One `Reading` per image, of the kind of mark that is made or else of the other.

        Repeating tiles are always searched for; bound marks in pictures that were resized or turned are when they are
        what is made.

        "read": the authentication tag verifies. "unreadable": the pilots are there (corrected p < 1e-6), the payload
        is not recoverable. "absent": neither. A centred part of at most ``region`` mark pixels a side is read. The
        p-value covers everything that was tried. ``details`` holds scale, rotation, stretch (aspect change), flipped,
        shift, ``raw_bits``, the payload bits before authentication for either packet size {32: ..., 64: ...} where
        decoding was tried, and, once read, ``map``: how strongly the mark is present around each cell of 16×16
        pixels, in standard deviations (about N(0, 1) where there is none, nan where nothing was examined);
        and bound: whether it is the mark that is bound to its picture.
        Raises UsageError for arrays that are not float N×3×H×W, InputError when samples are not finite.
        """
        images = checked(images)
        readers = self._readers(key)
        return [self._reading(readers, image) for image in images]

    def _readers(self, key: bytes) -> list[_Kind]:
        """The kinds of marks that are read: the one that is made first."""
        kinds = []
        for bound in (self.bound, not self.bound):
            carriers = Carriers(key, bound)
            trials = 0 if bound and not self.bound else self.trials
            kinds.append((carriers, PayloadCode(key, carriers.slots), trials))
        return kinds

    def _reading(self, kinds: list[_Kind], image: np.ndarray, free: np.ndarray | None = None) -> Reading:
        """The reading of the first kind whose payload is read, else that of the most evidence."""
        found: list[Reading] = []
        for carriers, code, trials in kinds:
            reader = BlindReader(carriers, code, image, free, region=self.region, scales=self.scales, trials=trials)
            reading = reader.read()
            p_value = min(1.0, len(kinds) * reading.p_value)
            outcome = "absent" if reading.outcome == "unreadable" and p_value >= SIGNIFICANT else reading.outcome
            details = {**(reading.details or {}), "bound": carriers.binding is not None}
            found.append(replace(reading, outcome=outcome, p_value=p_value, details=details))
            if outcome == "read":
                return found[-1]
        return min(found, key=lambda reading: reading.p_value)

    def read_all(self, image: np.ndarray, key: bytes, most: int = 8) -> list[Reading]:
        """All marks of one key in an image 1×3×H×W, such as those of several regions; empty when none is read.

        Parts larger than ``region`` are looked through in overlapping windows. Each mark found is blanked out where
        its map shows it and the rest read again. Readings of the same payload are merged, their maps by maximum.
        """
        (image,) = checked(image)
        readers = self._readers(key)
        found: dict[bytes, Reading] = {}
        free = np.ones(image.shape[1:], bool)
        for rows, columns in _windows(image.shape[1:], self.region):
            while len(found) < most:
                reading = self._reading(readers, image[:, rows, columns], free[rows, columns])
                if reading.outcome != "read":
                    break
                assert reading.details is not None
                assert reading.bits is not None
                full = np.full([-(-n // CELL) for n in image.shape[1:]], np.nan, np.float32)
                local = reading.details["map"]
                top, left = rows.start // CELL, columns.start // CELL
                full[top : top + local.shape[0], left : left + local.shape[1]] = local
                present = np.repeat(np.repeat(local > 2.5, CELL, 0), CELL, 1)
                window = free[rows, columns]
                if not (window & present[: window.shape[0], : window.shape[1]]).any():
                    break
                window &= ~present[: window.shape[0], : window.shape[1]]
                name = np.packbits(reading.bits).tobytes() + bytes([len(reading.bits)])
                if name in found:
                    known = found[name].details
                    assert known is not None
                    known["map"] = np.fmax(known["map"], full)
                else:
                    reading.details["map"] = full
                    found[name] = reading
        return list(found.values())


class Content:
    """What the content of a whole picture does to its mark, panel by panel."""

    def __init__(self, carriers: Carriers, luma: np.ndarray) -> None:
        assert carriers.binding is not None
        self.binding, self.side = carriers.binding, carriers.data.side
        self.described = self.binding.describe(luma, *grid(luma.shape, self.side))
        self.mask = self.binding.mask(luma)

    def panel(self, rows: slice, columns: slice) -> Bound:
        down, right = grid((rows.stop - rows.start, columns.stop - columns.start), self.side)
        top, left = 2 * rows.start // self.side, 2 * columns.start // self.side
        described = self.described[top : top + down, left : left + right]
        return Bound(self.binding.signs(described), self.mask[rows, columns])


def _panels(length: int) -> list[slice]:
    """Cuts of a side into parts of about `_PANEL` pixels that start at whole tiles."""
    count = max(1, round(length / _PANEL))
    edges = [round(i * length / count / TILE) * TILE for i in range(count)] + [length]
    return [slice(a, b) for a, b in pairwise(edges)]


def _windows(shape: tuple[int, ...], largest: int) -> list[tuple[slice, slice]]:
    """Overlapping windows of at most ``largest`` a side that start at whole cells and cover an h×w array."""
    cuts = []
    for n in shape:
        count = max(1, math.ceil((n - largest) / (0.75 * largest)) + 1)
        step = 0 if count == 1 else math.ceil((n - largest) / (count - 1) / CELL) * CELL
        cuts.append([slice(min(i * step, n), min(i * step + largest, n)) for i in range(count)])
    return [(rows, columns) for rows in cuts[0] for columns in cuts[1]]
