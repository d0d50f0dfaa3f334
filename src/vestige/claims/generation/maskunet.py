"""Claims of MaskUNet: masks on a text-to-image model that was stopped early, so that there is head-room.

Every arm draws from the same starting noise under the same captions, without guidance, so that distances differ by the
weights alone. Without masks ("base") and with as many zeros at random places the same model is measured in each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vestige.bench.controls import Interval, over_seeds
from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.engines.runs import Need, Run

NEEDS = (Need("maskunet", ("early", "early_masks", "early_low_rank", "early_slow", "masks")),)
SEEDS = (0, 1, 2)


def figure(runs_: Sequence[Run], key: str) -> list[float]:
    """A figure of every run."""
    return [float(run.figures[key]) for run in runs_]


def lower(ours: Sequence[float], theirs: Sequence[float]) -> tuple[bool, Interval]:
    """Whether ``ours`` lies below ``theirs`` seed by seed, and theirs minus ours."""
    gain = over_seeds(theirs, ours)
    return gain.low > 0, gain


def _row(name: str, found: Sequence[Run], arm: str) -> dict[str, Any]:
    row: dict[str, Any] = {"weights": name, "seeds": len(found)}
    for key in ("distance", "loss"):
        each = figure(found, f"{key} {arm}")
        row |= {key: sum(each) / len(each), f"{key} of seeds": ", ".join(f"{v:.4g}" for v in each)}
    if arm == "masks":
        row |= {f"zeros {when}": sum(figure(found, f"zeros masks {when}")) / len(found) for when in ("first", "last")}
    return row


def _arms(context: ClaimContext) -> tuple[list[Run], list[Run], list[dict[str, Any]]]:
    masks = [context.run("maskunet", "early_masks", seed) for seed in SEEDS]
    adapters = [context.run("maskunet", "early_low_rank", seed) for seed in SEEDS]
    slow, shipped = [context.run("maskunet", "early_slow")], [context.run("maskunet", "masks")]
    rows = [
        _row("early model", masks, "base"), _row("masks", masks, "masks"),
        _row("random places, same share of zeros", masks, "random masks"),
        _row("low-rank adapters of as many parameters", adapters, "low rank"),
        _row("masks at the former rate and start", slow, "masks"),
        _row("shipped model", shipped, "base"), _row("masks of the shipped model", shipped, "masks"),
        {"weights": "real renders (the floor)", "distance": figure(masks, "distance real")[0]},
    ]  # fmt: skip
    return masks, adapters, rows


@headline(
    "trained masks lower the Fréchet distance of an early-stopped model with at most 5 % more parameters (3 seeds)"
)
def trained_masks_help(context: ClaimContext) -> Evidence:
    masks, _, rows = _arms(context)
    holds, gain = lower(figure(masks, "distance masks"), figure(masks, "distance base"))
    share = max(figure(masks, "added parameters"))
    relative = gain.value / (sum(figure(masks, "distance base")) / len(masks))
    zeros = min(figure(masks, "zeros masks last"))
    note = (
        f"lower by {gain} ({relative:.1%}; the card hopes for 5 %), {share:.1%} more parameters, {zeros:.2%} of the "
        f"weights off. Features: {runs.judge().provenance}."
    )
    return Evidence(holds and share <= 0.05 and zeros > 0, rows, note)


@claim("trained masks end nearer to real renders than low-rank adapters of equal size, steps and data (3 seeds)")
def masks_beat_low_rank_adapters(context: ClaimContext) -> Evidence:
    masks, adapters, rows = _arms(context)
    holds, gain = lower(figure(masks, "distance masks"), figure(adapters, "distance low rank"))
    return Evidence(holds, rows, f"adapters minus masks {gain}")


@claim("masks with the same share of zeros at random places are worse than the trained ones (3 seeds)")
def places_matter(context: ClaimContext) -> Evidence:
    masks, _, rows = _arms(context)
    holds, gain = lower(figure(masks, "distance masks"), figure(masks, "distance random masks"))
    return Evidence(holds and min(figure(masks, "zeros masks last")) > 0, rows, f"random minus trained {gain}")
