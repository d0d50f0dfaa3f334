"""Stable Signature, the rival of WOUAF: the decoder of scenes_vae fine-tuned for each user's message, read by HiDDeN.

    vestige learn hidden
    vestige learn stable_signature

The extractor is the reader of the finished run hidden/default/0, whitened, as in the paper; the seed decides the users'
messages. Options: users, how many decoders; steps of each (paper: 100); extractor, a weights file of HiDDeN instead.
Results: a file of weights for every user, and the bits right on drawn latents after post-processing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.bench.watermark import wouaf_bed as bed
from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.data.scenes import render_pack
from vestige.engines import parts
from vestige.engines.recipe import Recipe, RecipeContext, Variant
from vestige.engines.runs import finished
from vestige.engines.train import TrainConfig
from vestige.metrics.quality import psnr
from vestige.nn.vae import encode
from vestige.watermark.stable_signature import StableSignature, shipped_extractor


def extractor_file(given: str) -> Path:
    """The reader to write for; raises InputError, naming the command that trains it, where it is missing."""
    if given:
        return Path(given)
    run = finished("hidden", "default", 0)
    if run is None:
        raise InputError("Stable Signature writes for the reader of HiDDeN; train it with: vestige learn hidden.")
    return run.folder / "hidden.safetensors"


def perform(ctx: RecipeContext) -> Mapping[str, Any]:
    """Fine-tune a decoder for every user, and measure each on the same latents."""
    o = ctx.options
    extractor, size = shipped_extractor(extractor_file(o["extractor"]))
    vae = bed.original()
    train = torch.from_numpy(render_pack(int(o["pictures"]), size, 91 + ctx.seed).images).float() / 255
    shown = bed.pictures(ctx.data, size, int(o["shown"]), 0, 0)
    latents = bed.drawn_latents(lambda x: encode(vae, x * 2 - 1), shown, 0)
    found: dict[str, Any] = {"updates": int(o["users"]) * ctx.config.steps}
    rows = []
    for user in range(int(o["users"])):
        method = StableSignature(extractor, seed=100 * ctx.seed + user, steps=ctx.config.steps)
        bits = rng(ctx.seed, "messages", user).integers(0, 2, method.length(train[:1])).astype(bool)
        tuned = parts.weights(ctx, f"user {user}", vae, partial(_signed, method, bits, train))
        made = bed.decoded(tuned, latents)
        row = partial(bed.survival, f"user {user}", made, np.repeat(bits[None], len(made), 0), method.read, ctx.seed)
        rows.append(parts.figures(ctx, f"figures {user}", row))
        if user == 0:
            found["psnr to the plain decoder"] = float(psnr(bed.decoded(vae, latents), made).mean())
    return found | {"rows": rows, "mean": float(np.mean([row["mean"] for row in rows]))}


def _signed(method: StableSignature, bits: np.ndarray, train: torch.Tensor, vae: Any) -> Any:
    return method.stamp(vae, bits, train)


RECIPE = Recipe(
    name="stable_signature",
    about="Stable Signature: a decoder fine-tuned for one message, as many times as there are users.",
    perform=perform,
    config=TrainConfig(steps=100, batch_size=4),
    variants={"default": Variant("a decoder for each of two users", seeds=(0, 1, 2))},
    options={"users": 2, "pictures": 200, "shown": 96, "extractor": ""},
)
