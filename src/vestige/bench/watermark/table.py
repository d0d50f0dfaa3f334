"""From the records of the watermark benchmark to its table: one row per cell, as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vestige.metrics.detection import null_threshold

#: Column -> what it holds.
COLUMNS = {
    "method": "the marker and its options",
    "attack": "the attack",
    "strength": "its strength (for chains, of every step)",
    "family": "the suite it belongs to",
    "aim": "removal: the mark should still be found; forgery: it should not",
    "pictures": "pictures behind the row",
    "nulls": "null scores behind the thresholds",
    "tpr@1e-3": "share called marked at a false-positive rate of 1e-3 on attacked unmarked pictures",
    "tpr@1e-2": "the same at 1e-2",
    "own p<=1e-3": "share whose own p-value is at most 1e-3",
    "own p<=1e-2": "share whose own p-value is at most 1e-2",
    "null p<=1e-2": "share of the null whose own p-value is at most 1e-2; at most 0.01 when p-values are valid",
    "bit accuracy": "share of payload bits that came back; 0.5 is guessing",
    "read": "share of pictures whose whole payload was read and authenticated",
    "psnr": "of the attacked picture to the one before, dB, where pixels stay in place",
    "ssim": "structural similarity of the same",
    "mark psnr": "of the marked picture to the original, dB",
    "mark ssim": "structural similarity of the same",
    "mark s": "seconds to mark a picture",
    "read s": "seconds to read an attacked picture",
    "note": "what kept the row from being complete",
}
_SIMPLE = ("bit_accuracy", "right", "psnr", "ssim", "read_seconds")


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per attacked cell, in the order of the records; values that could not be measured are None.

    tpr@1e-3 needs 1,000 null scores to be shown; with fewer, the threshold is just above all of them and the note says
    which rate that can show.
    """
    quality = {r["method"]: r for r in records if r["attack"] is None}
    return [_row(r, quality[r["method"]]) for r in records if r["attack"] is not None]


def _row(record: dict[str, Any], quality: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: record[name] for name in ("method", "attack", "strength", "family")}
    row["aim"] = "forgery" if record["forges"] else "removal"
    row["mark psnr"], row["mark ssim"] = _mean(quality["psnr"]), _mean(quality["ssim"])
    row["mark s"] = _median(quality["mark_seconds"])
    if "skipped" in record:
        return row | {"pictures": 0, "nulls": 0, "note": record["skipped"]}
    scores, null = np.array(record["scores"]), np.array(record["null"])
    row |= {"pictures": len(scores), "nulls": len(null)}
    notes = []
    if record["errors"]:
        notes.append(f"{len(record['errors'])} failed: {record['errors'][0]}")
    if not len(scores):
        return row | {"note": "; ".join(notes) or "no picture could be marked"}
    for rate, name in ((1e-3, "1e-3"), (1e-2, "1e-2")):
        row[f"tpr@{name}"] = float(np.mean(scores >= null_threshold(null, rate)))
        row[f"own p<={name}"] = float(np.mean(scores >= -np.log10(rate)))
    row["null p<=1e-2"] = float(np.mean(null >= 2.0))
    if len(null) < 1000:
        notes.append(f"{len(null)} null scores show rates down to {1 / len(null):.1g}")
    measured = {name: _mean(record[name]) for name in _SIMPLE}
    row |= {"bit accuracy": measured["bit_accuracy"], "read": measured["right"]}
    row |= {"psnr": measured["psnr"], "ssim": measured["ssim"], "read s": _median(record["read_seconds"])}
    return row | {"note": "; ".join(notes)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None


def by_family(table: Sequence[dict[str, Any]], column: str = "tpr@1e-2") -> dict[tuple[str, str], float]:
    """(method, family) -> mean of a column over the rows that have it; forgeries are left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in table:
        if row[column] is not None and row["aim"] == "removal":
            found.setdefault((row["method"], row["family"]), []).append(row[column])
    return {key: float(np.mean(values)) for key, values in found.items()}
