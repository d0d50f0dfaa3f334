"""DropPos: hide the positions of most of the patches that are seen, and recover them.

Source: DropPos: Pre-Training Vision Transformers by Reconstructing Dropped Positions, NeurIPS 2023.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.masked.losses import cross_entropy, weighted_mean
from vestige.engines.masked.masking import MaskPlan, kept, some_of, uniform
from vestige.engines.masked.model import MaskedModel, View
from vestige.engines.masked.targets import PositionTarget
from vestige.nn.blocks import take
from vestige.nn.vit import DecoderConfig, TokenDecoder, ViT, ViTConfig
from vestige.pretraining.mae import DECODER, ENCODER


class DropPos(MaskedModel):
    """L = Σ h_j a_j CE(logits_j, w_j) / Σ h_j a_j over the seen tokens; h_j = 1 where the position was hidden.

    w_j ∝ exp(-dist²/σ²) around the true cell, σ falling from ``sigma`` to 0 over the training (`advance`); a_j =
    softmax over all patches of cos(class token, patch)/tau, from the same weights on the whole image without gradient.
    mask_ratio: share of patches left out. pos_ratio: share of the seen ones whose position vector is replaced by one
    learned vector. attentive: use a_j. The decoder has no positions. Raises UsageError for encoders that do not add
    positions or lack the class token that a_j needs, and for ratios out of range.

    Source: DropPos: Pre-Training Vision Transformers by Reconstructing Dropped Positions, NeurIPS 2023.

    >>> model = DropPos(ViTConfig(width=16, depth=1, heads=2), DecoderConfig(16, 1, 2))
    >>> bool(model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0))["loss"] > 0)
    True
    """

    slug = "droppos"

    def __init__(
        self,
        encoder: ViTConfig = ENCODER,
        decoder: DecoderConfig = DECODER,
        *,
        mask_ratio: float = 0.75,
        pos_ratio: float = 0.75,
        sigma: float = 1.0,
        tau: float = 0.1,
        attentive: bool = True,
    ) -> None:
        if encoder.positions not in ("sincos", "learned") or not encoder.class_token:
            raise UsageError("DropPos needs an encoder with added positions (sincos or learned) and a class token.")
        if not 0 < pos_ratio <= 1 or sigma < 0 or tau <= 0:
            raise UsageError(f"pos_ratio {pos_ratio} must be in (0, 1], sigma {sigma} at least 0, tau {tau} above 0.")
        super().__init__(ViT(encoder), partial(uniform, ratio=mask_ratio))
        self.decoder = TokenDecoder(encoder, encoder.length, decoder)
        self.target = PositionTarget(encoder.grid)
        self.no_position = nn.Parameter(torch.empty(1, 1, encoder.width).normal_(std=0.02))
        self.pos_ratio, self.sigma, self.tau, self.attentive = pos_ratio, sigma, tau, attentive
        self.hidden_count = max(1, round(pos_ratio * kept(encoder.length, mask_ratio)))

    def encode(self, patches: Tensor, plan: MaskPlan, hidden: Tensor) -> Tensor:
        """Tokens of the seen patches, with one and the same vector for every hidden position."""
        places = self.encoder.places(plan.ids_keep)
        assert places is not None
        places = torch.where(hidden[..., None], self.no_position, places)
        return self.encoder.encode(take(patches, plan.ids_keep), plan.ids_keep, places)

    def look(self, images: Tensor, generator: torch.Generator) -> View:
        patches = self.encoder.patches(images)
        plan = self.mask(len(images), self.encoder.config.grid, generator).to(images.device)
        hidden = some_of(len(plan), plan.ids_keep.shape[1], self.hidden_count, generator).to(images.device)
        return View(images, patches, plan, self.encode(patches, plan, hidden), hidden)

    @torch.no_grad()
    def attention(self, patches: Tensor) -> Tensor:
        """a: N×L, how much each patch resembles the class token."""
        tokens = self.encoder.encode(patches, self.encoder.all_ids(len(patches)))
        return (F.cosine_similarity(tokens[:, :1], tokens[:, 1:], dim=-1) / self.tau).softmax(-1)

    def parts(self, view: View) -> dict[str, tuple[float, Tensor]]:
        assert view.hidden is not None
        weights = view.hidden.float()
        if self.attentive:
            weights = weights * self.attention(view.patches).gather(1, view.plan.ids_keep)
        wanted = self.target(view.plan.ids_keep, self.sigma * (1 - float(self.progress)))
        return {"position": (1.0, weighted_mean(cross_entropy(self.decoder(view.tokens), wanted), weights))}

    @torch.no_grad()
    def accuracy(self, images: Tensor, generator: torch.Generator) -> float:
        """Share of hidden positions that are found; 1/L by chance."""
        view = self.look(images, generator)
        assert view.hidden is not None
        right = self.decoder(view.tokens).argmax(-1) == view.plan.ids_keep
        return float(right[view.hidden].float().mean())

    def error(self, images: Tensor, generator: torch.Generator) -> float:
        """Share of positions that are not found: the loss itself changes its target while it is trained."""
        return 1 - self.accuracy(images, generator)
