"""The test bed of detectors of generated pictures: published pictures, levelled, families and sources left out.

A detector learns from squares of the training rows of a fold, chooses its threshold on rows kept apart from them, and
is judged on families and sources that it never saw: AUROC of every family against all real pictures of the fold, and
the share of flagged pictures of every kind of real picture, as levelled, through JPEG 70 and at half size. An examiner
of whole pictures is judged on whole pictures of the same fold too, see `whole_report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.bench.controls import share, shuffled
from vestige.core.runtime import rng
from vestige.data.published import Published, folds, kept_apart, levelled, published_or_scenes, sent, shares
from vestige.forensics.generated import windows
from vestige.metrics.detection import auroc, null_threshold

FOLDS, SIDE, SQUARE = 3, 128, 64
#: Largest side of whole pictures, and into how many squares at most, squared, one is cut.
WHOLE, COUNT = 256, 3
#: Ways in which test pictures are handled: arguments of `levelled`.
HANDLINGS: Mapping[str, Mapping[str, Any]] = {
    "levelled": {},
    "JPEG 70": {"quality": 70, "scale": 1.0},
    "half size": {"quality": 0, "scale": 0.5},
}
#: Kinds of real pictures with fewer are marked as too few; families with fewer than `SMALL` are judged together.
FEW, SMALL = 60, 8
REST = "other families"
Scores = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Squares:
    """images: uint8 N×V×3×S×S, V levelled views of every picture. made: what is known of the pictures. labels: bool N,
    their origin, or whatever a control puts in its place."""

    images: np.ndarray
    made: Published
    labels: np.ndarray

    @property
    def generators(self) -> np.ndarray:
        """int N: number of the family of a generated picture, -1 for real ones."""
        names = {name: k for k, name in enumerate(sorted(set(self.made.family[self.labels].tolist())))}
        return np.array([names[f] if g else -1 for f, g in zip(self.made.family.tolist(), self.labels, strict=True)])

    def take(self, mask: np.ndarray) -> Squares:
        """The pictures where a mask of N is True."""
        return Squares(self.images[mask], self.made.take(mask), self.labels[mask])


@dataclass(frozen=True)
class Bed:
    """train, apart: to learn from and to choose the threshold by. rest: the pictures to judge by, still encoded."""

    train: Squares
    apart: Squares
    rest: Published
    seed: int

    def test(self, handling: str) -> Squares:
        """The pictures to judge by, handled in one of `HANDLINGS`."""
        return _squares(self.rest, 1, self.seed + 1_000_003, **HANDLINGS[handling])


def bed(
    held: str = "families", fold: int = 0, *, views: int = 3, limit: int = 0, seed: int = 0, mixed: bool = False,
    root: Path | None = None,
) -> Bed:  # fmt: skip
    """held: what is left out, "families" or "sources" (see `folds`), or "nothing": then the training part is learnt
    from and the validation part judged. fold: modulo `FOLDS`. mixed: the control, labels of the training rows shuffled.
    limit: pictures, 0 all. Without the pack the pictures are a stand-in of scenes."""
    made = published_or_scenes(limit=limit, seed=seed, root=root)
    if held == "nothing":
        rows, judged = np.flatnonzero(made.part == "train"), np.flatnonzero(made.part == "validation")
    else:
        chosen = folds(made, FOLDS, by=held)[fold % FOLDS]
        rows, judged = chosen.train, chosen.test
    known, apart = kept_apart(made, rows)
    train = _squares(made.take(known), views, seed)
    if mixed:
        train = Squares(train.images, train.made, shuffled(train.labels, seed))
    return Bed(train, _squares(made.take(apart), 1, seed + 500_009), made.take(judged), seed)


def _squares(made: Published, views: int, seed: int, **handling: Any) -> Squares:
    images = np.empty((len(made), views, 3, SIDE, SIDE), np.uint8)
    for i, data in enumerate(made.files):
        for view in range(views):
            images[i, view] = levelled(data, SIDE, seed + 7919 * i + view, **handling)
    return Squares(images, made, made.generated.copy())


def batches(
    squares: Squares, batch_size: int, *, crop: int = 56
) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    """Batches for `Trainer`: "images" B×3×crop×crop in [0, 1], mirrored and turned; "labels" float B; "generators" int
    B. Rows are drawn by `shares`, with labels as they are in ``squares``."""
    chances, generators = shares(squares.made), squares.generators
    labels = torch.from_numpy(squares.labels).float()

    def drawn(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "published batch")
        rows = draw.choice(len(chances), batch_size, p=chances)
        cuts = []
        for row in rows:
            picture = squares.images[row, draw.integers(squares.images.shape[1])]
            top, left = (int(draw.integers(side - crop + 1)) for side in picture.shape[1:])
            cut = np.rot90(picture[:, top : top + crop, left : left + crop], int(draw.integers(4)), (1, 2))
            cuts.append(cut[:, :, ::-1] if draw.random() < 0.5 else cut)
        return {
            "images": torch.from_numpy(np.stack(cuts)).float() / 255, "labels": labels[rows],
            "generators": torch.from_numpy(generators[rows]),
        }  # fmt: skip

    return drawn


def scored(squares: Squares, score: Scores, square: int = SQUARE) -> np.ndarray:
    """float64 N: the mean score of the squares that the first view of each picture is cut into."""
    images = squares.images[:, 0]
    places = [(y, x) for y in range(0, SIDE - square + 1, square) for x in range(0, SIDE - square + 1, square)]
    return np.mean([score(images[:, :, y : y + square, x : x + square]) for y, x in places], 0)


def area(squares: Squares, scores: np.ndarray) -> float:
    """AUROC over all pictures, by their true origin; one half where a side is missing."""
    truth = squares.made.generated
    return float(auroc(truth, scores)) if 0 < truth.sum() < len(truth) else 0.5


def by_family(squares: Squares, scores: np.ndarray) -> dict[str, float]:
    """AUROC of every family of generators against all real pictures; small families together as "other families"."""
    return areas(squares.made, scores)


def areas(made: Published, scores: np.ndarray) -> dict[str, float]:
    """`by_family` of pictures of any form."""
    counts = Counter(made.family[made.generated].tolist())
    family = np.array([name if counts[name] >= SMALL else REST for name in made.family.tolist()])
    found = {}
    for name in sorted(set(family[made.generated].tolist())):
        rows = ~made.generated | (family == name)
        found[name] = float(auroc(made.generated[rows], scores[rows]))
    return found if len(set(made.generated.tolist())) == 2 else {}


def report(made: Bed, score: Scores, rate: float = 0.05, square: int = SQUARE) -> dict[str, Any]:
    """What a detector reaches. "HANDLING, mean": the mean of AUROC over families; "families": those, levelled;
    "threshold": what at most ``rate`` of the real pictures kept apart reach; "kinds": of every kind of real picture how
    many there are and how many are flagged, levelled; "flagged": the share of all of them with its exact interval."""
    found: dict[str, Any] = {}
    apart = scored(made.apart, score, square)
    null = apart[~made.apart.made.generated]
    threshold = null_threshold(null, rate) if len(null) else float("inf")
    for handling in HANDLINGS:
        squares = made.test(handling)
        scores = scored(squares, score, square)
        families = by_family(squares, scores)
        found[f"{handling}, mean"] = float(np.mean(list(families.values()))) if families else 0.5
        if handling == "levelled":
            found["families"] = families
            found |= _alarms(squares.made, scores, threshold)
    return {**found, "threshold": threshold, "apart": area(made.apart, apart), "learnt from": len(made.train.labels)}


def whole_scores(made: Published, score: Scores, seed: int, square: int = SQUARE, **handling: Any) -> np.ndarray:
    """float64 N: the mean score of the squares of every picture, as people send it; NaN for flat and
    small ones, which are not judged. handling: arguments of `sent`."""
    found = np.full(len(made), np.nan)
    cut: dict[int, list[tuple[int, np.ndarray]]] = {}
    for i, data in enumerate(made.files):
        pixels = sent(data, WHOLE, seed + 7919 * i, **handling).transpose(1, 2, 0)
        side = max(SQUARE, min(square, min(pixels.shape[:2]) // 8 * 8))
        squares = windows(pixels, side, COUNT)
        if len(squares):
            cut.setdefault(side, []).append((i, squares))
    for own in cut.values():
        every = np.split(score(np.concatenate([s for _, s in own])), np.cumsum([len(s) for _, s in own])[:-1])
        found[[i for i, _ in own]] = [part.mean() for part in every]
    return found


def whole_report(made: Bed, score: Scores, rate: float = 0.05, square: int = SQUARE) -> dict[str, Any]:
    """What an examiner of whole pictures reaches, as in `report` and under the same names; "HANDLING, seen": the mean
    over the families that it learnt from. Flat and small pictures are left out, and counted as "not
    judged"."""
    found: dict[str, Any] = {}
    apart = whole_scores(made.apart.made, score, made.seed + 500_009, square)
    null = apart[~made.apart.made.generated & ~np.isnan(apart)]
    threshold = null_threshold(null, rate) if len(null) else float("inf")
    learnt = set(made.train.made.family[made.train.made.generated].tolist())
    for handling, how in HANDLINGS.items():
        scores = whole_scores(made.rest, score, made.seed + 1_000_003, square, **how)
        judged = ~np.isnan(scores)
        rest, scores = made.rest.take(judged), scores[judged]
        families = areas(rest, scores)
        seen = [value for name, value in families.items() if name in learnt]
        found[f"{handling}, mean"] = float(np.mean(list(families.values()))) if families else 0.5
        found[f"{handling}, seen"] = float(np.mean(seen)) if seen else 0.5
        if handling == "levelled":
            found["families"], found["not judged"] = families, int((~judged).sum())
            found["seen"] = sorted(name for name in families if name in learnt)
            found |= _alarms(rest, scores, threshold)
    return {**found, "threshold": threshold}


def _alarms(made: Published, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    kinds = {
        kind: [int(rows.sum()), int((scores[rows] >= threshold).sum())]
        for kind in sorted(set(made.family[~made.generated].tolist()))
        for rows in [~made.generated & (made.family == kind)]
    }
    count, hits = (sum(pair[i] for pair in kinds.values()) for i in (0, 1))
    if not count:
        return {"kinds": kinds}
    alarm = share(hits, count)
    return {"kinds": kinds, "flagged": alarm.value, "flagged low": alarm.low, "flagged high": alarm.high}
