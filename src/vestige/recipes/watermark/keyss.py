"""KeySS and its rivals, fitted to pairs of analytic scenes; the seed is the number of the pair.

    vestige learn keyss
    vestige learn keyss --variant features --seed 2

Settings were chosen on another pair. The cover's Gaussians and the hiding ones are equally many. Options: kind, what is
fitted; size of a view in pixels; gaussians; views. Results: scene.ply, and decoder.safetensors or networks.safetensors;
PSNR of cover and secret on views between those that were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vestige.bench.watermark.keyss_scenes import KEY, Pair, Scale, fitted, pair, plain, quality
from vestige.core.errors import UsageError
from vestige.engines import parts
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.run_state import write_model
from vestige.engines.splatting import Gaussians, read_ply, render, write_ply
from vestige.engines.train import TrainConfig
from vestige.watermark.keyss import ATTRIBUTES, KeySS, load_decoder, save_decoder

#: Settings of the forms of KeySS.
FORMS: dict[str, dict[str, Any]] = {
    "keyss": {}, "no_wrong_key": {"wrong_weight": 0.0}, "colours": {"attributes": ATTRIBUTES},
}  # fmt: skip


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Fit what ``kind`` names to the pair, and judge it on the views between."""
    o = ctx.options
    scale = Scale(int(o["size"]), int(o["gaussians"]), ctx.config.steps, int(o["views"]), int(o["held"]))
    scenes, out = pair(ctx.seed, scale), ctx.out
    found = parts.figures(ctx, "figures", lambda: FITS[kind_of(o["kind"])](scenes, scale, out, ctx.seed, o["kind"]))
    return {"updates": scale.steps, **found}


def kind_of(kind: str) -> str:
    """Which fit makes it; raises UsageError for an unknown kind."""
    name = "keyss" if kind in FORMS else kind
    if name not in FITS:
        raise UsageError(f"kind is one of {', '.join([*FORMS, *(k for k in FITS if k != 'keyss')])}; got {kind!r}.")
    return name


@torch.no_grad()
def _keyed(scenes: Pair, scale: Scale, out: Path, seed: int, kind: str) -> dict[str, Any]:
    method = KeySS.short(iterations=scale.steps, seed=seed, **FORMS[kind])
    scene, decoder = method.hide(scenes.start(), scenes.train, scenes.cover, {KEY: scenes.secret})
    write_ply(out / "scene.ply", scene)
    save_decoder(out / "decoder.safetensors", decoder)
    scene, decoder = read_ply(out / "scene.ply"), load_decoder(out / "decoder.safetensors")
    return _judged(scenes, render(scene, scenes.test), render(method.reveal(scene, decoder, KEY), scenes.test))


@torch.no_grad()
def _plain(scenes: Pair, scale: Scale, out: Path, seed: int, kind: str) -> dict[str, Any]:
    points = {"plain": "cover", "elsewhere": "elsewhere", "half_cover": "cover", "half_secret": "secret"}[kind]
    count = scale.gaussians // 2 if kind.startswith("half") else None
    scene = plain(scenes, scale, points, seed=seed, count=count)
    write_ply(out / "scene.ply", scene)
    return _judged(scenes, render(scene, scenes.test), None)


def _featured(scenes: Pair, scale: Scale, out: Path, seed: int, kind: str) -> dict[str, Any]:
    scene, networks = fitted(scenes, scale, seed=seed)
    write_ply(out / "scene.ply", scene)
    write_model(out / "networks.safetensors", networks, {"part": "features"})
    with torch.no_grad():
        return _judged(scenes, *networks(scene, scenes.test))


def _judged(scenes: Pair, cover: torch.Tensor, secret: torch.Tensor | None) -> dict[str, Any]:
    found = {"cover": quality(cover, scenes.cover_truth)}
    return found | ({} if secret is None else {"secret": quality(secret, scenes.secret_truth)})


FITS = {
    "keyss": _keyed, "features": _featured, "plain": _plain, "elsewhere": _plain, "half_cover": _plain,
    "half_secret": _plain,
}  # fmt: skip
PAIRS = (0, 1, 2, 3)

RECIPE = Recipe(
    name="keyss",
    about="KeySS on pairs of analytic scenes: a scene that shows the cover, and with a key the secret.",
    perform=perform,
    config=TrainConfig(steps=1000, batch_size=1),
    variants={
        "default": Variant("KeySS", seeds=PAIRS),
        "no_wrong_key": Variant("KeySS without the wrong-key term", {"kind": "no_wrong_key"}, seeds=PAIRS),
        "colours": Variant("KeySS that changes colours too", {"kind": "colours"}, seeds=PAIRS),
        "features": Variant("the secret as features, with two networks (GS-Hider)", {"kind": "features"}, seeds=PAIRS),
        "plain": Variant("plain splatting of the cover", {"kind": "plain"}, seeds=PAIRS),
        "elsewhere": Variant("plain splatting of the cover from other points", {"kind": "elsewhere"}, seeds=PAIRS),
        "half_cover": Variant("the cover's half of a union", {"kind": "half_cover"}),
        "half_secret": Variant("the secret's half of a union", {"kind": "half_secret"}),
    },
    reach={"secret": "24 dB", "cover": "within 1.5 dB of the variant plain"},
    options={"kind": "keyss", "size": 32, "gaussians": 400, "views": 24, "held": 8},
)


def scene_of(folder: Path) -> Gaussians:
    """The Gaussians of a finished run."""
    return read_ply(folder / "scene.ply")
