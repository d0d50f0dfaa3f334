from __future__ import annotations

import numpy as np
import pytest

from vestige.core.calibration import Calibration
from vestige.core.findings import Finding, Findings, Verdict
from vestige.core.panel import Panel


def finding(name: str, score: float, kind: str = "edit", **more) -> Finding:
    return Finding(name, kind, score, when_flagged=f"{name} sees it.", when_clear=f"{name} sees nothing.", **more)


def test_calibration_fills_in_flag_probability_and_error_rate():
    calibration = Calibration(threshold=2.0, false_positive_rate=0.01, n_clean=100, slope=1.5, offset=-3.0)
    low, high = (calibration.apply(finding("a", s)) for s in (1.0, 2.0))
    assert (low.flagged, high.flagged) == (False, True)
    assert low.summary == "a sees nothing."
    assert calibration.probability(2.0) == pytest.approx(0.5)
    assert high.probability == pytest.approx(0.1)
    assert high.false_positive_rate == 0.01
    away = calibration.apply(Finding.not_applicable("a", "edit", "it is no JPEG"))
    assert not away.flagged
    assert away.probability is None
    assert "no JPEG" in away.summary


def test_a_probability_is_level_below_its_knee_and_rises_above_it():
    calibration = Calibration(9.0, 0.0, 100, slope=0.5, offset=-1.0, knee=2.0)
    assert calibration.log_odds(np.array([-40.0, 2.0, 42.0])) == pytest.approx([-1, -1 + 0.5 * np.log(2), 19])
    straight = Calibration(9.0, 0.0, 100, slope=0.5, offset=-1.0)
    assert straight.log_odds(np.array([[-2.0], [4.0]])) == pytest.approx(np.array([[-2.0], [1.0]]))


def test_a_finding_checks_its_kind_and_map():
    with pytest.raises(ValueError, match="kind"):
        finding("a", 1.0, kind="magic")
    with pytest.raises(ValueError, match="float32"):
        finding("a", 1.0, map=np.zeros((4, 4)))


def test_findings_survive_json():
    map = np.zeros((4, 6), np.float32)
    original = Findings(
        "x.png", "0" * 64, "PNG", 6, 4,
        (
            finding("a", 1.0, map=map, map_caption="where", flagged=True),
            Finding.not_applicable("b", "edit", "too small"),
        ),
        Verdict("found", 0.9, ("One.", "Two."), ("edit",)),
    )  # fmt: skip
    value = original.to_dict()
    again = Findings.from_dict(value, {"a": map})
    assert again.to_dict() == value
    assert again["a"].map is map
    with pytest.raises(KeyError):
        again["c"]


class Broken:
    slug = "broken"
    kind = "edit"

    def find(self, subject):
        raise RuntimeError("bug")


class Fact:
    slug = "fact"

    def find(self, subject):
        return finding("fact", 1.0, kind="container", flagged=True)


def test_the_panel_survives_a_broken_examiner_and_says_so(picture):
    from vestige.core.image_io import encode
    from vestige.core.subjects import ImageSubject

    panel = Panel([Broken(), Fact()], {}, {})
    findings = panel.examine(ImageSubject(encode(picture, "PNG"), "x.png"))
    assert not findings["broken"].applies
    assert "RuntimeError" in findings["broken"].summary
    assert findings.verdict.level == "found"
    assert findings.verdict.kinds == ("container",)


def test_the_verdict_says_what_it_does_not_prove():
    panel = Panel([], {}, {"weights": {"a": 1.0}, "offset": 0.0, "threshold": 0.9})
    clear = panel.verdict([finding("a", 0.0, probability=0.2)])
    assert clear.level == "nothing found"
    assert "not prove" in " ".join(clear.sentences)
    assert clear.probability == pytest.approx(0.2)
    assert panel.edit_probability([finding("a", 0.0, probability=0.1)]) == pytest.approx(0.5)
    combined = panel.verdict([finding("a", 0.0, probability=0.55)])
    assert combined.flagged
    assert combined.kinds == ("edit",)
    assert panel.verdict([Finding.not_applicable("a", "edit", "too small")]).level == "not examined"


def test_no_shipped_threshold_flags_what_is_less_likely_than_not():
    from vestige.core.calibration import load_calibrations
    from vestige.core.panel import calibration_file

    for slug, calibration in load_calibrations(calibration_file())[0].items():
        assert calibration.threshold >= calibration.even() - 1e-3, slug
