"""What the tests of learned marks share: a known mark that needs no training, and a short training."""

from __future__ import annotations

import torch
from torch import Tensor

from vestige.engines.marking.model import BitReading, EmbedderReader, Trial, straight_clamp


class Chessboard(EmbedderReader):
    """L bits as L blocks of a bright and dark pattern; read by correlation with the pattern, no weights to learn."""

    def __init__(self, bits: int = 64, size: int = 64, gain: float = 0.06) -> None:
        super().__init__()
        self.bits, self.size = bits, size
        self.side = round(bits**0.5)
        self.settings = {"bits": bits, "size": size, "gain": gain}
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        block = size // self.side
        inside = torch.arange(size) % block < block // 2
        self.register_buffer("pattern", (inside[:, None] ^ inside[None]).float() * 2 - 1)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        signs = (2 * bits - 1).view(-1, 1, self.side, self.side)
        return images + self.gain * self.pattern * torch.nn.functional.interpolate(signs, (self.size, self.size))

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        seen = (images - 0.5).mean(1, keepdim=True) * self.pattern
        return BitReading(torch.nn.functional.adaptive_avg_pool2d(seen, self.side).flatten(1))


def learn_bits(net: EmbedderReader, image: Tensor, steps: int, lr: float, seed: int = 0) -> float:
    """Train on copies of one picture with fixed messages of their own; returns the share of bits read in the end.

    The copies are alike, so that the messages can only be read from the marks.
    """
    generator = torch.Generator().manual_seed(seed)
    bits = (torch.rand(8, net.bits, generator=generator) < 0.5).float()
    images = image.expand(8, -1, -1, -1)
    masks = torch.ones(8, 1, *image.shape[2:], dtype=torch.bool)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    accuracy = 0.0
    for _ in range(steps):
        net.prepare(lambda name: 0.0)
        marked = straight_clamp(net.embed(images, bits, masks))
        trial = Trial(images, bits, masks, marked, marked, masks, net.read(marked, masks), images.new_zeros(()))
        accuracy = float(trial.accuracy())
        if accuracy == 1.0:
            break
        loss = net.objective(trial, lambda name: 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return accuracy
