import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from vestige.core.errors import InputError, UsageError
from vestige.metrics.calibration import (
    TemperatureScaling,
    brier_score,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    plot_reliability,
    reliability_curve,
    top_label,
)


@pytest.fixture(scope="module")
def predictions():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (600, 4))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(4, p=p) for p in probs])
    return logits, probs, labels


def test_errors_agree_with_torchmetrics(predictions):
    _, probs, labels = predictions
    confidence, correct = top_label(probs, labels)
    # float32 rounding would move confidences across bin edges in one of the two
    tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    for ours, norm in ((expected_calibration_error, "l1"), (maximum_calibration_error, "max")):
        theirs = multiclass_calibration_error(*tensors, num_classes=4, n_bins=15, norm=norm)
        assert ours(confidence, correct) == pytest.approx(float(theirs), abs=1e-5)
    positive = torch.from_numpy(probs[:, 1]), torch.from_numpy((labels == 1).astype(int))
    theirs = binary_calibration_error(*positive, n_bins=10, norm="l1")
    assert expected_calibration_error(probs[:, 1], labels == 1, n_bins=10) == pytest.approx(float(theirs), abs=1e-5)


def test_brier_and_likelihood_agree_with_scikit_learn(predictions):
    logits, probs, labels = predictions
    assert brier_score(probs[:, 1], labels == 1) == pytest.approx(brier_score_loss(labels == 1, probs[:, 1]))
    assert brier_score(probs, labels) == pytest.approx(brier_score_loss(labels, probs, labels=range(4)))
    pair = np.stack([1 - probs[:, 1], probs[:, 1]], 1)
    assert brier_score(pair, (labels == 1).astype(int)) == pytest.approx(2 * brier_score(probs[:, 1], labels == 1))
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, probs))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 20),
    st.sampled_from(["width", "mass"]),
)
@settings(max_examples=80, deadline=None)
def test_curves_keep_the_totals(rows, n_bins, bins):
    confidence, correct = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    curve = reliability_curve(confidence, correct, n_bins=n_bins, bins=bins)
    assert curve.count.sum() == len(rows)
    assert len(curve.count) <= n_bins
    assert (curve.count > 0).all()
    assert curve.count @ curve.confidence == pytest.approx(confidence.sum())
    assert curve.count @ curve.accuracy == pytest.approx(correct.sum())
    expected = expected_calibration_error(confidence, correct, n_bins=n_bins, bins=bins)
    most = maximum_calibration_error(confidence, correct, n_bins=n_bins, bins=bins)
    assert 0 <= expected <= most + 1e-12 <= 1 + 1e-9
    assert abs(confidence.mean() - correct.mean()) <= expected + 1e-9


def test_bins_of_equal_mass_hold_equal_shares():
    confidence = np.random.default_rng(0).beta(8, 2, 1000)
    assert set(reliability_curve(confidence, confidence > 0.5, n_bins=10, bins="mass").count) <= {99, 100, 101}
    tied = reliability_curve([0.3] * 50 + [0.9] * 50, [0, 1] * 50, n_bins=10, bins="mass")
    assert tied.count.tolist() == [50, 50]


def test_edges_of_equal_width_bins_belong_to_the_lower_bin():
    curve = reliability_curve([0.0, 0.5, 0.5 + 1e-12, 1.0], [0, 0, 1, 1], n_bins=2)
    assert curve.count.tolist() == [2, 2]


def test_temperature_scaling_undoes_overconfidence(predictions):
    logits, _, labels = predictions
    half = len(labels) // 2
    scaling = TemperatureScaling.fit(3 * logits[:half], labels[:half])
    assert scaling.temperature == pytest.approx(3.0, rel=0.15)
    held_out = 3 * logits[half:], labels[half:]
    before = expected_calibration_error(*top_label(TemperatureScaling(1.0).probabilities(held_out[0]), held_out[1]))
    after = expected_calibration_error(*top_label(scaling.probabilities(held_out[0]), held_out[1]))
    assert after < 0.5 * before
    assert (scaling.probabilities(held_out[0]).argmax(1) == held_out[0].argmax(1)).all()
    grid = [negative_log_likelihood(3 * logits[:half], labels[:half], t) for t in np.geomspace(0.01, 100, 400)]
    assert negative_log_likelihood(3 * logits[:half], labels[:half], scaling.temperature) <= min(grid) + 1e-6


def test_plot_shows_the_curve_and_writes_a_picture(tmp_path, predictions):
    curve = reliability_curve(*top_label(*predictions[1:]))
    figure = plot_reliability(curve, tmp_path / "reliability.png", title="Four classes")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    measured = figure.axes[0].lines[1]
    np.testing.assert_array_equal(measured.get_ydata(), curve.accuracy)
    assert figure.axes[0].get_title() == "Four classes"
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_refusals():
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(InputError, match="not finite"):
        maximum_calibration_error([np.nan], [1])
    with pytest.raises(UsageError, match="one for each score"):
        reliability_curve([0.5], [1, 0])
    with pytest.raises(UsageError, match="at least one bin"):
        reliability_curve([0.5], [1], n_bins=0)
    with pytest.raises(UsageError, match="summing to 1"):
        top_label([[0.5, 0.6]], [0])
    with pytest.raises(UsageError, match="must lie in 0 … 1"):
        brier_score([[0.5, 0.5]], [2])
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        brier_score([-0.1], [0])
    with pytest.raises(UsageError, match="integers"):
        TemperatureScaling.fit([[0.0, 1.0]], [0.5])
    with pytest.raises(UsageError, match="positive"):
        negative_log_likelihood([[0.0, 1.0]], [0], 0.0)
