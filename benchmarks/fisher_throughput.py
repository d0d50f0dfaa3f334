"""Importance (the diagonal of the empirical Fisher) and evaluation beside the plain loop over single samples.

    python benchmarks/fisher_throughput.py [--width 0.25] [--samples 256] [--rounds 5] [--threads N] [--out FILE]

The loop is what scripts do: for each sample a forward pass, ``backward()`` and an addition of squared gradients; for
the evaluation a forward pass a sample. Ours takes single gradients out of one pass over a batch; `torch.func.vmap`
stands beside it. All sides give the same numbers (the largest relative difference is printed). Rounds alternate between
the sides; ratios are those of the medians of processor time, which other work on the machine disturbs less than wall
time. Peak memory is the rise of the resident set of a process of its own for each side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from vestige.core.files import write_json
from vestige.core.runtime import hardware, versions
from vestige.engines.forgetting import fisher
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.samples import Samples
from vestige.nn.resnet import ResNet, ResNetConfig

Importances = dict[str, torch.Tensor]


def setting(width: float, count: int) -> tuple[ResNet, Samples]:
    """A ResNet-18 for small pictures, and random pictures with labels."""
    torch.manual_seed(0)
    model = ResNet(ResNetConfig(18, width=width, classes=10)).eval()
    return model, Samples(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (count,)))


def loop(model: ResNet, samples: Samples) -> Importances:
    """One sample at a time."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in samples.batches(1):
        model.zero_grad()
        F.cross_entropy(model(batch.x), batch.labels).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            total[name] += p.grad**2
    return {name: value / len(samples) for name, value in total.items()}


def mapped(model: ResNet, samples: Samples) -> Importances:
    """`torch.func.vmap` over batches of 32."""
    from torch.func import functional_call, grad, vmap

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def one(weights: Importances, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(model, (weights, buffers), (x[None],)), y[None])

    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for batch in samples.batches(32):
        for name, g in vmap(grad(one), in_dims=(None, 0, 0))(parameters, batch.x, batch.labels).items():
            total[name] += g.pow(2).sum(0)
    return {name: value / len(samples) for name, value in total.items()}


def evaluate_loop(model: ResNet, samples: Samples) -> None:
    """Loss and prediction of one sample at a time."""
    with torch.no_grad():
        for batch in samples.batches(1):
            said = model(batch.x)
            F.cross_entropy(said, batch.labels).item(), said.argmax(1).item()


SIDES: dict[str, Callable[[ResNet, Samples], Any]] = {
    "ours": fisher.importance,
    "loop": loop,
    "vmap": mapped,
    "evaluation": say,
    "evaluation loop": evaluate_loop,
}


def child(side: str, args: argparse.Namespace) -> None:
    """Body of the process that measures memory: resident set before, and its high-water mark after."""
    model, samples = setting(args.width, args.samples)
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water_mb()
    SIDES[side](model, samples)
    print(json.dumps({"mb": round(high_water_mb() - before, 1)}))


def high_water_mb() -> float:
    """Peak resident set of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        child(args.child, args)
        return
    model, samples = setting(args.width, args.samples)
    found = {side: SIDES[side](model, samples) for side in ("ours", "loop", "vmap")}  # a warm-up too
    difference = max(
        float((found[side][name] - value).abs().max() / value.abs().max())
        for side in ("ours", "vmap")
        for name, value in found["loop"].items()
    )
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side, work in SIDES.items():
            start = time.process_time()
            work(model, samples)
            seconds[side].append(time.process_time() - start)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    command = [sys.executable, __file__, "--width", str(args.width), "--samples", str(args.samples)]
    memory = {
        side: json.loads(subprocess.run([*command, "--child", side], capture_output=True, check=True).stdout)["mb"]
        for side in SIDES
    }
    result = {
        "width": args.width, "samples": args.samples, "threads": args.threads,
        "samples_per_second": {side: round(args.samples / value, 1) for side, value in medians.items()},
        "importance_ratio": round(medians["loop"] / medians["ours"], 2),
        "importance_ratio_vmap": round(medians["vmap"] / medians["ours"], 2),
        "evaluation_ratio": round(medians["evaluation loop"] / medians["evaluation"], 2),
        "peak_mb": memory, "largest_relative_difference": difference,
        "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
    for name, value in result.items():
        if name not in ("versions", "hardware"):
            print(f"{name}: {value}")
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
