"""``vestige systems``: the catalogue on the terminal and as JSON; what works comes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vestige.app.verbs.systems_groups import by_verb, counts, evidence_of
from vestige.app.verbs.systems_pages import to_markdown, write_pages
from vestige.bench.store import STATUSES, lacking, recorded, recorded_runs, records_root, status
from vestige.claims import claims_of
from vestige.core.catalogue import ROLES, WINGS, System, system, systems
from vestige.core.errors import OK, UsageError


def run(
    slug: str | None, wing: str | None, role: str | None, wanted: str | None, papers: bool, markdown: bool,
    pages: Path | None, as_json: bool, results: Path | None,
) -> int:  # fmt: skip
    """Print the selected entries, or write the documentation made from them."""
    root = records_root(results)
    for value, known, name in ((wing, WINGS, "wing"), (role, ROLES, "role"), (wanted, STATUSES, "status")):
        if value is not None and value not in known:
            raise UsageError(f"There is no {name} {value!r}; choose from {', '.join(known)}.")
    if markdown:
        print(to_markdown(root), end="")
        return OK
    if pages is not None:
        print(f"{write_pages(root, pages)} pages in {pages}")
        return OK
    if slug is not None:
        entry = system(slug)
        print(json.dumps(row(entry, root), indent=2, ensure_ascii=False) if as_json else one(entry, root))
        return OK
    chosen = [
        s
        for s in systems()
        if (not papers or s.kind == "paper")
        and (wing is None or s.wing == wing)
        and (role is None or role in s.roles)
        and (wanted is None or status(s, root) == wanted)
    ]
    if as_json:
        print(json.dumps([row(s, root) for s in chosen], indent=2, ensure_ascii=False))
        return OK
    _print_list(chosen, root)
    return OK


def _print_list(chosen: list[System], root: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=160, highlight=False)  # a pipe has no width to fit
    by_status: dict[str, list[System]] = {name: [s for s in chosen if status(s, root) == name] for name in STATUSES}
    console.print(counts(by_status), soft_wrap=True)
    for name, heading in (("works", "Works today"), ("built", "Built, not ready for use yet")):
        if not by_status[name]:
            continue
        console.print(f"\n[bold]{heading}[/bold]")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in ("verb", "system", "what it is", "evidence" if name == "works" else "what is missing"):
            table.add_column(column, overflow="fold", no_wrap=column in ("verb", "system"))
        for verb, entries in by_verb(by_status[name]).items():
            for i, s in enumerate(entries):
                said = evidence_of(s, root) if name == "works" else lacking(s, root)
                table.add_row(verb if i == 0 else "", s.slug, s.name, said)
        console.print(table)
    if by_status["planned"]:
        console.print("\n[bold]Planned[/bold]")
        for wing in WINGS:
            slugs = [s.slug for s in by_status["planned"] if s.wing == wing]
            if slugs:
                console.print(f"{wing}: {', '.join(slugs)}", soft_wrap=True)
    console.print("\n'vestige systems SYSTEM' prints the exact words for one of them.", soft_wrap=True)


def row(s: System, root: Path) -> dict[str, Any]:
    """Everything about a system, JSON-like."""
    return {
        "slug": s.slug,
        "name": s.name,
        "title": s.title,
        "venue": s.venue,
        "wing": s.wing,
        "roles": list(s.roles),
        "kind": s.kind,
        "subject": s.subject,
        "status": status(s, root),
        "lacking": lacking(s, root),
        "evidence": evidence_of(s, root),
        "commands": [
            {"words": c.words, "takes": c.takes, "gives": c.gives, "exit_code": c.exit_code} for c in s.commands
        ],
        "network": s.network,
        "weights": list(s.weights),
        "claims": _claims(s, root),
        "target": s.target,
    }


def _claims(s: System, root: Path) -> list[dict[str, Any]]:
    outcome = {r.text: r for r in recorded(root, s.slug) or []}
    found = []
    for c in claims_of(s):
        seen = outcome.get(c.text)
        found.append(
            {"text": c.text, "headline": c.headline, "outcome": seen.outcome if seen else "not judged yet",
             "note": seen.note if seen else ""}
        )  # fmt: skip
    return found


def one(s: System, root: Path) -> str:
    """Everything about a system, for people."""
    lines = [f"{s.slug}: {s.name}"]
    source = ", ".join(filter(None, (s.title, s.venue)))
    lines += [f"  {source}"] if source else []
    why = lacking(s, root)
    lines.append(f"  {s.wing}; {status(s, root)}{f' ({why})' if why and s.target else ''}")
    lines.append(f"  evidence: {evidence_of(s, root)}")
    if s.commands:
        lines += ["", "Commands (they work as they stand in a folder made by 'vestige starter')"]
        for c in s.commands:
            lines += [f"  {c.words}", f"      in: {c.takes}", f"      out: {c.gives}"]
    if s.network:
        lines += ["", "Network"]
        if s.network == "shipped":
            lines.append(f"  shipped with the package: {', '.join(s.weights)}; its card lies beside it in {_weights()}")
        else:
            lines.append(f"  train it: vestige learn {s.recipe or s.slug}")
    found = _claims(s, root)
    if found:
        lines += ["", "Claims"]
        for said in found:
            mark = "headline, " if said["headline"] else ""
            lines.append(f"  [{mark}{said['outcome']}] {said['text']}")
            lines += [f"      {said['note']}"] if said["note"] else []
        runs = recorded_runs(root, s.slug)
        if runs:
            lines.append(f"  judged on {len(runs)} runs of vestige learn, all told in docs/systems/{s.slug}.md")
    return "\n".join(lines)


def _weights() -> Path:
    import vestige

    return Path(vestige.__file__).parent / "weights"
