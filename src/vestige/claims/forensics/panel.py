"""Claims of the default panel: it leaves untouched photographs alone and finds what was planted."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from vestige.bench.forensics.corpus import SEEKS, corpus, marked, photographs
from vestige.bench.forensics.panel import Record, judge, measure
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.findings import Finding, Verdict
from vestige.core.panel import Panel, default_panel
from vestige.data.tampering import OPERATIONS

Judged = tuple[Record, list[Finding], Verdict]

#: How many test photographs are also processed, and tampered with.
PROCESSED, EDITED = 80, 60


@lru_cache(maxsize=1)
def judged(context: ClaimContext) -> list[Judged]:
    """Every case of the test half, with calibrated findings and verdict; shared by the claims below."""
    photos = photographs(context.data or context.pack("photos"), "test", limit=context.limit, unseen=True)
    full = default_panel()
    panel = Panel([], full.calibrations, full.combination)
    makers = corpus(photos, seed=context.seed + 1, processed=PROCESSED, edited=EDITED)
    makers += [partial(marked, photo, context.seed) for photo in photos[:EDITED]]
    return [(r, *judge(r, panel)) for r in measure(makers, context.jobs)]


def _edited(verdict: Verdict) -> bool:
    return verdict.flagged and "edit" in verdict.kinds


def _rate(flags: list[bool]) -> float:
    return float(np.mean(flags)) if flags else float("nan")


@claim("at most 5 % of untouched photographs that set no threshold are flagged by the overall verdict")
def leaves_untouched_photographs_alone(context: ClaimContext) -> Evidence:
    context.pack("photos")
    rows: list[dict[str, Any]] = []
    for pack in ("photos", "scenery"):
        for name in dict.fromkeys(r.case.name for r, _, _ in judged(context) if not r.case.present - {"resampled"}):
            chosen = [(f, v) for r, f, v in judged(context) if r.case.name == name and r.case.photo.startswith(pack)]
            if chosen:
                rows.append(
                    {
                        "pack": pack,
                        "version": name,
                        "photographs": len(chosen),
                        "flagged": _rate([v.flagged for _, v in chosen]),
                        "called processed": _rate([v.kinds == ("history",) for _, v in chosen]),
                        "called edited": _rate([_edited(v) for _, v in chosen]),
                        "a place to look at": _rate([v.level == "a place to look at" for _, v in chosen]),
                    }
                )
    untouched = [r for r in rows if r["version"] == "untouched"]
    photographs_flagged = [r["flagged"] for r in untouched if r["pack"] == "photos"]
    return Evidence(
        bool(photographs_flagged) and max(photographs_flagged) <= 0.05,
        rows,
        "processed pictures may rightly be called processed (saved twice, scaled), not edited",
    )


@headline(
    "every tampering operation is flagged as an edit more often than untouched and innocently processed photographs"
)
def finds_edits(context: ClaimContext) -> Evidence:
    everything = judged(context)
    clean = [v for r, _, v in everything if not r.case.present - {"resampled"}]
    floor = _rate([_edited(v) for v in clean])
    examiners = [s for s, sought in SEEKS.items() if "edit" in sought]
    rows = [_row("innocent", [(r, f, v) for r, f, v in everything if not r.case.present - {"resampled"}], examiners)]
    for operation in OPERATIONS:
        rows.append(_row(operation, [j for j in everything if j[0].case.name == operation], examiners))
    tampered = [row for row in rows[1:] if row["files"]]
    return Evidence(all(row["called edited"] > floor for row in tampered), rows)


def _row(name: str, chosen: list[Judged], examiners: list[str]) -> dict:
    row: dict = {
        "operation": name,
        "files": len(chosen),
        "called edited": _rate([_edited(v) for _, _, v in chosen]),
        "a place to look at": _rate([v.level == "a place to look at" for _, _, v in chosen]),
    }
    for slug in examiners:
        row[slug] = _rate([f.flagged for _, fs, _ in chosen for f in fs if f.examiner == slug and f.applies])
    aucs: dict[str, list[float]] = {}
    for record, _, _ in chosen:
        for slug, value in record.pixel_auc.items():
            aucs.setdefault(slug, []).append(value)
    row |= {f"pixel AUC {slug}": float(np.nanmean(values)) for slug, values in aucs.items()}
    return row


@claim(
    "planted histories, payloads and marks are found: saved twice, payloads from 25 % of the samples and marks >= 90 %"
)
def finds_other_traces(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    wanted = {
        "saved twice": "jpeg_double",
        "payload": "steganalysis",
        "enlarged": "resampling",
        "cropped in between": "jpeg_crop",
        "marked": "find_mark",
    }
    for start, slug in wanted.items():
        for name in sorted({r.case.name for r, _, _ in judged(context) if r.case.name.startswith(start)}):
            found = [
                any(f.flagged for f in fs if f.examiner == slug) for r, fs, _ in judged(context) if r.case.name == name
            ]
            rows.append({"trace": name, "examiner": slug, "files": len(found), "found": _rate(found)})

    def overall(*names: str) -> float:
        chosen = [r for r in rows if r["trace"] in names]
        total = sum(r["files"] for r in chosen)
        return sum(r["found"] * r["files"] for r in chosen) / total if total else 0.0

    payloads = ("payload 25%", "payload 50%", "payload 100%")
    holds = min(overall("saved twice"), overall(*payloads), overall("marked")) >= 0.9
    return Evidence(holds, rows)
