"""Examiners as columns of the forensics benchmark, with the floors that every figure is read against."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from vestige.bench.digests import code_digest, digest
from vestige.bench.methods import Method, select
from vestige.core.calibration import Calibration, load_calibrations
from vestige.core.catalogue import System, system, systems
from vestige.core.errors import UsageError
from vestige.core.findings import Finding
from vestige.core.image_io import encode
from vestige.core.panel import calibration_file, shared_panel
from vestige.core.subjects import ImageSubject
from vestige.metrics.segmentation import centre_prior

#: Kinds of findings that can be right or wrong about a set.
KINDS = ("edit", "generated")
#: Examiners of what a file says, not of its pixels: nothing is left of it after the first step of the ladder.
_READERS = frozenset({"metadata", "generator_tags", "c2pa", "container", "thumbnail"})


class Floor:
    """A map that looks at no pixel: "all_marked" marks everything, "centre_prior" prefers the middle."""

    def __init__(self, slug: str) -> None:
        self.slug = slug

    def find(self, subject: ImageSubject) -> Finding:
        height, width = subject.height, subject.width
        drawn = np.ones((height, width), np.float32) if self.slug == "all_marked" else centre_prior(height, width)
        return Finding(self.slug, "edit", float("nan"), "", "", map=drawn)


class PanelVerdict:
    """The default panel as one examiner: its probability of an edit, flagged where its verdict found one."""

    slug = "panel"

    def find(self, subject: ImageSubject) -> Finding:
        verdict = shared_panel().examine(subject).verdict
        flagged = verdict.flagged and "edit" in verdict.kinds
        score = float("nan") if verdict.probability is None else verdict.probability
        return Finding(self.slug, "edit", score, "", "", flagged=flagged, applies=verdict.probability is not None)


FLOORS = ("all_marked", "centre_prior")


def load(method: Method) -> Any:
    """The examiner of a method, one per process; raises UsageError for options it does not take."""
    if method.slug in FLOORS:
        return Floor(method.slug)
    return PanelVerdict() if method.slug == "panel" else method.load()


def calibration_of(method: Method) -> Calibration | None:
    """The shipped calibration, None where the examiner has none or states its own."""
    return _calibrations().get(method.slug)


@cache
def _calibrations() -> dict[str, Calibration]:
    path = calibration_file()
    return load_calibrations(path)[0] if path.is_file() else {}


def method_digest(method: Method) -> str:
    """Changes with the code, the weights or the calibration behind a method."""
    if method.slug in FLOORS:
        return code_digest("vestige.bench.forensics.methods")
    known = {slug: dataclasses.asdict(c) for slug, c in _calibrations().items()}
    if method.slug == "panel":
        parts = [Method(s.slug).digest() for s in systems() if s.panel and s.subject == "image"]
        return digest([parts, known])
    return digest([method.digest(), known.get(method.slug)])


def methods(selection: str) -> list[Method]:
    """Examiners separated by commas, options by colons; "edit" and "generated" are those that look for it in the
    pixels, "all" is every examiner of pictures, "panel" the verdict of the default panel.

    Raises UsageError for unknown slugs, systems that do not examine pictures, and options that are no numbers.

    >>> [m.label for m in methods("ela,noise_level")]
    ['ela', 'noise_level']
    """
    groups: dict[str, Callable[[], list[Method]]] = {kind: partial(_of_kind, kind) for kind in KINDS}
    groups["all"] = _every
    refusal = "does not examine pictures; 'vestige systems --baselines --role find' lists what does."
    return select(selection, _examines_or_fails, refusal, groups)


def _every() -> list[Method]:
    return [Method(s.slug) for s in systems() if _examines(s)]


def _of_kind(kind: str) -> list[Method]:
    return [Method(s.slug) for s in systems() if _examines(s) and s.slug not in _READERS and kind_of(s.slug) == kind]


def _examines_or_fails(entry: System) -> bool:
    entry.load()
    return _examines(entry)


def _examines(entry: System) -> bool:
    if entry.target is None or entry.subject != "image" or "find" not in entry.roles:
        return False
    return entry.slug == "panel" or hasattr(entry.load(), "find")


@cache
def kind_of(slug: str) -> str:
    """What an examiner's findings are about: as its class says, else as it answers to a tiny picture."""
    if slug == "panel":
        return ""
    cls = system(slug).load()
    if isinstance(getattr(cls, "kind", None), str):
        return str(cls.kind)
    try:
        return str(cls().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).kind)
    except (UsageError, TypeError):
        return ""  # it cannot be made without arguments
