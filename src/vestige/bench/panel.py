"""Calibrating and judging the default panel on the examination corpus."""

from __future__ import annotations

import dataclasses
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vestige.bench.corpus import SEEKS, Case, Maker, corpus, photographs
from vestige.core.calibration import Calibration
from vestige.core.catalogue import systems
from vestige.core.errors import InputError
from vestige.core.files import write_json
from vestige.core.findings import Finding
from vestige.core.panel import Panel, shared_panel
from vestige.core.progress import track
from vestige.core.subjects import ImageSubject

#: Share of untouched photographs that the whole panel may flag, on validation data.
TARGET_FALSE_POSITIVES = 0.02
#: How many validation photographs are also processed, and tampered with.
PROCESSED, EDITED = 250, 160


@dataclass(frozen=True)
class Record:
    """What the uncalibrated panel said of one case; ``pixel_auc`` is each map's AUC against the true mask."""

    case: Case
    findings: tuple[Finding, ...]
    pixel_auc: dict[str, float]

    def score(self, examiner: str) -> float:
        """The raw score, nan where the examiner does not apply."""
        for finding in self.findings:
            if finding.examiner == examiner:
                return float(finding.score) if finding.applies else float("nan")
        return float("nan")


def _examine(maker: Maker, only: tuple[str, ...] = ()) -> list[Record]:
    import cv2

    cv2.setNumThreads(1)
    panel = shared_panel((), only)
    records = []
    for case in maker():
        findings = panel.raw(ImageSubject(case.data, case.photo))
        aucs = {}
        if case.mask is not None:
            aucs = {f.examiner: pixel_auc(f.map, case.mask) for f in findings if f.map is not None and f.kind == "edit"}
        light = tuple(dataclasses.replace(f, map=None) for f in findings)
        records.append(Record(dataclasses.replace(case, data=b"", mask=None), light, aucs))
    return records


def pixel_auc(map: np.ndarray, mask: np.ndarray) -> float:
    """Area under the ROC of a map (resized to the mask) as a score of every pixel; nan for an empty mask."""
    import cv2
    from sklearn.metrics import roc_auc_score

    if mask.all() or not mask.any():
        return float("nan")
    full = cv2.resize(map, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return float(roc_auc_score(mask.ravel(), full.ravel()))


def measure(makers: Sequence[Maker], jobs: int = 1, only: tuple[str, ...] = ()) -> list[Record]:
    """Run the uncalibrated panel (or ``only`` some of its examiners) over a corpus, in order."""
    work = partial(_examine, only=only)
    if jobs <= 1:
        results: Iterator[list[Record]] = map(work, makers)
        return [r for part in track(results, "examining", len(makers)) for r in part]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        results = pool.map(work, makers, chunksize=4)
        return [r for part in track(results, "examining", len(makers)) for r in part]


def fit(records: Sequence[Record], *, target: float = TARGET_FALSE_POSITIVES) -> dict[str, Any]:
    """Thresholds, probabilities and the verdict's combination from validation records.

    Every examiner gets the same false-positive rate, the largest at which at most ``target`` of the untouched
    photographs are flagged by any of them; innocently processed pictures bound each threshold too.
    Returns the content of the calibration file.
    """
    untouched = [r for r in records if r.case.name == "untouched"]
    if len(untouched) < 20:
        raise InputError(f"Calibration needs at least 20 photographs, got {len(untouched)}.")
    slugs = [s for s in SEEKS if any(np.isfinite(r.score(s)) for r in records)]

    def thresholds(rate: float) -> dict[str, float]:
        return {s: _threshold(records, s, rate) for s in slugs}

    def union(limits: dict[str, float]) -> float:
        return float(np.mean([any(r.score(s) >= limits[s] for s in slugs) for r in untouched]))

    low, high = 0.0, 0.05
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if union(thresholds(middle)) <= target else (low, middle)
    limits = thresholds(low)
    examiners = {s: _calibration(records, s, limits[s]) for s in slugs}
    return {
        "examiners": {s: dataclasses.asdict(c) for s, c in examiners.items()},
        "verdict": _combine(records, examiners),
    }


def _split(records: Sequence[Record], slug: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite scores of the cases an examiner should and should not flag."""
    rows = [(r.score(slug), r.case.truth(slug)) for r in records]
    positive = np.array([s for s, t in rows if t is True and np.isfinite(s)])
    negative = np.array([s for s, t in rows if t is False and np.isfinite(s)])
    return positive, negative


def _threshold(records: Sequence[Record], slug: str, rate: float) -> float:
    """Smallest score above which at most ``rate`` of all clean and of the untouched pictures lie."""
    _, negative = _split(records, slug)
    untouched = np.array([r.score(slug) for r in records if r.case.name == "untouched"])
    untouched = untouched[np.isfinite(untouched)]
    cuts = [_upper(part, rate) for part in (negative, untouched) if part.size]
    return max(cuts) if cuts else float("inf")


def _upper(scores: np.ndarray, rate: float) -> float:
    """A cut just above all but floor(rate·n) of the scores."""
    ordered = np.sort(scores)[::-1]
    allowed = int(rate * ordered.size)
    highest = ordered[allowed]
    return float(highest + 1e-6 + 1e-3 * abs(highest))


def _calibration(records: Sequence[Record], slug: str, threshold: float) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    positive, negative = _split(records, slug)
    rate = float(np.mean(negative >= threshold)) if negative.size else 0.0
    slope, offset = 0.0, -2.0
    if positive.size >= 10:
        scores = np.concatenate([positive, negative])
        centre, spread = float(np.median(scores)), float(np.std(scores)) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegression(class_weight="balanced").fit(
                ((scores - centre) / spread)[:, None], np.r_[np.ones(positive.size), np.zeros(negative.size)]
            )
        slope = max(0.0, float(model.coef_[0, 0])) / spread
        offset = float(model.intercept_[0]) - slope * centre
    return Calibration(round(threshold, 6), round(rate, 5), int(negative.size), round(slope, 6), round(offset, 6))


def _combine(records: Sequence[Record], examiners: dict[str, Calibration]) -> dict[str, Any]:
    """Logistic weights of the edit examiners' log-odds, and a threshold no innocent picture should reach."""
    from sklearn.linear_model import LogisticRegression

    slugs = [s for s in examiners if SEEKS[s] == {"edit"}]
    rows, labels, untouched = [], [], []
    for record in records:
        truth = "edit" in record.case.present
        if not truth and "edit" in record.case.possible:
            continue
        row = []
        for slug in slugs:
            score = record.score(slug)
            p = np.clip(examiners[slug].probability(score), 1e-4, 1 - 1e-4) if np.isfinite(score) else 0.5
            row.append(np.log(p / (1 - p)))
        rows.append(row)
        labels.append(truth)
        untouched.append(not truth)
    X, y = np.array(rows), np.array(labels)
    model = LogisticRegression(class_weight="balanced").fit(X, y)
    weights = np.maximum(model.coef_[0], 0.0)
    total = X @ weights
    refit = LogisticRegression(class_weight="balanced").fit(total[:, None], y)
    weights = weights * max(float(refit.coef_[0, 0]), 0.0)
    offset = float(refit.intercept_[0])
    clean = 1 / (1 + np.exp(-(X[np.array(untouched)] @ weights + offset)))
    threshold = float(np.quantile(clean, 0.995))
    return {
        "weights": {s: round(float(w), 4) for s, w in zip(slugs, weights)},
        "offset": round(offset, 4),
        "threshold": round(threshold, 4),
    }


def panel_of(content: dict[str, Any]) -> Panel:
    """A panel for judging records with a calibration (it holds no examiners)."""
    return Panel([], {k: Calibration(**v) for k, v in content["examiners"].items()}, content["verdict"])


def judge(record: Record, panel: Panel) -> tuple[list[Finding], Any]:
    """Calibrated findings and verdict of one record."""
    findings = [
        panel.calibrations[f.examiner].apply(f) if f.examiner in panel.calibrations else f for f in record.findings
    ]
    return findings, panel.verdict(findings)


def fit_panel(root: Path, target: Path, *, limit: int = 0, jobs: int = 1, seed: int = 0) -> Iterator[str]:
    """Calibrate on the validation photographs under ``root``; yields lines that say what came out."""
    photos = photographs(root, "validation", limit=limit)
    examiners = tuple(s.slug for s in systems() if s.panel and s.slug in SEEKS)
    records = measure(corpus(photos, seed=seed, processed=PROCESSED, edited=EDITED), jobs, examiners)
    content = fit(records)
    content["about"] = {"photographs": len(photos), "cases": len(records), "seed": seed, "half": "validation"}
    write_json(target, content)
    panel = panel_of(content)
    verdicts = [(r, judge(r, panel)[1]) for r in records]
    clean = [v.flagged for r, v in verdicts if r.case.name == "untouched"]
    yield f"{len(photos)} photographs, {len(records)} files; untouched flagged: {np.mean(clean):.1%}"
    for slug, values in content["examiners"].items():
        positive, _ = _split(records, slug)
        found = float(np.mean(positive >= values["threshold"])) if positive.size else float("nan")
        rate = values["false_positive_rate"]
        yield f"  {slug}: threshold {values['threshold']:.4g}, false positives {rate:.2%}, finds {found:.1%}"
