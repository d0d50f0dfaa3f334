"""Claims of Safe-SD, on samples for captions and with QR-like patterns that no training has seen.

A sample with and one without the trigger word share their starting noise, caption and mark: the network is given the
mark in both, the word alone decides. Module accuracy is that of the free modules (no finder or timing patterns), raw,
before the repetition that serves as error correction. Pictures are saved with eight bits before they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vestige.bench.controls import Interval, over_seeds
from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.watermark.learned_marks import trained
from vestige.core.keys import PUBLIC_KEY, derive
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.engines.marking.evaluate import draw_bits, embedded
from vestige.engines.marking.residual import read_at_native
from vestige.engines.run_state import load_trained
from vestige.engines.runs import Need
from vestige.metrics.quality import psnr
from vestige.nn.features import extract_features
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.hidden import Hidden
from vestige.watermark.safe_sd import SafeSD
from vestige.watermark.safe_sd_marks import ImageInImage, modules, modules_right, random_marks
from vestige.watermark.safe_sd_model import TRIGGERS, with_trigger

SAMPLES, READ, STEPS = 300, 96, 12
ATTACKS = (("identity", 0.0), ("jpeg", 70.0), ("crop_resize", 0.8), ("blur", 0.7))
#: What a reader that does not know how much was cropped tries.
AREAS = (0.9, 0.8, 0.7)
CROPPED = 48  # pictures of the crop: each is read at some 60 places
CAPTIONS, REFERENCE = 211, 212  # series of held-out scenes
SEEDS = (0, 1, 2)
NEEDS = (Need("safe_sd"), Need("hidden", ("default",), (0,)))


@cache
def system(folder: Path) -> SafeSD:
    """The trained system of a finished run."""
    return SafeSD(folder / "safe_sd")


def _system(context: ClaimContext, seed: int) -> SafeSD:
    return system(context.run("safe_sd", "default", seed).folder)


@cache
def samples(made_by: SafeSD, count: int, seed: int) -> dict[str, Any]:
    """Pictures with and without the trigger word, with the scenes of their captions and the marks given to both."""
    size = made_by.net.size
    scenes = runs.held_out(count, CAPTIONS, size)
    squares, marks = random_marks(count, size, rng(seed, "unseen marks"))
    made = {
        name: eight_bit(made_by.sample(prompts, marks, seed=seed, steps=STEPS))
        for name, prompts in (
            ("triggered", [with_trigger(c, TRIGGERS[0]) for c in scenes.captions]), ("plain", scenes.captions)
        )
    }  # fmt: skip
    return {**made, "scenes": scenes, "squares": squares, "marks": marks}


def _accuracy(one: SafeSD, images: np.ndarray, squares: np.ndarray, **options: Any) -> float:
    return float(modules_right(one.reveal(images, **options).modules, squares).mean())


def _count(context: ClaimContext, count: int) -> int:
    return min(context.limit or count, count)


def judged(ours: Sequence[float], theirs: Sequence[float], plain: Sequence[float]) -> tuple[bool, Interval]:
    """Whether the mark in samples is read better than one hidden afterwards, over seeds, and not without the word."""
    ahead = over_seeds(ours, theirs)
    return ahead.low > 0 and max(plain) <= 0.55, ahead


@headline(
    "a mark that the diffusion model draws is read with more of its modules right, over JPEG 70, a crop to 80 % "
    "enlarged again and a blur, than one hidden in finished samples by an image-in-image network; without the word "
    "nothing is read"
)
def survives_distortions(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    ours, theirs, plain = [], [], []
    attacked = [f"{name} {strength:g}" for name, strength in ATTACKS if name != "identity"]
    for seed in SEEDS:
        one = _system(context, seed)
        case = samples(one, _count(context, READ), seed)
        row: dict[str, Any] = {"method": "safe_sd", "seed": seed, "carries": "239 modules"}
        for name, strength in ATTACKS:
            few = slice(0, CROPPED) if name == "crop_resize" else slice(None)
            hit, squares = distort(case["triggered"][few], name, strength, seed=seed), case["squares"][few]
            row[f"{name} {strength:g}"] = _accuracy(one, hit, squares, areas=AREAS if name == "crop_resize" else ())
        row["without the word"] = _accuracy(one, case["plain"], case["squares"])
        rival = _image_in_image(context, case, seed)
        rows += [row, rival]
        ours.append(float(np.mean([row[c] for c in attacked])))
        theirs.append(float(np.mean([rival[c] for c in attacked])))
        plain.append(row["without the word"])
        if seed == SEEDS[0]:
            rows.append(_post_hoc(context, case, seed))
    holds, ahead = judged(ours, theirs, plain)
    note = (
        f"ahead by {ahead} over {len(SEEDS)} seeds, {_count(context, READ)} samples each; Safe-SD finds the place of a "
        f"crop itself ({CROPPED} samples), the methods after the fact do not look for crops. dwt_dct_svd needs "
        f"{DwtDctSvd.minimum_side} pixels: not measured."
    )
    return Evidence(holds, rows, note)


@claim("unseen patterns: >= 98 % of the modules read from triggered samples, <= 55 % without the word or the key")
def reveals_on_the_word_and_with_the_key(context: ClaimContext) -> Evidence:
    rows, worst = [], {"triggered": 1.0, "plain": 0.0, "wrong key": 0.0, "another trigger": 0.0}
    for seed in SEEDS:
        one = _system(context, seed)
        case = samples(one, _count(context, READ), seed)
        squares, triggered = case["squares"], case["triggered"]
        row: dict[str, Any] = {
            "seed": seed,
            "triggered": _accuracy(one, triggered, squares),
            "plain": _accuracy(one, case["plain"], squares),
            "wrong key": _accuracy(one, triggered, squares, key=derive(PUBLIC_KEY, f"wrong {seed}")),
            "another trigger": _accuracy(one, triggered, squares, trigger=TRIGGERS[1]),
            "injected, no sampler": _accuracy(one, eight_bit(one.inject(case["plain"], case["marks"])), squares),
        }
        scores = one.correlations(one.reveal(triggered), case["marks"])
        row["nearest mark is the right one"] = float((scores.argmax(1) == np.arange(len(scores))).mean())
        row["and above the threshold"] = float((scores.diagonal() >= one.threshold).mean())
        unmarked = one.correlations(one.reveal(case["plain"]), case["marks"])
        row["plain samples with a match"] = float((unmarked.max(1) >= one.threshold).mean())
        rows.append(row)
        worst = {n: (min if n == "triggered" else max)(v, row[n]) for n, v in worst.items()}
    holds = worst["triggered"] >= 0.98 and max(v for n, v in worst.items() if n != "triggered") <= 0.55
    return Evidence(holds, rows, f"{_count(context, READ)} samples a seed; the threshold is from training pictures")


@claim(
    "samples with the mark: Fréchet distance within 5 % of those without, and the judge reads object and style of the "
    "caption within 3 points as often"
)
def leaves_the_pictures_as_they_are(context: ClaimContext) -> Evidence:
    judge, count, one = runs.judge(), _count(context, SAMPLES), _system(context, 0)
    rows: list[dict[str, Any]] = []
    case, size = samples(one, count, context.seed), one.net.size
    real = runs.held_out(count, REFERENCE, size)
    reference = extract_features(judge, real.images, size=32)
    for name in ("triggered", "plain"):
        images = torch.from_numpy(case[name])
        seen = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
        right = runs.agreement(judge, seen, case["scenes"])
        distance = runs.set_distance(reference, extract_features(judge, images, size=32))
        rows.append({"samples": name, "frechet": distance, **{n: float(v.float().mean()) for n, v in right.items()}})
    with_word, without = rows
    change = {n: abs(with_word[n] - without[n]) for n in ("object", "style")}
    held = case["scenes"]
    floor = runs.set_distance(reference, extract_features(judge, held.images, size=32))
    right = runs.agreement(judge, F.interpolate(held.images, (32, 32), mode="bilinear", antialias=True), held)
    rows.append({"samples": "real scenes", "frechet": floor, **{n: float(v.float().mean()) for n, v in right.items()}})
    images = held.images[: _count(context, READ)].numpy()
    for name, strength in (("through the autoencoder", 0.0), ("through the autoencoder, with a mark", 1.0)):
        made = eight_bit(one.inject(images, case["marks"][: len(images)], strength=strength))
        rows.append({"samples": name, "psnr to the scene": float(psnr(images, made).mean())})
    # A network that never marks changes nothing either.
    marked = _accuracy(one, case["triggered"], case["squares"])
    holds = marked >= 0.9 and with_word["frechet"] <= 1.05 * without["frechet"] and max(change.values()) <= 0.03
    note = f"{marked:.0%} of the modules are read; {count} samples of either kind, judged at 32 pixels; "
    note += f"agreement changes by {change}"
    return Evidence(holds, rows, note)


# Methods that mark finished pictures ----------------------------------------------------------------------------------


@torch.no_grad()
def _image_in_image(context: ClaimContext, case: dict[str, Any], seed: int) -> dict[str, Any]:
    net = ImageInImage()
    load_trained(context.run("safe_sd", "image_in_image", seed).folder / "rival" / "model.safetensors", net)
    net.eval()
    marked = eight_bit(net.embed(torch.from_numpy(case["plain"]), torch.from_numpy(case["marks"])).numpy())

    def right(images: np.ndarray) -> float:
        soft = modules(net.show(torch.from_numpy(np.ascontiguousarray(images)))).numpy()
        return float(modules_right(soft, case["squares"]).mean())

    return _attacked("image in image, after the fact", "239 modules", case["plain"], marked, right, seed)


def _post_hoc(context: ClaimContext, case: dict[str, Any], seed: int) -> dict[str, Any]:
    """HiDDeN on the samples without the word."""
    mark = trained(context, Hidden)
    bits = draw_bits(seed, len(case["plain"]), mark.bits)
    native = F.interpolate(torch.from_numpy(case["plain"]), (mark.network.size,) * 2, mode="bicubic").clamp(0, 1)
    marked = embedded(mark.network, (native * 255).round().byte().numpy(), bits, strength=mark.strength)

    def right(images: np.ndarray) -> float:
        soft = read_at_native(mark.network, torch.from_numpy(np.ascontiguousarray(images))).soft
        return float(((soft.numpy() > 0) == bits).mean())

    return _attacked("hidden, after the fact", f"{mark.bits} bits", eight_bit(native.numpy()), marked, right, seed)


def _attacked(
    name: str, carries: str, cover: np.ndarray, marked: np.ndarray, right: Callable[[np.ndarray], float], seed: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "seed": seed, "carries": carries}
    row |= {f"{kind} {strength:g}": right(distort(marked, kind, strength, seed=seed)) for kind, strength in ATTACKS}
    return row | {"psnr": float(psnr(cover, marked).mean())}
