"""Claims of UCF on forged faces of the people pack: one way of forging is left out, people are never shared.

Every forgery is left out in three of twelve pairs of runs; nothing is chosen on what is left out. Photographs are real,
forgeries are made here (`vestige.data.face_forgeries`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.forensics.verdicts import Margin, over_runs
from vestige.claims import ClaimContext, Evidence, claim, headline

PAIRS, ONCE = range(12), range(4)
OURS, CE = "unseen", "ce"
ABOUT = {
    OURS: "UCF", CE: "same encoder, cross-entropy", "srm": "same encoder on SRM residuals",
    "core": "two views kept alike", "sbi": "faces blended with themselves",
}  # fmt: skip
Figures = Mapping[str, Any]


def generalises(ours: Sequence[Figures], theirs: Sequence[Figures], shuffled: Figures) -> Margin:
    """UCF ahead of cross-entropy in AUC on the forgery left out, over pairs of runs."""
    null = abs(float(shuffled["auc, left out"]) - 0.5)
    return over_runs([f["auc, left out"] for f in ours], [f["auc, left out"] for f in theirs], null)


@headline(
    "with one way of forging left out, the AUC on it is above that of the same encoder trained with plain cross-entropy"
)
def generalises_to_another_forgery(context: ClaimContext) -> Evidence:
    runs = {
        name: [context.run("ucf", name, s).figures for s in (PAIRS if name in (OURS, CE) else ONCE)] for name in ABOUT
    }
    shuffled = context.run("ucf", "shuffled").figures
    rows = []
    for name, found in [*runs.items(), ("shuffled", [shuffled])]:
        row: dict[str, Any] = {"detector": ABOUT.get(name, "UCF, labels dealt out anew"), "runs": len(found)}
        for key in ("auc, left out", "auc jpeg, left out", "auc, seen"):
            row[key] = float(np.mean([f[key] for f in found]))
        for held in dict.fromkeys(f["held"] for f in found):
            row[f"{held} left out"] = float(np.mean([f["auc, left out"] for f in found if f["held"] == held]))
        rows.append(row)
    margin = generalises(runs[OURS], runs[CE], shuffled)
    return Evidence(margin.holds, rows, f"{margin.said('ahead')}; the card hopes for 0.03", margin.weak)


@claim("after JPEG 70 with halved colours it is ahead on the forgery left out as well")
def bears_jpeg(context: ClaimContext) -> Evidence:
    ours, theirs = ([context.run("ucf", name, s).figures for s in PAIRS] for name in (OURS, CE))
    margin = over_runs([f["auc jpeg, left out"] for f in ours], [f["auc jpeg, left out"] for f in theirs])
    rows = [
        {"left out": a["held"], "seed": s, "UCF": a["auc jpeg, left out"], "cross-entropy": b["auc jpeg, left out"]}
        for s, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]
    return Evidence(margin.holds, rows, margin.said("ahead"))


@claim("a linear probe tells the method better from the specific than from the common features, in every run")
def features_are_kept_apart(context: ClaimContext) -> Evidence:
    found = [context.run("ucf", OURS, s).figures for s in PAIRS]
    names = ("specific", "common", "content")
    rows = [{"left out": f["held"], **{n: f[f"method from {n}"] for n in names}} for f in found]
    margin = over_runs([r["specific"] for r in rows], [r["common"] for r in rows])
    return Evidence(margin.holds, rows, f"{margin.said('ahead')}; chance 0.25 and the card hopes for 0.2")


@claim("a face decoded with its content and another's forgery features has its own picture nearest more often than not")
def content_keeps_the_person(context: ClaimContext) -> Evidence:
    found = [context.run("ucf", OURS, s).figures for s in PAIRS]
    keys = [k for k in found[0] if k.startswith("person by")]
    rows = [{"left out": f["held"], **{k.removeprefix("person by "): f[k] for k in keys}} for f in found]
    margin = over_runs([f["person by own content, other features"] for f in found], 0.5)
    return Evidence(margin.holds, rows, f"{margin.said('above one half')}; among 200 people, the card hopes for 0.8")
