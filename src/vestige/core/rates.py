"""What a count of false alarms says about their rate, and the words every report uses for it."""

from __future__ import annotations

import math

#: Confidence of every bound and interval stated.
CONFIDENCE = 0.95


def upper_bound(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of a share of which ``hits`` of ``trials`` were seen; near 3 / trials where none was.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934.

    >>> round(100 * upper_bound(0, 2300), 2)
    0.13
    """
    if trials < 1 or hits >= trials:
        return 1.0
    if hits <= 0:
        return float(1 - (1 - confidence) ** (1 / trials))
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, trials - hits, confidence))


def interval(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided Clopper–Pearson interval of a share.

    >>> [round(bound, 3) for bound in interval(2, 100)]
    [0.002, 0.07]
    """
    if trials < 1:
        return 0.0, 1.0
    from scipy.special import betaincinv

    rest = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, trials - hits + 1, rest))
    return low, 1.0 if hits >= trials else float(betaincinv(hits + 1, trials - hits, 1 - rest))


def share(value: float) -> str:
    """A small share in per cent, two significant digits, no less than there are.

    >>> share(0.0013), share(0.0386), share(0.31), share(1.0)
    ('0.13%', '3.9%', '31%', '100%')
    """
    per_cent = 100 * value
    if 0 < per_cent < 0.01:
        return "<0.01%"
    digits = 0 if per_cent >= 10 else 1 if per_cent >= 1 else 2
    return f"{per_cent:.{digits}f}%"


def rate_brief(rate: float | None, trials: int | None = None) -> str:
    """A false-alarm rate for a column: a bound where none was seen, "–" where nobody counted.

    >>> rate_brief(0.0, 2310), rate_brief(0.00388, 2321), rate_brief(0.02), rate_brief(None), rate_brief(0.0)
    ('<0.13%', '0.39%', '2.0%', '–', '–')
    """
    if rate is None or not math.isfinite(rate) or (rate <= 0 and not trials):
        return "–"
    if rate <= 0 and trials:
        return f"<{share(upper_bound(0, trials))}"
    return share(rate)


def rate_words(rate: float | None, trials: int | None = None) -> str:
    """A false-alarm rate in a sentence, with its bound or interval; empty where nobody counted.

    >>> rate_words(0.0, 2310)
    '0 of 2,310 photographs without the trace reach the threshold: below 0.13%.'
    >>> rate_words(0.00388, 2321)
    '9 of 2,321 photographs without the trace reach the threshold: 0.39% (0.18% to 0.73%).'
    """
    if rate is None or not math.isfinite(rate) or (rate <= 0 and not trials):
        return ""
    who = "photographs without the trace reach the threshold"
    if not trials:
        return f"About {share(rate)} of {who}."
    hits = round(rate * trials)
    if hits <= 0:
        return f"0 of {trials:,} {who}: below {share(upper_bound(0, trials))}."
    low, high = interval(hits, trials)
    return f"{hits:,} of {trials:,} {who}: {share(rate)} ({share(low)} to {share(high)})."
