"""Judges of seven groups of evidence that a picture was generated, and whatever stands out of them; no network learns.

For every family of generators, a matched filter over all measurements of `vestige.forensics.generated_evidence` asks
how far a square lies from photographs the way that family does. One linear judge reads each group: it has to get along
with what the group sees, and carries over to generators never seen. A generator unlike those of the training can leave
traces that neither looks for; so the distance from photographs counts as well, in any direction. The score is

    soft maximum of the filters + ½ mean of the judges + ½ mean distance,  each in spreads of photographs.

Sources: The Use of Multiple Measurements in Taxonomic Problems, 1936 (the filters); On Combining Classifiers, IEEE
TPAMI 1998 (judges that see different measurements); On the Generalised Distance in Statistics, 1936 (the distance).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.train import Batch, TrainConfig, Trainer
from vestige.forensics.generated_evidence import group_sizes

#: Measurements are cut off at so many spreads of photographs, so that one outlier does not decide.
_CUT = 8.0
#: Share of the mean variance that covariances of photographs are mixed with: of a group, and of all measurements.
_SHRINK, _SHRINK_ALL = 0.02, 0.03
#: How soft the maximum is, in spreads.
_SOFT = 0.3


class EvidenceHead(nn.Module):
    """Filters for families of generators, one linear judge for each group, and how far from photographs a group is.

    forward(evidence N×F) -> logits of the judges N×G, above 0 for generated. sizes: measurements of each group, in
    order. families: of generators, each with a filter. What is usual among real pictures comes from `measure`, the
    filters from `match`, and the units of everything from `settle`.

    >>> EvidenceHead({"a": 3, "b": 2})(torch.zeros(4, 5)).shape
    torch.Size([4, 2])
    """

    usual: Tensor
    spread: Tensor
    mean: Tensor
    scale: Tensor
    filters: Tensor

    def __init__(self, sizes: Mapping[str, int], families: Sequence[str] = ()) -> None:
        super().__init__()
        if not sizes or min(sizes.values()) < 1:
            raise UsageError("A judge needs at least one group of evidence, each with at least one measurement.")
        self.sizes = {str(name): int(size) for name, size in sizes.items()}
        self.families = [str(name) for name in families]
        self.settings: dict[str, Any] = {"sizes": self.sizes, "families": self.families}
        count, groups = sum(self.sizes.values()), len(self.sizes)
        self.weight = nn.Parameter(torch.zeros(count))
        self.bias = nn.Parameter(torch.zeros(groups))
        self.register_buffer("usual", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        for name, size in self.sizes.items():
            self.register_buffer(f"whiten_{name}", torch.eye(size))
        self.register_buffer("filters", torch.zeros(len(self.families), count))
        # Of the judges, of the distances, of the filters, of the mean of the judges and of that of the distances.
        self.register_buffer("mean", torch.zeros(2 * groups + len(self.families) + 2))
        self.register_buffer("scale", torch.ones(2 * groups + len(self.families) + 2))

    def _units(self, features: Tensor) -> Tensor:
        return ((features - self.usual) / self.spread).clamp(-_CUT, _CUT)

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.split(list(self.sizes.values()), 1)

    def forward(self, features: Tensor) -> Tensor:
        x = self._units(features) * self.weight
        return torch.stack([part.sum(1) for part in self._split(x)], 1) + self.bias

    def distances(self, features: Tensor) -> Tensor:
        """ln (x − μ)ᵀ C⁻¹ (x − μ) of each group among real pictures, evidence N×F -> N×G."""
        parts = zip(self.sizes, self._split(self._units(features)), strict=True)
        apart = [(part @ getattr(self, f"whiten_{name}")).square().sum(1) for name, part in parts]
        return torch.log(torch.stack(apart, 1) + 1e-6)

    @torch.no_grad()
    def measure(self, real: np.ndarray) -> EvidenceHead:
        """Take usual values, spreads and covariances from the evidence of real pictures, N×F."""
        x = torch.from_numpy(real)
        self.usual.copy_(x.mean(0))
        self.spread.copy_(x.std(0) + 1e-3)
        for name, part in zip(self.sizes, self._split(self._units(x)), strict=True):
            getattr(self, f"whiten_{name}").copy_(torch.linalg.cholesky(_inverse(part, _SHRINK)))
        return self

    @torch.no_grad()
    def match(self, real: np.ndarray, fakes: Mapping[str, np.ndarray], families: Mapping[str, str]) -> EvidenceHead:
        """Filters w = C⁻¹m / √(mᵀC⁻¹m) of the families, m the mean over a family's sources of their mean evidence.

        real, C: evidence N×F of real pictures and its covariance. fakes: evidence of each source. families: of the
        sources. Raises UsageError for a family without a source.
        """
        inverse = _inverse(self._units(torch.from_numpy(real)), _SHRINK_ALL)
        for row, family in enumerate(self.families):
            own = [x for name, x in fakes.items() if families[name] == family and len(x)]
            if not own:
                raise UsageError(f"No source belongs to the family {family}.")
            m = torch.stack([self._units(torch.from_numpy(x)).double().mean(0) for x in own]).mean(0)
            self.filters[row] = inverse @ m / (m @ inverse @ m).clamp_min(1e-12).sqrt()
        return self

    def _judgements(self, features: Tensor) -> Tensor:
        """N×(2G + K + 2): judges, distances, filters, means of judges and of distances, in units set so far."""
        groups = len(self.sizes)
        single = torch.cat([self(features), self.distances(features), self._units(features) @ self.filters.T], 1)
        single = (single - self.mean[:-2]) / self.scale[:-2]
        means = torch.stack([single[:, :groups].mean(1), single[:, groups : 2 * groups].mean(1)], 1)
        return torch.cat([single, (means - self.mean[-2:]) / self.scale[-2:]], 1)

    @torch.no_grad()
    def settle(self, real: np.ndarray) -> EvidenceHead:
        """Bring judges, distances, filters and the means to mean 0 and spread 1 on evidence of real pictures."""
        self.mean.zero_()
        self.scale.fill_(1)
        for part in (slice(-2), slice(-2, None)):  # the means are of what has its units already
            found = self._judgements(torch.from_numpy(real))[:, part]
            self.mean[part] = found.mean(0)
            self.scale[part] = found.std(0) + 1e-6
        return self

    @torch.no_grad()
    def judged(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Evidence N×F -> float64 N each, in spreads of real pictures: how far every judge (by its group's name) puts
        it from them, "judges", their mean, "distance", the mean distance, and "family", the soft maximum of the filters
        (0 without any)."""
        found = self._judgements(torch.from_numpy(features)).double().numpy()
        groups = len(self.sizes)
        named = dict(zip(self.sizes, found[:, :groups].T, strict=True))
        filters = found[:, 2 * groups : -2]
        family = soft_maximum(filters) if filters.shape[1] else np.zeros(len(found))
        return {**named, "judges": found[:, -2], "distance": found[:, -1], "family": family}

    @torch.no_grad()
    def matches(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Evidence N×F -> float64 N for every family: how far its filter puts it from real pictures, in spreads."""
        found = self._judgements(torch.from_numpy(features)).double().numpy()
        return dict(zip(self.families, found[:, 2 * len(self.sizes) : -2].T, strict=True))

    def score(self, features: np.ndarray) -> np.ndarray:
        """Evidence N×F -> float64 N, see the module."""
        return weighed(self.judged(features))


def weighed(judged: Mapping[str, np.ndarray]) -> np.ndarray:
    """The score that follows from what `EvidenceHead.judged` tells."""
    return np.asarray(judged["family"] + 0.5 * judged["judges"] + 0.5 * judged["distance"])


def _inverse(units: Tensor, shrink: float) -> Tensor:
    """Inverse covariance float64 F×F of measurements N×F, mixed with a share of their mean variance."""
    size = units.shape[1]
    own = torch.cov(units.T.double()).reshape(size, size)
    return torch.linalg.inv((1 - shrink) * own + (shrink * own.diagonal().mean() + 1e-6) * torch.eye(size))


def soft_maximum(values: np.ndarray) -> np.ndarray:
    """τ ln mean exp(v / τ) over the last axis, τ = 0.3.

    >>> soft_maximum(np.zeros((2, 3))).tolist()
    [0.0, 0.0]
    """
    top = values.max(-1, keepdims=True)
    return np.asarray(top[..., 0] + _SOFT * np.log(np.exp((values - top) / _SOFT).mean(-1)))


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
    """Filters and trained judges, settled on the real pictures; arguments as in `head_training`."""
    head = EvidenceHead(group_sizes(), sorted({families[name] for name in fakes})).measure(real)
    head.match(real, fakes, families)
    batches, step = head_training(real, fakes, families, config.batch_size)
    with tempfile.TemporaryDirectory() as out:
        trained = Trainer(head, step, batches, config, out=out, device="cpu", quiet=True).run().model
    assert isinstance(trained, EvidenceHead)
    return trained.settle(real).eval()
