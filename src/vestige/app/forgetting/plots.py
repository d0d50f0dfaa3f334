"""The four pictures of a forgetting's audit, each with a sentence on how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vestige.bench.pages import COLOURS, new_figure, png

if TYPE_CHECKING:
    from vestige.unlearning.audit import Audit

#: Models as the pictures call them.
NAMES = {"original": "before", "unlearned": "after", "retrained": "trained without them"}
_ACCURACIES = {
    "forget accuracy": "pictures to forget", "retain accuracy": "other training pictures",
    "test accuracy": "new pictures", "test accuracy, forgotten classes": "new pictures, forgotten class",
    "worst tenth: accuracy": "to forget: tenth remembered best",
}  # fmt: skip
_ATTACKS = {
    "membership by loss (AUC)": "loss", "membership by entropy (AUC)": "entropy", "membership by LiRA (AUC)": "LiRA",
    "membership by RMIA (AUC)": "RMIA", "worst tenth: membership (AUC)": "tenth remembered best",
}  # fmt: skip


#: Behind numbers that a line may cross.
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}


def plots(result: Audit) -> tuple[dict[str, tuple[str, bytes]], dict[str, str]]:
    """Pictures as `bench.pages.page` takes them, file name -> (alternative text, PNG), and their captions."""
    figures = {
        "accuracy.png": ("Accuracy by model, as bars", _bars(result, _ACCURACIES, "share named right")),
        "losses.png": ("Losses of forgotten and never seen pictures, by model", _losses(result)),
        "attacks.png": ("Membership attacks by model, as bars with the chance line", _attacks(result)),
    }
    captions = {
        "accuracy.png": "How often the model names pictures rightly: what was to be forgotten should fall to what a "
        "model trained without it reaches (new pictures show that where there is none), everything else should stay.",
        "losses.png": "How surprised the model is by each picture: after forgetting, both colours should lie on top of "
        "each other; forgotten pictures further left are still remembered, further right they were visibly treated.",
        "attacks.png": "How well an attacker tells forgotten pictures from never seen ones: 0.5, the dashed line, is "
        "guessing, and bars that end in the grey band can be luck.",
    }
    if result.relearning:
        figures["relearning.png"] = ("Loss while the forgotten pictures are taught again", _relearning(result))
        captions["relearning.png"] = (
            "How fast the forgotten pictures are learned again: a line that falls to the dashed one at once means that "
            "the knowledge was still there."
        )
    return figures, captions


def _bars(result: Audit, shown: Mapping[str, str], label: str, height: float = 0.62) -> bytes:
    figure, axis = _grouped(result, shown, label, height)
    axis.set_xlim(0, 1.09)
    return png(figure)


def _attacks(result: Audit) -> bytes:
    figure, axis = _grouped(result, _ATTACKS, "area under the curve (AUC)", 0.62)
    rows = [n for n in _ATTACKS if any(n in row for row in result.rows.values())]
    luck = [result.worst["chance"] if n.startswith("worst") else result.chance for n in rows]
    left, wide = [1 - c for c in luck], [2 * c - 1 for c in luck]
    axis.barh(range(len(rows)), wide, 1.0, left, color="#888888", alpha=0.18, lw=0, zorder=0)
    axis.axvline(0.5, color="black", linestyle="--", lw=1)
    axis.set_xlim(0, 1.09)
    return png(figure)


def _grouped(result: Audit, shown: Mapping[str, str], label: str, height: float) -> tuple[Any, Any]:
    """Bars of the figures that some model has, one beside the other for the models, with their values."""
    names = [n for n in shown if any(n in row for row in result.rows.values())]
    figure, axes = new_figure(9, 1.0 + height * len(names))
    axis, thick = axes[0][0], 0.8 / len(result.rows)
    for number, (model, row) in enumerate(result.rows.items()):
        there = [(i, row[n]) for i, n in enumerate(names) if n in row]
        places = np.array([i for i, _ in there]) + (number - (len(result.rows) - 1) / 2) * thick
        bars = axis.barh(places, [v for _, v in there], thick, label=NAMES[model], color=COLOURS[number], zorder=2)
        axis.bar_label(bars, [f"{v:.2f}" for _, v in there], padding=3, fontsize=7, zorder=3, bbox=_PAPER)
    axis.set_yticks(range(len(names)), [shown[n] for n in names], fontsize=8)
    axis.set_xlabel(label, fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xticks(np.linspace(0, 1, 11))
    axis.invert_yaxis()
    figure.legend(loc="outside upper left", ncols=len(result.rows), fontsize=8, frameon=False)
    return figure, axis


def _losses(result: Audit) -> bytes:
    figure, axes = new_figure(9, 3.2, 1, len(result.losses), sharey=True)
    top = max(np.quantile(v, 0.98) for sets in result.losses.values() for v in sets.values())
    bins = np.linspace(0, max(float(top), 1e-3), 30)
    for axis, (model, sets) in zip(axes[0], result.losses.items(), strict=True):
        for colour, (name, values) in zip(COLOURS, sets.items(), strict=False):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(np.clip(values, 0, bins[-1]), bins, weights=weights, alpha=0.6, label=name, color=colour)
        axis.set_title(NAMES[model], fontsize=9)
        axis.set_xlabel("loss", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0][0].set_ylabel("share of pictures", fontsize=8)
    lines, names = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return png(figure)


def _relearning(result: Audit) -> bytes:
    figure, axes = new_figure(9, 3.4)
    axis = axes[0][0]
    for model, colour in zip(NAMES, COLOURS, strict=False):
        if model in result.relearning:
            axis.plot(result.relearning[model], "o-", color=colour, label=NAMES[model], markersize=4)
    axis.axhline(result.relearning["aim"][0], color="black", linestyle="--", lw=1, label="as before, nearly")
    axis.set_xlabel("epochs of training on the forgotten pictures", fontsize=8)
    axis.set_ylabel("loss on them", fontsize=8)
    axis.set_xticks(range(max(len(curve) for curve in result.relearning.values())))
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8)
    return png(figure)
