"""Redrawing a picture with a generative model: what the model cannot say, a faint mark among it, is lost.

One function, `regenerate`, over any pixel-space or latent diffusion model: noise the picture to a share of the chain
and denoise it again (SDEdit, DiffPure), under a caption or none, or invert it and sample back. Pictures larger than
the model are done in overlapping tiles of the model's own size and blended; smaller ones are padded by their mirror
image.

Sources: SDEdit, ICLR 2022; Diffusion Models for Adversarial Purification, ICML 2022; Invisible Image Watermarks Are
Provably Removable Using Generative AI, NeurIPS 2024 (regeneration by autoencoders and diffusion); Robust Watermarking
Using Generative Priors Against Image Editing, ICLR 2025 (the suites of W-Bench).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.progress import track
from vestige.core.runtime import rng
from vestige.watermark.attacks.registry import Context, Pictures, own_autoencoder, register

if TYPE_CHECKING:
    import torch

    from vestige.engines.diffusion.samplers import Denoiser


@dataclass
class Native:
    """A diffusion model as regeneration needs it: side in pixels, noise levels, ways to latents and back.

    denoiser: (prompts, guidance) -> `Denoiser`.
    """

    size: int
    factor: int
    table: Any
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor], torch.Tensor]
    denoiser: Callable[[list[str], float], Denoiser]


def native(model: Any) -> Native:
    """The parts of a `TextToImage` or of a diffusers pipeline around an unconditional ``UNet2DModel``.

    Raises UsageError for other models.
    """
    from vestige.engines.diffusion.pipeline import TextToImage

    if isinstance(model, TextToImage):
        factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
        size = min(model.latent_shape()[1:]) * factor
        return Native(
            size, factor, model.table, model.encode, model.decode,
            lambda prompts, guidance: model.denoiser(prompts, guidance=guidance),
        )  # fmt: skip
    return _unconditional(model)


def _unconditional(model: Any) -> Native:
    from vestige.engines.diffusion.samplers import Denoiser
    from vestige.engines.diffusion.schedules import Prediction, from_betas

    pipeline = getattr(model, "pipeline", model)
    unet: Any = getattr(pipeline, "unet", None)
    scheduler: Any = getattr(pipeline, "scheduler", None)
    if type(unet).__name__ != "UNet2DModel" or not hasattr(scheduler, "betas"):
        raise UsageError(
            f"Pictures cannot be redrawn with a {type(pipeline).__name__}; give a Stable Diffusion 1 or 2 folder, one "
            "of ours, or a pipeline of an unconditional UNet."
        )
    named: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    prediction = named[scheduler.config.prediction_type]
    table = from_betas(scheduler.betas.cpu(), "trained")
    size = unet.config.sample_size
    if unet.config.in_channels != 3:
        raise UsageError("The unconditional model does not work on pixels; give a pixel model or a text-to-image one.")

    def network(x: torch.Tensor, time: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return unet(x, time, return_dict=False)[0]

    return Native(
        size if isinstance(size, int) else min(size), 1, table, lambda x: x.to(unet.device) * 2 - 1,
        lambda z: (z / 2 + 0.5).clamp(0, 1), lambda prompts, guidance: Denoiser(network, table, prediction),
    )  # fmt: skip


def load_model(folder: str | Path) -> Any:
    """A diffusers folder as a model for `regenerate`: ours, Stable Diffusion 1 or 2, or an unconditional pixel model.

    Raises InputError for folders that cannot be loaded, UsageError for other pipelines.
    """
    from vestige.engines.diffusion.pipeline import load_pipeline

    model = load_pipeline(folder)
    native(model)
    return model


def tilewise(
    images: torch.Tensor, size: int, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *, batch: int = 64
) -> torch.Tensor:
    """Apply ``function`` to size×size tiles of N×C×H×W and blend the results over overlaps of an eighth.

    function: (tiles n×C×size×size, number of the picture each is from, int64 n) -> tiles of that shape. The weights of
    a pixel sum to one, so that the identity gives the pictures back.
    """
    import torch

    height, width = images.shape[2:]
    padded = _mirror(images, max(size - height, 0), max(size - width, 0))
    high, wide = padded.shape[2:]
    step = size - (size // 8 if max(high, wide) > size else 0)
    tops, lefts = (sorted({*range(0, n - size, step), n - size}) for n in (high, wide))
    ramp = torch.minimum(torch.arange(size) + 1, torch.arange(size, 0, -1)).clamp(max=max(size // 8, 1)).float()
    window = ramp[:, None] * ramp
    total, weight = torch.zeros_like(padded), torch.zeros(high, wide)
    places = [(i, top, left) for i in range(len(images)) for top in tops for left in lefts]
    for at in track(range(0, len(places), batch), "redrawing", -(-len(places) // batch)):
        part = places[at : at + batch]
        tiles = torch.stack([padded[i, :, t : t + size, c : c + size] for i, t, c in part])
        for (i, t, c), made in zip(part, function(tiles, torch.tensor([i for i, _, _ in part])), strict=True):
            total[i, :, t : t + size, c : c + size] += window * made.to(total)
    for top in tops:
        for left in lefts:
            weight[top : top + size, left : left + size] += window
    return (total / weight)[:, :, :height, :width]


def _mirror(images: torch.Tensor, below: int, right: int) -> torch.Tensor:
    """Rows and columns added by mirroring, as often as it takes."""
    import torch

    for axis, extra in ((2, below), (3, right)):
        if extra:
            n = images.shape[axis]
            order = torch.arange(n + extra) % (2 * n)
            images = images.index_select(axis, torch.where(order < n, order, 2 * n - 1 - order))
    return images


def regenerate(
    images: Pictures,
    model: Any,
    strength: float,
    *,
    prompts: Sequence[str] = (),
    guidance: float = 1.0,
    seed: int = 0,
    steps: int = 50,
    how: str = "noise",
    mask: Pictures | None = None,
    batch: int = 64,
) -> Pictures:
    """Redraw pictures float N×3×H×W with a diffusion model -> float32 of the same shape.

    strength: share of the chain that is run, in (0, 1]. prompts: one caption for each picture, or none for the empty
    one. how: "noise" adds noise to that level and samples with fresh noise (DiffPure, SDEdit); "invert" finds the
    noise by DDIM inversion and samples back; "fill" draws the masked part anew (RePaint). mask: bool N×1×H×W for
    "fill". steps: of the whole chain. Raises UsageError for a strength out of range or a model of another kind.
    """
    import torch

    from vestige.engines.diffusion.editing import repaint, sdedit, start_at
    from vestige.engines.diffusion.inversion import invert
    from vestige.engines.diffusion.samplers import sample
    from vestige.engines.diffusion.schedules import grid

    if how not in ("noise", "invert", "fill") or (how == "fill") != (mask is not None):
        raise UsageError('how is "noise", "invert", or "fill" with a mask.')
    if prompts and len(prompts) != len(images):
        raise UsageError(f"There are {len(prompts)} captions for {len(images)} pictures; give one for each.")
    parts = native(model)
    levels = start_at(grid(parts.table, min(steps, len(parts.table))), strength)
    generator = torch.Generator().manual_seed(int(rng(seed, "regenerate").integers(2**62)))
    stacked = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    if mask is not None:
        stacked = torch.cat([stacked, torch.from_numpy(mask.astype(np.float32))], 1)

    def redraw(tiles: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        if how == "fill":  # tiles without a hole stay as they are
            touched = tiles[:, 3:].flatten(1).amax(1) > 0.5
            if not touched.all():
                made = tiles.clone()
                if touched.any():
                    made[touched] = redraw(tiles[touched], which[touched])
                return made
        denoiser = parts.denoiser([prompts[i] for i in which.tolist()] if prompts else [""], guidance)
        latents = parts.encode(tiles[:, :3])
        if how == "fill":
            hole = torch.nn.functional.max_pool2d(tiles[:, 3:], parts.factor) > 0.5
            made = parts.decode(repaint(denoiser, latents, hole.to(latents.device), levels, generator, repeats=1))
            made = torch.where(tiles[:, 3:] > 0.5, made.cpu(), tiles[:, :3])
            return torch.cat([made, tiles[:, 3:]], 1)
        if how == "invert":
            return parts.decode(sample(denoiser, invert(denoiser, latents, levels), levels)).cpu()
        return parts.decode(sdedit(denoiser, latents, levels, 1.0, generator, "ddpm")).cpu()

    with torch.no_grad():
        made = tilewise(stacked, parts.size, redraw, batch=batch)
    return made[:, :3].numpy()


@register(
    "regeneration",
    "standard deviation of noise on the unit-variance latents of the autoencoder",
    (0, 0.1, 0.25, 0.5),
    (0,),
    0,
    10,
    needs=("autoencoder",),
)
def _vae(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    import torch

    from vestige.nn.vae import decode, encode

    vae = own_autoencoder(context)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    # Autoencoders are convolutional: large tiles cost no more and show fewer seams.
    side = int(np.ceil(min(max(images.shape[2:]), 256) / factor) * factor)
    generator = torch.Generator().manual_seed(int(rng(seed, "vae").integers(2**62)))

    def through(tiles: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        latents = encode(vae, tiles.to(next(vae.parameters()).device) * 2 - 1)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        return (decode(vae, latents + strength * noise) / 2 + 0.5).clamp(0, 1).cpu()

    with torch.no_grad():
        batch = max(1, context.batch * 32**2 // side**2)
        return tilewise(torch.from_numpy(images), side, through, batch=batch).numpy()


@register(
    "regeneration",
    "share of the diffusion chain that is noised and denoised without a caption",
    (0.05, 0.1, 0.2, 0.3),
    (0.1,),
    0.001,
    1,
    needs=("model",),
)
def _purify(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return regenerate(images, context.model, strength, seed=seed, steps=context.steps, batch=context.batch)


@register(
    "regeneration",
    "share of the diffusion chain that is inverted and sampled back",
    (0.3, 0.6, 0.9),
    (0.6,),
    0.001,
    1,
    needs=("model",),
)
def _invert(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    return regenerate(
        images, context.model, strength, seed=seed, steps=context.steps, batch=context.batch, how="invert"
    )


@register(
    "regeneration",
    "share of the diffusion chain that is redrawn under the picture's caption, at guidance 3",
    (0.2, 0.4, 0.6, 0.8),
    (0.4,),
    0.001,
    1,
    needs=("model", "caption"),
)
def _paraphrase(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    assert context.caption is not None
    return _redraw(images, strength, context.caption(images), 3.0, seed, context)


@register(
    "editing",
    "share of the diffusion chain that is redrawn under another picture's caption, at guidance 7",
    (0.3, 0.5, 0.7),
    (0.5,),
    0.001,
    1,
    needs=("model", "caption", "pool"),
)
def _edit_global(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    assert context.caption is not None
    (other,) = context.caption(context.pool[seed % len(context.pool)])
    return _redraw(images, strength, [other] * len(images), 7.0, seed, context)


def _redraw(
    images: Pictures, strength: float, prompts: list[str], guidance: float, seed: int, context: Context
) -> Pictures:
    return regenerate(
        images, context.model, strength, prompts=prompts, guidance=guidance, seed=seed, steps=context.steps,
        batch=context.batch,
    )  # fmt: skip


@register(
    "editing",
    "fraction of the area that the model draws anew",
    (0.1, 0.2, 0.4, 0.6),
    (0.2,),
    0.001,
    1,
    needs=("model",),
)
def _edit_local(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    height, width = images.shape[2:]
    high, wide = (max(1, round(n * strength**0.5)) for n in (height, width))
    generator = rng(seed, "edit_local")
    mask = np.zeros((len(images), 1, height, width), bool)
    for one in mask:
        top, left = generator.integers(0, height - high + 1), generator.integers(0, width - wide + 1)
        one[0, top : top + high, left : left + wide] = True
    return regenerate(
        images, context.model, 1.0, seed=seed, steps=min(context.steps, 25), how="fill", mask=mask,
        batch=context.batch,
    )  # fmt: skip


@register("regeneration", "number of passes through a trained purifier", (1, 2), (1,), 1, 20, needs=("purifier",))
def _purifier(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    assert context.purifier is not None
    for _ in range(round(strength)):
        images = context.purifier(images)
    return images


@register(
    "regeneration",
    "share of the diffusion chain from which it is redrawn under its own meaning and edges; 1 is pure noise",
    (0.3, 0.6, 1.0),
    (0.6,),
    0.001,
    1,
    needs=("controls",),
)
def _ctrlregen(images: Pictures, strength: float, seed: int, context: Context) -> Pictures:
    assert context.controls is not None
    return context.controls(images, strength, seed)
