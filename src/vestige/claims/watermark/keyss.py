"""Claims of KeySS on pairs of analytic scenes, judged on views between those that were fitted.

Settings were chosen on another pair. The cover's Gaussians and the hiding ones are equally many.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.watermark.keyss_scenes import FeatureHider, Pair, Scale, pair, plain, quality
from vestige.core.runtime import rng
from vestige.engines.splatting import Gaussians, join, render
from vestige.watermark.keyss import ATTRIBUTES, HashedKey, KeyDecoder, KeySS, near_miss, random_key, scene_distance

PAIRS = 2
KEYS = 100
KEY = "Ab3dEf6hIj9lMn2p"
VARIANTS: dict[str, dict[str, Any]] = {
    "KeySS": {},
    "KeySS without the wrong-key term": {"wrong_weight": 0.0},
    "KeySS that changes colours too": {"attributes": ATTRIBUTES},
}


def _scale(context: ClaimContext) -> Scale:
    return Scale(16, 60, context.limit, 6, 3) if context.limit else Scale()


def _first(context: ClaimContext) -> int:
    return PAIRS * context.seed


@cache
def _pair(number: int, scale: Scale) -> Pair:
    return pair(number, scale)


@cache
def _plain(number: int, scale: Scale, seed: int, points: str = "cover") -> Gaussians:
    return plain(_pair(number, scale), scale, points, seed=seed)


@cache
def _hidden(name: str, number: int, scale: Scale, seed: int) -> tuple[KeySS, Gaussians, KeyDecoder]:
    scenes = _pair(number, scale)
    method = KeySS.short(iterations=scale.steps, seed=seed, **VARIANTS[name])
    return method, *method.hide(scenes.start(), scenes.train, scenes.cover, {KEY: scenes.secret})


@cache
def _featured(number: int, scale: Scale, seed: int) -> tuple[Gaussians, FeatureHider]:
    return FeatureHider.hide(_pair(number, scale), scale, seed=seed)


def _row(number: int, name: str, scenes: Pair, cover: torch.Tensor, secret: torch.Tensor | None) -> dict[str, Any]:
    row: dict[str, Any] = {"pair": number, "method": name, "cover": quality(cover, scenes.cover_truth)}
    return row | ({} if secret is None else {"secret": quality(secret, scenes.secret_truth)})


@torch.no_grad()
def _keyed(name: str, number: int, scale: Scale, seed: int) -> dict[str, Any]:
    method, scene, decoder = _hidden(name, number, scale, seed)
    scenes = _pair(number, scale)
    opened = render(method.reveal(scene, decoder, KEY), scenes.test)
    return _row(number, name, scenes, render(scene, scenes.test), opened)


@claim(
    "the published scene shows the cover within 1.5 dB of a plain fit with as many Gaussians, and with the key the "
    "secret at >= 24 dB, on held-out views of two pairs of scenes"
)
@torch.no_grad()
def hides_and_reveals(context: ClaimContext) -> Evidence:
    scale, first, seed = _scale(context), _first(context), context.seed
    rows, holds = [], True
    for number in range(first, first + PAIRS):
        scenes = _pair(number, scale)
        cover = render(_plain(number, scale, seed), scenes.test)
        bound = _row(number, "plain fit of the cover", scenes, cover, None)
        ours = _keyed("KeySS", number, scale, seed)
        rows += [bound, ours]
        holds = holds and bound["cover"] - ours["cover"] <= 1.5 and ours["secret"] >= 24
    scenes = _pair(first, scale)
    rows += [_keyed(name, first, scale, seed) for name in list(VARIANTS)[1:]]
    gaussians, networks = _featured(first, scale, seed)
    rows.append(_row(first, "features and two networks (GS-Hider-like)", scenes, *networks(gaussians, scenes.test)))
    rows += _union(first, scale, seed)
    black = torch.zeros_like(scenes.cover_truth)
    rows.append(_row(first, "black pictures", scenes, black, black))
    rows.append(_row(first, "each other's truth", scenes, scenes.secret_truth, scenes.cover_truth))
    note = f"PSNR in dB, {scale.gaussians} Gaussians, {scale.size} pixels, {scale.steps} steps"
    return Evidence(bool(holds), rows, note)


def _union(number: int, scale: Scale, seed: int) -> list[dict[str, Any]]:
    """Both scenes in one file, half the Gaussians each: the mask says which are whose, and is all the secrecy."""
    scenes, half = _pair(number, scale), scale.gaussians // 2
    cover = plain(scenes, scale, seed=seed, count=half)
    secret = plain(scenes, scale, "secret", seed=seed, count=scale.gaussians - half)
    masked = (render(cover, scenes.test), render(secret, scenes.test))
    open_to_all = render(join(cover, secret), scenes.test)
    return [
        _row(number, "union, with its mask", scenes, *masked),
        _row(number, "union, as anybody renders it", scenes, open_to_all, open_to_all),
    ]


def _wrong_keys(count: int, seed: int) -> dict[str, list[str]]:
    draw = rng(seed, "keys of the claims")
    kinds = {"random": lambda: random_key(draw), "one character off": lambda: near_miss(KEY, draw)}
    return {kind: [make() for _ in range(count // 2)] for kind, make in kinds.items()}


@claim(
    "with each of 100 wrong keys, half of them one character off, the pictures are <= 14 dB from the secret and within "
    "3 dB of the published scene to the cover"
)
@torch.no_grad()
def wrong_keys_give_the_cover(context: ClaimContext) -> Evidence:
    scale, first, seed = _scale(context), _first(context), context.seed
    keys = _wrong_keys(6 if context.limit else KEYS, seed)
    encode, rows, holds = HashedKey(), [], True
    cases = [("KeySS", number) for number in range(first, first + PAIRS)]
    for name, number in [*cases, (list(VARIANTS)[1], first)]:
        method, scene, decoder = _hidden(name, number, scale, seed)
        scenes = _pair(number, scale)
        published = quality(render(scene, scenes.test), scenes.cover_truth)
        for kind, tried in keys.items():
            assert KEY not in tried
            views = [render(method.reveal(scene, decoder, key), scenes.test) for key in tried]
            to_secret = max(quality(v, scenes.secret_truth) for v in views)
            to_cover = min(quality(v, scenes.cover_truth) for v in views)
            rows.append(
                {
                    "pair": number, "method": name, "keys": kind, "count": len(tried),
                    "closest to the secret": to_secret, "furthest from the cover": to_cover,
                    "published to the cover": published,
                    "cover to the secret": quality(scenes.cover_truth, scenes.secret_truth),
                    "largest cosine": max(float(encode(KEY) @ encode(k)) for k in tried),
                }
            )  # fmt: skip
            if name == "KeySS":
                holds = holds and to_secret <= 14 and published - to_cover <= 3
    return Evidence(bool(holds), rows, "PSNR in dB, of the worst key; cosines between key vectors")


@claim(
    "the secret lies in the scene, not in the decoder: with the true key the decoder makes of a plain fit of the "
    "cover, or of one from other points, pictures <= 14 dB from the secret"
)
@torch.no_grad()
def the_decoder_alone_knows_nothing(context: ClaimContext) -> Evidence:
    scale, first, seed = _scale(context), _first(context), context.seed
    rows: list[dict[str, Any]] = []
    for number in range(first, first + PAIRS):
        method, scene, decoder = _hidden("KeySS", number, scale, seed)
        scenes = _pair(number, scale)
        inputs = {"published scene": scene, "plain fit of the cover": _plain(number, scale, seed)}
        if number == first:
            inputs["plain fit from other points"] = _plain(number, scale, seed, "elsewhere")
        for name, given in inputs.items():
            opened = render(method.reveal(given, decoder, KEY), scenes.test)
            row = {"pair": number, "decoder applied to": name, "secret": quality(opened, scenes.secret_truth)}
            rows.append(row | {"decoder weights": sum(p.numel() for p in decoder.parameters())})
    holds = all(row["secret"] <= 14 for row in rows if row["decoder applied to"] != "published scene")
    return Evidence(bool(holds), rows, "PSNR in dB")


@claim(
    "mean 3D-Sinkhorn to a plain fit of the cover is below that of KeySS that changes colours too and below that of a "
    "scene which stores the secret as features"
)
@torch.no_grad()
def statistics_stay_ordinary(context: ClaimContext) -> Evidence:
    scale, first, seed = _scale(context), _first(context), context.seed
    original = _plain(first, scale, seed)
    published = {"plain fit from other points": _plain(first, scale, seed, "elsewhere")}
    published |= {name: _hidden(name, first, scale, seed)[1] for name in VARIANTS}
    published["features (GS-Hider-like)"] = _featured(first, scale, seed)[0]
    found = {name: scene_distance(original, scene) for name, scene in published.items()}
    rows = [{"scene": name, **distances} for name, distances in found.items()]
    others = ("KeySS that changes colours too", "features (GS-Hider-like)")
    holds = all(found["KeySS"]["mean"] < found[name]["mean"] for name in others)
    return Evidence(bool(holds), rows, "the first row is the floor: two ordinary scenes of the same cover")
