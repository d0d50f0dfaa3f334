"""Claims of MP3: the encoder is worth tuning, places are found from context, and the context mask saves time."""

from __future__ import annotations

import numpy as np
import torch

from vestige.bench.controls import over_seeds
from vestige.bench.masked.measure import PROTOCOL
from vestige.bench.masked.table import row, values
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.data.packs import named_pack
from vestige.engines.runs import Need
from vestige.nn.vit import patchify

NEEDS = (Need("mp3"), Need("mae"))


@headline("fine-tuned without positions, it beats random weights without them (2,000 labels, 3 seeds)")
def fine_tunes_without_positions(context: ClaimContext) -> Evidence:
    runs, placed = runs_of(context, "mp3", "mp3"), runs_of(context, "mae", "mae")
    rows = [
        row("mp3, no positions", runs, "tuned", "linear", "knn"),
        row("random weights, no positions", runs, "tuned", "linear", "knn", prefix="untrained "),
        row("random weights, positions", placed, "tuned", "linear", "knn", prefix="untrained "),
    ]
    plain = over_seeds(values(runs, "tuned"), values(runs, "untrained tuned"))
    other = over_seeds(values(runs, "tuned"), values(placed, "untrained tuned"))
    return Evidence(plain.low > 0, rows, f"without positions {plain}; against random weights with them {other}")


@claim("the place of a patch is found more often than by a network trained on the patch alone (3 seeds)")
def places_need_context(context: ClaimContext) -> Evidence:
    runs, alone = runs_of(context, "mp3", "mp3"), runs_of(context, "mp3", "patch_alone")
    keys = ("positions", "positions_all_keys")
    rows = [row("mp3", runs, *keys), row("the patch alone", alone, *keys)]
    rows.append(row("random weights", runs, *keys, prefix="untrained "))
    rows.append({"arm": "ceiling of identical patches", "positions": round(_ceiling(context), 4)})
    rows.append({"arm": "chance", "positions": 1 / 64})
    gain = over_seeds(values(runs, "positions"), values(alone, "positions"))
    return Evidence(gain.low > 0, rows, f"gain {gain}; the card hopes for 10 points")


def _ceiling(context: ClaimContext) -> float:
    """Mean over the patches of 1 / how often they occur in their picture: what any method can reach."""
    root = context.pack("cifar10").parent
    pack = named_pack("cifar10", "test", root=root, limit=context.limit or PROTOCOL["judged"])
    return ceiling(torch.from_numpy(pack.images), 4)


def ceiling(images: torch.Tensor, size: int) -> float:
    """Share of uint8 N×3×H×W patches that their picture does not hold twice."""
    distinct = [len(np.unique(patches, axis=0)) for patches in patchify(images, size).numpy()]
    return float(np.mean(distinct)) / (images.shape[-1] // size) ** 2


@claim("an update is faster with a quarter of the patches as keys and values than with all of them (3 runs)")
def context_saves_time(context: ClaimContext) -> Evidence:
    runs = runs_of(context, "mp3", "mp3")
    times = {name: values(runs, f"ms {name}") for name in ("mp3", "mp3/all_keys")}
    rows = [{"arm": name, "ms per update": round(sum(t) / len(t), 1)} for name, t in times.items()]
    saved = over_seeds(times["mp3/all_keys"], times["mp3"])
    return Evidence(saved.low > 0, rows, f"saved {saved} ms")
