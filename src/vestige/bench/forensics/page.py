"""Figures of the forensics benchmark, and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench import pages
from vestige.bench.forensics.methods import FLOORS
from vestige.bench.forensics.table import APPROACHES, COLUMNS, FAIRNESS

TITLE = "Forensics benchmark"
_TEXTS = {
    "ladder.png": "Pixel AUC and image AUC of each examiner along the ladder of post-processing",
    "heatmap.png": "Heat map of localisation and detection by step and examiner",
    "approaches.png": "Heat map of pixel AUC and image AUC by approach and examiner",
}
#: Files that a run may write besides the page.
FILES = frozenset({"table.csv", "approaches.csv", "fairness.csv", *_TEXTS})
_MEASURES = (
    ("pixel auc", "pixel AUC", 0.5, 1.0), ("f1", "pixel F1, fixed threshold", 0.0, 1.0),
    ("auc", "image AUC", 0.5, 1.0), ("fpr", "false alarms at the shipped threshold", 0.0, 0.3),
)  # fmt: skip

#: Lines of the floors.
_DASHES = dict(zip(FLOORS, ("--", ":"), strict=True))

Rows = Sequence[Mapping[str, Any]]


def figures(table: Rows, approaches: Rows) -> dict[str, bytes]:
    """PNG files by name: ``ladder.png``, ``heatmap.png`` and, for several approaches, ``approaches.png``."""
    found = {}
    if any(row["pixel auc"] is not None or row["auc"] is not None for row in table):
        found["ladder.png"] = _lines(table)
        steps = list(dict.fromkeys((row["set"], row["after"]) for row in table))
        found["heatmap.png"] = _heat(table, steps, lambda row: (row["set"], row["after"]), _MEASURES)
    first = approaches[0]["after"] if approaches else ""
    shown = [row for row in approaches if row["after"] == first]
    if _measured(shown):
        kinds = list(dict.fromkeys((row["set"], row["approach"]) for row in shown))
        measures = (_MEASURES[0], _MEASURES[2])
        found["approaches.png"] = _heat(shown, kinds, lambda row: (row["set"], row["approach"]), measures)
    return found


def _heat(table: Rows, keys: Sequence[tuple[str, str]], key_of: Any, measures: Sequence[tuple[Any, ...]]) -> bytes:
    methods = _measured(table)
    at = {(key_of(row), row["method"]): row for row in table}
    panels = []
    for column, title, low, high in measures:
        values = np.array([[pages.number(at.get((k, m), {}).get(column)) for m in methods] for k in keys], float)
        if np.isfinite(values).any():
            panels.append(pages.Panel(title, values, low, high))
    several = len({name for name, _ in keys}) > 1
    return pages.heat_map(panels, [f"{k[0]}: {k[1]}" if several else k[1] for k in keys], methods)


def _measured(table: Rows) -> list[str]:
    """Examiners with a figure; those that apply to no picture have none."""
    return list(dict.fromkeys(row["method"] for row in table if any(row.get(m[0]) is not None for m in _MEASURES)))


def _lines(table: Rows) -> bytes:
    """One line an examiner along the ladder; floors are dashed. Means over the sets."""
    steps = list(dict.fromkeys(row["after"] for row in table))
    methods = _measured(table)
    chosen = [m for m in (_MEASURES[0], _MEASURES[2]) if any(row[m[0]] is not None for row in table)]
    figure, axes = pages.new_figure(2 + 5 * len(chosen), 4.2, 1, len(chosen))
    for axis, (column, title, _, _) in zip(axes[0], chosen, strict=True):
        for i, method in enumerate(methods):
            values = [
                [
                    row[column]
                    for row in table
                    if (row["method"], row["after"]) == (method, s) and row[column] is not None
                ]
                for s in steps
            ]
            means = [float(np.mean(v)) if v else np.nan for v in values]
            if np.isfinite(means).any():
                style: dict[str, Any] = {"ls": _DASHES.get(method, "-"), "color": "0.5"}
                if method not in FLOORS:
                    style |= {"color": pages.COLOURS[i % len(pages.COLOURS)]}
                    style |= {"marker": pages.MARKERS[i % len(pages.MARKERS)], "ms": 5}
                axis.plot(means, label=method, alpha=0.85, **style)
        axis.set_xticks(range(len(steps)), steps, rotation=35, ha="right", fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    handles = {label: h for axis in axes[0] for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside right center", frameon=False)
    return pages.png(figure)


def sections(table: Rows, approaches: Rows, fair: Rows) -> dict[str, pages.Section]:
    """The tables by the name of their file; empty ones are left out."""
    found = {
        "table.csv": pages.Section("Every cell", COLUMNS, table),
        "approaches.csv": pages.Section("By approach", APPROACHES, approaches),
        "fairness.csv": pages.Section("Fairness between groups", FAIRNESS, fair),
    }
    return {name: section for name, section in found.items() if section.rows}


def page(tables: Mapping[str, pages.Section], images: Mapping[str, bytes], about: Sequence[str]) -> str:
    """The whole benchmark as one HTML page with its figures inside."""
    return pages.page(TITLE, about, {n: (_TEXTS[n], d) for n, d in images.items()}, list(tables.values()), _shade)


def _shade(name: str, row: Mapping[str, Any]) -> float | None:
    value = float(row[name])
    if name in ("pixel auc", "auc"):
        return min(1.0, max(0.0, 2 * value - 1))
    if name in ("f1", "iou", "f1 best", "tpr", "accuracy", "worst_group_accuracy"):
        return value
    return max(0.0, 1 - 5 * value) if name in ("fpr", "eer") else None
