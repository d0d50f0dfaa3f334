"""Levels and words of a verdict: facts are facts, signs have their rate, and unsure is said."""

import dataclasses

import numpy as np
import pytest

from vestige.core.calibration import Calibration, with_prior
from vestige.core.errors import UsageError
from vestige.core.findings import Finding, Findings, Stability
from vestige.core.image_io import encode
from vestige.core.panel import Panel
from vestige.core.subjects import ImageSubject

RULES = {"weights": {"score": 1.0}, "offset": 0.0, "threshold": 0.9, "look": 0.8, "look_rate": 0.02, "n_clean": 350}
PANEL = Panel([], {"score": Calibration(3.0, 0.0, 2300, 1.0, 0.0, focus=0.1, focus_rate=0.03)}, RULES)
PHOTO = np.random.default_rng(0).integers(60, 200, (150, 200, 3)).astype(np.uint8)


def sign(score: float, focus: float | None = None) -> Finding:
    words = "A region stands out."
    return PANEL.calibrate(
        Finding("score", "edit", score, words, "No region does.", focus=focus, when_look="Look here.")
    )


def fact(kind: str, examiner: str = "reader") -> Finding:
    return Finding(examiner, kind, 1.0, f"There is a {kind}.", "There is none.", flagged=True)


@pytest.mark.parametrize("kind", ["container", "mark", "provenance", "generated", "payload"])
def test_a_fact_is_found_as_a_fact_and_has_no_probability_of_its_own(kind):
    verdict = PANEL.verdict([fact(kind), sign(0.0)])
    assert verdict.level == "found"
    assert verdict.facts == (f"There is a {kind}.",)
    assert verdict.signs == ()
    assert verdict.kinds == (kind,)
    assert "No examiner found a sign that the pixels of this picture were edited." in verdict.sentences
    assert PANEL.verdict([fact(kind)]).probability is None


def test_history_alone_is_nothing_found():
    verdict = PANEL.verdict([fact("history"), sign(0.0)])
    assert verdict.level == "nothing found"
    assert verdict.kinds == ("history",)
    assert not verdict.flagged


def test_a_sign_is_told_with_the_bound_of_its_rate():
    verdict = PANEL.verdict([sign(4.0)])
    assert verdict.level == "found"
    assert verdict.signs == (
        "A region stands out. 0 of 2,300 photographs without the trace reach the threshold: below 0.13%.",
    )
    assert verdict.facts == ()


def test_between_nothing_and_found_there_is_a_place_to_look_at():
    levels = {score: PANEL.verdict([sign(score)]).level for score in (0.0, 1.5, 2.5, 3.5)}
    assert levels == {0.0: "nothing found", 1.5: "a place to look at", 2.5: "found", 3.5: "found"}
    said = PANEL.verdict([sign(1.5)]).sentences[0]
    assert said.endswith("7 of 350 photographs without the trace reach this level: 2.0% (0.81% to 4.1%).")


def test_a_map_that_sets_one_place_apart_is_enough_for_a_look():
    clear, placed = sign(0.0, focus=0.05), sign(0.0, focus=0.2)
    assert (clear.level, placed.level) == ("nothing found", "a place to look at")
    verdict = PANEL.verdict([placed])
    assert verdict.level == "a place to look at"
    assert verdict.kinds == ("edit",)
    assert "Place to look at: Look here." in verdict.sentences
    assert verdict.probability == pytest.approx(with_prior(0.5))


def test_what_is_said_survives_json():
    verdict = PANEL.verdict([sign(0.0, focus=0.2), fact("mark")], stability=Stability(("a", "b"), ("b",)))
    found = Findings("x", "0" * 64, "PNG", 4, 4, (sign(0.0, focus=0.2), sign(4.0), fact("mark")), verdict)
    again = Findings.from_dict(found.to_dict())
    assert again.to_dict() == found.to_dict()
    assert [f.level for f in again.findings] == ["a place to look at", "found", "found"]


def test_a_picture_is_never_cleared_of_being_generated():
    alone = PANEL.verdict([sign(0.0)])
    assert alone.generation.sentence == "Whether it was generated was not looked for."
    records = Finding("generator_tags", "generated", 0.0, "", "No generator signed the file.")
    read = PANEL.verdict([sign(0.0), records])
    assert "No examiner of this panel judges pixels for generation" in read.sentences[-1]
    assert read.generation.records == ("generator_tags",)
    away = Finding.not_applicable("generated_image", "generated", "too small")
    assert "generated_image does not apply" in PANEL.verdict([sign(0.0), records, away]).sentences[-1]
    judged = PANEL.verdict(
        [sign(0.0), Finding("generated_image", "generated", 0.1, "", "Like photographs.", threshold=1.0)]
    )
    assert judged.generation.pixels == ("generated_image",)
    assert "clears nothing" in judged.sentences[-1]


def test_the_prior_moves_every_probability_and_no_level():
    even = dataclasses.replace(PANEL, prior=0.5)
    for score in (0.0, 1.5, 3.5):
        finding = Finding("score", "edit", score, "", "")
        one, other = PANEL.verdict([PANEL.calibrate(finding)]), even.verdict([even.calibrate(finding)])
        assert one.level == other.level
        assert one.probability == pytest.approx(with_prior(other.probability, 0.1))
        assert (one.prior, other.prior) == (0.1, 0.5)
    own = Finding("other", "generated", 1.0, "", "", probability=with_prior(0.7), threshold=0.5)
    assert even.calibrate(own).probability == pytest.approx(0.7)
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            dataclasses.replace(PANEL, prior=wrong)


class Brittle:
    """Sees an edit only in the file as it is."""

    slug, kind = "score", "edit"

    def __init__(self, first: float, later: float) -> None:
        self.first, self.later, self.calls = first, later, 0

    def find(self, subject):
        self.calls += 1
        return Finding(self.slug, "edit", self.first if self.calls == 1 else self.later, "Edited.", "Not edited.")


@pytest.mark.parametrize(
    ("first", "later", "fast", "calls", "level", "words"),
    [
        (2.4, 0.0, False, 3, "a place to look at", "Unsure: the answer on edits lies near its threshold"),
        (
            2.4,
            2.4,
            False,
            3,
            "found",
            "but stays when the picture is saved again as JPEG 90 and when it is scaled to 90%",
        ),
        (2.4, 0.0, True, 1, "found", "Several weak signs together"),
        (8.0, 0.0, False, 1, "found", "Sign: Edited."),
        (2.0, 3.2, False, 3, "a place to look at", "Unsure: the answer on edits lies near its threshold"),
        (0.0, 0.0, False, 1, "nothing found", "does not prove"),
    ],
)
def test_a_verdict_near_its_threshold_is_tried_again(first, later, fast, calls, level, words):
    examiner = Brittle(first, later)
    panel = dataclasses.replace(PANEL, finders=[examiner], fast=fast)
    verdict = panel.examine(ImageSubject(encode(PHOTO, "PNG"))).verdict
    assert (examiner.calls, verdict.level) == (calls, level)
    assert words in " ".join(verdict.sentences)


def test_a_detector_of_generated_pictures_joins_only_with_rates_that_support_it():
    from vestige.core.calibration import Population, load_populations
    from vestige.core.panel import calibration_file, default_panel

    good = {"photograph": (1, 400), "painting or scan": (0, 150)}
    assert Population(good, (180, 300)).joins
    assert not Population(good, (150, 300)).joins  # half of them may have been luck
    assert not Population({**good, "product picture": (0, 40)}, (290, 300)).joins  # too few to know
    assert not Population({}, (290, 300)).joins
    shipped = load_populations(calibration_file())
    panel = {finder.slug for finder in default_panel().finders}
    assert {slug for slug, population in shipped.items() if population.joins} == panel & set(shipped)


def test_an_examiner_of_generated_pictures_tells_how_it_did():
    from vestige.core.calibration import Population

    panel = dataclasses.replace(PANEL, populations={"net": Population({"photograph": (2, 186)}, (6, 268))})
    told = panel.calibrate(Finding("net", "generated", 1.0, "", "", threshold=2.0)).evidence
    assert told == (
        "of published real pictures it flags 2 of 186 (photograph)",
        "of published generated pictures it finds 6 of 268 (0.83% to 4.8%)",
    )
