"""What the claims of the recoloured-picture examiner are measured with."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from vestige.claims import ClaimContext, MissingRunsError
from vestige.claims.forensics.recolor import (
    CHANNELS,
    INPUTS,
    OURS,
    PIXELS,
    Study,
    _linear,
    _threshold,
    colour_statistics,
    histogram_gaps,
    judged,
    srm_statistics,
    tells_recoloured_from_genuine,
)
from vestige.data.recolouring import Versions
from vestige.metrics.detection import auroc


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """uint8 20×3×64×64."""
    p = data.astronaut()
    return np.stack(
        [p[y : y + 64, x : x + 64].transpose(2, 0, 1) for y in (0, 90, 180, 270) for x in range(0, 450, 90)]
    )


def test_gaps_see_a_stretched_histogram_and_nothing_else(crops: np.ndarray) -> None:
    stretched = (np.round(crops.astype(np.float32) * 0.5) * 2).clip(0, 255).astype(np.uint8)
    plain, combed = histogram_gaps(crops), histogram_gaps(stretched)
    assert plain.shape == (20, 9)
    assert (combed[:, 0] > plain[:, 0]).all()
    images, labels = np.concatenate([crops, stretched]), np.repeat([False, True], 20)
    scorer = _linear(histogram_gaps, images[::2], labels[::2])
    assert auroc(labels[1::2], scorer(images[1::2])) > 0.95


def test_statistics_follow_colour_and_noise(crops: np.ndarray) -> None:
    colours = colour_statistics(crops)
    assert colours.shape == (20, 21)
    np.testing.assert_allclose(colours[:, 9:].sum(1), 1)
    assert not np.allclose(colours, colour_statistics(crops[:, ::-1]))
    noisy = (crops + np.random.default_rng(0).normal(0, 8, crops.shape)).clip(0, 255).astype(np.uint8)
    plain, rough = srm_statistics(crops), srm_statistics(noisy)
    assert plain.shape == (20, 270)
    assert (rough[:, :90].mean(1) > plain[:, :90].mean(1)).all()


def test_thresholds_and_accuracies_weigh_both_classes_alike() -> None:
    labels = np.array([False, False, False, True])
    assert _threshold(labels, np.array([0.1, 0.2, 0.6, 0.5])) == 0.5
    kinds = ("as it is", "as it is", "curves", "reinhard")
    test = Versions(np.zeros((4, 3, 32, 32), np.uint8), np.array([0, 0, 1, 1], bool), kinds, np.arange(4))
    scores = {"one": np.array([0.1, 0.6, 0.7, 0.2])}
    study = Study(test, scores, scores, {"one": 0.5})
    assert study.accuracy("one", ("curves",)) == pytest.approx(0.75)
    assert study.accuracy("one", ("reinhard",)) == pytest.approx(0.25)
    assert study.auc(scores["one"], ("reinhard",)) == pytest.approx(0.5)


def test_a_claim_without_runs_names_the_command(tmp_path) -> None:
    with pytest.raises(MissingRunsError, match="vestige learn recolor --for-claims"):
        tells_recoloured_from_genuine.run(ClaimContext(None, runs=tmp_path))


def test_the_headline_does_not_hold_for_a_rival_in_our_place_nor_within_the_noise_of_labels() -> None:
    others = {PIXELS: [0.60, 0.62, 0.61], CHANNELS: [0.64, 0.63, 0.65], INPUTS: [0.6, 0.6, 0.6]}
    assert judged({OURS: [0.75, 0.76, 0.74], **others}, 0.52)[::2] == (True, "")
    assert not judged({OURS: others[CHANNELS], **others}, 0.52)[0]
    assert "shuffled labels" in judged({OURS: [0.75, 0.76, 0.74], **others}, 0.70)[2]
