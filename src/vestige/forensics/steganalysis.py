"""Least-significant-bit replacement: how much of the picture's lowest bit plane carries a hidden message.

Replacing the lowest bit moves a sample only within its pair (2k, 2k+1), which leaves a statistical trace. Four
classical estimates of the embedding rate p (0: nothing, 1: every sample carries a bit) look at it from different sides:

- sample pairs: the smaller root of  g p²/2 + (2 x - n) p + (y - x) = 0  with the counts x, y of neighbouring samples
  whose order agrees or disagrees with the pair they are in, g those inside one pair and n all of them;
- regular and singular groups: how the number of groups that get rougher or smoother when bits are flipped
  changes from the picture to its flipped copy;
- weighted stego: mean of (s - predicted s) (s - s with its bit flipped), weighted towards predictable parts; its
  running sum also shows where a message that fills the picture from the top ends;
- chi-square: whether the histogram is level within every pair over a growing prefix of the samples.

Sources: Detection of LSB Steganography via Sample Pair Analysis, IEEE Trans. Signal Processing 2003; Reliable Detection
of LSB Steganography in Color and Grayscale Images, ACM MM&Sec 2001; Revisiting Weighted Stego-Image Steganalysis,
SPIE 2008; Attacks on Steganographic Systems, Information Hiding 1999.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.stats import chi2

from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject

_LOSSLESS = ("PNG", "BMP", "TIFF", "WEBP")
#: Fewer samples than this a channel and the estimates scatter too widely to say anything.
_FEWEST = 64 * 64
#: Samples a channel beyond which the counting estimates read an even part of it.
_ENOUGH = 2_000_000
#: Rows read at a time.
_STRIP = 512


class Steganalysis:
    """Estimates the rate of LSB replacement in a losslessly stored picture.

    The score is the estimated share of samples that carry a hidden bit, from about 0 to 1: the median of three
    estimates, in the channel where it is smallest. A prefix of share f filled from the top, which is far less
    ambiguous, counts as at least 0.25 + 0.75 f.

    prefixes: number of growing prefixes of the sequential test.

    >>> from vestige.core.image_io import encode
    >>> g = np.random.default_rng(0)
    >>> picture = cv2.GaussianBlur(g.normal(128, 300, (256, 256, 3)), (0, 0), 3).clip(0, 255).astype(np.uint8)
    >>> hidden = picture & 254 | g.integers(0, 2, picture.shape, dtype=np.uint8)
    >>> Steganalysis().find(ImageSubject(encode(hidden, "PNG"))).score > 0.8
    True
    """

    slug = "steganalysis"
    photographs = True
    kind = "payload"

    def __init__(self, *, prefixes: int = 64) -> None:
        self.prefixes = prefixes

    def find(self, subject: ImageSubject) -> Finding:
        """Score and evidence by channel; does not apply where the lowest bits are not the file's own samples."""
        why = _why_not(subject)
        if why:
            return Finding.not_applicable(self.slug, self.kind, why)
        stored = subject.stored
        grey = bool(all(np.array_equal(stored[i : i + _STRIP, :, 0], stored[i : i + _STRIP, :, c])
                        for i in range(0, len(stored), _STRIP) for c in (1, 2)))  # fmt: skip
        rates: dict[str, dict[str, float]] = {}
        for index, name in enumerate(("grey",) if grey else ("red", "green", "blue")):
            channel = np.ascontiguousarray(stored[..., index])
            if _unsuitable(channel):
                continue
            rates[name] = self._rates(channel)
        if not rates:
            return Finding.not_applicable(
                self.slug,
                self.kind,
                "the samples are those of a graphic or were stretched or clipped (few or unevenly used values), which "
                "breaks the statistics of the test.",
            )
        # A message usually runs through all channels, while colour conversion (a decoded JPEG, say) imitates one
        # in single channels: the least suspicious channel speaks, unless another one stands out widely.
        estimates = [r["estimate"] for r in rates.values()]
        score = max(min(estimates), max(estimates) - 0.35)
        prefix = float(np.median([r["prefix"] for r in rates.values()]))
        if prefix > 0:
            score = max(score, 0.25 + 0.75 * prefix)
        evidence = [
            f"{name}: estimated share of samples that carry a bit {r['estimate']:.3f} (sample pairs {r['pairs']:.3f}, "
            f"regular-singular groups {r['groups']:.3f}, weighted stego {r['weighted']:.3f})"
            for name, r in rates.items()
        ]
        if prefix >= 1:
            evidence.append("the histogram is level within value pairs over the whole picture")
        elif prefix > 0:
            evidence.append(
                f"the histogram is level within value pairs over the first {100 * prefix:.0f} % of the rows and not "
                f"beyond, as if a message filled from the top ends there"
            )
        return Finding(
            self.slug,
            self.kind,
            float(score),
            "The lowest bits of the samples look replaced by random-looking data, as simple LSB steganography leaves "
            "them; what the data is cannot be read from this.",
            "The lowest bits show no sign of LSB replacement above the uncertainty of the test; small messages and "
            "other hiding methods remain possible.",
            evidence=tuple(evidence),
            details={name: {k: round(v, 4) for k, v in r.items()} for name, r in rates.items()},
        )

    def _rates(self, channel: np.ndarray) -> dict[str, float]:
        # whole strips, evenly spread, are sample enough for the two counting estimates of a large picture
        strips = range(0, len(channel), 64)
        skip = max(1, channel.size // _ENOUGH)
        counted = channel if skip == 1 else np.concatenate([channel[i : i + 64] for i in strips[::skip]])
        pairs = sample_pairs(counted)
        groups = regular_singular(counted)
        weighted, rows = weighted_stego(channel)
        values = [v for v in (pairs, groups, weighted) if math.isfinite(v)]
        estimate = float(np.median(values)) if values else 0.0
        return {
            "pairs": pairs,
            "groups": groups,
            "weighted": weighted,
            "prefix": self._prefix(channel, rows),
            "estimate": estimate,
        }

    def _prefix(self, channel: np.ndarray, rows: np.ndarray) -> float:
        """Share of the rows from the top that a sequential message fills, 0 where there is none.

        The end is where the running weighted-stego sum departs furthest from a straight line; it counts only where
        the chi-square attack agrees that the histogram of the part before it is level within pairs.
        """
        height = len(rows)
        ends = np.unique(np.linspace(0, height, self.prefixes + 1).round().astype(int))[1:]
        histogram = np.zeros(256)
        level = np.zeros(len(ends))
        start = 0
        for i, end in enumerate(ends):
            histogram += np.bincount(channel[start:end].ravel(), minlength=256)
            level[i] = chi_square(histogram)
            start = end
        filled = np.nonzero(level > 0.05)[0]
        if not len(filled):
            return 0.0
        end = int(ends[filled[-1]])
        before = float(np.median(rows[:end]))
        after = float(np.median(rows[end:])) if end < height else 0.0
        # a histogram that is level by chance does not come with a full rate in just the rows it covers
        sure = before > 0.7 and before - after > 0.35 and end * channel.shape[1] >= _FEWEST
        return end / height if sure else 0.0


def _why_not(subject: ImageSubject) -> str:
    decoded = subject.decoded
    if subject.format == "GIF":
        return "GIF stores a palette, not the samples themselves."
    if subject.format not in _LOSSLESS or (subject.format == "WEBP" and b"VP8L" not in subject.data[:64]):
        return f"{subject.format} compression rounds the samples, so hidden lowest bits would not survive in it."
    if str(subject.info.get("compression", "")).lower() in ("jpeg", "webp", "tiff_jpeg"):
        return "the file compresses the samples with loss, so hidden lowest bits would not survive in it."
    if decoded.bit_depth != 8:
        return f"the test is made for eight-bit samples; this picture has {decoded.bit_depth}."
    if decoded.mode not in ("L", "RGB", "RGBA", "LA", "RGBX"):
        return f"the samples are not plain grey or RGB values (mode {decoded.mode})."
    if decoded.stored.shape[0] * decoded.stored.shape[1] < _FEWEST or min(decoded.stored.shape[:2]) < 16:
        return "the picture is too small for the statistics of the test."
    return ""


def _unsuitable(channel: np.ndarray) -> bool:
    """Graphics, stretched contrast and clipping leave value pairs uneven without any message."""
    histogram = np.bincount(channel.ravel(), minlength=256).astype(float)
    total = histogram.sum()
    used = np.nonzero(histogram)[0]
    if len(used) < 24:
        return True
    inner = histogram[used[0] : used[-1] + 1]
    smooth = cv2.blur(inner[None].astype(np.float64), (9, 1))[0]
    busy = smooth > 0.0004 * total
    gaps = float((inner[busy] < 0.1 * smooth[busy]).mean()) if busy.any() else 1.0
    peak = float(np.max(inner)) / total
    flat = float((channel[:, 1:] == channel[:, :-1]).mean())
    return gaps > 0.05 or peak > 0.5 or flat > 0.6


def _root(a: float, b: float, c: float) -> float:
    """The root of a x² + b x + c = 0 that is smaller in magnitude; nan without a real one."""
    if abs(a) < 1e-9:
        return -c / b if abs(b) > 1e-9 else math.nan
    square = b * b - 4 * a * c
    if square < 0:
        return -b / (2 * a)
    root = math.sqrt(square)
    return min(((-b + root) / (2 * a), (-b - root) / (2 * a)), key=abs)


def sample_pairs(channel: np.ndarray) -> float:
    """Embedding rate by sample pair analysis of uint8 H×W, over horizontal and vertical neighbours."""
    x = y = inside = total = 0
    for start in range(0, len(channel), _STRIP):
        strip = channel[start : start + _STRIP + 1]
        for u, v in ((strip[:_STRIP, :-1], strip[:_STRIP, 1:]), (strip[:-1], strip[1:])):
            keep = _unclipped(u) & _unclipped(v)
            u, v = u[keep], v[keep]
            odd = (v & 1).astype(bool)
            less, more = u < v, u > v
            x += int(np.count_nonzero(np.where(odd, more, less)))
            y += int(np.count_nonzero(np.where(odd, less, more)))
            inside += int(np.count_nonzero((u >> 1) == (v >> 1)))
            total += u.size
    if total == 0:
        return math.nan
    return float(np.clip(_root(inside / 2, 2 * x - total, y - x), -0.5, 1.2))


def regular_singular(channel: np.ndarray) -> float:
    """Embedding rate by RS analysis of uint8 H×W, with groups of four samples in a row and mask 0 1 1 0."""
    width = channel.shape[1] // 4 * 4
    counts = np.zeros((2, 2))  # picture or its flipped copy × positive or negative flipping: regular - singular
    for start in range(0, len(channel), _STRIP):
        samples = channel[start : start + _STRIP, :width].reshape(-1, 4)
        groups = samples[_unclipped(samples).all(1)].astype(np.int16)
        for k in (0, 1):
            g = groups ^ 1 if k else groups
            rough = _roughness(g)
            for sign in (0, 1):
                f = g.copy()
                f[:, 1:3] = ((g[:, 1:3] + 1) ^ 1) - 1 if sign else g[:, 1:3] ^ 1
                other = _roughness(f)
                counts[k, sign] += np.count_nonzero(other > rough) - np.count_nonzero(other < rough)
    d0, m0, d1, m1 = counts[0, 0], counts[0, 1], counts[1, 0], counts[1, 1]
    z = _root(2 * (d1 + d0), m0 - m1 - d1 - 3 * d0, d0 - m0)
    return float(np.clip(z / (z - 0.5), -0.5, 1.2)) if math.isfinite(z) and abs(z - 0.5) > 1e-6 else math.nan


def _unclipped(samples: np.ndarray) -> np.ndarray:
    """Where samples lie outside the outermost value pairs, in which clipping piles them up."""
    return (samples > 1) & (samples < 254)


def _roughness(groups: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(groups, axis=1)).sum(1)


def weighted_stego(channel: np.ndarray) -> tuple[float, np.ndarray]:
    """Embedding rate by weighted stego analysis of uint8 H×W, and the same estimate row by row (float64 H)."""
    kernel = _predictor(channel)
    top = np.zeros(len(channel))
    weights = np.zeros(len(channel))
    for start in range(0, len(channel), _STRIP):
        first = max(start - 4, 0)
        strip = channel[first : start + _STRIP + 4].astype(np.float32)
        predicted = cv2.filter2D(strip, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        mean = cv2.blur(strip, (5, 5))
        variance = np.maximum(cv2.blur(strip * strip, (5, 5)) - mean * mean, 0)
        samples = channel[first : start + _STRIP + 4]
        weight = np.where(_unclipped(samples), 1.0 / (5.0 + variance), np.float32(0))
        direction = (2.0 * (samples & 1) - 1.0).astype(np.float32)
        value = weight * (strip - predicted) * direction
        rows = slice(start - first, min(start + _STRIP, len(channel)) - first)
        top[start : start + _STRIP] = value[rows].sum(1)
        weights[start : start + _STRIP] = weight[rows].sum(1)
    total = max(float(weights.sum()), 1e-9)
    return float(np.clip(2 * top.sum() / total, -0.5, 1.2)), 2 * top / np.maximum(weights, 1e-9)


def _predictor(channel: np.ndarray) -> np.ndarray:
    """3×3 kernel that predicts a sample from its eight neighbours best in the least-squares sense, over the picture."""
    rows = max(1, channel.shape[0] * channel.shape[1] // 300_000)
    c = channel.astype(np.float32) if rows == 1 else None
    ys = np.arange(1, channel.shape[0] - 1, rows)
    up, here, down = ((c if c is not None else channel)[ys + d].astype(np.float32) for d in (-1, 0, 1))
    centre = here[:, 1:-1]
    sides = [
        here[:, :-2] + here[:, 2:],
        up[:, 1:-1] + down[:, 1:-1],
        up[:, :-2] + down[:, 2:] + up[:, 2:] + down[:, :-2],
    ]
    # a sum of one keeps the prediction free of bias; the diagonal term takes what the others leave
    basis = np.stack([(s / 2 - sides[2] / 4).ravel() for s in sides[:2]], 1)
    target = (centre - sides[2] / 4).ravel()
    weight = 1.0 / (5.0 + target**2)
    normal = (basis * weight[:, None]).T @ basis + 1e-3 * np.eye(2)
    a, b = np.linalg.solve(normal, (basis * weight[:, None]).T @ target)
    d = (1.0 - a - b) / 4
    return np.array([[d, b / 2, d], [a / 2, 0, a / 2], [d, b / 2, d]], np.float32)


def chi_square(histogram: np.ndarray) -> float:
    """Probability that counts this uneven arise when every value pair is level, for a histogram of 256 values."""
    even, odd = histogram[0::2], histogram[1::2]
    expected = (even + odd) / 2
    used = expected > 4
    if used.sum() < 2:
        return 0.0
    statistic = float((((even - expected) ** 2) / np.where(used, expected, 1))[used].sum())
    return float(chi2.sf(2 * statistic, int(used.sum()) - 1))
