"""Figures of the watermark benchmark, and one HTML page that holds everything and loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from vestige.bench.watermark_table import COLUMNS, by_family, cell_text

_MARKERS = "osD^vPX<>*hp"
#: Colours that stay apart for the colour-blind (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


def figures(table: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """PNG files by name: ``heatmap.png``, ``quality.png`` and ``damage.png``; nothing for a table without figures."""
    measured = [row for row in table if row["tpr@1e-2"] is not None]
    if not measured:
        return {}
    found = {"heatmap.png": heat_map(measured), "quality.png": quality_plot(measured)}
    if any(map(_damaged, measured)):
        found["damage.png"] = damage_plot(measured)
    return found


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def heat_map(table: Sequence[dict[str, Any]]) -> bytes:
    """Attacks down, methods across: detection at 1 % and bit accuracy."""
    methods = list(dict.fromkeys(row["method"] for row in table))
    attacks = list(dict.fromkeys((row["aim"], row["attack"], row["strength"]) for row in table))
    at = {(row["method"], row["aim"], row["attack"], row["strength"]): row for row in table}
    panels = (("tpr@1e-2", "called marked at 1 % false positives", 0.0), ("bit accuracy", "bit accuracy", 0.5))
    width = 2.6 + 2 * max(2.2, 0.9 * len(methods))
    figure, axes = _figure(width, 1.6 + 0.23 * len(attacks), 1, 2, sharey=True)
    for axis, (column, title, low) in zip(axes[0], panels, strict=True):
        values = np.array(
            [[_number(at.get((m, *attack), {}).get(column)) for m in methods] for attack in attacks], float
        )
        shown = axis.imshow(values, vmin=low, vmax=1, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = value < low + 0.6 * (1 - low)
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
        axis.set_xticks(range(len(methods)), methods, rotation=25, ha="right", fontsize=8)
        axis.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.6, pad=0.02)
    names = [f"{name} {strength}" + (" (forgery)" if aim == "forgery" else "") for aim, name, strength in attacks]
    axes[0][0].set_yticks(range(len(attacks)), names, fontsize=7)
    return _png(figure)


def quality_plot(table: Sequence[dict[str, Any]]) -> bytes:
    """Robustness against the fidelity of the mark: one point per method and family of attacks."""
    means = by_family(table)
    methods = list(dict.fromkeys(row["method"] for row in table))
    families = list(dict.fromkeys(family for _, family in means))
    psnr = {row["method"]: row["mark psnr"] for row in table}
    figure, axes = _figure(7.5, 4.6)
    axis = axes[0][0]
    shift = np.linspace(-0.3, 0.3, len(families)) if len(families) > 1 else [0.0]
    for i, method in enumerate(methods):
        for j, family in enumerate(families):
            if (method, family) in means:
                axis.plot(
                    psnr[method] + shift[j], means[method, family], _MARKERS[j % len(_MARKERS)],
                    color=_COLOURS[i % len(_COLOURS)], ms=7, alpha=0.85,
                )  # fmt: skip
        axis.plot([], [], "s", color=_COLOURS[i % len(_COLOURS)], label=method)
    for j, family in enumerate(families):
        axis.plot([], [], _MARKERS[j % len(_MARKERS)], color="0.4", label=family)
    _percent_axis(axis)
    axis.set_xlim(min(psnr.values()) - 1, max(psnr.values()) + 1)
    axis.set_xlabel("PSNR of the marked picture, dB (points of one method are spread for legibility)", fontsize=9)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axis.set_title("Robustness versus quality: mean over the attacks of a family", fontsize=10)
    return _png(figure)


def damage_plot(table: Sequence[dict[str, Any]]) -> bytes:
    """What an attack costs the picture against what it leaves of the mark, one panel per family."""
    chosen = [row for row in table if _damaged(row)]
    families = list(dict.fromkeys(row["family"] for row in chosen))
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    columns = min(3, len(families))
    lines = -(-len(families) // columns)
    figure, axes = _figure(1.2 + 3.6 * columns, 0.8 + 2.9 * lines, lines, columns, sharex=True, sharey=True)
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
                    marker = _MARKERS[j % len(_MARKERS)]
                    axis.plot(x, y, marker=marker, ms=4, lw=1, color=_COLOURS[i % len(_COLOURS)], alpha=0.8)
                    if i == 0:
                        axis.annotate(attack, line[0], fontsize=6, color="0.35", xytext=(3, 3),
                                      textcoords="offset points")  # fmt: skip
        axis.set_title(family, fontsize=9)
        _percent_axis(axis)
        axis.set_xlabel("PSNR left by the attack, dB", fontsize=8)
    for i, method in enumerate(methods):
        axes[0][0].plot([], [], color=_COLOURS[i % len(_COLOURS)], label=method)
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    return _png(figure)


def _damaged(row: dict[str, Any]) -> bool:
    """Whether an attack on a mark changed the picture, without moving its pixels."""
    return row["psnr"] is not None and row["psnr"] < 98 and row["aim"] == "removal"


def _percent_axis(axis: Any) -> None:
    axis.set_ylim(-0.03, 1.05)
    axis.set_ylabel("called marked at 1 % FPR", fontsize=8)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th { position: sticky; top: 0; background: Canvas; } td:nth-child(-n+5), th:nth-child(-n+5) { text-align: left; }
td.note { text-align: left; color: GrayText; } img { max-width: 100%; background: #fff; border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: 13px; } dd { margin: 0; }
.v { color: #000; }
"""
_SHADED = ("tpr@1e-3", "tpr@1e-2", "own p<=1e-3", "own p<=1e-2", "read")


def page(table: Sequence[dict[str, Any]], images: dict[str, bytes], about: Sequence[str]) -> str:
    """The whole benchmark as one HTML page with its figures inside."""
    alternatives = {
        "heatmap.png": "Heat map of detection and bit accuracy by attack and method",
        "quality.png": "Robustness of each method against the quality of its marked pictures",
        "damage.png": "Detection after an attack against the damage the attack does",
    }
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Watermark benchmark</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>Watermark benchmark</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in about),
    ]
    for name, data in images.items():
        source = base64.b64encode(data).decode()
        parts.append(f'<p><img alt="{alternatives[name]}" src="data:image/png;base64,{source}"></p>')
    head = "".join(f'<th title="{escape(meaning)}">{escape(name)}</th>' for name, meaning in COLUMNS.items())
    parts.append(f'<h2>Every cell</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>')
    for row in table:
        parts.append("<tr>" + "".join(_cell(name, row) for name in COLUMNS) + "</tr>")
    parts.append("</tbody></table></div><h2>Columns</h2><dl>")
    parts += [f"<dt><b>{escape(name)}</b></dt><dd>{escape(meaning)}</dd>" for name, meaning in COLUMNS.items()]
    return "".join([*parts, "</dl></body></html>\n"])


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    text = escape(cell_text(value))
    if name == "note":
        return f'<td class="note">{text}</td>'
    if name in _SHADED and isinstance(value, float):
        good = 1 - value if row["aim"] == "forgery" else value  # green: as the owner of the mark wants it
        return f'<td class="v" style="background:hsl({120 * good:.0f} 60% 78%)">{text}</td>'
    return f"<td>{text}</td>"
