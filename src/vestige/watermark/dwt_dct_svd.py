"""Classical blind watermark: the largest singular value of wavelet-domain DCT blocks carries the payload.

Luma goes through one level of an orthonormal wavelet; the low band is cut into 4×4 blocks (8×8 pixels) and each block
through a DCT. Of its low 3×3 corner, with the mean (DC) set to zero so that brightness does not matter, the largest
singular value s is moved to the nearest point that encodes one chip b = ±1 (keyed, companded quantisation index
modulation):

    f(s) = ln(1 + ρ s/Δ) / ρ,      f(s') ∈ {k + 1/2 - b/4 : k = 0, 1, 2, ...}.

Companding makes a contrast change a shift of f in textured blocks, which the reader searches over, and lets the step
grow with texture (about Δ + ρ s). A keyed permutation and scrambler place a convolutional codeword on the 16×16 blocks
of a 128×128 tile that repeats over the image; `sync` adds the template that finds the tile after crops, resizing, small
rotation and mirroring.

Sources: K. Navas et al., DWT-DCT-SVD based watermarking, COMSWARE 2008 (the transform chain); B. Chen, G. Wornell,
Quantization index modulation, IEEE Trans. Inf. Theory 2001. Companding, code and template are this implementation's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pywt

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.watermark.payload import TAG_BITS, Decoded, PayloadCode
from vestige.watermark.pictures import checked
from vestige.watermark.sync import Lock, Template, whiten

_BLOCK = 8
_BAND, _CONTEXT = 1024, 32  # rows marked at once, and rows of context on either side
_DCT = np.array(
    [[math.sqrt((2 if k else 1) / 4) * math.cos(math.pi * k * (2 * n + 1) / 8) for n in range(4)] for k in range(3)],
    dtype=np.float32,
)  # the three lowest basis functions of the orthonormal 4-point DCT-II
_BLURS = (0.0, 1.0, 0.6, 1.4)  # standard deviations in pixels that the reader tries to undo
_GAINS = tuple(1.1**k for k in (0, -1, 1, -2, 2, -3, 3))
SIGNIFICANT = 1e-6  # presence is claimed below this corrected p-value


@dataclass
class DwtDctSvd:
    """DWT-DCT-SVD watermark with convolutional code, authentication and a synchronisation template.

    strength: quantiser step Δ in flat areas, in grey levels of an orthonormal transform coefficient. companding: ρ,
    growth of the step with texture. template: root mean square of the template in grey levels at average texture.
    wavelet: short orthogonal wavelet of pywavelets. region: largest side of the part a reader looks at, in mark pixels.
    scales, angle: range of resizing and rotation (degrees) the reader searches. candidates: alignments it tests.

    >>> from vestige.core.keys import PUBLIC_KEY
    >>> image = np.random.default_rng(0).random((1, 3, 256, 256), np.float32) * 0.2 + 0.4
    >>> marked = DwtDctSvd().mark(image, "hello", PUBLIC_KEY)
    >>> DwtDctSvd().read(marked, PUBLIC_KEY)[0].message
    'hello'
    """

    strength: float = 27.0
    companding: float = 0.14
    template: float = 1.0
    wavelet: str = "sym4"
    region: int = 1024
    scales: tuple[float, float] = (0.4, 2.0)
    angle: float = 6.0
    candidates: int = 10

    slug = "dwt_dct_svd"
    tile = 128
    minimum_side = 192

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.companding > 0 and self.template > 0):
            raise UsageError("strength, companding and template of dwt_dct_svd must be positive.")
        known = self.wavelet in pywt.wavelist(kind="discrete")
        if not known or not pywt.Wavelet(self.wavelet).orthogonal or pywt.Wavelet(self.wavelet).dec_len > 16:
            raise UsageError(f"{self.wavelet!r} is no orthogonal wavelet of up to 16 samples; use haar, db2 or sym4.")
        if not (0 < self.scales[0] <= 1 <= self.scales[1] and 0 <= self.angle <= 45 and self.candidates >= 1):
            raise UsageError("scales must enclose 1, angle lie in 0 to 45 degrees and candidates be at least 1.")
        if self.region < 2 * self.tile:
            raise UsageError(f"region must be at least {2 * self.tile} pixels, got {self.region}.")

    # marking ----------------------------------------------------------------------------------------------------------

    def mark(self, images: np.ndarray, payload: str | np.ndarray, key: bytes) -> np.ndarray:
        """Images of the same shape that carry the payload; float32 in [0, 1].

        payload: 1 to 64 bits (bool) or a text that fits into them (see `payload.pack`). The same change is added to
        the three channels, so colours keep their hue. Raises UsageError when the payload does not fit or the images
        are not float N×3×H×W of at least 192×192 pixels, InputError when samples are not finite.
        """
        images = checked(images, self.minimum_side)
        height = images.shape[2]
        chips = PayloadCode(key, self._slots).encode(payload).reshape(self.tile // _BLOCK, -1).astype(np.float32)
        pattern = Template(key, self.tile).pattern()
        marked = np.empty_like(images)
        for image, out in zip(images, marked, strict=True):
            # Bands bound the memory; their context is wider than every filter, so that the seams do not show.
            for top in range(0, height, _BAND):
                first = max(top - _CONTEXT, 0)
                rolled = np.roll(chips, -(first // _BLOCK), 0), np.roll(pattern, -first, 0)
                band = self._mark_band(image[:, first : top + _BAND + _CONTEXT], *rolled)
                out[:, top : top + _BAND] = band[:, top - first :][:, :_BAND]
        return marked

    @property
    def _slots(self) -> int:
        return (self.tile // _BLOCK) ** 2

    def _mark_band(self, image: np.ndarray, chips: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        height, width = image.shape[1:]
        luma = _luma(image)
        rows, columns = height // _BLOCK, width // _BLOCK
        chips = np.tile(chips, (-(-rows // len(chips)), -(-columns // len(chips))))[:rows, :columns]
        inner = np.s_[: rows * _BLOCK, : columns * _BLOCK]
        change = _tiled(pattern, height, width) * self._visibility(luma)
        target: np.ndarray | None = None  # chosen once, from the untouched image
        marked = np.empty_like(image)
        # The second round repairs what clipping to the sample range took away in the first.
        for _ in range(2):
            coefficients = self._corner(luma[inner] + change[inner])
            for _ in range(2):
                u, s, vt = np.linalg.svd(coefficients)
                target = self._nearest(s[..., 0], chips) if target is None else target
                direction = u[..., :, :1] * vt[..., :1, :]
                # A block without texture has no direction of its own; the horizontal wave is the least visible one.
                direction[s[..., 0] < 1e-3] = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], np.float32)
                direction[..., 0, 0] = 0.0
                slope = np.maximum((direction**2).sum((-1, -2)), 0.2)
                step = ((target - s[..., 0]) / slope)[..., None, None] * direction
                coefficients = coefficients + step
            change[inner] += self._expand(coefficients - self._corner(luma[inner] + change[inner]))
            np.add(image, change / 255.0, out=marked)
            np.clip(marked, 0.0, 1.0, out=marked)
            change = _luma(marked) - luma
        return marked

    def _visibility(self, luma: np.ndarray) -> np.ndarray:
        """Template amplitude: follows local contrast between 0.6 and 2.5 times its nominal value."""
        residual = luma - cv2.GaussianBlur(luma, (0, 0), 2.0)
        contrast = cv2.blur(np.abs(residual), (15, 15), borderType=cv2.BORDER_REFLECT)
        return self.template * np.clip(0.6 + contrast / 8.0, 0.6, 2.5)

    def _corner(self, luma: np.ndarray) -> np.ndarray:
        """Low 3×3 DCT coefficients without DC of every block, (rows, columns, 3, 3)."""
        low = pywt.dwt2(luma, self.wavelet, mode="periodization")[0]
        blocks = low.reshape(low.shape[0] // 4, 4, -1, 4)
        coefficients = np.einsum("ia,yaxb,jb->yxij", _DCT, blocks, _DCT, optimize=True)
        coefficients[..., 0, 0] = 0.0
        return coefficients

    def _expand(self, coefficients: np.ndarray) -> np.ndarray:
        """The luma image of block coefficients, the adjoint of `_corner`."""
        low = np.einsum("ia,yxij,jb->yaxb", _DCT, coefficients, _DCT, optimize=True)
        rows, _, columns, _ = low.shape
        return pywt.idwt2((low.reshape(rows * 4, columns * 4), (None,) * 3), self.wavelet, mode="periodization")

    def _compand(self, s: np.ndarray) -> np.ndarray:
        return np.log1p(self.companding * s / self.strength) / self.companding

    def _nearest(self, s: np.ndarray, chips: np.ndarray) -> np.ndarray:
        """The nearest singular value that encodes each chip."""
        offset = 0.5 - 0.25 * chips
        point = np.maximum(np.rint(self._compand(s) - offset), 0.0) + offset
        return np.expm1(self.companding * point) * self.strength / self.companding

    # reading ----------------------------------------------------------------------------------------------------------

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """One `Reading` per image.

        "read": the authentication tag verifies. "unreadable": the template is there (corrected p < 1e-6), the payload
        is not recoverable. "absent": neither. ``details`` holds scale, rotation, flipped, shift and ``raw_bits``, the
        payload bits before authentication for either packet size {32: ..., 64: ...}, where decoding was tried. The
        p-value covers everything that was tried. A centred part of at most ``region`` mark pixels a side is read.
        Raises UsageError for arrays that are not float N×3×H×W, InputError when samples are not finite.
        """
        images = checked(images)
        template, code = Template(key, self.tile), PayloadCode(key, self._slots)
        return [self._read_one(image, template, code) for image in images]

    def _read_one(self, image: np.ndarray, template: Template, code: PayloadCode) -> Reading:
        if min(image.shape[1:]) < 64:
            return Reading("absent", 1.0, details={"why": "the image is smaller than 64×64 pixels"})
        luma = _luma(_centre(image, int(self.region * self.scales[1])))
        best: tuple[Lock, list[Decoded]] | None = None
        tried = decoded = 0
        for linear, log_p in self._linear_parts(luma, template):
            tried += 1
            lock = Lock(linear, np.zeros(2), log_p)
            attempts: list[Decoded] = []
            # Decoding only near-significant candidates saves time and keeps the number of tags tried small.
            if log_p < math.log(0.05):
                lock, canvas = self._align(luma, lock, template)
                for soft in self._soft(canvas, lock):
                    decoded += 2
                    now = code.decode(soft)
                    if now[0].authentic:
                        return self._report(lock, tried, decoded, now)
                    attempts = attempts or now
            if best is None or log_p < best[0].log_p:
                best = (lock, attempts)
        assert best is not None  # the identity is always tried
        return self._report(best[0], tried, decoded, best[1])

    def _report(self, lock: Lock, tried: int, decoded: int, attempts: list[Decoded]) -> Reading:
        p_value = math.exp(min(0.0, lock.log_p + math.log(tried)))
        details: dict[str, Any] = {
            "scale": lock.scale,
            "rotation": lock.rotation,
            "flipped": lock.flipped,
            "shift": tuple(float(v) for v in lock.shift),
            "raw_bits": {len(a.raw_bits): a.raw_bits for a in attempts},
        }
        if attempts and attempts[0].authentic:
            found = attempts[0]
            p_value = min(p_value, decoded * 2.0**-TAG_BITS)
            return Reading("read", p_value, found.bits, found.message, found.agreement, details)
        outcome = "unreadable" if p_value < SIGNIFICANT else "absent"
        return Reading(outcome, p_value, None, None, attempts[0].agreement if attempts else 0.0, details)

    def _linear_parts(self, luma: np.ndarray, template: Template) -> Iterator[tuple[np.ndarray, float]]:
        """Candidate linear parts with their log p-values: no change first, then the search, only if it is needed."""
        identity = np.eye(2)
        yield identity, template.align(_whiten(self._rectify(luma, identity, np.zeros(2))))[1]
        white = whiten(luma[_middle(luma.shape, 1024, 16)])
        yield from template.candidates(white, self.candidates, self.scales, self.angle)

    def _align(self, luma: np.ndarray, lock: Lock, template: Template) -> tuple[Lock, np.ndarray]:
        """The image in mark coordinates (nan outside it), shifted so that tiles start at whole pixels."""
        linear = lock.linear
        canvas = self._rectify(luma, linear, np.zeros(2))
        shift, _ = template.align(_whiten(canvas))
        for _ in range(0 if np.array_equal(linear, np.eye(2)) else 2):
            linear = linear @ np.linalg.inv(np.eye(2) + template.drift(_whiten(canvas), shift))
            canvas = self._rectify(luma, linear, np.zeros(2))
            shift, _ = template.align(_whiten(canvas))
        whole = np.rint(shift)
        if np.abs(shift - whole).max() > 0.15:
            canvas = self._rectify(luma, linear, whole - shift)
        return Lock(linear, whole % self.tile, lock.log_p), canvas

    def _rectify(self, luma: np.ndarray, linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Luma in mark coordinates, centre on centre: canvas point c shows image point linear·(c - middle + offset)."""
        height, width = luma.shape
        scale = math.sqrt(abs(np.linalg.det(linear)))
        if np.array_equal(linear, np.eye(2)) and not offset.any():
            return luma[_middle(luma.shape, self.region, 1)]
        size = [min(self.region, max(_BLOCK * 4, int(side / scale))) for side in (width, height)]
        if scale > 1.2:
            luma = cv2.GaussianBlur(luma, (0, 0), 0.35 * scale)
        middle = (np.array(size) - 1) / 2
        start = (np.array([width, height]) - 1) / 2 - linear @ (middle - offset)
        matrix = np.column_stack([linear, start])
        flags = cv2.INTER_LANCZOS4 if scale < 1.0 else cv2.INTER_CUBIC
        return cv2.warpAffine(
            luma, matrix, size, flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=math.nan
        )

    def _soft(self, canvas: np.ndarray, lock: Lock) -> Iterator[np.ndarray]:
        """Soft chips, Σ sin(2π f(s/gain)) over the repetitions of a tile position, for every assumed loss of contrast.

        Blur is undone on the coefficients: a Gaussian of that sigma damps frequency ν by exp(-2π² sigma² ν²).
        """
        x0, y0 = (-lock.shift).astype(int) % _BLOCK
        rows, columns = (canvas.shape[0] - y0) // _BLOCK, (canvas.shape[1] - x0) // _BLOCK
        inner = canvas[y0 : y0 + rows * _BLOCK, x0 : x0 + columns * _BLOCK]
        valid = np.isfinite(inner).reshape(rows, _BLOCK, columns, _BLOCK).all((1, 3))
        corner = self._corner(np.where(np.isnan(inner), np.nanmean(inner), inner).astype(np.float32))
        frequency = np.arange(3) / (2 * _BLOCK)
        squared = frequency[:, None] ** 2 + frequency**2
        side = self.tile // _BLOCK
        first_x, first_y = ((np.array([x0, y0]) + lock.shift) // _BLOCK).astype(int) % side
        at_y, at_x = (first_y + np.arange(rows)) % side, (first_x + np.arange(columns)) % side
        for blur in _BLURS:
            restored = corner * np.exp(2 * np.pi**2 * blur**2 * squared).astype(np.float32)
            s = np.linalg.svd(restored, compute_uv=False)[..., 0]
            for gain in _GAINS:
                soft = np.zeros((side, side))
                votes = np.where(valid, np.sin(2 * np.pi * self._compand(s / np.float32(gain))), 0.0)
                np.add.at(soft, (at_y[:, None], at_x[None, :]), votes)
                yield soft.ravel()


def _luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma in grey levels 0 to 255 of 3×H×W."""
    luma = image[0] * np.float32(0.299 * 255)
    luma += image[1] * np.float32(0.587 * 255)
    luma += image[2] * np.float32(0.114 * 255)
    return luma


def _tiled(pattern: np.ndarray, height: int, width: int) -> np.ndarray:
    side = len(pattern)
    return np.tile(pattern, (-(-height // side), -(-width // side)))[:height, :width]


def _middle(shape: tuple[int, ...], largest: int, multiple: int) -> tuple[slice, slice]:
    """The central part of an h×w array, at most ``largest`` a side and a multiple of ``multiple``."""
    sides = [max(min(n, largest) // multiple * multiple, 1) for n in shape]
    starts = [(n - side) // 2 for n, side in zip(shape, sides)]
    return tuple(slice(a, a + side) for a, side in zip(starts, sides))  # type: ignore[return-value]


def _centre(image: np.ndarray, largest: int) -> np.ndarray:
    return image[(slice(None), *_middle(image.shape[1:], largest, 1))]


def _whiten(canvas: np.ndarray) -> np.ndarray:
    """Whitened canvas, zero where it shows nothing."""
    missing = np.isnan(canvas)
    return np.where(missing, 0.0, whiten(np.where(missing, np.nanmean(canvas), canvas).astype(np.float32)))
