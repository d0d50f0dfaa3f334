"""How far a model forgot, from what models say: arrays of probabilities, losses and accuracies.

Every figure is read next to the retrained model's own; lower forget accuracy than that is over-forgetting, not success.
Probabilities are N×K, labels int (N,), losses (N,); members were trained on and stay, non-members never were in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.metrics.arrays import classes, finite, probabilities
from vestige.metrics.membership import confidence_score, entropy_score


def accuracy(probs: Any, labels: Any) -> float:
    """Share of samples whose largest output is the label's.

    >>> accuracy([[0.9, 0.1], [0.8, 0.2]], [0, 1])
    0.5
    """
    probs = finite(probs, "Outputs", 2)
    return float((probs.argmax(1) == classes(labels, "Labels", len(probs), probs.shape[1])).mean())


#: Members and non-members an attacker is fitted on, at most.
MOST = 1000


def _balanced(members: np.ndarray, others: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally many rows of both, drawn at random, at most `MOST`."""
    n = min(len(members), len(others), MOST)
    if n < 2:
        raise UsageError("Membership attacks need at least two members and two non-members.")
    draw = rng(seed, "membership")
    return members[draw.permutation(len(members))[:n]], others[draw.permutation(len(others))[:n]]


def mia_efficacy(
    retain_probs: Any, retain_labels: Any, test_probs: Any, test_labels: Any, forget_probs: Any, forget_labels: Any,
    *, seed: int = 0,
) -> float:  # fmt: skip
    """Share of the forgotten samples that an attacker calls non-members; the retrained model's is the aim.

    A support vector classifier (C 3, rbf) on the confidence in the true label, fitted on equally many retained
    training samples and test samples. Source: Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023.
    """
    attacker = _confidence_attacker(retain_probs, retain_labels, test_probs, test_labels, seed)
    return float(1 - attacker(confidence_score(forget_probs, forget_labels)).mean())


def mia_privacy(retain_probs: Any, retain_labels: Any, test_probs: Any, test_labels: Any, *, seed: int = 0) -> float:
    """Accuracy of the attacker of `mia_efficacy` on members and non-members it was not fitted on; 0.5 is private."""
    members, others = _balanced(
        confidence_score(retain_probs, retain_labels), confidence_score(test_probs, test_labels), seed
    )
    half = len(members) // 2
    attacker = _threshold_free(members[:half], others[:half])
    return float((attacker(members[half:]).mean() + 1 - attacker(others[half:]).mean()) / 2)


def _confidence_attacker(
    retain_probs: Any, retain_labels: Any, test_probs: Any, test_labels: Any, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    return _threshold_free(
        *_balanced(confidence_score(retain_probs, retain_labels), confidence_score(test_probs, test_labels), seed)
    )


def _threshold_free(members: np.ndarray, others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Scores of members and others -> a function that calls scores members (True)."""
    from sklearn.svm import SVC

    x = np.concatenate([members, others])[:, None]
    y = np.repeat([1, 0], [len(members), len(others)])
    if np.ptp(x) == 0:
        return lambda scores: np.zeros(len(scores), bool)  # nothing tells them apart: nobody is a member
    machine = SVC(C=3, kernel="rbf", gamma="auto").fit(x, y)
    return lambda scores: machine.predict(np.asarray(scores)[:, None]) == 1


def mia_entropy(retain_probs: Any, test_probs: Any, forget_probs: Any, *, seed: int = 0) -> float:
    """Share of the forgotten samples called members by logistic regression on the entropy of the output; no labels.

    Source: Can Bad Teaching Induce Forgetting?, AAAI 2023, as used by Selective Synaptic Dampening, AAAI 2024.
    """
    from sklearn.linear_model import LogisticRegression

    members, others = _balanced(entropy_score(retain_probs), entropy_score(test_probs), seed)
    x = np.concatenate([members, others])[:, None]
    machine = LogisticRegression(class_weight="balanced", solver="lbfgs").fit(
        x, np.repeat([1, 0], [len(members), len(others)])
    )
    return float((machine.predict(entropy_score(forget_probs)[:, None]) == 1).mean())


def mia_forget_vs_test(forget_losses: Any, unseen_losses: Any, *, splits: int = 10, seed: int = 0) -> float:
    """Accuracy of an attacker that tells forgotten from never seen samples by their loss; 0.5 is ideal.

    Logistic regression, mean over stratified shuffled splits (20 % held out) of equally many of both. A figure below
    0.5 is chance. Source: Towards Machine Unlearning Benchmarks, AAAI 2024 PPAI workshop.

    >>> abs(mia_forget_vs_test(np.arange(100.0), np.arange(100.0)) - 0.5) < 0.2
    True
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    seen, unseen = _balanced(finite(forget_losses, "Losses", 1), finite(unseen_losses, "Losses", 1), seed)
    x = np.concatenate([seen, unseen])[:, None]
    y = np.repeat([1, 0], [len(seen), len(unseen)])
    folds = StratifiedShuffleSplit(n_splits=splits, test_size=0.2, random_state=seed)
    return float(cross_val_score(LogisticRegression(), x, y, cv=folds, scoring="accuracy").mean())


def tug_of_war(row: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """ToW = Π over forget, retain and test accuracy of (1 − |method − retrained|), in [0, 1], 1 for equal models.

    Rows hold UA (one minus the forget accuracy), RA and TA as shares.

    >>> tug_of_war({"UA": 1.0, "RA": 0.9, "TA": 0.8}, {"UA": 1.0, "RA": 1.0, "TA": 0.8})
    0.9
    """
    return float(np.prod([1 - abs(row[m] - reference[m]) for m in ("UA", "RA", "TA")]))


def average_gap(
    row: Mapping[str, float], reference: Mapping[str, float], metrics: tuple[str, ...] = ("UA", "RA", "TA", "MIA")
) -> float:
    """Mean of |method − retrained| over the metrics; 0 is ideal.

    >>> average_gap({"UA": 0.5, "RA": 1.0}, {"UA": 1.0, "RA": 1.0}, ("UA", "RA"))
    0.25
    """
    return float(np.mean([abs(row[m] - reference[m]) for m in metrics]))


def zrf(probs: Any, random_probs: Any) -> float:
    """Zero-retrain forgetting: 1 − mean Jensen-Shannon divergence (base 2) from a randomly initialised model, on the
    forgotten samples. Source: Can Bad Teaching Induce Forgetting?, AAAI 2023.

    >>> zrf([[0.5, 0.5]], [[0.5, 0.5]])
    1.0
    """
    from scipy.special import rel_entr

    p, q = probabilities(probs, "Probabilities"), probabilities(random_probs, "Probabilities")
    if p.shape != q.shape:
        raise UsageError(f"Both models must speak about the same samples; got {p.shape} and {q.shape}.")
    m = (p + q) / 2
    return float(1 - ((rel_entr(p, m) + rel_entr(q, m)).sum(1) / 2 / np.log(2)).mean())


def activation_distance(probs: Any, reference_probs: Any) -> float:
    """Mean L2 distance of the outputs' probabilities to the retrained model's, on the same samples.

    >>> activation_distance([[1.0, 0.0]], [[1.0, 0.0]])
    0.0
    """
    p, q = probabilities(probs, "Probabilities"), probabilities(reference_probs, "Probabilities")
    if p.shape != q.shape:
        raise UsageError(f"Both models must speak about the same samples; got {p.shape} and {q.shape}.")
    return float(np.linalg.norm(p - q, axis=1).mean())


def relearn_time(losses: Any, target: float, margin: float = 0.05) -> int:
    """Steps until a curve of losses (before the first step, after it, ...) comes within ``margin`` of the target.

    The number of the first loss ≤ (1 + margin)·target; the length of the curve when none is.

    >>> relearn_time([1.0, 0.5, 0.2], target=0.5)
    1
    """
    curve = finite(losses, "Losses", 1)
    hits = np.flatnonzero(curve <= (1 + margin) * target)
    return int(hits[0]) if len(hits) else len(curve)


def anamnesis_index(steps: int, reference_steps: int) -> float:
    """AIN: relearning steps of the unlearned over those of the retrained model; near 1 is ideal, 0 is only hidden.

    Source: Zero-Shot Machine Unlearning, TIFS 2023. One step at least is counted for both.

    >>> anamnesis_index(3, 6)
    0.5
    """
    return max(steps, 1) / max(reference_steps, 1)


def nomus(utility: float, attack_accuracy: float, weight: float = 0.5) -> float:
    """λ·A + (1 − λ)(1 − 2M), M = |attack accuracy − 0.5|: utility and forgetting in one figure, higher is better.

    Source: Towards Machine Unlearning Benchmarks, AAAI 2024 PPAI workshop.

    >>> round(nomus(0.5951, 0.5 + 0.2136), 4)
    0.5839
    """
    return float(weight * utility + (1 - weight) * (1 - 2 * abs(attack_accuracy - 0.5)))
