"""What examiners report: a `Finding` each, gathered with a `Verdict` into the `Findings` of one subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCHEMA_VERSION = 1

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


@dataclass(frozen=True)
class Finding:
    """One examiner's answer about one subject.

    score: raw statistic, higher means more of what the examiner seeks; nan when ``applies`` is False.
    flagged: the score reached the threshold (or a fact was read from the file).
    probability: calibrated probability that the trace is present, None where the examiner reads a fact.
    false_positive_rate: share of held-out untouched photographs at or above the threshold.
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
        return self.when_flagged if self.flagged else self.when_clear

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
            "flagged": self.flagged,
            "score": None if not np.isfinite(self.score) else round(float(self.score), 6),
            "threshold": None if self.threshold is None else round(float(self.threshold), 6),
            "probability": None if self.probability is None else round(float(self.probability), 4),
            "false_positive_rate": self.false_positive_rate,
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
        )


@dataclass(frozen=True)
class Verdict:
    """The combined answer for one subject.

    label: "no trace found", "processed" (only its history shows: saved again, scaled, adjusted), "traces found" or
    "not examined".
    probability: combined calibrated probability that pixels were edited after the picture was made.
    """

    label: str
    probability: float
    sentences: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    @property
    def flagged(self) -> bool:
        return self.label == "traces found"

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "probability": round(self.probability, 4),
            "kinds": list(self.kinds),
            "sentences": list(self.sentences),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        return cls(value["label"], float(value["probability"]), tuple(value["sentences"]), tuple(value["kinds"]))


@dataclass(frozen=True)
class Findings:
    """Everything said about one subject."""

    source: str
    sha256: str
    format: str
    width: int
    height: int
    findings: tuple[Finding, ...]
    verdict: Verdict

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
            "findings": [f.to_dict() for f in self.findings],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], maps: Mapping[str, np.ndarray] | None = None) -> Findings:
        """The findings behind `to_dict`; ``maps`` holds float32 maps by examiner."""
        maps = maps or {}
        return cls(
            source=value["source"],
            sha256=value["sha256"],
            format=value["format"],
            width=int(value["width"]),
            height=int(value["height"]),
            findings=tuple(Finding.from_dict(f, maps.get(f["examiner"])) for f in value["findings"]),
            verdict=Verdict.from_dict(value["verdict"]),
        )
