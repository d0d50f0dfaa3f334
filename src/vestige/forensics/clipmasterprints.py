"""CLIPMasterPrints: one picture that a model of pictures and captions matches to many captions, and what helps.

Source: Fooling Contrastive Language-Image Pre-trained Models with CLIPMasterPrints, arXiv 2307.03798 (2023, revised
2024).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.adversarial import Budget, Scores, evolve, pgd, round8
from vestige.engines.adversarial.budget import torch_generator
from vestige.engines.adversarial.results import Best
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.nn.image_text import ImageText

Method = Literal["pgd", "sgd", "lve"]


class Matcher(Protocol):
    """What is attacked: pictures N×3×H×W in [0, 1] and captions to features N×d, as `vestige.nn.image_text` has it."""

    side: int

    def images(self, images: Tensor) -> Tensor: ...

    def texts(self, captions: Sequence[str]) -> Tensor: ...


class LeastMatch:
    """The aim of a master picture: min over captions (and models) of the cosine, one set of captions a picture.

    The loss is its smooth form -τ log Σ exp(-cos / τ), whose gradient hears all captions; iterates are compared by
    the minimum itself. captions: N lists of the same length. mean: raise the mean instead, for comparison.
    """

    def __init__(
        self, models: Sequence[Matcher], captions: Sequence[Sequence[str]], *, softness: float = 0.01,
        mean: bool = False,
    ) -> None:  # fmt: skip
        if not models or not captions or len({len(set(c)) for c in captions}) != 1 or not captions[0]:
            raise UsageError("A master picture needs a model, and distinct captions, as many for every picture.")
        self.models, self.softness, self.mean = list(models), softness, mean
        with torch.no_grad():
            self.texts = [
                torch.stack([F.normalize(model.texts(list(c)), dim=1) for c in captions]) for model in self.models
            ]

    def similarities(self, images: Tensor, chosen: Tensor) -> Tensor:
        """n×(captions·models) cosines."""
        each = [
            torch.einsum("nd,nkd->nk", F.normalize(model.images(images), dim=1), texts[chosen])
            for model, texts in zip(self.models, self.texts, strict=True)
        ]
        return torch.cat(each, 1)

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        found = self.similarities(images, chosen)
        if self.mean:
            return Scores(found.mean(1), found.mean(1))
        return Scores(-self.softness * (-found / self.softness).logsumexp(1), found.amin(1))


def mine(
    model: Matcher | Sequence[Matcher],
    captions: Sequence[str] | Sequence[Sequence[str]],
    method: Method = "pgd",
    *,
    start: Tensor | None = None,
    generator: Callable[[Tensor], Tensor] | None = None,
    steps: int = 1000,
    epsilon: float = 15 / 255,
    lr: float = 0.1,
    softness: float = 0.01,
    mean: bool = False,
    seed: int = 0,
) -> Tensor:
    """Master pictures N×3×H×W on the eight-bit grid: max over x of min over captions of cos(f(x), t).

    captions: of one picture, or N lists. method: "pgd" moves ``start`` (N×3×H×W) by signed steps of 1/255 within
    ±``epsilon``; "sgd" starts from noise, any pixels, by Adam at rate ``lr``; "lve" asks for similarities alone: CMA-ES
    from the latent ``start`` (N×…) of ``generator``, ``steps`` queries for a picture. Of all iterates the best, as
    eight bits hold it, is returned. softness, mean: as in `LeastMatch`. Raises UsageError for a missing start or
    generator and for wrong shapes.
    """
    models = list(model) if isinstance(model, Sequence) else [model]
    lists: Any = [captions] if captions and isinstance(captions[0], str) else captions
    aim = LeastMatch(models, lists, softness=softness, mean=mean)
    if method not in ("pgd", "sgd", "lve") or steps < 1:
        raise UsageError(f"A picture is mined by pgd, sgd or lve in at least one step; got {method!r}, {steps}.")
    if method == "sgd":
        return _descended(aim, len(lists), models[0].side, steps, lr, seed)
    if start is None or len(start) != len(lists) or (method == "lve" and generator is None):
        raise UsageError("Mining by pgd and lve needs a start for every list of captions, lve a generator as well.")
    if method == "pgd":
        return pgd(
            start, aim, Budget("linf", epsilon), steps=steps, step_size=1 / 255, random_start=False, early_stop=False,
            seed=seed,
        ).images  # fmt: skip
    assert generator is not None
    return evolve(generator, aim, start, max_queries=steps, early_stop=False, seed=seed).images


def _descended(aim: LeastMatch, count: int, side: int, steps: int, lr: float, seed: int) -> Tensor:
    pixels = torch.rand(count, 3, side, side, generator=torch_generator(seed, "master pixels")).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr)
    everything, best = torch.arange(count), None
    for step in range(steps + 1):
        x = round8(pixels.clamp(0, 1))
        scores = aim(x, everything, step)
        if best is None:
            best = Best(x.detach(), scores, 0.0)
        best.offer(x, Scores(scores.loss, scores.margin.detach()), everything)
        if step < steps:
            optimizer.zero_grad()
            (-scores.loss.sum()).backward()
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)  # a pixel outside would not be heard by the clamp of the next step
    assert best is not None
    return best.images


def fooling_rate(master: Sequence[float] | np.ndarray, real: Sequence[np.ndarray]) -> float:
    """Share of pairs (caption, real picture of it) in which the master matches the caption better.

    master: its similarity with each of K captions. real: K arrays, similarities of a caption's own pictures with it.

    >>> fooling_rate([0.3, 0.1], [np.array([0.2, 0.4]), np.array([0.2])]) == 1 / 3
    True
    """
    if len(master) != len(real) or not sum(len(r) for r in real):
        raise UsageError("The fooling rate needs a similarity and real pictures for every caption.")
    beaten = np.concatenate([np.asarray(r) < m for m, r in zip(master, real, strict=True)])
    return float(beaten.mean())


class GapShift(nn.Module):
    """The mitigation that needs no training: captions and pictures moved towards each other by a share of their gap.

    g = s·(mean picture feature - mean caption feature), estimated on training pairs by `fit`; pictures get f(x) - g,
    captions t + g. s = 0 changes nothing. Master pictures lie in the gap and lose most.
    """

    def __init__(self, model: Matcher, s: float = 0.25) -> None:
        super().__init__()
        self.model, self.s, self.side = model, s, model.side
        self.gap: Tensor
        self.register_buffer("gap", torch.zeros(1))

    @torch.no_grad()
    def fit(self, images: Tensor, captions: Sequence[str], batch: int = 128) -> GapShift:
        pictures = torch.cat([self.model.images(part) for part in images.split(batch)]).mean(0)
        self.gap = pictures - self.model.texts(captions).mean(0)
        return self

    def images(self, images: Tensor) -> Tensor:
        return self.model.images(images) - self.s * self.gap

    def texts(self, captions: Sequence[str]) -> Tensor:
        return self.model.texts(captions) + self.s * self.gap


@torch.no_grad()
def folded(model: ImageText, gap: Tensor, s: float) -> ImageText:
    """A copy of a CLIP whose own weights carry the shift of `GapShift`: whatever loads it is protected.

    The biases β of the norms before the projections move: W_v Δβ_v = -s·gap for pictures, W_t Δβ_t = +s·gap for
    captions, solved exactly where a tower is at least as wide as the common space. Raises UsageError where it is not.
    """
    changed = copy.deepcopy(model)
    clip = changed.model
    for projection, norm, sign in (
        (clip.visual_projection, clip.vision_model.post_layernorm, -1),
        (clip.text_projection, clip.text_model.final_layer_norm, 1),
    ):
        weight, wanted = projection.weight.double(), sign * s * gap.double()
        moved = torch.linalg.pinv(weight) @ wanted
        if float((weight @ moved - wanted).norm()) > 1e-3 * float(wanted.norm()) + 1e-9:
            raise UsageError(
                "The towers of this model are narrower than its common space; its gap cannot be folded in."
            )
        norm.bias += moved.to(norm.bias)
    return changed


class MasterPrintNet(nn.Module):
    """VGG with batch normalisation, narrow unless asked: pictures N×3×H×W in [0, 1] -> log-odds N of a master picture.

    widths: of its stages, two convolutions each, then halving (64, 128, 256, 512, 512 in the paper's VGG-19).

    >>> MasterPrintNet((8, 16)).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"widths": list(widths)}
        layers: list[nn.Module] = []
        for inside, outside in zip((3, *widths), widths):
            for a in (inside, outside):
                layers += [nn.Conv2d(a, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.body, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body((images - 0.5) / 0.25).mean((2, 3))).squeeze(1)


class ClipMasterPrints(NetworkExaminer):
    """Mines master pictures against a model of pictures and captions, and examines pictures for being one.

    model, captions: what `attack` is against. network: a trained `MasterPrintNet` for `find`. steps, epsilon: of the
    mining, see `mine`. The mitigation is `GapShift`.

    >>> ClipMasterPrints(network=MasterPrintNet((8,)), side=32).score(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    slug = "clipmasterprints"
    flagged = (
        "The pixels carry the fine pattern of pictures made to match many captions at once; what a model of pictures "
        "and captions says about this picture should not be relied on."
    )
    clear = "No pattern of the master pictures it learnt from; pictures mined in another way may have none it knows."

    def __init__(
        self,
        model: Matcher | None = None,
        captions: Sequence[str] = (),
        *,
        network: nn.Module | None = None,
        weights: str | Path | None = None,
        side: int = 32,
        steps: int = 1000,
        epsilon: float = 15 / 255,
        seed: int = 0,
    ) -> None:
        super().__init__(network, weights=weights, side=side)
        self.model, self.captions = model, list(captions)
        self.steps, self.epsilon, self.seed = steps, epsilon, seed

    @staticmethod
    def build(**settings: Any) -> MasterPrintNet:
        return MasterPrintNet(**settings)

    def attack(self, images: Tensor) -> Tensor:
        """Each of N×3×H×W (eight-bit values) moved within ±epsilon until it matches all captions as well as it can.

        Raises UsageError without a model or captions.
        """
        if self.model is None or not self.captions:
            raise UsageError("Mining needs a model of pictures and captions, and captions.")
        lists = [self.captions] * len(images)
        return mine(self.model, lists, start=images, steps=self.steps, epsilon=self.epsilon, seed=self.seed)

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.needed()(images), None
