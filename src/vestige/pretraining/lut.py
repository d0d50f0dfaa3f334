"""LUT: MAE whose seen tokens must also tell what the whole image is, from another view of it.

Source: Learning with Unmasked Tokens Drives Stronger Vision Learners, ECCV 2024.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from vestige.engines.ema import EMA
from vestige.engines.masked.augment import colour_jitter, one_of_three, pad_crop
from vestige.engines.masked.losses import negative_cosine
from vestige.engines.masked.masking import disjoint
from vestige.engines.masked.model import View
from vestige.nn.blocks import take
from vestige.nn.vit import DecoderConfig, ViT, ViTConfig, initialise
from vestige.pretraining.mae import DECODER, ENCODER, MAE


def _mlp(width: int, hidden: int) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, width, bias=False),
    )  # fmt: skip
    initialise(layers)
    return layers


class LUT(MAE):
    """L = L_MAE(view 1) + weight · ½ [d(q_1, z_2) + d(q_2, z_1)],  d(a, b) = 2 - 2 cos(a, b).

    Two augmented views of each image, no seen token in common (by index). q_v = predictor(projector(mean of the seen
    tokens of view v)); z_v = the same without predictor, from a slow copy of the encoder and the projector that sees
    the whole view. Only view 1, without changes of colour, is reconstructed. hidden: width of the MLPs (4096 in the
    paper, for ViT-B). momentum: of the slow copy, rising to 1 along a cosine over the training; `advance` moves it.
    augment: False takes the images as both views. weight 0 is MAE on the same views.

    Source: Learning with Unmasked Tokens Drives Stronger Vision Learners, ECCV 2024.

    >>> model = LUT(ViTConfig(width=16, depth=1, heads=2), DecoderConfig(16, 1, 2), hidden=32)
    >>> sorted(model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0)))
    ['context', 'loss', 'pixels']
    """

    slug = "lut"
    own_views = True

    def __init__(
        self,
        encoder: ViTConfig = ENCODER,
        decoder: DecoderConfig = DECODER,
        *,
        mask_ratio: float = 0.75,
        norm_pixels: bool = True,
        weight: float = 0.25,
        hidden: int = 4096,
        momentum: float = 0.996,
        augment: bool = True,
    ) -> None:
        super().__init__(encoder, decoder, norm_pixels=norm_pixels, mask=partial(disjoint, ratio=mask_ratio))
        self.projector, self.predictor = _mlp(encoder.width, hidden), _mlp(encoder.width, hidden)
        self.slow_encoder = EMA(self.encoder, momentum, warm=False)
        self.slow_projector = EMA(self.projector, momentum, warm=False)
        self.weight, self.momentum, self.augment = weight, momentum, augment

    def look(self, images: Tensor, generator: torch.Generator) -> View:
        views = [images, images]
        if self.augment:
            views = [pad_crop(images, generator), pad_crop(images, generator)]
            views[1] = one_of_three(colour_jitter(views[1], generator), generator)
        both = torch.cat(views)
        patches = self.encoder.patches(both)
        plan = self.mask(len(images), self.encoder.config.grid, generator).to(images.device)
        tokens = self.encoder.encode(take(patches, plan.ids_keep), plan.ids_keep)
        return View(both, patches, plan, tokens)

    @torch.no_grad()
    def summaries(self, patches: Tensor) -> Tensor:
        """z: what the slow copy makes of whole views, N×width."""
        slow = self.slow_encoder.module
        assert isinstance(slow, ViT)
        tokens = slow.encode(patches, slow.all_ids(len(patches)))
        return self.slow_projector(tokens[:, slow.extra :].mean(1))

    def parts(self, view: View) -> dict[str, tuple[float, Tensor]]:
        n = len(view.images) // 2
        if not self.weight:  # MAE on these views: neither the slow copy nor its summaries are needed
            return {"pixels": (1.0, self.objectives[0](view.first(n)))}
        pooled = view.tokens[:, self.encoder.extra :].mean(1)
        q = self.predictor(self.projector(pooled))
        z = self.summaries(view.patches).roll(n, 0)
        return {
            "pixels": (1.0, self.objectives[0](view.first(n))),
            "context": (self.weight, negative_cosine(q, z).mean()),
        }

    def advance(self, step: int, fraction: float) -> None:
        super().advance(step, fraction)
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * float(self.progress))) / 2
        for slow, fast in ((self.slow_encoder, self.encoder), (self.slow_projector, self.projector)):
            slow.decay = momentum
            slow.update(fast, step)
