"""What an imitator does: train a copy of a text-to-image model on somebody's pictures and draw new ones with it.

Also the small parts that every member of the audit shares: plain training, drawing, seeded generators.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vestige.engines.adversarial.budget import torch_generator
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.samplers import Denoiser, Sampler, sample
from vestige.engines.diffusion.schedules import grid

#: Learning rate of imitators.
RATE = 1e-3
#: Parts of the UNet that imitators train: its decoder half.
TRAINED = ("mid_block", "up_blocks", "conv_norm_out", "conv_out")
#: A word outside the vocabulary stands for the artist.
NAME = "anon"


def torch_rng(seed: int, *path: object) -> torch.Generator:
    """A CPU generator for one place in the audit."""
    return torch_generator(seed, "copyrightmeter", *path)


def eight_bit(images: Tensor) -> Tensor:
    """The nearest eight-bit values in [0, 1], as saved files have."""
    return (images.clamp(0, 1) * 255).round() / 255


def draw(denoiser: Denoiser, start: Tensor, model: TextToImage, steps: int, method: Sampler = "dpm++") -> Tensor:
    """Eight-bit pictures from starting noise."""
    return eight_bit(model.decode(sample(denoiser, start, grid(model.table, steps), method)))


def descend(
    parameters: Sequence[Tensor], loss: Callable[[int, torch.Generator], Tensor], updates: int, rate: float,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """AdamW on the parameters, which are trainable within and frozen afterwards. loss: (update, generator)."""
    for p in parameters:
        p.requires_grad_(True)
    optimiser = torch.optim.AdamW(list(parameters), rate, betas=(0.9, 0.99), weight_decay=0.0)
    with torch.enable_grad():
        for update in range(updates):
            optimiser.zero_grad(set_to_none=True)
            loss(update, generator).backward()
            optimiser.step()
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None


def chosen(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """Numbers of a random batch without repetition."""
    return torch.randperm(count, generator=generator)[:batch]


def mimic(
    source: TextToImage, images: Tensor, context: Tensor, *, updates: int, batch: int, seed: int
) -> TextToImage:  # fmt: skip
    """A copy of the generator whose decoder half was trained on the pictures under their captions, and nothing else.

    images: N×3×S×S of the generator's size. context: their captions' contexts N×L×D. The source stays as it is.
    """
    model = copy.deepcopy(source)
    trained = [p for n, p in model.unet.named_parameters() if n.startswith(TRAINED)]
    latents = model.encode(images)

    def loss(_: int, generator: torch.Generator) -> Tensor:
        rows = chosen(len(latents), batch, generator)
        return diffusion_loss(
            lambda x, t: model.network(x, t, context[rows]), latents[rows], model.table, model.prediction, generator
        )

    descend(trained, loss, updates, RATE, torch_rng(seed, "mimic"))
    return model


@torch.no_grad()
def imitated(model: TextToImage, context: Tensor, start: Tensor, steps: int) -> Tensor:
    """Pictures the model draws for captions that name the artist. start: noise N×C×H×W."""
    denoiser = model.denoiser("")
    denoiser.condition = context
    return draw(denoiser, start, model, steps)
