"""What the comparison of the masked models trains: MAE, five systems and their baselines, at one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.masked.losses import squared, weighted_mean
from vestige.engines.masked.masking import Grid, MaskPlan, block, uniform
from vestige.engines.masked.model import MaskedModel, Objective, View
from vestige.engines.masked.targets import HogTarget, PixelTarget
from vestige.nn.blocks import take
from vestige.nn.vit import DecoderConfig, MaskedDecoder, TokenDecoder, ViT, ViTConfig
from vestige.pretraining.color_mae import ColorMAE
from vestige.pretraining.dmjd import DMJD
from vestige.pretraining.droppos import DropPos
from vestige.pretraining.lut import LUT
from vestige.pretraining.mae import MAE
from vestige.pretraining.mp3 import MP3

METHODS: dict[str, Any] = {method.slug: method for method in (MAE, ColorMAE, DropPos, MP3, LUT, DMJD)}

#: The widths of LUT's MLPs and the pace of its slow copy belong to the size of the run; crops small enough to hide
#: where a patch came from would make the tasks of MP3 and DropPos impossible.
OWN: dict[str, dict[str, Any]] = {"lut": {"hidden": 512, "momentum": 0.99}}
SCALE = {"mp3": 0.6, "droppos": 0.6}

#: A network that a processor core trains to a flat curve in minutes, and its training. The decoder is one block: what
#: mask tokens ask and answer there depends on their place alone, so that it is projected once for the whole batch.
SIZES: dict[str, Any] = {
    "size": 32, "patch": 4, "width": 96, "depth": 4, "heads": 4, "decoder_width": 96, "decoder_depth": 1,
    "decoder_heads": 4,
}  # fmt: skip
OPTIMISATION: dict[str, Any] = {
    "batch_size": 128, "lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.05, "warmup": 0.05, "clip": 3.0,
}  # fmt: skip


def networks(sizes: Mapping[str, Any]) -> tuple[ViTConfig, DecoderConfig]:
    """Encoder and decoder of the given `SIZES`."""
    encoder = ViTConfig(sizes["size"], sizes["patch"], sizes["width"], sizes["depth"], sizes["heads"])
    return encoder, DecoderConfig(sizes["decoder_width"], sizes["decoder_depth"], sizes["decoder_heads"])


def build_method(name: str, sizes: Mapping[str, Any] = SIZES) -> MaskedModel:
    """A system by its slug, or a baseline by "slug/variant" (see `VARIANTS`), with random weights.

    Raises UsageError for an unknown name.

    >>> type(build_method("color_mae")).__name__
    'ColorMAE'
    """
    encoder, decoder = networks(sizes)
    if name in VARIANTS:
        return VARIANTS[name](encoder, decoder)
    if name not in METHODS:
        raise UsageError(f"system is {name!r}; choose one of {', '.join(METHODS)}.")
    own = OWN.get(name, {})
    return METHODS[name](encoder, **own) if name == "mp3" else METHODS[name](encoder, decoder, **own)


def crop_scale(name: str) -> float:
    """The smallest share of the area that the crops of a system or baseline keep."""
    return SCALE.get(name.partition("/")[0], 0.2)


class FullTokenMAE(MaskedModel):
    """MAE's task with masking by replacement: hidden patches become one learned patch and go through the encoder.

    The decoder gets every token; with a decoder of depth 0 it is a linear layer, as in SimMIM: A Simple Framework for
    Masked Image Modeling, CVPR 2022.
    """

    def __init__(self, encoder: ViTConfig, decoder: DecoderConfig, mask_ratio: float = 0.75) -> None:
        super().__init__(ViT(encoder), partial(uniform, ratio=mask_ratio))
        self.target = PixelTarget(encoder)
        self.decoder = TokenDecoder(encoder, self.target.dim, decoder)
        self.missing = nn.Parameter(torch.zeros(self.target.dim))

    def look(self, images: Tensor, generator: torch.Generator) -> View:
        patches = self.encoder.patches(images)
        plan = self.mask(len(images), self.encoder.config.grid, generator).to(images.device)
        shown = torch.where(plan.mask[..., None], self.missing, patches)
        return View(images, patches, plan, self.encoder.encode(shown, self.encoder.all_ids(len(images))))

    def parts(self, view: View) -> dict[str, tuple[float, Tensor]]:
        predicted = take(self.decoder(view.tokens), view.plan.ids_masked)
        wanted = take(view.wanted(self.target), view.plan.ids_masked)
        return {"pixels": (1.0, weighted_mean(squared(predicted, wanted)))}


def _one_view(encoder: ViTConfig, decoder: DecoderConfig) -> MaskedModel:
    """Masked Feature Prediction (CVPR 2022) with the mask and the target of DMJD's first view."""
    hog = HogTarget(encoder)
    masked = Objective("masked", hog, MaskedDecoder(encoder, hog.dim, decoder), squared)
    return MaskedModel(ViT(encoder), partial(block, ratio=0.6), [masked])


def _independent(encoder: ViTConfig, decoder: DecoderConfig) -> MaskedModel:
    """DMJD whose second view is drawn like the first, whatever that hides."""
    model = DMJD(encoder, decoder)
    model.mask = _two_blocks
    return model


def _two_blocks(n: int, grid: Grid, generator: torch.Generator) -> MaskPlan:
    return MaskPlan.cat([block(n, grid, generator, ratio=0.6) for _ in range(2)])


def _patch_alone(encoder: ViTConfig, decoder: DecoderConfig) -> MaskedModel:
    """MP3's task for a network that sees one patch at a time: what content alone tells about the place."""
    model = MP3(replace(encoder, depth=0))
    width, wide = encoder.width, 2 * encoder.width
    model.head = nn.Sequential(  # type: ignore[assignment]
        nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, encoder.length)
    )
    return model


#: What the systems are held against, beside MAE and random weights.
VARIANTS: dict[str, Callable[[ViTConfig, DecoderConfig], MaskedModel]] = {
    "mae/replacement": FullTokenMAE,
    "mae/simmim": lambda encoder, decoder: FullTokenMAE(encoder, replace(decoder, depth=0)),
    "mp3/all_keys": lambda encoder, decoder: MP3(encoder, eta=0.0),
    "mp3/patch_alone": _patch_alone,
    "lut/no_context": lambda encoder, decoder: LUT(encoder, decoder, weight=0.0, **OWN["lut"]),
    "dmjd/one_view": _one_view,
    "dmjd/masked_only": partial(DMJD, visible_weight=0.0),
    "dmjd/independent": _independent,
}
