"""The masked model: tokenise, choose what is seen, encode, predict, compare. Methods are configurations of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.masked.losses import weighted_mean
from vestige.engines.masked.masking import MaskPlan, MaskStrategy
from vestige.engines.masked.targets import PixelTarget
from vestige.nn.blocks import take
from vestige.nn.vit import ViT, unpatchify

WHERE = ("masked", "visible", "all")


@dataclass(frozen=True)
class View:
    """One forward pass over N images. images: N×3×H×W in [0, 1]. patches: N×L×(p²·3), normalised. plan: v·N rows,
    the views one after the other. tokens: (v·N)×(extra+K)×width, made of the seen patches. hidden: bool
    (v·N)×K, seen patches whose position was withheld."""

    images: Tensor
    patches: Tensor
    plan: MaskPlan
    tokens: Tensor
    hidden: Tensor | None = None
    _wanted: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def wanted(self, target: nn.Module) -> Tensor:
        """The target of every patch, v·N rows; worked out once for all objectives that share it."""
        if id(target) not in self._wanted:
            self._wanted[id(target)] = spread(target(self.images, self.patches), len(self.plan))
        return self._wanted[id(target)]

    def first(self, n: int) -> View:
        """The first n images, where every image has one view."""
        return View(self.images[:n], self.patches[:n], self.plan[:n], self.tokens[:n])


def spread(x: Tensor, rows: int) -> Tensor:
    """Repeat N entries for the views of a plan with v·N rows."""
    return x if len(x) == rows else x.repeat(rows // len(x), *[1] * (x.dim() - 1))


class Objective(nn.Module):
    """weight · mean over tokens of loss(head(tokens), target(images)).

    where: the tokens that count, "masked" (the head is a `MaskedDecoder`: it takes tokens, seen cells and missing
    cells), "visible" or "all" (the head takes the tokens and returns one prediction for each patch, without the class
    token). target: (images, patches) -> N×L×dim.
    """

    def __init__(
        self,
        name: str,
        target: nn.Module,
        head: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        where: str = "masked",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if where not in WHERE:
            raise UsageError(f"where is {where!r}; choose one of {', '.join(WHERE)}.")
        self.name, self.where, self.weight = name, where, weight
        self.target, self.head, self.measure = target, head, loss

    def predict(self, view: View) -> Tensor:
        plan = view.plan
        if self.where == "masked":
            return self.head(view.tokens, plan.ids_keep, plan.ids_masked)
        return self.head(view.tokens)

    def forward(self, view: View) -> Tensor:
        ids = {"masked": view.plan.ids_masked, "visible": view.plan.ids_keep}.get(self.where)
        ids = view.plan.order if ids is None else ids
        wanted = take(view.wanted(self.target), ids)
        return weighted_mean(self.measure(self.predict(view), wanted))


class MaskedModel(nn.Module):
    """An encoder that learns by predicting parts of what it is shown.

    mask: what is seen; see `vestige.engines.masked.masking`. objectives: what is predicted. A method that departs from
    this overrides `look` (what the encoder gets) or `parts` (what is compared).

    ``loss(batch, generator)`` returns {"loss": scalar, and each objective's value}; batch: images N×3×H×W, float in
    [0, 1] or uint8, alone or as the first of a tuple, as "images" of a mapping or as an attribute. The same generator
    state gives the same masks. ``features(images)`` is what the encoder is for.
    """

    progress: Tensor
    own_views = False  # True: the method augments by itself and is given images as they are

    def __init__(self, encoder: ViT, mask: MaskStrategy, objectives: Sequence[Objective] = ()) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask = mask
        self.objectives = nn.ModuleList(objectives)
        # a buffer, so that a run that resumes finds schedules where it left them
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def look(self, images: Tensor, generator: torch.Generator) -> View:
        """Draw the masks and encode what is left."""
        patches = self.encoder.patches(images)
        plan = self.mask(len(images), self.encoder.config.grid, generator).to(images.device)
        tokens = self.encoder.encode(take(spread(patches, len(plan)), plan.ids_keep), plan.ids_keep)
        return View(images, patches, plan, tokens)

    def parts(self, view: View) -> dict[str, tuple[float, Tensor]]:
        """{name: (weight, value)} of everything that is minimised."""
        return {o.name: (o.weight, o(view)) for o in self.objectives}  # type: ignore[misc]

    def loss(self, batch: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        view = self.look(images_of(batch), generator if generator is not None else torch.default_generator)
        parts = self.parts(view)
        total = sum((weight * value for weight, value in parts.values()), torch.zeros((), device=view.tokens.device))
        return {"loss": total, **{name: value.detach() for name, (_, value) in parts.items() if len(parts) > 1}}

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return self.loss(batch, generator)

    def error(self, images: Tensor, generator: torch.Generator) -> float:
        """What a training is followed by on pictures held out, less is better: the loss, unless a method has better."""
        return float(self.loss(images, generator)["loss"])

    def features(self, images: Tensor, pool: str = "mean") -> Tensor:
        """Images N×3×H×W -> N×width; see `ViT.features`."""
        return self.encoder.features(images, pool)

    def advance(self, step: int, fraction: float) -> None:
        """To be called after update number ``step`` (from 0), with the fraction of the training that is done:
        schedules and slow teachers follow."""
        self.progress.fill_(min(1.0, fraction))


@torch.no_grad()
def reconstruct(model: MaskedModel, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fill in what a mask hides: images N×3×H×W -> (images with hidden patches predicted, bool mask N×1×H×W).

    A model of normalised pixels gets each hidden patch's own mean and spread back, as in the figures of the paper:
    the picture shows structure, not brightness. Raises UsageError for a model that predicts no pixels.
    """
    objective = next(
        (o for o in model.objectives if isinstance(o, Objective) and isinstance(o.target, PixelTarget)), None
    )
    if objective is None or not isinstance(objective.target, PixelTarget):
        raise UsageError("This model predicts no pixels, so it cannot reconstruct pictures.")
    encoder, size = model.encoder, model.encoder.config.patch_size
    view = MaskedModel.look(model, images, generator)  # of the images as they are, whatever views a method makes
    view = View(images, view.patches, view.plan[: len(images)], view.tokens[: len(images)])
    predicted = objective.predict(view)
    if objective.target.norm:
        variance, mean = torch.var_mean(take(view.patches, view.plan.ids_masked), -1, keepdim=True)
        predicted = predicted * (variance + 1e-6).sqrt() + mean
    filled = view.patches.scatter(1, view.plan.ids_masked[..., None].expand_as(predicted), predicted)
    pixels = unpatchify(filled, size, encoder.config.grid) * encoder.get_buffer("std") + encoder.get_buffer("mean")
    grid = view.plan.mask.view(-1, 1, *encoder.config.grid)
    mask = grid.repeat_interleave(size, 2).repeat_interleave(size, 3)
    return torch.where(mask, pixels.clamp(0, 1), images), mask


def images_of(batch: Any) -> Tensor:
    """The images of a batch as float32 in [0, 1]; raises UsageError when there are none."""
    if isinstance(batch, Mapping):
        batch = batch.get("images")
    elif isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    images = getattr(batch, "images", batch)
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise UsageError('A batch must be images N×3×H×W, or hold them first, under "images" or as an attribute.')
    return images.float() / 255 if images.dtype == torch.uint8 else images
