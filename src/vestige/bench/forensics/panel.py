"""Calibrating and judging the default panel on the examination corpus."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from vestige.bench.forensics.corpus import LEARNED, SEEKS, Case, Maker, corpus, learned_from, photographs
from vestige.core.calibration import Calibration, bent
from vestige.core.catalogue import systems
from vestige.core.errors import InputError, UsageError
from vestige.core.files import read_json, write_json
from vestige.core.findings import Finding
from vestige.core.panel import LOG_ODDS, Panel, shared_panel
from vestige.core.progress import track
from vestige.core.runtime import start_worker
from vestige.core.subjects import ImageSubject

#: Share of untouched photographs that the edit examiners together may flag on validation data. Thresholds chosen on
#: the same pictures are optimistic; on others the share is two to three times as high.
TARGET_FALSE_POSITIVES = 0.01
#: The same for the history and the payload examiners, each on the pictures without its trace.
OTHER_FALSE_POSITIVES = 0.01
#: Shares of the innocent pictures that the map of one examiner, and the edit examiners together, may make a place to
#: look at.
FOCUS_FALSE_POSITIVES, LOOK_FALSE_POSITIVES = 0.03, 0.02
#: What a knee in the curve from score to probability has to gain, in nats of all records (half of the 99 % point of
#: chi-squared with one degree of freedom).
KNEE_GAIN = 3.3
#: False-positive rates among which the edit examiners' thresholds are chosen.
_RATES = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02)
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
    panel = shared_panel((), only)
    records = []
    for case in maker():
        name = str(Path(case.photo).with_suffix(""))  # a case may be of another format than its photograph
        findings = panel.raw(ImageSubject(case.data, name))
        if learned_from(case.photo):  # what a network says of pictures it knows is no measure of it
            findings = [f for f in findings if f.examiner not in LEARNED]
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
    with ProcessPoolExecutor(jobs, context, start_worker) as pool:
        results = pool.map(work, makers, chunksize=4)
        return [r for part in track(results, "examining", len(makers)) for r in part]


def fit(
    records: Sequence[Record],
    *,
    target: float = TARGET_FALSE_POSITIVES,
    kept: Mapping[str, Calibration] = MappingProxyType({}),
) -> dict[str, Any]:
    """Thresholds, probabilities and the verdict's combination from validation records.

    The edit examiners and their combination share one budget: together they may flag ``target`` of the untouched and
    of all innocent pictures. The budget goes, step by step, where it buys most detection averaged over the tampering
    operations. Examiners of other traces each flag at most `OTHER_FALSE_POSITIVES` of the pictures without theirs.
    kept: calibrations of examiners that stay as they are; the combination is fitted anew with them.
    Returns the content of the calibration file.
    """
    if sum(r.case.name == "untouched" for r in records) < 20:
        raise InputError("Calibration needs at least 20 photographs.")
    slugs = [s for s in SEEKS if any(np.isfinite(r.score(s)) for r in records)]
    edit = [s for s in slugs if SEEKS[s] == {"edit"}]
    curves = {s: kept[s] if s in kept else _curve(records, s) for s in slugs}
    combination, combined = _combine(records, {s: curves[s] for s in edit})
    # What is less likely than not is no sign, however rare it is.
    limits = {s: _upper(_split(records, s)[1], OTHER_FALSE_POSITIVES) for s in slugs if s not in edit}
    limits |= {s: max(edge, curves[s].even()) for s, edge in limits.items() if np.isfinite(curves[s].even())}
    limits |= _allocate(records, edit, combined, target, {s: c.threshold for s, c in kept.items()})
    combination["threshold"] = round(limits.pop("combined"), 4)
    innocent = np.array(["edit" not in r.case.present | r.case.possible for r in records])
    calm = combined[innocent]
    combination["look"] = round(min(_upper(calm, LOOK_FALSE_POSITIVES), combination["threshold"]), 4)
    for key, name in (("false_positive_rate", "threshold"), ("look_rate", "look")):
        combination[key] = round(float(np.mean(calm >= combination[name])), 5)
    combination["n_clean"] = int(calm.size)
    examiners = dict(kept)
    for slug in [s for s in slugs if s not in kept]:
        negative = _split(records, slug)[1]
        rate = round(float(np.mean(negative >= limits[slug])), 5)
        examiners[slug] = dataclasses.replace(
            curves[slug], threshold=round(limits[slug], 6), false_positive_rate=rate, n_clean=int(negative.size),
            **_focus(records, slug),
        )  # fmt: skip
    return {"examiners": {s: dataclasses.asdict(c) for s, c in examiners.items()}, "verdict": combination}


def _allocate(
    records: Sequence[Record], edit: list[str], combined: np.ndarray, target: float, fixed: Mapping[str, float]
) -> dict[str, float]:
    """Thresholds of the edit examiners and of their combination ("combined") within the shared budget.

    Starting with thresholds no innocent picture reaches, the threshold is lowered each time that buys most mean
    detection per additional false alarm, until no step fits the budget. Those that are ``fixed`` stay.
    """
    columns = [*edit, "combined"]
    scores = np.column_stack([[r.score(s) for r in records] for s in edit] + [combined])
    scores = np.nan_to_num(scores, nan=-np.inf)
    innocent = np.array(["edit" not in r.case.present | r.case.possible for r in records])
    untouched = np.array([r.case.name == "untouched" for r in records])
    operations = [r.case.name if "edit" in r.case.present else "" for r in records]
    groups = [np.array([o == name for o in operations]) for name in sorted(set(operations) - {""})]
    levels = [
        [fixed[name]] if name in fixed else [_upper(scores[innocent, j], rate) for rate in _RATES]
        for j, name in enumerate(columns)
    ]
    position = [0] * len(columns)

    def outcome(where: list[int]) -> tuple[float, float]:
        flags = (scores >= [levels[j][where[j]] for j in range(len(columns))]).any(axis=1)
        alarms = max(float(flags[untouched].mean()), float(flags[innocent].mean()))
        return float(np.mean([flags[g].mean() for g in groups])), alarms

    detection, alarms = outcome(position)
    while True:
        best: tuple[float, list[int]] | None = None
        for j in range(len(columns)):
            for step in range(position[j] + 1, len(levels[j])):
                trial = [*position[:j], step, *position[j + 1 :]]
                found, wrong = outcome(trial)
                if wrong > target or found <= detection:
                    continue
                gain = (found - detection) / max(wrong - alarms, 1e-4)
                if best is None or gain > best[0]:
                    best = (gain, trial)
        if best is None:
            return {name: levels[j][position[j]] for j, name in enumerate(columns)}
        position = best[1]
        detection, alarms = outcome(position)


def _split(records: Sequence[Record], slug: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite scores of the cases an examiner should and should not flag."""
    rows = [(r.score(slug), r.case.truth(slug)) for r in records]
    positive = np.array([s for s, t in rows if t is True and np.isfinite(s)])
    negative = np.array([s for s, t in rows if t is False and np.isfinite(s)])
    return positive, negative


def _focus(records: Sequence[Record], slug: str) -> dict[str, float]:
    """From which focus on an examiner's map makes a place to look at; nothing for one that states none."""
    calm = [r for r in records if r.case.truth(slug) is False]
    values = [f.focus for r in calm for f in r.findings if f.examiner == slug and f.applies and f.focus is not None]
    if len(values) < 20:
        return {}
    edge = _upper(np.array(values), FOCUS_FALSE_POSITIVES)
    return {"focus": round(edge, 5), "focus_rate": round(float(np.mean(np.array(values) >= edge)), 5)}


def _upper(scores: np.ndarray, rate: float) -> float:
    """A cut just above all but floor(rate·n) of the scores."""
    ordered = np.sort(scores)[::-1]
    allowed = int(rate * ordered.size)
    highest = ordered[allowed]
    return float(highest + 1e-6 + 1e-3 * abs(highest))


def _curve(records: Sequence[Record], slug: str) -> Calibration:
    """P(trace | score) for as many pictures with the trace as without; the threshold is still to be chosen.

    Straight or with the knee, among tenths of the scores, that explains the records best: a knee is one parameter
    more, so the balanced likelihood of all records has to gain `KNEE_GAIN` nats by it.
    """
    positive, negative = _split(records, slug)
    if positive.size < 10 or negative.size < 10:
        return Calibration(np.inf, 0.0, 0, 0.0, -2.0)
    scores = np.concatenate([positive, negative])
    labels = np.arange(scores.size) < positive.size
    share = np.where(labels, 0.5 / positive.size, 0.5 / negative.size) * scores.size
    best: tuple[float, Calibration] | None = None
    for knee in (None, *np.unique(np.quantile(scores, np.arange(0.1, 1, 0.1)))):
        bends = bent(scores, knee)
        centre, spread = float(np.median(bends)), float(np.std(bends)) or 1.0
        weights, offset = _regress(((bends - centre) / spread)[:, None], labels)
        slope = max(0.0, float(weights[0])) / spread
        curve = Calibration(np.inf, 0.0, 0, round(slope, 6), round(offset - slope * centre, 6))
        if knee is not None:
            curve = dataclasses.replace(curve, knee=round(float(knee), 6))
        odds = curve.log_odds(scores)
        loss = float((share * np.logaddexp(0.0, np.where(labels, -odds, odds))).sum())
        if best is None or loss < best[0] - (KNEE_GAIN if best[1].knee is None else 0.0):
            best = (loss, curve)
    assert best is not None
    return best[1]


def _regress(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(class_weight="balanced").fit(X, y)
    return model.coef_[0], float(model.intercept_[0])


def _combine(records: Sequence[Record], curves: dict[str, Calibration]) -> tuple[dict[str, Any], np.ndarray]:
    """Non-negative logistic weights of the edit examiners' log-odds, and the combined probability of every record."""
    log_odds = np.zeros((len(records), len(curves)))
    for j, (slug, curve) in enumerate(curves.items()):
        scores = np.array([r.score(slug) for r in records])
        answered = np.isfinite(scores)
        log_odds[answered, j] = np.clip(curve.log_odds(scores[answered]), *LOG_ODDS)
    edited = np.array(["edit" in r.case.present for r in records])
    known = edited | np.array(["edit" not in r.case.possible for r in records])
    weights = np.maximum(_regress(log_odds[known], edited[known])[0], 0.0)
    scale, offset = _regress((log_odds @ weights)[known, None], edited[known])
    weights = weights * max(float(scale[0]), 0.0)
    content = {"weights": {s: round(float(w), 4) for s, w in zip(curves, weights)}, "offset": round(offset, 4)}
    return content, 1 / (1 + np.exp(-(log_odds @ weights + offset)))


def panel_of(content: dict[str, Any]) -> Panel:
    """A panel for judging records with a calibration (it holds no examiners)."""
    return Panel([], {k: Calibration(**v) for k, v in content["examiners"].items()}, content["verdict"])


def judge(record: Record, panel: Panel) -> tuple[list[Finding], Any]:
    """Calibrated findings and verdict of one record."""
    findings = [
        panel.calibrations[f.examiner].apply(f) if f.examiner in panel.calibrations else f for f in record.findings
    ]
    return findings, panel.verdict(findings)


def fit_panel(
    root: Path, target: Path, *, limit: int = 0, jobs: int = 1, seed: int = 0, only: Sequence[str] = ()
) -> Iterator[str]:
    """Calibrate on the validation photographs under ``root``; yields lines that say what came out.

    only: examiners to calibrate; the others in ``target`` stay, and the verdict's combination is fitted anew. Raises
    UsageError for a name that has no calibration, InputError for a folder without enough photographs.
    """
    known = [s.slug for s in systems() if s.panel and s.slug in SEEKS]
    unknown = [slug for slug in only if slug not in known]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not calibrated; choose from {', '.join(known)}.")
    before: dict[str, Any] = read_json(target) if target.is_file() else {}
    kept = {}
    if only:
        kept = {k: Calibration(**v) for k, v in before["examiners"].items() if k not in only}
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that holds photos/ or scenery/.")
    photos = photographs(root, "validation", limit=limit, unseen=bool(LEARNED & set(only)))
    if len(photos) < 20:
        raise InputError(
            f"Calibration needs at least 20 photographs of its half; under {root} photos/ and scenery/ hold "
            f"{len(photos)}."
        )
    examiners = tuple(s for s in known if not only or s in only or SEEKS[s] == {"edit"})
    records = measure(corpus(photos, seed=seed, processed=PROCESSED, edited=EDITED), jobs, examiners)
    content = fit(records, kept=kept)
    about = {"photographs": len(photos), "cases": len(records), "seed": seed, "half": "validation"}
    content["about"] = {**before.get("about", {}), **dict.fromkeys(only, about)} if only else about
    content["generated"] = before.get("generated", {})  # measured on other pictures, and not anew here
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
