"""From raw scores to probabilities and stated error rates.

A calibration file holds, for every examiner, what its scores were on validation photographs: a table of how often
untouched pictures reach a score, the threshold, and a logistic map to a probability. Test photographs are never used.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.files import read_json
from vestige.core.findings import Finding


@dataclass(frozen=True)
class Calibration:
    """One examiner's calibration.

    threshold: scores at or above it are flagged. false_positive_rate: share of ``n_clean`` untouched validation
    pictures at or above it. slope, offset: probability = 1 / (1 + exp(-(slope·score + offset))).
    """

    threshold: float
    false_positive_rate: float
    n_clean: int
    slope: float
    offset: float

    def probability(self, score: float) -> float:
        return 1.0 / (1.0 + math.exp(-float(np.clip(self.slope * score + self.offset, -30, 30))))

    def apply(self, finding: Finding) -> Finding:
        """The finding with its flag, probability and false-positive rate filled in."""
        if not finding.applies:
            return finding
        return dataclasses.replace(
            finding,
            flagged=bool(finding.score >= self.threshold),
            probability=self.probability(finding.score),
            threshold=self.threshold,
            false_positive_rate=self.false_positive_rate,
        )


@cache
def load_calibrations(path: Path) -> tuple[dict[str, Calibration], dict[str, Any]]:
    """Calibrations by examiner, and how the verdict combines them; raises InputError for a damaged file."""
    content = read_json(path)
    return {k: Calibration(**v) for k, v in content["examiners"].items()}, content.get("verdict", {})
