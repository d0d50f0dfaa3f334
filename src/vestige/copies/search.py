"""Which pictures of an index a picture is a copy of: a shortlist by descriptor, then the place that both show.

A pair is claimed to be a copy where z = a·score + b·ln(1 + inliers) + c reaches the threshold; the probability is the
logistic function of z for an even number of queries with and without a copy, moved to the prior. Both were fitted on
edited photographs and strangers, and the false claims counted on others (`vestige.bench.copies`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vestige.copies.index import CopyIndex, Entry, Hit
from vestige.copies.local import Features, Match, best_match, both_ways, features
from vestige.core.calibration import PRIOR, sigmoid, with_prior
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.files import read_json
from vestige.core.findings import Finding
from vestige.core.picture import ImageSubject
from vestige.core.rates import upper_bound

CALIBRATION = Path(__file__).parent / "calibration.json"


@dataclass(frozen=True)
class PairCalibration:
    """From a score and a count of inliers to a probability.

    a, b, c: of z. threshold: z from which on a copy is claimed. false, comparisons: claims among comparisons of
    unrelated pictures. found, copies: claims among edited copies of the validation part. alone: (slope, offset,
    threshold) for a score without inliers, where the reference is no longer there to be compared.
    """

    a: float
    b: float
    c: float
    threshold: float
    false: int
    comparisons: int
    found: int
    copies: int
    alone: tuple[float, float, float]

    def z(self, score: float, inliers: int | None) -> float:
        """Log-odds of a copy, and for None those from the score alone."""
        if inliers is None:
            return self.alone[0] * score + self.alone[1]
        return self.a * score + self.b * math.log1p(inliers) + self.c

    def claims(self, score: float, inliers: int | None) -> bool:
        return self.z(score, inliers) >= (self.alone[2] if inliers is None else self.threshold)

    @property
    def per_million(self) -> str:
        """False claims per million comparisons of unrelated pictures, in words."""
        bound = 1e6 * upper_bound(self.false, self.comparisons)
        seen = f"{self.false:,} of {self.comparisons:,} comparisons of unrelated pictures were claimed"
        return f"{seen}: at most {bound:.2g} per million (95 % confidence)"


@cache
def calibrations() -> dict[str, PairCalibration]:
    """By descriptor."""
    found = read_json(CALIBRATION)
    return {name: PairCalibration(**{**c, "alone": tuple(c["alone"])}) for name, c in found.items()}


def calibration_of(descriptor: str) -> PairCalibration | None:
    """None for a descriptor of the user's own: its scores have no probability until they are counted."""
    return calibrations().get(descriptor)


@dataclass(frozen=True)
class Copy:
    """A picture of the index compared with the query. how: "the same file", "the same pixels", "verified" (the region
    was found), "not verified" (too few points agree) or "not compared", with the reason in ``why``."""

    entry: Entry
    score: float
    how: str
    claimed: bool
    probability: float | None
    match: Match | None = None
    why: str = ""
    size: tuple[int, int] = (0, 0)

    @property
    def words(self) -> str:
        """What is known of the pair, in a phrase."""
        if self.how.startswith("the same"):
            return self.how
        if self.match is None:
            return self.why or "too few points agree to show where"
        m = self.match
        kind = ", mirrored" if m.mirrored else ""
        return (
            f"{m.inliers} points agree{kind}; the region fills {m.covers[0]:.0%} of the picture and {m.covers[1]:.0%} "
            "of the other"
        )

    def to_dict(self) -> dict[str, Any]:
        m = self.match
        return {
            "source": self.entry.source, "claimed": self.claimed, "how": self.how, "score": round(self.score, 5),
            "probability": None if self.probability is None else round(self.probability, 6),
            "words": self.words, "label": self.entry.label,
            "inliers": None if m is None else m.inliers, "mirrored": None if m is None else m.mirrored,
            "matrix": None if m is None else [[round(float(v), 6) for v in row] for row in m.matrix],
            "region": None if m is None else m.here.round(1).tolist(),
            "region_there": None if m is None else m.there.round(1).tolist(),
        }  # fmt: skip


def find_copies(
    index: CopyIndex,
    subject: ImageSubject,
    *,
    shortlist: int = 10,
    prior: float = PRIOR,
    threshold: float | None = None,
) -> list[Copy]:
    """Compare a picture with the ``shortlist`` pictures of the index that look most like it, best first.

    prior: share of queries that have a copy, for the probabilities. threshold: probability from which on a copy is
    claimed, in place of the calibrated one. Raises InputError for a picture that cannot be read.
    """
    if not 0 < prior < 1 or (threshold is not None and not 0 < threshold < 1):
        raise UsageError(f"A prior and a threshold lie between 0 and 1; got {prior} and {threshold}.")
    calibration = calibration_of(index.descriptor.name)
    hits = index.search(subject, shortlist)
    views = both_ways(subject.pixels) if any(not h.how for h in hits) else None
    found = [_compared(h, views, calibration, prior, threshold) for h in hits]
    order = {"the same file": 0, "the same pixels": 1}
    return sorted(found, key=lambda c: (order.get(c.how, 2), -(c.probability or 0), -c.score))


class Copies:
    """Says whether a picture is a copy of one in an index: the Python side of ``vestige find --in``.

    index: the path of an index that ``vestige index`` made; without one the finder does not apply. shortlist, prior: as
    in `find_copies`.
    """

    slug = "copy_index"

    def __init__(self, *, index: str | Path = "", shortlist: int = 10, prior: float = PRIOR) -> None:
        self.index, self.shortlist, self.prior = index, shortlist, prior

    def find(self, subject: ImageSubject) -> Finding:
        """The best copy, its region's words and the rate of false claims; raises InputError for a bad index."""
        if not str(self.index):
            return Finding.not_applicable(self.slug, "duplicate", "no index was given to look in")
        with CopyIndex.open(self.index) as index:
            try:
                found = find_copies(index, subject, shortlist=self.shortlist, prior=self.prior)
            except InputError as error:
                return Finding.not_applicable(self.slug, "duplicate", str(error))
            count, calibration = len(index), calibration_of(index.descriptor.name)
        claimed = [c for c in found if c.claimed]
        best = claimed[0] if claimed else None
        return Finding(
            self.slug,
            "duplicate",
            found[0].score if found else 0.0,
            when_flagged=f"The picture is a copy of {best.entry.source}: {best.words}." if best else "",
            when_clear=f"No copy among {count:,} pictures of the index.",
            flagged=best is not None,
            probability=best.probability if best else None,
            evidence=tuple(f"{c.entry.source}: {c.words}" for c in claimed[:10]),
            details={
                "matches": [c.to_dict() for c in claimed[:50]],
                "false claims": "" if calibration is None else calibration.per_million,
            },
        )


def _compared(
    hit: Hit, views: tuple[Features, Features] | None, calibration: PairCalibration | None, prior: float,
    threshold: float | None,
) -> Copy:  # fmt: skip
    if hit.how or views is None:
        return Copy(hit.entry, 1.0, hit.how, True, None)
    found: Match | None = None
    why, inliers, size = "", None, (0, 0)
    try:
        reference = hit.entry.subject().pixels
        size = reference.shape[1], reference.shape[0]
        found = best_match(views, features(reference))
        inliers = 0 if found is None else found.inliers
    except (VestigeError, IndexError) as error:
        why = f"not compared point by point: {error}"
    if calibration is None:
        claimed = inliers is not None and inliers >= 20
        probability = None
    else:
        probability = with_prior(sigmoid(calibration.z(hit.score, inliers)), prior)
        claimed = calibration.claims(hit.score, inliers) if threshold is None else probability >= threshold
    how = "verified" if found is not None else "not verified" if inliers is not None else "not compared"
    return Copy(hit.entry, hit.score, how, claimed, probability, found, why, size)
