"""docs/SYSTEMS.md and a page for every built system, made from the catalogue and the recorded results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vestige.app.verbs.systems_groups import by_verb, counts, evidence_of
from vestige.bench.store import STATUSES, evidence, lacking, recorded, recorded_runs, status
from vestige.claims import claims_of
from vestige.core.catalogue import System, systems
from vestige.core.files import read_json, write_atomic

_ROWS = 40


def to_markdown(root: Path) -> str:
    """docs/SYSTEMS.md: what works first, planned rows last."""
    by_status = {name: [s for s in systems() if status(s, root) == name] for name in STATUSES}
    shown = [s for s in systems() if s.kind == "paper" and evidence(s, root).startswith("headline shown")]
    lines = [
        "# Systems",
        "",
        "Made by `make docs` from the catalogue and `results/`; do not edit. Status and evidence are two things.",
        "A system *works* when its commands run on your own files and its network, where it has one, is really",
        "trained; it is *built* when it has code and tests; *planned* otherwise. Its evidence is what its claims came",
        "to: the headline is the paper's main effect against the baseline it was made to beat.",
        "",
        f"{counts(by_status)} Headlines shown: {len(shown)}.",
    ]
    for name, heading in (("works", "Works today"), ("built", "Built, not ready for use yet")):
        if not by_status[name]:
            continue
        lines += ["", f"## {heading}"]
        for verb, entries in by_verb(by_status[name]).items():
            lines += [
                "",
                f"### {verb}",
                "",
                "| system | what it is | wing | source | evidence |",
                "|---|---|---|---|---|",
            ]
            for s in entries:
                source = ", ".join(filter(None, (s.title, s.venue)))
                said = evidence_of(s, root)
                why = lacking(s, root)
                cells = (
                    f"[`{s.slug}`](systems/{s.slug}.md)",
                    s.name,
                    s.wing,
                    source,
                    said + (f"; {why}" if why else ""),
                )
                lines.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    lines += ["", "## Planned", "", "| system | what it is | wing | source |", "|---|---|---|---|"]
    for s in by_status["planned"]:
        source = ", ".join(filter(None, (s.title, s.venue)))
        lines.append("| " + " | ".join(_cell(c) for c in (f"`{s.slug}`", s.name, s.wing, source)) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def write_pages(root: Path, folder: Path) -> int:
    """A page for every built system and a drawing for every kept log; pages of systems that are gone are removed."""
    built = [s for s in systems() if status(s, root) != "planned"]
    wanted = set()
    for s in built:
        curves = _curves(root, s, folder)
        wanted |= {f"{s.slug}.md", *curves}
        write_atomic(folder / f"{s.slug}.md", page(s, root, curves))
    for old in [*folder.glob("*.md"), *folder.glob("*.svg")]:
        if old.name not in wanted:
            old.unlink()
    return len(built)


def refresh_readme(path: Path, root: Path) -> None:
    """Put today's number of working systems into README's first sentence."""
    papers = [s for s in systems() if s.kind == "paper"]
    working = sum(status(s, root) == "works" for s in papers)
    text = path.read_text(encoding="utf-8")
    stated = re.compile(r"\d+ of \d+ published systems work")
    write_atomic(path, stated.sub(f"{working} of {len(papers)} published systems work", text, count=1))


def page(s: System, root: Path, curves: Sequence[str] = ()) -> str:
    """One system as Markdown: how it is used, what its claims came to, the runs behind them, earlier records."""
    source = ", ".join(filter(None, (s.title, s.venue)))
    why = f" ({lacking(s, root)})" if lacking(s, root) else ""
    lines = [f"# {s.slug}", "", f"{s.name}.", "", *([f"Source: {source}.", ""] if source else [])]
    lines += [f"Wing {s.wing}; status **{status(s, root)}**{why}; evidence: {evidence_of(s, root)}.", ""]
    if s.commands:
        lines += ["## Use", "", "In a folder made by `vestige starter`:", "", "| command | in | out |", "|---|---|---|"]
        lines += [f"| `{_cell(c.words)}` | {_cell(c.takes)} | {_cell(c.gives)} |" for c in s.commands] + [""]
    if s.network:
        how = f"shipped: {', '.join(s.weights)}" if s.network == "shipped" else f"`vestige learn {s.recipe or s.slug}`"
        lines += [f"Network: {how}.", ""]
    results = recorded(root, s.slug)
    declared = claims_of(s)
    if declared:
        lines += ["## Claims", ""]
        outcome = {r.text: r for r in results or []}
        for c in declared:
            seen = outcome.get(c.text)
            mark = "headline, " if c.headline else ""
            lines += [f"**{c.text}**: {mark}{seen.outcome if seen else 'not judged yet'}.", ""]
            if seen:
                lines += ([seen.note, ""] if seen.note else []) + _table(seen.table)
    runs = recorded_runs(root, s.slug)
    if runs:
        lines += ["## Runs behind the claims", "", *_table(runs)]
    for name in curves:
        lines += [f"![{name.removesuffix('.svg')}]({name})", ""]
    lines += _earlier(root, s.slug)
    return "\n".join(lines).rstrip() + "\n"


def _earlier(root: Path, slug: str) -> list[str]:
    """What an earlier protocol came to; records are never thrown away."""
    path = root / "earlier" / f"{slug}.json"
    if not path.is_file():
        return []
    old = read_json(path)
    why = old.get("reason", "its networks were trained inside the claims, too briefly to be judged")
    lines = ["## Earlier record", "", f"Of {old.get('date')}, by a protocol that is no longer in use: {why}.", ""]
    for c in old.get("claims", []):
        note = f" ({c['note']})" if c.get("note") else ""
        lines.append(f"- {'held' if c.get('holds') else 'did not hold'}: {c.get('text')}{note}")
    return [*lines, ""]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = list(dict.fromkeys(name for r in rows for name in r))
    lines = ["| " + " | ".join(_cell(c) for c in columns) + " |", "|" + "---|" * len(columns)]
    for r in rows[:_ROWS]:
        cells = (r.get(c, "") for c in columns)
        lines.append("| " + " | ".join(_cell(f"{c:.4g}" if isinstance(c, float) else c) for c in cells) + " |")
    more = len(rows) - _ROWS
    return [*lines, *(["", f"{more} more rows in `results/claims`."] if more > 0 else []), ""]


def _curves(root: Path, s: System, folder: Path) -> list[str]:
    """Draw the kept logs of a system's recipe, all runs in one picture; returns the names of the drawings."""
    logs = sorted((root / "runs" / (s.recipe or s.slug)).glob("*.jsonl"))
    lines: dict[str, list[tuple[float, float]]] = {}
    label = "loss"
    for path in logs:
        content = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        judged = next((next(iter(c["validation"])) for c in content if c.get("validation")), None)
        label = judged or label
        seen = [(c["step"], (c.get("validation") or {}).get(judged) if judged else c.get("loss")) for c in content]
        points = [(step, value) for step, value in seen if value is not None]
        if len(points) > 1:
            lines[path.stem] = points
    if not lines:
        return []
    name = f"{s.slug}-curves.svg"
    write_atomic(folder / name, _drawn(lines, label))
    return [name]


def _drawn(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> bytes:
    """An SVG of curves; the same bytes for the same numbers."""
    from io import BytesIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "vestige", "font.size": 8}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), linewidth=1, label=name)
        axes.set_xlabel("updates")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(lines) <= 16:
            axes.legend(fontsize=6, ncol=2)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
