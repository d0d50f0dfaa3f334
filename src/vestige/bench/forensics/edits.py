"""One bed for localisers of edits: squares of photographs, thresholds from validation, figures for every picture.

Training, validation and test share no photograph. Finished pictures of the training are stored without loss or as JPEG
with halved colours; the test has both apart. Every network's maps are cut where validation pictures serve best, and
maps that are not learnt as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.runtime import rng
from vestige.data import edited_photographs as edits
from vestige.data import manipulated as histories
from vestige.data import tampering, tampering_edits, tampering_regions
from vestige.data.distortions import distort
from vestige.data.manipulated import Manipulated
from vestige.data.packs import has_pack
from vestige.engines.kept import kept_arrays
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import centre_prior, f1_at_threshold, f1_curve, pixel_auroc
from vestige.nn.residual import SRM

OPERATIONS = ("splice", "copy_move", "removal")
GRID = tuple(round(0.02 * k, 2) for k in range(1, 50))
#: uint8 N×3×S×S -> float32 N×1×S×S in [0, 1].
Maps = Callable[[np.ndarray], np.ndarray]


def bed(
    part: str, operations: Sequence[str], count: int, size: int, *, unedited: float, lossless: bool = False,
    limit: int = 0, seed: int = 0,
) -> Manipulated:  # fmt: skip
    """`edited_photographs`, kept beside the runs because it takes minutes to make."""
    settings = {
        "part": part, "operations": list(operations), "count": count, "size": size, "unedited": unedited,
        "lossless": lossless, "limit": limit, "seed": seed, "photos": has_pack("photos"),
    }  # fmt: skip

    def make() -> dict[str, np.ndarray]:
        made = edits.edited_photographs(
            part, tuple(operations), count, size, unedited=unedited, lossless=lossless, limit=limit, seed=seed
        )
        return {"images": made.images, "masks": made.masks, "operations": np.array(made.operations)}

    code = (edits, histories, tampering, tampering_edits, tampering_regions)
    found = make() if limit else kept_arrays("edits", settings, code, make)  # trial runs leave nothing behind
    return Manipulated(found["images"], found["masks"], tuple(str(o) for o in found["operations"]))


def with_masks_of_others(made: Manipulated, seed: int) -> Manipulated:
    """The same pictures with masks dealt out anew: what is learnt from them is the bed's noise."""
    order = rng(seed, "shuffled labels").permutation(len(made))
    return Manipulated(made.images, made.masks[order], tuple(made.operations[i] for i in order))


def turned(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch turned by a multiple of 90° and perhaps mirrored; float in [0, 1] both."""
    turn, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
    x, y = (part.rot90(turn, (2, 3)).float() for part in (images, masks))
    return (x.flip(3) / 255, y.flip(3)) if mirror else (x / 255, y)


def maps_of(localize: Callable[[Tensor], Tensor], network: nn.Module, batch: int = 60) -> Maps:
    """`Maps` of a network by its function on float pictures."""

    @torch.no_grad()
    def run(images: np.ndarray) -> np.ndarray:
        device = next(network.parameters()).device
        parts = torch.from_numpy(images).split(batch)
        return torch.cat([localize(x.to(device).float() / 255).cpu() for x in parts]).numpy()

    return run


def best_threshold(made: Manipulated, maps: np.ndarray) -> float:
    """The one threshold of `GRID` with the highest mean F1 over edited pictures."""
    shown = [i for i, mask in enumerate(made.masks) if mask.any()]
    curves = np.array([f1_curve(made.masks[i, 0], maps[i, 0], GRID) for i in shown])
    return GRID[int(curves.mean(0).argmax())]


def judged(run: Maps, val: Manipulated, tests: dict[str, Manipulated]) -> dict[str, Any]:
    """Figures of maps cut at the threshold of validation, for every test by its name.

    Keys: "threshold"; for each test "f1", "pixel auc" and "each f1" (of every edited picture, in order), with ", NAME"
    behind, and "marked where nothing is, NAME".
    """
    cut = best_threshold(val, run(val.images))
    found: dict[str, Any] = {"threshold": cut}
    for name, made in tests.items():
        maps, edited = run(made.images), np.array([bool(o) for o in made.operations])
        each = f1_at_threshold(made.masks, maps, cut)[edited]
        found[f"f1, {name}"], found[f"each f1, {name}"] = float(each.mean()), np.round(each, 4).tolist()
        found[f"pixel auc, {name}"] = pixel_auroc(made.masks, maps)
        if not edited.all():
            found[f"marked where nothing is, {name}"] = float((maps[~edited] >= cut).mean())
        kinds = np.array(made.operations)[edited]
        found |= {f"f1, {kind}, {name}": float(each[kinds == kind].mean()) for kind in sorted(set(kinds))}
    return found


def floors(val: Manipulated, tests: dict[str, Manipulated]) -> dict[str, dict[str, Any]]:
    """`judged` for maps that nobody learnt: error levels, noise energy, the middle, every pixel."""
    size = val.images.shape[2]

    def middle(images: np.ndarray) -> np.ndarray:
        return np.broadcast_to(centre_prior(size, size).astype(np.float32), (len(images), 1, size, size))

    def all_of_it(images: np.ndarray) -> np.ndarray:
        return np.ones((len(images), 1, size, size), np.float32)

    named: dict[str, Maps] = {
        "error levels": error_levels, "noise energy": noise_energy, "the middle": middle, "every pixel": all_of_it,
    }  # fmt: skip
    return {name: judged(run, val, tests) for name, run in named.items()}


def error_levels(images: np.ndarray) -> np.ndarray:
    """How much JPEG 90 changes the surroundings of each pixel, at most 1."""
    x = images.astype(np.float32) / 255
    return np.clip(10 * _around(np.abs(x - distort(x, "jpeg", 90)).mean(1, keepdims=True)), 0, 1)


def noise_energy(images: np.ndarray) -> np.ndarray:
    """How far the size of the residuals around a pixel is from what is usual in its picture, at most 1."""
    residual = SRM(3)(torch.from_numpy(images).float()).abs().mean(1, keepdim=True).numpy()
    level = np.log(_around(residual) + 0.1)
    return np.clip(np.abs(level - np.median(level, (2, 3), keepdims=True)) / 4, 0, 1)


def _around(maps: np.ndarray) -> np.ndarray:
    return nn.functional.avg_pool2d(torch.from_numpy(maps), 9, 1, 4, count_include_pad=False).numpy()


def image_scores(score: Callable[[Tensor], Tensor], made: Manipulated, batch: int = 48) -> np.ndarray:
    """Scores N of whole pictures."""
    with torch.no_grad():
        found = [score(x.float() / 255) for x in torch.from_numpy(made.images).split(batch)]
    return torch.cat(found).cpu().numpy()


def image_auc(score: Callable[[Tensor], Tensor], made: Manipulated) -> dict[str, float]:
    """AUC of scores of whole pictures, over all edits ("") and by operation."""
    scores = image_scores(score, made)
    kinds = np.array(made.operations)
    found = {"": auroc(kinds != "", scores)}
    for kind in sorted(set(kinds) - {""}):
        chosen = (kinds == "") | (kinds == kind)
        found[str(kind)] = auroc(kinds[chosen] != "", scores[chosen])
    return found
