"""Cloaks: an artist changes pictures within an L∞ budget so that a generator trained on them does not learn the style.

Sources: Adversarial Example Does Good: Preventing Painting Imitation from Diffusion Models via Adversarial Examples
(AdvDM), ICML 2023; Mist: Towards Improved Adversarial Examples for Diffusion Models, arXiv 2305.12683. Of a pixel
model the encoder is the identity, so that Mist's textural term and PhotoGuard's encoder attack are the same thing.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.bench.copyrightmeter.world import ARTISTS, SIDE, Settings, fidelity, generator_model, judge, start_noise
from vestige.bench.generation import runs
from vestige.core.runtime import rng
from vestige.data.scenes import sample_scene
from vestige.engines.adversarial import Budget, Scores, pgd
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import target
from vestige.metrics.quality import psnr
from vestige.watermark.copyrightmeter.imitation import NAME, eight_bit, imitated, mimic, torch_rng
from vestige.watermark.copyrightmeter.purify import purified

PROTECTIONS = ("AdvDM", "Mist")
BASELINES = ("none", "random noise")
ATTACKS = ("identity", "JPEG 75", "palette 256", "TV 30 %", "IMPRESS-like", "DiffPure 0.2")
#: Periods in pixels of the texture that Mist pulls towards; the first is the usual one.
PERIODS = (4, 8, 16)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of an artist with their captions' contexts N×L×D (which name the artist)."""

    images: Tensor
    context: Tensor


def recolour(images: Tensor, seed: int) -> Tensor:
    """The artist's hand: six tones of luminance, coloured by a palette of the artist's own."""
    hue = rng(seed, "artist").uniform()
    stops = np.array(
        [colorsys.hsv_to_rgb((hue + h) % 1, s, v) for h, s, v in ((0, 0.9, 0.25), (0.35, 0.8, 0.75), (0.55, 0.3, 1.0))]
    )
    luma = np.tensordot(images.numpy(), np.array([0.299, 0.587, 0.114]), axes=(1, 0))
    tones = np.floor(luma * 5.999) / 5
    made = np.stack([np.interp(tones, [0, 0.5, 1], stops[:, c]) for c in range(3)], 1)
    return eight_bit(torch.from_numpy(made.astype(np.float32)))


@lru_cache(maxsize=16)
def gallery(count: int, seed: int, first: int) -> Gallery:
    """Pictures number ``first`` on of the artist ``seed``."""
    begin = ARTISTS * 1_000_003 + 10_000 * seed + first
    drawn = [
        sample_scene(begin + i, n_objects=1, object_size=runs.OBJECT_SIZES[0], style="cartoon") for i in range(count)
    ]
    scenes = runs.rendered(drawn, SIDE)
    with torch.no_grad():
        context = generator_model().embed([c.replace("cartoon", NAME) for c in scenes.captions])
    return Gallery(recolour(scenes.images, seed), context)


@dataclass(frozen=True)
class CloakObjective:
    """What a cloak raises: E_{t,e}‖f(x_t, t) − target‖² − w·‖x − texture‖², means over samples.

    AdvDM has w = 0. Noise is drawn anew in every step. The margin is the number of the step, because losses of
    different draws do not compare: the last iterate is kept.
    """

    model: TextToImage
    context: Tensor
    seed: int
    weight: float = 0.0
    texture: Tensor | None = None

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        generator = torch_rng(self.seed, "cloak", step)
        z = images * 2 - 1
        levels = torch.randint(len(self.model.table), (len(z),), generator=generator)
        noise = torch.randn(z.shape, generator=generator)
        alpha, sigma = self.model.table.at(levels, z)
        out = self.model.network(alpha * z + sigma * noise, self.model.table.network_time(levels), self.context[chosen])
        wanted = target(z, noise, alpha, sigma, self.model.prediction)
        loss = (out - wanted).square().mean((1, 2, 3))
        if self.texture is not None:
            loss = loss - self.weight * (images - self.texture).square().mean((1, 2, 3))
        return Scores(loss, torch.full((len(images),), float(step)))


def texture(period: int) -> Tensor:
    """Black and white stripes, 1×3×32×32."""
    stripes = (np.arange(SIDE) * 2 // period % 2).astype(np.float32)
    return torch.from_numpy(np.broadcast_to(stripes, (1, 3, SIDE, SIDE)).copy())


def cloak(name: str, art: Gallery, settings: Settings, seed: int, period: int = PERIODS[0]) -> Tensor:
    """Protected pictures; ``period``: of Mist's texture."""
    levels = int(settings.epsilon)
    if name == "none":
        return art.images
    if name == "random noise":
        signs = rng(seed, "random noise").choice(np.array([-levels, levels], np.float32), tuple(art.images.shape))
        return eight_bit(art.images + torch.from_numpy(signs) / 255)
    extra: dict[str, Any] = {} if name == "AdvDM" else {"weight": 20.0, "texture": texture(period)}
    objective = CloakObjective(generator_model(), art.context, seed, **extra)
    budget = Budget("linf", levels / 255)
    return pgd(art.images, objective, budget, steps=settings.perturb, early_stop=False, seed=seed).images


@lru_cache(maxsize=16)
def _protected(name: str, seed: int, settings: Settings, against: str) -> Tensor:
    art = gallery(settings.pictures, seed, 0)
    return cloak(name, art, settings, seed, _lasting_period(against, art, settings, seed) if against else PERIODS[0])


def _lasting_period(against: str, art: Gallery, settings: Settings, seed: int) -> int:
    """The texture of which the attack leaves most: the cloak is designed again with the attack in the loop."""
    change, plain = settings.epsilon / 255, purified(against, art.images, seed, generator_model())
    energy = {}
    for period in PERIODS:
        moved = eight_bit(art.images + change * (2 * texture(period) - 1))
        energy[period] = float((purified(against, moved, seed, generator_model()) - plain).square().mean())
    return max(energy, key=energy.__getitem__)


def imitations(model: TextToImage, settings: Settings, seed: int) -> Tensor:
    """Pictures the model draws for new captions that name the artist."""
    context = gallery(settings.pictures, seed, 2000).context
    return imitated(model, context, start_noise(settings.pictures, seed, "mimic"), settings.steps)


def measure(protection: str, attack: str, seed: int, settings: Settings, against: str = "") -> dict[str, float]:
    """One cell. raw: kernel distance of imitations to the artist's other pictures. See `protocol.Cell`."""
    net = judge(settings.scenes)
    art, other = gallery(settings.pictures, seed, 0), gallery(4 * settings.pictures, seed, 4000).images
    protected = _protected(protection, seed, settings, against)
    taken = purified(attack, protected, seed, generator_model())
    copied = mimic(
        generator_model(), taken, art.context, updates=settings.updates, batch=settings.batch, seed=seed
    )  # fmt: skip
    made = imitations(copied, settings, seed)
    row = {
        "raw": net.distance(made, other),
        "fidelity": fidelity(net.kept(art.images, protected), net.distance(art.images, protected)),
        "damage": 1 - net.kept(protected, taken),
        "psnr": float(np.minimum(psnr(protected.numpy(), taken.numpy()), 99).mean()),
    }
    if protection == "none":
        row["full"] = net.distance(imitations(generator_model(), settings, seed), other)
    return row
