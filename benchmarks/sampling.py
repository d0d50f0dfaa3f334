"""Sampling speed and memory: vestige's sampler beside diffusers' pipeline on the same network, in one run.

    python benchmarks/sampling.py [--folder PIPELINE] [--steps 20] [--batch 4] [--rounds 7] [--threads 1] [--out FILE]

Without a folder a pipeline of the recipe's size with random weights is written first. Both sides load that folder,
start from the same noise and give the same pictures (checked); their timed calls take turns, and the median is
reported. Peak memory is measured in a process of its own for each side. A second part compares the first-hitting
sampler of masked token models with ancestral sampling, with and without caching, on independent Zipf tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.files import write_json
from vestige.core.runtime import hardware, versions
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline, save_pipeline
from vestige.engines.diffusion.schedules import cosine
from vestige.generation.first_hitting import FirstHitting
from vestige.nn.text import build_tokenizer, text_encoder
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae

CAPTION = "a photo of a red ball on grass"
GUIDANCE = 3.0


def write_random_pipeline(folder: Path) -> None:
    """A pixel model of the size of recipes/generation/scenes_text2image, untrained."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer([CAPTION], 24)
    unet = text_unet(32, 3, "cpu", 128, attention_size=8)
    save_pipeline(folder, TextToImage(unet, identity_vae(), text_encoder(tokenizer), tokenizer, cosine(), "v"))


def ours(folder: Path) -> Callable[[torch.Tensor, int], np.ndarray]:
    """vestige's road: load_pipeline, DDIM."""
    model = load_pipeline(folder)
    assert isinstance(model, TextToImage)
    prompts = [CAPTION]

    def run(latents: torch.Tensor, steps: int) -> np.ndarray:
        images = model.sample(
            prompts * len(latents), steps=steps, method="ddim", guidance=GUIDANCE, latents=latents, batch=len(latents)
        )
        return images.permute(0, 2, 3, 1).numpy()

    return run


def theirs(folder: Path) -> Callable[[torch.Tensor, int], np.ndarray]:
    """diffusers' road: DiffusionPipeline with the folder's DDIM scheduler."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def run(latents: torch.Tensor, steps: int) -> np.ndarray:
        return pipeline(
            [CAPTION] * len(latents),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            latents=latents.clone(),
            output_type="np",
        ).images

    return run


SIDES = {"vestige": ours, "diffusers": theirs}


def peak_memory(side: str, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """MB of a process that loads and samples once: its peak, and the rise above that after loading."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--steps", str(args.steps), "--batch", str(args.batch), "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_memory(side: str, args: argparse.Namespace) -> None:
    """Body of the process that `peak_memory` starts."""
    run = SIDES[side](Path(args.folder))
    loaded = high_water_mb()
    run(start(args.batch), args.steps)
    peak = high_water_mb()
    print(json.dumps({"peak_mb": round(peak, 1), "sampling_mb": round(peak - loaded, 1)}))


def high_water_mb() -> float:
    """Peak resident memory of this process alone (getrusage would include that of the process that started it)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def start(batch: int) -> torch.Tensor:
    """The noise both sides start from."""
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def compare_pipelines(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds (median of interleaved rounds), memory and the largest difference of the pictures."""
    runs = {name: make(folder) for name, make in SIDES.items()}
    latents = start(args.batch)
    pictures = {name: run(latents, args.steps) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.rounds):
        for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            begun, used = time.perf_counter(), time.process_time()
            runs[name](latents, args.steps)
            seconds[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - used)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    # Processor time of all threads hardly changes with what else the machine is doing.
    work = {name: statistics.median(values) for name, values in cpu.items()}
    return {
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio_diffusers_to_vestige": round(medians["diffusers"] / medians["vestige"], 3),
        "cpu_seconds": {name: round(value, 4) for name, value in work.items()},
        "cpu_ratio_diffusers_to_vestige": round(work["diffusers"] / work["vestige"], 3),
        "memory": {name: peak_memory(name, args, folder) for name in runs},
        "largest_difference": float(np.abs(pictures["vestige"] - pictures["diffusers"]).max()),
    }


class ZipfModel:
    """Independent tokens with probability 1/rank, computed by a matrix product as a network's output layer would be."""

    def __init__(self, words: int, width: int = 64) -> None:
        law = 1 / np.arange(1, words + 1)
        self.log_p = torch.from_numpy(np.log(law / law.sum()))
        self.head = torch.zeros(width, words)
        self.width = width

    def __call__(self, x: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        asked = x if places is None else places
        return self.log_p + torch.ones(*asked.shape, self.width) @ self.head


def compare_token_samplers(length: int = 128, words: int = 1024) -> list[dict[str, Any]]:
    """Seconds, calls and draws for one sequence."""
    model = ZipfModel(words)
    rows: list[dict[str, Any]] = []
    choices: list[tuple[str, dict[str, Any]]] = [
        ("first-hitting", {"sampler": "first_hitting"}),
        ("ancestral, cached", {"sampler": "ancestral", "steps": 8 * length}),
        ("ancestral", {"sampler": "ancestral", "steps": 8 * length, "cached": False}),
    ]
    for label, options in choices:
        system = FirstHitting(model, length, words, **options)
        begun = time.perf_counter()
        drawn = system.draw(1)
        seconds = time.perf_counter() - begun
        rows.append({"sampler": label, "seconds": round(seconds, 4), "calls": drawn.calls, "draws": drawn.draws})
    for row in rows:
        row["times_first_hitting"] = round(row["seconds"] / rows[0]["seconds"], 2)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        measure_memory(args.side, args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder) if args.folder else Path(temporary) / "pipeline"
        if not args.folder:
            write_random_pipeline(folder)
        images = compare_pipelines(args, folder)
    tokens = compare_token_samplers()
    settings = {name: getattr(args, name) for name in ("steps", "batch", "rounds", "threads")}
    found = {"settings": settings, "pipelines": images, "tokens": tokens}
    found |= {"versions": versions("vestige", "torch", "diffusers"), "hardware": hardware()}
    print(json.dumps(found, indent=2))
    if args.out:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
