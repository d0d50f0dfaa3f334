"""What examiners report: a `Finding` each, gathered with a `Verdict` into the `Findings` of one subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vestige.core.verdict import LEVELS, Domain, Generation, Stability, Verdict

__all__ = [
    "KINDS", "LEVELS", "MIND", "NEUTRAL", "SCHEMA_VERSION", "Clip", "Domain", "Finding", "Findings", "FrameFindings",
    "Generation", "Stability", "Track", "Verdict",
]  # fmt: skip

SCHEMA_VERSION = 2

#: What a finding is evidence of, with the words used in reports.
KINDS = {
    "edit": "part of the picture was changed",
    "history": "the picture was processed or saved again",
    "generated": "the picture was made or altered by a generative model",
    "mark": "the picture carries a watermark",
    "payload": "data is hidden in the pixels",
    "container": "the file holds more than the picture, or contradicts it",
    "code": "the model file holds code that runs when it is loaded",
    "provenance": "the file documents its origin",
    "duplicate": "the picture is a copy of another one",
}

#: What would change an examiner's mind about a finding of a kind: what to ask for, or to look at, next.
MIND = {
    "edit": "The original file, or another copy that shows the same place with the same traces, would settle it.",
    "history": "An earlier copy of the file would show what was done to it; nothing of this speaks about the content.",
    "generated": "A file straight from a camera that shows the same scene, or the generator's own record, would settle "
    "it.",
    "mark": "Only another key or another message would; a mark says who marked the picture, not what it shows.",
    "payload": "The same picture from its source, without the data, would show whether the low bits were written to.",
    "container": "A copy from the source without these bytes, or a program that is known to write them, would explain "
    "it.",
    "code": "A copy of the weights in a format without code (safetensors) makes the question go away.",
    "provenance": "Credentials that another signer made about the same pixels, or a revoked certificate.",
    "duplicate": "The two files side by side: near copies share the picture, not always its details.",
}
#: Kinds that say something about a picture without speaking against it.
NEUTRAL = frozenset({"history", "mark", "provenance", "duplicate"})


@dataclass(frozen=True)
class Finding:
    """One examiner's answer about one subject.

    score: raw statistic, higher means more of what the examiner seeks; nan when ``applies`` is False.
    flagged: the score reached the threshold (or a fact was read from the file).
    look: the score stays below the threshold, and yet there is a place that is worth a look.
    probability: calibrated probability that the trace is present, None where the examiner reads a fact.
    false_positive_rate: share of ``n_clean`` held-out photographs without the trace at or above it; n_clean is None
    where nobody counted.
    focus: how clearly the map sets one place apart, None where that was not measured.
    map: float32 h×w in [0, 1] covering the whole picture at any resolution, in display orientation.
    """

    examiner: str
    kind: str
    score: float
    when_flagged: str
    when_clear: str
    flagged: bool = False
    applies: bool = True
    why_not: str = ""
    probability: float | None = None
    threshold: float | None = None
    false_positive_rate: float | None = None
    evidence: tuple[str, ...] = ()
    map: np.ndarray | None = field(default=None, repr=False, compare=False)
    map_caption: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    look: bool = False
    n_clean: int | None = None
    focus: float | None = None
    when_look: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of finding {self.kind!r}; known: {', '.join(KINDS)}")
        if self.map is not None and (self.map.ndim != 2 or self.map.dtype != np.float32):
            raise ValueError(f"a map is float32 h×w, got {self.map.dtype} {self.map.shape}")

    @property
    def summary(self) -> str:
        """One sentence for the reader of a report."""
        if not self.applies:
            return f"Does not apply: {self.why_not}"
        if self.look and not self.flagged:
            return self.when_look or f"Unsure: {self.when_flagged}"
        return self.when_flagged if self.flagged else self.when_clear

    @property
    def basis(self) -> str:
        """What the answer rests on: "fact" was read from the file, a "sign" has a threshold; "" for neither."""
        if self.threshold is not None or self.probability is not None:
            return "sign"
        return "fact" if self.flagged else ""

    @property
    def level(self) -> str:
        """ "found", "a place to look at", "nothing found" or "does not apply"."""
        if not self.applies:
            return "does not apply"
        return "found" if self.flagged else "a place to look at" if self.look else "nothing found"

    @classmethod
    def not_applicable(cls, examiner: str, kind: str, why: str) -> Finding:
        """The answer of an examiner outside its domain: no guess, and the reason in words."""
        return cls(examiner, kind, float("nan"), "", "", applies=False, why_not=why)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the map (reports store maps as images)."""
        return {
            "examiner": self.examiner,
            "kind": self.kind,
            "applies": self.applies,
            "level": self.level,
            "basis": self.basis,
            "flagged": self.flagged,
            "score": None if not np.isfinite(self.score) else round(float(self.score), 6),
            "threshold": None if self.threshold is None else round(float(self.threshold), 6),
            "probability": None if self.probability is None else round(float(self.probability), 4),
            "false_positive_rate": self.false_positive_rate,
            "n_clean": self.n_clean,
            "focus": None if self.focus is None else round(float(self.focus), 4),
            "summary": self.summary,
            "evidence": list(self.evidence),
            "map_caption": self.map_caption if self.map is not None else None,
            "details": dict(self.details),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], map: np.ndarray | None = None) -> Finding:
        """The finding behind `to_dict`; its words are kept as they were."""
        applies = bool(value["applies"])
        summary = str(value["summary"])
        score = value["score"]
        return cls(
            examiner=value["examiner"],
            kind=value["kind"],
            score=float("nan") if score is None else float(score),
            when_flagged=summary,
            when_clear=summary,
            when_look=summary,
            flagged=bool(value["flagged"]),
            applies=applies,
            why_not="" if applies else summary.removeprefix("Does not apply: "),
            probability=value["probability"],
            threshold=value["threshold"],
            false_positive_rate=value["false_positive_rate"],
            evidence=tuple(value["evidence"]),
            map=map,
            map_caption=value["map_caption"] or "",
            details=value["details"],
            look=value["level"] == "a place to look at",
            n_clean=value["n_clean"],
            focus=value["focus"],
        )


@dataclass(frozen=True)
class Track:
    """One examiner's answers over time: a score for every frame examined, None where it does not apply.

    A clip is flagged where at least ``needed`` frames are at or above the threshold.
    """

    examiner: str
    scores: tuple[float | None, ...]
    flagged: tuple[bool, ...]
    threshold: float | None
    needed: int

    def to_dict(self) -> dict[str, Any]:
        scores = [None if s is None or not np.isfinite(s) else round(float(s), 6) for s in self.scores]
        return {
            "examiner": self.examiner,
            "scores": scores,
            "flagged": list(self.flagged),
            "threshold": None if self.threshold is None else round(float(self.threshold), 6),
            "frames_needed": self.needed,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Track:
        needed = int(value["frames_needed"])
        return cls(value["examiner"], tuple(value["scores"]), tuple(value["flagged"]), value["threshold"], needed)


@dataclass(frozen=True)
class FrameFindings:
    """What the examiners said about one frame of a clip, with their maps; ``index`` counts the frames examined."""

    index: int
    time: float
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "time": round(self.time, 3),
            "findings": [f.to_dict() for f in self.findings],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], maps: Mapping[str, np.ndarray] | None = None) -> FrameFindings:
        maps = maps or {}
        found = tuple(Finding.from_dict(f, maps.get(f["examiner"])) for f in value["findings"])
        return cls(int(value["index"]), float(value["time"]), found)


@dataclass(frozen=True)
class Clip:
    """A clip over time: when frames were examined, each examiner's answers, and the frames that show most.

    seconds and rate are as the file states them, None where it does not; every is the distance of the frames.
    """

    codec: str
    seconds: float | None
    rate: float | None
    every: float
    times: tuple[float, ...]
    tracks: tuple[Track, ...]
    frames: tuple[FrameFindings, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "codec": self.codec,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "rate": None if self.rate is None else round(self.rate, 4),
            "every": round(self.every, 4),
            "times": [round(t, 3) for t in self.times],
            "tracks": [t.to_dict() for t in self.tracks],
            "frames": [f.to_dict() for f in self.frames],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], maps: Sequence[Mapping[str, np.ndarray]] = ()) -> Clip:
        """The clip behind `to_dict`; ``maps`` holds float32 maps by examiner for every frame kept."""
        shown = [FrameFindings.from_dict(f, maps[n] if maps else None) for n, f in enumerate(value["frames"])]
        return cls(
            codec=value["codec"],
            seconds=value["seconds"],
            rate=value["rate"],
            every=float(value["every"]),
            times=tuple(value["times"]),
            tracks=tuple(Track.from_dict(t) for t in value["tracks"]),
            frames=tuple(shown),
            notes=tuple(value["notes"]),
        )


@dataclass(frozen=True)
class Findings:
    """Everything said about one subject; ``clip`` holds what a clip's frames say over time, ``domain`` what sort of
    picture it is, ``reading`` what its reader had to decide, or left out."""

    source: str
    sha256: str
    format: str
    width: int
    height: int
    findings: tuple[Finding, ...]
    verdict: Verdict
    clip: Clip | None = None
    domain: Domain | None = None
    reading: tuple[str, ...] = ()

    def __getitem__(self, examiner: str) -> Finding:
        for finding in self.findings:
            if finding.examiner == examiner:
                return finding
        raise KeyError(examiner)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "source": self.source,
            "sha256": self.sha256,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "verdict": self.verdict.to_dict(),
            "domain": None if self.domain is None else self.domain.to_dict(),
            "reading": list(self.reading),
            "findings": [f.to_dict() for f in self.findings],
            **({} if self.clip is None else {"clip": self.clip.to_dict()}),
        }

    @classmethod
    def from_dict(
        cls,
        value: Mapping[str, Any],
        maps: Mapping[str, np.ndarray] | None = None,
        frame_maps: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> Findings:
        """The findings behind `to_dict`; ``maps`` holds float32 maps by examiner, ``frame_maps`` those of frames."""
        maps = maps or {}
        return cls(
            source=value["source"],
            sha256=value["sha256"],
            format=value["format"],
            width=int(value["width"]),
            height=int(value["height"]),
            findings=tuple(Finding.from_dict(f, maps.get(f["examiner"])) for f in value["findings"]),
            verdict=Verdict.from_dict(value["verdict"]),
            clip=Clip.from_dict(value["clip"], frame_maps) if "clip" in value else None,
            domain=None if value["domain"] is None else Domain.from_dict(value["domain"]),
            reading=tuple(value["reading"]),
        )
