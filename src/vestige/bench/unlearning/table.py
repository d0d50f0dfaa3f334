"""From the records of the unlearning benchmark to its table: means over seeds, gaps to the retrained model; figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench import pages
from vestige.bench.unlearning.protocol import METRICS
from vestige.metrics.unlearning import average_gap, tug_of_war

TITLE = "Unlearning benchmark"
#: Column -> what it holds. Shares, not percent; means over the seeds.
COLUMNS = {
    "problem": "what is forgotten: a class, or a random tenth of the training samples",
    "method": "the eraser and its options; original: nothing done, retrain: the reference",
    "seeds": "how many seeds are behind the row",
    "UA": "one minus the accuracy on what is to be forgotten; the aim is the retrained model's",
    "RA": "accuracy on the retained training samples",
    "TA": "accuracy on test samples (without the forgotten class)",
    "MIA": "share of the forgotten samples that a confidence attack calls non-members (mia_efficacy)",
    "gap": "mean of the distances of UA, RA, TA and MIA to the retrained model of the same seed; lower is better",
    "gap ±": "standard deviation of the gap over the seeds",
    "ToW": "product over UA, RA, TA of one minus the distance to the retrained model; higher is better",
    "mia_privacy": "accuracy of that attack on members and non-members it was not fitted on",
    "mia_entropy": "share of the forgotten samples called members by an attack on the entropy",
    "mia_forget_vs_test": "accuracy of telling forgotten from unseen samples by their loss; 0.5 is ideal",
    "ZRF": "closeness to a network that was never trained, on what is forgotten",
    "distance": "mean L2 distance of the outputs to the retrained model's, on what is forgotten",
    "s": "seconds to forget (original and retrain: to train)",
    "of retraining": "share of the seconds of retraining",
    "passes": "samples passed forward and backward, as a multiple of the training set",
    "MB": "peak memory of the process",
    "needs": "what it uses besides the model and what is to be forgotten",
    "note": "what kept the row from being complete",
}
_TEXTS = {
    "heatmap.png": "Heat map of unlearning, retain and test accuracy, membership and gap by eraser",
    "gap.png": "Average gap to retraining against the share of the time of retraining",
}


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each problem and method, in the order of the records; a note tells of erasers that failed."""
    references = {(r["kind"], r["seed"]): r for r in records if r["method"] == "retrain"}
    found = []
    for kind in dict.fromkeys(r["kind"] for r in records):
        for method in dict.fromkeys(r["method"] for r in records):
            chosen = [r for r in records if (r["kind"], r["method"]) == (kind, method)]
            if chosen:
                found.append(_row(kind, method, chosen, references))
    return found


def _row(
    kind: str, method: str, chosen: Sequence[Mapping[str, Any]], references: Mapping[Any, Mapping[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS), "problem": kind, "method": method, "note": ""}
    failed = [r["error"] for r in chosen if "error" in r]
    if failed:
        row["note"] = f"{len(failed)} of {len(chosen)} failed: {failed[0]}"
    good = [r for r in chosen if "error" not in r and "row" in references.get((kind, r["seed"]), {})]
    row["seeds"] = len(good)
    if not good:
        return row
    expected = [references[kind, r["seed"]] for r in good]
    mean = {name: float(np.mean([r["row"][name] for r in good])) for name in good[0]["row"]}
    row |= {name: mean[name] for name in (*METRICS, "mia_privacy", "mia_entropy", "mia_forget_vs_test", "ZRF")}
    gaps = [average_gap(r["row"], e["row"], METRICS) for r, e in zip(good, expected, strict=True)]
    row["gap"], row["gap ±"] = float(np.mean(gaps)), float(np.std(gaps))
    row["ToW"] = float(np.mean([tug_of_war(r["row"], e["row"]) for r, e in zip(good, expected, strict=True)]))
    row["distance"] = mean["activation_distance"]
    seconds = [r["cost"]["seconds"] for r in good]
    row["s"] = float(np.mean(seconds))
    row["of retraining"] = float(np.mean([s / e["cost"]["seconds"] for s, e in zip(seconds, expected, strict=True)]))
    if method not in ("original", "retrain"):
        images = good[0]["settings"]["images"]
        row["passes"] = float(np.mean([(r["cost"]["forward"] + r["cost"]["backward"]) / images for r in good]))
        peaks = [r["cost"]["peak_mb"] for r in good if r["cost"]["peak_mb"] is not None]
        row["MB"] = float(np.mean(peaks)) if peaks else None
    row["needs"] = ", ".join(good[0]["needs"])
    return row


def figures(table: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """PNG files by name: ``heatmap.png`` and ``gap.png``; nothing for a table without figures."""
    from matplotlib.ticker import LogLocator, NullFormatter

    measured = [row for row in table if row["gap"] is not None]
    if not measured:
        return {}
    kinds = list(dict.fromkeys(row["problem"] for row in measured))
    labels = list(dict.fromkeys(row["method"] for row in measured))
    at = {(row["problem"], row["method"]): row for row in measured}
    columns = (*METRICS, "gap")
    panels = [
        pages.Panel(
            f"{kind} forgotten",
            np.array([[pages.number(at.get((kind, m), {}).get(c)) for c in columns] for m in labels], float),
        )
        for kind in kinds
    ]
    figure, axes = pages.new_figure(2 + 4.8 * len(kinds), 4.6, 1, len(kinds), sharey=True)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for i, row in enumerate(r for r in measured if r["problem"] == kind and r["method"] != "retrain"):
            x, colour = 100 * row["of retraining"], pages.COLOURS[i % len(pages.COLOURS)]
            axis.errorbar(x, 100 * row["gap"], 100 * row["gap ±"], fmt=pages.MARKERS[i % 12], ms=5, color=colour, lw=1)
            axis.annotate(row["method"], (x, 100 * row["gap"]), fontsize=7, xytext=(4, 3), textcoords="offset points")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("time, % of retraining", fontsize=9)
        axis.set_title(f"{kind} forgotten", fontsize=10)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("average gap to retraining, points", fontsize=9)
    return {"heatmap.png": pages.heat_map(panels, labels, columns), "gap.png": pages.png(figure)}


def page(table: Sequence[Mapping[str, Any]], images: Mapping[str, bytes], about: Sequence[str]) -> str:
    """The whole benchmark as one HTML page with its figures inside."""
    shown = {name: (_TEXTS[name], data) for name, data in images.items()}
    return pages.page(TITLE, about, shown, [pages.Section("Every row", COLUMNS, table)], _shade)


def _shade(name: str, row: Mapping[str, Any]) -> float | None:
    return max(0.0, 1 - 4 * float(row[name])) if name == "gap" else None
