"""From raw scores to probabilities and stated error rates.

A calibration file holds, for every examiner, what its scores were on validation photographs: a table of how often
untouched pictures reach a score, the threshold, and a map to a probability. Test photographs are never used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.files import read_json
from vestige.core.findings import Finding
from vestige.core.rates import interval, share, upper_bound

#: Share of pictures assumed to carry the trace an examiner seeks, where nobody says otherwise (``find --prior``).
#: Calibration itself sees as many with as without.
PRIOR = 0.1
#: What an examiner of generated pictures has to find, and how often it may be wrong, to join the default panel.
_FINDS, _WRONG = 0.5, 0.05


def log_odds(probability: float) -> float:
    """ln(p / (1 − p)), finite for probabilities of 0 and 1."""
    p = min(max(probability, 1e-12), 1 - 1e-12)
    return math.log(p / (1 - p))


def sigmoid(value: float) -> float:
    """1 / (1 + exp(−value)), the inverse of `log_odds`."""
    return 1.0 / (1.0 + math.exp(-float(np.clip(value, -30, 30))))


def with_prior(probability: float, prior: float = PRIOR) -> float:
    """A probability learnt on as many pictures with as without the trace, for a share ``prior`` with it (Bayes).

    >>> round(with_prior(0.5), 3)
    0.1
    """
    return sigmoid(log_odds(probability) + log_odds(prior))


def bent(scores: np.ndarray | float, knee: float | None) -> np.ndarray:
    """ln(1 + exp(score − knee)): level below the knee, of slope one above it; without a knee the scores themselves.

    >>> bent(np.array([-50.0, 52.0]), 2.0).round(3).tolist()
    [0.0, 50.0]
    """
    return np.asarray(scores, float) if knee is None else np.logaddexp(0.0, np.asarray(scores, float) - knee)


@dataclass(frozen=True)
class Calibration:
    """One examiner's calibration.

    threshold: scores at or above it are flagged. false_positive_rate: share of ``n_clean`` untouched validation
    pictures at or above it. focus, focus_rate: the same for how clearly the examiner's map sets one place apart, from
    which on the place is worth a look although the score stays below the threshold. Log-odds = slope·score + offset for
    an even share of pictures with the trace; with a knee, slope·ln(1 + exp(score − knee)) + offset, for scores that
    mean little below it.

    >>> Calibration(7.0, 0.0, 100, 1.0, -1.0, knee=2.0).probability(-9.0) > 0.26
    True
    """

    threshold: float
    false_positive_rate: float
    n_clean: int
    slope: float
    offset: float
    knee: float | None = None
    focus: float | None = None
    focus_rate: float | None = None

    def log_odds(self, scores: np.ndarray | float) -> np.ndarray:
        """Log-odds of the trace, of any shape, where half of the pictures carry it."""
        return np.asarray(self.slope * bent(scores, self.knee) + self.offset)

    def probability(self, score: float) -> float:
        """P(trace | score) where half of the pictures carry the trace."""
        return sigmoid(float(self.log_odds(score)))

    def apply(self, finding: Finding, prior: float = PRIOR) -> Finding:
        """The finding with its flag, false-positive rate and, for a share ``prior`` with the trace, probability."""
        if not finding.applies:
            return finding
        flagged = bool(finding.score >= self.threshold)
        placed = self.focus is not None and finding.focus is not None and finding.focus >= self.focus
        return dataclasses.replace(
            finding,
            flagged=flagged,
            look=placed and not flagged,
            probability=with_prior(self.probability(finding.score), prior),
            threshold=self.threshold,
            false_positive_rate=self.false_positive_rate,
            n_clean=self.n_clean,
        )

    def even(self) -> float:
        """The score at which the trace is as likely as not, among as many pictures with it as without.

        >>> Calibration(7.0, 0.0, 100, 2.0, -3.0).even()
        1.5
        """
        if self.slope <= 0:
            return -math.inf if self.offset >= 0 else math.inf
        bend = -self.offset / self.slope
        if self.knee is None:
            return bend
        return -math.inf if bend <= 0 else self.knee + math.log(math.expm1(min(bend, 500.0)))

    def margin(self, score: float) -> float:
        """How far a score lies above the threshold, in log-odds; negative below it."""
        return float(self.log_odds(score) - self.log_odds(self.threshold))


@dataclass(frozen=True)
class Population:
    """How an examiner of generated pictures did on published pictures: counts (flagged, examined).

    real: by kind of real picture. generated: of the generated ones.
    """

    real: Mapping[str, tuple[int, int]]
    generated: tuple[int, int]

    @property
    def joins(self) -> bool:
        """Whether it is good enough for the default panel.

        With 95 % confidence it finds half, and flags no more than one of twenty of any kind of real picture.
        """
        found = interval(*self.generated)[0]
        return found >= _FINDS and bool(self.real) and all(upper_bound(*c) <= _WRONG for c in self.real.values())

    @property
    def words(self) -> tuple[str, ...]:
        """What a reader should know of it, in sentences.

        >>> Population({"photograph": (2, 186)}, (6, 268)).words[0]
        'of published real pictures it flags 2 of 186 (photograph)'
        """
        wrong = ", ".join(f"{hits} of {count:,} ({kind})" for kind, (hits, count) in self.real.items())
        hits, count = self.generated
        low, high = interval(hits, count)
        return (
            f"of published real pictures it flags {wrong}",
            f"of published generated pictures it finds {hits} of {count:,} ({share(low)} to {share(high)})",
        )


def load_populations(path: Path) -> dict[str, Population]:
    """How examiners of generated pictures did, by examiner; empty where nobody measured."""
    content = read_json(path).get("generated", {}) if path.is_file() else {}
    return {
        slug: Population({k: (v[0], v[1]) for k, v in found["real"].items()}, tuple(found["generated"]))
        for slug, found in content.items()
    }


@cache
def load_calibrations(path: Path) -> tuple[dict[str, Calibration], dict[str, Any]]:
    """Calibrations by examiner, and how the verdict combines them; raises InputError for a damaged file."""
    content = read_json(path)
    return {k: Calibration(**v) for k, v in content["examiners"].items()}, content.get("verdict", {})
