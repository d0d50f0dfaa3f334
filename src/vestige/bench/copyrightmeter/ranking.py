"""From records to scores with confidence intervals, and from scores to ranks under several weightings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.watermark.copyrightmeter.scores import efficacy, over_seeds, ratio

#: Share of the content that an attack may destroy and still count.
DAMAGE = 0.3
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


def efficacies(
    records: Sequence[dict[str, Any]], protection: str, attack: str, against: str, family: str, seeds: Sequence[int]
) -> list[float]:
    """`scores.efficacy` of a protection under an attack, a value a seed. Raises UsageError where a cell is missing."""
    table = {(r["protection"], r["attack"], r["against"], r["family"], r["seed"]): r for r in records}
    return _efficacies(table, protection, attack, against, family, seeds)


def _efficacies(
    table: dict[tuple[Any, ...], dict[str, Any]], protection: str, attack: str, against: str, family: str,
    seeds: Sequence[int],
) -> list[float]:  # fmt: skip
    try:
        found = []
        for s in seeds:
            own, none = table[protection, attack, against, family, s], table["none", attack, "", family, s]
            before = table["none", "identity", "", family, s]
            found.append(efficacy(own["raw"], none["raw"], before["raw"], before["full"]))
        return found
    except KeyError as error:
        raise UsageError(f"The table lacks the cell {error.args[0]}; run the audit to its end.") from None


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each protection, attack and upgrade, over the seeds.

    efficacy: over nothing protected, under the same attack. resilience: efficacy under the attack over that without
    one, of the same upgrade; None for "identity". lost: what the attack takes beyond `LINE` of the efficacy, positive
    for a protection that it breaks; its interval is that of all attacks on the protection together (Bonferroni).
    Raises UsageError where the baseline, the unattacked cell or a seed of a row is missing.
    """
    seeds = sorted({r["seed"] for r in records})
    table = {(r["protection"], r["attack"], r["against"], r["family"], r["seed"]): r for r in records}
    rows = []
    for protection, attack, against, family in dict.fromkeys(key[:4] for key in table):
        after, before = (_efficacies(table, protection, name, against, family, seeds) for name in (attack, "identity"))
        own = [table[protection, attack, against, family, s] for s in seeds]
        row: dict[str, Any] = {"family": family, "protection": protection, "attack": attack, "against": against}
        for name, values in (("fidelity", [r["fidelity"] for r in own]), ("efficacy", after)):
            row |= _columns(name, over_seeds(values))
        if attack != "identity":
            row |= _columns("resilience", ratio(after, before))
            tried = max(1, len({key[1] for key in table if key[:1] == (protection,)} - {"identity"}))
            lost = [LINE * b - a for a, b in zip(after, before, strict=True)]
            row |= _columns("lost", over_seeds(lost, 1 - 0.05 / tried))
        for name in ("raw", "damage", "psnr", "bit_accuracy", "seconds"):
            values = [r[name] for r in own if name in r]
            row |= {name: float(np.mean(values))} if values else {}
        rows.append(row)
    return rows


def _columns(name: str, found: Any) -> dict[str, float]:
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def weakest(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of lowest resilience among attacks within the damage budget; None where there is none."""
    within = [r for r in rows if "resilience" in r and r["damage"] <= DAMAGE]
    return min(within, key=lambda r: r["resilience"]) if within else None


def protections(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each protection without upgrade: the three scores, and its weakest point.

    effective: the interval of its efficacy lies above 0 (nothing protected) and its efficacy above that of the family's
    other baselines (random noise of the same size). resilience: mean over the attacks within the damage budget, 0 for a
    protection that is not effective. broken: an attack within the budget takes more than half of the efficacy, by the
    interval.
    """
    found = []
    plain = [r for r in rows if not r["against"] and r["protection"] != "none"]
    attacked = {r["protection"] for r in plain if "resilience" in r}
    for row in plain:
        if row["attack"] != "identity" or row["protection"] not in attacked:
            continue
        rivals = [r["efficacy"] for r in plain if r["family"] == row["family"] and r["protection"] not in attacked]
        effective = row["efficacy low"] > 0 and row["efficacy"] > max([0.0, *rivals])
        under = [r for r in plain if r["protection"] == row["protection"] and "resilience" in r]
        counted = [r["resilience"] for r in under if r["damage"] <= DAMAGE]
        worst = weakest(under)
        found.append(
            {
                "family": row["family"], "protection": row["protection"], "fidelity": row["fidelity"],
                "efficacy": row["efficacy"], "efficacy low": row["efficacy low"],
                "efficacy high": row["efficacy high"], "effective": effective,
                "resilience": float(np.mean(counted)) if effective and counted else 0.0,
                "lowest": worst["resilience"] if worst else None, "weakest under": worst["attack"] if worst else None,
                "broken": effective and any(r["lost low"] > 0 for r in under if r["damage"] <= DAMAGE),
            }
        )  # fmt: skip
    return found


def ranked(rows: Sequence[dict[str, Any]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Protections with their weighted mean rank (1 is best; ties share the mean of their places), best first.

    rows: of `protections`; the scores of different families do not compare, so give those of one. weights: of `SCORES`,
    which sum to 1.
    """
    if len(weights) != len(SCORES) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
        raise UsageError("Weights are three numbers from 0 on that sum to 1.")
    places = [stats.rankdata([-row[name] for row in rows]) for name in SCORES]
    total = np.average(places, axis=0, weights=weights)
    order = np.argsort(total, kind="stable")
    return [(rows[i]["protection"], float(total[i])) for i in order]


def best(listed: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """family -> weighting -> the best of its effective protections; families with fewer than two of them are left out.

    listed: rows of `protections`.
    """
    found = {}
    for family in dict.fromkeys(p["family"] for p in listed):
        own = [p for p in listed if p["family"] == family and p["effective"]]
        if len(own) >= 2:
            found[family] = {name: ranked(own, weights)[0][0] for name, weights in WEIGHTINGS.items()}
    return found


def changes_with_weights(records: Sequence[dict[str, Any]], draws: int = 200, seed: int = 0) -> float:
    """Share of resamplings of the seeds in which some family's best protection is not the same under all weightings.

    Which protections are effective is settled by all seeds together.
    """
    seeds = sorted({r["seed"] for r in records})
    effective = {p["protection"] for p in protections(summary(records)) if p["effective"]}
    by_seed = {s: [r for r in records if r["seed"] == s] for s in seeds}
    generator, changed = rng(seed, "resampled seeds"), 0
    for _ in range(draws):
        drawn = generator.choice(seeds, len(seeds))
        again = [{**r, "seed": i} for i, s in enumerate(drawn) for r in by_seed[int(s)]]
        listed = [{**p, "effective": p["protection"] in effective} for p in protections(summary(again))]
        changed += any(len(set(places.values())) > 1 for places in best(listed).values())
    return changed / draws
