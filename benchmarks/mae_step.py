"""One training step of MAE: ours beside transformers' ViTMAE at equal sizes, in one process, and the memory of each.

    python benchmarks/mae_step.py [--batch 256] [--rounds 20] [--threads N] [--out results.json]

Both sides have the same widths, depths, heads, patches, mask ratio, batch, precision and optimiser (AdamW, fused) and
compute the same loss (see tests/engines/test_masked.py); theirs uses its default attention (sdpa). A step is forward,
backward and update. Rounds alternate between the sides; the ratio is that of the medians. Next to wall time stands
processor time (all threads), which other work on the machine disturbs less. Peak memory is the resident set of a
process of its own for each side, less what it held before its first step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from vestige.core.files import write_json
from vestige.core.runtime import hardware, versions
from vestige.nn.vit import DecoderConfig, ViTConfig
from vestige.pretraining.mae import MAE

#: Sizes to compare: (encoder, decoder).
SIZES = {
    "recipe": (ViTConfig(width=128, depth=6, heads=4), DecoderConfig(160, 1, 5)),
    "two-block-decoder": (ViTConfig(width=128, depth=6, heads=4), DecoderConfig(96, 2, 3)),
    "tiny": (ViTConfig(width=192, depth=9, heads=3), DecoderConfig(128, 2, 4)),
    "deep-decoder": (ViTConfig(width=192, depth=9, heads=3), DecoderConfig(128, 4, 4)),
}
MASK_RATIO = 0.75


def ours(size: str, batch: int) -> Callable[[], float]:
    """A training step of `MAE`."""
    encoder, decoder = SIZES[size]
    model = MAE(encoder, decoder, mask_ratio=MASK_RATIO).train()
    images, generator = torch.rand(batch, 3, encoder.image_size, encoder.image_size), torch.Generator().manual_seed(0)
    return _step(model, lambda: model.loss(images, generator)["loss"])


def theirs(size: str, batch: int) -> Callable[[], float]:
    """A training step of transformers' ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    encoder, decoder = SIZES[size]
    model = ViTMAEForPreTraining(ViTMAEConfig(
        image_size=encoder.image_size, patch_size=encoder.patch_size, hidden_size=encoder.width,
        num_hidden_layers=encoder.depth, num_attention_heads=encoder.heads, intermediate_size=4 * encoder.width,
        decoder_hidden_size=decoder.width, decoder_num_hidden_layers=decoder.depth,
        decoder_num_attention_heads=decoder.heads, decoder_intermediate_size=4 * decoder.width,
        mask_ratio=MASK_RATIO, norm_pix_loss=True, layer_norm_eps=encoder.eps,
    )).train()  # fmt: skip
    images = torch.rand(batch, 3, encoder.image_size, encoder.image_size)
    return _step(model, lambda: model(pixel_values=images).loss)


def _step(model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> Callable[[], float]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SIDES = {"ours": ours, "theirs": theirs}


def compare(size: str, batch: int, rounds: int) -> dict[str, Any]:
    """Medians of both sides in interleaved rounds, and their ratios (above 1: ours is faster)."""
    steps = {name: make(size, batch) for name, make in SIDES.items()}
    for step in steps.values():
        step()
        step()
    wall: dict[str, list[float]] = {name: [] for name in steps}
    processor: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name in sorted(steps, reverse=bool(number % 2)):
            start, used = time.perf_counter(), time.process_time()
            steps[name]()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    row: dict[str, Any] = {"size": size, "batch": batch, "rounds": rounds}
    for kind, times in (("wall", wall), ("processor", processor)):
        medians = {name: statistics.median(values) for name, values in times.items()}
        row |= {f"{name}_{kind}_ms": round(1e3 * value, 2) for name, value in medians.items()}
        row[f"{kind}_ratio"] = round(medians["theirs"] / medians["ours"], 3)
    return row


def peak_memory(side: str, size: str, batch: int, threads: int) -> float:
    """MiB that three steps of one side add to the resident set of a process of their own."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        side,
        "--size",
        size,
        "--batch",
        str(batch),
        "--threads",
        str(threads),
    ]
    return float(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    )


def _measure(side: str, size: str, batch: int) -> None:
    step = SIDES[side](size, batch)
    before = _peak()
    for _ in range(3):
        step()
    print(json.dumps(_peak() - before))


def _peak() -> float:
    """MiB of the largest resident set so far. On Linux getrusage would count the parent of a new process, too."""
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "all"], default="all")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="write the rows as JSON")
    parser.add_argument("--measure", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.measure:
        _measure(options.measure, options.size, options.batch)
        return
    rows = []
    for size in SIZES if options.size == "all" else [options.size]:
        row = compare(size, options.batch, options.rounds)
        row |= {f"{s}_peak_mib": round(peak_memory(s, size, options.batch, options.threads), 1) for s in SIDES}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.out:
        facts = {"threads": options.threads, "versions": versions("vestige", "torch", "transformers")}
        write_json(options.out, {"rows": rows, **facts, "hardware": hardware()})


if __name__ == "__main__":
    main()
