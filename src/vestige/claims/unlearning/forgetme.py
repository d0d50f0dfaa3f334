"""Claims of ForgetMe: removal scored against the renderer's own picture without the thing, Entangled-D against known
series of edits, and the shipped small text-to-image model taught by LoRA that the word for a thing means its absence.

Scenes on textured ground, 64 pixels with two or three things; 32 pixels with one large thing where the diffusion model
is used, which has seen nothing else. All figures of a removal are inside the refined mask. The LoRA runs are those of
the recipe ``forgetme``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from vestige.bench.controls import Interval, over_seeds, paired
from vestige.bench.generation import runs
from vestige.bench.unlearning.emptied import pairs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.engines.runs import Need
from vestige.metrics.entangled import entangled, typical_replacement
from vestige.unlearning.forgetme import ForgetMe, refine

PAIRS, VALIDATION, SMALL = 150, 50, 32
#: Series of scenes: for figures and for r_0.
TEST, CHOICE = 90, 91
SEEDS = (0, 1, 2)
NEEDS = (Need("forgetme", ("default", "whole"), SEEDS),)
Rows = Sequence[Mapping[str, Any]]


def inside_psnr(made: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> float:
    """PSNR inside the masks, of the mean squared error over pictures."""
    errors = [np.square(m - t)[:, k[0]].mean() for m, t, k in zip(made, truth, masks, strict=True)]
    return float(-10 * np.log10(np.mean(errors)))


def each_psnr(made: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> list[float]:
    """PSNR inside the mask of each picture, at most 60 dB."""
    errors = [np.square(m - t)[:, k[0]].mean() for m, t, k in zip(made, truth, masks, strict=True)]
    return [float(-10 * np.log10(max(e, 1e-6))) for e in errors]


def mean_colour(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    made = images.copy()
    for image, mask in zip(made, masks[:, 0], strict=True):
        image[:, mask] = image[:, ~mask].mean(1)[:, None]
    return made


@cache
def removals(context: ClaimContext) -> list[dict[str, Any]]:
    table = []
    many = context.limit or PAIRS
    for size, count, options in (
        (64, many, {"n_objects": (2, 3)}), (32, min(many, SMALL), {"n_objects": 1, "object_size": "large"}),
    ):  # fmt: skip
        _, images, masks, truth = pairs(count, size, TEST + 10 * context.seed, **options)
        refined = np.stack([refine(m[0])[None] for m in masks])
        made = {"mean colour": mean_colour(images, refined), "not edited": images}
        for name in ("telea", "navier-stokes"):
            made[f"{name}, mask as given"] = ForgetMe(fill=name, feather=0, grow=0).erase(images, masks)[0]
            made[name] = ForgetMe(fill=name).erase(images, masks)[0]
        if size == 32:
            model = runs.pipeline()
            for suppress in (True, False):
                name = "diffusion" if suppress else "diffusion, attention open"
                eraser = ForgetMe(fill="diffusion", model=model, suppress=suppress, steps=12, repeats=2)
                made[name] = eraser.erase(images, masks)[0]
        table += [
            {
                "size": size,
                "removal": n,
                "pairs": count,
                "PSNR inside": inside_psnr(m, truth, refined),
                "dB": each_psnr(m, truth, refined),
            }
            for n, m in made.items()
        ]
    return table


def nearer(table: Sequence[Mapping[str, Any]], own: str) -> tuple[Interval, Interval]:
    """How many dB nearer to the truth than the mean colour and than Telea's fill of the given mask, over pictures."""
    of = {r["removal"]: r["dB"] for r in table if r["size"] == 64}
    return paired(of[own], of["mean colour"]), paired(of[own], of["telea, mask as given"])


@headline(
    "removal by refined mask and fill is nearer to the true picture without the thing than the mean colour, and than "
    "Telea's fill of the given mask, over pictures"
)
def removal_is_near_the_truth(context: ClaimContext) -> Evidence:
    table = removals(context)
    of = {(r["size"], r["removal"]): r["PSNR inside"] for r in table}
    own = ForgetMe().fill
    over, refining = nearer(table, own)
    holds = over.low > 0 and refining.low > 0
    note = (
        f"the default fill is {own}; over the mean colour {over} dB a picture, over the given mask {refining}; "
        "at 32 pixels the fill by diffusion "
        f"{of[32, 'diffusion']:.2f} dB with the hole's keys suppressed, "
        f"{of[32, 'diffusion, attention open']:.2f} without, {own} {of[32, own]:.2f}: the shipped model has only seen "
        "pictures with one large thing, so it is no inpainter"
    )
    return Evidence(holds, [{k: v for k, v in r.items() if k != "dB"} for r in table], note)


def edits(images: np.ndarray, masks: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Series from no edit to the true removal, inside the masks; and the removal with noise on the background."""
    made: dict[str, np.ndarray] = {}
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        part = np.zeros_like(masks)
        for mask, chosen in zip(masks[:, 0], part[:, 0], strict=True):
            rows, columns = np.nonzero(mask)
            keep = np.argsort(columns, kind="stable")[: round(share * len(columns))]
            chosen[rows[keep], columns[keep]] = True
        made[f"removed {share:g}"] = np.where(part, truth, images)
    noise = rng(seed, "background noise").standard_normal(images.shape)
    for level in (0.05, 0.1, 0.2):
        made[f"removed 1, noise {level:g}"] = np.where(masks, truth, (images + level * noise).clip(0, 1))
    return made


def replacement(context: ClaimContext) -> float:
    """r_0 from other pairs than those measured."""
    _, images, masks, truth = pairs(context.limit or VALIDATION, 64, CHOICE + 10 * context.seed, n_objects=(2, 3))
    return typical_replacement(images, truth, masks)


@claim("corrected Entangled-D orders no edit < half removed < removed, and noise on the background < none, with "
       "Kendall's tau >= 0.9 over the series; the released form does not")  # fmt: skip
def the_corrected_form_orders_edits(context: ClaimContext) -> Evidence:
    from scipy.stats import kendalltau

    _, images, masks, truth = pairs(context.limit or PAIRS, 64, TEST + 10 * context.seed, n_objects=(2, 3))
    replaced = replacement(context)
    made = edits(images, masks, truth, context.seed)
    table, tau, finer = [], {}, {}
    values = {
        variant: {n: entangled(images, m, masks, variant=variant, replaced=replaced) for n, m in made.items()}
        for variant in ("corrected", "released")
    }
    removal, steps = ["removed 0", "removed 0.5", "removed 1"], [n for n in made if "noise" not in n]
    damage = ["removed 1", *(n for n in made if "noise" in n)]
    for variant, by_name in values.items():
        for name, row in by_name.items():
            table.append({"variant": variant, "edit": name, **{k: float(v.mean()) for k, v in row.items()}})
        means = {n: float(row["D"].mean()) for n, row in by_name.items()}
        up = kendalltau(range(len(removal)), [means[n] for n in removal]).statistic
        finer[variant] = float(kendalltau(range(len(steps)), [means[n] for n in steps]).statistic)
        down = kendalltau(range(len(damage)), [-means[n] for n in damage]).statistic
        tau[variant] = float(min(up, down))
        each = [kendalltau(range(5), [by_name[n]["D"][i] for n in steps]).statistic for i in range(len(images))]
        table.append({"variant": variant, "edit": "tau over means", "D": tau[variant]})
        within = float(np.nanmean(each))
        table.append({"variant": variant, "edit": "tau over quarters within a picture, mean", "D": within})
    note = f"r_0 {replaced:.3f}; tau " + ", ".join(f"{k} {v:.2f}" for k, v in tau.items())
    note += "; over removals in quarters " + ", ".join(f"{k} {v:.2f}" for k, v in finer.items())
    return Evidence(tau["corrected"] >= 0.9 > tau["released"], table, note)


# ---------------------------------------------------------------- LoRA


def _runs(context: ClaimContext, variant: str) -> list[list[dict[str, Any]]]:
    return [context.run("forgetme", variant, seed).figures["rows"] for seed in SEEDS]


def table_of(lora: Sequence[Rows], whole: Sequence[Rows]) -> list[dict[str, Any]]:
    """Every checkpoint of every run."""
    arms = (("emptied", lora), ("whole", whole))
    return [{"arm": arm, "seed": seed, **row} for arm, each in arms for seed, rows in enumerate(each) for row in rows]


def agrees(lora: Sequence[Rows], whole: Sequence[Rows]) -> Evidence:
    """Spearman of corrected D with the absence of the target over the checkpoints of each run."""
    from scipy.stats import spearmanr

    def ranks(name: str) -> list[float]:
        pairs_ = [([1 - r["target in edits"] for r in rows], [r[name] for r in rows]) for rows in lora]
        return [float(np.nan_to_num(spearmanr(absent, score).statistic)) for absent, score in pairs_]

    each = {n: over_seeds(ranks(n)) for n in ("corrected D", "S", "released D")}
    note = "Spearman over seeds: " + ", ".join(f"{n} {v}" for n, v in each.items())
    holds = each["corrected D"].value >= 0.8 and each["corrected D"].low > 0
    return Evidence(holds, table_of(lora, whole), note)


def forgets(lora: Sequence[Rows], whole: Sequence[Rows]) -> Evidence:
    """The fall of the target in samples against that of the control, and that of other things."""

    def fall(each: Sequence[Rows], name: str) -> list[float]:
        return [float(rows[0][name]) - float(rows[-1][name]) for rows in each]

    target = over_seeds(fall(lora, "target in samples"), fall(whole, "target in samples"))
    alone = float(np.mean(fall(lora, "target in samples")))
    others = over_seeds(fall(lora, "others in samples"))
    note = f"target {alone:.2f} lower, {target} more than with whole pictures; others {others} lower"
    return Evidence(target.low > 0 and alone >= 0.6 and others.value <= 0.1, table_of(lora, whole), note)


@claim("corrected Entangled-D ranks the checkpoints of an unlearned model as a detector of the thing does (Spearman "
       ">= 0.8 on average over seeds)")  # fmt: skip
def entangled_agrees_with_a_detector(context: ClaimContext) -> Evidence:
    return agrees(_runs(context, "default"), _runs(context, "whole"))


@claim("LoRA on emptied pictures lowers the detection of the thing by >= 60 points, more than on whole pictures over "
       "seeds, and that of other things by <= 10")  # fmt: skip
def lora_forgets_the_word(context: ClaimContext) -> Evidence:
    return forgets(_runs(context, "default"), _runs(context, "whole"))
