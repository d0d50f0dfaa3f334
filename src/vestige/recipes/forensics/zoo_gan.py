"""A small adversarial generator for the zoo: a DCGAN, or one that enlarges reduced photographs.

    vestige learn zoo_gan
    vestige learn zoo_gan --set code=picture --set upsample=nearest --set base=16 --out FOLDER

code "noise": pictures out of nothing. Ten minutes on a core give colours and textures, no objects; content gives
them away at once. code "picture": the generator gets a photograph reduced by four and noise, and is held to it after
reduction, so that its pictures show what the photograph shows and only its traces tell.

Loss: the critic's (non-saturating), and for "picture" fidelity·(|down(G) - low|₁ + |G - x|₁ / 4). upsample:
"transposed" or "nearest". base: channels of the last stage. The other options are those of recipes/forensics/zoo_vae.

Result: zoo_gan.safetensors. `vestige.engines.fakes.shipped_sources` reads the package's weights/zoo_gan*.safetensors:
copy the two as zoo_gan.safetensors and zoo_gan_sr.safetensors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.data.fakes import as_float
from vestige.engines.fakes import gan_source, save_generator, zoo_squares
from vestige.engines.marking.critic import Critic
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.metrics.quality import psnr
from vestige.nn.gan import ConvGenerator


def build(ctx: RecipeContext) -> Job:
    """Generator and critic on squares of photographs."""
    o = ctx.options
    size = int(o["size"])
    train, held = zoo_squares(size, int(o["squares"]), limit=int(o["limit"]), seed=ctx.seed)
    source = torch.from_numpy(train)
    model = ConvGenerator(size, int(o["base"]), code=o["code"], upsample=o["upsample"])
    critic = Critic(int(o["base"]), kind="classifier", lr=float(o["critic_lr"])).to(ctx.device)

    def batches(number: int, generator: torch.Generator) -> Tensor:
        chosen = source[torch.randint(len(source), (ctx.config.batch_size,), generator=generator)]
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        return torch.where(mirrored[:, None, None, None], chosen.flip(3), chosen)

    def step(module: nn.Module, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(module, ConvGenerator)
        images = batch.float() / 255
        low = F.avg_pool2d(images, 4) if module.code == "picture" else None
        noise = torch.randn(len(images), module.latent, generator=generator, device=images.device)
        made = module(noise, low)
        # The same grain on both keeps the critic from winning by the eight bits of photographs.
        grain = [
            0.02 * torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
            for _ in range(2)
        ]
        adversarial = critic.embedder_term(made + grain[0])
        loss = adversarial
        found = {"adversarial": adversarial.detach()}
        if low is not None:
            faithful = F.l1_loss(F.avg_pool2d(made, 4), low) + F.l1_loss(made, images) / 4
            loss = loss + float(o["fidelity"]) * faithful
            found["fidelity"] = faithful.detach()
        return {"loss": loss, **found, "critic": critic.learn(images + grain[1], made + grain[0])}

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, ConvGenerator)
        x = as_float(held[:128])
        made = gan_source(module)(x, seed=1)
        found = {"spread of pixels": float(made.std(0).mean()), "spread of photographs": float(x.std(0).mean())}
        return found | ({"psnr": float(np.mean(psnr(x, made)))} if module.code == "picture" else {})

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, ConvGenerator)
        save_generator(module, out / "zoo_gan.safetensors")

    extra = {"critic": critic, "critic optimizer": critic.optimizer}
    return Job(model, step, batches, evaluate=evaluate, save=save, extra=extra)


RECIPE = Recipe(
    name="zoo_gan",
    about="A small adversarial generator of squares of photographs, from noise or from their reduced copies.",
    build=build,
    config=TrainConfig(
        steps=2400, batch_size=32, lr=4e-4, betas=(0.5, 0.99), weight_decay=0.0, warmup=50, clip=1.0, ema=0.99,
        schedule="constant", log_every=50, checkpoint_every=200,
    ),
    reach={"spread of pixels": "above 0.1: pictures differ from each other (a collapsed generator makes one)"},
    options={
        "size": 64, "squares": 4, "limit": 0, "base": 32, "code": "noise", "upsample": "transposed", "fidelity": 20.0,
        "critic_lr": 2e-4,
    },
)  # fmt: skip
