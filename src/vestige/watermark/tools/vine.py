"""W-Bench on files: what editing leaves of a mark, measured on a user's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.core.work import Result, Work
from vestige.engines.diffusion.pipeline import load_pipeline
from vestige.engines.marking.residual import embed_at_native, read_at_native
from vestige.metrics.detection import auroc
from vestige.metrics.quality import psnr
from vestige.watermark.attacks import attack
from vestige.watermark.attacks.regeneration import regenerate
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.learned import LearnedMark
from vestige.watermark.vine import band_study

Editor = Callable[[np.ndarray], np.ndarray]
#: Edits that need no model: (attack, strength).
EDITS = (("jpeg", 50.0), ("blur", 1.0), ("noise", 0.05), ("resize_back", 0.5), ("brightness", 1.3))
_MOST = 200


def measure(work: Work) -> Result:
    """A row for every edit: share of marked pictures found at 1 % false alarms, AUROC, bits read, bands that survive.

    Inputs are pictures and folders. ``--model``: a text-to-image folder, which adds redrawing. Settings: mark, any
    marker of pictures (vine); side, to which the middles of the pictures are cut (192); count, of pictures (50). The
    threshold comes from the same pictures unmarked, put through the same edit.
    """
    name, side, count = work.option("mark", "vine"), work.option("side", 192), work.option("count", 50)
    work.settled()
    if not 32 <= side <= 1024 or not 4 <= count <= _MOST:
        raise UsageError(f"side lies from 32 to 1024 pixels and count from 4 to {_MOST}; got {side} and {count}.")
    entry = system(name)
    if "mark" not in entry.roles or entry.subject != "image" or not hasattr(entry.load(), "mark"):
        raise UsageError(f"{name} does not mark pictures; 'vestige systems --role mark' lists what does.")
    images = middles(work.pictures("a folder of pictures"), side, count)
    marker = entry.load()()
    statistic, marked, bits = prepared(marker, images, work.key, work.seed)
    rows = []
    for label, edit in editors(work, side).items():
        plain, found = edit(images), edit(marked)
        null, scores = statistic(plain), statistic(found)
        row: dict[str, Any] = {
            "edit": label, "found at 1 % false alarms": float((scores > np.quantile(null, 0.99)).mean()),
            "auroc": float(auroc(np.r_[np.zeros(len(null)), np.ones(len(scores))], np.r_[null, scores])),
        }  # fmt: skip
        if bits is not None:
            row["bits read"] = float(scores.mean())
        if plain.shape == images.shape:
            row |= {f"{band} band left": share for band, share in band_study(edit, images[:8], seed=work.seed).items()}
        rows.append(row)
    figures = {"pictures": len(images), "psnr of the mark": float(np.minimum(psnr(images, marked), 99).mean())}
    said = [] if work.model else ["Redrawing is measured too when --model names a text-to-image folder."]
    return Result(figures, said=said, rows=rows)


def prepared(
    marker: Any, images: np.ndarray, key: bytes, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, np.ndarray | None]:
    """(pictures -> how much each speaks for the mark, marked pictures, raw bits of a learned mark)."""
    if isinstance(marker, LearnedMark):
        net = marker.network
        raw = rng(seed, "w-bench").integers(0, 2, (len(images), net.bits)).astype(bool)
        x = torch.from_numpy(images)
        changed = embed_at_native(net, x, torch.from_numpy(raw.astype(np.float32)), strength=marker.strength)

        def agreement(found: np.ndarray) -> np.ndarray:
            soft = read_at_native(net, torch.from_numpy(found.astype(np.float32))).soft.numpy()
            return np.asarray(((soft > 0) == raw).mean(1))

        return agreement, eight_bit(changed.numpy()), raw
    payload = rng(seed, "w-bench").integers(0, 2, 32).astype(bool)

    def evidence(found: np.ndarray) -> np.ndarray:
        return np.array([-np.log10(max(r.p_value, 1e-300)) for r in marker.read(found.astype(np.float32), key)])

    return evidence, eight_bit(marker.mark(images, payload, key)), None


def editors(work: Work, side: int) -> dict[str, Editor]:
    """The edits: nothing, distortions, and redrawing where a model is given."""
    found: dict[str, Editor] = {"none": lambda x: x}

    def signal(name: str, strength: float) -> Editor:
        return lambda x: attack(x, name, strength, seed=work.seed)

    found |= {f"{name} {strength:g}": signal(name, strength) for name, strength in EDITS}
    if work.model is None:
        return found
    model = load_pipeline(work.model_file(what="a text-to-image folder"))
    if not hasattr(model, "decode") or side % 8:
        raise InputError(f"{work.model} cannot redraw pictures; give a text-to-image folder and a side divisible by 8.")

    def redrawing(strength: float) -> Editor:
        return lambda x: regenerate(x, model, strength, how="noise", steps=20, seed=work.seed)

    return found | {f"redrawn {strength:g}": redrawing(strength) for strength in (0.1, 0.2)}


def middles(subjects: Sequence[Any], side: int, count: int) -> np.ndarray:
    """float32 N×3×side×side, the middles of the pictures that are large enough; raises InputError for fewer than 4."""
    cut: list[np.ndarray] = []
    for subject in subjects:
        if min(subject.height, subject.width) >= side and len(cut) < count:
            top, left = (subject.height - side) // 2, (subject.width - side) // 2
            cut.append(subject.image[0, :, top : top + side, left : left + side])
    if len(cut) < 4:
        raise InputError(
            f"Only {len(cut)} of the pictures have {side} pixels a side; give four or more, or --set side=."
        )
    return np.ascontiguousarray(np.stack(cut), np.float32)
