"""The audit as a page: tables in Markdown, and resilience against damage as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vestige.bench.copyrightmeter.ranking import DAMAGE, LINE, WEIGHTINGS, protections, ranked
from vestige.core.files import write_atomic

_MARKERS = {"obfuscation": "o", "sanitisation": "s", "watermark": "^"}


def cell_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `ranking.summary` as they are shown: intervals in one column, figures rounded."""
    shown = []
    for row in rows:
        line = {name: row[name] for name in ("family", "protection", "attack")}
        line["made for"] = row["against"] or "-"
        for name in ("fidelity", "efficacy", "resilience"):
            line[name] = round(row[name], 3) if name in row else "-"
            line[f"{name} 95 %"] = f"{row[f'{name} low']:.2f} to {row[f'{name} high']:.2f}" if name in row else "-"
        for name in ("damage", "psnr", "bit_accuracy", "raw", "seconds"):
            line[name] = round(row[name], 3) if name in row else "-"
        shown.append(line)
    return shown


def rank_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each protection with its scores and its mean rank in its family under every weighting."""
    listed = protections(rows)
    places: dict[str, dict[str, float]] = {name: {} for name in WEIGHTINGS}
    for family in dict.fromkeys(p["family"] for p in listed):
        own = [p for p in listed if p["family"] == family]
        for name, weights in WEIGHTINGS.items():
            places[name] |= dict(ranked(own, weights))
    return [
        {**row, **{f"rank, {name}": round(at[row["protection"]], 2) for name, at in places.items()}} for row in listed
    ]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of rows that share their columns."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_text(row[n]) for n in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Resilience of every attacked protection against what the attack destroys, with the lines that count."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    shown = [r for r in rows if "resilience" in r and not r["against"]]
    for protection in dict.fromkeys(r["protection"] for r in shown):
        own = [r for r in shown if r["protection"] == protection]
        axes.plot(
            [r["damage"] for r in own], [r["resilience"] for r in own], _MARKERS[own[0]["family"]], label=protection,
            alpha=0.8,
        )  # fmt: skip
    axes.axhline(LINE, color="grey", linewidth=0.8)
    axes.axvline(DAMAGE, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="content destroyed by the attack", ylabel="resilience", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomic(path, buffer.getvalue())


def write_page(rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Write ``copyrightmeter.md`` and its plot into ``folder``; returns the page."""
    plot(rows, folder / "copyrightmeter.png")
    target = folder / "copyrightmeter.md"
    text = (
        "# CopyrightMeter\n\n![Resilience against damage](copyrightmeter.png)\n\n## Protections\n\n"
        f"{markdown(rank_rows(rows))}\n## Cells\n\n{markdown(cell_rows(rows))}"
    )
    write_atomic(target, text)
    return target
