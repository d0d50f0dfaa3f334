"""The default panel: every examiner on one picture, calibrated and combined into a verdict in plain words."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vestige.core import catalogue
from vestige.core.calibration import PRIOR, Calibration, load_calibrations, log_odds, sigmoid, with_prior
from vestige.core.errors import InputError, UsageError
from vestige.core.findings import KINDS, Finding, Findings, Verdict
from vestige.core.keys import PUBLIC_KEY

if TYPE_CHECKING:
    from vestige.core.roles import Finder
    from vestige.core.subjects import ImageSubject

#: Kinds that say something about the picture's content having been changed after it was made.
_EDIT = "edit"
#: Probability stated for an edit that is read from the file rather than estimated.
_FACT = 0.95
_NO_PROOF = "This does not prove that the {} is untouched: careful edits and heavy compression leave little to see."
_ORDINARY = "Saving, scaling and adjusting a {} are ordinary and say nothing about its content."
_STATISTICAL = (
    "This rests on statistical signs, which are wrong on a small, measured share of untouched pictures; look at the "
    "maps before drawing a conclusion."
)
#: Range to which an examiner's log-odds are clipped before they are combined, so that none decides alone.
LOG_ODDS = (-8.0, 8.0)


def calibration_file() -> Path:
    """Where the shipped calibration of the image examiners lies."""
    return Path(str(files("vestige.forensics") / "calibration.json"))


@dataclass
class Panel:
    """A set of examiners with their calibrations.

    Statistical examiners return raw scores; their flags, probabilities and false-positive rates come from
    ``calibrations``. Examiners that read facts flag by themselves.
    """

    finders: Sequence[Finder] = ()
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    combination: dict[str, Any] = field(default_factory=dict)
    slug: ClassVar[str] = "panel"

    def raw(self, subject: ImageSubject) -> list[Finding]:
        """Every examiner's finding before calibration; an examiner that fails is reported, not fatal."""
        findings = []
        for finder in self.finders:
            try:
                findings.append(finder.find(subject))
            except InputError:
                raise
            except Exception as error:  # one examiner's defect must not hide what the others found
                kind = getattr(finder, "kind", _EDIT)
                name = type(error).__name__
                finding = Finding.not_applicable(finder.slug, kind, f"the examiner failed on this file ({name})")
                findings.append(dataclasses.replace(finding, details={"error": f"{name}: {error}"[:200]}))
        return findings

    def findings(self, subject: ImageSubject) -> list[Finding]:
        """Every examiner's finding, calibrated."""
        return [
            self.calibrations[f.examiner].apply(f) if f.examiner in self.calibrations else f for f in self.raw(subject)
        ]

    def examine(self, subject: ImageSubject) -> Findings:
        """Examine one picture.

        Raises InputError when it cannot be decoded.
        """
        findings = self.findings(subject)
        return Findings(
            source=subject.source,
            sha256=subject.sha256,
            format=subject.format,
            width=subject.width,
            height=subject.height,
            findings=tuple(findings),
            verdict=self.verdict(findings),
        )

    def edit_probability(self, findings: Sequence[Finding]) -> float:
        """P(pixels edited) where half of all pictures are: combines the edit examiners' calibrated log-odds."""
        weights: dict[str, float] = self.combination.get("weights", {})
        total = float(self.combination.get("offset", 0.0))
        for finding in findings:
            if finding.applies and finding.probability is not None and finding.examiner in weights:
                own = log_odds(finding.probability) - log_odds(PRIOR)
                total += weights[finding.examiner] * float(np.clip(own, *LOG_ODDS))
        return sigmoid(total)

    def verdict(self, findings: Sequence[Finding], thing: str = "picture") -> Verdict:
        """Combine findings about a ``thing``: what was found, how sure, and what the answer does not say."""
        flagged = [f for f in findings if f.flagged and f.applies]
        applied = sum(f.applies for f in findings)
        if not applied:
            return Verdict("not examined", 0.0, (f"No examiner applies to this {thing}.",))
        probability = self.edit_probability(findings)
        kinds = [k for k in KINDS if any(f.kind == k for f in flagged)]
        if probability >= float(self.combination.get("threshold", 2.0)) and _EDIT not in kinds:
            kinds.insert(0, _EDIT)
        probability = with_prior(probability)
        edits = [f for f in flagged if f.kind == _EDIT]
        probability = max([probability, *(_FACT if f.probability is None else f.probability for f in edits)])
        if not kinds:
            nothing = f"No trace found by the {applied} examiners that apply."
            return Verdict("no trace found", probability, (nothing, _NO_PROOF.format(thing)))
        sentences = tuple(f.summary for f in flagged)
        if set(kinds) == {"history"}:
            return Verdict("processed", probability, (*sentences, _ORDINARY.format(thing)), tuple(kinds))
        if _EDIT in kinds and not edits:
            sentences = (f"Several weak signs together suggest that part of the {thing} was changed.", *sentences)
        if _EDIT in kinds and all(f.probability is not None for f in edits):
            sentences = (*sentences, _STATISTICAL)
        return Verdict("traces found", probability, sentences, tuple(kinds))


def default_panel(keys: Sequence[bytes] = (), only: Sequence[str] = (), model: str = "") -> Panel:
    """The panel of every catalogue entry marked ``panel``.

    keys: watermark keys to try besides the public one. only: slugs of the examiners to use instead, which may be any
    built finder of the catalogue that examines pictures; "panel" among them stands for the default panel. model: the
    weights for the one examiner in ``only``. Raises UsageError for a slug that is none, for one that takes no weights,
    and InputError when a named examiner's network is not there.
    """
    built = [s for s in catalogue.systems() if "find" in s.roles and s.subject == "image" and s.target is not None]
    entries = [s for s in built if s.panel]
    if only:
        by_slug = {s.slug: s for s in built}
        unknown = [slug for slug in only if slug not in by_slug and slug != Panel.slug]
        if unknown:
            raise UsageError(f"{unknown[0]!r} is not an examiner of pictures; choose from {', '.join(by_slug)}.")
        chosen = {s.slug: s for slug in only for s in (entries if slug == Panel.slug else [by_slug[slug]])}
        entries = list(chosen.values())
    finders = []
    for entry in entries:
        cls = entry.load()
        if not isinstance(cls, type) or not hasattr(cls, "slug") or not hasattr(cls, "find"):
            raise UsageError(f"{entry.slug!r} does not examine single pictures; see 'vestige systems --role find'.")
        if model:
            finders.append(_with_weights(entry.slug, cls, model))
        else:
            finders.append(cls(keys=(PUBLIC_KEY, *keys)) if entry.slug == "find_mark" else cls())
        # The network of an examiner that was named is loaded here, where a missing one can be told.
        if entry.slug in only and getattr(finders[-1], "network", entry) is None:
            trained = entry.recipe or entry.slug
            raise InputError(f"{entry.slug} has no network yet; 'vestige learn {trained}' trains it, --model names it.")
    path = calibration_file()
    calibrations, combination = load_calibrations(path) if path.is_file() else ({}, {})
    return Panel(finders, calibrations, combination)


def _with_weights(slug: str, cls: type, model: str) -> Finder:
    if "weights" not in inspect.signature(cls).parameters:
        raise UsageError(f"{slug} takes no --model; leave it out.")
    if not Path(model).exists():
        raise InputError(f"--model {model} does not exist; check the path.")
    made: Finder = cls(weights=Path(model))
    return made


@cache
def shared_panel(keys: tuple[bytes, ...] = (), only: tuple[str, ...] = (), model: str = "") -> Panel:
    """`default_panel`, built once a process."""
    return default_panel(keys, only, model)
