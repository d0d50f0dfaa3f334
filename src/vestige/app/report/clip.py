"""The time line of a clip in an HTML report: a row of bars for every examiner, one bar for every frame examined."""

from __future__ import annotations

import math

from vestige.app.report.items import examiner_name, moments, number
from vestige.app.report.markup import Markup, element
from vestige.core.findings import Clip, Track
from vestige.core.video import clock

#: Height of a row in the drawing's own units, and of the line at which a frame reaches the threshold.
_HEIGHT, _REACHED = 40.0, 24.0
#: Times written under the rows.
_LABELS = 5


def time_line(clip: Clip, index: int) -> Markup:
    """Every examiner's answers over time; ``index`` keeps element ids apart.

    Bars that reach the line are frames at or above the threshold.
    """
    tracks = [t for t in clip.tracks if any(s is not None for s in t.scores)]
    shown = {frame.index for frame in clip.frames}
    length = max(clip.seconds or 0.0, clip.times[-1] + clip.every)
    rows = [_row(track, clip, length) for track in tracks]
    marks = [_bar(clip, n, length, 0.0, _HEIGHT, "mark") for n in range(len(clip.times)) if n in shown]
    edges = [length * k / (_LABELS - 1) for k in range(_LABELS)]
    return element(
        "section",
        element("h2", "Over time", id=f"time-{index}"),
        element("p", "Each bar is a frame; one that reaches the line has the trace.", class_="sought"),
        *rows,
        element(
            "div",
            element("span", "Shown below", class_="name"),
            _drawing(marks, "marks", f"Frames at {', '.join(clock(clip.times[n]) for n in sorted(shown))}"),
            class_="lane",
        )
        if marks
        else None,
        element(
            "div",
            element("span", *(element("span", clock(t)) for t in edges), class_="axis"),
            class_="lane",
            aria_hidden="true",
        ),
        class_="timeline",
        aria_labelledby=f"time-{index}",
    )


def _row(track: Track, clip: Clip, length: float) -> Markup:
    bars = [element("rect", class_="rail", width="100", height=f"{_HEIGHT:g}")]
    for n, (score, flag) in enumerate(zip(track.scores, track.flagged)):
        if score is None:
            continue
        tall = _tall(score, flag, track.threshold)
        said = f"{clock(clip.times[n])}: {'trace' if flag else 'no trace'}"
        if track.threshold is not None:
            said += f", score {number(score)}, threshold {number(track.threshold)}"
        title = element("title", said)
        bars.append(_bar(clip, n, length, _HEIGHT - tall, tall, "hit" if flag else "fill", title))
    bars.append(element("rect", class_="tick", y=f"{_HEIGHT - _REACHED:g}", width="100", height="1"))
    said = moments(track, clip.times)
    count = sum(track.flagged)
    found = count >= track.needed and count > 0
    return element(
        "div",
        element("span", examiner_name(track.examiner), class_="name"),
        _drawing(bars, "lanes", f"{examiner_name(track.examiner)}: {said}"),
        element("span", said, class_="said"),
        class_=f"lane{' found' if found else ''}",
    )


def _tall(score: float, flag: bool, threshold: float | None) -> float:
    """Height of a bar: the line where the score is the threshold, at most the row, and visible at the least."""
    if threshold is None or not math.isfinite(score) or threshold <= 1e-3:
        return _HEIGHT * 0.85 if flag else 2.0
    share = score / threshold
    return min(max(share * _REACHED, 2.0), _HEIGHT if flag else _REACHED - 1.0)


def _bar(clip: Clip, n: int, length: float, top: float, tall: float, name: str, *inside: Markup) -> Markup:
    left = 100 * clip.times[n] / length
    until = clip.times[n + 1] if n + 1 < len(clip.times) else min(clip.times[n] + clip.every, length)
    width = max(100 * (until - clip.times[n]) / length, 0.1)
    gap = min(0.2, width / 5)
    return element(
        "rect", *inside, class_=name, x=f"{left:.2f}", y=f"{top:.1f}", width=f"{width - gap:.2f}", height=f"{tall:.1f}"
    )  # fmt: skip


def _drawing(shapes: list[Markup], name: str, said: str) -> Markup:
    return element(
        "svg",
        *shapes,
        class_=name,
        viewBox=f"0 0 100 {_HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )
