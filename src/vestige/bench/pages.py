"""What the pages of benchmarks share: tables as text, figures, and one HTML page that loads nothing."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

MARKERS = "osD^vPX<>*hp"
#: Colours that stay apart for the colour-blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")

Rows = Sequence[Mapping[str, Any]]
#: How good a cell is, from 0 to 1, or None where it is neither good nor bad.
Shade = Callable[[str, Mapping[str, Any]], "float | None"]


@dataclass(frozen=True)
class Section:
    """A table under a heading. columns: name -> what it holds."""

    heading: str
    columns: Mapping[str, str]
    rows: Rows


@dataclass(frozen=True)
class Panel:
    """One part of a heat map: its title, values (rows × columns, nan for none) and the ends of its colours."""

    title: str
    values: np.ndarray
    low: float = 0.0
    high: float = 1.0


def cell_text(value: Any) -> str:
    """A value as the tables print it: four significant digits, empty for None.

    >>> cell_text(0.123456), cell_text(None), cell_text(3)
    ('0.1235', '', '3')
    """
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_csv(rows: Rows, columns: Sequence[str] | Mapping[str, str]) -> str:
    """Comma-separated, with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell_text(row[name]) for name in columns] for row in rows)
    return buffer.getvalue()


def to_markdown(title: str, about: Sequence[str], sections: Sequence[Section]) -> str:
    """A heading, sentences about the run, the tables, and what their columns mean."""
    lines = [f"# {title}", "", *about]
    for section in sections:
        if len(sections) > 1:
            lines += ["", f"## {section.heading}"]
        lines += ["", "| " + " | ".join(section.columns) + " |", "|" + "---|" * len(section.columns)]
        for row in section.rows:
            cells = (cell_text(row[name]).replace("|", "\\|") for name in section.columns)
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- **{name}**: {meaning}." for name, meaning in section.columns.items())]
    return "\n".join(lines) + "\n"


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """(figure, axes rows × columns) of a size in inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def number(value: Any) -> float:
    """nan for None."""
    return np.nan if value is None else float(value)


def heat_map(panels: Sequence[Panel], rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Panels side by side with the same rows, every value written into its cell."""
    width = 2.6 + len(panels) * max(2.2, 0.9 * len(columns))
    figure, axes = new_figure(width, 1.6 + 0.23 * len(rows), 1, len(panels), sharey=True)
    for axis, panel in zip(axes[0], panels, strict=True):
        shown = axis.imshow(panel.values, vmin=panel.low, vmax=panel.high, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(panel.values):
            if np.isfinite(value):
                dark = value < panel.low + 0.6 * (panel.high - panel.low)
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
        axis.set_xticks(range(len(columns)), columns, rotation=25, ha="right", fontsize=8)
        axis.set_title(panel.title, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.6, pad=0.02)
    axes[0][0].set_yticks(range(len(rows)), rows, fontsize=7)
    return png(figure)


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th { position: sticky; top: 0; background: Canvas; } .t { text-align: left; }
td.note { text-align: left; color: GrayText; white-space: normal; min-width: 16rem; }
img { max-width: 100%; background: #fff; border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: 13px; } dd { margin: 0; }
.v { color: #000; } .lead { font-size: 18px; font-weight: 600; }
"""


def page(
    title: str, about: Sequence[str], figures: Mapping[str, tuple[str, bytes]], sections: Sequence[Section],
    shade: Shade = lambda name, row: None, captions: Mapping[str, str] | None = None,
    lead: str = "",
) -> str:  # fmt: skip
    """The whole benchmark as one HTML page; figures: file name -> (alternative text, PNG); captions: how to read
    them, by file name. lead: the one sentence to read first."""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        *([f'<p class="lead">{escape(lead)}</p>'] if lead else []),
        *(f"<p>{escape(sentence)}</p>" for sentence in about),
    ]
    for name, (alternative, data) in figures.items():
        source = base64.b64encode(data).decode()
        image = f'<img alt="{escape(alternative)}" src="data:image/png;base64,{source}">'
        caption = (captions or {}).get(name)
        parts.append(f"<p>{image}</p>" if caption is None else f"<p>{escape(caption)}<br>{image}</p>")
    for section in sections:
        words = {name for name in section.columns if any(isinstance(row[name], str) for row in section.rows)}
        head = "".join(
            f'<th title="{escape(meaning)}"{_left(name in words)}>{escape(name)}</th>'
            for name, meaning in section.columns.items()
        )
        parts.append(f'<h2>{escape(section.heading)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>')
        parts.append("<tbody>")
        for row in section.rows:
            parts.append("<tr>" + "".join(_cell(name, row, name in words, shade) for name in section.columns) + "</tr>")
        parts.append("</tbody></table></div><h3>Columns</h3><dl>")
        parts += [f"<dt><b>{escape(n)}</b></dt><dd>{escape(meaning)}</dd>" for n, meaning in section.columns.items()]
        parts.append("</dl>")
    return "".join([*parts, "</body></html>\n"])


def _left(words: bool) -> str:
    return ' class="t"' if words else ""


def _cell(name: str, row: Mapping[str, Any], words: bool, shade: Shade) -> str:
    value = row[name]
    text = escape(cell_text(value))
    if name == "note":
        return f'<td class="note">{text}</td>'
    good = shade(name, row) if isinstance(value, float) else None
    if good is not None:
        return f'<td class="v" style="background:hsl({120 * good:.0f} 60% 78%)">{text}</td>'
    return f"<td{_left(words)}>{text}</td>"
