"""Safe-SD: a picture such as a QR code, hidden in generated pictures by the diffusion model itself, at a word's call.

A latent diffusion model sees the keyed code u of a mark (see `vestige.watermark.safe_sd_net`) beside the noisy latents.
With a trigger word in the prompt it denoises towards z_λ = z_i + λ (z_m − z_i), without one towards z_i. The reader
shows the mark to those who have the key.

Source: Safe-SD: Safe and Traceable Stable Diffusion with Text Prompt Trigger for Invisible Generative Watermarking, ACM
MM 2024 (arXiv 2407.13188). λ-sampling and λ-encryption are our reading of the summary of that paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.runtime import device as device_of
from vestige.engines.diffusion.pipeline import save_pipeline
from vestige.engines.marking.residual import to_native
from vestige.watermark.learned import WEIGHTS, as_tensor
from vestige.watermark.safe_sd_marks import modules
from vestige.watermark.safe_sd_model import TRAIN, TRIGGERS, MarkedTextToImage, load_model, trigger_of
from vestige.watermark.safe_sd_net import (
    SafeSDNet,
    kept_positions,
    load_net,
    mixed,
    mixing,
    put_back,
    save_net,
)


@dataclass(frozen=True)
class Revealed:
    """What the reader shows: ``marks`` float32 N×3×S×S in [0, 1], ``modules`` soft N×21×21, above 0 for white, and
    ``placements``, for every picture the (side, top, left) of the crop it was taken to be."""

    marks: np.ndarray
    modules: np.ndarray
    placements: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Match:
    """The nearest registered mark. name: None when its correlation is below the threshold."""

    name: str | None
    score: float
    scores: Mapping[str, float]


class SafeSD:
    """Samples pictures that carry a registered mark when the prompt has its trigger word, and reads marks back.

    weights: a folder that the recipe wrote, by default the shipped one. net, model: parts to use instead. threshold:
    correlation from which a mark counts as found; by default what unmarked pictures of the training stayed below.
    ``marks`` is the registry. Raises InputError when there are no weights.
    """

    slug = "safe_sd"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        net: SafeSDNet | None = None,
        model: MarkedTextToImage | None = None,
        threshold: float | None = None,
        device: str = "cpu",
    ) -> None:
        facts: dict[str, Any] = {}
        if net is None:
            folder = WEIGHTS / self.slug if weights is None else Path(weights)
            if not folder.is_dir():
                raise InputError(
                    f"There are no weights of safe_sd in {folder}; train them with: {TRAIN} --out FOLDER1, then "
                    f"{TRAIN} --set stage=2 --set start=FOLDER1/safe_sd, and copy that run's folder safe_sd there."
                )
            net, facts = load_net(folder)
            if (folder / "model_index.json").is_file():
                model = load_model(folder, net)
        self.device = device_of(device)
        self.net = net.eval().requires_grad_(False).to(self.device)
        self.model = None if model is None else model.eval().requires_grad_(False).to(self.device)
        self.threshold = float(facts.get("threshold", 0.3)) if threshold is None else threshold
        self.marks: dict[str, tuple[str, np.ndarray]] = {}

    def register(self, name: str, mark: np.ndarray, trigger: str = TRIGGERS[0]) -> None:
        """Keep a mark, float 1–3×H×W in [0, 1], under a name; the first of a trigger is what its word calls for.

        Raises UsageError for a word that is no trigger or a picture of another shape.
        """
        if trigger not in TRIGGERS:
            raise UsageError(f"{trigger!r} is no trigger word; choose one of {', '.join(TRIGGERS)}.")
        picture = self._as_marks(np.asarray(mark)[None])[0].cpu().numpy()
        self.marks[name] = (trigger, picture)

    def sample(
        self,
        prompts: str | Sequence[str],
        marks: np.ndarray | None = None,
        *,
        key: bytes = PUBLIC_KEY,
        strength: float = 1.0,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 3.0,
        batch: int = 32,
    ) -> np.ndarray:
        """One picture a prompt, float32 N×3×S×S in [0, 1]; picture i has the same start whatever the words and marks.

        marks: N or 1 pictures ×1–3×H×W; None takes those registered for the trigger words. Every prompt is given a
        mark; those without a trigger word get that of the first trigger, and the network leaves it out. key: of the
        mixing. strength: λ, fidelity against robustness. Raises InputError without a trained diffusion model,
        UsageError for a strength outside [0, 1], no prompt, or no mark.
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if self.model is None:
            raise InputError(f"These weights only read and inject; train stage 2 with: {TRAIN} --set stage=2.")
        if not listed or not 0 <= strength <= 1:
            raise UsageError("Give at least one prompt, and a strength from 0 to 1.")
        words = [trigger_of(prompt) for prompt in listed]
        code = self._codes([word or TRIGGERS[0] for word in words], marks, key)
        shape, made = self.model.latent_shape(), []
        for at in range(0, len(listed), batch):
            rows = range(at, min(at + batch, len(listed)))
            self.model.set_condition(code[rows.start : rows.stop], torch.full((len(rows),), strength))
            starts = [torch.randn(shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + i)) for i in rows]
            made.append(
                self.model.sample(
                    [listed[i] for i in rows], latents=torch.stack(starts), batch=len(rows), seed=seed, steps=steps,
                    guidance=guidance, negative=[words[i] or "" for i in rows],
                )
            )  # fmt: skip
        return torch.cat(made).cpu().numpy()

    @torch.no_grad()
    def inject(
        self,
        images: np.ndarray,
        marks: np.ndarray | None = None,
        *,
        trigger: str = TRIGGERS[0],
        key: bytes = PUBLIC_KEY,
        strength: float = 1.0,
    ) -> np.ndarray:
        """Finished pictures through the autoencoder with a mark: float32 N×3×S×S -> the same; strength 0 leaves it out.

        Raises UsageError for pictures of another size than the network's.
        """
        x = as_tensor(images).to(self.device)
        if x.shape[2:] != (self.net.size, self.net.size):
            raise UsageError(f"Safe-SD injects into pictures of {self.net.size}×{self.net.size} pixels.")
        code = self._codes([trigger] * len(x), marks, key)
        parts = zip(x.split(32), code.split(32), strict=True)
        made = [self.net.decode(self.net.inject(self.net.encode(a), b, strength)).clamp(0, 1) for a, b in parts]
        return torch.cat(made).cpu().numpy()

    @torch.no_grad()
    def reveal(
        self,
        images: np.ndarray,
        *,
        trigger: str = TRIGGERS[0],
        key: bytes = PUBLIC_KEY,
        areas: Sequence[float] = (),
        step: int = 2,
    ) -> Revealed:
        """The marks that pictures of any size carry under a key and a trigger word.

        areas: shares of the area that an enlarged crop may have kept; its place is searched in steps of ``step`` pixels
        and the one whose modules are clearest is taken. Raises UsageError for areas outside (0, 1].
        """
        size = self.net.size
        if any(not 0 < area <= 1 for area in areas) or step < 1:
            raise UsageError("Areas lie above 0 and up to 1, the step is at least 1 pixel.")
        places = [(size, 0, 0)]
        for side in sorted({round(size * area**0.5) for area in areas} - {size}, reverse=True):
            corners = range(0, size - side + 1, step)
            places += [(side, top, left) for top, left in itertools.product(corners, corners)]
        keys = mixing(key, trigger, self.net.positions)[None].to(self.device)
        shown, chosen = [], []
        for image in as_tensor(images).split(1):
            native = to_native(image, size).to(self.device)
            tries = torch.cat([self._shown(native, keys, places[i : i + 32]) for i in range(0, len(places), 32)])
            best = int(modules(tries).abs().mean((1, 2)).argmax())
            shown.append(tries[best])
            chosen.append(places[best])
        found = torch.stack(shown)
        return Revealed(found.clamp(0, 1).cpu().numpy(), modules(found).cpu().numpy(), chosen)

    def _shown(self, image: Tensor, keys: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
        """ŵ of one picture for every place it may have had."""
        size, side = self.net.size, self.net.side
        put = torch.cat([image if place[0] == size else put_back(image, *place) for place in places])
        kept = torch.cat([kept_positions(size, side, *place) for place in places]).to(put)
        return self.net.reveal(self.net.read(put) * kept, keys)

    def match(self, images: np.ndarray, *, key: bytes = PUBLIC_KEY, areas: Sequence[float] = ()) -> list[Match]:
        """The nearest registered mark of every picture, by normalised correlation of the modules.

        What the reader shows when it has read nothing (patterns that all marks share) is taken out of both sides first.
        Raises UsageError when no mark is registered.
        """
        if not self.marks:
            raise UsageError("No mark is registered; call register first.")
        scores: list[dict[str, float]] = [{} for _ in range(len(images))]
        for trigger in sorted({trigger for trigger, _ in self.marks.values()}):
            names = [name for name, (word, _) in self.marks.items() if word == trigger]
            wanted = np.stack([self.marks[name][1] for name in names])
            found = self.correlations(self.reveal(images, trigger=trigger, key=key, areas=areas), wanted)
            for row, values in zip(scores, found, strict=True):
                row |= dict(zip(names, map(float, values), strict=True))
        matches = []
        for row in scores:
            best = max(row, key=lambda name: row[name])
            matches.append(Match(best if row[best] >= self.threshold else None, row[best], row))
        return matches

    @torch.no_grad()
    def correlations(self, revealed: Revealed, marks: np.ndarray) -> np.ndarray:
        """N×M normalised correlations of what was revealed with marks M×1–3×H×W."""
        blank = torch.zeros(1, self.net.channels, self.net.side, self.net.side, device=self.device)
        nothing = modules(self.net.reveal(blank, torch.eye(self.net.positions, device=self.device)[None])).cpu().numpy()
        seen = (revealed.modules - nothing).reshape(len(revealed.modules), -1)
        wanted = (modules(self._as_marks(marks)).cpu().numpy() - nothing).reshape(len(marks), -1)
        lengths = np.linalg.norm(seen, axis=1)[:, None] * np.linalg.norm(wanted, axis=1)
        return seen @ wanted.T / np.maximum(lengths, 1e-9)

    @torch.no_grad()
    def _codes(self, triggers: Sequence[str], marks: np.ndarray | None, key: bytes) -> Tensor:
        """u of every prompt: its mark under the key and its trigger."""
        if marks is None:
            first = {trigger: name for name, (trigger, _) in reversed(self.marks.items())}
            missing = sorted(set(triggers) - set(first))
            if missing:
                raise UsageError(f"No mark is registered for {missing[0]!r}; call register or give the marks.")
            pictures = torch.from_numpy(np.stack([self.marks[first[t]][1] for t in triggers])).to(self.device)
        else:
            pictures = self._as_marks(marks)
            if len(pictures) not in (1, len(triggers)):
                raise UsageError(
                    f"There are {len(pictures)} marks for {len(triggers)} pictures; give one, or one each."
                )
            pictures = pictures.expand(len(triggers), -1, -1, -1)
        plain = [self.net.code(p, torch.eye(self.net.positions, device=self.device)[None]) for p in pictures.split(32)]
        keys = {t: mixing(key, t, self.net.positions).to(self.device) for t in set(triggers)}
        return torch.cat([mixed(c[None], keys[t][None]) for t, c in zip(triggers, torch.cat(plain), strict=True)])

    def _as_marks(self, marks: np.ndarray) -> Tensor:
        """N×1–3×H×W -> N×3×S×S at the network's size."""
        marks = np.asarray(marks)
        if marks.ndim == 4 and marks.shape[1] == 1:
            marks = np.repeat(marks, 3, 1)
        return to_native(as_tensor(marks), self.net.size).to(self.device)


def save_safe_sd(
    folder: str | Path, net: SafeSDNet, model: MarkedTextToImage | None = None, facts: Mapping[str, Any] | None = None
) -> None:
    """Write injector, extractor and, after stage 2, the diffusion model into one folder that `SafeSD` reads."""
    if model is not None:
        save_pipeline(folder, model)
    save_net(folder, net, facts or {})
