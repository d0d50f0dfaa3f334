"""Examine clips: the panel on frames spread over time, combined so that many frames do not mean many false alarms.

Let an examiner flag an untouched frame with probability p. Among n frames, however much they resemble one another,

    P(at least k of n frames are flagged) <= n p / k        (Markov's inequality on the number of flagged frames)

so a clip is flagged where at least k = ceil(n p / CLIP_RATE) frames are, and its false-positive rate is at most
n p / k. Its score is the k-th highest of its frames. Its probability follows from the mean of the frames' likelihood
ratios, whose expectation on untouched clips is 1, again whatever the dependence: an edit in few frames counts for less.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vestige.core.calibration import PRIOR, Calibration, log_odds, sigmoid, with_prior
from vestige.core.catalogue import systems
from vestige.core.findings import Clip, Finding, Findings, FrameFindings, Track
from vestige.core.panel import LOG_ODDS, Panel
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject, clock, shrink

#: Share of untouched clips that one examiner may flag, stated for photographs as frames.
CLIP_RATE = 0.01
#: Longest sides of the maps and previews kept of a frame.
_MAP_SIDE, _PREVIEW_SIDE = 512, 1024
_NOT_ON_FRAMES = "it reads a picture's file or compression history, which the decoded frames of a clip do not have."


def frames_needed(n: int, rate: float) -> int:
    """How many of n frames must be flagged so that a clip is, at a false-positive rate of ``rate`` a frame.

    >>> frames_needed(30, 0.0005), frames_needed(30, 0.005), frames_needed(5, 0.02)
    (2, 15, 5)
    """
    return min(n, max(1, math.ceil(n * rate / CLIP_RATE - 1e-9)))


def examine_clip(
    subject: VideoSubject, panel: Panel, every: float | None = None, restart: Callable[[], object] = lambda: None
) -> tuple[Findings, tuple[np.ndarray, ...]]:
    """Examine a clip: its findings over time, and previews (uint8 H×W×3) of the frames kept in them.

    every: distance of the frames in seconds. restart: called before every frame, to start a time limit anew.
    Raises InputError when no frame can be decoded, LimitError beyond the limits.
    """
    usable = {s.slug for s in systems() if s.frames}
    framewise = dataclasses.replace(panel, finders=[f for f in panel.finders if f.slug in usable])
    others = dataclasses.replace(panel, finders=[f for f in panel.finders if f.slug not in usable])
    history: list[list[Finding]] = []
    times: list[float] = []
    kept: dict[str, tuple[float, FrameFindings, np.ndarray]] = {}
    for time, pixels in subject.frames(every):
        restart()
        frame = ImageSubject(_png(pixels), f"{subject.source} at {clock(time)}", subject.limits)
        found = framewise.findings(frame)
        small = tuple(f if f.map is None else dataclasses.replace(f, map=shrink(f.map, _MAP_SIDE)) for f in found)
        _keep(kept, FrameFindings(len(times), time, small), pixels, framewise)
        history.append([dataclasses.replace(f, map=None) for f in found])
        times.append(time)
    combined, tracks = [], []
    for finder, answers in zip(framewise.finders, zip(*history)):
        finding, track = combine(answers, times, panel.calibrations.get(finder.slug), panel.prior)
        combined.append(finding)
        tracks.append(track)
    restart()
    combined += _on_file(subject, others)
    order = {finder.slug: n for n, finder in enumerate(panel.finders)}
    combined.sort(key=lambda f: order[f.examiner])
    shown = _worst(kept)
    clip = Clip(
        codec=subject.codec,
        seconds=subject.seconds or None,
        rate=subject.rate or None,
        every=subject.every,
        times=tuple(times),
        tracks=tuple(tracks),
        frames=tuple(f for f, _ in shown),
        notes=tuple(subject.notes),
    )
    verdict = panel.verdict(combined, "clip")
    verdict = dataclasses.replace(verdict, sentences=(*verdict.sentences, *_said(clip, len(subject.starts))))
    findings = Findings(
        source=subject.source,
        sha256=subject.sha256,
        format=subject.format,
        width=subject.width,
        height=subject.height,
        findings=tuple(combined),
        verdict=verdict,
        clip=clip,
    )
    return findings, tuple(preview for _, preview in shown)


def combine(
    answers: Sequence[Finding], times: Sequence[float], calibration: Calibration | None = None, prior: float = PRIOR
) -> tuple[Finding, Track]:
    """One examiner's finding about a clip from its calibrated findings about the frames, and its track over time.

    prior: the share for which their probabilities are stated.
    """
    applying = [n for n, f in enumerate(answers) if f.applies]
    slug, kind = answers[0].examiner, answers[0].kind
    scores = tuple(f.score if f.applies else None for f in answers)
    flags = tuple(f.flagged and f.applies for f in answers)
    n, hits = len(applying), [k for k, flag in enumerate(flags) if flag]
    rate = _rate(calibration)
    needed = frames_needed(n, rate) if n else 1
    track = Track(slug, scores, flags, answers[0].threshold if not n else answers[applying[0]].threshold, needed)
    if not n:
        return Finding.not_applicable(slug, kind, answers[0].why_not), track
    ranked = sorted(applying, key=lambda k: (flags[k], answers[k].score), reverse=True)
    best, deciding = answers[ranked[0]], answers[ranked[needed - 1]]
    flagged = len(hits) >= needed
    places = sum(answers[k].flagged or answers[k].look for k in applying)
    evidence = [_where(hits, n, needed, times)] if hits else []
    evidence += [f"At {clock(times[ranked[0]])}: {e}" for e in best.evidence] if hits else []
    details = {
        "frames_examined": n,
        "frames_flagged": len(hits),
        "frames_needed": needed,
        "strongest_at_seconds": round(times[ranked[0]], 3),
        "strongest_score": float(best.score),
        **{k: best.details[k] for k in ("message", "bits", "outcome") if k in best.details},
    }
    if "p_value" in best.details:
        details["p_value"] = min(1.0, n * float(best.details["p_value"]))
    finding = Finding(
        examiner=slug,
        kind=kind,
        score=float(deciding.score),
        when_flagged=best.when_flagged,
        when_clear=best.when_clear if not hits else f"Too few frames show it to count: {len(hits)} of {n}.",
        flagged=flagged,
        look=not flagged and places >= needed,
        when_look=best.summary if best.look else "",
        probability=_probability([answers[k].probability for k in applying], prior),
        threshold=best.threshold,
        false_positive_rate=None if calibration is None else min(1.0, round(n * rate / needed, 6)),
        evidence=tuple(evidence),
        details=details,
    )
    return finding, track


def _rate(calibration: Calibration | None) -> float:
    """False-positive rate of a frame, with one more false alarm than was seen: none among n does not mean never."""
    if calibration is None:
        return 0.0
    seen = round(calibration.false_positive_rate * calibration.n_clean)
    return (seen + 1) / (calibration.n_clean + 1)


def _probability(frames: Sequence[float | None], prior: float) -> float | None:
    """P(trace | frames) from the mean of the frames' likelihood ratios, for the same prior as theirs."""
    known = [log_odds(p) - log_odds(prior) for p in frames if p is not None]
    if not known:
        return None
    return with_prior(sigmoid(math.log(float(np.mean(np.exp(np.clip(known, *LOG_ODDS)))))), prior)


def _where(hits: Sequence[int], n: int, needed: int, times: Sequence[float]) -> str:
    first, last = clock(times[hits[0]]), clock(times[hits[-1]])
    when = f"at {first}" if len(hits) == 1 else f"between {first} and {last}"
    return f"{len(hits)} of {n} frames {when}" + (f"; {needed} are needed to count." if needed > 1 else ".")


def _png(pixels: np.ndarray) -> bytes:
    """PNG of uint8 H×W×3 RGB, packed quickly: it is read back at once."""
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()


def _keep(
    kept: dict[str, tuple[float, FrameFindings, np.ndarray]], frame: FrameFindings, pixels: np.ndarray, panel: Panel
) -> None:
    """Keep the frame where it is the strongest so far: over all, or for an examiner that drew a map of it."""
    ranks = {"": panel.edit_probability(frame.findings)}
    ranks |= {f.examiner: f.score for f in frame.findings if f.applies and (f.flagged or f.map is not None)}
    places = [k for k, rank in ranks.items() if k not in kept or rank > kept[k][0]]
    if places:
        preview = shrink(pixels, _PREVIEW_SIDE)
        for place in places:
            kept[place] = ranks[place], frame, preview


def _worst(kept: dict[str, tuple[float, FrameFindings, np.ndarray]]) -> list[tuple[FrameFindings, np.ndarray]]:
    """The kept frames, those that most examiners flag first, each once."""
    frames = {frame.index: (frame, preview) for _, frame, preview in kept.values()}

    def rank(frame: FrameFindings) -> tuple[int, float, int]:
        strongest = max((f.probability or 0.0 for f in frame.findings if f.applies), default=0.0)
        return -sum(f.flagged for f in frame.findings), -strongest, frame.index

    return sorted(frames.values(), key=lambda item: rank(item[0]))


def _on_file(subject: VideoSubject, panel: Panel) -> list[Finding]:
    """The examiners that do not work on frames: those that read records see the file, the others nothing."""
    readers = [f for f in panel.finders if f.slug not in panel.calibrations]
    picture = subject.picture
    if picture is None:
        found = [_read_file(f, subject) for f in readers if hasattr(f, "find_clip")]
    else:  # an animation's file is a picture's
        found = dataclasses.replace(panel, finders=readers).findings(picture)
    done = {f.examiner for f in found}
    left = [f for f in panel.finders if f.slug not in done]
    away = [Finding.not_applicable(f.slug, getattr(f, "kind", "edit"), _NOT_ON_FRAMES) for f in left]
    return [*(dataclasses.replace(f, map=None) for f in found), *away]


def _read_file(finder: Any, subject: VideoSubject) -> Finding:
    """A reader's answer about a film's file; one that fails is reported, not fatal."""
    try:
        found: Finding = finder.find_clip(subject)
    except Exception as error:  # one examiner's defect must not hide what the others found
        why = f"the examiner failed on this file ({type(error).__name__})"
        return Finding.not_applicable(finder.slug, getattr(finder, "kind", "edit"), why)
    return found


def _said(clip: Clip, frames_in_all: int) -> tuple[str, ...]:
    count = len(clip.times)
    if frames_in_all and count >= frames_in_all:
        frames = f"All {count} frames were examined" if count > 1 else "Its one frame was examined"
    elif frames_in_all:
        frames = f"{count} of {frames_in_all} frames were examined, spread evenly; the others were not looked at"
    else:
        frames = (
            "One frame was examined" if count == 1 else f"{count} frames were examined, one every {clip.every:.3g} s"
        )
        frames += "; what lies between them was not looked at"
    return f"{frames}. Error rates were measured on photographs, not on video.", *clip.notes
