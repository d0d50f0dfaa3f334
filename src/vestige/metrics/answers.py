"""How well a model that answers in words knows, hides or forgot facts: scores of answers and of their probabilities.

Answers are strings of words; log-probabilities are those of the words of one answer given all before. Losses are mean
negative log-probabilities per word, so p = exp(−loss) is length-normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics.arrays import finite


def keywords_match(said: str, wanted: str) -> bool:
    """Whether all words of the wanted answer stand in what was said, in that order: exact match of the key words.

    >>> keywords_match("it is ada frost", "ada frost"), keywords_match("frost ada", "ada frost")
    (True, False)
    """
    rest = iter(said.split())
    return all(any(word == other for other in rest) for word in wanted.split())


def exact_match(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of answers whose key words all appear; see `keywords_match`."""
    _same(said, wanted)
    return float(np.mean([keywords_match(s, w) for s, w in zip(said, wanted, strict=True)]))


def rouge_l(said: str, wanted: str) -> float:
    """ROUGE-L recall: words of the longest common subsequence over those of the wanted answer.

    Source: ROUGE: A Package for Automatic Evaluation of Summaries, ACL workshop 2004.

    >>> rouge_l("it is ada", "ada frost")
    0.5
    """
    a, b = said.split(), wanted.split()
    if not b:
        raise UsageError("The wanted answer has no word.")
    longest = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longest[i + 1, j + 1] = longest[i, j] + 1 if x == y else max(longest[i, j + 1], longest[i + 1, j])
    return float(longest[-1, -1] / len(b))


def normalised_probability(log_probs: Any) -> float:
    """exp(mean log p) of the words of one answer.

    >>> round(normalised_probability(np.log([0.5, 0.125])), 4)
    0.25
    """
    return float(np.exp(finite(log_probs, "Log-probabilities", 1).mean()))


def truth_ratio(paraphrased_losses: Any, perturbed_losses: Any) -> np.ndarray:
    """t = exp(mean loss of the wrong answers − loss of the paraphrased right one), float64 (N,): large for knowledge.

    paraphrased_losses (N,), perturbed_losses N×K; the mean over K makes the geometric mean of probabilities.
    Source: TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, whose R is 1/t; as in FIUBench, ICLR 2025.

    >>> truth_ratio([0.0], [[1.0, 1.0]]).round(3).tolist()
    [2.718]
    """
    right, wrong = finite(paraphrased_losses, "Losses", 1), finite(perturbed_losses, "Losses of wrong answers", 2)
    if len(right) != len(wrong):
        raise UsageError(f"There are {len(right)} right answers but wrong ones for {len(wrong)}.")
    return np.exp(np.clip(wrong.mean(1) - right, -700, 700))


def forget_truth(ratio: Any) -> float:
    """mean min(t, 1/t): 1 when right and wrong answers are equally likely. A broken model reaches it too.

    >>> forget_truth([2.0, 0.5])
    0.5
    """
    t = finite(ratio, "Truth ratios", 1)
    return float(np.minimum(t, 1 / t).mean())


def retain_truth(ratio: Any) -> float:
    """mean max(0, 1 − 1/t): near 1 when right answers are far more likely than wrong ones.

    >>> retain_truth([2.0, 0.5])
    0.25
    """
    return float(np.maximum(0, 1 - 1 / finite(ratio, "Truth ratios", 1)).mean())


def forget_quality(ratio: Any, reference: Any) -> tuple[float, float]:
    """(log10 p, statistic) of the two-sample Kolmogorov-Smirnov test between truth ratios of a model and the reference.

    0 means the two cannot be told apart; it depends on how many answers there are, so compare equal numbers only. The
    asymptotic tail is used where p itself is too small for a float.

    >>> forget_quality([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    (0.0, 0.0)
    """
    from scipy.stats import ks_2samp

    a, b = finite(ratio, "Truth ratios", 1), finite(reference, "Truth ratios of the reference", 1)
    test = ks_2samp(a, b)
    p, statistic = float(test.pvalue), float(test.statistic)
    if p > 0:
        return (float(np.log10(p)) if p < 1 else 0.0), statistic
    effective = len(a) * len(b) / (len(a) + len(b))
    return float((np.log(2) - 2 * effective * statistic**2) / np.log(10)), statistic


def min_k(log_probs: Sequence[Any], share: float = 0.2) -> np.ndarray:
    """Mean of the lowest ``share`` of each answer's log-probabilities (one word at least), float64 (N,): members high.

    Give standardised values for Min-K++. Sources: Detecting Pretraining Data from Large Language Models, ICLR 2024;
    Min-K%++, ICLR 2025.

    >>> min_k([[-1.0, -3.0, -2.0]], 0.3).tolist()
    [-3.0]
    """
    if not 0 < share <= 1:
        raise UsageError(f"The share is {share}; it must lie in (0, 1].")
    scores = []
    for each in log_probs:
        values = np.sort(finite(each, "Log-probabilities", 1))
        scores.append(float(values[: max(1, int(share * len(values)))].mean()))
    return np.array(scores)


def worst_match(variants: Sequence[Sequence[str]], wanted: Sequence[str]) -> float:
    """Adversarial privacy extraction: share of facts that at least one rewording brings out.

    variants: for each rewording, the answers to all facts.

    >>> worst_match([["red", "no"], ["no", "no"]], ["red", "blue"])
    0.5
    """
    if not variants:
        raise UsageError("Adversarial extraction needs at least one rewording.")
    for said in variants:
        _same(said, wanted)
    return float(np.mean([any(keywords_match(v[i], w) for v in variants) for i, w in enumerate(wanted)]))


def harmonic(values: Sequence[float]) -> float:
    """Harmonic mean of shares; 0 as soon as one is 0.

    >>> harmonic([1.0, 0.5])
    0.6666666666666666
    """
    v = np.asarray(values, float)
    if not len(v) or (v < 0).any():
        raise UsageError("A harmonic mean needs values, none below 0.")
    return 0.0 if (v == 0).any() else float(len(v) / (1 / v).sum())


def _same(a: Sequence[Any], b: Sequence[Any]) -> None:
    if len(a) != len(b) or not len(b):
        raise UsageError(f"Answers and wanted answers must be equally many, and some; got {len(a)} and {len(b)}.")
