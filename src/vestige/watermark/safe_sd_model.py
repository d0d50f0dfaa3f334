"""The diffusion model of Safe-SD: a latent UNet that sees the code of a mark, and trigger words in its prompts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError
from vestige.engines.diffusion.losses import diffusion_loss, stratified_levels
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.diffusion.schedules import to_x0
from vestige.watermark.safe_sd_net import SafeSDNet

#: Words that call for a mark; every one can have marks of its own.
TRIGGERS = ("signed", "sealed", "stamped")
TRAIN = "vestige learn safe_sd"


def with_trigger(prompt: str, trigger: str) -> str:
    """The prompt with the word behind it, where a causal text encoder leaves the words before as they were."""
    return f"{prompt}, {trigger}" if prompt else trigger


def trigger_of(prompt: str) -> str | None:
    """The first trigger word of a prompt.

    >>> trigger_of("a red ball on sand, Signed"), trigger_of("a designed ball")
    ('signed', None)
    """
    return next((word for word in re.findall(r"\w+", prompt.casefold()) if word in TRIGGERS), None)


class MarkedTextToImage(TextToImage):
    """A latent `TextToImage` whose UNet has 2C + 1 channels: it sees [z_t, λ u, λ]; the first C outputs count.

    ``condition``, N×(C+1)×h×w, is what stands beside the latents in the next calls, see `set_condition`. The arguments
    are those of `TextToImage`. Raises UsageError when the channels of UNet and autoencoder do not fit together.
    """

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        self.channels = int(self.vae.config.latent_channels)
        if int(self.unet.config.in_channels) != 2 * self.channels + 1:
            raise UsageError(f"The UNet of Safe-SD needs {2 * self.channels + 1} channels: latents, code and strength.")
        self.condition: Tensor | None = None

    def set_condition(self, code: Tensor, strength: Tensor) -> None:
        """code: u, N×C×h×w. strength: λ, N."""
        share = strength.view(-1, 1, 1, 1).to(code)
        self.condition = torch.cat([share * code, share.expand(-1, 1, *code.shape[2:])], 1)

    def latent_shape(self, size: int | tuple[int, int] | None = None) -> tuple[int, int, int]:
        _, height, width = super().latent_shape(size)
        return self.channels, height, width

    def network(self, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        if self.condition is None:
            raise UsageError("Safe-SD's network needs the code of a mark; call set_condition first.")
        # Guidance asks for [without, with the prompt] in one call; the mark is the same for both.
        beside = self.condition.repeat(len(x) // len(self.condition), 1, 1, 1)
        return super().network(torch.cat([x, beside], 1), time, context)[:, : self.channels]

    def marked_loss(
        self,
        net: SafeSDNet,
        latents: Tensor,
        code: Tensor,
        ids: Tensor,
        triggered: Tensor,
        strength: Tensor,
        generator: torch.Generator,
        *,
        revealed: int = 2,
        weight: float = 0.1,
    ) -> dict[str, Tensor]:
        """Diffusion loss towards z_λ where ``triggered`` and z_i elsewhere, and the λ-weighted loss of reading û.

        latents: z_i N×C×h×w, not scaled. code: u N×C×h×w. ids: N×L. triggered: bool N. strength: λ N. revealed: so many
        items, the marked ones of the least noise, are decoded and read back, (λ/N) ‖û(ẑ_0) − λu‖²/‖u‖² with ``weight``.
        """
        share = strength * triggered
        with torch.no_grad():
            target = net.inject(latents, code, share) * self.vae.config.scaling_factor
        self.set_condition(code, strength)
        context = self.context(ids)
        levels = stratified_levels(len(target), self.table, generator)
        seen: dict[str, Tensor] = {}

        def network(x: Tensor, time: Tensor) -> Tensor:
            seen["x"], seen["output"] = x, self.network(x, time, context)
            return seen["output"]

        loss = diffusion_loss(network, target, self.table, self.prediction, generator, levels=levels)
        figures = {"diffusion": loss.detach()}
        if revealed:
            # Unmarked items teach the reader's term nothing.
            least = (levels + len(self.table) * (share == 0).to(levels)).argsort()[:revealed]
            alpha, sigma = self.table.at(levels[least], target)
            here = least.to(target.device)
            clean = to_x0(seen["output"][here], seen["x"][here], alpha, sigma, self.prediction)
            found = net.read(net.decode(clean / self.vae.config.scaling_factor).clamp(0, 1))
            wanted = share[here].view(-1, 1, 1, 1) * code[here]
            wrong = (found - wanted).square().mean((1, 2, 3)) / code.square().mean().clamp_min(1e-6)
            figures["reveal"] = (share[here] * wrong).mean()
            loss = loss + weight * figures["reveal"]
        return {"loss": loss, **{k: v.detach() for k, v in figures.items()}}


def load_model(folder: str | Path, net: SafeSDNet) -> MarkedTextToImage:
    """The diffusion model of a folder of stage 2, on the autoencoder of ``net``; raises InputError when it is none."""
    loaded = load_pipeline(folder)
    if not isinstance(loaded, TextToImage) or int(loaded.unet.config.in_channels) != 2 * net.channels + 1:
        raise InputError(f"{folder} holds no diffusion model of Safe-SD; train it with: {TRAIN} --set stage=2.")
    return MarkedTextToImage(
        loaded.unet, net.vae, loaded.text_encoder, loaded.tokenizer, loaded.table, loaded.prediction
    )
