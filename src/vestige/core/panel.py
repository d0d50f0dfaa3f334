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
from vestige.core.calibration import (
    PRIOR,
    Calibration,
    Population,
    load_calibrations,
    load_populations,
    log_odds,
    sigmoid,
    with_prior,
)
from vestige.core.domain import GRAPHICS, domain_of
from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.findings import NEUTRAL, Domain, Finding, Findings, Stability, Verdict
from vestige.core.keys import PUBLIC_KEY
from vestige.core.stability import NEAR, versions
from vestige.core.wording import verdict_of

if TYPE_CHECKING:
    from vestige.core.roles import Finder
    from vestige.core.subjects import ImageSubject

_EDIT = "edit"
#: Range to which an examiner's log-odds are clipped before they are combined, so that none decides alone.
LOG_ODDS = (-8.0, 8.0)


def calibration_file() -> Path:
    """Where the shipped calibration of the image examiners lies."""
    return Path(str(files("vestige.forensics") / "calibration.json"))


@dataclass
class Panel:
    """A set of examiners with their calibrations.

    Statistical examiners return raw scores; their flags, probabilities and false-positive rates come from
    ``calibrations``. Examiners that read facts flag by themselves. prior: share of pictures that carry the trace
    sought, for every probability stated; levels do not depend on it. fast: leave out the check whether a verdict near
    its threshold stays when the picture is saved again or scaled. populations: how examiners of generated pictures
    did on published pictures, told with their findings.
    """

    finders: Sequence[Finder] = ()
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    combination: dict[str, Any] = field(default_factory=dict)
    prior: float = PRIOR
    fast: bool = False
    populations: dict[str, Population] = field(default_factory=dict)
    slug: ClassVar[str] = "panel"

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise UsageError(f"The prior is a share between 0 and 1, such as 0.1, not {self.prior:g}.")

    def raw(self, subject: ImageSubject) -> list[Finding]:
        """Every examiner's finding before calibration; an examiner that fails is reported, not fatal.

        Examiners made for photographs are not asked about flat graphics.
        """
        findings = []
        domain = domain_of(subject)
        for finder in self.finders:
            kind = getattr(finder, "kind", _EDIT)
            if GRAPHICS in domain.names and getattr(finder, "photographs", False):
                findings.append(Finding.not_applicable(finder.slug, kind, _not_graphics(domain)))
                continue
            try:
                findings.append(finder.find(_seen_by(finder, subject)))
            except LimitError as error:
                if subject.decoded.scale == 1:
                    raise
                findings.append(Finding.not_applicable(finder.slug, kind, f"{error}."))
            except InputError:
                raise
            except Exception as error:  # one examiner's defect must not hide what the others found
                name = type(error).__name__
                finding = Finding.not_applicable(finder.slug, kind, f"the examiner failed on this file ({name})")
                findings.append(dataclasses.replace(finding, details={"error": f"{name}: {error}"[:200]}))
        return findings

    def findings(self, subject: ImageSubject) -> list[Finding]:
        """Every examiner's finding, calibrated; where the picture is no ordinary photograph, signs are only places to
        look at."""
        domain = domain_of(subject)
        made_for = {f.slug for f in self.finders if getattr(f, "photographs", False)}
        calibrated = [self.calibrate(f) for f in self.raw(subject)]
        return [_lowered(f, domain) if f.examiner in made_for else f for f in calibrated]

    def calibrate(self, finding: Finding) -> Finding:
        """The finding with flag, rates and the probability for this panel's prior."""
        if finding.applies and finding.examiner in self.populations:
            told = (*finding.evidence, *self.populations[finding.examiner].words)
            finding = dataclasses.replace(finding, evidence=told)
        known = self.calibrations.get(finding.examiner)
        if known is not None:
            return known.apply(finding, self.prior)
        if finding.probability is None or self.prior == PRIOR:
            return finding
        own = sigmoid(log_odds(finding.probability) - log_odds(PRIOR))  # it was stated for the usual prior
        return dataclasses.replace(finding, probability=with_prior(own, self.prior))

    def examine(self, subject: ImageSubject) -> Findings:
        """Examine one picture.

        Raises InputError when it cannot be decoded.
        """
        domain, (width, height) = domain_of(subject), subject.upright_size
        findings = self.findings(subject)
        stability = None if self.fast else self.stability(subject, findings)
        verdict = self.verdict(findings, domain=domain, stability=stability)
        return Findings(
            source=subject.source,
            sha256=subject.sha256,
            format=subject.format,
            width=width,
            height=height,
            findings=tuple(findings),
            verdict=dataclasses.replace(verdict, sentences=(*subject.notes, *verdict.sentences)),
            domain=domain,
            reading=subject.notes,
        )

    def edit_probability(self, findings: Sequence[Finding]) -> float:
        """P(pixels edited) where half of all pictures are: combines the edit examiners' calibrated log-odds."""
        weights: dict[str, float] = self.combination.get("weights", {})
        total = float(self.combination.get("offset", 0.0))
        for finding in findings:
            if finding.applies and finding.probability is not None and finding.examiner in weights:
                own = log_odds(finding.probability) - log_odds(self.prior)
                total += weights[finding.examiner] * float(np.clip(own, *LOG_ODDS))
        return sigmoid(total)

    def _combines(self, findings: Sequence[Finding]) -> bool:
        weights = self.combination.get("weights", {})
        return any(f.applies and f.probability is not None and f.examiner in weights for f in findings)

    def _stated(self, findings: Sequence[Finding]) -> float | None:
        """The probability of an edit for this panel's prior, None where no calibrated examiner of edits applies."""
        if self._combines(findings):
            return with_prior(self.edit_probability(findings), self.prior)
        return max((f.probability for f in findings if f.applies and f.kind == _EDIT and f.probability), default=None)

    def verdict(
        self,
        findings: Sequence[Finding],
        thing: str = "picture",
        *,
        domain: Domain | None = None,
        stability: Stability | None = None,
    ) -> Verdict:
        """Combine findings about a ``thing``: what was found, how sure, and what the answer does not say."""
        together = self.edit_probability(findings) if self._combines(findings) else 0.0
        combined = (
            "found" if together >= self.combination.get("threshold", 2.0)
            else "look" if together >= self.combination.get("look", 2.0)
            else ""
        )  # fmt: skip
        verdict = verdict_of(findings, thing, combined, self.combination, domain, stability)
        return dataclasses.replace(verdict, probability=self._stated(findings), prior=self.prior)

    def stability(self, subject: ImageSubject, findings: Sequence[Finding]) -> Stability | None:
        """Examines the picture again, saved again and scaled, where the verdict on edits is near its threshold."""
        judges = [f for f in self.finders if f.slug in self.combination.get("weights", {})]
        if not judges or not self._near(findings):
            return None
        found = self._edited(findings)
        small = dataclasses.replace(self, finders=judges)
        tried, flipped = [], []
        for name, version in versions(subject):
            tried.append(name)
            if self._edited(small.findings(version)) != found:
                flipped.append(name)
        return Stability(tuple(tried), tuple(flipped))

    def _edited(self, findings: Sequence[Finding]) -> bool:
        threshold = float(self.combination.get("threshold", 2.0))
        return any(f.flagged and f.kind == _EDIT and f.basis == "sign" for f in findings) or (
            self.edit_probability(findings) >= threshold
        )

    def _near(self, findings: Sequence[Finding]) -> bool:
        """Whether what decides on edits lies within `NEAR` of its threshold, in log-odds."""
        if not self._combines(findings):
            return False
        gaps = [log_odds(self.edit_probability(findings)) - log_odds(float(self.combination.get("threshold", 1.0)))]
        gaps += [
            self.calibrations[f.examiner].margin(f.score)
            for f in findings
            if f.applies and f.kind == _EDIT and f.examiner in self.calibrations
        ]
        strongest = max(gaps)  # one examiner far above its threshold decides, whatever the others say
        return abs(strongest) <= NEAR


def _not_graphics(domain: Domain) -> str:
    flat, covered = (domain.measured.get(k, 0.0) for k in ("flat", "covered_by_few_colours"))
    return (
        f"it was made for photographs, and this is as flat as graphics ({flat:.0%} of the samples equal their "
        f"neighbours, a few colours cover {covered:.0%})."
    )


def _lowered(finding: Finding, domain: Domain) -> Finding:
    """A sign in a picture that is no ordinary photograph is a place to look at."""
    if not domain.names or not finding.flagged or finding.basis != "sign" or finding.kind in NEUTRAL:
        return finding
    said = f"{finding.when_flagged} The picture is outside what its error rate was measured on ({domain.names[0]})."
    return dataclasses.replace(finding, flagged=False, look=True, when_look=f"Unsure: {said}")


def _seen_by(finder: Finder, subject: ImageSubject) -> ImageSubject:
    """What an examiner is shown of a picture that was decoded at a smaller scale: the pixels alone, or the file alone.

    Compression and camera leave traces at the stored scale only; those that read them cannot be asked.
    """
    if subject.decoded.scale == 1 or getattr(finder, "any_scale", False):
        return subject
    if finder.slug not in {s.slug for s in catalogue.systems() if s.frames}:
        return subject.file_alone
    return subject.shared("pixels alone", lambda: type(subject).of_pixels(subject.pixels, subject.source))


def default_panel(
    keys: Sequence[bytes] = (), only: Sequence[str] = (), model: str = "", prior: float = PRIOR, fast: bool = False
) -> Panel:
    """The panel of every catalogue entry marked ``panel``, and of examiners of generated pictures whose measured rates
    are good enough (`Population.joins`).

    keys: watermark keys to try besides the public one. only: slugs of the examiners to use instead, which may be any
    built finder of the catalogue that examines pictures; "panel" among them stands for the default panel. model: the
    weights for the one examiner in ``only``. prior, fast: as of `Panel`. Raises UsageError for a slug that is none, for
    one that takes no weights, and InputError when a named examiner's network is not there.
    """
    built = [s for s in catalogue.systems() if "find" in s.roles and s.subject == "image" and s.target is not None]
    populations = load_populations(calibration_file())
    entries = [s for s in built if s.panel or (s.slug in populations and populations[s.slug].joins)]
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
    return Panel(finders, calibrations, combination, prior, fast, populations)


def _with_weights(slug: str, cls: type, model: str) -> Finder:
    if "weights" not in inspect.signature(cls).parameters:
        raise UsageError(f"{slug} takes no --model; leave it out.")
    if not Path(model).exists():
        raise InputError(f"--model {model} does not exist; check the path.")
    made: Finder = cls(weights=Path(model))
    return made


@cache
def shared_panel(
    keys: tuple[bytes, ...] = (), only: tuple[str, ...] = (), model: str = "", prior: float = PRIOR, fast: bool = False
) -> Panel:
    """`default_panel`, built once a process."""
    return default_panel(keys, only, model, prior, fast)
