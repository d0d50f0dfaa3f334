"""Sanitised generators: a concept (an object) is to be drawn no more, the others as before.

Sources: Erasing Concepts from Diffusion Models (ESD), ICCV 2023; Unified Concept Editing in Diffusion Models (UCE),
WACV 2024; Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion Models (SLD), CVPR 2023.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from vestige.bench.copyrightmeter.world import (
    OWN,
    PROMPTS,
    Settings,
    fidelity,
    generator_model,
    judge,
    scenes_of,
    start_noise,
)
from vestige.core.runtime import rng
from vestige.data.scenes import CLASSES
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.samplers import Denoiser
from vestige.nn.text import unknown_words
from vestige.watermark.copyrightmeter.imitation import chosen, descend, draw, torch_rng

PROTECTIONS = ("ESD", "UCE", "negative prompt", "SLD")
BASELINES = ("none",)
#: Rate of ESD's fine-tuning of cross-attention.
ESD_RATE = 2e-3


class SafeDenoiser(Denoiser):
    """Guidance away from a concept s as well: f(∅) + w (f(c) − f(∅) − γ), γ = μ (f(s) − f(∅)) + m ν.

    μ = min(1, a |f(c) − f(s)|) where f(c) − f(s) < λ, else 0: only places that the prompt shares with the concept are
    changed. ν ← β ν + (1 − β) γ is the momentum; γ acts after ``warmup`` calls. The figures are the strong ones of the
    paper, with a warm-up in the proportion of 7 to 50 steps.
    """

    def __init__(self, plain: Denoiser, safety: Tensor, warmup: int = 1) -> None:
        super().__init__(
            plain.network, plain.schedule, plain.prediction, plain.condition, plain.null, guidance=plain.guidance
        )
        self.safety, self.warmup = safety, warmup
        self.scale, self.threshold, self.pull, self.decay = 2000.0, 0.025, 0.5, 0.7
        self.momentum: Tensor | None = None
        self.seen = 0

    def output(self, x: Tensor, level: int) -> Tensor:
        n = len(x)
        assert self.condition is not None
        assert self.null is not None
        contexts = [c if len(c) == n else c.expand(n, *c.shape[1:]) for c in (self.null, self.condition, self.safety)]
        time = self.schedule.network_time(level).expand(3 * n)
        free, wanted, unsafe = self.network(torch.cat([x, x, x]), time, torch.cat(contexts)).chunk(3)
        self.calls += 1
        self.rows += 3 * n
        apart = wanted - unsafe
        share = torch.where(apart < self.threshold, (apart.abs() * self.scale).clamp(max=1.0), 0.0).detach()
        away = share * (unsafe - free)
        if self.momentum is not None:
            away = away + self.pull * self.momentum
        self.momentum = (
            self.decay * (0 if self.momentum is None else self.momentum) + (1 - self.decay) * away
        ).detach()
        self.seen += 1
        if self.seen <= self.warmup:
            away = torch.zeros_like(away)
        return free + self.guidance * (wanted - free - away)


@dataclass(frozen=True, eq=False)
class Service:
    """A generator as it is offered: weights, and what its sampling does besides the prompt.

    negative: a prompt in place of the empty one. safety: a prompt that `SafeDenoiser` steers away from.
    """

    model: TextToImage
    negative: str = ""
    safety: str = ""
    guidance: float = field(default=3.0)

    def denoiser(self, context: Tensor) -> Denoiser:
        """The guided denoiser of contexts N×L×D; gradients reach the contexts."""
        with torch.no_grad():
            null = self.model.embed(self.negative)
            safe = self.model.embed(self.safety) if self.safety else None
        plain = Denoiser(
            self.model.network, self.model.table, self.model.prediction, context, null, guidance=self.guidance
        )
        return plain if safe is None else SafeDenoiser(plain, safe)

    def pictures(self, context: Tensor, start: Tensor, settings: Settings) -> Tensor:
        """One picture for each context, from starting noise."""
        return draw(self.denoiser(context), start, self.model, settings.steps)


def concept(seed: int) -> str:
    """The object that is erased with this seed: one whose word the generator knows."""
    tokenizer = generator_model().tokenizer
    known = [c for c in CLASSES if not unknown_words(tokenizer, c)]
    return known[int(rng(seed, "concept").integers(len(known)))]


def anchor(word: str) -> str:
    """What is drawn in place of an erased object."""
    return "ball" if word != "ball" else "cube"


def swapped(prompts: Sequence[str], word: str, other: str) -> list[str]:
    """Prompts with another word in place of a whole word."""
    return [re.sub(rf"\b{re.escape(word)}\b", other, p) for p in prompts]


def cross_attention(model: TextToImage) -> dict[str, nn.Linear]:
    """Keys and values of the layers that attend to the words."""
    return {
        name: layer
        for name, layer in model.unet.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(("attn2.to_k", "attn2.to_v"))
    }


@torch.no_grad()
def uce(model: TextToImage, erased: Tensor, instead: Tensor, retained: Tensor, *, ridge: float = 0.1) -> None:
    """Closed form on keys and values, in place: W ← W (Σ c* cᵀ + Σ r rᵀ + λ I) (Σ c cᵀ + Σ r rᵀ + λ I)⁻¹.

    erased, instead: contexts N×L×D whose tokens c are to be seen as c*. retained: M×L×D, tokens r that stay.
    """
    c, target, r = (x.flatten(0, 1).double() for x in (erased, instead, retained))
    kept = r.T @ r + ridge * torch.eye(c.shape[1], dtype=torch.float64)
    mixed = (target.T @ c + kept) @ torch.linalg.inv(c.T @ c + kept)
    for layer in cross_attention(model).values():
        layer.weight.copy_((layer.weight.double() @ mixed).to(layer.weight))


def esd(
    model: TextToImage, contexts: Tensor, images: Tensor, settings: Settings, seed: int, *, strength: float = 1.0
) -> None:
    """Fine-tune cross-attention in place: min ‖f(x_t, c) − [f₀(x_t) − η (f₀(x_t, c) − f₀(x_t))]‖², f₀ the original.

    contexts: N×L×D, that name the concept. images: N×3×H×W, the original's own pictures for them, which are noised to
    random levels. η: ``strength``.
    """
    frozen = generator_model()
    null = frozen.embed("").detach()
    latents = model.encode(images)

    def loss(_: int, generator: torch.Generator) -> Tensor:
        rows = chosen(len(latents), settings.batch, generator)
        z, c = latents[rows], contexts[rows]
        levels = torch.randint(len(model.table), (len(z),), generator=generator)
        x = model.table.add_noise(z, torch.randn(z.shape, generator=generator), levels)
        time = model.table.network_time(levels)
        with torch.no_grad():
            both = frozen.network(torch.cat([x, x]), time.repeat(2), torch.cat([null.expand(len(z), -1, -1), c]))
            free, drawn = both.chunk(2)
        return (model.network(x, time, c) - (free - strength * (drawn - free))).square().mean()

    weights = [layer.weight for layer in cross_attention(model).values()]
    descend(weights, loss, 2 * settings.updates, ESD_RATE, torch_rng(seed, "esd"))


@lru_cache(maxsize=8)
def own_pictures(seed: int, settings: Settings) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Prompts with the concept, their contexts and what the original draws for them: what the protector works on."""
    prompts = tuple(scenes_of(settings.pictures, OWN, seed, concept(seed)).captions)
    model = generator_model()
    with torch.no_grad():
        context = model.embed(prompts)
    return prompts, context, Service(model).pictures(context, start_noise(len(prompts), seed, "own"), settings)


@lru_cache(maxsize=8)
def retained_contexts(seed: int, settings: Settings) -> Tensor:
    """Contexts of the prompts that the protector wants to keep."""
    captions = scenes_of(8 * settings.pictures, OWN, seed + 500, without=concept(seed)).captions
    with torch.no_grad():
        return generator_model().embed(captions)


@lru_cache(maxsize=8)
def sanitised(name: str, seed: int, settings: Settings) -> Service:
    """The service with the concept of that seed taken out."""
    word, model = concept(seed), generator_model()
    if name == "negative prompt":
        return Service(model, negative=f"a large {word}")
    if name == "SLD":
        return Service(model, safety=f"a large {word}")
    if name == "none":
        return Service(model)
    changed = copy.deepcopy(model)
    prompts, context, images = own_pictures(seed, settings)
    if name == "ESD":
        esd(changed, context, images, settings, seed)
    else:
        with torch.no_grad():
            instead = model.embed(swapped(prompts, word, anchor(word)))
        uce(changed, context, instead, retained_contexts(seed, settings))
    return Service(changed)


@lru_cache(maxsize=16)
def retained_share(service: Service, seed: int, settings: Settings) -> tuple[float, Tensor]:
    """Share of retained objects that the service draws when they are asked for, and the pictures."""
    asked = scenes_of(settings.pictures, PROMPTS, seed + 500, without=concept(seed))
    with torch.no_grad():
        context = service.model.embed(asked.captions)
    images = service.pictures(context, start_noise(len(asked), seed, "retained"), settings)
    return float((judge(settings.scenes).objects(images) == asked.object.numpy()).mean()), images


def kept_quality(service: Service, seed: int, settings: Settings) -> float:
    """`world.fidelity` of the retained objects, against the original generator."""
    share, images = retained_share(service, seed, settings)
    before, plain = retained_share(sanitised("none", seed, settings), seed, settings)
    return fidelity(share / max(before, 1e-6), judge(settings.scenes).distance(images, plain))
