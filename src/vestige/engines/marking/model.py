"""What a learned mark is made of: an embedder, a reader, and what its training minimises; its weights as one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vestige.core.errors import InputError
from vestige.engines.run_state import load_trained, write_model

#: How far a stage of the training is open, 0 (closed) to 1, by its name.
Level = Callable[[str], float]


class BitReading(NamedTuple):
    """soft: N×L, above 0 for a one, its size being the confidence. presence: N×1×H×W in [0, 1], None without a map."""

    soft: Tensor
    presence: Tensor | None = None

    @property
    def bits(self) -> Tensor:
        """bool N×L."""
        return self.soft > 0


@dataclass
class Trial:
    """One training batch on its way through embedder, distortion and reader, at the mark's own size.

    images: N×3×S×S in [0, 1]. bits: float N×L. masks: bool N×1×S×S, where the mark was left in. embedded: marked
    everywhere. attacked, moved: after the distortion, and where the mark is then. reading: what was read. adversarial:
    the critic's term for the embedder, 0 without one.
    """

    images: Tensor
    bits: Tensor
    masks: Tensor
    embedded: Tensor
    attacked: Tensor
    moved: Tensor
    reading: BitReading
    adversarial: Tensor

    @property
    def legible(self) -> Tensor:
        """bool N: pictures of which the distortion left more than 0.2 % of the area marked."""
        return self.moved.float().mean((1, 2, 3)) > 0.002

    def accuracy(self) -> Tensor:
        """Share of bits read right, over the legible pictures (all of them when none is)."""
        right = (self.reading.bits == (self.bits > 0.5)).float().mean(1)
        chosen = self.legible if bool(self.legible.any()) else torch.ones_like(self.legible)
        return right[chosen].mean().detach()

    def bit_loss(self, loss: Callable[..., Tensor], values: Tensor) -> Tensor:
        """Mean of an element-wise loss between ``values`` (N×L) and the bits, over the legible pictures."""
        each = loss(values.float(), self.bits, reduction="none").mean(1)
        weight = self.legible.to(each)
        return (each * weight).sum() / weight.sum().clamp_min(1)


class EmbedderReader(nn.Module):
    """Base of the learned marks. ``bits`` is the capacity L, ``size`` the side S they work at.

    embed: images N×3×S×S in [0, 1], bits float N×L, masks bool N×1×S×S for embedders that look at them -> marked
    images, everywhere, before the masks are applied. read: images N×3×S×S, and in training the true masks ->
    `BitReading`. objective: a `Trial` and the levels of the stages -> {"loss": scalar, other scalars}.
    ``settings`` are the keyword arguments the network was built with, so that a weights file can rebuild it.
    """

    bits: int
    size: int
    settings: dict[str, Any]
    #: The reader finds the marked region by itself.
    localises = False

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        raise NotImplementedError

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        raise NotImplementedError

    def prepare(self, level: Level) -> None:
        """Called before every training step, for embedders whose form changes with a stage."""


def straight_clamp(images: Tensor) -> Tensor:
    """Clip to [0, 1] with the gradient of the identity, so that saturated pictures still teach the embedder."""
    return images + (images.detach().clamp(0, 1) - images.detach())


def save_marker(path: Path, model: EmbedderReader, slug: str, facts: Mapping[str, Any]) -> None:
    """Write weights, settings and facts about the training (JSON-like) as one safetensors file, atomically."""
    write_model(path, model, {"marker": slug, "settings": model.settings, "facts": dict(facts)})


def load_marker(
    path: str | Path, slug: str, build: Callable[..., EmbedderReader]
) -> tuple[EmbedderReader, dict[str, Any]]:
    """(network in evaluation mode, facts) of a file written by `save_marker`; ``build`` takes the settings.

    Raises InputError when the file is missing, damaged, or holds another mark.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        found, settings = json.loads(metadata["marker"]), json.loads(metadata["settings"])
        facts = json.loads(metadata.get("facts", "{}"))
        if not isinstance(settings, dict) or not isinstance(facts, dict):
            raise ValueError("settings")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; train it with: vestige learn {slug}") from None
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InputError(
            f"{path} holds no weights of a learned mark; give one that a watermark recipe wrote."
        ) from None
    if found != slug:
        raise InputError(f"{path} holds the mark {str(found)[:40]!r}, not {slug!r}.")
    try:
        model = build(**settings)
    except TypeError:
        raise InputError(f"{path} was written by another version of {slug}; train it again.") from None
    load_trained(path, model)
    return model, facts
