"""Claims of MaskMark, on photographs of another collection than it was trained on, at the mark's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vestige.bench.controls import Interval, over_seeds
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.watermark.learned_marks import trained
from vestige.core.keys import PUBLIC_KEY, derive
from vestige.core.runtime import rng
from vestige.data.packs import load_pack
from vestige.engines.marking.evaluate import TEN, draw_bits, embedded, false_alarm_area, fidelity, local, robustness
from vestige.engines.runs import Need
from vestige.watermark.hidden import Hidden
from vestige.watermark.learned import LearnedMark
from vestige.watermark.maskmark import MaskMark
from vestige.watermark.vine import Vine

NEEDS = (Need("maskmark"), Need("hidden", ("default",), (0,)), Need("vine", ("default",), (0,)))
PHOTOGRAPHS = 200
SHARES = (0.05, 0.1, 0.25, 0.5)
SEEDS = (0, 1, 2)


def pictures(context: ClaimContext, size: int) -> np.ndarray:
    """Centre squares of the pack "scenery", uint8 N×3×size×size."""
    return load_pack(context.pack("scenery"), size, context.limit or PHOTOGRAPHS).images


def judged(ours: Sequence[float], theirs: Sequence[float]) -> tuple[bool, Interval]:
    """Whether training with masks is ahead over seeds."""
    ahead = over_seeds(ours, theirs)
    return ahead.low > 0, ahead


@headline(
    "with a tenth of the area marked, more bits are read with the network's own map than by the same network trained "
    "with full masks alone, however that reads (map, true mask or whole picture)"
)
def reads_what_is_left(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    ours: list[float] = []
    theirs: list[float] = []
    for seed in SEEDS:
        for variant, readings in (("default", ("bit_accuracy",)), ("full", ("bit_accuracy", "true_mask", "whole"))):
            one = trained(context, MaskMark, variant, seed)
            found = local(one.network, pictures(context, one.network.size), SHARES, seed=seed, strength=one.strength)
            rows += [{"training": variant, "seed": seed, **row} for row in found]
            (tenth,) = (row for row in found if row["share"] == 0.1)
            (ours if variant == "default" else theirs).append(max(float(tenth[name]) for name in readings))
    holds, ahead = judged(ours, theirs)
    size, bits = one.network.size, one.bits
    note = f"ahead by {ahead} over {len(SEEDS)} seeds; {bits} bits at {size} pixels (the paper's: 32 bits, 256 pixels)"
    return Evidence(holds, rows, note)


def _survival(mark: LearnedMark, images: np.ndarray, seed: int) -> dict[str, Any]:
    bits = draw_bits(seed, len(images), mark.bits)
    marked = embedded(mark.network, images, bits, strength=mark.strength)
    rows = robustness(mark.network, images, TEN, seed=seed, strength=mark.strength)
    accuracies = {f"{r['distortion']} {r['strength']:g}": round(float(r["bit_accuracy"]), 4) for r in rows}
    return {
        "mark": mark.slug, "bits": mark.bits, "size": mark.network.size, **fidelity(images, marked), **accuracies,
        "mean": float(np.mean([r["bit_accuracy"] for r in rows])),
    }  # fmt: skip


@claim("32 bits at 128 pixels: bit accuracy >= 0.99 clean at PSNR >= 36 dB, and >= 0.93 over the ten distortions")
def survives_distortions(context: ClaimContext) -> Evidence:
    marks: list[LearnedMark] = [trained(context, kind) for kind in (MaskMark, Hidden, Vine)]
    rows = [_survival(m, pictures(context, m.network.size), context.seed) for m in marks]
    ours = rows[0]
    holds = ours["identity 0"] >= 0.99 and ours["psnr"] >= 36 and ours["mean"] >= 0.93
    small = marks[0].bits < 32 or marks[0].network.size < 128
    why = f"the network trained here carries {marks[0].bits} bits at {marks[0].network.size} pixels" if small else ""
    return Evidence(holds and not small, rows, too_small=why)


@claim(
    "the map finds boxes with IoU >= 0.85; bits are unreadable outside (<= 0.6) and the map serves as well as the mask"
)
def finds_the_region(context: ClaimContext) -> Evidence:
    mark = trained(context, MaskMark)
    images = pictures(context, mark.network.size)
    rows = local(mark.network, images, SHARES, seed=context.seed, strength=mark.strength)
    alarm = false_alarm_area(mark.network, images)
    # A map that calls everything marked has the share itself as its IoU.
    floor = {"share": "(all is marked)", "iou": float(np.mean(SHARES))}
    area = {"share": 0.0, "false alarm area": float(alarm.mean()), "largest": float(alarm.max())}
    iou = float(np.mean([r["iou"] for r in rows]))
    leaks = max(r["wrong_mask"] for r in rows)
    gap = max(r["true_mask"] - r["bit_accuracy"] for r in rows if r["share"] >= 0.1)
    holds = iou >= 0.85 and leaks <= 0.6 and gap <= 0.05
    note = f"mean IoU {iou:.3f}, at most {leaks:.3f} with the wrong mask, gap {gap:.3f}"
    return Evidence(holds, [*rows, floor, area], note)


@claim(
    "knowing the mask helps: MaskMark-ED reads >= 2 points more bits than MaskMark-D at 5 % of the area, at no more "
    "than 1 dB less inside the mask; two marks in one picture are both read in >= 90 % of photographs, none without"
)
def the_mask_helps_the_embedder(context: ClaimContext) -> Evidence:
    plain, informed = trained(context, MaskMark), trained(context, MaskMark, "ed")
    rows: list[dict[str, Any]] = []
    for one in (plain, informed):
        images = pictures(context, one.network.size)
        found = local(one.network, images, SHARES, seed=context.seed, strength=one.strength)
        rows += [{"variant": one.net.variant, **row} for row in found]
    at = {r["variant"]: r for r in rows if r["share"] == 0.05}
    ours, other = at["ED"], at["D"]
    helps = ours["psnr_inside"] >= other["psnr_inside"] - 1 and ours["bit_accuracy"] >= other["bit_accuracy"] + 0.02
    both = _two_marks(context, informed)
    clean = both["both read"] >= 0.9 and not both["read with another key"] and not both["read without a mark"]
    return Evidence(bool(helps and clean), [*rows, both])


def _two_marks(context: ClaimContext, mark: MaskMark) -> dict[str, Any]:
    images = pictures(context, mark.network.size).astype(np.float32) / 255
    size = mark.network.size
    left, right = np.zeros((1, 1, size, size), bool), np.zeros((1, 1, size, size), bool)
    left[..., : int(0.45 * size)] = True
    right[..., int(0.55 * size) :] = True
    room = min(32, mark.bits // 2)
    both, one, foreign, plain = [], [], [], []
    for i, image in enumerate(images):
        generator = rng(context.seed, "payloads", i)
        payloads = [generator.integers(0, 2, room).astype(bool) for _ in range(2)]
        marked = mark.mark_regions(image[None], payloads, [left, right], PUBLIC_KEY)
        saved = np.round(marked * 255).astype(np.float32) / 255
        (found,) = mark.read_all(saved, PUBLIC_KEY)
        sent = [p.tobytes() for p in payloads]
        seen = {np.asarray(r.bits).tobytes() for r in found}
        both.append(all(s in seen for s in sent))
        one.append(any(s in seen for s in sent))
        foreign.append(bool(mark.read_all(saved, derive(b"another", str(i)))[0]))
        plain.append(bool(mark.read_all(image[None], PUBLIC_KEY)[0]))
    return {
        "photographs": len(images), "both read": float(np.mean(both)), "one or both": float(np.mean(one)),
        "read with another key": int(np.sum(foreign)), "read without a mark": int(np.sum(plain)),
    }  # fmt: skip
