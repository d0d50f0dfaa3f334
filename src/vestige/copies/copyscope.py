"""CopyScope: how much each part of an image generator is responsible for output that resembles a protected work.

A part is a base model, an adapter, a control, a phrase of the prompt. With m pictures of every coalition S of parts,
drawn with common seeds, v(S) = FID(∅, P) − FID(S, P) says how much nearer to the protected pictures P the parts S bring
the output; the share of a part is its Shapley value. One part left out at a time stands beside it.

Source: CopyScope: Model-level Copyright Infringement Quantification in the Diffusion Workflow, arXiv 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.distribution import frechet_distance, squared_mmd

Coalition = frozenset[str]
#: Parts up to which all 2^n coalitions are used.
EXACT = 6


def coalitions(parts: Sequence[str]) -> list[Coalition]:
    """All subsets of the parts, by size.

    >>> [sorted(c) for c in coalitions(["a", "b"])]
    [[], ['a'], ['b'], ['a', 'b']]
    """
    return [frozenset(c) for k in range(len(parts) + 1) for c in combinations(parts, k)]


def shapley(value: Mapping[Coalition, float], parts: Sequence[str]) -> dict[str, float]:
    """φ_i = Σ_{S without i} |S|!(n−|S|−1)!/n! · (v(S ∪ i) − v(S)), exactly. Raises UsageError for a missing coalition.

    >>> v = {frozenset(): 0.0, frozenset("a"): 1.0, frozenset("b"): 2.0, frozenset("ab"): 4.0}
    >>> shapley(v, ["a", "b"])
    {'a': 1.5, 'b': 2.5}
    """
    missing = [c for c in coalitions(parts) if c not in value]
    if missing:
        raise UsageError(f"The coalition {named(missing[0])} is missing; all {2 ** len(parts)} are needed.")
    n = len(parts)
    weights = [factorial(k) * factorial(n - k - 1) / factorial(n) for k in range(n)]
    return {
        part: sum(weights[len(s)] * (value[s | {part}] - value[s]) for s in coalitions([p for p in parts if p != part]))
        for part in parts
    }


def sampled_shapley(
    value: Callable[[Coalition], float], parts: Sequence[str], *, orders: int = 200, seed: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    """The mean gain of each part as it joins in random order, and its standard error; for more than `EXACT` parts.

    Every order is used forwards and backwards. Values of coalitions are computed once.
    """
    known: dict[Coalition, float] = {}

    def v(s: Coalition) -> float:
        if s not in known:
            known[s] = value(s)
        return known[s]

    random = rng(seed, "orders")
    gains: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(orders):
        order = random.permutation(len(parts)).tolist()
        both: dict[str, float] = dict.fromkeys(parts, 0.0)
        for way in (order, order[::-1]):
            before: Coalition = frozenset()
            for i in way:
                both[parts[i]] += (v(before | {parts[i]}) - v(before)) / 2
                before |= {parts[i]}
        for part, gain in both.items():
            gains[part].append(gain)
    means = {p: float(np.mean(g)) for p, g in gains.items()}
    return means, {p: float(np.std(g, ddof=1) / np.sqrt(len(g))) if len(g) > 1 else np.inf for p, g in gains.items()}


@dataclass(frozen=True)
class Attribution:
    """phi: Shapley value of each part, in units of the distance; low, high: its 90 % bootstrap interval. share: of the
    positive values. left_out: v(all) − v(all but it). value: v of every coalition. order_kept: mean Kendall correlation
    of the order of the parts in resampled pictures with that of all."""

    phi: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    share: dict[str, float]
    left_out: dict[str, float]
    value: dict[Coalition, float]
    order_kept: float


class CopyScope:
    """Attributes likeness to parts from features of every coalition's pictures.

    dims: principal components of the features, of the protected and the whole generator's pictures together, at most
    half of the pictures of a coalition, so that covariances have full rank. distance: "fid" or "kid" (unbiased, for few
    pictures). rounds: of the bootstrap over pictures, all coalitions resampled alike because they share their seeds.
    """

    slug = "copyscope"

    def __init__(self, *, dims: int = 64, distance: str = "fid", rounds: int = 50, seed: int = 0) -> None:
        if distance not in ("fid", "kid") or dims < 1 or rounds < 2:
            raise UsageError("distance is fid or kid, dims at least 1 and rounds at least 2.")
        self.dims, self.distance, self.rounds, self.seed = dims, distance, rounds, seed

    def measure(self, features: Mapping[Coalition, np.ndarray], protected: np.ndarray) -> Attribution:
        """features: m×d of each of the 2^n coalitions, row by row of common seeds. protected: k×d.

        Raises UsageError for a coalition that is missing or of another size, and for fewer than four pictures.
        """
        parts = sorted(frozenset().union(*features))
        counts = {len(f) for f in features.values()}
        if len(counts) != 1 or min(counts) < 4 or len(protected) < 4:
            raise UsageError(
                "Every coalition needs the same number of pictures, at least four, and so many protected ones; got "
                f"{sorted(counts)} and {len(protected)}."
            )
        if not 1 <= len(parts) <= EXACT:
            raise UsageError(f"One to {EXACT} parts are attributed exactly; got {len(parts)}.")
        project = self._components(protected, features[frozenset(parts)]) if frozenset(parts) in features else _same
        reduced = {c: project(f) for c, f in features.items()}
        target = project(protected)
        value = self._values(reduced, target)
        phi = shapley(value, parts)
        again = [self._resampled(reduced, target, parts, k) for k in range(self.rounds)]
        whole = frozenset(parts)
        positive = sum(max(p, 0.0) for p in phi.values())
        return Attribution(
            phi,
            {p: float(np.quantile([a[p] for a in again], 0.05)) for p in parts},
            {p: float(np.quantile([a[p] for a in again], 0.95)) for p in parts},
            {p: max(phi[p], 0.0) / positive if positive else 0.0 for p in parts},
            {p: value[whole] - value[whole - {p}] for p in parts},
            value,
            float(np.mean([_kendall(list(phi.values()), [a[p] for p in parts]) for a in again])),
        )

    def _components(self, protected: np.ndarray, whole: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        both = np.concatenate([protected, whole]).astype(np.float64)
        mean = both.mean(0)
        _, _, axes = np.linalg.svd(both - mean, full_matrices=False)
        kept = axes[: max(1, min(self.dims, len(whole) // 2, len(protected) // 2))]
        return lambda x: (np.asarray(x, np.float64) - mean) @ kept.T

    def _values(self, features: Mapping[Coalition, np.ndarray], target: np.ndarray) -> dict[Coalition, float]:
        away = {c: self._distance(f, target) for c, f in features.items()}
        return {c: away[frozenset()] - d for c, d in away.items()} if frozenset() in away else away

    def _distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return squared_mmd(a, b) if self.distance == "kid" else frechet_distance(b, a)

    def _resampled(
        self, features: Mapping[Coalition, np.ndarray], target: np.ndarray, parts: Sequence[str], round_: int
    ) -> dict[str, float]:
        random = rng(self.seed, "bootstrap", round_)
        count = len(next(iter(features.values())))
        rows, theirs = random.integers(0, count, count), random.integers(0, len(target), len(target))
        return shapley(self._values({c: f[rows] for c, f in features.items()}, target[theirs]), parts)


def named(coalition: Iterable[str]) -> str:
    """The name of a coalition: its parts with "+" between them, "none" without any.

    >>> named(frozenset({"lora", "base"})), named([])
    ('base+lora', 'none')
    """
    return "+".join(sorted(coalition)) or "none"


def _same(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _kendall(a: Sequence[float], b: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    found: Any = kendalltau(a, b).statistic
    return 1.0 if len(a) < 2 else 0.0 if np.isnan(found) else float(found)
