"""One picture or clip of an HTML report: verdict, pictures with their overlays, and a card for every examiner."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from vestige.app.report.clip import time_line
from vestige.app.report.colormap import overlay_png
from vestige.app.report.items import (
    LABELS,
    ReportItem,
    bounded,
    clip_facts,
    error_rate,
    examiner_name,
    headline,
    kind_labels,
    number,
    odds,
    ordered,
    percent,
    tone_of_finding,
    verdict_tone,
)
from vestige.app.report.markup import Markup, element, join
from vestige.core.findings import KINDS, MIND, Finding, Findings
from vestige.core.image_io import encode
from vestige.core.video import clock


@dataclass(frozen=True)
class Bounds:
    """How large pictures may be in a report: longer edges in pixels, and whether maps of clear examiners are kept."""

    preview: int = 1024
    map: int = 512
    clear_maps: bool = True


def tone(findings: Findings) -> str:
    """The class name that colours a verdict."""
    return verdict_tone(findings.verdict)


def label(findings: Findings) -> str:
    return LABELS[findings.verdict.level]


def short_name(source: str) -> str:
    """The last part of a path, cut in its middle when it is too long for a heading."""
    name = PurePath(source.replace("\\", "/")).name or source or "picture"
    return name if len(name) <= 90 else f"{name[:60]}…{name[-28:]}"


def data_uri(content: bytes, kind: str) -> Markup:
    """The bytes as a URI that a page can show without loading anything."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def picture_uri(pixels: np.ndarray, side: int, quality: int = 82) -> tuple[Markup, int, int]:
    """URI, width and height of a preview; very small pictures are enlarged by whole factors, so pixels stay visible."""
    pixels = bounded(pixels, side)
    factor = min(384, side) // max(pixels.shape[:2])
    if factor > 1:
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = pixels.shape[:2]
    if factor > 1:
        return data_uri(encode(pixels, "PNG"), "png"), width, height
    return data_uri(encode(pixels, "JPEG", quality=quality, subsampling=2), "jpeg"), width, height


def detail(item: ReportItem, index: int, bounds: Bounds) -> Markup:
    """The article about one picture or clip; ``index`` keeps element ids apart."""
    found = item.findings
    thing = "picture" if found.clip is None else "clip"
    examiners = ordered(found.findings)
    applying = [f for f in examiners if f.applies]
    others = [f for f in examiners if not f.applies]
    shown = _with_maps(applying, bounds)
    keys = {id(f): n for n, f in enumerate(shown, 1)}
    framewise = {track.examiner for track in found.clip.tracks} if found.clip else set()
    cards = [
        _card(f, index, keys.get(id(f)), f.examiner in framewise, item.files.get(f.examiner, "")) for f in applying
    ]
    return element(
        "article",
        _heading(found, index),
        _verdict(found),
        time_line(found.clip, index) if found.clip else None,
        element(
            "div",
            _shots(item, index, bounds)
            if found.clip
            else _figure(
                item.preview,
                short_name(found.source),
                str(index),
                shown,
                bounds,
                left_out=any(f.map is not None for f in applying),
            ),
            element(
                "section",
                element("h2", "What the examiners say", id=f"examiners-{index}"),
                *cards,
                None if cards else element("p", f"No examiner applies to this {thing}.", class_="empty"),
                _not_applying(others, thing),
                class_="examiners",
                aria_labelledby=f"examiners-{index}",
            ),
            class_="columns",
        ),
        class_=thing if found.clip is None else f"picture {thing}",
        aria_labelledby=f"name-{index}",
    )


def _with_maps(findings: list[Finding], bounds: Bounds) -> list[Finding]:
    return [f for f in findings if f.map is not None and f.map.size and (f.flagged or f.look or bounds.clear_maps)]


def _shots(item: ReportItem, index: int, bounds: Bounds) -> Markup:
    """The frames of a clip that show most, each with its maps."""
    clip = item.findings.clip
    assert clip is not None
    shots = []
    for n, (frame, preview) in enumerate(zip(clip.frames, item.frames)):
        findings = [f for f in ordered(frame.findings) if f.applies]
        flagged = [examiner_name(f.examiner) for f in findings if f.flagged]
        places = [examiner_name(f.examiner) for f in findings if f.look]
        said = [f"Found: {'; '.join(flagged)}."] * bool(flagged)
        said += [f"A place to look at: {'; '.join(places)}."] * bool(places)
        when = f"Frame at {clock(frame.time)}"
        shots.append(
            element(
                "section",
                element("h3", when, id=f"shot-{index}-{n}"),
                element("p", " ".join(said) or "Nothing found in this frame.", class_="sought"),
                _figure(
                    preview,
                    when,
                    f"{index}-f{n}",
                    _with_maps(findings, bounds),
                    bounds,
                    left_out=any(f.map is not None for f in findings),
                ),
                class_="shot",
                aria_labelledby=f"shot-{index}-{n}",
            )
        )
    return element(
        "section",
        element("h2", "Frames that show most", id=f"shots-{index}"),
        _strip(item, index) if len(shots) > 1 else None,
        *shots,
        class_="shots",
        aria_labelledby=f"shots-{index}",
    )


def _strip(item: ReportItem, index: int) -> Markup:
    """The frames shown, small and side by side; each leads to its place."""
    clip = item.findings.clip
    assert clip is not None
    return element(
        "div",
        *(
            element(
                "button",
                element("img", src=picture_uri(preview, 128, quality=70)[0], alt=""),
                element("span", clock(frame.time)),
                type="button",
                data_shot=f"shot-{index}-{n}",
            )
            for n, (frame, preview) in enumerate(zip(clip.frames, item.frames))
        ),
        class_="strip",
        role="group",
        aria_label="Frames shown",
    )


def _heading(found: Findings, index: int) -> Markup:
    facts = [found.format, f"{found.width:,} × {found.height:,} pixels" if found.width else ""]
    if found.clip is not None:
        facts[0] += f" ({found.clip.codec})" if found.clip.codec else ""
        facts += clip_facts(found.clip)
    return element(
        "header",
        element("h1", short_name(found.source), id=f"name-{index}", tabindex="-1"),
        element("p", *(element("span", f) for f in facts if f), class_="facts"),
        element(
            "dl",
            element("dt", "File"),
            element("dd", found.source),
            element("dt", "SHA-256"),
            element("dd", found.sha256),
            class_="identity",
        ),
        class_="heading",
    )


def _verdict(found: Findings) -> Markup:
    verdict = found.verdict
    thing = "picture" if found.clip is None else "clip"
    said = odds(verdict, thing)
    kinds = kind_labels(verdict.kinds)
    return element(
        "section",
        element(
            "div",
            element("p", headline(verdict), class_="label"),
            *(element("p", s) for s in verdict.sentences),
            element("ul", *(element("li", k) for k in kinds), class_="kinds", aria_label="Kinds of trace")
            if kinds
            else None,
        ),
        element(
            "div",
            element("p", percent(verdict.probability), class_="figure"),
            _bar(verdict.probability or 0.0),
            element("p", said.partition(" ")[2], class_="unit"),
            class_="odds",
        )
        if said
        else None,
        class_=f"verdict {tone(found)}",
        aria_label="Verdict",
    )


def _bar(share: float) -> Markup:
    filled = element("rect", class_="fill", width=f"{100 * min(max(share, 0), 1):.1f}", height="8")
    rail = element("rect", class_="rail", width="100", height="8")
    return _drawing(rail, filled)


def _drawing(*shapes: Markup) -> Markup:
    return element("svg", *shapes, class_="track", viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true")


def _lens() -> Markup:
    return element("label", element("input", type="checkbox", class_="lens-on"), "Magnifier")


def _figure(
    preview: np.ndarray, name: str, index: str, shown: list[Finding], bounds: Bounds, left_out: bool = False
) -> Markup:
    uri, width, height = picture_uri(preview, bounds.preview)
    first = next((n for n, f in enumerate(shown, 1) if f.flagged or f.look), 0)
    overlays = [
        element(
            "img",
            src=data_uri(overlay_png(f.map, bounds.map), "png"),
            alt=f"Map of {examiner_name(f.examiner)}: {f.map_caption or f.summary}",
            class_="overlay",
            data_map=n,
            hidden=n != first,
        )
        for n, f in enumerate(shown, 1)
        if f.map is not None
    ]
    frame = element(
        "div",
        element("img", src=uri, width=width, height=height, alt=f"Preview of {name}", class_="base"),
        *overlays,
        class_="frame",
    )
    return element(
        "figure",
        element("div", frame, class_="stage"),
        _controls(index, shown, first)
        if shown
        else join(
            element("figcaption", "No map is shown." if left_out else "No examiner drew a map.", class_="caption"),
            element("div", _lens(), class_="tools"),
        ),
        class_="viewer",
    )


def _controls(index: str, shown: list[Finding], first: int) -> Markup:
    def choice(n: int, name: str, caption: str, level: str) -> Markup:
        radio = element(
            "input",
            type="radio",
            name=f"map-{index}",
            id=f"map-{index}-{n}",
            value=n,
            data_caption=caption,
            checked=n == first,
        )
        key = element("kbd", n, aria_hidden="true") if n < 10 else None
        sign = {"found": "●", "a place to look at": "◐"}.get(level)
        mark = (
            element("span", sign, class_="dot" if level == "found" else "dot look", role="img", aria_label=level)
            if sign
            else None
        )
        return element("label", radio, key, element("span", name, class_="name"), mark, class_="choice")

    captions = [f.map_caption or f.summary for f in shown]
    choices = [choice(n, examiner_name(f.examiner), c, f.level) for n, (f, c) in enumerate(zip(shown, captions), 1)]
    return join(
        element(
            "figcaption",
            element("span", captions[first - 1] if first else "Picture without a map.", class_="caption"),
            element(
                "span",
                element("span", "weaker"),
                element("span", class_="ramp"),
                element("span", "stronger"),
                class_="legend",
                hidden=not first,
            ),
            aria_live="polite",
        ),
        element(
            "fieldset",
            element("legend", "Map on the picture"),
            choice(0, "None", "Picture without a map.", ""),
            *choices,
            class_="maps",
        ),
        element(
            "div",
            element(
                "label",
                "Opacity",
                element("input", type="range", min=0, max=100, value=85, class_="opacity"),
            ),
            element("label", element("input", type="checkbox", class_="grey", checked=True), "Grey picture"),
            element("label", element("input", type="checkbox", class_="wide"), "Large"),
            _lens(),
            class_="tools",
        ),
        element(
            "p",
            "Keys 1–9 switch maps on and off. Hold the picture to see it without its map.",
            class_="hint",
        ),
    )


def _card(finding: Finding, index: int, key: int | None, clip: bool, file: str) -> Markup:
    fact = finding.basis == "fact"
    facts = [
        ("Basis", "A fact read from the file") if fact else ("Probability", _odds(finding)),
        ("Score", _score(finding)),
        ("False alarms", error_rate(finding, clip)),
        ("What would change this", MIND[finding.kind] if finding.flagged or finding.look else ""),
    ]
    left_out = finding.map is not None and key is None and not finding.flagged
    return element(
        "article",
        element(
            "header",
            element("h3", examiner_name(finding.examiner)),
            element("span", LABELS[finding.level], class_="state"),
        ),
        element("p", finding.summary, class_="summary"),
        element(
            "p", element("code", finding.examiner), f" looks for signs that {KINDS[finding.kind]}.", class_="sought"
        ),
        element("ul", *(element("li", e) for e in finding.evidence), class_="evidence") if finding.evidence else None,
        element(
            "dl",
            *(join(element("dt", k), element("dd", v)) for k, v in facts if v),
            class_="numbers",
        ),
        element(
            "label",
            "Show on the picture",
            for_=f"map-{index}-{key}",
            class_="jump",
        )
        if key
        else None,
        element(
            "p",
            "Its map is left out of this large report"
            + ("." if file else "; examine the picture alone, or with --out, to see it."),
        )
        if left_out
        else None,
        element("p", element("a", "Map as a file", href=file, class_="file")) if file else None,
        _measurements(finding),
        class_=f"card {tone_of_finding(finding)}",
    )


def _odds(finding: Finding) -> Markup | None:
    if finding.probability is None:
        return None
    return join(element("span", percent(finding.probability)), _bar(finding.probability))


def _score(finding: Finding) -> Markup | None:
    score, threshold = finding.score, finding.threshold
    if threshold is None or not math.isfinite(score) or not math.isfinite(threshold):
        return None
    low, high = min(0.0, score, threshold), max(score, threshold)
    reach = (high - low) * 1.15 or 1.0
    at, edge = 100 * (score - low) / reach, 100 * (threshold - low) / reach
    return join(
        element("span", f"{number(score)} (threshold {number(threshold)})"),
        _drawing(
            element("rect", class_="rail", width="100", height="8"),
            element("rect", class_="fill", width=f"{max(at, 0.5):.1f}", height="8"),
            element("rect", class_="tick", x=f"{edge:.1f}", width="0.8", height="8"),
        ),
    )


def _measurements(finding: Finding) -> Markup | None:
    if not finding.details:
        return None
    rows = [join(element("dt", k), element("dd", _value(v))) for k, v in list(finding.details.items())[:60]]
    return element(
        "details",
        element("summary", "Measurements"),
        element("dl", *rows, class_="raw"),
    )


def _value(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return number(float(value))
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= 64 else f"array of shape {value.shape}"
    written = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return written if len(written) <= 400 else written[:399] + "…"


def _not_applying(findings: list[Finding], thing: str) -> Markup | None:
    if not findings:
        return None
    plural = "examiner does" if len(findings) == 1 else "examiners do"
    return element(
        "details",
        element("summary", f"{len(findings)} {plural} not apply to this {thing}"),
        *(
            element(
                "article",
                element("h3", examiner_name(f.examiner)),
                element("p", f.summary, class_="summary"),
                class_="card away",
            )
            for f in findings
        ),
        class_="others",
    )
