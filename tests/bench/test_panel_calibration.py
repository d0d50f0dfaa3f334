"""The corpus knows what it planted, and calibration keeps its promises on pictures it was made for."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from vestige.bench.forensics.corpus import (
    SEEKS,
    Case,
    corpus,
    double_compressed,
    innocent,
    learned_from,
    marked,
    photographs,
    tampered,
    tampered_and_posted,
    untouched,
    with_payload,
)  # fmt: skip
from vestige.bench.forensics.panel import (
    OTHER_FALSE_POSITIVES,
    Record,
    fit,
    fit_panel,
    judge,
    measure,
    panel_of,
    pixel_auc,
)
from vestige.core.calibration import Calibration
from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.core.image_io import decode, encode
from vestige.data.tampering import OPERATIONS


@pytest.fixture(scope="module")
def shots(photo) -> list[tuple[str, bytes]]:
    crops = [photo[20 * i : 20 * i + 200, 30 * i : 30 * i + 220] for i in range(4)]
    return [(f"photos/{i}.jpg", encode(c, "JPEG", quality=95)) for i, c in enumerate(crops)]


def test_every_case_decodes_and_states_its_traces(shots):
    first, second = shots[:2]
    cases = [*untouched(first), *innocent(first), *double_compressed(first), *with_payload(first), *marked(first)]
    for operation in OPERATIONS:
        cases += tampered(first, second, operation)
    assert len(cases) >= 9 + len(OPERATIONS) - 2
    for case in cases:
        pixels = decode(case.data).pixels
        assert not case.present & case.possible
        if case.mask is not None:
            assert case.mask.shape == pixels.shape[:2]
            assert 0 < case.mask.mean() < 1
    assert all("edit" not in c.present | c.possible for c in innocent(first))
    assert [c.data for c in innocent(first)] == [c.data for c in innocent(first)]


def test_truth_is_about_what_an_examiner_seeks():
    case = Case("a", "b", b"", frozenset({"edit"}), frozenset({"double"}))
    assert case.truth("copy_move") is True
    assert case.truth("jpeg_double") is None
    assert case.truth("steganalysis") is False


def test_halves_do_not_meet(tmp_path, shots):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.jpg").write_bytes(shots[0][1] + bytes([i]))
    validation, test = (photographs(tmp_path, part) for part in ("validation", "test"))
    assert len(validation) + len(test) == 30
    assert not {n for n, _ in validation} & {n for n, _ in test}
    assert len(photographs(tmp_path, "test", limit=3)) == 3


def test_photographs_that_a_network_learned_from_are_told_apart(tmp_path, shots):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.jpg").write_bytes(shots[0][1] + bytes([i]))
    every, unseen = (photographs(tmp_path, "test", unseen=u) for u in (False, True))
    assert 0 < len(unseen) < len(every) / 2
    assert set(unseen) == {photo for photo in every if not learned_from(photo[0])}
    assert not learned_from("scenery/12003.jpg")


def test_a_posted_case_is_smaller_and_keeps_its_mask(shots):
    case, again = tampered_and_posted(shots[0], shots[1], "splice", 3)
    small, mask = decode(again.data).pixels, again.mask
    assert small.shape == (150, 165, 3) == (*mask.shape, 3)
    assert abs(mask.mean() - case.mask.mean()) < 0.01
    assert again.name == "splice, posted"
    assert again.present == case.present


def _record(name: str, photo: int, present: set[str], **scores: float) -> Record:
    findings = tuple(Finding(s, "edit", v, "seen", "not seen") for s, v in scores.items())
    return Record(Case(f"{photo}", name, b"", frozenset(present)), findings, {})


def test_fit_keeps_to_its_budget_and_spends_it_where_it_finds_most():
    rng = np.random.default_rng(0)
    records = []
    for i in range(600):
        records.append(
            _record("untouched", i, set(), copy_move=rng.normal(), ela=rng.normal(), steganalysis=rng.normal())
        )
    for i in range(200):
        records.append(_record("splice", i, {"edit"}, copy_move=rng.normal(5), ela=rng.normal(0.1), steganalysis=0.0))
        records.append(_record("payload", i, {"payload"}, copy_move=rng.normal(), ela=rng.normal(), steganalysis=9.0))
    content = fit(records, target=0.02)
    panel = panel_of(content)
    verdicts = {
        name: [judge(r, panel)[1] for r in records if r.case.name == name]
        for name in ("untouched", "splice", "payload")
    }
    assert np.mean([v.flagged and "edit" in v.kinds for v in verdicts["untouched"]]) <= 0.02
    assert np.mean([v.flagged and "edit" in v.kinds for v in verdicts["splice"]]) > 0.95
    payload = content["examiners"]["steganalysis"]
    assert payload["false_positive_rate"] <= OTHER_FALSE_POSITIVES
    assert payload["threshold"] < 9
    weights = content["verdict"]["weights"]
    assert weights["copy_move"] > weights["ela"]
    edited = [v.probability for v in verdicts["splice"]]
    clean = [v.probability for v in verdicts["untouched"]]
    assert np.median(edited) > 0.5 > 0.2 > np.median(clean)


def test_examiners_that_are_kept_stay_and_others_are_fitted_beside_them():
    rng = np.random.default_rng(1)
    records = [_record("untouched", i, set(), ela=rng.normal(), noise_level=rng.normal()) for i in range(400)] + [
        _record("splice", i, {"edit"}, ela=rng.normal(0.2), noise_level=rng.normal(5)) for i in range(200)
    ]
    kept = {
        "ela": Calibration(9.0, 0.001, 2000, 0.5, -1.0),
        "steganalysis": Calibration(0.2, 0.01, 300, 2.0, -1.0),
    }  # fmt: skip
    content = fit(records, kept=kept)
    assert content["examiners"]["ela"] == asdict(kept["ela"])
    assert content["examiners"]["steganalysis"] == asdict(kept["steganalysis"])
    found = content["examiners"]["noise_level"]
    assert found["false_positive_rate"] <= 0.01
    assert 1 < found["threshold"] < 4
    assert content["verdict"]["weights"]["noise_level"] > 0


def test_scores_that_mean_little_below_a_knee_get_one_and_others_stay_straight():
    rng = np.random.default_rng(2)
    ela, noise = rng.uniform(-8, 8, 3000), rng.normal(size=3000)
    edited = rng.random(3000) < 1 / (1 + np.exp(1 - np.logaddexp(0, ela - 3)))
    records = [
        _record("splice" if e else "untouched", i, {"edit"} if e else set(), ela=a, noise_level=n + 1.5 * e)
        for i, (e, a, n) in enumerate(zip(edited, ela, noise))
    ]
    found = {s: Calibration(**c) for s, c in fit(records)["examiners"].items()}
    assert found["noise_level"].knee is None
    assert found["ela"].knee == pytest.approx(3, abs=2)
    prior = edited.mean() / (1 - edited.mean())
    for score in (-8.0, 8.0):
        expected = np.exp(np.logaddexp(0, score - 3) - 1) / prior
        assert found["ela"].probability(score) == pytest.approx(expected / (1 + expected), abs=0.07)


def test_only_examiners_with_a_calibration_can_be_calibrated(tmp_path):
    with pytest.raises(UsageError, match="metadata"):
        next(fit_panel(tmp_path, tmp_path / "calibration.json", only=["metadata"]))


@pytest.mark.parametrize(("name", "said"), [("none", "none is no folder"), ("", "hold 0")])
def test_a_folder_without_photographs_is_named(tmp_path, name, said):
    target = tmp_path / "calibration.json"
    with pytest.raises(InputError, match=said):
        next(fit_panel(tmp_path / name, target))
    assert not target.exists()


def test_an_interrupted_calibration_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    from vestige.app.verbs.claiming import calibrate
    from vestige.core.errors import Interrupted

    def stopped(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("vestige.bench.forensics.panel.fit_panel", stopped)
    with pytest.raises(Interrupted, match="as it was"):
        calibrate(tmp_path, tmp_path / "calibration.json", 0, 1, 0)


def test_fit_needs_enough_photographs():
    with pytest.raises(InputError, match="at least 20"):
        fit([_record("untouched", i, set(), ela=0.0) for i in range(19)])


def test_measuring_a_corpus_gives_scores_and_map_quality(shots):
    records = measure(corpus(shots, processed=1, edited=2)[:8], only=("jpeg_dq", "copy_move"))
    assert {f.examiner for r in records for f in r.findings} == {"jpeg_dq", "copy_move"}
    assert all(r.case.data == b"" and all(f.map is None for f in r.findings) for r in records)
    assert np.isnan(records[0].score("ela"))


def test_pixel_auc():
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    assert pixel_auc(mask[::4, ::4].astype(np.float32), mask) > 0.95
    assert pixel_auc(np.zeros((4, 4), np.float32), mask) == 0.5
    assert np.isnan(pixel_auc(np.zeros((4, 4), np.float32), np.ones((8, 8), bool)))


def test_the_shipped_calibration_covers_every_statistical_examiner():
    from vestige.core.calibration import load_calibrations
    from vestige.core.catalogue import systems
    from vestige.core.panel import calibration_file

    calibrations, combination = load_calibrations(calibration_file())
    panel = {s.slug for s in systems() if s.panel}
    assert set(SEEKS) <= panel
    assert set(calibrations) == set(SEEKS)
    assert all(c.n_clean >= 200 and c.false_positive_rate <= 0.02 for c in calibrations.values())
    assert set(combination["weights"]) == {s for s, sought in SEEKS.items() if sought == {"edit"}}
