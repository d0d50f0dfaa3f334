"""InfEdit: edit a real picture by a pair of prompts, without inverting it.

With all noise renewed at every step (sigma_t = sqrt(1 - abar)), sampling has the form of multistep consistency
sampling, and for a known clean picture z0 the noise that leads back to z0 is known exactly: a virtual inversion.
Source, target and layout branches run side by side on shared noise, and only the difference of their noise estimates
moves the target away from z0. Attention control keeps the layout of the source, lets the target change it when asked
to, and confines the edit to the words that differ.

Source: Inversion-Free Image Editing with Natural Language, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import torch
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.diffusion.editing import start_at
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import grid, to_eps
from vestige.nn.attention_tap import tapped
from vestige.nn.text import token_ids

#: Cross maps of at most so many places say where words act.
_MOST_PLACES = 256


@dataclass
class InfEdit:
    """Edits with a text-to-image model; any eps, x0 or v model will do.

    source_guidance, target_guidance: w_s (1, or a picture edited with its own prompt changes) and w_t. strength: share
    of the schedule that is run. cross_share, self_share: shares of the run in which the target takes the source's cross
    maps for common words, and its queries and keys; 0 and 0 with ``blend`` off is the bare method (DDCM).
    edit_threshold, keep_threshold: of the word maps that confine the edit; these are summed over the layers of up to
    16×16 places and over the steps so far, the largest of the words at each place is divided by its maximum.

    Step: e_s, e_t noise estimates of the branches; z0_t = z0 + [(z_t - z_s) - sigma (e_t - e_s)]/alpha; then every
    branch z' = alpha' z0_branch + sigma' n with one shared n.
    """

    model: TextToImage
    steps: int = 15
    source_guidance: float = 1.0
    target_guidance: float = 2.0
    strength: float = 1.0
    cross_share: float = 0.7
    self_share: float = 0.3
    blend: bool = True
    edit_threshold: float = 0.55
    keep_threshold: float = 0.6

    @torch.no_grad()
    def edit(
        self,
        images: torch.Tensor,
        source: str | Sequence[str],
        target: str | Sequence[str],
        *,
        keep: Sequence[str] = (),
        seed: int = 0,
    ) -> torch.Tensor:
        """Images N×3×H×W in [0, 1] under ``source`` prompts -> the same pictures under ``target`` prompts.

        keep: words of the source whose place in the picture is not to change. Costs ``steps`` calls of the network.
        Raises UsageError when prompts and images do not pair up.
        """
        n = len(images)
        sources, targets = (([p] * n if isinstance(p, str) else list(p)) for p in (source, target))
        if not n or len(sources) != n or len(targets) != n:
            raise UsageError(f"There are {n} pictures, {len(sources)} source and {len(targets)} target prompts.")
        model, table = self.model, self.model.table
        z0 = model.encode(images)
        generator = torch.Generator().manual_seed(seed)

        def noise() -> torch.Tensor:
            return torch.randn(z0.shape, generator=generator).to(z0)

        ids = [token_ids(model.tokenizer, prompts).to(z0.device) for prompts in (sources, targets)]
        height, width = (int(side) for side in z0.shape[-2:])
        control = _Control(ids[0], ids[1], model.tokenizer, [word.lower() for word in keep], (height, width))
        c_source, c_target = (model.context(part) for part in ids)
        null = model.embed([""] * n)
        contexts = [c_source, c_target, c_source]
        weights = [self.source_guidance, self.target_guidance, self.source_guidance]
        levels = start_at(grid(table, self.steps), self.strength)
        pairs = [(float(table.alpha[i]), float(table.sigma[i])) for i in levels] + [(1.0, 0.0)]
        n0 = noise()
        branches = [pairs[0][0] * z0 + pairs[0][1] * n0 if self.strength < 1 else n0.clone() for _ in range(3)]
        estimates = [z0, z0, z0]
        for i, level in enumerate(levels):
            control.begin(i / len(levels) < self.cross_share, i / len(levels) < self.self_share, self.blend)
            with tapped(model.unet, control):
                e = self._noise_estimates(branches, contexts, weights, null, level)
            alpha, sigma = pairs[i]
            estimates = [z0] + [
                z0 + ((z - branches[0]) - sigma * (b - e[0])) / alpha for z, b in zip(branches[1:], e[1:])
            ]
            if self.blend and i > 0:
                least = max(self.edit_threshold, 0.15 / alpha)
                edited, kept = control.masks(min(least, 0.95), self.keep_threshold)
                estimates[1] = torch.where(edited, estimates[1], estimates[2])
                estimates[1] = torch.where(kept, z0, estimates[1])
            shared = noise()
            branches = [pairs[i + 1][0] * z + pairs[i + 1][1] * shared for z in estimates]
        return model.decode(estimates[1])

    def _noise_estimates(
        self,
        branches: list[torch.Tensor],
        contexts: list[torch.Tensor],
        weights: list[float],
        null: torch.Tensor,
        level: int,
    ) -> list[torch.Tensor]:
        """Guided e of the three branches from one call; unconditional rows follow those under attention control."""
        guided = [i for i, w in enumerate(weights) if w != 1.0]
        x = torch.cat([*branches, *(branches[i] for i in guided)])
        context = torch.cat([*contexts, *(null for _ in guided)])
        time = self.model.table.network_time(level).to(x.device).expand(len(x))
        output = self.model.network(x, time, context)
        alpha, sigma = (getattr(self.model.table, name)[level].to(x) for name in ("alpha", "sigma"))
        e = list(to_eps(output, x, alpha, sigma, self.model.prediction).chunk(3 + len(guided)))
        for row, i in enumerate(guided):
            e[i] = e[3 + row] + weights[i] * (e[i] - e[3 + row])
        return e[:3]


@dataclass
class _Control:
    """Attention control over rows [source, target, layout, others], N each; an `AttentionHook`.

    size: of the latents. total: cross maps 3N×words×h×w, summed over layers, heads and steps.
    """

    source: torch.Tensor
    target: torch.Tensor
    tokenizer: Any
    keep: list[str]
    size: tuple[int, int]
    cross_on: bool = False
    self_on: bool = False
    collect: bool = False
    total: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        pairs = [align(a.tolist(), b.tolist()) for a, b in zip(self.source, self.target)]
        #: For every target place the source place of the same word, -1 for new words.
        self.twin = torch.tensor([twin for twin in pairs], device=self.target.device)
        special = {self.tokenizer.pad_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        plain = torch.tensor([[t not in special for t in row] for row in self.target.tolist()], device=self.twin.device)
        self.new_words = (self.twin < 0) & plain
        gone = torch.ones_like(self.source, dtype=torch.bool).scatter(1, self.twin.clamp(min=0), False)
        gone[:, 0] = False
        plain = torch.tensor([[t not in special for t in row] for row in self.source.tolist()], device=self.twin.device)
        self.old_words = gone & plain
        kept = {self.tokenizer.convert_tokens_to_ids(word) for word in self.keep}
        self.kept_words = torch.tensor(
            [[t in kept for t in row] for row in self.source.tolist()], device=self.twin.device
        )

    def begin(self, cross_on: bool, self_on: bool, collect: bool) -> None:
        """Set what the next call of the network does."""
        self.cross_on, self.self_on, self.collect = cross_on, self_on, collect

    def qkv(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cross: bool, name: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n = len(self.source)
        if cross:
            return q, k, v
        if self.self_on:
            # Rigid layout: target and layout ask and answer where the source does, with their own content.
            q, k = (torch.cat([x[:n], x[:n], x[:n], x[3 * n :]]) for x in (q, k))
        else:
            # Non-rigid: the layout branch draws the content of the source where the target asks for it.
            q = torch.cat([q[: 2 * n], q[n : 2 * n], q[3 * n :]])
            k, v = (torch.cat([x[: 2 * n], x[:n], x[3 * n :]]) for x in (k, v))
        return q, k, v

    def wants_maps(self, cross: bool, queries: int) -> bool:
        return cross and (self.cross_on or (self.collect and queries <= _MOST_PLACES))

    def maps(self, maps: torch.Tensor, cross: bool, name: str) -> torch.Tensor:
        n = len(self.source)
        if self.cross_on:
            twins = self.twin.clamp(min=0)[:, None, None, :].expand_as(maps[n : 2 * n])
            common = (self.twin >= 0)[:, None, None, :]
            taken = torch.where(common, maps[:n].gather(-1, twins), maps[n : 2 * n])
            maps = torch.cat([maps[:n], taken, maps[2 * n :]])
        if self.collect and maps.shape[2] <= _MOST_PLACES:
            self._add(maps[: 3 * n])
        return maps

    def _add(self, maps: torch.Tensor) -> None:
        """Maps 3N×heads×places×words, of latents halved some times, to the sum at the size of the latents."""
        height, width = self.size
        while height * width > maps.shape[2]:
            height, width = -(-height // 2), -(-width // 2)
        if height * width != maps.shape[2]:
            return
        flat = maps.mean(1).transpose(1, 2).unflatten(2, (height, width))
        grown = F.interpolate(flat, size=self.size, mode="bilinear")
        self.total = grown if self.total is None else self.total + grown

    def masks(self, edit_threshold: float, keep_threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """bool N×1×h×w: where edited words act (all, when no word differs), and where kept words are.

        Edited are words of the source that go, where the layout branch looks at them, and words of the target that
        come, where the target does: prompts that only add words have none of the former.
        """
        n = len(self.source)
        if self.total is None:
            everywhere = torch.ones((n, 1, *self.size), dtype=torch.bool, device=self.source.device)
            return everywhere, ~everywhere
        source, target, layout = self.total.chunk(3)
        edited = _above(target, self.new_words, edit_threshold) | _above(layout, self.old_words, edit_threshold)
        nothing = ~(self.new_words.any(1) | self.old_words.any(1))
        edited = edited | nothing[:, None, None, None]
        return edited, _above(source, self.kept_words, keep_threshold) & ~edited


def _above(maps: torch.Tensor, words: torch.Tensor, threshold: float) -> torch.Tensor:
    """bool N×1×h×w: places where the largest map of the chosen words reaches ``threshold`` of its maximum."""
    chosen = torch.where(words[:, :, None, None], maps, 0.0).amax(1, keepdim=True)
    scaled = chosen / chosen.amax((2, 3), keepdim=True).clamp(min=1e-8)
    return (scaled > threshold) & words.any(1)[:, None, None, None]


def align(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """For every place of ``target`` the place of the same word in ``source`` under the longest matching blocks, or -1.

    >>> align([1, 5, 6, 2], [1, 5, 9, 2])
    [0, 1, -1, 3]
    """
    twins = [-1] * len(target)
    for block in SequenceMatcher(None, list(source), list(target), autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            twins[block.b + offset] = block.a + offset
    return twins
