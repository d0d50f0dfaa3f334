"""What reports are made of, and the words every report uses for the same number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from vestige.core.findings import LEVELS, NEUTRAL, Clip, Finding, Findings, Track, Verdict
from vestige.core.rates import rate_brief, rate_words, share
from vestige.core.video import clock

KIND_LABELS = {
    "edit": "Edited pixels",
    "history": "Resaved",
    "generated": "Generated",
    "mark": "Watermark",
    "payload": "Hidden data",
    "container": "File structure",
    "code": "Hidden code",
    "provenance": "Provenance",
    "duplicate": "Copy",
}
#: What a level is called everywhere: on the terminal, on the page and in JSON.
LABELS = {
    "found": "Found",
    "a place to look at": "A place to look at",
    "nothing found": "Nothing found",
    "not examined": "Not examined",
    "does not apply": "Does not apply",
}
_GROUP_TITLES = {
    "exact": "copies of the same file",
    "same pixels": "files with the same pixels",
    "near": "near copies of one picture",
}
_ACRONYMS = re.compile(r"\b(jpe?g|png|ela|cfa|prnu|exif|xmp|iptc|dct|dwt|fft|lsb|c2pa|clip|gan|icc|rgb|ai)\b", re.I)


@dataclass(frozen=True)
class ReportItem:
    """One picture or clip of a report: its findings and a preview, uint8 H×W×3 upright sRGB at any size.

    frames: previews of the frames kept in a clip's findings, in their order. files: of the maps on disk, by examiner,
    as the report's own folder names them.
    """

    findings: Findings
    preview: np.ndarray
    frames: tuple[np.ndarray, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for preview in (self.preview, *self.frames):
            shape = preview.shape
            if preview.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
                raise ValueError(f"a preview is uint8 H×W×3, got {preview.dtype} {shape}")
        if len(self.frames) != len(self.findings.clip.frames if self.findings.clip else ()):
            raise ValueError("a clip needs a preview for every frame kept, and a picture none")

    @classmethod
    def of(cls, findings: Findings, pixels: np.ndarray, side: int = 1024) -> ReportItem:
        """An item that keeps no more than a report shows: preview and maps of at most ``side`` pixels.

        Use it while walking a folder, so that full-size pictures and maps can be freed.
        """
        kept = tuple(f if f.map is None else replace(f, map=bounded(f.map, side // 2)) for f in findings.findings)
        return cls(replace(findings, findings=kept), bounded(pixels, side))


@dataclass(frozen=True)
class Failure:
    """A file that could not be examined, and why in one sentence."""

    source: str
    error: str


@dataclass(frozen=True)
class ReportGroup:
    """Pictures that belong together, such as copies of one another.

    sources: as their findings name them. kind: one word for programs, such as "exact" or "near".
    """

    title: str
    sources: tuple[str, ...]
    note: str = ""
    kind: str = ""


def bounded(array: np.ndarray, side: int) -> np.ndarray:
    """The array (uint8 h×w×3 or float32 h×w) averaged down to ``side`` pixels on its longer edge, never enlarged.

    >>> bounded(np.zeros((10, 40, 3), np.uint8), 20).shape
    (5, 20, 3)
    """
    from PIL import Image

    height, width = array.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return array
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def failure_of(value: Failure | Mapping[str, str] | tuple[str, str]) -> Failure:
    """A `Failure` from any of the forms in which batches carry them."""
    if isinstance(value, Failure):
        return value
    if isinstance(value, Mapping):
        return Failure(str(value["source"]), str(value["error"]))
    source, error = value
    return Failure(str(source), str(error))


def group_of(value: ReportGroup | Mapping[str, Any] | Iterable[object]) -> ReportGroup:
    """A `ReportGroup` from any form in which groups come.

    Mappings and objects have ``sources`` or ``members`` and may have ``title``, ``note`` and ``kind``; a plain
    sequence lists the sources. Raises TypeError for anything else.

    >>> group_of(["a.jpg", "b.jpg"]).title
    '2 copies of one picture'
    """
    if isinstance(value, ReportGroup):
        return value
    fields = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    members = fields.get("sources", fields.get("members"))
    if members is None:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"a group lists its sources or members, got {type(value).__name__}")
        members = value
    sources = tuple(str(m) for m in members)
    kind = str(fields.get("kind") or "")
    title = fields.get("title") or f"{len(sources)} {_GROUP_TITLES.get(kind, 'copies of one picture')}"
    return ReportGroup(str(title), sources, str(fields.get("note") or ""), kind)


def percent(probability: float | None) -> str:
    """A probability for people; extremes are not rounded to certainty.

    >>> percent(0.934), percent(0.9999), percent(0.0), percent(None)
    ('93%', '>99%', '<1%', '–')
    """
    if probability is None or not math.isfinite(probability):
        return "–"
    if probability > 0.99:
        return ">99%"
    return "<1%" if probability < 0.01 else f"{100 * probability:.0f}%"


def false_alarms(finding: Finding) -> str:
    """The false-alarm rate for a column; a bound where none was seen."""
    return rate_brief(finding.false_positive_rate, finding.n_clean) if finding.applies else "–"


def error_rate(finding: Finding, clip: bool = False) -> str:
    """The false-alarm rate in words, empty when the examiner states none."""
    rate = finding.false_positive_rate
    if rate is None or not math.isfinite(rate):
        return ""
    if clip:
        return f"At most {share(rate)} of untouched clips have as many such frames."
    return rate_words(rate, finding.n_clean)


def headline(verdict: Verdict) -> str:
    """The verdict in a line: its level, of what, and on which basis; never clears what was not judged.

    >>> headline(Verdict("found", 0.07, (), ("container",), facts=("A ZIP archive follows the picture.",)))
    'Found: file structure (a fact)'
    >>> headline(Verdict("nothing found", 0.02, ()))
    'Nothing found'
    """
    words = LABELS[verdict.level]
    named = ", ".join(label[:1].lower() + label[1:] for label in kind_labels(verdict.kinds))
    if verdict.level == "nothing found":
        words += " beyond ordinary processing" if verdict.kinds else ""
        judged = verdict.generation is None or verdict.generation.pixels
        return words if judged else f"{words}; pixels not judged for generation"
    if verdict.level == "found" and named:
        basis = "a fact" if not verdict.signs else "a sign" if not verdict.facts else "facts and signs"
        words += f": {named} ({basis})" if verdict.facts or verdict.signs else f": {named}"
    elif named:
        words += f": {named}?"
    return words


def in_short(verdict: Verdict) -> str:
    """What was found, for a row of a folder's report.

    >>> in_short(Verdict("found", 0.07, (), ("container",), facts=("A ZIP archive follows the picture.",)))
    'File structure (fact)'
    """
    words = ", ".join(kind_labels(verdict.kinds))
    if verdict.level == "found" and verdict.facts and not verdict.signs:
        return f"{words} (fact)"
    if verdict.level == "nothing found" and verdict.generation is not None and not verdict.generation.pixels:
        return f"{words}; generation not judged" if words else "Generation not judged"
    return words


def odds(verdict: Verdict, thing: str = "picture") -> str:
    """The probability of an edit with what it is the probability of; empty where none is known.

    >>> odds(Verdict("nothing found", 0.02, ()))
    '2% probability that pixels were edited, if 10% of such pictures are (--prior)'
    """
    if verdict.probability is None or not math.isfinite(verdict.probability):
        return ""
    return (
        f"{percent(verdict.probability)} probability that pixels were edited, if {percent(verdict.prior)} of such "
        f"{thing}s are (--prior)"
    )


def number(value: float | None) -> str:
    """A score in four significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4g}".replace("-", "−")


@cache
def examiner_name(slug: str) -> str:
    """What to call an examiner: its name in the catalogue, otherwise its slug in words.

    >>> examiner_name("no_such_jpeg_examiner")
    'No such JPEG examiner'
    """
    from vestige.core.catalogue import systems

    for entry in systems():
        if entry.slug == slug:
            return entry.name[:1].upper() + entry.name[1:]
    words = " ".join(re.split(r"[_\s-]+", slug)).strip() or "examiner"
    words = words[:1].upper() + words[1:]
    return _ACRONYMS.sub(lambda m: m[0].upper(), words)


def kind_labels(kinds: Iterable[str]) -> list[str]:
    """Short labels of kinds, in order, each once."""
    return list(dict.fromkeys(KIND_LABELS.get(k, k) for k in kinds))


def verdict_tone(verdict: Verdict) -> str:
    """How much attention a verdict asks for: "found", "look", "noted" (it speaks against nothing), "clear", "none"."""
    if verdict.level == "not examined":
        return "none"
    if verdict.level == "a place to look at":
        return "look"
    return tone_of(bool(verdict.kinds), verdict.kinds)


def tone_of(flagged: bool, kinds: Iterable[str]) -> str:
    """How much attention a result asks for: "found", "noted" (a trace that speaks against nothing) or "clear"."""
    if not flagged:
        return "clear"
    kinds = set(kinds)
    return "noted" if kinds and kinds <= NEUTRAL else "found"


def tone_of_finding(finding: Finding) -> str:
    """`tone_of` one examiner's answer, "look" for a place to look at and "none" where it does not apply."""
    if not finding.applies:
        return "none"
    if finding.look and not finding.flagged:
        return "noted" if finding.kind in NEUTRAL else "look"
    return tone_of(finding.flagged, [finding.kind])


def urgency(verdict: Verdict) -> tuple[int, int, float]:
    """Sorts verdicts, the one that asks for most attention first."""
    tones = ("found", "look", "noted", "clear", "none")
    return tones.index(verdict_tone(verdict)), LEVELS.index(verdict.level), -(verdict.probability or 0.0)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Found, a place to look at, clear, then those that do not apply; the most probable first within each."""

    def rank(finding: Finding) -> tuple[int, float]:
        group = 3 if not finding.applies else 0 if finding.flagged else 1 if finding.look else 2
        known = finding.probability is not None and math.isfinite(finding.probability)
        certain = 1.0 if finding.flagged else 0.0  # a fact read from the file
        return group, -(finding.probability if known and finding.probability is not None else certain)

    return sorted(findings, key=rank)


def counted(summary: Mapping[str, Any]) -> list[tuple[int, str]]:
    """How many pictures, clips and models a batch has, with their words; only those of which there are some.

    >>> counted({"pictures": 2, "clips": 1, "models": 0})
    [(2, 'pictures'), (1, 'clip')]
    """
    parts = [(summary["pictures"], "picture"), (summary["clips"], "clip"), (summary["models"], "model")]
    shown = [(n, word if n == 1 else f"{word}s") for n, word in parts if n]
    return shown or [(0, "pictures")]


def tally(results: Iterable[Findings], failed: int) -> dict[str, Any]:
    """Counts for the head of a batch report; ``processed`` are among those with nothing found."""
    counts = dict.fromkeys(LEVELS, 0)
    processed = 0
    kinds: dict[str, int] = {}
    pictures = clips = models = 0
    for found in results:
        models += not found.width
        pictures += found.clip is None and found.width > 0
        clips += found.clip is not None
        counts[found.verdict.level] += 1
        processed += found.verdict.level == "nothing found" and bool(found.verdict.kinds)
        for kind in dict.fromkeys(found.verdict.kinds):
            kinds[kind] = kinds.get(kind, 0) + 1
    return {
        "pictures": pictures,
        "clips": clips,
        "models": models,
        "found": counts["found"],
        "a_place_to_look_at": counts["a place to look at"],
        "nothing_found": counts["nothing found"],
        "processed": processed,
        "not_examined": counts["not examined"],
        "failed": failed,
        "kinds": kinds,
    }


def clip_facts(clip: Clip) -> list[str]:
    """Length and sampling of a clip in a few words each."""
    count = len(clip.times)
    sampled = "1 frame examined" if count == 1 else f"{count} frames examined, one every {clip.every:.3g} s"
    return [f"{clip.seconds:.1f} s" if clip.seconds is not None else "length not stated", sampled]


def moments(track: Track, times: Sequence[float]) -> str:
    """How many frames an examiner flagged and when, for people.

    >>> moments(Track("ela", (0.1, 2.0, 3.0), (False, True, True), 1.0, 2), (0.0, 1.0, 2.0))
    '2 of 3 frames, 0:01.0 to 0:02.0'
    """
    applying = sum(s is not None for s in track.scores)
    hits = [t for t, flag in zip(times, track.flagged) if flag]
    if not applying:
        return "does not apply"
    said = f"{len(hits)} of {applying} frame{'s' * (applying != 1)}"
    if not hits:
        return said
    return f"{said}, {clock(hits[0])}" + (f" to {clock(hits[-1])}" if len(hits) > 1 else "")
