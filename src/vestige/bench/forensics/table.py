"""From the records of the forensics benchmark to its tables: every cell, by approach, and fairness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.cells import THRESHOLDS
from vestige.bench.forensics.data import Picture
from vestige.bench.forensics.methods import FLOORS
from vestige.core.errors import UsageError
from vestige.data.forensic_sets import REAL
from vestige.forensics.fairfd import FairFD
from vestige.metrics.detection import auroc, equal_error

#: Column -> what it holds.
COLUMNS = {
    "set": "the set of pictures",
    "method": "the examiner and its options; all_marked and centre_prior look at no pixel",
    "after": "what was done to the picture before",
    "pictures": "pictures behind the row",
    "fakes": "how many of them are edited or generated",
    "applies": "share of the pictures that the examiner applies to; elsewhere it marks nothing and suspects nothing",
    "masks": "pictures with a mask behind the five columns that follow",
    "f1": "mean pixel F1 at the fixed threshold of the map",
    "iou": "mean intersection over union at the same threshold",
    "pixel auc": "mean area under the pixel ROC; 0.5 is guessing",
    "f1 best": "mean pixel F1 at the one threshold that is best for these very pictures: not what a user gets",
    "best at": "that threshold",
    "clean marked": "mean share of an authentic picture that is marked at the fixed threshold",
    "auc": "area under the ROC of the picture's score",
    "eer": "error rate where misses and false alarms are equally frequent",
    "tpr": "share of the fakes that are flagged at the shipped threshold",
    "fpr": "share of the authentic pictures that are flagged at the shipped threshold",
    "stated fpr": "the rate of false alarms that the examiner states",
    "s": "median seconds to examine a picture",
    "note": "what kept the row from being complete",
}
APPROACHES = {
    "set": "the set of pictures",
    "method": "the examiner",
    "after": "what was done to the picture before",
    "approach": "how the pictures were edited or generated",
    "pictures": "pictures of this approach",
    "f1": "mean pixel F1 at the fixed threshold",
    "pixel auc": "mean area under the pixel ROC",
    "auc": "area under the ROC of the score against all authentic pictures",
    "tpr": "share flagged at the shipped threshold",
}
FAIRNESS = {
    "set": "the set of pictures",
    "method": "the detector",
    "after": "what was done to the picture before",
    "groups": "the column of groups",
    "pictures": "pictures behind the row",
    "accuracy": "accuracy when approaches and groups weigh the same; no spread means anything without it",
    "worst_group_accuracy": "accuracy of the group that fares worst",
    **{
        f"{family}-{name}": f"{meaning}: {what}"
        for family, meaning in (
            ("naive", "averaged over approaches first, so that opposite errors cancel"),
            ("aa", "approach averaged"),
            ("ur", "utility regularised"),
        )
        for name, what in (
            ("dpd", "range over groups"),
            ("deo", "range on fakes"),
            ("deodds", "mean of the ranges on real and on fake pictures"),
            ("std", "standard deviation over groups"),
        )
    },
    "note": "where the threshold comes from, or why there are no figures",
}

Row = dict[str, Any]


class _Cell:
    """The pictures of one record that were examined, with what is true of them."""

    def __init__(self, record: Mapping[str, Any], pictures: Sequence[Picture]) -> None:
        pairs = [(p, row) for p, row in zip(pictures, record["pictures"], strict=True) if "error" not in row]
        self.pictures, self.rows = [p for p, _ in pairs], [row for _, row in pairs]
        self.failed = len(pictures) - len(pairs)
        self.labels = np.array([p.label for p in self.pictures], bool)
        scores = np.array([np.nan if row["score"] is None else row["score"] for row in self.rows], float)
        self.scored = bool(np.isfinite(scores).any())
        self.maps = any(row["map"] for row in self.rows)
        if self.scored:  # where an examiner does not apply it suspects less than anywhere else
            scores = np.where(np.isfinite(scores), scores, np.nanmin(scores) - 1)
        self.scores = scores
        self.flags = np.array([row["flagged"] for row in self.rows], bool)
        shipped = [row["threshold"] for row in self.rows if row["threshold"] is not None]
        self.judges = self.scored and (bool(shipped) or bool(self.flags.any()))

    def where(self, key: str, chosen: np.ndarray | None = None) -> list[Any]:
        """The values of a key in the chosen rows that have it."""
        rows = self.rows if chosen is None else [row for row, c in zip(self.rows, chosen, strict=True) if c]
        return [row[key] for row in rows if row.get(key) is not None]


def rows(records: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> list[Row]:
    """One row a cell, in the order of the records; what could not be measured is None."""
    return [_row(record, _Cell(record, pictures)) for record in records]


def _row(record: Mapping[str, Any], cell: _Cell) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"set": record["set"], "method": record["method"], "after": record["step"], "note": ""}
    row |= {"pictures": len(cell.rows), "fakes": int(cell.labels.sum())}
    notes = [f"{cell.failed} failed"] if cell.failed else []
    if not cell.rows:
        return row | {"note": "; ".join(notes)}
    row["applies"] = _mean(cell.where("applies"))
    if not row["applies"]:
        notes.append(f"applies to no picture: {next(iter(cell.where('why')), 'no reason given')}"[:200])
    row["s"] = float(np.median(cell.where("seconds")))
    curves = cell.where("curve")
    if cell.maps and curves:
        mean = np.mean(curves, 0)
        best = int(mean.argmax())
        row |= {
            "masks": len(curves), "f1": _mean(cell.where("f1")), "iou": _mean(cell.where("iou")),
            "pixel auc": _mean(cell.where("auc")), "f1 best": float(mean[best]), "best at": THRESHOLDS[best],
        }  # fmt: skip
    if cell.maps:
        row["clean marked"] = _mean(cell.where("clean", ~cell.labels))
    if cell.scored and cell.labels.any() and not cell.labels.all():
        row |= {"auc": auroc(cell.labels, cell.scores), "eer": equal_error(cell.labels, cell.scores).value}
    if cell.judges:
        row |= {"tpr": _mean(cell.flags[cell.labels]), "fpr": _mean(cell.flags[~cell.labels])}
        row["stated fpr"] = next(iter(cell.where("stated")), None)
    elif cell.scored:
        notes.append("no shipped threshold")
    return row | {"note": "; ".join(notes)}


def by_approach(records: Sequence[Mapping[str, Any]], pictures: Sequence[Picture]) -> list[Row]:
    """One row for each cell and way of faking, where the set has more than one."""
    names = sorted({p.approach for p in pictures if p.label})
    found = []
    for record in records if len(names) > 1 else ():
        cell = _Cell(record, pictures)
        for name in names:
            chosen = np.array([p.label and p.approach == name for p in cell.pictures], bool)
            row: Row = dict.fromkeys(APPROACHES)
            row |= {"set": record["set"], "method": record["method"], "after": record["step"], "approach": name}
            row["pictures"] = int(chosen.sum())
            if cell.maps:
                row |= {"f1": _mean(cell.where("f1", chosen)), "pixel auc": _mean(cell.where("auc", chosen))}
            if cell.scored and chosen.any() and not cell.labels.all():
                both = chosen | ~cell.labels
                row["auc"] = auroc(cell.labels[both], cell.scores[both])
            if cell.judges:
                row["tpr"] = _mean(cell.flags[chosen])
            found.append(row)
    return found


def fairness(records: Sequence[Mapping[str, Any]], pictures: Sequence[Picture], columns: Sequence[str]) -> list[Row]:
    """Accuracies and spreads over the groups of each column, by FairFD, of every detector with a score.

    A detector's flags are judged; without a shipped threshold, its scores at the threshold of equal errors on these
    very pictures, and the note says so.
    """
    found = []
    for record in records:
        cell = _Cell(record, pictures)
        if record["method"] in FLOORS or not cell.scored:
            continue
        found += [_fair(record, cell, column) for column in columns]
    return found


def _fair(record: Mapping[str, Any], cell: _Cell, column: str) -> Row:
    row: Row = dict.fromkeys(FAIRNESS)
    row |= {"set": record["set"], "method": record["method"], "after": record["step"], "groups": column, "note": ""}
    named = [dict(p.groups).get(column) for p in cell.pictures]
    chosen = np.array([group is not None for group in named], bool)
    row["pictures"] = int(chosen.sum())
    try:
        if cell.judges:
            scores, threshold = cell.flags.astype(float), 0.5
        else:
            scores, threshold = cell.scores, equal_error(cell.labels[chosen], cell.scores[chosen]).threshold
            row["note"] = "threshold of equal errors on these pictures"
        approaches = [p.approach if p.label else REAL for p, c in zip(cell.pictures, chosen, strict=True) if c]
        groups = [group for group in named if group is not None]
        return row | FairFD(threshold=threshold).measure(scores[chosen], approaches, groups)
    except UsageError as error:
        return row | {"note": str(error)}


def group_columns(pictures: Sequence[Picture]) -> list[str]:
    """Columns over which fairness is measured: all with two groups or more."""
    values: dict[str, set[str]] = {}
    for picture in pictures:
        for column, group in picture.groups:
            values.setdefault(column, set()).add(group)
    return [column for column, groups in values.items() if len(groups) > 1]


def summary(table: Sequence[Row]) -> list[Row]:
    """For each set and method with figures their means over the steps: what the terminal shows."""
    measures = ("pixel auc", "f1", "f1 best", "auc", "fpr")
    methods = dict.fromkeys((row["set"], row["method"]) for row in table)

    def mean(key: tuple[str, str], column: str) -> float | None:
        return _mean([r[column] for r in table if (r["set"], r["method"]) == key and r[column] is not None])

    lines = [{"set": key[0], "method": key[1], **{column: mean(key, column) for column in measures}} for key in methods]
    return [line for line in lines if any(line[column] is not None for column in measures)]


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
