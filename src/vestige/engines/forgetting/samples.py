"""Samples in memory: inputs with targets, flags and numbers, cut into batches with or without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError

AUGMENTATIONS = ("none", "flip", "crop_flip")


@dataclass(frozen=True)
class Batch:
    """x: float32 B×…, pictures in [0, 1]. y: targets B (int64 or float32) or None. forget: bool B. index: int64 B, the
    samples' numbers in the training set. ``len(batch)`` is B."""

    x: Tensor
    y: Tensor | None
    forget: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> Tensor:
        """The targets; raises InputError when there are none."""
        if self.y is None:
            raise InputError("These samples have no labels, and this method needs them; choose one that does not.")
        return self.y


@dataclass(frozen=True)
class Samples:
    """inputs: uint8 pictures N×C×H×W, or float32 N×… used as they are. targets: int64 N (classes), float32 N or N×T
    (regression), or None. forget: bool N, those to be forgotten. index: int64 N, numbers in the training set.

    Raises InputError for lengths that differ.

    >>> s = Samples(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5))
    >>> [len(b) for b in s.batches(2)], s.take([1, 3]).targets.tolist()
    ([2, 2, 1], [1, 3])
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor | None = field(default=None, repr=False)
    forget: Tensor | None = field(default=None, repr=False)
    index: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("targets", "forget", "index"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.inputs):
                raise InputError(f"There are {len(self.inputs)} samples but {len(values)} {name}.")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def labels(self) -> Tensor:
        """The targets; raises InputError when there are none."""
        if self.targets is None:
            raise InputError("These samples have no labels, and this needs them.")
        return self.targets

    def take(self, indices: Any) -> Samples:
        """The samples at those positions (or where a bool mask is true), in that order."""
        chosen = torch.as_tensor(np.asarray(indices) if not isinstance(indices, Tensor) else indices)
        chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()
        parts = {n: None if (v := getattr(self, n)) is None else v[chosen] for n in ("targets", "forget", "index")}
        return Samples(self.inputs[chosen], **parts)

    def with_targets(self, targets: Tensor | None) -> Samples:
        """The same samples with other targets."""
        return replace(self, targets=targets)

    def marked(self, forget: bool) -> Samples:
        """The same samples, all of them flagged as to be forgotten or not."""
        return replace(self, forget=torch.full((len(self),), forget))

    def sample(self, n: int, seed: int) -> Samples:
        """n of them at random without repetition (all of them when there are fewer)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.take(order[:n].sort().values)

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on that device."""
        moved = {n: None if (v := getattr(self, n)) is None else v.to(device) for n in ("targets", "forget", "index")}
        return Samples(self.inputs.to(device), **moved)

    def batch(self, chosen: Tensor) -> Batch:
        """The samples at those positions as one batch."""
        x = self.inputs[chosen]
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        y = None if self.targets is None else self.targets[chosen]
        forget = torch.zeros(len(chosen), dtype=torch.bool) if self.forget is None else self.forget[chosen]
        return Batch(x, y, forget.to(x.device), chosen if self.index is None else self.index[chosen])

    def batches(
        self,
        size: int = 256,
        *,
        seed: int | None = None,
        augment: str = "none",
        drop_single: bool = False,
        device: torch.device | str | None = None,
    ) -> Iterator[Batch]:
        """All samples once; shuffled when a seed is given, which also drives the augmentation ("flip" mirrors half of
        them, "crop_flip" also shifts by up to an eighth). drop_single: leave out a last batch of one sample, which
        batch normalisation cannot take. Raises UsageError for a size below 1 or an unknown augmentation."""
        if size < 1:
            raise UsageError(f"The batch size is {size}; it must be at least 1.")
        if augment not in AUGMENTATIONS:
            raise UsageError(f"augment is {augment!r}; choose one of {', '.join(AUGMENTATIONS)}.")
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        order = torch.arange(len(self)) if seed is None else torch.randperm(len(self), generator=generator)
        for chosen in order.split(size):
            if drop_single and len(chosen) == 1 and len(self) > 1:
                continue
            batch = self.batch(chosen.to(self.inputs.device))
            if device is not None:
                y = None if batch.y is None else batch.y.to(device)
                batch = Batch(batch.x.to(device), y, batch.forget.to(device), batch.index.to(device))
            if augment != "none" and batch.x.ndim == 4:
                batch = replace(batch, x=augmented(batch.x, augment, generator))
            yield batch


def augmented(x: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """Mirror half of B×C×H×W pictures; "crop_flip" also shifts each by up to an eighth of the side, edges reflected."""
    flip = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < 0.5
    x = torch.where(flip, x.flip(3), x)
    if augment == "crop_flip":
        height, width = x.shape[2:]
        pad = max(1, min(height, width) // 8)
        padded = F.pad(x, (pad,) * 4, mode="reflect")
        top = torch.randint(2 * pad + 1, (len(x),), generator=generator).to(x.device)
        left = torch.randint(2 * pad + 1, (len(x),), generator=generator).to(x.device)
        rows = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
        numbers = torch.arange(len(x), device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = padded[numbers, channels, rows, columns]
    return x


def joined(parts: Sequence[Samples]) -> Samples:
    """All samples of several sets in one, with their flags and numbers (False and -1 where a set has none).

    Targets are kept when every part has them.
    """
    if not parts:
        raise UsageError("There is nothing to join.")
    targets = [p.targets for p in parts]
    return Samples(
        torch.cat([p.inputs for p in parts]),
        None if any(t is None for t in targets) else torch.cat([t for t in targets if t is not None]),
        torch.cat([torch.zeros(len(p), dtype=torch.bool) if p.forget is None else p.forget for p in parts]),
        torch.cat([torch.full((len(p),), -1) if p.index is None else p.index for p in parts]),
    )
