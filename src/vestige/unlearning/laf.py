"""Label-Agnostic Forgetting: push forgotten samples out of their own place in feature space, without any label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import count
from vestige.engines.forgetting.evaluate import represent
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Batch
from vestige.nn.access import features, head_name, inside


class FeatureVAE(nn.Module):
    """A small variational autoencoder of feature vectors: width → 128 → 32 → latent and back.

    ``mean`` and ``scale`` standardise features, so that its output is linear; sigmoid: the paper's bounded output for
    features in [0, 1], nothing standardised. loss = Σ(e − ê)² / batch + 0.025·KL.
    """

    def __init__(self, e: Tensor, latent: int = 16, sigmoid: bool = False) -> None:
        super().__init__()
        width = e.shape[1]
        self.sigmoid = sigmoid
        mean = torch.zeros(width) if sigmoid else e.mean(0)
        scale = torch.ones(width) if sigmoid else e.std(0).clamp(min=1e-3 * float(e.std()) + 1e-8)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.encoder = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.to_latent = nn.Linear(32, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, width)
        )

    def _normed(self, e: Tensor) -> Tensor:
        return (e - self.get_buffer("mean")) / self.get_buffer("scale")

    def _decoded(self, z: Tensor) -> Tensor:
        out = self.decoder(z)
        return out.sigmoid() if self.sigmoid else out

    def loss(self, e: Tensor, noise: Tensor) -> Tensor:
        x = self._normed(e)
        mu, log_var = self.to_latent(self.encoder(x)).chunk(2, 1)
        error = (self._decoded(mu + noise * (log_var / 2).exp()) - x).pow(2).sum() / len(x)
        return error + 0.025 * 0.5 * (mu.pow(2) + log_var.exp() - 1 - log_var).sum(1).mean()

    def error(self, e: Tensor) -> Tensor:
        """‖e − VAE(e)‖² of each feature vector (N), in standardised units, with the latent's mean."""
        x = self._normed(e)
        return (self._decoded(self.to_latent(self.encoder(x)).chunk(2, 1)[0]) - x).pow(2).sum(1)


def train_vae(e: Tensor, *, latent: int, epochs: int, seed: int, sigmoid: bool = False, batch: int = 128) -> FeatureVAE:
    """A `FeatureVAE` of the rows of ``e``, by Adam at 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = FeatureVAE(e, latent, sigmoid)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(e), generator=generator).split(batch):
            loss = vae.loss(e[chosen], torch.randn(len(chosen), latent, generator=generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count(steps=1)
    return vae.eval().requires_grad_(False)


def squashed(error: Tensor) -> Tensor:
    """Σ exp(m/(m + 1)): each sample counts from 1 to e, so that pushing one out cannot pay without end.

    >>> float(squashed(torch.tensor([0.0])))
    1.0
    """
    return (error / (error + 1)).exp().sum()


def alignment(now_r: Tensor, before_r: Tensor, now_f: Tensor, before_f: Tensor, temperature: float) -> Tensor:
    """L_RA = Σ_i log( exp(c_r,i) / Σ_j exp(c_f,j / τ) ),  c = 1 − cos(now, before): kept features stay, others move."""
    c_r = 1 - F.cosine_similarity(now_r, before_r)
    c_f = 1 - F.cosine_similarity(now_f, before_f)
    return (c_r - torch.logsumexp(c_f / temperature, 0)).sum()


@dataclass(frozen=True)
class LAF:
    """Two feature VAEs, h of the remaining and h_f of the forgotten data; then in turn, with Adam, on paired batches:

    L_UE = d_h(g(x_r)) − d_{h_f}(g(x_f)),   d(e) = Σ exp(m/(m + 1)),  m = ‖e − VAE(e)‖²
    L_RA: `alignment` of g with a frozen copy g_o, temperature τ.

    Only the extractor g moves; the head stays, so read a linear probe beside the accuracy. h_data: "all" (as
    published: D_f is in it) or "retain". loops: passes over D_f. repair: so many labelled retained samples for
    ``repair_epochs`` of supervised training (LAF+R); 0 uses no label at all. Raises UsageError for an unknown h_data.

    Source: Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models, ICLR 2024.
    """

    slug: ClassVar[str] = "laf"
    latent: int = 16
    vae_epochs: int = 10
    loops: int = 40
    lr_ue: float = 1e-5
    lr_ra: float = 4e-5
    temperature: float = 20.0
    batch_size: int = 64
    h_data: str = "all"
    sigmoid: bool = False
    repair: int = 0
    repair_epochs: int = 2
    repair_lr: float = 1e-3

    def __post_init__(self) -> None:
        if self.h_data not in ("all", "retain"):
            raise UsageError(f"h_data is {self.h_data!r}; choose all or retain.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"retain", "labels"} if self.repair else {"retain"})

    def erase(self, problem: ForgetProblem) -> nn.Module:
        original = problem.copy()
        device = next(original.parameters()).device
        forget, retain = problem.forget, problem.retain
        kept = problem.train if self.h_data == "all" else retain
        h, h_f = (
            train_vae(
                torch.from_numpy(represent(original, samples)).float(),
                latent=self.latent, epochs=self.vae_epochs, seed=problem.seed + i, sigmoid=self.sigmoid,
            ).to(device)
            for i, samples in enumerate((kept, forget))
        )  # fmt: skip

        def unlearning(model: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            assert beside is not None
            return squashed(h.error(features(model, beside.x))) - squashed(h_f.error(features(model, batch.x)))

        def aligning(model: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            assert beside is not None
            with torch.no_grad():
                before_r, before_f = features(original, beside.x), features(original, batch.x)
            return alignment(features(model, beside.x), before_r, features(model, batch.x), before_f, self.temperature)

        last = head_name(original)
        tuning = problem.tuning(
            epochs=self.loops, optimizer="adam", weight_decay=0.0, batch_size=self.batch_size, freeze_bn=True,
            trainable=lambda name: not inside(name, [last]),
        )  # fmt: skip
        phase = Phase(forget, (unlearning, aligning), beside=retain, lr=(self.lr_ue, self.lr_ra))
        model = problem.tune([phase], tuning, teachers=(original,)).model
        if not self.repair:
            return model
        tuning = problem.tuning(lr=self.repair_lr, epochs=self.repair_epochs, optimizer="adam", weight_decay=0.0)
        return problem.tune([Phase(problem.retain_sample(self.repair), fit)], tuning, model).model
