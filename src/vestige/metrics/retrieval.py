"""Figures of copy detection: one ranking of all pairs of queries and references, and ranks within a query.

Source: The 2021 Image Similarity Dataset and Challenge (micro average precision, recall at precision 0.9).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vestige.core.errors import UsageError


class CopyScores(NamedTuple):
    """micro_ap: average precision over all pairs in one ranking. recall_at_p90: highest recall with a precision of 0.9
    or more. recall_1, recall_10: share of true pairs whose reference is among the first of its query."""

    micro_ap: float
    recall_at_p90: float
    recall_1: float
    recall_10: float


def copy_scores(scores: np.ndarray, truth: np.ndarray) -> CopyScores:
    """Figures of a matrix of scores Q×R; truth: bool Q×R. Ties count against: false pairs are ranked first.

    Queries without a true pair belong in: they are what one threshold for all has to cope with. Raises UsageError for
    shapes that differ, scores that are not numbers, or no true pair.

    >>> copy_scores(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[True, False], [False, False]])).micro_ap
    1.0
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    if scores.shape != truth.shape or scores.ndim != 2 or np.isnan(scores).any() or not truth.any():
        raise UsageError("Scores and truth are matrices of one shape, without NaN and with a true pair.")
    flat, is_true = scores.ravel(), truth.ravel()
    order = np.lexsort((is_true, -flat))
    ranked = is_true[order]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    total = int(hits[-1])
    good = precision >= 0.9
    queries, references = np.nonzero(truth)
    own = scores[queries, references][:, None]
    rivals = (scores[queries] >= own) & ~truth[queries]
    ranks = rivals.sum(1)
    return CopyScores(
        float((precision * ranked).sum() / total),
        float(hits[good].max() / total) if good.any() else 0.0,
        float((ranks < 1).mean()),
        float((ranks < 10).mean()),
    )
