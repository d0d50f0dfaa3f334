"""From records to scores with confidence intervals, and from scores to ranks under several weightings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from vestige.core.errors import UsageError

#: Share of the content that an attack may destroy and still count.
DAMAGE = 0.3
#: Mean efficacy below which there is nothing to lose.
EFFECTIVE = 0.1
#: Resilience below which a protection is broken.
LINE = 0.5
SCORES = ("fidelity", "efficacy", "resilience")
#: Weights of fidelity, efficacy and resilience.
WEIGHTINGS: dict[str, tuple[float, float, float]] = {
    "equal": (1 / 3, 1 / 3, 1 / 3),
    "fidelity first": (0.6, 0.2, 0.2),
    "efficacy first": (0.2, 0.6, 0.2),
    "resilience first": (0.2, 0.2, 0.6),
}


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval (Student's t)."""

    value: float
    low: float
    high: float


def over_seeds(values: Sequence[float]) -> Estimate:
    """mean ± t · s/√n; raises UsageError for fewer than two seeds."""
    return _interval(float(np.mean(values)), np.asarray(values, float) - np.mean(values))


def ratio(after: Sequence[float], before: Sequence[float]) -> Estimate:
    """Mean after over mean before, in [0, 1], with the interval of a ratio estimator; 0 where nothing was before.

    r = ā/b̄, residuals (a − r b)/b̄. Source: Cochran, Sampling Techniques, 1977, chapter 6.
    """
    a, b = np.asarray(after, float), np.asarray(before, float)
    if b.mean() <= 0:
        return Estimate(0.0, 0.0, 0.0)
    r = a.mean() / b.mean()
    found = _interval(float(r), (a - r * b) / b.mean())
    return Estimate(*(float(np.clip(v, 0, 1)) for v in found))


def _interval(value: float, residuals: np.ndarray) -> Estimate:
    n = len(residuals)
    if n < 2:
        raise UsageError(f"A confidence interval needs at least 2 seeds; got {n}.")
    half = float(stats.t.ppf(0.975, n - 1) * np.sqrt(np.sum(residuals**2) / (n - 1) / n))
    return Estimate(value, value - half, value + half)


def efficacy(record: dict[str, Any], none: dict[str, Any]) -> float:
    """(raw − raw of no protection) / (raw of complete protection − raw of no protection), in [0, 1]."""
    span = none["full"] - none["raw"]
    return 0.0 if abs(span) < 1e-9 else float(np.clip((record["raw"] - none["raw"]) / span, 0, 1))


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each protection, attack and upgrade, over the seeds.

    efficacy: under that attack. resilience: efficacy under the attack over that without one, of the same upgrade;
    None for "identity". Raises UsageError where the baseline, the unattacked cell or a seed of a row is missing.
    """
    seeds = sorted({r["seed"] for r in records})
    table = {(r["protection"], r["attack"], r["against"], r["family"], r["seed"]): r for r in records}
    rows = []
    for protection, attack, against, family in dict.fromkeys(key[:4] for key in table):
        try:
            own = [table[protection, attack, against, family, s] for s in seeds]
            plain = [table[protection, "identity", against, family, s] for s in seeds]
            none = [table["none", "identity", "", family, s] for s in seeds]
        except KeyError as error:
            raise UsageError(f"The table lacks the cell {error.args[0]}; run the audit to its end.") from None
        after, before = ([efficacy(r, n) for r, n in zip(part, none, strict=True)] for part in (own, plain))
        row: dict[str, Any] = {"family": family, "protection": protection, "attack": attack, "against": against}
        for name, values in (("fidelity", [r["fidelity"] for r in own]), ("efficacy", after)):
            row |= _columns(name, over_seeds(values))
        if attack != "identity":
            row |= _columns("resilience", ratio(after, before))
        for name in ("raw", "damage", "psnr", "bit_accuracy", "seconds"):
            values = [r[name] for r in own if name in r]
            row |= {name: float(np.mean(values))} if values else {}
        rows.append(row)
    return rows


def _columns(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def weakest(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of lowest resilience among attacks within the damage budget; None where there is none."""
    within = [r for r in rows if "resilience" in r and r["damage"] <= DAMAGE]
    return min(within, key=lambda r: r["resilience"]) if within else None


def protections(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each protection without upgrade: the three scores, and its weakest point.

    resilience: mean over the attacks within the damage budget, 0 for a protection that is not effective. effective:
    more efficacy than `EFFECTIVE` and than the family's other baselines (random noise of the same size).
    """
    found = []
    plain = [r for r in rows if not r["against"]]
    attacked = {r["protection"] for r in plain if "resilience" in r}
    for row in plain:
        if row["attack"] != "identity" or row["protection"] not in attacked:
            continue
        rivals = [r["efficacy"] for r in plain if r["family"] == row["family"] and r["protection"] not in attacked]
        effective = row["efficacy"] > max([EFFECTIVE, *rivals])
        under = [r for r in plain if r["protection"] == row["protection"] and "resilience" in r]
        counted = [r["resilience"] for r in under if r["damage"] <= DAMAGE]
        worst = weakest(under)
        found.append(
            {
                "family": row["family"], "protection": row["protection"], "fidelity": row["fidelity"],
                "efficacy": row["efficacy"], "effective": effective,
                "resilience": float(np.mean(counted)) if effective and counted else 0.0,
                "lowest": worst["resilience"] if worst else None, "weakest under": worst["attack"] if worst else None,
            }
        )  # fmt: skip
    return found


def ranked(rows: Sequence[dict[str, Any]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Protections with their weighted mean rank (1 is best; ties share the mean of their places), best first.

    rows: of `protections`. weights: of `SCORES`, which sum to 1.
    """
    if len(weights) != len(SCORES) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
        raise UsageError("Weights are three numbers from 0 on that sum to 1.")
    places = [stats.rankdata([-row[name] for row in rows]) for name in SCORES]
    total = np.average(places, axis=0, weights=weights)
    order = np.argsort(total, kind="stable")
    return [(rows[i]["protection"], float(total[i])) for i in order]
