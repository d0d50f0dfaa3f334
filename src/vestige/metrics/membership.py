"""Membership inference: was a sample in the training set? Scores from per-example statistics, higher for members.

Inputs are arrays of what models said about N samples, so the attacks work for any model. Report `membership_summary`
(area under the curve and true-positive rates at low false-positive rates), never accuracy alone. Every function raises
UsageError for wrong shapes and InputError for values that are not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics import detection
from vestige.metrics.arrays import classes, finite, probabilities

TINY = 1e-30


def _classified(probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    probs = probabilities(probs, "Probabilities")
    return probs, classes(labels, "Labels", len(probs), probs.shape[1])


def confidence_score(probs: Any, labels: Any) -> np.ndarray:
    """p_y, the probability of the true class, float64 (N,). probs: N×K; labels: int (N,).

    >>> confidence_score([[0.2, 0.8]], [1]).tolist()
    [0.8]
    """
    probs, labels = _classified(probs, labels)
    return probs[np.arange(len(probs)), labels]


def loss_score(losses: Any) -> np.ndarray:
    """−loss (N,): members have been fitted. Source: Yeom et al., Privacy risk in machine learning, CSF 2018.

    >>> loss_score([0.5]).tolist()
    [-0.5]
    """
    return -finite(losses, "Losses", 1)


def entropy_score(probs: Any) -> np.ndarray:
    """Σ_k p_k log p_k, the negative entropy in nats (N,): members are predicted with certainty; needs no labels.

    Source: Salem et al., ML-Leaks, NDSS 2019.

    >>> entropy_score([[1.0, 0.0]]).tolist()
    [0.0]
    """
    from scipy.special import xlogy

    probs = probabilities(probs, "Probabilities")
    return xlogy(probs, probs).sum(1)


def modified_entropy_score(probs: Any, labels: Any) -> np.ndarray:
    """(1 − p_y) log p_y + Σ_{k≠y} p_k log(1 − p_k) (N,): as certain as the entropy, but only the true class pays.

    Source: Song and Mittal, Systematic evaluation of privacy risks of machine learning models, USENIX Security 2021.

    >>> bool(modified_entropy_score([[0.9, 0.1]], [0]) > modified_entropy_score([[0.9, 0.1]], [1]))
    True
    """
    probs, labels = _classified(probs, labels)
    rows = np.arange(len(probs))
    true = probs[rows, labels]
    others = probs * np.log(np.maximum(1 - probs, TINY))
    others[rows, labels] = 0
    return (1 - true) * np.log(np.maximum(true, TINY)) + others.sum(1)


def scaled_confidence(logits: Any, labels: Any) -> np.ndarray:
    """φ = log(p_y / (1 − p_y)) = z_y − log Σ_{k≠y} exp z_k (N,), the statistic LiRA expects: close to Gaussian.

    logits: N×K, K ≥ 2; labels: int (N,). Computed from logits, because 1 − p_y underflows for confident models.

    >>> scaled_confidence([[50.0, 0.0]], [0]).tolist()
    [50.0]
    """
    from scipy.special import logsumexp

    logits = finite(logits, "Logits", 2)
    if logits.shape[1] < 2:
        raise UsageError(f"Logits must have at least two classes; got shape {logits.shape}.")
    labels = classes(labels, "Labels", len(logits), logits.shape[1])
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels] - logsumexp(others, axis=1)


def _shadows(target: Any, shadow: Any, member: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    target = np.asarray(target, np.float64)
    target = finite(target[:, None] if target.ndim == 1 else target, "Target statistics", 2)
    shadow = np.asarray(shadow, np.float64)
    shadow = finite(shadow[..., None] if shadow.ndim == 2 else shadow, "Shadow statistics", 3)
    member = np.asarray(member)
    if shadow.shape[1:] != target.shape or member.dtype != bool or member.shape != shadow.shape[:2]:
        raise UsageError(
            f"With N samples, K shadow models and A augmentations, the target is N×A, the shadows K×N×A, membership "
            f"bool K×N; got {target.shape}, {shadow.shape} and {member.dtype} {member.shape}."
        )
    return target, shadow, member


def _moments(values: np.ndarray, chosen: np.ndarray, what: str, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation N×A over the chosen models of K×N×A; pooled: one deviation for all samples."""
    count = chosen.sum(0)[:, None]
    needed = 1 if pooled else 2
    if count.min() < needed or (pooled and count.sum() == len(count)):
        raise UsageError(
            f"Every sample must be {what} of at least {needed} shadow models (some of two); "
            f"sample {int(count.argmin())} is {what} of {int(count.min())}."
        )
    weight = chosen[..., None]
    mean = (values * weight).sum(0) / count
    squares = (((values - mean) * weight) ** 2).sum(0)
    variance = squares.sum(0) / (count.sum() - len(count)) if pooled else squares / (count - 1)
    return mean, np.maximum(np.sqrt(np.broadcast_to(variance, mean.shape)), 1e-6)


def lira(
    target: Any, shadow: Any, member: Any, *, online: bool = True, pooled_variance: bool | None = None
) -> np.ndarray:
    """Likelihood-ratio attack: compare the target's statistic with shadow models trained with and without the sample.

    online:  log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²), averaged over augmentations
    offline: −log P(Z ≥ φ), Z ~ N(μ_out, σ_out²), on the mean over augmentations; uses no model that saw the sample

    target: φ of the target model, N or N×A for A augmentations (`scaled_confidence`). shadow: φ of K shadow models,
    K×N or K×N×A. member: bool K×N, whether shadow model k was trained on sample n. pooled_variance: one variance
    within samples for all of them, steadier with few models; by default with fewer than 64. Returns float64 (N,).
    Raises UsageError when a sample lacks shadow models of a kind that is needed. Source: Carlini et al., Membership
    inference attacks from first principles, IEEE S&P 2022.

    >>> shadow = np.array([[2.0], [3.0], [0.0], [1.0]])
    >>> member = np.array([[True], [True], [False], [False]])
    >>> bool(lira([2.5], shadow, member)[0] > 0 > lira([0.5], shadow, member)[0])
    True
    """
    from scipy.stats import norm

    target, shadow, member = _shadows(target, shadow, member)
    pooled = len(shadow) < 64 if pooled_variance is None else pooled_variance
    if not online:
        target, shadow = target.mean(1, keepdims=True), shadow.mean(2, keepdims=True)
        mean, std = _moments(shadow, ~member, "a non-member", pooled)
        return -norm.logsf(target, mean, std)[:, 0]
    inside = _moments(shadow, member, "a member", pooled)
    outside = _moments(shadow, ~member, "a non-member", pooled)
    return (norm.logpdf(target, *inside) - norm.logpdf(target, *outside)).mean(1)


def rmia(
    target: Any,
    reference: Any,
    target_population: Any,
    reference_population: Any,
    *,
    member: Any = None,
    gamma: float = 2.0,
    offline_scale: float = 0.3,
) -> np.ndarray:
    """Robust membership inference: share of population samples z that x dominates, in [0, 1], float64 (N,).

    score(x) = share of z with LR(x, z) ≥ γ,   LR(x, z) = [p(x|θ) / p(x)] / [p(z|θ) / p(z)]

    target: p(x|θ) of the true class, (N,) in (0, 1]. reference: the same from K reference models, K×N.
    target_population, reference_population: (M,) and K×M for samples that are in no training set.
    member (online): bool K×N, which reference models saw which sample; p(x) = ½ (mean over those + mean over the
    others), p(z) = mean over all. Without it (offline; no reference model saw any sample) p = ½ ((1 + a) p_out + 1 − a)
    for x and z, with a = ``offline_scale``, tuned on a pair of reference models. One reference model is enough.
    Raises UsageError for wrong shapes, probabilities outside (0, 1] or γ not positive. Source: Zarifzadeh et al.,
    Low-cost high-power membership inference attacks, ICML 2024.

    >>> rmia([0.9, 0.1], [[0.1, 0.1]], [0.1, 0.2], [[0.1, 0.2]]).tolist()
    [1.0, 0.0]
    """
    x, z = finite(target, "Target probabilities", 1), finite(target_population, "Population probabilities", 1)
    rx, rz = finite(reference, "Reference probabilities", 2), finite(reference_population, "Population references", 2)
    if rx.shape[1:] != x.shape or rz.shape != (len(rx), len(z)):
        raise UsageError(
            f"With K reference models, references are K×N and K×M for N samples and M population samples; "
            f"got {rx.shape} and {rz.shape} for {len(x)} and {len(z)}."
        )
    if min(a.min() for a in (x, z, rx, rz)) < 0 or max(a.max() for a in (x, z, rx, rz)) > 1 or not gamma > 0:
        raise UsageError("Probabilities must lie in [0, 1] and gamma must be positive.")
    if member is None:
        if not 0 <= offline_scale <= 1:
            raise UsageError(f"offline_scale must lie in [0, 1]; got {offline_scale}.")
        px, pz = (0.5 * ((1 + offline_scale) * r.mean(0) + 1 - offline_scale) for r in (rx, rz))
    else:
        member = np.asarray(member)
        if member.dtype != bool or member.shape != rx.shape or member.all(0).any() or not member.any(0).all():
            raise UsageError(
                "Online, membership is bool K×N, and every sample is in some reference models and not in others."
            )
        inside = (rx * member).sum(0) / member.sum(0)
        outside = (rx * ~member).sum(0) / (~member).sum(0)
        px, pz = 0.5 * (inside + outside), rz.mean(0)
    ratio_x, ratio_z = x / np.maximum(px, TINY), np.sort(z / np.maximum(pz, TINY))
    return np.searchsorted(ratio_z, ratio_x / gamma, side="right") / len(z)


def membership_summary(members: Any, scores: Any) -> dict[str, float]:
    """The row that tables of attacks print: auc, tpr@1fpr, tpr@0.1fpr, and non_members, the size of the null.

    members: bool or 0/1 (N,). A rate below 1 / non_members cannot be shown: such a column is the rate at no false
    positive at all.

    >>> membership_summary([1, 0], [2.0, 1.0])["auc"]
    1.0
    """
    return {
        "auc": detection.auroc(members, scores),
        "tpr@1fpr": detection.tpr_at_fpr(members, scores, 0.01).tpr,
        "tpr@0.1fpr": detection.tpr_at_fpr(members, scores, 0.001).tpr,
        "non_members": float(len(np.asarray(members)) - np.asarray(members, bool).sum()),
    }
