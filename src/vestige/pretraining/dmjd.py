"""DMJD: two masked views whose hidden parts together cover the image, and a second head on what is seen.

Source: Disjoint Masking with Joint Distillation for Efficient Masked Image Modeling, 2022.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from vestige.engines.masked.losses import smooth_l1, squared
from vestige.engines.masked.masking import Grid, MaskPlan, block, complement
from vestige.engines.masked.model import MaskedModel, Objective
from vestige.engines.masked.targets import HogTarget
from vestige.nn.vit import DecoderConfig, MaskedDecoder, ViT, ViTConfig, initialise
from vestige.pretraining.mae import DECODER, ENCODER


def disjoint_views(
    n: int, grid: Grid, generator: torch.Generator, *, ratio: float = 0.6, union: float = 1.0, size: int = 2
) -> MaskPlan:
    """Two views of each image: blocks hidden at random, then what completes the hidden part to a share ``union``."""
    first = block(n, grid, generator, ratio=ratio, size=size)
    return MaskPlan.cat([first, complement(first, generator, union=union)])


class VisibleHead(nn.Module):
    """(linear, LayerNorm, GELU)×2, linear, LayerNorm without affine, linear: what is predicted about seen tokens."""

    def __init__(self, encoder: ViTConfig, out: int) -> None:
        super().__init__()
        width = encoder.width
        self.extra = int(encoder.class_token)
        hidden = [part for _ in range(2) for part in (nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())]
        self.layers = nn.Sequential(
            *hidden, nn.Linear(width, width), nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, out)
        )
        initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens[:, self.extra :])


class DMJD(MaskedModel):
    """L = ‖decoder(seen) - hog‖²_masked + weight · smoothL1_β(head(seen), hog)_visible, over two disjoint views.

    mask_ratio: share hidden in each view, by 2×2 blocks in the first. union: share of tokens hidden in one view or the
    other (1: every token is predicted). visible_weight, beta: of the loss on seen tokens. cell: side of the cells of
    the gradient histograms in pixels (default: 8, or the patch). Both views go through the encoder as one batch.

    Source: Disjoint Masking with Joint Distillation for Efficient Masked Image Modeling, 2022.

    >>> model = DMJD(ViTConfig(width=16, depth=1, heads=2), DecoderConfig(16, 1, 2))
    >>> sorted(model.loss(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0)))
    ['loss', 'masked', 'visible']
    """

    slug = "dmjd"

    def __init__(
        self,
        encoder: ViTConfig = ENCODER,
        decoder: DecoderConfig = DECODER,
        *,
        mask_ratio: float = 0.6,
        union: float = 1.0,
        visible_weight: float = 1.0,
        beta: float = 2.0,
        cell: int | None = None,
    ) -> None:
        hog = HogTarget(encoder, cell)
        masked = Objective("masked", hog, MaskedDecoder(encoder, hog.dim, decoder), squared)
        visible = Objective(
            "visible", hog, VisibleHead(encoder, hog.dim), partial(smooth_l1, beta=beta), "visible", visible_weight
        )
        super().__init__(ViT(encoder), partial(disjoint_views, ratio=mask_ratio, union=union), [masked, visible])
