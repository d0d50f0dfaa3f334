"""Claims of RIGID on published pictures of real generators, all levelled alike; nothing is trained.

The validation part of the pack: mean AUROC over families, with intervals by resampling pictures. Sign and noise level
are those of the paper and are not chosen on these pictures. The encoder is the one that the examiner takes by default.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch

from vestige.bench.controls import Interval, interval
from vestige.bench.forensics.plain_features import gradient_distance, rounded
from vestige.bench.forensics.published_bed import Squares, area, bed, by_family, scored
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.data.fakes import as_float
from vestige.engines.fakes import WEIGHTS, autoencoder_source
from vestige.forensics.rigid import RIGID
from vestige.metrics.detection import auroc
from vestige.nn.features import FeatureNet

LEVEL, SEEDS = 0.05, 3
LEVELS = (0.01, 0.03, 0.1, 0.3, 0.5)
#: Pictures for the sweep over noise levels.
SWEPT = 160


@cache
def _judged(context: ClaimContext, handling: str = "levelled") -> Squares:
    context.pack("generated")
    made = bed("nothing", limit=20 * context.limit, seed=context.seed, views=1, root=context.data)
    return made.test(handling)


@cache
def _scores(
    context: ClaimContext, kind: str = "trained", seed: int = 0, handling: str = "levelled", **options: Any
) -> Any:
    encoder = FeatureNet(seed=seed).eval() if kind == "random" else None
    rigid = RIGID(encoder, LEVEL, **options)
    return scored(_judged(context, handling), lambda images: rigid.score(as_float(images)))


def _mean(squares: Squares, scores: np.ndarray) -> float:
    found = by_family(squares, scores)
    return float(np.mean(list(found.values()))) if found else 0.5


def ahead(squares: Squares, ours: np.ndarray, theirs: np.ndarray, draws: int = 400) -> Interval:
    """The difference of both mean AUROCs over families, resampling pictures."""
    made = squares.made
    names = np.unique(made.family, return_inverse=True)[1]

    def difference(rows: np.ndarray) -> float:
        generated = rows[:, 0] > 0.5
        kinds = sorted(set(rows[generated, 1].tolist()))
        if generated.all() or not kinds:
            return float("nan")
        areas = []
        for kind in kinds:
            chosen = ~generated | (rows[:, 1] == kind)
            areas.append([auroc(generated[chosen], rows[chosen, column]) for column in (2, 3)])
        means = np.mean(areas, 0)
        return float(means[0] - means[1])

    return interval(np.column_stack([made.generated, names, ours, theirs]), difference, draws=draws)


def _row(context: ClaimContext, name: str, scores: np.ndarray, handling: str = "levelled") -> dict[str, Any]:
    squares = _judged(context, handling)
    found = by_family(squares, scores)
    return {"detector": name, "mean": _mean(squares, scores), "lowest": min(found.values(), default=0.5),
            "all": area(squares, scores), **found}  # fmt: skip


def _note(context: ClaimContext) -> str:
    rigid, made = RIGID(None, LEVEL), _judged(context).made
    return (
        f"{int(made.generated.sum())} generated and {int((~made.generated).sum())} real pictures; lambda {LEVEL} "
        f"normalised = {float(rigid.scale().mean()):.4f} in [0, 1]; {rigid.draws} draws; sign 1"
    )


@headline("mean AUROC over published generators is above one half and above the same encoder with random weights")
def beats_chance_and_random_weights(context: ClaimContext) -> Evidence:
    squares, ours = _judged(context), _scores(context)
    random = [_scores(context, "random", seed) for seed in range(1 if context.limit else SEEDS)]
    rows = [_row(context, "RIGID", ours)]
    rows += [_row(context, f"random weights, seed {seed}", scores) for seed, scores in enumerate(random)]
    for name, options in (
        ("RIGID, blurred copy", {"mode": "blur"}),
        ("RIGID, smaller distance of noise and blur", {"mode": "both"}),
        ("RIGID, noisy copy in eight bits", {"quantise": True}),
        ("RIGID, resized to 32 pixels", {"size": 32}),
    ):
        rows.append(_row(context, name, _scores(context, **options)))
    trip = autoencoder_source(WEIGHTS / "scenes_vae", "round trip")
    rows.append(_row(context, "round trip, gradient distance (for AEROBLADE)", scored(squares, partial(_trip, trip))))
    chance = ahead(squares, ours, np.zeros(len(ours)))
    apart = min((ahead(squares, ours, scores) for scores in random), key=lambda i: i.low)
    note = f"{chance} above one half, {apart} above random weights, the best of {len(random)}; {_note(context)}"
    return Evidence(chance.low > 0 and apart.low > 0, rounded(rows), note)


def _trip(trip: Any, images: np.ndarray) -> np.ndarray:
    x = as_float(images)
    return -gradient_distance(torch.from_numpy(x), torch.from_numpy(trip(x)))


@claim("the distance in features is ahead of the distance in pixels under the same noise")
def beats_pixels(context: ClaimContext) -> Evidence:
    scale = float(RIGID(None, LEVEL).scale().mean())
    pixels = RIGID(partial(torch.flatten, start_dim=1), scale, "pixel")
    theirs = scored(_judged(context), lambda images: pixels.score(as_float(images)))
    rows = [_row(context, "RIGID", _scores(context)), _row(context, "pixels", theirs)]
    apart = ahead(_judged(context), _scores(context), theirs)
    return Evidence(apart.low > 0, rounded(rows), f"{apart} ahead; the card's margin: 0.08; {_note(context)}")


@claim("mean AUROC under JPEG 70 on both sides is within 0.07 of the levelled one")
def survives_jpeg(context: ClaimContext) -> Evidence:
    rows = [_row(context, "RIGID", _scores(context)),
            _row(context, "RIGID, JPEG 70", _scores(context, handling="JPEG 70"), "JPEG 70")]  # fmt: skip
    chance = abs(rows[0]["mean"] - 0.5) < 0.05  # a score that says nothing survives anything
    return Evidence(abs(rows[0]["mean"] - rows[1]["mean"]) <= 0.07 and not chance, rounded(rows), _note(context))


@claim("one sign serves every family at every noise level from 0.01 to 0.5 of the normalised input")
def one_sign_serves(context: ClaimContext) -> Evidence:
    squares = _judged(context)
    rows_of = np.linspace(0, len(squares.labels) - 1, min(SWEPT, len(squares.labels))).astype(int)
    made, images = squares.made.take(rows_of), squares.images[rows_of, 0, :, :64, :64]
    real = images[~made.generated]
    fakes = {str(f): images[made.family == f] for f in np.unique(made.family[made.generated])}
    fakes = {name: x for name, x in fakes.items() if len(x) >= 5}
    rows = RIGID(None, LEVEL, draws=1).sweep(LEVELS[:: 3 if context.limit else 1], real, fakes)
    wrong = [row for row in rows if row["sign"] != 1 and row["auroc"] < 0.45]
    return Evidence(not wrong, rounded(rows), f"{len(wrong)} of {len(rows)} cells below 0.45; {_note(context)}")
