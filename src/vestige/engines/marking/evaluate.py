"""How well marks survive and how little they show, at the mark's own size, on pictures saved with eight bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.engines.marking.masks import box
from vestige.engines.marking.model import EmbedderReader
from vestige.engines.marking.residual import read_at_native
from vestige.metrics.bits import match_threshold
from vestige.metrics.quality import psnr, ssim

#: (distortion, strength) of the tests; apart from the training's draws, whose strengths are random.
SUITE = (
    ("identity", 0), ("jpeg", 75), ("jpeg", 50), ("webp", 70), ("blur", 1), ("noise", 0.05), ("median", 3),
    ("salt_pepper", 0.05), ("brightness", 0.7), ("brightness", 1.3), ("contrast", 0.7), ("contrast", 1.3), ("hue", 0.1),
    ("resize_back", 0.5), ("rotate", 5), ("rotate", 30), ("perspective", 0.2), ("flip", 1), ("crop_resize", 0.8),
    ("crop_resize", 0.5), ("screenshot", 0.5),
)  # fmt: skip
#: The training distortions of MaskMark at their full strength (card: mean over the ten).
TEN = (
    ("identity", 0), ("jpeg", 50), ("webp", 50), ("blur", 1), ("noise", 0.05), ("median", 5), ("salt_pepper", 0.1),
    ("rotate", 45), ("perspective", 0.3), ("flip", 1),
)  # fmt: skip

#: What a training is watched by: quick, and a little of everything.
WATCHED = (("identity", 0), ("jpeg", 50), ("blur", 1), ("noise", 0.05), ("brightness", 1.3), ("crop_resize", 0.8))


def draw_bits(seed: int, count: int, length: int, *path: object) -> np.ndarray:
    """Random messages, bool count×length."""
    return rng(seed, "messages", *path).integers(0, 2, (count, length)).astype(bool)


@torch.no_grad()
def embedded(
    model: EmbedderReader,
    images: np.ndarray,
    bits: np.ndarray,
    masks: np.ndarray | None = None,
    *,
    strength: float = 1.0,
    batch_size: int = 64,
) -> np.ndarray:
    """Marked pictures with eight-bit values: uint8 N×3×S×S, bits N×L, masks bool N×1×S×S -> float32 N×3×S×S.

    strength: factor on the change.
    """
    device = next(model.parameters()).device
    out = np.empty(images.shape, np.float32)
    for at in range(0, len(images), batch_size):
        part = slice(at, at + batch_size)
        x = torch.from_numpy(images[part]).to(device).float() / 255
        m = None if masks is None else torch.from_numpy(masks[part]).to(device)
        y = model.embed(x, torch.from_numpy(bits[part]).to(device).float(), m).float()
        y = (x + strength * (y - x)).clamp(0, 1)
        y = y if m is None else torch.where(m, y, x)
        out[part] = (torch.floor(y * 255 + 0.5) / 255).cpu().numpy()
    return out


@torch.no_grad()
def read_soft(
    model: EmbedderReader, images: np.ndarray, masks: np.ndarray | None = None, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray | None]:
    """(soft bits N×L, presence maps N×1×S×S or None) of float32 pictures of any size; masks replace the model's map."""
    device = next(model.parameters()).device
    soft, maps = [], []
    for at in range(0, len(images), batch_size):
        x = torch.from_numpy(images[at : at + batch_size]).to(device)
        if masks is None:
            found = read_at_native(model, x)
        else:
            found = model.read(x, torch.from_numpy(masks[at : at + batch_size]).to(device))
        soft.append(found.soft.float().cpu().numpy())
        if found.presence is not None:
            maps.append(found.presence.float().cpu().numpy())
    return np.concatenate(soft), np.concatenate(maps) if maps else None


def fidelity(images: np.ndarray, marked: np.ndarray) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of marked pictures (float32) against the originals (uint8)."""
    original = images.astype(np.float32) / 255
    decibels = np.minimum(psnr(original, marked), 99.0)  # equal pictures have no finite one
    return {"psnr": float(np.mean(decibels)), "ssim": float(np.mean(ssim(original, marked)))}


def robustness(
    model: EmbedderReader,
    images: np.ndarray,
    suite: Sequence[tuple[str, float]] = SUITE,
    *,
    seed: int = 0,
    strength: float = 1.0,
    false_positive_rate: float = 1e-3,
) -> list[dict[str, float | str]]:
    """One row a distortion: bit accuracy, and the share of pictures whose bits pass the binomial test at that rate.

    images: uint8 N×3×S×S. The distortions are the real twins (files are written and read).
    """
    bits = draw_bits(seed, len(images), model.bits)
    marked = embedded(model, images, bits, strength=strength)
    covers = images.astype(np.float32) / 255
    needed = match_threshold(model.bits, false_positive_rate)
    rows: list[dict[str, float | str]] = []
    for name, strength in suite:
        attacked = distort(marked, name, strength, seed=seed, cover=covers)
        equal = (read_soft(model, attacked)[0] > 0) == bits
        rows.append(
            {
                "distortion": name, "strength": strength, "bit_accuracy": float(equal.mean()),
                "tpr": float((equal.sum(1) >= needed).mean()),
            }
        )  # fmt: skip
    return rows


def local(
    model: EmbedderReader,
    images: np.ndarray,
    shares: Sequence[float] = (0.05, 0.1, 0.25, 0.5),
    *,
    seed: int = 0,
    strength: float = 1.0,
) -> list[dict[str, float]]:
    """One row for each share of the area left marked, in one box.

    bit_accuracy with the model's own map, with the true mask (true_mask), with the mask of the unmarked rest
    (wrong_mask; 0.5 when nothing leaks) and without a mask (whole); iou of map and mask; PSNR of the whole picture and
    inside the mask. strength: factor on the change.
    """
    rows = []
    size = images.shape[2]
    original = images.astype(np.float32) / 255
    for share in shares:
        generator = rng(seed, "boxes", share)
        masks = np.stack([box(size, share, generator) for _ in images])[:, None]
        bits = draw_bits(seed, len(images), model.bits, share)
        marked = embedded(model, images, bits, masks, strength=strength)
        soft, maps = read_soft(model, marked)
        row = {"share": share, "bit_accuracy": float(((soft > 0) == bits).mean())}
        for name, chosen in (("true_mask", masks), ("wrong_mask", ~masks), ("whole", masks | True)):
            row[name] = float(((read_soft(model, marked, chosen)[0] > 0) == bits).mean())
        if maps is not None:
            found = maps > 0.5
            union = (found | masks).sum((1, 2, 3))
            row["iou"] = float(((found & masks).sum((1, 2, 3)) / union).mean())
        error = ((marked - original) ** 2).mean(1)
        row["psnr"] = _decibels(error.mean())
        row["psnr_inside"] = _decibels(error[masks[:, 0]].mean())
        rows.append(row)
    return rows


def false_alarm_area(model: EmbedderReader, images: np.ndarray) -> np.ndarray:
    """Share of the area that the map of each unmarked picture calls marked, (N,); nan for models without a map."""
    maps = read_soft(model, images.astype(np.float32) / 255)[1]
    return np.full(len(images), np.nan) if maps is None else (maps > 0.5).mean((1, 2, 3))


def _decibels(error: float) -> float:
    return float(-10 * np.log10(max(float(error), 1e-10)))


def summary(model: EmbedderReader, images: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """The figures a recipe records: fidelity, accuracy by distortion, and where the mark is local, the local ones."""
    bits = draw_bits(seed, len(images), model.bits)
    figures = fidelity(images, embedded(model, images, bits))
    rows = robustness(model, images, seed=seed)
    figures |= {f"{row['distortion']} {row['strength']:g}": float(row["bit_accuracy"]) for row in rows}
    figures["mean"] = float(np.mean([row["bit_accuracy"] for row in rows]))
    figures["tpr"] = float(np.mean([row["tpr"] for row in rows]))
    if model.localises:
        for row in local(model, images, seed=seed):
            where = f"{row['share']:.0%} of the area"
            figures |= {f"{where}: {name}": row[name] for name in ("bit_accuracy", "true_mask", "wrong_mask", "iou")}
        figures["false alarm area"] = float(false_alarm_area(model, images).mean())
    return figures


def watched(model: EmbedderReader, images: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """The figures of a validation: PSNR, bit accuracy unchanged and after JPEG 50, "kept": its mean over `WATCHED`, and
    for marks that are local "kept" is the mean of that and of the accuracy where a tenth of the area is marked."""
    bits = draw_bits(seed, len(images), model.bits)
    rows = robustness(model, images, WATCHED, seed=seed)
    right = {f"{row['distortion']} {row['strength']:g}": float(row["bit_accuracy"]) for row in rows}
    kept = float(np.mean(list(right.values())))
    if model.localises:
        kept = (kept + float(local(model, images, (0.1,), seed=seed)[0]["bit_accuracy"])) / 2
    psnr_of = fidelity(images, embedded(model, images, bits))["psnr"]
    return {"psnr": psnr_of, "kept": kept, "identity 0": right["identity 0"], "jpeg 50": right["jpeg 50"]}
