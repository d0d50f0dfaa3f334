"""Claims of KeySS on pairs of analytic scenes, judged on views between those that were fitted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.bench.controls import Interval, over_seeds
from vestige.bench.watermark.keyss_scenes import KEY, Pair, Scale, pair, quality
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.engines.runs import Need
from vestige.engines.splatting import join, read_ply, render
from vestige.watermark.keyss import HashedKey, KeySS, load_decoder, near_miss, random_key, scene_distance

NEEDS = (Need("keyss"),)
PAIRS = (0, 1, 2, 3)
KEYS = 100
NAMES = {
    "default": "KeySS", "no_wrong_key": "KeySS without the wrong-key term", "colours": "KeySS that changes colours too",
    "features": "features and two networks (GS-Hider-like)", "plain": "plain fit of the cover",
    "elsewhere": "plain fit from other points",
}  # fmt: skip


@cache
def _pair(number: int) -> Pair:
    return pair(number, Scale())


def _opened(folder: Path, key: str) -> torch.Tensor:
    """Views of the scene that a key gives."""
    number = int(folder.name)
    scene, decoder = read_ply(folder / "scene.ply"), load_decoder(folder / "decoder.safetensors")
    return render(KeySS().reveal(scene, decoder, key), _pair(number).test)


def judged(ours: Sequence[float], theirs: Sequence[float], open_to_key: Sequence[float]) -> tuple[bool, Interval]:
    """Whether the true key's lead over wrong ones (dB to the secret) is above that of the scene made without the
    wrong-key term, over pairs, and the secret opens (at least 20 dB)."""
    ahead = over_seeds(ours, theirs)
    return ahead.low > 0 and min(open_to_key) >= 20, ahead


@headline(
    "the key opens the secret and no other does: the true key's pictures are nearer to the secret than those of the "
    "best of 100 wrong keys, half of them one character off, by more than without the wrong-key term"
)
@torch.no_grad()
def only_the_key_opens_it(context: ClaimContext) -> Evidence:
    keys = _wrong_keys(6 if context.limit else KEYS, context.seed)
    encode, rows = HashedKey(), []
    lead: dict[str, list[float]] = {"default": [], "no_wrong_key": []}
    opened = []
    for number in PAIRS:
        scenes = _pair(number)
        for variant, leads in lead.items():
            folder = context.run("keyss", variant, number).folder
            true = quality(_opened(folder, KEY), scenes.secret_truth)
            row: dict[str, Any] = {"pair": number, "method": NAMES[variant], "the key to the secret": true}
            worst = []
            for kind, tried in keys.items():
                views = [_opened(folder, key) for key in tried]
                worst.append(max(quality(v, scenes.secret_truth) for v in views))
                row[f"{kind}: closest to the secret"] = worst[-1]
                row[f"{kind}: furthest from the cover"] = min(quality(v, scenes.cover_truth) for v in views)
            row["cover to the secret"] = quality(scenes.cover_truth, scenes.secret_truth)
            row["largest cosine"] = max(float(encode(KEY) @ encode(k)) for tried in keys.values() for k in tried)
            rows.append(row)
            leads.append(true - max(worst))
            if variant == "default":
                opened.append(true)
    holds, ahead = judged(lead["default"], lead["no_wrong_key"], opened)
    note = f"PSNR in dB; the lead is larger by {ahead} over {len(PAIRS)} pairs (paper: wrong keys give the cover)"
    return Evidence(holds, rows, note)


def _wrong_keys(count: int, seed: int) -> dict[str, list[str]]:
    draw = rng(seed, "keys of the claims")
    kinds = {"random": lambda: random_key(draw), "one character off": lambda: near_miss(KEY, draw)}
    return {kind: [make() for _ in range(count // 2)] for kind, make in kinds.items()}


@claim(
    "the published scene shows the cover within 1.5 dB of a plain fit with as many Gaussians, and with the key the "
    "secret at >= 24 dB, on held-out views of every pair"
)
@torch.no_grad()
def hides_and_reveals(context: ClaimContext) -> Evidence:
    rows, holds = [], True
    for number in PAIRS:
        found = {v: context.run("keyss", v, number).figures for v in ("plain", "default", "features", "colours")}
        rows += [
            {"pair": number, "method": NAMES[v], **{n: f[n] for n in ("cover", "secret") if n in f}}
            for v, f in found.items()
        ]
        ours = found["default"]
        holds = holds and found["plain"]["cover"] - ours["cover"] <= 1.5 and ours["secret"] >= 24
    scenes = _pair(0)
    halves = [read_ply(context.run("keyss", v, 0).folder / "scene.ply") for v in ("half_cover", "half_secret")]
    apart = [render(half, scenes.test) for half in halves]
    everything = render(join(*halves), scenes.test)
    black = torch.zeros_like(scenes.cover_truth)
    for name, cover, secret in (
        ("union, with its mask", apart[0], apart[1]), ("union, as anybody renders it", everything, everything),
        ("black pictures", black, black), ("each other's truth", scenes.secret_truth, scenes.cover_truth),
    ):  # fmt: skip
        scored = {"cover": quality(cover, scenes.cover_truth), "secret": quality(secret, scenes.secret_truth)}
        rows.append({"pair": 0, "method": name, **scored})
    return Evidence(bool(holds), rows, "PSNR in dB")


@claim(
    "the secret lies in the scene, not in the decoder: with the true key the decoder makes of a plain fit of the "
    "cover, or of one from other points, pictures <= 14 dB from the secret"
)
@torch.no_grad()
def the_decoder_alone_knows_nothing(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    holds = True
    for number in PAIRS:
        scenes = _pair(number)
        decoder = load_decoder(context.run("keyss", "default", number).folder / "decoder.safetensors")
        floor = quality(scenes.cover_truth, scenes.secret_truth)
        for variant in ("default", "plain", "elsewhere"):
            scene = read_ply(context.run("keyss", variant, number).folder / "scene.ply")
            near = quality(render(KeySS().reveal(scene, decoder, KEY), scenes.test), scenes.secret_truth)
            name = "published scene" if variant == "default" else NAMES[variant]
            rows.append({"pair": number, "decoder applied to": name, "secret": near, "cover to the secret": floor})
            holds = holds and (variant == "default" or near <= 14)
    weights = sum(p.numel() for p in decoder.parameters())
    return Evidence(bool(holds), rows, f"PSNR in dB; the decoder has {weights:,} weights")


@claim(
    "mean 3D-Sinkhorn to a plain fit of the cover is below that of KeySS that changes colours too and below that of a "
    "scene which stores the secret as features, over pairs"
)
@torch.no_grad()
def statistics_stay_ordinary(context: ClaimContext) -> Evidence:
    rows: list[dict[str, Any]] = []
    means: dict[str, list[float]] = {v: [] for v in ("elsewhere", "default", "no_wrong_key", "colours", "features")}
    for number in PAIRS:
        original = read_ply(context.run("keyss", "plain", number).folder / "scene.ply")
        for variant, values in means.items():
            found = scene_distance(original, read_ply(context.run("keyss", variant, number).folder / "scene.ply"))
            rows.append({"pair": number, "scene": NAMES[variant], **found})
            values.append(found["mean"])
    ahead = {v: over_seeds(means[v], means["default"]) for v in ("colours", "features")}
    note = "; ".join(f"{NAMES[v]} further by {a}" for v, a in ahead.items())
    floor = float(np.mean(means["elsewhere"]))
    return Evidence(all(a.low > 0 for a in ahead.values()), rows, f"{note}; two ordinary scenes: {floor:.3f}")
