"""What recipes of detectors share that learn from published pictures: options, variants, and the training.

Options: held, what is left out of the training to judge by, "families", "sources" or "nothing" (see
`vestige.data.published`); which third of them follows from the seed, so that the runs of three seeds judge every family
once. labels: "true", or "shuffled" for the control. views: levelled copies of every picture; crop: side of the squares
cut out of them; limit: pictures, 0 all; rate: the share of real pictures that the threshold may flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.forensics.published_bed import SQUARE, Bed, Squares, area, batches, bed, report, scored
from vestige.core.errors import UsageError
from vestige.engines.recipe import Job, RecipeContext, Variant
from vestige.engines.train import Batch, Step
from vestige.forensics.generated import TraceDetector, logits
from vestige.forensics.learned import calibration, save_network

OPTIONS: dict[str, Any] = {
    "held": "nothing", "labels": "true", "views": 3, "crop": 56, "limit": 0, "rate": 0.05,
}  # fmt: skip
HELD = {"held": "families"}
THREE = (0, 1, 2)
SHUFFLED = Variant("the method with the labels of its training pictures shuffled", {**HELD, "labels": "shuffled"})


def bed_of(ctx: RecipeContext) -> Bed:
    """The pictures of a run. Raises UsageError for options that are none."""
    o = ctx.options
    if o["held"] not in ("families", "sources", "nothing") or o["labels"] not in ("true", "shuffled"):
        raise UsageError("held is families, sources or nothing; labels is true or shuffled.")
    return bed(
        o["held"], ctx.seed, views=int(o["views"]), limit=int(o["limit"]), seed=ctx.seed,
        mixed=o["labels"] == "shuffled",
    )  # fmt: skip


def entropy(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Cross-entropy of logits N."""
    found = model(batch["images"], generator).float()
    right = ((found > 0) == (batch["labels"] > 0.5)).float().mean()
    return {"loss": F.binary_cross_entropy_with_logits(found, batch["labels"]), "right": right.detach()}


def detector_job(
    ctx: RecipeContext, model: TraceDetector, slug: str, step: Step = entropy, *,
    judge: Callable[[nn.Module, Bed], TraceDetector] | None = None,
    watch: Callable[[nn.Module, Bed], float] | None = None,
    extra: Callable[[nn.Module, Bed], Mapping[str, Any]] | None = None,
    made: Bed | None = None, parameters: Iterable[Mapping[str, Any]] | None = None, square: int = SQUARE,
) -> Job:  # fmt: skip
    """The job of a detector on the pictures of the run; writes SLUG.safetensors for its examiner where nothing is held.

    judge: makes the detector of the trained network where that is more than the network, once. watch: the validation
    figure "auroc"; by default that of the logits on the middle squares of the pictures kept apart. extra: further
    figures at the end. made: the pictures, by default `bed_of`. parameters: groups for the optimiser.
    square: side of what the network judges.
    """
    made = bed_of(ctx) if made is None else made
    drawn = batches(made.train, ctx.config.batch_size, crop=int(ctx.options["crop"]))
    done: list[TraceDetector] = []

    def finished(module: nn.Module) -> TraceDetector:
        if not done:
            assert isinstance(module, TraceDetector)
            done.append(module if judge is None else judge(module, made))
        return done[0]

    def validate(module: nn.Module) -> dict[str, float]:
        if watch is not None:
            return {"auroc": watch(module, made)}
        assert isinstance(module, TraceDetector)
        return {"auroc": area(made.apart, logits(module, middle(made.apart, square)))}

    def evaluate(module: nn.Module) -> Mapping[str, Any]:
        detector = finished(module)
        more = {} if extra is None else extra(module, made)
        return {**report(made, lambda images: logits(detector, images), float(ctx.options["rate"]), square), **more}

    def save(module: nn.Module, out: Path) -> None:
        if ctx.options["held"] != "nothing":
            return
        detector = finished(module)
        scores, truth = scored(made.apart, lambda images: logits(detector, images), square), made.apart.made.generated
        facts: dict[str, Any] = {"held": ctx.options["held"], "pictures": len(made.train.labels)}
        if 0 < truth.sum() < len(truth):
            facts |= calibration(scores[~truth], scores[truth], float(ctx.options["rate"]))
        save_network(out / f"{slug}.safetensors", detector, slug, facts)

    return Job(model, step, drawn, validate=validate, evaluate=evaluate, save=save, parameters=parameters)


def middle(squares: Squares, side: int = 64, view: int = 0) -> np.ndarray:
    """uint8 N×3×side×side: the middle of a view of every picture."""
    first = (squares.images.shape[-1] - side) // 2
    return squares.images[:, view, :, first : first + side, first : first + side]
