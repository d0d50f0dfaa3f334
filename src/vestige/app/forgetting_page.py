"""The page of an erasure's audit: verdict, figures beside the original's, and two pictures of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vestige.bench.pages import COLOURS, Section, new_figure, page, png

if TYPE_CHECKING:
    from vestige.unlearning.audit import Audit

_SHARES = (
    "forget accuracy", "retain accuracy", "test accuracy", "test accuracy, forgotten classes",
    "membership by loss (AUC)", "a new head finds (accuracy)",
)  # fmt: skip


def audit_page(report: Mapping[str, Any], result: Audit) -> str:
    """One self-contained HTML page. report: what is written as JSON."""
    models = list(result.rows)
    names = list(dict.fromkeys(name for row in result.rows.values() for name in row))
    rows = [{"figure": name, **{m: result.rows[m].get(name) for m in models}} for name in names]
    columns = {"figure": "what was measured", **{m: _MODELS[m] for m in models}}
    sections = [Section("Figures", columns, rows)]
    if len(report["tried"]) > 1:
        tried = [
            {"method": t["method"], "distance": t["distance"], "seconds": t["cost"]["seconds"], "note": t["why"]}
            for t in report["tried"]
        ]
        about = {
            "method": "eraser", "distance": "from the aim, 0 at best", "seconds": "of the erasure",
            "note": "what it did, on the half of the test pictures that chose the method",
        }  # fmt: skip
        sections.append(Section("Methods tried", about, tried))
    cost = report["cost"]
    steps = f"{cost['steps']} steps, " if cost["steps"] else ""
    peak = f", {cost['peak_mb']:.0f} MB at most" if cost.get("peak_mb") else ""
    sentences = [
        *result.findings,
        f"{report['forgotten']} pictures were to be forgotten from {report['model']}; method {report['method']} "
        f"({', '.join(f'{k} {v}' for k, v in report['parameters'].items()) or 'without parameters'}); {steps}"
        f"{cost['seconds']:.1f} seconds{peak}.",
        f"SHA-256 before {report['sha256']['before']}, after {report['sha256']['after']}.",
    ]
    figures = {
        "figures.png": ("Shares by model, as bars", _bars(result)),
        "losses.png": ("Losses of forgotten and never seen pictures, before and after", _losses(result)),
    }
    return page("Audit of a forgetting", sentences, figures, sections)


_MODELS = {
    "original": "the model before",
    "unlearned": "the model that was written",
    "retrained": "a model trained without the forgotten pictures: the aim",
}


def _bars(result: Audit) -> bytes:
    names = [n for n in _SHARES if all(n in row for row in result.rows.values())]
    figure, axes = new_figure(9, 0.6 + 0.5 * len(names))
    axis, height = axes[0][0], 0.8 / len(result.rows)
    for number, (model, row) in enumerate(result.rows.items()):
        places = np.arange(len(names)) + (number - (len(result.rows) - 1) / 2) * height
        axis.barh(places, [row[n] for n in names], height, label=model, color=COLOURS[number])
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlim(0, 1)
    axis.invert_yaxis()
    axis.legend(fontsize=8)
    return png(figure)


def _losses(result: Audit) -> bytes:
    figure, axes = new_figure(9, 3.2, 1, len(result.losses), sharey=True)
    top = max(np.quantile(v, 0.98) for sets in result.losses.values() for v in sets.values())
    bins = np.linspace(0, max(float(top), 1e-3), 30)
    for axis, (model, sets) in zip(axes[0], result.losses.items(), strict=True):
        for colour, (name, values) in zip(COLOURS, sets.items(), strict=False):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(np.clip(values, 0, bins[-1]), bins, weights=weights, alpha=0.6, label=name, color=colour)
        axis.set_title(model, fontsize=9)
        axis.set_xlabel("loss", fontsize=8)
    axes[0][0].set_ylabel("share of pictures", fontsize=8)
    axes[0][0].legend(fontsize=8)
    return png(figure)
