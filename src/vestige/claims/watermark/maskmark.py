"""Claims of MaskMark, on photographs of another collection than it was trained on, at the mark's own size."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.errors import InputError
from vestige.core.keys import PUBLIC_KEY, derive
from vestige.core.runtime import rng
from vestige.data.packs import load_pack
from vestige.engines.marking.evaluate import TEN, draw_bits, embedded, false_alarm_area, fidelity, local, robustness
from vestige.watermark.hidden import Hidden
from vestige.watermark.learned import WEIGHTS, LearnedMark
from vestige.watermark.maskmark import MaskMark
from vestige.watermark.vine import Vine

PHOTOGRAPHS = 200
SHARES = (0.05, 0.1, 0.25, 0.5)


def variant(name: str, settings: str) -> MaskMark:
    """The mark with the shipped weights of that name; raises InputError with the recipe where they are missing."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(
            f"This claim needs weights/{name}.safetensors; train it with: vestige learn maskmark "
            f"--set preset=gpu{settings}."
        )
    return MaskMark(path)


def pictures(context: ClaimContext, size: int) -> np.ndarray:
    """Centre squares of the pack "scenery", uint8 N×3×size×size."""
    return load_pack(context.pack("scenery"), size, context.limit or PHOTOGRAPHS).images


def _peers() -> list[LearnedMark]:
    """The other learned marks whose weights are there."""
    found: list[LearnedMark] = []
    for kind in (Hidden, Vine):
        if (WEIGHTS / f"{kind.slug}.safetensors").is_file():
            found.append(kind())
    return found


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
    mark = variant("maskmark", "")
    rows = [_survival(m, pictures(context, m.network.size), context.seed) for m in (mark, *_peers())]
    ours = rows[0]
    holds = (
        mark.bits >= 32 and ours["identity 0"] >= 0.99 and ours["psnr"] >= 36 and ours["mean"] >= 0.93
        and mark.network.size <= 128
    )  # fmt: skip
    missing = [k.slug for k in (Hidden, Vine) if k.slug not in [r["mark"] for r in rows]]
    return Evidence(holds, rows, f"no weights of {' and '.join(missing)} to compare with" if missing else "")


@claim("with 10 % of the area marked: bit accuracy >= 0.90, and >= 15 points above training with full masks alone")
def reads_what_is_left(context: ClaimContext) -> Evidence:
    mark, reference = variant("maskmark", ""), variant("maskmark_full", " --set masks=full")
    rows: list[dict[str, Any]] = []
    for name, one in (("maskmark", mark), ("full masks only", reference)):
        images = pictures(context, one.network.size)
        found = local(one.network, images, SHARES, seed=context.seed, strength=one.strength)
        rows += [{"training": name, **row} for row in found]
    tenth = {r["training"]: r for r in rows if r["share"] == 0.1}
    ours, other = tenth["maskmark"], tenth["full masks only"]
    # The reference may read its best way: with its map, with the true mask, or the whole picture.
    best = max(other["bit_accuracy"], other["true_mask"], other["whole"])
    return Evidence(ours["bit_accuracy"] >= 0.9 and ours["bit_accuracy"] >= best + 0.15, rows)


@claim(
    "the map finds boxes with IoU >= 0.85; bits are unreadable outside (<= 0.6) and the map serves as well as the mask"
)
def finds_the_region(context: ClaimContext) -> Evidence:
    mark = variant("maskmark", "")
    images = pictures(context, mark.network.size)
    rows = local(mark.network, images, SHARES, seed=context.seed, strength=mark.strength)
    alarm = false_alarm_area(mark.network, images)
    table = [*rows, {"share": 0.0, "false alarm area": float(alarm.mean()), "largest": float(alarm.max())}]
    iou = float(np.mean([r["iou"] for r in rows]))
    leaks = max(r["wrong_mask"] for r in rows)
    gap = max(r["true_mask"] - r["bit_accuracy"] for r in rows if r["share"] >= 0.1)
    holds = iou >= 0.85 and leaks <= 0.6 and gap <= 0.05
    return Evidence(holds, table, f"mean IoU {iou:.3f}, at most {leaks:.3f} with the wrong mask, gap {gap:.3f}")


@claim(
    "knowing the mask helps: MaskMark-ED reads >= 2 points more bits than MaskMark-D at 5 % of the area, at no more "
    "than 1 dB less inside the mask"
)
def the_mask_helps_the_embedder(context: ClaimContext) -> Evidence:
    plain, informed = variant("maskmark", ""), variant("maskmark_ed", " --set variant=ED")
    rows: list[dict[str, Any]] = []
    for one in (plain, informed):
        images = pictures(context, one.network.size)
        found = local(one.network, images, SHARES, seed=context.seed, strength=one.strength)
        rows += [{"variant": one.net.variant, **row} for row in found]
    at = {r["variant"]: r for r in rows if r["share"] == 0.05}
    if set(at) != {"D", "ED"}:
        return Evidence(False, rows, "maskmark must be the variant D and maskmark_ed the variant ED")
    ours, other = at["ED"], at["D"]
    fair = ours["psnr_inside"] >= other["psnr_inside"] - 1
    return Evidence(fair and ours["bit_accuracy"] >= other["bit_accuracy"] + 0.02, rows)


@claim("two marks in one picture are both read in >= 90 % of photographs, and no unmarked one or other key reads any")
def reads_two_marks(context: ClaimContext) -> Evidence:
    mark = variant("maskmark", "")
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
    row = {
        "photographs": len(images), "both read": float(np.mean(both)), "one or both": float(np.mean(one)),
        "read with another key": int(np.sum(foreign)), "read without a mark": int(np.sum(plain)),
    }  # fmt: skip
    return Evidence(row["both read"] >= 0.9 and not any(foreign) and not any(plain), [row])
