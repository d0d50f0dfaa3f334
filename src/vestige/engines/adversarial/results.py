"""What an attack hands back, with what it cost and how far it went."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vestige.engines.adversarial.budget import norms
from vestige.engines.adversarial.objectives import Scores


@dataclass(frozen=True)
class AttackResult:
    """One attack on N pictures.

    images: N×3×H×W, the best found, as they would be saved. margin: (N,), measured on exactly these. success: bool
    (N,), margin above the confidence that was asked for. loss: (N,), of the objective at these pictures. queries:
    int64 (N,), evaluations of the model spent on each (draws of an expectation count). linf, l2: (N,), the change that
    was made, in units of [0, 1]. clean_margin: (N,), the margin before the attack.
    """

    images: Tensor = field(repr=False)
    margin: Tensor
    success: Tensor
    loss: Tensor
    queries: Tensor
    linf: Tensor
    l2: Tensor
    clean_margin: Tensor

    def summary(self) -> dict[str, float]:
        """Means for a table: success, success before, margin (where there is one), loss, queries, change made."""
        margin = {"margin": float(self.margin.mean())} if torch.isfinite(self.margin).all() else {}
        return {
            "success": float(self.success.float().mean()),
            "clean_success": float((self.clean_margin > 0).float().mean()),
            **margin,
            "loss": float(self.loss.mean()),
            "queries": float(self.queries.double().mean()),
            "linf_levels": float(self.linf.mean() * 255),
            "l2": float(self.l2.mean()),
        }


class Best:
    """The best so far for each attacked picture, by margin and then by loss; ``images`` may also hold latents."""

    def __init__(self, original: Tensor, scores: Scores, confidence: float) -> None:
        self.original, self.clean_margin, self.confidence = original, scores.margin.clone(), confidence
        self.images, self.margin, self.loss = original.clone(), scores.margin.clone(), scores.loss.detach().clone()
        self.queries = torch.zeros(len(original), dtype=torch.int64, device=original.device)

    def offer(self, images: Tensor, scores: Scores, chosen: Tensor) -> None:
        """Keep those pictures that are better; ``chosen`` must not repeat a picture."""
        margin, loss = scores.margin, scores.loss.detach()
        better = (margin > self.margin[chosen]) | ((margin == self.margin[chosen]) & (loss > self.loss[chosen]))
        kept = chosen[better]
        self.images[kept] = images[better].detach()
        self.margin[kept], self.loss[kept] = margin[better], loss[better]

    def open(self, chosen: Tensor) -> Tensor:
        """Those of ``chosen`` that have not succeeded yet."""
        return chosen[self.margin[chosen] <= self.confidence]

    def result(self) -> AttackResult:
        """The pictures with their measurements."""
        change = self.images - self.original
        return AttackResult(
            self.images, self.margin, self.margin > self.confidence, self.loss, self.queries, norms(change, "linf"),
            norms(change, "l2"), self.clean_margin,
        )  # fmt: skip
