"""Claims of CLIPMasterPrints against small CLIPs of rendered scenes and their captions, which are runs of the recipe.

Masters are judged against held-out pictures of the captions they aim at. The gap is estimated on training pictures and
its share chosen on validation pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.bench.controls import Interval, over_seeds, too_weak, untrained
from vestige.bench.forensics.masterprints import (
    CAPTIONS,
    SIZE,
    Captioned,
    aims,
    captioned,
    clip,
    fooled,
    lettered,
    right,
    starts,
)
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.engines.runs import Need
from vestige.forensics.clipmasterprints import ClipMasterPrints, GapShift, LeastMatch, Matcher, mine
from vestige.metrics.detection import auroc
from vestige.nn.image_text import ImageText

NEEDS = (Need("clipmasterprints"),)
SEEDS = (0, 1, 2)
MINING, QUERIES, DIRECTIONS = 400, 6000, 64
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PGD, SGD, NATURAL, NOISE = "PGD, 15/255", "SGD", "natural", "Gaussian noise"


@lru_cache(maxsize=8)
def _set(part: str, seed: int) -> Captioned:
    return captioned(part, seed)


@lru_cache(maxsize=8)
def _clip(context: ClaimContext, seed: int, variant: str = "default") -> ImageText:
    return clip(context.run("clipmasterprints", variant, seed).folder / "clip" / "model.safetensors")


def masters(model: Matcher, seed: int, steps: int, *, rivals: bool = False) -> dict[str, Tensor]:
    """Masters by method, started from held-out pictures of other captions; rivals: other aims as well."""
    wanted, others = aims(seed)
    start = starts(_set("test", seed), others)
    found = {
        PGD: mine(model, [wanted] * len(start), start=start, steps=steps, seed=seed),
        SGD: mine(model, [wanted] * 4, "sgd", steps=steps, seed=seed),
    }
    if rivals:
        found["PGD of the mean"] = mine(model, [wanted] * len(start), start=start, steps=steps, mean=True, seed=seed)
        found["PGD, one caption"] = mine(model, [wanted[:1]] * len(start), start=start, steps=steps, seed=seed)
    return found


@lru_cache(maxsize=3)
def _masters(context: ClaimContext, seed: int) -> dict[str, Tensor]:
    return masters(_clip(context, seed), seed, 3 if context.limit else MINING, rivals=seed == 0)


def _references(seed: int) -> dict[str, Tensor]:
    """Pictures nobody mined."""
    wanted, others = aims(seed)
    natural = starts(_set("test", seed), others)
    noise = torch.from_numpy(rng(seed, "noise").normal(0.5, 0.25, (8, 3, SIZE, SIZE))).float().clamp(0, 1)
    return {"typographic": lettered(natural, wanted), NATURAL: natural, NOISE: noise}


def judged(rates: Mapping[str, Sequence[float]], best: Sequence[float], control: float) -> tuple[bool, Interval, str]:
    """Fooling rates over models by kind of picture, the best real picture's rate, and that of masters of an untrained
    model: (whether PGD fools more than natural pictures, noise and the best real picture with the whole interval, the
    difference from the best real picture, why the bed cannot tell)."""
    apart = [over_seeds(rates[PGD], other) for other in (best, rates[NATURAL], rates[NOISE])]
    holds = all(a.low > 0 for a in apart)
    weak = too_weak(apart[0].value, control, "masters of an untrained model reach") if holds else ""
    return holds, apart[0], weak


@headline("a picture within 15/255 fools more (caption, picture) pairs of 25 captions than the best real picture does")
def masters_fool(context: ClaimContext) -> Evidence:
    rates: dict[str, list[float]] = {}
    elsewhere: dict[str, list[float]] = {}
    best, rows = [], []
    for seed in SEEDS:
        model, part, (wanted, others) = _clip(context, seed), _set("test", seed), aims(seed)
        for name, pictures in {**_masters(context, seed), **_references(seed)}.items():
            rates.setdefault(name, []).append(float(fooled(model, pictures, part, wanted).mean()))
            elsewhere.setdefault(name, []).append(float(fooled(model, pictures, part, others).mean()))
        with torch.no_grad():
            least = LeastMatch([model], [wanted] * len(part.images))(part.images, torch.arange(len(part.images)), 0)
        best.append(float(fooled(model, part.images[[int(least.margin.argmax())]], part, wanted)[0]))
    rows = [
        {"picture": name, "models": len(values), "fooled": float(np.mean(values)),
         "fooled, other captions": float(np.mean(elsewhere[name]))}
        for name, values in rates.items()
    ]  # fmt: skip
    rows.append({"picture": "best real picture", "models": len(best), "fooled": float(np.mean(best))})
    control = _control(context)
    rows.append({"picture": "control: PGD against an untrained model", "fooled": control})
    known = [right(_clip(context, seed), _set("test", seed)) for seed in SEEDS]
    rows.append({"picture": "the models", "zero-shot accuracy": float(np.mean(known))})
    holds, apart, weak = judged(rates, best, control)
    note = (
        f"{apart} above the best real picture, over models; {len(CAPTIONS)} captions; the card's figures: PGD 0.6, SGD "
        f"0.7, natural 0.15, noise 0.1"
    )
    small = "" if holds else _why_small(context)
    return Evidence(holds, rows, note, too_weak=weak, too_small=small)


def _control(context: ClaimContext) -> float:
    """Fooling rate of the masters of an untrained CLIP on the trained one: what any gradient step does."""
    masters_ = masters(untrained(clip), 0, 3 if context.limit else MINING)
    return float(fooled(_clip(context, 0), masters_[PGD], _set("test", 0), aims(0)[0]).mean())


@torch.no_grad()
def _why_small(context: ClaimContext) -> str:
    """What the captions of large models have and these may lack: features that lie in one narrow cone."""
    texts = torch.nn.functional.normalize(_clip(context, 0).texts(CAPTIONS), dim=1)
    mean = float(((texts @ texts.T).sum() - len(texts)) / (len(texts) * (len(texts) - 1)))
    if mean > 0.5:
        return ""
    return f"the captions of this model have a mean cosine of {mean:.2f}, those of large models lie in a narrow cone"


@claim("evolution of a latent, without gradients, fools >= 40 %")
def evolution_fools(context: ClaimContext) -> Evidence:
    model, (wanted, _) = _clip(context, 0), aims(0)
    flat = _set("train", 0).images.flatten(1)
    middle = flat.mean(0)
    _, spread, directions = torch.pca_lowrank(flat, DIRECTIONS, niter=4)
    drawn = directions * (spread / len(flat) ** 0.5)

    def generator(latents: Tensor) -> Tensor:
        return (middle + latents @ drawn.T).view(-1, 3, SIZE, SIZE).clamp(0, 1)

    start = torch.from_numpy(rng(0, "latent").normal(0, 1, (2, DIRECTIONS))).float()
    queries = 40 if context.limit else QUERIES
    found = mine(model, [wanted] * 2, "lve", start=start, generator=generator, steps=queries, seed=0)
    rows: list[dict[str, Any]] = [
        {"picture": name, "fooled": float(fooled(model, x, _set("test", 0), wanted).mean())}
        for name, x in (("evolved", found), ("random latents", generator(start)), (NATURAL, _references(0)[NATURAL]))
    ]
    holds = float(rows[0]["fooled"]) >= 0.4
    note = f"{DIRECTIONS} principal directions of the training pictures stand for the decoder; {queries} queries"
    return Evidence(holds, rows, note, too_small="" if holds else _why_small(context))


@claim(
    "with the share of the gap chosen on validation pictures, masters that do not know of it fool >= 30 points less at "
    "<= 1 point of zero-shot accuracy; those that know are reported"
)
def closing_the_gap_helps(context: ClaimContext) -> Evidence:
    model, (wanted, _), found = _clip(context, 0), aims(0), _masters(context, 0)
    train, val, test = (_set(part, 0) for part in ("train", "val", "test"))
    rows: list[dict[str, Any]] = []
    shifts = {s: GapShift(model, s).fit(train.images, train.captions) for s in SHARES}
    for s, shifted in shifts.items():
        rows.append({
            "share": s,
            "accuracy, validation": right(shifted, val),
            "fooled, validation": float(fooled(shifted, found[PGD], val, wanted).mean()),
        })  # fmt: skip
    kept = [r for r in rows if r["accuracy, validation"] >= rows[0]["accuracy, validation"] - 0.01]
    chosen = float(min(kept, key=lambda r: (r["fooled, validation"], r["share"]))["share"])
    told: list[dict[str, Any]] = []
    for s in (0.0, chosen):
        row: dict[str, Any] = {"share": s, "accuracy": right(shifts[s], test)}
        for name in (PGD, SGD):
            row[f"fooled by {name}"] = float(fooled(shifts[s], found[name], test, wanted).mean())
        told.append(row)
    if chosen:
        aware = masters(shifts[chosen], 0, 3 if context.limit else MINING)
        told[1] |= {f"fooled by {n}, shift known": float(fooled(shifts[chosen], x, test, wanted).mean())
                    for n, x in aware.items()}  # fmt: skip
    falls = [told[0][f"fooled by {n}"] - told[1][f"fooled by {n}"] for n in (PGD, SGD)]
    loss = told[0]["accuracy"] - told[1]["accuracy"]
    start = max(told[0][f"fooled by {n}"] for n in (PGD, SGD))
    small = "" if start >= 0.3 else f"masters fool {start:.0%} before anything is done, so there is nothing to lose"
    return Evidence(min(falls) >= 0.3 and loss <= 0.01, rows + told, f"share {chosen} was chosen", too_small=small)


@claim("the detector has AUC >= 0.95 on unseen pictures of the miner it learnt from; other miners are reported")
def detector_knows_its_miner(context: ClaimContext) -> Evidence:
    run, model = context.run("clipmasterprints"), _clip(context, 0)
    detector, part = ClipMasterPrints(weights=run.folder / "clipmasterprints.safetensors"), _set("test", 0)
    draw = rng(1, "detector")
    order = torch.from_numpy(draw.permutation(len(part.images)))
    count = min(len(order), 16 if context.limit else 256)
    unseen, begun = part.images[order[: count // 2]], part.images[order[count // 2 : count]]
    lists = [[CAPTIONS[i] for i in draw.permutation(len(CAPTIONS))[: len(aims()[0])]] for _ in begun]
    mined = mine(model, lists, start=begun, steps=3 if context.limit else 40, seed=1)
    rows: list[dict[str, Any]] = []
    for name, x in {
        "PGD, other captions": mined,
        **_masters(context, 0),
        "typographic": _references(0)["typographic"],
    }.items():
        scores = torch.cat([detector.score(unseen), detector.score(x)]).numpy()
        rows.append(
            {"miner": name, "auc": float(auroc(np.arange(len(scores)) >= len(unseen), scores)), "pictures": len(x)}
        )
    return Evidence(float(rows[0]["auc"]) >= 0.95, rows, f"{len(unseen)} untouched pictures that nobody learnt from")
