"""Claims of Safe-SD, on samples for captions and with QR-like patterns that no training has seen.

A sample with and one without the trigger word share their starting noise, caption and mark: the network is given the
mark in both, the word alone decides. Module accuracy is that of the free modules (no finder or timing patterns), raw,
before the repetition that serves as error correction. Pictures are saved with eight bits before they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.keys import PUBLIC_KEY, derive
from vestige.core.runtime import rng
from vestige.data.distortions import distort
from vestige.data.scenes import render_pack
from vestige.engines.marking.distort import DistortionLayer, Draw
from vestige.engines.marking.evaluate import draw_bits, embedded
from vestige.engines.marking.model import straight_clamp
from vestige.engines.marking.residual import read_at_native
from vestige.metrics.quality import psnr
from vestige.nn.features import extract_features
from vestige.watermark.attacks.registry import eight_bit
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.hidden import Hidden
from vestige.watermark.learned import WEIGHTS
from vestige.watermark.safe_sd import SafeSD
from vestige.watermark.safe_sd_marks import modules, modules_right, random_marks
from vestige.watermark.safe_sd_model import TRIGGERS, with_trigger

SAMPLES, READ, STEPS = 300, 96, 12
ATTACKS = (("identity", 0.0), ("jpeg", 70.0), ("crop_resize", 0.8), ("blur", 0.7))
#: What a reader that does not know how much was cropped tries.
AREAS = (0.9, 0.8, 0.7)
CROPPED = 48  # pictures of the crop: each is read at some 60 places
CAPTIONS, REFERENCE = 211, 212  # series of held-out scenes
SEEDS = 2


@cache
def system() -> SafeSD:
    """The shipped weights; raises InputError with the commands that train them."""
    return SafeSD()


@cache
def samples(count: int, seed: int) -> dict[str, Any]:
    """Pictures with and without the trigger word, with the scenes of their captions and the marks given to both."""
    size = system().net.size
    scenes = runs.held_out(count, CAPTIONS, size)
    squares, marks = random_marks(count, size, rng(seed, "unseen marks"))
    made = {
        name: eight_bit(system().sample(prompts, marks, seed=seed, steps=STEPS))
        for name, prompts in (
            ("triggered", [with_trigger(c, TRIGGERS[0]) for c in scenes.captions]), ("plain", scenes.captions)
        )
    }  # fmt: skip
    return {**made, "scenes": scenes, "squares": squares, "marks": marks}


def _accuracy(images: np.ndarray, squares: np.ndarray, **options: Any) -> float:
    return float(modules_right(system().reveal(images, **options).modules, squares).mean())


def _count(context: ClaimContext, count: int) -> int:
    return min(context.limit or count, count)


@claim("unseen patterns: >= 98 % of the modules read from triggered samples, <= 55 % without the word or the key")
def reveals_on_the_word_and_with_the_key(context: ClaimContext) -> Evidence:
    rows, worst = [], {"triggered": 1.0, "plain": 0.0, "wrong key": 0.0, "another trigger": 0.0}
    for seed in range(context.seed, context.seed + SEEDS):
        case = samples(_count(context, READ), seed)
        squares, triggered = case["squares"], case["triggered"]
        row: dict[str, Any] = {
            "seed": seed,
            "triggered": _accuracy(triggered, squares),
            "plain": _accuracy(case["plain"], squares),
            "wrong key": _accuracy(triggered, squares, key=derive(PUBLIC_KEY, f"wrong {seed}")),
            "another trigger": _accuracy(triggered, squares, trigger=TRIGGERS[1]),
            "injected, no sampler": _accuracy(eight_bit(system().inject(case["plain"], case["marks"])), squares),
        }
        revealed = system().reveal(triggered)
        scores = system().correlations(revealed, case["marks"])
        row["nearest mark is the right one"] = float((scores.argmax(1) == np.arange(len(scores))).mean())
        row["and above the threshold"] = float((scores.diagonal() >= system().threshold).mean())
        unmarked = system().correlations(system().reveal(case["plain"]), case["marks"])
        row["plain samples with a match"] = float((unmarked.max(1) >= system().threshold).mean())
        rows.append(row)
        worst = {n: (min if n == "triggered" else max)(v, row[n]) for n, v in worst.items()}
    holds = worst["triggered"] >= 0.98 and max(v for n, v in worst.items() if n != "triggered") <= 0.55
    return Evidence(holds, rows, f"{_count(context, READ)} samples a seed; the threshold is from training pictures")


@claim("after JPEG 70, a crop to 80 % enlarged again, and a blur of 0.7 pixels >= 90 % of the modules are read")
def survives_distortions(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    for seed in range(context.seed, context.seed + SEEDS):
        case = samples(_count(context, READ), seed)
        row: dict[str, Any] = {"method": "safe_sd", "seed": seed, "carries": "239 modules"}
        for name, strength in ATTACKS:
            few = slice(0, CROPPED) if name == "crop_resize" else slice(None)
            hit, squares = distort(case["triggered"][few], name, strength, seed=seed), case["squares"][few]
            row[f"{name} {strength:g}"] = _accuracy(hit, squares, areas=AREAS if name == "crop_resize" else ())
        rows.append(row)
    case = samples(_count(context, READ), context.seed)
    rows.append(_image_in_image(case, context))
    rows += _post_hoc(case, context.seed)
    attacked = [f"{name} {strength:g}" for name, strength in ATTACKS if name != "identity"]
    holds = all(row[c] >= 0.9 for row in rows if row["method"] == "safe_sd" for c in attacked)
    note = (
        f"{_count(context, READ)} samples; Safe-SD finds the place of a crop itself ({CROPPED} samples), the methods "
        "after the fact mark the samples without the word and do not look for crops. "
        f"dwt_dct_svd needs {DwtDctSvd.minimum_side} pixels: not measured."
    )
    return Evidence(holds, rows, note)


@claim(
    "samples with the mark: Fréchet distance within 5 % of those without, and the judge reads object and style of the "
    "caption within 3 points as often"
)
def leaves_the_pictures_as_they_are(context: ClaimContext) -> Evidence:
    judge, count = runs.judge(), _count(context, SAMPLES)
    rows: list[dict[str, Any]] = []
    case, size = samples(count, context.seed), system().net.size
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
        made = eight_bit(system().inject(images, case["marks"][: len(images)], strength=strength))
        rows.append({"samples": name, "psnr to the scene": float(psnr(images, made).mean())})
    holds = with_word["frechet"] <= 1.05 * without["frechet"] and max(change.values()) <= 0.03
    note = f"{count} samples of either kind, judged at 32 pixels; agreement changes by {change}"
    return Evidence(holds, rows, note)


# Methods that mark finished pictures ----------------------------------------------------------------------------------


class ImageInImage(nn.Module):
    """A mark as a faint picture within a picture: h = x + 0.1 tanh H([x, P(w)]), ŵ = R(h), trained end to end.

    Source: Hiding Images in Plain Sight: Deep Steganography, NeurIPS 2017; small, and with distortions in between.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.prepare = _convolutions(3, width, 8, 2)
        self.hide, self.show = _convolutions(11, width, 3, 3), _convolutions(3, width, 3, 4)

    def embed(self, images: Tensor, marks: Tensor) -> Tensor:
        return images + 0.1 * torch.tanh(self.hide(torch.cat([images, self.prepare(marks)], 1)))


def _convolutions(inside: int, width: int, outside: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(inside if i == 0 else width, width, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, outside, 3, 1, 1))


def _hiding_network(size: int, seed: int, steps: int) -> ImageInImage:
    """Trained here, for a minute or so, on rendered scenes and random marks."""
    bank = (Draw("identity"), Draw("jpeg", 95, 60), Draw("blur", 0.3, 1), Draw("noise", 0, 0.03))
    pictures = torch.from_numpy(render_pack(min(400, 8 * steps), size, 300 + seed, n_objects=1).images).float() / 255
    layer = DistortionLayer(bank)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = ImageInImage()
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for i in range(steps):
            draws = rng(seed, "hiding", i)
            x = pictures[torch.from_numpy(draws.integers(0, len(pictures), 8))]
            w = torch.from_numpy(random_marks(8, size, draws)[1])
            hidden = straight_clamp(net.embed(x, w))
            masks = torch.ones(8, 1, size, size, dtype=torch.bool)
            hit = layer(hidden, masks, draws)[0] if 2 * i >= steps else hidden
            shown = net.show(hit)
            # The picture counts once the reader reads: from the first step it would silence the mark.
            weight = 20 * min(1.0, i / steps)
            wanted = (modules(w) > 0).float()
            loss = F.binary_cross_entropy_with_logits(4 * modules(shown), wanted) + weight * F.mse_loss(hidden, x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


@torch.no_grad()
def _image_in_image(case: dict[str, Any], context: ClaimContext) -> dict[str, Any]:
    net = _hiding_network(system().net.size, context.seed, 3 if context.limit else 300)
    cover = torch.from_numpy(case["plain"])
    marked = eight_bit(net.embed(cover, torch.from_numpy(case["marks"])).numpy())

    def right(images: np.ndarray) -> float:
        soft = modules(net.show(torch.from_numpy(np.ascontiguousarray(images)))).numpy()
        return float(modules_right(soft, case["squares"]).mean())

    return _attacked("image in image, after the fact", "239 modules", case["plain"], marked, right, context.seed)


def _post_hoc(case: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """HiDDeN on the samples without the word, where its weights are there."""
    if not (WEIGHTS / "hidden.safetensors").is_file():
        return [{"method": "hidden", "carries": "not measured: its weights are not there"}]
    mark = Hidden()
    bits = draw_bits(seed, len(case["plain"]), mark.bits)
    native = F.interpolate(torch.from_numpy(case["plain"]), (mark.network.size,) * 2, mode="bicubic").clamp(0, 1)
    marked = embedded(mark.network, (native * 255).round().byte().numpy(), bits, strength=mark.strength)

    def right(images: np.ndarray) -> float:
        soft = read_at_native(mark.network, torch.from_numpy(np.ascontiguousarray(images))).soft
        return float(((soft.numpy() > 0) == bits).mean())

    return [_attacked("hidden, after the fact", f"{mark.bits} bits", eight_bit(native.numpy()), marked, right, seed)]


def _attacked(
    name: str, carries: str, cover: np.ndarray, marked: np.ndarray, right: Callable[[np.ndarray], float], seed: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "seed": seed, "carries": carries}
    row |= {f"{kind} {strength:g}": right(distort(marked, kind, strength, seed=seed)) for kind, strength in ATTACKS}
    return row | {"psnr": float(psnr(cover, marked).mean())}
