"""MP3: given patches without positions, say where each one came from.

Source: Position Prediction as an Effective Pretraining Strategy, ICML 2022.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from vestige.engines.masked.losses import cross_entropy
from vestige.engines.masked.masking import uniform
from vestige.engines.masked.model import MaskedModel, View
from vestige.nn.blocks import take
from vestige.nn.vit import ViT, ViTConfig
from vestige.pretraining.mae import ENCODER


class MP3(MaskedModel):
    """L = mean over all tokens of CE(head(token), its cell); keys and values come from a random context only.

    The encoder gets all patches and no positions; in every block the queries are all tokens, keys and values the class
    token and (1 - eta)·L context patches, so the others are placed without being looked at. Tokens are fed in the order
    of the mask, context first: nothing about that order is about the image. The encoder's ``positions`` are replaced
    by "none".

    Source: Position Prediction as an Effective Pretraining Strategy, ICML 2022.

    >>> model = MP3(ViTConfig(width=16, depth=1, heads=2))
    >>> bool(model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0))["loss"] > 0)
    True
    """

    slug = "mp3"

    def __init__(self, encoder: ViTConfig = ENCODER, *, eta: float = 0.75) -> None:
        encoder = replace(encoder, positions="none")
        super().__init__(ViT(encoder), partial(uniform, ratio=eta))
        self.head = nn.Linear(encoder.width, encoder.length)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def look(self, images: Tensor, generator: torch.Generator) -> View:
        patches = self.encoder.patches(images)
        plan = self.mask(len(images), self.encoder.config.grid, generator).to(images.device)
        tokens = self.encoder.encode(take(patches, plan.order), plan.order, context=plan.ids_keep.shape[1])
        return View(images, patches, plan, tokens)

    def logits(self, view: View) -> Tensor:
        """N×L×L, rows in the order of ``view.plan.order``."""
        return self.head(view.tokens[:, self.encoder.extra :])

    def parts(self, view: View) -> dict[str, tuple[float, Tensor]]:
        return {"position": (1.0, cross_entropy(self.logits(view), view.plan.order).mean())}

    @torch.no_grad()
    def accuracy(self, images: Tensor, generator: torch.Generator) -> float:
        """Share of patches put in the right cell; 1/L by chance."""
        view = self.look(images, generator)
        return float((self.logits(view).argmax(-1) == view.plan.order).float().mean())

    def error(self, images: Tensor, generator: torch.Generator) -> float:
        """Share of patches put in a wrong cell."""
        return 1 - self.accuracy(images, generator)
