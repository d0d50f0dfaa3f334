import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, norm

from vestige.core.errors import InputError, UsageError
from vestige.metrics.membership import (
    confidence_score,
    entropy_score,
    lira,
    loss_score,
    membership_summary,
    modified_entropy_score,
    rmia,
    scaled_confidence,
)


@pytest.fixture(scope="module")
def game():
    """Samples of unequal hardness: statistic = hardness + 1 for members + noise, in a target and 32 shadow models."""
    generator = np.random.default_rng(0)
    n, k = 400, 32
    hardness = generator.normal(0, 4, n)
    member = generator.random((k, n)) < 0.5
    truth = generator.random(n) < 0.5
    shadow = hardness + 1.0 * member + 0.5 * generator.normal(size=(k, n))
    target = hardness + 1.0 * truth + 0.5 * generator.normal(size=n)
    return target, shadow, member, truth


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@given(st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_statistics_have_their_formulas(rows):
    logits = np.array(rows)
    probs, labels = softmax(logits), np.arange(len(rows)) % 3
    own = probs[np.arange(len(rows)), labels]
    np.testing.assert_array_equal(confidence_score(probs, labels), own)
    np.testing.assert_allclose(entropy_score(probs), -entropy(probs, axis=1), atol=1e-12)
    # 1 - p is exact enough at these logits
    np.testing.assert_allclose(scaled_confidence(logits, labels), np.log(own / (1 - own)), rtol=1e-6, atol=1e-6)
    others = [sum(p[k] * np.log(1 - p[k]) for k in range(3) if k != y) for p, y in zip(probs, labels, strict=True)]
    np.testing.assert_allclose(
        modified_entropy_score(probs, labels), (1 - own) * np.log(own) + others, rtol=1e-6, atol=1e-9
    )


def test_confident_predictions_stay_finite_and_ordered():
    logits = np.array([[800.0, 0, 0], [60.0, 0, 0], [-800.0, 0, 0]])
    assert scaled_confidence(logits, [0, 0, 0]) == pytest.approx([800 - np.log(2), 60 - np.log(2), -800 - np.log(2)])
    scores = modified_entropy_score(np.eye(3), [0, 0, 0])
    assert np.isfinite(scores).all()
    assert scores[0] == 0 > scores[1]


def test_online_lira_is_the_gaussian_likelihood_ratio(game):
    target, shadow, member, _ = game
    scores = lira(target, shadow, member, pooled_variance=False)
    for i in range(5):
        a, b = shadow[member[:, i], i], shadow[~member[:, i], i]
        expected = norm.logpdf(target[i], a.mean(), a.std(ddof=1)) - norm.logpdf(target[i], b.mean(), b.std(ddof=1))
        assert scores[i] == pytest.approx(expected)
    offline = lira(target, shadow, member, online=False, pooled_variance=False)
    b = shadow[~member[:, 0], 0]
    assert offline[0] == pytest.approx(-np.log(norm.sf((target[0] - b.mean()) / b.std(ddof=1))))


def test_pooled_variance_recovers_the_noise(game):
    target, shadow, member, _ = game
    pooled = lira(target, shadow, member)  # 32 models: pooled by default
    inside, outside = (np.array([shadow[m[:, i], i].mean() for i in range(400)]) for m in (member, ~member))
    expected = norm.logpdf(target, inside, 0.5) - norm.logpdf(target, outside, 0.5)
    assert np.corrcoef(pooled, expected)[0, 1] > 0.999
    np.testing.assert_allclose(pooled, expected, atol=0.15 * np.abs(expected).max())


def test_lira_beats_the_loss_and_online_beats_offline(game):
    target, shadow, member, truth = game
    plain = membership_summary(truth, loss_score(-target))
    online = membership_summary(truth, lira(target, shadow, member))
    offline = membership_summary(truth, lira(target, shadow, member, online=False))
    assert plain["auc"] < 0.65
    assert online["auc"] > 0.9  # best possible: Φ(1 / (0.5 √2)) = 0.921
    assert offline["auc"] > 0.85
    assert online["tpr@1fpr"] > 5 * plain["tpr@1fpr"]
    assert online["non_members"] == (~truth).sum()


def test_augmentations_average_the_noise_away(game):
    _, _, member, truth = game
    generator = np.random.default_rng(1)
    target = truth[:, None] + 1.5 * generator.normal(size=(400, 8))
    shadow = member[..., None] + 1.5 * generator.normal(size=(32, 400, 8))
    aucs = [membership_summary(truth, lira(target[:, :a], shadow[:, :, :a], member))["auc"] for a in (1, 8)]
    assert aucs[1] > aucs[0] + 0.1
    one = lira(target[:, 0], shadow[:, :, 0], member)
    np.testing.assert_array_equal(one, lira(target[:, :1], shadow[:, :, :1], member))


def rmia_game(online):
    generator = np.random.default_rng(3)

    def p(z):
        return 1 / (1 + np.exp(-z))

    n, m, k = 300, 500, 4
    hard, hard_z = generator.normal(0, 2, n), generator.normal(0, 2, m)
    truth = generator.random(n) < 0.5
    member = generator.random((k, n)) < 0.5
    member[0], member[1] = True, False
    target = p(hard + 1.5 * truth + 0.3 * generator.normal(size=n))
    reference = p(hard + 1.5 * (member if online else 0) + 0.3 * generator.normal(size=(k, n)))
    z = p(hard_z + 0.3 * generator.normal(size=m)), p(hard_z + 0.3 * generator.normal(size=(k, m)))
    return target, reference, *z, member, truth


def test_rmia_equals_the_pairwise_definition():
    target, reference, tz, rz, member, _ = rmia_game(online=True)
    inside = np.array([reference[member[:, i], i].mean() for i in range(300)])
    outside = np.array([reference[~member[:, i], i].mean() for i in range(300)])
    ratio = (target / (0.5 * (inside + outside)))[:, None] / (tz / rz.mean(0))
    np.testing.assert_allclose(rmia(target, reference, tz, rz, member=member, gamma=1.5), (ratio >= 1.5).mean(1))
    a = 0.4
    px, pz = (0.5 * ((1 + a) * r.mean(0) + 1 - a) for r in (reference, rz))
    ratio = (target / px)[:, None] / (tz / pz)
    np.testing.assert_allclose(rmia(target, reference, tz, rz, offline_scale=a), (ratio >= 2).mean(1))


@pytest.mark.parametrize("online", [True, False])
def test_rmia_finds_members_with_few_reference_models(online):
    target, reference, tz, rz, member, truth = rmia_game(online)
    scores = rmia(target, reference, tz, rz, member=member if online else None, gamma=1.0, offline_scale=0.9)
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert membership_summary(truth, scores)["auc"] > membership_summary(truth, target)["auc"] + 0.1


def test_no_attack_works_on_a_model_that_did_not_learn():
    generator = np.random.default_rng(5)
    truth, member = generator.random(2000) < 0.5, generator.random((16, 2000)) < 0.5
    scores = lira(generator.normal(size=2000), generator.normal(size=(16, 2000)), member)
    row = membership_summary(truth, scores)
    assert row["auc"] == pytest.approx(0.5, abs=0.04)
    assert row["tpr@1fpr"] < 0.03


def test_refusals(game):
    target, shadow, member, _ = game
    with pytest.raises(UsageError, match="bool K×N"):
        lira(target[:-1], shadow, member)
    with pytest.raises(UsageError, match="sample 3 is a member of 0"):
        lira(target, shadow, member & (np.arange(400) != 3))
    with pytest.raises(UsageError, match="non-member of at least 2"):
        lira(target, shadow, member | (np.arange(400) == 7), online=False, pooled_variance=False)
    with pytest.raises(InputError, match="not finite"):
        lira(target, shadow * np.nan, member)
    with pytest.raises(UsageError, match="K×N and K×M"):
        rmia([0.5], [[0.5, 0.5]], [0.5], [[0.5]])
    with pytest.raises(UsageError, match="gamma must be positive"):
        rmia([0.5], [[0.5]], [0.5], [[0.5]], gamma=0)
    with pytest.raises(UsageError, match="lie in"):
        rmia([1.5], [[0.5]], [0.5], [[0.5]])
    with pytest.raises(UsageError, match="not in others"):
        rmia([0.5], [[0.5]], [0.5], [[0.5]], member=np.array([[True]]))
    with pytest.raises(UsageError, match="offline_scale"):
        rmia([0.5], [[0.5]], [0.5], [[0.5]], offline_scale=2)
    with pytest.raises(UsageError, match="two classes"):
        scaled_confidence([[1.0]], [0])
    with pytest.raises(UsageError, match="summing to 1"):
        entropy_score([[1.0, 1.0]])
    with pytest.raises(UsageError, match="no negatives"):
        membership_summary([1, 1], [0.0, 1.0])
