"""A perturbation that stays silent until an innocent party watermarks the picture, and then breaks face recognition.

Source: Adversarial Watermarking for Face Recognition, 2024 (arXiv 2409.16056).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.adversarial.budget import Budget, round8
from vestige.engines.adversarial.gradient import pgd
from vestige.engines.adversarial.objectives import Scores
from vestige.engines.marking.model import EmbedderReader

#: Pictures N×3×H×W in [0, 1] -> embeddings N×D; they are scaled to unit length here.
Recogniser = Callable[[Tensor], Tensor]


def similarity(recogniser: Recogniser, images: Tensor, references: Tensor) -> Tensor:
    """cos(f(x), r), (N,); references: embeddings N×D."""
    return F.cosine_similarity(recogniser(images), references, dim=1)


def watermarked(watermarker: EmbedderReader, images: Tensor, bits: Tensor) -> Tensor:
    """W(x, m) as it would be saved: eight bits, with the gradient passing straight through clipping and rounding."""
    return round8(watermarker.embed(images, bits).float())


@dataclass(frozen=True)
class TriggeredByMark:
    """What the attack raises:  β·cos(f(x'), f(x)) − E_m cos(f(W(x', m)), f(x)) − γ·BCE(D(W(x', m)), m).

    references: f(x), N×D. bits: float N×L, the messages where the adversary knows them; None draws ``draws`` random
    ones at every step. keep: β, how much identity before marking counts; with 0 this is plain evasion. readable: γ.
    The margin says by how much identity is lost after marking and kept before, at the match threshold.
    """

    recogniser: Recogniser
    watermarker: EmbedderReader
    references: Tensor
    bits: Tensor | None = None
    keep: float = 1.0
    readable: float = 0.0
    draws: int = 2
    threshold: float = 0.5
    seed: int = 0

    def __call__(self, images: Tensor, chosen: Tensor, step: int) -> Scores:
        wanted = self.references[chosen]
        before = similarity(self.recogniser, images, wanted)
        after, unread = [], []
        for message in self._messages(images, chosen, step):
            marked = watermarked(self.watermarker, images, message)
            after.append(similarity(self.recogniser, marked, wanted))
            if self.readable > 0:
                soft = self.watermarker.read(marked).soft
                unread.append(F.binary_cross_entropy_with_logits(soft, message, reduction="none").mean(1))
        lost = torch.stack(after).mean(0)
        loss = self.keep * before - lost
        if unread:
            loss = loss - self.readable * torch.stack(unread).mean(0)
        kept = torch.full_like(before, torch.inf) if self.keep == 0 else before - self.threshold
        return Scores(loss, torch.minimum(self.threshold - lost, kept))

    def _messages(self, images: Tensor, chosen: Tensor, step: int) -> list[Tensor]:
        if self.bits is not None:
            return [self.bits[chosen].to(images)]
        drawn = rng(self.seed, "messages", step).integers(0, 2, (self.draws, len(images), self.watermarker.bits))
        return list(torch.from_numpy(drawn).to(images))


@dataclass(frozen=True)
class FaceAdvWatermark:
    """min over ‖δ‖∞ ≤ ε: cos(f(W(x + δ, m)), f(x)) − β·cos(f(x + δ), f(x)), by sign gradients through W.

    attack returns the pictures x + δ (eight-bit values); measure the four-way table that shows whether the mark is the
    trigger. epsilon: in [0, 1]. keep: β. steps of ε/10 by default, as many as ``steps``. readable: weight on the mark
    still being read afterwards. threshold: cosine from which two faces match; set it with `threshold_at` on pairs of
    different people. watermarker and recogniser are in evaluation mode and work at the size of the pictures.

    Source: Adversarial Watermarking for Face Recognition, 2024 (the loss in this form is this implementation's).
    """

    watermarker: EmbedderReader
    recogniser: Recogniser
    epsilon: float = 4 / 255
    keep: float = 1.0
    steps: int = 40
    readable: float = 0.0
    threshold: float = 0.5
    seed: int = 0

    slug = "face_adv_watermark"

    def attack(self, images: Tensor, bits: Tensor | None = None) -> Tensor:
        """images: eight-bit values in [0, 1], N×3×S×S. bits: float N×L the mark will carry, None if unknown."""
        if bits is not None and bits.shape != (len(images), self.watermarker.bits):
            raise UsageError(
                f"Messages must have shape {(len(images), self.watermarker.bits)}; got {tuple(bits.shape)}."
            )
        with torch.no_grad():
            references = self.recogniser(images)
        objective = TriggeredByMark(
            self.recogniser, self.watermarker, references, bits, self.keep, self.readable,
            threshold=self.threshold, seed=self.seed,
        )  # fmt: skip
        budget = Budget("linf", self.epsilon)
        found = pgd(
            images, objective, budget, steps=self.steps, step_size=self.epsilon / 10, early_stop=False, seed=self.seed
        )
        return found.images

    @torch.no_grad()
    def ways(self, images: Tensor, bits: Tensor, attacked: Tensor) -> dict[str, Tensor]:
        """The four kinds of pictures: each of the probes and the attacked ones, without and with the mark."""
        return {
            "plain": images, "perturbed": attacked, "marked": watermarked(self.watermarker, images, bits),
            "perturbed, marked": watermarked(self.watermarker, attacked, bits),
        }  # fmt: skip

    @torch.no_grad()
    def outcomes(self, images: Tensor, gallery: Tensor, bits: Tensor, attacked: Tensor) -> dict[str, Tensor]:
        """Of every probe: 1 or 0 for whether it matches its gallery picture, four ways, and the share of bits read.

        images: probes N×3×S×S; gallery: other pictures of the same people, in the same order; bits: N×L. Raises
        UsageError when the shapes differ.
        """
        if not images.shape == gallery.shape == attacked.shape:
            raise UsageError(
                f"Probes, gallery and attacked pictures need one shape; got {tuple(images.shape)}, "
                f"{tuple(gallery.shape)} and {tuple(attacked.shape)}."
            )
        references = self.recogniser(gallery)
        ways = self.ways(images, bits, attacked)
        found = {
            name: (similarity(self.recogniser, x, references) >= self.threshold).float() for name, x in ways.items()
        }
        for name in ("marked", "perturbed, marked"):
            found[f"bits of {name}"] = (self.watermarker.read(ways[name]).bits == (bits > 0.5)).float().mean(1)
        return found

    def measure(self, images: Tensor, gallery: Tensor, bits: Tensor, attacked: Tensor) -> dict[str, float]:
        """Means of `outcomes`: matching accuracy four ways, and bit accuracy of the marked pictures."""
        return {name: float(values.mean()) for name, values in self.outcomes(images, gallery, bits, attacked).items()}


def threshold_at(scores: Tensor, false_match_rate: float) -> float:
    """The smallest cosine at which at most that share of the pairs of different people matches.

    scores: (K,) cosines of such pairs. Raises UsageError for a rate outside [0, 1) or no scores.

    >>> round(threshold_at(torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25), 6)
    0.4
    """
    if scores.numel() == 0 or not 0 <= false_match_rate < 1:
        raise UsageError("A threshold needs scores of pairs of different people and a rate of at least 0 and below 1.")
    ordered = scores.flatten().double().sort(descending=True).values
    allowed = int(false_match_rate * len(ordered))
    candidates = [v for v in ordered.tolist() if int((ordered >= v).sum()) <= allowed]
    return min(candidates) if candidates else float(ordered[0]) + 1e-6
