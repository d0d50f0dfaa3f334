"""Figures of the watermark benchmark, and one HTML page that holds everything and loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench import pages
from vestige.bench.watermark.table import COLUMNS, by_family


def figures(table: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """PNG files by name: ``heatmap.png``, ``quality.png`` and ``damage.png``; nothing for a table without figures."""
    measured = [row for row in table if row["tpr@1e-2"] is not None]
    if not measured:
        return {}
    found = {"heatmap.png": heat_map(measured), "quality.png": quality_plot(measured)}
    if any(map(_damaged, measured)):
        found["damage.png"] = damage_plot(measured)
    return found


def heat_map(table: Sequence[dict[str, Any]]) -> bytes:
    """Attacks down, methods across: detection at 1 % and bit accuracy."""
    methods = list(dict.fromkeys(row["method"] for row in table))
    attacks = list(dict.fromkeys((row["aim"], row["attack"], row["strength"]) for row in table))
    at = {(row["method"], row["aim"], row["attack"], row["strength"]): row for row in table}
    names = [f"{name} {strength}" + (" (forgery)" if aim == "forgery" else "") for aim, name, strength in attacks]
    panels = [
        pages.Panel(
            title,
            np.array([[pages.number(at.get((m, *a), {}).get(column)) for m in methods] for a in attacks], float),
            low,
        )
        for column, title, low in (
            ("tpr@1e-2", "called marked at 1 % false positives", 0.0), ("bit accuracy", "bit accuracy", 0.5),
        )
    ]  # fmt: skip
    return pages.heat_map(panels, names, methods)


def quality_plot(table: Sequence[dict[str, Any]]) -> bytes:
    """Robustness against the fidelity of the mark: one point per method and family of attacks."""
    means = by_family(table)
    methods = list(dict.fromkeys(row["method"] for row in table))
    families = list(dict.fromkeys(family for _, family in means))
    psnr = {row["method"]: row["mark psnr"] for row in table}
    figure, axes = pages.new_figure(7.5, 4.6)
    axis = axes[0][0]
    shift = np.linspace(-0.3, 0.3, len(families)) if len(families) > 1 else [0.0]
    for i, method in enumerate(methods):
        for j, family in enumerate(families):
            if (method, family) in means:
                axis.plot(
                    psnr[method] + shift[j], means[method, family], pages.MARKERS[j % len(pages.MARKERS)],
                    color=pages.COLOURS[i % len(pages.COLOURS)], ms=7, alpha=0.85,
                )  # fmt: skip
        axis.plot([], [], "s", color=pages.COLOURS[i % len(pages.COLOURS)], label=method)
    for j, family in enumerate(families):
        axis.plot([], [], pages.MARKERS[j % len(pages.MARKERS)], color="0.4", label=family)
    _percent_axis(axis)
    axis.set_xlim(min(psnr.values()) - 1, max(psnr.values()) + 1)
    axis.set_xlabel("PSNR of the marked picture, dB (points of one method are spread for legibility)", fontsize=9)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axis.set_title("Robustness versus quality: mean over the attacks of a family", fontsize=10)
    return pages.png(figure)


def damage_plot(table: Sequence[dict[str, Any]]) -> bytes:
    """What an attack costs the picture against what it leaves of the mark, one panel per family."""
    chosen = [row for row in table if _damaged(row)]
    families = list(dict.fromkeys(row["family"] for row in chosen))
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    columns = min(3, len(families))
    lines = -(-len(families) // columns)
    figure, axes = pages.new_figure(1.2 + 3.6 * columns, 0.8 + 2.9 * lines, lines, columns, sharex=True, sharey=True)
    for axis in axes.flat[len(families) :]:
        axis.set_visible(False)
    for axis, family in zip(axes.flat, families):
        inside = [row for row in chosen if row["family"] == family]
        for i, method in enumerate(methods):
            for j, attack in enumerate(dict.fromkeys(row["attack"] for row in inside)):
                line = sorted(
                    (row["psnr"], row["tpr@1e-2"]) for row in inside
                    if row["method"] == method and row["attack"] == attack
                )  # fmt: skip
                if line:
                    x, y = zip(*line, strict=True)
                    marker = pages.MARKERS[j % len(pages.MARKERS)]
                    axis.plot(x, y, marker=marker, ms=4, lw=1, color=pages.COLOURS[i % len(pages.COLOURS)], alpha=0.8)
                    if i == 0:
                        axis.annotate(attack, line[0], fontsize=6, color="0.35", xytext=(3, 3),
                                      textcoords="offset points")  # fmt: skip
        axis.set_title(family, fontsize=9)
        _percent_axis(axis)
        axis.set_xlabel("PSNR left by the attack, dB", fontsize=8)
    for i, method in enumerate(methods):
        axes[0][0].plot([], [], color=pages.COLOURS[i % len(pages.COLOURS)], label=method)
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    return pages.png(figure)


def _damaged(row: dict[str, Any]) -> bool:
    """Whether an attack on a mark changed the picture, without moving its pixels."""
    return row["psnr"] is not None and row["psnr"] < 98 and row["aim"] == "removal"


def _percent_axis(axis: Any) -> None:
    axis.set_ylim(-0.03, 1.05)
    axis.set_ylabel("called marked at 1 % FPR", fontsize=8)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)


_SHADED = ("tpr@1e-3", "tpr@1e-2", "own p<=1e-3", "own p<=1e-2", "read")


_FIGURES = {
    "heatmap.png": "Heat map of detection and bit accuracy by attack and method",
    "quality.png": "Robustness of each method against the quality of its marked pictures",
    "damage.png": "Detection after an attack against the damage the attack does",
}


def page(table: Sequence[dict[str, Any]], images: dict[str, bytes], about: Sequence[str]) -> str:
    """The whole benchmark as one HTML page with its figures inside."""
    figures = {name: (_FIGURES[name], data) for name, data in images.items()}
    return pages.page("Watermark benchmark", about, figures, [pages.Section("Every cell", COLUMNS, table)], _shade)


def _shade(name: str, row: Mapping[str, Any]) -> float | None:
    if name not in _SHADED:
        return None
    value = float(row[name])
    return 1 - value if row["aim"] == "forgery" else value  # green: as the owner of the mark wants it
