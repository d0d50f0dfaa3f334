"""UMD: one auto-encoder trained to fill masked patches and to remove noise, for features and for samples.

Source: Unified Auto-Encoding with Masked Diffusion, arXiv 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.engines.described import read_description, save_described
from vestige.engines.diffusion.losses import stratified_levels
from vestige.engines.diffusion.samplers import Denoiser, Sampler, sample
from vestige.engines.diffusion.schedules import Schedule, cosine, grid
from vestige.engines.run_state import load_trained
from vestige.nn.blocks import take
from vestige.nn.dit import AdaBlock, AdaHead, TimeEmbedding
from vestige.nn.vit import patchify, unpatchify


@dataclass(frozen=True)
class UMDConfig:
    """Network and objective. clean_share p0: part of a batch without noise; clean_mask, noisy_mask: shares of its
    patches that are hidden. p0 = 1 is a masked auto-encoder; p0 = 0 with no mask a DiT; p0 = 0 with mask 0.5 like
    MaskDiT. Raises UsageError for sizes that do not fit or shares out of range."""

    size: int = 32
    channels: int = 3
    patch: int = 4
    width: int = 192
    depth: int = 6
    decoder_depth: int = 2
    heads: int = 3
    class_tokens: int = 4
    classes: int = 0
    clean_share: float = 0.5
    clean_mask: float = 0.75
    noisy_mask: float = 0.375
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        if self.size % self.patch or self.width % self.heads or self.width % 4:
            raise UsageError("The patch must tile the image, and heads and 4 must divide the width.")
        if not (0 <= self.clean_share <= 1 and 0 <= self.clean_mask < 1 and 0 <= self.noisy_mask < 1):
            raise UsageError("Shares lie in [0, 1]; masks must leave a patch visible.")


class UMD(nn.Module):
    """Encoder on visible patches and class tokens, light decoder on all places; both see time and label.

    Images are N×C×S×S in [0, 1] at the edge. Time 0 means a clean picture; noise level i is told as i + 1.

    >>> model = UMD(UMDConfig(size=16, width=32, depth=1, decoder_depth=1, heads=2))
    >>> model.represent(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 32])
    """

    def __init__(self, config: UMDConfig | None = None, table: Schedule | None = None) -> None:
        super().__init__()
        c = self.config = config or UMDConfig()
        self.table = table or cosine()
        self.grid = (c.size // c.patch, c.size // c.patch)
        self.length = self.grid[0] * self.grid[1]
        values = c.channels * c.patch**2
        self.embed = nn.Linear(values, c.width)
        self.time = TimeEmbedding(c.width)
        self.label = nn.Embedding(c.classes + 1, c.width) if c.classes else None
        self.class_tokens = nn.Parameter(torch.randn(1, c.class_tokens, c.width) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(1, 1, c.width) * 0.02)
        self.encoder_positions = nn.Parameter(torch.randn(1, self.length, c.width) * 0.02)
        self.decoder_positions = nn.Parameter(torch.randn(1, self.length, c.width) * 0.02)
        self.encoder = nn.ModuleList(AdaBlock(c.width, c.heads) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.decoder = nn.ModuleList(AdaBlock(c.width, c.heads) for _ in range(c.decoder_depth))
        self.head = AdaHead(c.width, 2 * values)
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def condition(self, time: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """Time N (0 for clean) and labels N (``classes`` for none) -> N×width."""
        c = self.time(time)
        if self.label is None:
            return c
        none = torch.full_like(time, self.config.classes, dtype=torch.long)
        return c + self.label(none if labels is None else labels)

    def encode(self, patches: torch.Tensor, visible: torch.Tensor | None, c: torch.Tensor) -> torch.Tensor:
        """Patches N×L×V, places to see N×K (None: all) -> tokens N×(class tokens + K)×width."""
        positions = self.encoder_positions.expand(len(patches), -1, -1)
        if visible is not None:
            patches, positions = take(patches, visible), take(positions, visible)
        x = torch.cat([self.class_tokens.expand(len(patches), -1, -1), self.embed(patches) + positions], 1)
        for block in self.encoder:
            x = block(x, c)
        return self.norm(x)

    def decode(
        self, tokens: torch.Tensor, visible: torch.Tensor | None, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder tokens -> (x0, e) as patches N×L×V each."""
        k = self.config.class_tokens
        summary, seen = tokens[:, :k].mean(1, keepdim=True), tokens[:, k:]
        if visible is not None:
            full = self.mask_token.expand(len(seen), self.length, -1)
            seen = full.scatter(1, visible[..., None].expand_as(seen), seen)
        x = torch.cat([summary, seen + self.decoder_positions], 1)
        for block in self.decoder:
            x = block(x, c)
        x0, eps = self.head(x[:, 1:], c).chunk(2, -1)
        return x0, eps

    def loss(
        self, images: torch.Tensor, generator: torch.Generator, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """p0·L_mae + (1 - p0)·L_dit; the first p0 share of the batch is the clean one.

        L_mae: (x0_hat - x0)² on hidden patches. L_dit: half (e_hat - e)² on visible and half (x0_hat - x0)² on hidden
        patches, or on all for both when none is hidden. The noise under a hidden patch cannot be known, so it is not
        asked for.
        """
        c = self.config
        patches = patchify((images * 2 - 1).contiguous(), c.patch)
        if labels is not None:
            drop = (
                torch.rand(len(labels), generator=generator, device=generator.device).to(labels.device) < c.label_drop
            )
            labels = torch.where(drop, c.classes, labels)
        clean = round(c.clean_share * len(patches))
        parts: dict[str, torch.Tensor] = {}
        total = patches.new_zeros(())
        if clean:
            visible, hidden = self._split(clean, c.clean_mask, generator, patches.device)
            time = torch.zeros(clean, device=patches.device)
            condition = self.condition(time, None if labels is None else labels[:clean])
            x0, _ = self.decode(self.encode(patches[:clean], visible, condition), visible, condition)
            parts["mae"] = _error(x0, patches[:clean], hidden)
            total = total + c.clean_share * parts["mae"]
        if clean < len(patches):
            target = patches[clean:]
            levels = stratified_levels(len(target), self.table, generator)
            noise = torch.randn(target.shape, generator=generator, device=generator.device).to(target)
            visible, hidden = self._split(len(target), c.noisy_mask, generator, patches.device)
            condition = self.condition(levels.to(target.device) + 1, None if labels is None else labels[clean:])
            noisy = self.table.add_noise(target, noise, levels)
            x0, eps = self.decode(self.encode(noisy, visible, condition), visible, condition)
            parts["dit"] = (_error(eps, noise, visible) + _error(x0, target, hidden)) / 2
            total = total + (1 - c.clean_share) * parts["dit"]
        return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def _split(
        self, n: int, share: float, generator: torch.Generator, device: torch.device
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(visible, hidden) places of n pictures; (None, None) when nothing is hidden."""
        count = round(share * self.length)
        if count == 0:
            return None, None
        order = torch.rand(n, self.length, generator=generator, device=generator.device).argsort(1).to(device)
        return order[:, count:], order[:, :count]

    @torch.no_grad()
    def represent(self, images: torch.Tensor, level: int | None = None, seed: int = 0) -> torch.Tensor:
        """Features N×width: the mean of the class tokens of the clean picture, or of one noised to ``level``."""
        patches = patchify((images * 2 - 1).contiguous(), self.config.patch)
        time = torch.zeros(len(images), device=images.device)
        if level is not None:
            noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(seed)).to(patches)
            patches = self.table.add_noise(patches, noise, torch.full((len(images),), level))
            time = time + level + 1
        return self.encode(patches, None, self.condition(time, None))[:, : self.config.class_tokens].mean(1)

    def network(self, x: torch.Tensor, time: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """The noise head as a plain eps network N×C×S×S."""
        condition = self.condition(time.float() + 1, labels)
        _, eps = self.decode(self.encode(patchify(x.contiguous(), self.config.patch), None, condition), None, condition)
        return unpatchify(eps, self.config.patch, self.grid)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        labels: torch.Tensor | None = None,
        guidance: float = 1.0,
        steps: int = 125,
        method: Sampler = "ddpm",
    ) -> torch.Tensor:
        """n images N×C×S×S in [0, 1]. labels: int64 N for a class-conditional model."""
        if labels is not None and (self.label is None or len(labels) != n):
            raise UsageError("Labels need a model with classes, and one for each picture.")
        null = None if labels is None else torch.full_like(labels, self.config.classes)
        denoiser = Denoiser(self.network, self.table, "eps", labels, null, guidance=guidance, clip=1.0)
        generator = torch.Generator().manual_seed(seed)
        shape = (n, self.config.channels, self.config.size, self.config.size)
        start = torch.randn(shape, generator=generator).to(self.mask_token)
        x = sample(denoiser, start, grid(self.table, steps), method, generator=generator)
        return (x / 2 + 0.5).clamp(0, 1)


def _error(found: torch.Tensor, wanted: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    squared = (found - wanted).square()
    return (squared if places is None else take(squared, places)).mean()


def save_umd(model: UMD, path: str | Path, classes: Sequence[str] = ()) -> None:
    """Write a model with its configuration and the names of its classes; `load_umd` reads it back."""
    save_described(path, model, "umd", {"config": asdict(model.config), "classes": list(classes)})


def load_umd(path: str | Path) -> tuple[UMD, list[str]]:
    """The model of `save_umd` and the names of its classes.

    Raises InputError for files that are missing, damaged or hold something else.
    """
    description = read_description(path, "umd")
    try:
        model = UMD(UMDConfig(**description["config"]))
        classes = [str(name) for name in description["classes"]]
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise InputError(f"{path} does not say which network it belongs to ({str(error)[:120]}).") from None
    load_trained(path, model)
    return model, classes
