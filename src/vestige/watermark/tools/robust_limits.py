"""The paper's three attacks on a user's pictures, and its bounds on what any detector can do.

``--set how`` chooses the attack: "purify" (noise and denoise with a diffusion model), "substitute" (an adversarial step
against a classifier trained on ``--data``, a folder with marked/ and unmarked/ pictures) or "spoof" (make a picture
that nobody marked read as marked, by ``--set mark`` under ``--key``; the default one, dwt_dct_svd, can be forged so,
spread_spectrum cannot).
"""

from __future__ import annotations

import numpy as np

from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.core.work import Result, Work
from vestige.engines.diffusion.schedules import cosine
from vestige.watermark.robust_limits import (
    RobustLimits,
    Substitute,
    auroc_bound,
    coupling_distance,
    error_bound,
    level_at,
    sample_distance,
)
from vestige.watermark.tools.redrawing import Change, changed, model_of, resized, stack, targets

HOW = ("purify", "substitute", "spoof")


def attack(work: Work) -> Result:
    """Write the attacked pictures, of the size of the inputs."""
    how, side = work.option("how", "purify"), work.option("side", 0)
    if how not in HOW:
        raise UsageError(f"--set how={how} must be one of {', '.join(HOW)}.")
    strength, steps = work.option("strength", 0.2), work.option("steps", 50)
    epsilon, epochs = work.option("epsilon", 8.0), work.option("epochs", 5)
    service = work.option("mark", "dwt_dct_svd")
    work.settled()
    where = targets(work)
    if how == "substitute":
        return changed(work, _substituted(work, epsilon / 255, steps, epochs), 0, where)
    if how == "spoof":
        return changed(work, _spoofed(work, service), 0, where)
    limits = RobustLimits(model_of(work), strength=strength, steps=steps, seed=work.seed)
    return changed(work, limits.attack, side, where)


def _spoofed(work: Work, slug: str) -> Change:
    entry = system(slug)
    if "mark" not in entry.roles or entry.subject != "image" or entry.tool("mark") is not None:
        raise UsageError(f"--set mark={slug} marks no pictures; give one as dwt_dct_svd or spread_spectrum.")
    marker = entry.load()()
    bits = rng(work.seed, "spoof").integers(0, 2, 32).astype(bool)
    return lambda image: RobustLimits(seed=work.seed).spoof(image, lambda x: marker.mark(x, bits, work.key))


def _substituted(work: Work, epsilon: float, steps: int, epochs: int, side: int = 64) -> Change:
    """Trains the stand-in, then moves pictures against it; the change is found at 64×64 and enlarged."""
    from vestige.core.dataset import DatasetSubject

    folder = work.needed("data", "a folder with marked/ and unmarked/ pictures")
    sets = []
    for name in ("marked", "unmarked"):
        if not (folder / name).is_dir():
            raise InputError(f"{folder} has no folder {name!r}; the stand-in learns from marked/ and unmarked/.")
        items = DatasetSubject.open(folder / name)
        sets.append(np.concatenate([resized(item.subject().image, (side, side)) for item in items]))
    substitute = Substitute(seed=work.seed)
    substitute.fit(*sets, epochs=epochs)

    def change(image: np.ndarray) -> np.ndarray:
        small = resized(image, (side, side))
        moved = substitute.attack(small, epsilon=epsilon, steps=steps, passes=1) - small
        return np.clip(image + resized(moved, image.shape[2:]).clip(-epsilon, epsilon), 0, 1)

    return change


def measure(work: Work) -> Result:
    """How well any detector can tell two folders of pictures apart: the marked (or generated) ones and the others.

    auroc at most: of any detector that a Gaussian noise of ``--set sigma`` smooths. errors at least: the sum of evasion
    and spoofing error of any detector after purification at ``--set strength``. auroc of a classifier: what a small
    one, trained on four fifths, reaches on the rest. Pictures are compared at ``--set side`` pixels; folders with the
    same file names are taken as pairs (one picture with and without its mark), which bounds the distance from above.
    """
    work.only(2)
    sigma, strength, steps = work.option("sigma", 0.1), work.option("strength", 0.2), work.option("steps", 50)
    side, epochs = work.option("side", 32), work.option("epochs", 5)
    work.settled()
    if not sigma > 0 or not 0 < strength <= 1 or side < 8:
        raise UsageError("sigma must be above 0, strength in (0, 1] and side at least 8.")
    marked = stack(work, 0, side, "a folder of marked (or generated) pictures")
    unmarked = stack(work, 1, side, "a folder of unmarked (or real) pictures")
    names = [[str(item.name) for item in work.dataset(i)] for i in (0, 1)]
    paired = names[0] == names[1]
    count = min(len(marked), len(unmarked))
    distance = coupling_distance if paired else sample_distance
    w = distance(unmarked[:count], marked[:count])
    variation = 1.0 - error_bound(w, 1.0, sigma)
    alpha, level = level_at(cosine(), strength, steps)
    figures: dict[str, float | int | str] = {
        "marked pictures": len(marked), "unmarked pictures": len(unmarked), "distance": w,
        "distance of": "pairs of the same name" if paired else "the two samples",
        "total variation at most": variation, "auroc at most": auroc_bound(w, sigma),
        "errors at least after purification": error_bound(2 * w, alpha, level),  # the diffusion works on [-1, 1]
    }  # fmt: skip
    if work.model is not None:
        limits = RobustLimits(model_of(work), strength=strength, steps=steps)
        bounds = limits.measure(unmarked[:count], marked[:count])
        figures["errors at least after purification by the model"] = bounds["errors at least"]
    if count - max(2, count // 5) >= 10:
        figures["auroc of a classifier"] = _classified(marked, unmarked, epochs, work.seed)
    said = ["Distances of two samples shrink with more pictures: below a few hundred the bounds are loose."]
    return Result(figures=figures, said=[] if paired else said)


def _classified(marked: np.ndarray, unmarked: np.ndarray, epochs: int, seed: int) -> float:
    import torch

    from vestige.metrics.detection import auroc
    from vestige.nn.resnet import ResNetConfig

    held = [max(2, len(x) // 5) for x in (marked, unmarked)]
    substitute = Substitute(ResNetConfig(18, width=0.25, classes=1), noise=0.1, seed=seed)
    substitute.fit(marked[held[0] :], unmarked[held[1] :], epochs=epochs)
    rest = np.concatenate([marked[: held[0]], unmarked[: held[1]]])
    with torch.no_grad():
        scores = substitute.logits(torch.from_numpy(rest)).numpy()
    return auroc(np.repeat([True, False], held), scores)
