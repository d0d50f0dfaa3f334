"""Replication in image generators: does it replay its training pictures, how much, which, and why; less of it by dedup.

Unveil: every drawn picture's best score among the training pictures, beside the same for real pictures that were never
trained on; extraction, where many draws agree with each other and with one training picture and lie abnormally near it.
Understand: does replication go with how often a picture is in the training set, and with how plain it is. Mitigate:
which training pictures to leave out so that each is there once.

Source: Replication in Visual Diffusion Models: A Survey and Outlook, arXiv 2024, and the measures that it collects:
Diffusion Art or Digital Forgery?, CVPR 2023 (similarity); Extracting Training Data from Diffusion Models, USENIX
Security 2023 (tiles, cliques, the ratio to the 50 nearest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.copies.descriptor import Descriptor, load_descriptor
from vestige.core.errors import UsageError
from vestige.core.rates import interval

#: Tiles a side, and the share of the mean distance to the nearest training pictures that is abnormally near.
TILES, NEAR = 4, 0.5
_NEIGHBOURS = 50


@dataclass(frozen=True)
class ReplicationReport:
    """What an audit found.

    best, place: score of every drawn picture's best training picture, and which one. background: the same scores of
    held-out real pictures, empty without any. cut: scores from which on a picture counts as replayed. extracted: drawn
    pictures that are abnormally near to their training picture. causes: Spearman correlation of a training picture's
    best score with how often it is there and with how plain it is, nan where all are alike.
    """

    best: np.ndarray
    place: np.ndarray
    background: np.ndarray
    cut: float
    extracted: np.ndarray
    causes: dict[str, float]

    @property
    def rate(self) -> float:
        """Share of drawn pictures that replay a training picture."""
        return float((self.best >= self.cut).mean())

    @property
    def background_rate(self) -> float:
        """Share of held-out real pictures that score as high: near-duplicates that the world holds anyway."""
        return float((self.background >= self.cut).mean()) if len(self.background) else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """For a report: rates with their 95 % intervals, percentiles of the score, causes."""
        hits, count = int((self.best >= self.cut).sum()), len(self.best)
        low, high = interval(hits, count)
        found: dict[str, float] = {
            "drawn": count, "replayed": self.rate, "low": low, "high": high, "held-out rate": self.background_rate,
            "held out": len(self.background), "beyond background": self.rate - self.background_rate,
            "extracted": int(self.extracted.sum()), "mean score": float(self.best.mean()),
            "score, 75 %": float(np.quantile(self.best, 0.75)), "score, 95 %": float(np.quantile(self.best, 0.95)),
        }  # fmt: skip
        return found | {k: v for k, v in self.causes.items() if np.isfinite(v)}


class ReplicationAudit:
    """Compares a generator's pictures with what it was trained on.

    descriptor: as in `load_descriptor`. cut: score from which on a picture counts as replayed; 0.5 as in the source
    for a trained descriptor. With held-out pictures and cut 0 it is set to the 99th percentile of theirs, but at least
    0.3. Cosines are compared as they are, without the normalisation of `find --in`, as in the source.
    """

    slug = "replication_audit"

    def __init__(self, *, descriptor: str = "local", cut: float = 0.0, seed: int = 0) -> None:
        if not 0 <= cut < 1:
            raise UsageError(f"cut is {cut}; choose 0 (by the held-out pictures) to 1.")
        self.descriptor: Descriptor = load_descriptor(descriptor)
        self.cut, self.seed = cut, seed

    def measure(
        self, drawn: Sequence[np.ndarray], training: Sequence[np.ndarray], held_out: Sequence[np.ndarray] = ()
    ) -> ReplicationReport:
        """Pictures uint8 H×W×3, of any sizes. Raises UsageError where a side has none."""
        if not len(drawn) or not len(training):
            raise UsageError("An audit needs pictures that were drawn and pictures that were trained on.")
        g, t, h = (self._described(p) for p in (drawn, training, held_out))
        scores = g @ t.T
        background = (h @ t.T).max(1) if len(h) else np.zeros(0)
        cut = self.cut or (max(0.3, float(np.quantile(background, 0.99)) + 1e-6) if len(background) else 0.5)
        best, place = scores.max(1), scores.argmax(1)
        extracted = abnormally_near(small_grey(drawn), small_grey(training)) & (best >= cut)
        return ReplicationReport(best, place, background, cut, extracted, self._causes(t, training, scores))

    def keep(self, training: Sequence[np.ndarray], threshold: float = 0.75) -> np.ndarray:
        """bool: which training pictures to keep, one of every set whose descriptors are that much alike."""
        t = self._described(training)
        kept: list[int] = []
        for i in range(len(t)):
            if not kept or float((t[kept] @ t[i]).max()) < threshold:
                kept.append(i)
        chosen = np.zeros(len(t), bool)
        chosen[kept] = True
        return chosen

    def _described(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        nothing = np.zeros(self.descriptor.width, np.float32)
        found = [self.descriptor.describe(p) for p in pictures]
        return np.stack([nothing if f is None else f for f in found]) if found else np.zeros((0, len(nothing)))

    def _causes(self, t: np.ndarray, training: Sequence[np.ndarray], scores: np.ndarray) -> dict[str, float]:
        """Spearman correlations over training pictures of the best score that any drawn picture reaches with each."""
        from scipy.stats import spearmanr

        copies = ((t @ t.T) >= 0.75).sum(1)
        plain = np.array([-np.abs(np.diff(p.astype(np.float32), axis=1)).mean() for p in small_grey(training)])
        found = {}
        for name, values in (("goes with copies in training", copies), ("goes with plainness", plain)):
            alike = len(set(values.tolist())) < 2
            statistic: Any = np.nan if alike else spearmanr(scores.max(0), values).statistic
            found[name] = float(statistic)
        return found


def difference(a: ReplicationReport, b: ReplicationReport, seed: int = 0) -> tuple[float, float, float]:
    """How much less often ``b`` replays than ``a``, with a 95 % bootstrap interval over drawn pictures."""
    first, second = (r.best >= r.cut for r in (a, b))
    random = np.random.default_rng(seed)
    draws = [random.choice(first, len(first)).mean() - random.choice(second, len(second)).mean() for _ in range(1000)]
    return float(first.mean() - second.mean()), float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def tile_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """N×M: the largest root mean square difference of any of 4×4 tiles, of pictures N×S×S and M×S×S.

    The largest, so that equal blank grounds do not make pictures equal.
    """

    def tiles(x: np.ndarray) -> np.ndarray:
        n, s = x.shape[0], x.shape[1] // TILES
        x = x[:, : s * TILES, : s * TILES].reshape(n, TILES, s, TILES, s)
        return x.transpose(0, 1, 3, 2, 4).reshape(n, TILES * TILES, s * s)

    first, second = tiles(a), tiles(b)
    found = np.zeros((len(a), len(b)))
    for k in range(TILES * TILES):
        x, y = first[:, k], second[:, k]
        squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        found = np.maximum(found, np.sqrt(np.maximum(squares, 0) / x.shape[1]))
    return found


def abnormally_near(drawn: np.ndarray, training: np.ndarray) -> np.ndarray:
    """bool N: the nearest training picture is nearer than `NEAR` of the mean distance to the 50 nearest others."""
    away = np.sort(tile_distance(drawn, training), axis=1)
    if away.shape[1] < 2:
        return np.zeros(len(away), bool)
    return away[:, 0] < NEAR * away[:, 1 : _NEIGHBOURS + 1].mean(1)


def cliques(near: np.ndarray, least: int) -> list[list[int]]:
    """The maximal cliques of at least that many nodes of a graph, bool N×N, largest first (Bron and Kerbosch, 1973).

    >>> cliques(np.ones((3, 3), bool), 2)
    [[0, 1, 2]]
    """
    neighbours = [set(np.flatnonzero(row).tolist()) - {i} for i, row in enumerate(near & near.T)]
    found: list[list[int]] = []
    waiting: list[tuple[set[int], set[int], set[int]]] = [(set(), set(range(len(near))), set())]
    while waiting:
        chosen, open_, seen = waiting.pop()
        if not open_ and not seen:
            if len(chosen) >= least:
                found.append(sorted(chosen))
            continue
        if len(chosen) + len(open_) < least:
            continue
        pivot = max(open_ | seen, key=lambda v: len(neighbours[v] & open_))
        for v in sorted(open_ - neighbours[pivot]):
            waiting.append((chosen | {v}, open_ & neighbours[v], seen & neighbours[v]))
            open_ = open_ - {v}
            seen = seen | {v}
    return sorted(found, key=lambda c: (-len(c), c))


def small_grey(pictures: Sequence[np.ndarray], side: int = 32) -> np.ndarray:
    """float32 N×side×side in [0, 1]."""
    import cv2

    small = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA) for p in pictures
    ]
    return np.stack(small).astype(np.float32) / 255
