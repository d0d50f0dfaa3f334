"""The default examiner of generated pictures: seven groups of evidence, each with a judgement of its own, averaged.

One linear judge reads each group of `vestige.forensics.generated_evidence`. A judge of everything at once leans on
whatever tells the generators of its training apart from photographs; judges of single groups have to get along with
what each sees, and their mean carries over better to generators never seen.

Source: On Combining Classifiers, IEEE TPAMI 1998 (the mean of judges that see different measurements).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.calibration import with_prior
from vestige.core.errors import UsageError
from vestige.core.findings import Finding
from vestige.core.runtime import rng
from vestige.engines.train import Batch, TrainConfig, Trainer
from vestige.forensics.generated import squares_of
from vestige.forensics.generated_evidence import evidence, group_sizes
from vestige.forensics.learned import load_network
from vestige.metrics.detection import null_threshold

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

#: Measurements are cut off at so many spreads of photographs, so that one outlier does not decide.
_CUT = 8.0
#: What the groups are called in reports.
WORDS = {
    "residual": "noise and its correlation with itself",
    "spectrum": "spectrum",
    "grid": "pattern of small blocks",
    "texture": "contrast of plain and busy texture",
    "patterns": "runs of small differences",
    "perturbation": "movement under faint noise",
    "reconstruction": "what an autoencoder gives back",
}


class EvidenceHead(nn.Module):
    """One linear judge for each group. forward(evidence N×F) -> logits N×G, above 0 for generated.

    sizes: measurements of each group, in order. usual, spread: of real pictures, see `settle`; mean, scale: of each
    judge's logits on them.

    >>> EvidenceHead({"a": 3, "b": 2})(torch.zeros(4, 5)).shape
    torch.Size([4, 2])
    """

    usual: Tensor
    spread: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        if not sizes or min(sizes.values()) < 1:
            raise UsageError("A judge needs at least one group of evidence, each with at least one measurement.")
        self.sizes = {str(name): int(size) for name, size in sizes.items()}
        self.settings: dict[str, Any] = {"sizes": self.sizes}
        count = sum(self.sizes.values())
        self.weight = nn.Parameter(torch.zeros(count))
        self.bias = nn.Parameter(torch.zeros(len(self.sizes)))
        self.register_buffer("usual", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.register_buffer("mean", torch.zeros(len(self.sizes)))
        self.register_buffer("scale", torch.ones(len(self.sizes)))

    def forward(self, features: Tensor) -> Tensor:
        x = ((features - self.usual) / self.spread).clamp(-_CUT, _CUT) * self.weight
        return torch.stack([part.sum(1) for part in x.split(list(self.sizes.values()), 1)], 1) + self.bias

    @torch.no_grad()
    def measure(self, real: np.ndarray) -> EvidenceHead:
        """Take usual values and spreads from the evidence of real pictures, N×F."""
        x = torch.from_numpy(real)
        self.usual.copy_(x.mean(0))
        self.spread.copy_(x.std(0) + 1e-3)
        return self

    @torch.no_grad()
    def settle(self, real: np.ndarray) -> EvidenceHead:
        """Bring every judge to mean 0 and spread 1 on the evidence of real pictures, N×F."""
        found = self(torch.from_numpy(real))
        self.mean.copy_(found.mean(0))
        self.scale.copy_(found.std(0) + 1e-6)
        return self

    @torch.no_grad()
    def judged(self, features: np.ndarray) -> np.ndarray:
        """Evidence N×F -> float64 N×G: how far each judge puts it from real pictures, in their spreads."""
        return ((self(torch.from_numpy(features)) - self.mean) / self.scale).double().numpy()

    def score(self, features: np.ndarray) -> np.ndarray:
        """Evidence N×F -> float64 N, the mean of the judges."""
        return np.asarray(self.judged(features).mean(1))


def head_training(
    real: np.ndarray, fakes: Mapping[str, np.ndarray], families: Mapping[str, str], batch_size: int
) -> tuple[
    Callable[[int, torch.Generator], dict[str, Tensor]],
    Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]],
]:
    """(batches, step) for `Trainer`: half of a batch real, half generated, every family and source as often.

    real: evidence N×F; fakes: that of each source; families: of the sources. Loss: mean cross-entropy of the judges.
    Raises UsageError without one of both.
    """
    if not len(real) or not fakes or not all(len(x) for x in fakes.values()) or batch_size < 2:
        raise UsageError("The judges learn from real and generated pictures, at least one of each in a batch.")
    kinds = sorted({families[name] for name in fakes})
    of = {kind: [torch.from_numpy(x) for name, x in fakes.items() if families[name] == kind] for kind in kinds}
    known = torch.from_numpy(real)

    def batches(number: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = rng(int(torch.randint(2**62, (), generator=generator)), "evidence batch")
        half = batch_size // 2
        rows = [known[draw.integers(0, len(known), half)]]
        for _ in range(half):
            sources = of[kinds[int(draw.integers(len(kinds)))]]
            source = sources[int(draw.integers(len(sources)))]
            rows.append(source[[int(draw.integers(len(source)))]])
        return {"features": torch.cat(rows), "labels": (torch.arange(2 * half) >= half).float()}

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        found = model(batch["features"])
        loss = F.binary_cross_entropy_with_logits(found, batch["labels"][:, None].expand_as(found))
        right = ((found.mean(1) > 0) == (batch["labels"] > 0.5)).float().mean()
        return {"loss": loss, "right": right}

    return batches, step


#: How the judges are trained, in the recipe and where families are left out.
TRAINING = TrainConfig(
    steps=400, batch_size=256, lr=0.005, betas=(0.9, 0.99), weight_decay=0.0, warmup=20, log_every=50,
    checkpoint_every=1000,
)  # fmt: skip


def fit_head(
    real: np.ndarray, fakes: Mapping[str, np.ndarray], families: Mapping[str, str], config: TrainConfig = TRAINING,
) -> EvidenceHead:  # fmt: skip
    """Train the judges on evidence and settle them on the real pictures; arguments as in `head_training`."""
    head = EvidenceHead(group_sizes()).measure(real)
    batches, step = head_training(real, fakes, families, config.batch_size)
    with tempfile.TemporaryDirectory() as out:
        trained = Trainer(head, step, batches, config, out=out, device="cpu", quiet=True).run().model
    assert isinstance(trained, EvidenceHead)
    return trained.settle(real).eval()


def evidence_of(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """`evidence` of pictures uint8 3×H×W of several sizes, in their order."""
    found = np.zeros((len(pictures), sum(group_sizes().values())), np.float32)
    shapes = [picture.shape for picture in pictures]
    for shape in sorted(set(shapes)):
        rows = [i for i, own in enumerate(shapes) if own == shape]
        found[rows] = evidence(np.stack([pictures[i] for i in rows]))
    return found


def calibration(clean: np.ndarray, generated: np.ndarray, rate: float) -> dict[str, float]:
    """Threshold that at most ``rate`` of unedited pictures reach, and the log-odds of a score (slope, offset)."""
    from sklearn.linear_model import LogisticRegression

    scores, labels = np.append(clean, generated), np.repeat([0, 1], [len(clean), len(generated)])
    fitted = LogisticRegression(C=1e3, class_weight="balanced").fit(scores[:, None], labels)
    return {
        "threshold": null_threshold(clean, rate), "false_positive_rate": rate,
        "slope": float(fitted.coef_[0, 0]), "offset": float(fitted.intercept_[0]),
    }  # fmt: skip


class GeneratedImage:
    """How much a picture looks generated: the mean of the judges over up to ``count``² squares of 64 pixels.

    weights: a file that the recipe wrote, by default the shipped one. head: trained judges instead. The squares are
    looked at in the resolution they have. Flagged are pictures that score as at most one in fifty photographs of
    another collection did, after ordinary handling; what that means for generators never seen is in the model card.

    >>> from vestige.core.image_io import encode
    >>> from vestige.core.subjects import ImageSubject
    >>> head = EvidenceHead(group_sizes())
    >>> GeneratedImage(head=head).find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "generated_image"
    kind = "generated"
    side = 64

    def __init__(self, weights: str | Path | None = None, *, head: EvidenceHead | None = None, count: int = 4) -> None:
        if count < 1:
            raise UsageError(f"count is {count}; at least one square is looked at.")
        self._weights, self._head, self.count = weights, head, count
        self.facts: Mapping[str, Any] = {}

    @property
    def head(self) -> EvidenceHead:
        """Loaded when it is first needed; raises InputError, with the command that trains it, when it is missing."""
        if self._head is None:
            self._head, self.facts = load_network(self.slug, EvidenceHead, self._weights, recipe="forensics/evidence")
        return self._head

    def score(self, images: np.ndarray) -> np.ndarray:
        """float64 N for uint8 pictures N×3×H×W from 48 pixels on, each as one square."""
        return self.head.score(evidence(images))

    def find(self, subject: ImageSubject) -> Finding:
        """Score, probability and what each group says; does not apply to small and flat pictures."""
        squares, why = squares_of(subject, self.side, self.count)
        if why:
            return Finding.not_applicable(self.slug, self.kind, why)
        judged = self.head.judged(evidence(squares)).mean(0)
        score = float(judged.mean())
        threshold = float(self.facts.get("threshold", np.inf))
        odds = float(self.facts.get("slope", 1.0)) * score + float(self.facts.get("offset", 0.0))
        named = dict(zip(self.head.sizes, judged, strict=True))
        strongest = sorted(named, key=lambda name: -named[name])[:3]
        return Finding(
            self.slug,
            self.kind,
            score,
            "Noise, spectrum and texture are as generators and heavy processing leave them. It is a sign, not a proof: "
            "the examiner knows few generators, and strong filters look alike.",
            "Noise, spectrum and texture are like those of photographs; generators that this examiner never saw may "
            "leave none of the traces it looks for.",
            flagged=score >= threshold,
            probability=with_prior(float(1 / (1 + np.exp(-np.clip(odds, -30, 30))))) if self.facts else None,
            threshold=threshold if self.facts else None,
            false_positive_rate=self.facts.get("false_positive_rate"),
            evidence=(
                f"mean over {len(squares)} squares of {self.side} pixels: {score:.2f} spreads from photographs",
                "furthest from photographs: "
                + ", ".join(f"{WORDS.get(name, name)} ({named[name]:+.1f})" for name in strongest),
            ),
            details={"squares": len(squares), **{name: round(float(value), 3) for name, value in named.items()}},
        )
