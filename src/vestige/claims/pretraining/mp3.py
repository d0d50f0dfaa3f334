"""Claims of MP3: places are found from context, the encoder is worth tuning, and the context mask saves time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.masked.measure import PROTOCOL
from vestige.bench.masked.runs import Stepper, Study, interleaved, test_pack, thread_limit, training_pack
from vestige.bench.masked.systems import crop_scale, networks
from vestige.bench.masked.table import Comparison, Schedule, Wanted, figure, points
from vestige.claims import ClaimContext, Evidence, claim
from vestige.engines.masked.augment import random_resized_crop
from vestige.engines.masked.evaluate import fit_linear
from vestige.nn.vit import ViT, patchify

#: Updates of the per-patch network, of 4096 patches each.
FLOOR_UPDATES = 400


@claim("the place of a patch is found at least 10 points more often than by a network that sees the patch alone")
def places_need_context(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    schedules: tuple[Schedule, ...] = ("epochs", "time", "random")
    runs = comparison.records(*(("mp3", s) for s in schedules))
    rows = [comparison.row(*want, found, "positions", "positions_all_keys") for want, found in runs.items()]
    floors = floor(comparison.study)
    rows += [{"method": name, "runs": "none", "positions": round(value, 4)} for name, value in floors.items()]
    gain = 100 * (figure(runs["mp3", "epochs"], "positions").mean - floors["per-patch network"])
    return Evidence(gain >= 10, rows, f"{gain:+.2f} points at equal epochs; the ceiling counts identical patches only")


def floor(study: Study) -> dict[str, float]:
    """How often a patch is placed without the others, by a network and by its mean colour; chance; and the ceiling
    that patches which occur several times in their picture leave to any method."""
    test = torch.from_numpy(test_pack(study.data, study.protocol.probe_test).images[: PROTOCOL["judged"]])
    encoder = ViT(networks(study.protocol.sizes)[0])
    length = encoder.config.length
    held = encoder.patches(test.float() / 255).flatten(0, 1)
    cells = torch.arange(length).repeat(len(test))
    with thread_limit(study.protocol.threads):
        network = _per_patch_network(study, encoder)
        x, y = _patches(study, encoder, 640, torch.Generator().manual_seed(1))
        colour = fit_linear(_mean_colour(x), y, length, decays=(1e-4,), iterations=30)
        with torch.no_grad():
            return {
                "per-patch network": float((network(held).argmax(1) == cells).float().mean()),
                "mean colour": colour.accuracy(_mean_colour(held), cells),
                "chance": 1 / length,
                "ceiling": _ceiling(test, encoder.config.patch_size),
            }


def _patches(study: Study, encoder: ViT, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Patches of cropped training pictures, M×(p²·3), and their cells."""
    images = torch.from_numpy(training_pack(study.data, study.protocol.limit).images)
    chosen = images[torch.randint(len(images), (count,), generator=generator)]
    with torch.no_grad():
        patches = encoder.patches(random_resized_crop(chosen, generator, scale=(crop_scale("mp3"), 1.0)))
    return patches.flatten(0, 1), torch.arange(encoder.config.length).repeat(count)


def _per_patch_network(study: Study, encoder: ViT) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = (3 * encoder.config.patch_size**2, 256, 256)
        hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.GELU())]
        network = nn.Sequential(*hidden, nn.Linear(256, encoder.config.length))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FLOOR_UPDATES)
    for _ in range(FLOOR_UPDATES):
        x, y = _patches(study, encoder, 64, generator)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _mean_colour(patches: Tensor) -> Tensor:
    colour = patches.unflatten(-1, (-1, 3)).mean(-2)
    return torch.cat([colour, colour.square()], -1)


def _ceiling(images: Tensor, size: int) -> float:
    """Mean over the patches of 1 / how often they occur in their picture."""
    distinct = [len(np.unique(patches, axis=0)) for patches in patchify(images, size).numpy()]
    return float(np.mean(distinct)) / (images.shape[-1] // size) ** 2


@claim("fine-tuned without positions, it beats random weights without them by at least 2 points, and is not below "
       "random weights with them")  # fmt: skip
def fine_tunes_without_positions(context: ClaimContext) -> Evidence:
    comparison = Comparison.of(context)
    runs = comparison.records(("mp3", "time"), ("mp3", "tuned"), ("mp3", "scratch"), ("mae", "scratch"))
    names: dict[Wanted, str] = {
        ("mp3", "tuned"): "mp3",
        ("mp3", "scratch"): "no positions",
        ("mae", "scratch"): "positions",
    }
    rows = [comparison.row(*want, runs[want], "tuned") | {"method": name} for want, name in names.items()]
    plain = points(runs["mp3", "tuned"], runs["mp3", "scratch"], "tuned")
    placed = points(runs["mp3", "tuned"], runs["mae", "scratch"], "tuned")
    p = comparison.study.protocol
    note = f"without positions {plain}; with {placed}; {comparison.epochs} epochs, {p.labels} labels"
    return Evidence(plain.value >= 2 and plain.higher and placed.value >= 0, rows, note)


@claim("an update is faster with a quarter of the patches as keys and values than with all of them")
def context_saves_time(context: ClaimContext) -> Evidence:
    study = Comparison.of(context).study
    pack = test_pack(study.data, study.protocol.probe_test)
    names = ("mp3", "mp3/all_keys")
    with thread_limit(study.protocol.threads):
        times = interleaved({name: Stepper(study, name, pack) for name in names}, 2 * study.protocol.rounds)
    rows = [{"method": n, "ms per update": round(1000 * times[n], 1), "ratio": times[n] / times["mp3"]} for n in names]
    return Evidence(times["mp3"] < times["mp3/all_keys"], rows)
