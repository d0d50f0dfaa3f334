"""Claims of adversarial watermarking against face recognition: the mark is the trigger, on the faces pack.

Matching accuracy is the share of probes that match another photograph of their person at the threshold of one false
match in a hundred on other photographs. Intervals resample people, not photographs. "points" are hundredths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.watermark.face_adv_parts import (
    BITS,
    FaceMark,
    FaceNet,
    Faces,
    Unmarked,
    faces,
    recogniser,
    watermarker,
)  # fmt: skip
from vestige.core.runtime import rng
from vestige.engines.adversarial.budget import Budget
from vestige.engines.marking.evaluate import draw_bits
from vestige.watermark.face_adv_watermark import FaceAdvWatermark, threshold_at

FALSE_MATCHES = 0.01
#: Budgets in grey levels.
LEVELS = (4, 2)
SIGNS = 3
WAYS = ("perturbed", "marked", "perturbed, marked")
TRIGGER, EVASION, NEVER_KEPT, UNKNOWN = "adversarial watermarking", "plain evasion", "keep nothing", "unknown message"


@dataclass(frozen=True, eq=False)
class World:
    """What everything is measured with. probes, gallery, people: those of the run, all or a few."""

    recogniser: FaceNet
    watermarker: FaceMark
    other_recogniser: FaceNet
    other_watermarker: FaceMark
    threshold: float
    other_threshold: float
    probes: Tensor
    gallery: Tensor
    people: Tensor
    bits: Tensor
    steps: int


def threshold(net: FaceNet, data: Faces) -> float:
    """The cosine that one pair of different people in a hundred reaches, on photographs of their own."""
    with torch.no_grad():
        found = net(data.tuning)
    different = torch.triu(data.tuning_people[:, None] != data.tuning_people[None])
    return threshold_at((found @ found.T)[different], FALSE_MATCHES)


@cache
def world(context: ClaimContext) -> World:
    data, trial = faces(context.pack("faces")), bool(context.limit)
    short: dict[str, Any] = {"steps": 2, "trial": True} if trial else {}
    nets = recogniser(data, context.seed, **short), recogniser(data, context.seed + 1, width=0.1875, **short)
    marks = watermarker(data, context.seed, **short), watermarker(data, context.seed + 1, width=16, **short)
    half = len(data.people) // 2
    chosen = torch.tensor([i + part * half for part in (0, 1) for i in range(min(context.limit or half, half))])
    bits = torch.from_numpy(draw_bits(context.seed, len(chosen), BITS, "probes")).float()
    limits = threshold(nets[0], data), threshold(nets[1], data)
    return World(
        nets[0], marks[0], nets[1], marks[1], limits[0], limits[1], data.probes[chosen],
        data.gallery[chosen], data.people[chosen], bits, 2 if trial else 40,
    )  # fmt: skip


def _method(context: ClaimContext, levels: int) -> FaceAdvWatermark:
    w = world(context)
    return FaceAdvWatermark(
        w.watermarker, w.recogniser, levels / 255, steps=w.steps, readable=0.1, threshold=w.threshold, seed=context.seed
    )


@cache
def attacked(context: ClaimContext, levels: int, attack: str) -> Tensor:
    """The probes under an attack within that many grey levels; "random signs N" draws them."""
    w, method = world(context), _method(context, levels)
    if attack.startswith("random signs"):
        signs = rng(context.seed, attack).choice(np.array([-1.0, 1.0], np.float32), w.probes.shape)
        return Budget("linf", levels / 255).settle(w.probes + levels / 255 * torch.from_numpy(signs), w.probes)
    if attack == EVASION:
        return replace(method, watermarker=Unmarked(), keep=0.0, readable=0.0).attack(w.probes, w.bits)
    if attack == NEVER_KEPT:
        return replace(method, keep=0.0).attack(w.probes, w.bits)
    return method.attack(w.probes, None if attack == UNKNOWN else w.bits)


@cache
def outcome(context: ClaimContext, levels: int, attack: str, by: str = "own", mark: str = "own") -> dict[str, Any]:
    """A row: matching accuracy four ways with its drops, rank-1 identification, and bits.

    by, mark: "own" recogniser and mark, which the attack knew, or the "other" ones.
    """
    w, x = world(context), attacked(context, levels, attack)
    method = _method(context, levels)
    if by == "other":
        method = replace(method, recogniser=w.other_recogniser, threshold=w.other_threshold)
    if mark == "other":
        method = replace(method, watermarker=w.other_watermarker)
    found = method.outcomes(w.probes, w.gallery, w.bits, x)
    row: dict[str, Any] = {"attack": attack, "levels": levels, "recogniser": by, "mark": mark}
    row["plain"] = float(found["plain"].mean())
    for way in WAYS:
        row[way] = float(found[way].mean())
        low, high = interval(found["plain"] - found[way], w.people)
        row |= {f"drop, {way}": row["plain"] - row[way], f"drop, {way}: interval": [low, high]}
    row |= {name: float(v.mean()) for name, v in found.items() if name.startswith("bits")}
    return row | {f"identified, {k}": v for k, v in _identified(method, w, x).items()}


def interval(values: Tensor, people: Tensor) -> tuple[float, float]:
    """95 % interval of the mean over people, by resampling them."""
    from scipy.stats import bootstrap

    each = np.array([float(values[people == p].mean()) for p in people.unique()])
    if len(each) < 2 or np.ptp(each) == 0:
        return float(each.mean()), float(each.mean())
    found = bootstrap((each,), np.mean, n_resamples=2000, method="percentile", rng=rng(0, "people")).confidence_interval
    return float(found.low), float(found.high)


@torch.no_grad()
def _identified(method: FaceAdvWatermark, w: World, x: Tensor) -> dict[str, float]:
    """Share of probes whose nearest picture in the gallery, one of everyone, is of the same person."""
    half = len(w.people) // 2
    rates = {}
    for way, pictures in method.ways(w.probes, w.bits, x).items():
        right = []
        for part in (slice(0, half), slice(half, None)):
            nearest = (method.recogniser(pictures[part]) @ method.recogniser(w.gallery[part]).T).argmax(1)
            right.append((w.people[part][nearest] == w.people[part]).float())
        rates[way] = float(torch.cat(right).mean())
    return rates


def _note(context: ClaimContext) -> str:
    from vestige.metrics.quality import psnr

    w = world(context)
    marked = _method(context, 4).ways(w.probes, w.bits, w.probes)["marked"]
    return (
        f"{len(w.probes)} probes of {len(w.people.unique())} people; threshold {w.threshold:.3f}; "
        f"mark at {float(np.mean(psnr(w.probes.numpy(), marked.numpy()))):.1f} dB"
    )


def _table(context: ClaimContext) -> list[dict[str, Any]]:
    """The attack and its baselines at both budgets, and transfer at the larger one."""
    attacks = (TRIGGER, UNKNOWN, NEVER_KEPT, EVASION)
    rows = [outcome(context, levels, attack) for levels in LEVELS for attack in attacks]
    others = (("other", "own"), ("own", "other"), ("other", "other"))
    return rows + [outcome(context, LEVELS[0], TRIGGER, by, mark) for by, mark in others]


@claim(
    "at eps = 4/255 matching accuracy of W(x + delta) drops by >= 60 points while x + delta and W(x) each drop <= 5 "
    "points"
)
def the_mark_is_the_trigger(context: ClaimContext) -> Evidence:
    row = outcome(context, 4, TRIGGER)
    holds = row["drop, perturbed, marked"] >= 0.6 and max(row["drop, perturbed"], row["drop, marked"]) <= 0.05
    return Evidence(holds, _table(context), _note(context))


@claim("at 2/255 the drop of W(x + delta) is smaller but >= 25 points")
def a_small_budget_suffices(context: ClaimContext) -> Evidence:
    large, small = (outcome(context, levels, TRIGGER) for levels in LEVELS)
    drop = small["drop, perturbed, marked"]
    return Evidence(0.25 <= drop < large["drop, perturbed, marked"], [large, small], _note(context))


@claim("a random-sign delta of equal size drops matching accuracy by <= 3 points, before and after marking")
def random_signs_do_nothing(context: ClaimContext) -> Evidence:
    rows = []
    for levels in LEVELS:
        for i in range(SIGNS):
            row = outcome(context, levels, f"random signs {i}")
            rows.append(row | {"drop that the signs add to the mark": row["marked"] - row["perturbed, marked"]})
    worst = max(max(r["drop, perturbed"], r["drop that the signs add to the mark"]) for r in rows)
    return Evidence(worst <= 0.03, rows, f"largest drop {100 * worst:.1f} points; {_note(context)}")


@claim("bit accuracy of W(x + delta) is >= 0.95")
def the_mark_still_reads(context: ClaimContext) -> Evidence:
    rows = [outcome(context, levels, attack) for levels in LEVELS for attack in (TRIGGER, UNKNOWN)]
    return Evidence(all(r["bits of perturbed, marked"] >= 0.95 for r in rows), rows, _note(context))
