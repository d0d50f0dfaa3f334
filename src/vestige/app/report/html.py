"""The HTML report: one self-contained file about one picture or clip, or a folder of them.

The file loads nothing: styles and script are inline and pinned by their hashes in a content security policy, pictures
are data URIs. Everything that comes from a file, its name included, is escaped on the way in (see `markup`).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from string import Template
from typing import Any

from vestige.app.report import manifest
from vestige.app.report.colormap import css_ramp
from vestige.app.report.detail import Bounds, detail, label, picture_uri, short_name, tone
from vestige.app.report.examined import Line
from vestige.app.report.items import (
    KIND_LABELS,
    LABELS,
    Failure,
    ReportGroup,
    ReportItem,
    counted,
    failure_of,
    group_of,
    in_short,
    percent,
    tally,
    urgency,
)
from vestige.app.report.markup import Markup, element, join, text
from vestige.core.findings import LEVELS, Findings
from vestige.core.runtime import versions

_GUIDE = (
    (
        "Levels",
        "“Found”: a fact read from the file, or a sign at its threshold. “A place to look at”: unsure, such as a map "
        "that sets one region apart, weak signs that come together, or a verdict that changes when the picture is "
        "saved again. “Nothing found” means that no examiner that applies found anything, not that the picture is "
        "authentic.",
    ),
    (
        "Facts and signs",
        "A fact stands in the file: data behind the picture, a record, a mark, signed credentials. It needs no "
        "probability, and says nothing about edited pixels. A sign is a score, and is wrong at times.",
    ),
    (
        "Probability",
        "That pixels were edited, learnt on held-out photographs and stated for a collection in which the given share "
        "of pictures (--prior) was. Where edits are more common the same evidence means more, where rare, less.",
    ),
    (
        "False alarms",
        "How many photographs that nobody touched reach the examiner’s threshold, with a 95% interval; where none did, "
        "the rate lies below the bound given. Thresholds were chosen on these photographs: on others, and with many "
        "examiners together, false alarms are more frequent.",
    ),
    (
        "Sort of picture",
        "Examiners and rates were made on photographs in daylight. Where a picture is something else (flat graphics, "
        "a screenshot, dark, tiny, without colour), they do not apply, or say no more than “a place to look at”.",
    ),
    (
        "Maps",
        "Light colours mark where the evidence is strong, relative to the rest of the same picture. "
        "A map says where to look; it does not outline an edit to the pixel.",
    ),
    (
        "Clips",
        "A clip is flagged where enough of its frames are, so that one examiner is wrong on at most one untouched clip "
        "in a hundred, if frames behave like photographs. Its probability averages the evidence of its frames.",
    ),
    (
        "Does not apply",
        "The picture lies outside what the examiner was built for, so it gives no answer instead of a guess.",
    ),
)


def render_html(
    results: Iterable[ReportItem],
    *,
    title: str,
    failures: Sequence[Failure | Mapping[str, str] | tuple[str, str]] = (),
    groups: Sequence[ReportGroup | Any] = (),
    lines: Sequence[Line] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """One HTML page about the pictures in ``results``, without anything to load from elsewhere.

    results: items in the order of examination; a generator is read once, so a folder need not fit in memory.
    failures: files that could not be examined. groups: pictures that belong together, listed after the pictures.
    lines: what became of every file that was put in. notes: (file, what else there is to say about it).
    More than 24 pictures are shown with smaller previews, more than 60 without the maps of clear examiners.

    >>> from vestige.core.findings import Findings, Verdict
    >>> import numpy as np
    >>> found = Findings("a.png", "0" * 64, "PNG", 4, 4, (), Verdict("not examined", 0.0, ("Too small.",)))
    >>> page = render_html([ReportItem(found, np.zeros((4, 4, 3), np.uint8))], title="Example")
    >>> page.startswith("<!doctype html>")
    True
    """
    bounds = _bounds(len(results) if isinstance(results, Sized) else 1000)
    failed = [failure_of(f) for f in failures]
    related = [group_of(g) for g in groups]
    seen: list[Findings] = []
    details: list[Markup] = []
    thumbs: list[Markup] = []
    for index, item in enumerate(results, 1):
        details.append(detail(item, index, bounds))
        thumbs.append(picture_uri(item.preview, 192, quality=72)[0])
        seen.append(replace(item.findings, findings=()))  # lets maps be freed
    if len(seen) == 1 and not failed and not related and not manifest.has_more(lines, notes):
        body = join(element("div", details[0], class_="single"), manifest.section(lines))
    else:
        body = _batch(title, seen, thumbs, details, failed, related, manifest.section(lines, notes))
    return _page(title, body)


def _bounds(count: int) -> Bounds:
    if count <= 24:
        return Bounds()
    return Bounds(800, 320) if count <= 60 else Bounds(720, 256, clear_maps=False)


def _page(title: str, body: Markup) -> str:
    style = _asset("report.css").replace("RAMP", css_ramp())
    script = _asset("report.js")
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("report.html")).substitute(
        policy=policy,
        title=text(title),
        style=style,
        script=script,
        body=body,
        guide=join(*(join(element("dt", term), element("dd", words)) for term, words in _GUIDE)),
        version=text(versions("vestige").get("vestige", "")),
    )


@cache
def _asset(name: str) -> str:
    return files("vestige.app.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _batch(
    title: str,
    seen: list[Findings],
    thumbs: list[Markup],
    details: list[Markup],
    failed: list[Failure],
    groups: Sequence[ReportGroup],
    account: Markup | None,
) -> Markup:
    things = "pictures" if all(f.clip is None for f in seen) else "files"
    worst = sorted(range(len(seen)), key=lambda n: urgency(seen[n].verdict))
    rows = [_row(seen[n], thumbs[n], n + 1, rank) for rank, n in enumerate(worst)]
    overview = element(
        "section",
        element("h1", title, tabindex="-1", id="top"),
        _counts(seen, failed),
        _filters(seen) if rows else None,
        element("ol", *rows, class_="rows", aria_label=things.capitalize()),
        element("p", f"No {things[:-1]} matches.", class_="empty", id="nothing", hidden=True),
        _groups(groups, seen),
        _failures(failed),
        account,
        id="overview",
    )
    opened = element(
        "section",
        element(
            "nav",
            element("a", f"← All {things}", href="#top", class_="back"),
            element("span", class_="place", aria_live="polite"),
            element("button", "Previous", type="button", class_="previous"),
            element("button", "Next", type="button", class_="next"),
            class_="pager",
            aria_label=things.capitalize(),
        ),
        element("div", class_="slot"),
        id="opened",
        hidden=True,
    )
    # Templates stay inert: hundreds of pictures cost nothing until one is opened.
    return join(overview, opened, *(element("template", d, id=f"t{n}") for n, d in enumerate(details, 1)))


def _counts(seen: list[Findings], failed: list[Failure]) -> Markup:
    summary = tally(seen, len(failed))
    shown = [
        *((words, n, "all") for n, words in counted(summary)),
        ("found", summary["found"], "found"),
        ("with a place to look at", summary["a_place_to_look_at"], "look"),
        ("with nothing found", summary["nothing_found"], "clear"),
        ("not examined", summary["not_examined"], "none"),
        ("failed", summary["failed"], "none"),
    ]
    return element(
        "ul",
        *(
            element("li", element("b", f"{n:,}"), " ", words, class_=kind)
            for words, n, kind in shown
            if n or kind in ("all", "found")
        ),
        class_="counts",
    )


def _filters(seen: list[Findings]) -> Markup:
    orders = (
        ("worst", "Worst first"),
        ("p", "Probability of an edit, highest first"),
        ("order", "Order of examination"),
        ("name", "Name"),
    )
    levels = [level for level in LEVELS if any(f.verdict.level == level for f in seen)]
    kinds = [kind for kind in KIND_LABELS if any(kind in f.verdict.kinds for f in seen)]
    return element(
        "div",
        element(
            "label",
            element("span", "Search names"),
            element("input", type="search", id="search", autocomplete="off", spellcheck="false"),
        ),
        _choice("sort", "Sort by", orders),
        _choice("level", "Level", [("", "All"), *((level, LABELS[level]) for level in levels)]),
        _choice("kind", "Kind", [("", "All"), *((kind, KIND_LABELS[kind]) for kind in kinds)]) if kinds else None,
        element("p", id="count", aria_live="polite"),
        class_="filters",
    )


def _choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
    select = element("select", *(element("option", words, value=v) for v, words in options), id=name)
    return element("label", element("span", label), select)


def _row(found: Findings, thumb: Markup, index: int, rank: int) -> Markup:
    name, path = short_name(found.source), PurePath(found.source)
    folder = str(path.parent) if str(path.parent) not in (".", "") else ""
    if found.clip is not None:
        folder = f"{folder} · clip" if folder else "clip"
    known = found.verdict.probability is not None and math.isfinite(found.verdict.probability)
    return element(
        "li",
        element(
            "a",
            element("img", src=thumb, alt="", loading="lazy", decoding="async"),
            element(
                "span",
                element("span", name, class_="name"),
                element("span", folder, class_="folder") if folder else None,
                class_="names",
            ),
            element("span", label(found), class_=f"pill {tone(found)}"),
            element("span", in_short(found.verdict), class_="kindlist"),
            element("span", percent(found.verdict.probability), element("small", " edit probability"), class_="odds")
            if known
            else element("span", "–", class_="odds", aria_hidden="true"),
            href=f"#p{index}",
        ),
        data_order=index,
        data_name=found.source.lower(),
        data_p=f"{found.verdict.probability:.6f}" if known else "-1",
        data_worst=rank,
        data_level=found.verdict.level,
        data_kinds=" ".join(found.verdict.kinds),
    )


def _groups(groups: Sequence[ReportGroup], seen: list[Findings]) -> Markup | None:
    if not groups:
        return None
    places = {found.source: n for n, found in reversed(list(enumerate(seen, 1)))}

    def member(source: str) -> Markup:
        place = places.get(source)
        name = short_name(source)
        return element("li", element("a", name, href=f"#p{place}", title=source) if place else name)

    return element(
        "section",
        element("h2", "Pictures that belong together"),
        *(
            element(
                "article",
                element("h3", g.title),
                element("p", g.note) if g.note else None,
                element("ul", *(member(s) for s in g.sources)),
                class_="group",
            )
            for g in groups
        ),
        class_="groups",
    )


def _failures(failed: list[Failure]) -> Markup | None:
    if not failed:
        return None
    rows = [element("tr", element("th", f.source, scope="row"), element("td", f.error)) for f in failed]
    head = element("tr", element("th", "File", scope="col"), element("th", "Reason", scope="col"))
    return element(
        "section",
        element("h2", "Files that could not be examined"),
        element("table", element("thead", head), element("tbody", *rows)),
        class_="failures",
    )
