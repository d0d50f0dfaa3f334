"""HiDDeN: an embedder and a reader of plain convolutions, trained together through distortions.

Source: HiDDeN: Hiding Data with Deep Networks, ECCV 2018; the form without adversary and image loss and with a fixed
scale of the change follows its later use in The Stable Signature, ICCV 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.nn.messages import check_bits, tile_bits
from vestige.watermark.learned import LearnedMark


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, 1, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class HiddenNet(EmbedderReader):
    """E(x, m) = x + r, r from convolutions over [features of x, m on every pixel, x]; D averages L maps and mixes them.

    L = image_weight·λ·MSE(x_w, x) + MSE(bits) + adversary_weight·A, in [-1, 1] units; λ is the level of the stage
    "fidelity". scale: with it r = scale·tanh(·), the loss of the bits is cross-entropy as in that later form, and no
    image loss is needed (set image_weight to 0); without it the residual is free. width, encoder_blocks,
    decoder_blocks: 64, 4 and 7 in the paper.

    Source: HiDDeN: Hiding Data with Deep Networks, ECCV 2018.

    >>> net = HiddenNet(8, 32, width=8).eval()
    >>> x = net.embed(torch.rand(2, 3, 32, 32), torch.zeros(2, 8))
    >>> x.shape, net.read(x).soft.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        bits: int = 32,
        size: int = 128,
        *,
        width: int = 64,
        encoder_blocks: int = 4,
        decoder_blocks: int = 7,
        scale: float | None = None,
        image_weight: float = 0.7,
        adversary_weight: float = 1e-3,
    ) -> None:
        super().__init__()
        if min(bits, size, width, encoder_blocks, decoder_blocks) < 1:
            raise UsageError("bits, size, width and the numbers of blocks of HiDDeN are at least 1.")
        self.bits, self.size, self.scale = bits, size, scale
        self.image_weight, self.adversary_weight = image_weight, adversary_weight
        self.settings = {
            "bits": bits, "size": size, "width": width, "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks, "scale": scale, "image_weight": image_weight,
            "adversary_weight": adversary_weight,
        }  # fmt: skip
        self.features = nn.Sequential(_block(3, width), *(_block(width, width) for _ in range(encoder_blocks - 1)))
        self.mix = _block(width + bits + 3, width)
        self.residual = nn.Conv2d(width, 3, 1)
        nn.init.normal_(self.residual.weight, 0, 0.02)
        self.reader = nn.Sequential(
            _block(3, width), *(_block(width, width) for _ in range(decoder_blocks - 1)), _block(width, bits)
        )
        self.head = nn.Linear(bits, bits)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        x = 2 * images - 1
        planes = tile_bits(check_bits(bits, self.bits), *images.shape[2:])
        change = self.residual(self.mix(torch.cat([self.features(x), planes, x], 1))).float()
        if self.scale is not None:
            change = self.scale * torch.tanh(change)
        return images + change / 2

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        return BitReading(self.head(self.reader(2 * images - 1).mean((2, 3))))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        if self.scale is not None:
            message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        else:  # the target of a bit is ±1/2 around the threshold 0: the paper's loss with targets 0 and 1
            message = trial.bit_loss(F.mse_loss, trial.reading.soft + 0.5)
        image = 4 * F.mse_loss(trial.embedded, trial.images)
        weight = level("fidelity")
        loss = message + weight * (self.image_weight * image + self.adversary_weight * trial.adversarial)
        return {"loss": loss, "message": message.detach(), "image": image.detach()}


class Hidden(LearnedMark):
    """The HiDDeN-style baseline as a keyed mark: mark and read pictures of any size with trained weights.

    See `LearnedMark` for the arguments. Source: HiDDeN: Hiding Data with Deep Networks, ECCV 2018.

    >>> from vestige.core.keys import PUBLIC_KEY
    >>> import numpy as np
    >>> mark = Hidden(network=HiddenNet(16, 32, width=8))
    >>> mark.mark(np.zeros((1, 3, 40, 50), np.float32), np.ones(32), PUBLIC_KEY).shape
    (1, 3, 40, 50)
    """

    slug = "hidden"

    @staticmethod
    def build(**settings: Any) -> HiddenNet:
        return HiddenNet(**settings)
