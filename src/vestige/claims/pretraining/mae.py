"""Claims of MAE, the reference of the masked models."""

from __future__ import annotations

import torch

from vestige.bench.controls import over_seeds
from vestige.bench.masked.table import row, values
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.pretraining._runs import runs_of
from vestige.data.packs import Pack, named_pack
from vestige.engines.masked.evaluate import knn_accuracy
from vestige.engines.runs import Need

NEEDS = (Need("mae"),)


@headline("a linear probe on its frozen features is above the same network's with random weights (3 seeds)")
def beats_random_weights(context: ClaimContext) -> Evidence:
    runs = runs_of(context, "mae", "mae")
    rows = [row("mae", runs, "linear", "knn"), row("random weights", runs, "linear", "knn", prefix="untrained ")]
    rows.append({"arm": "pixels, no network", "knn": round(_pixel_knn(context), 4)})
    gain = over_seeds(values(runs, "linear"), values(runs, "untrained linear"))
    return Evidence(gain.low > 0, rows, f"gain {gain}")


def _pixel_knn(context: ClaimContext) -> float:
    """The floor: neighbours by pixels, with the bank of 4,000 labelled pictures that networks get."""
    root = context.pack("cifar10").parent

    def part(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pack: Pack = named_pack("cifar10", name, root=root, limit=context.limit or count)
        return torch.from_numpy(pack.images).float().flatten(1), torch.from_numpy(pack.labels)

    (x, y), (test, truth) = part("train", 4000), part("test", 1000)
    return knn_accuracy(x, y, test, truth, k=min(20, len(x)))


@claim("fine-tuning from MAE beats the same fine-tuning from random weights (2,000 labels, 3 seeds)")
def fine_tunes_better_than_scratch(context: ClaimContext) -> Evidence:
    runs = runs_of(context, "mae", "mae")
    rows = [row("from MAE", runs, "tuned"), row("from random weights", runs, "tuned", prefix="untrained ")]
    gain = over_seeds(values(runs, "tuned"), values(runs, "untrained tuned"))
    return Evidence(gain.low > 0, rows, f"gain {gain}; the card hopes for 3 points")


@claim("encoding only what is seen makes an update faster than masking by replacement with the same decoder")
def seen_tokens_are_cheap(context: ClaimContext) -> Evidence:
    runs = runs_of(context, "mae", "mae")
    names = ("mae", "mae/replacement", "mae/simmim")
    ratios = {n: [a / b for a, b in zip(values(runs, f"ms {n}"), values(runs, "ms mae"))] for n in names}
    rows = [
        {"arm": n, "ms per update": round(sum(values(runs, f"ms {n}")) / len(runs), 1), "times MAE's": sum(r) / len(r)}
        for n, r in ratios.items()
    ]
    gain = over_seeds(ratios["mae/replacement"])
    note = f"ratio {gain}, the card hopes for 2.5; simmim: a linear layer in the decoder's place, reported only"
    return Evidence(gain.low > 1, rows, note)
