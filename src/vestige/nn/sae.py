"""Top-k sparse autoencoder of activations: a dictionary of directions of which few are on at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError


class SparseAutoencoder(nn.Module):
    """z = TopK_k(ReLU(E(x − b_pre) + b_lat)),  x̂ = D z + b_pre, on activations standardised per dimension.

    width: of the activations. latents: of the dictionary (``width`` by default). k: latents on at a time. Columns of D
    start with unit norm, E as Dᵀ. ``mean`` and ``scale`` are kept with the weights, so that every method takes and
    gives activations as the network has them, …×width. Raises UsageError for k outside 1…latents.

    Source: Scaling and evaluating sparse autoencoders, ICLR 2025.

    >>> SparseAutoencoder(8, 16, k=4).codes(torch.randn(5, 8)).shape
    torch.Size([5, 16])
    """

    def __init__(self, width: int, latents: int | None = None, k: int = 16, seed: int = 0) -> None:
        super().__init__()
        latents = latents or width
        if not 1 <= k <= latents:
            raise UsageError(f"k is {k}; of {latents} latents 1 to {latents} can be on.")
        self.k, self.latents = k, latents
        generator = torch.Generator().manual_seed(seed)
        directions = F.normalize(torch.randn(width, latents, generator=generator), dim=0)
        self.decoder = nn.Parameter(directions)
        self.encoder = nn.Parameter(directions.T.clone())
        self.before = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(latents))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit_scale(self, x: Tensor) -> None:
        """Take mean and spread of activations N×width for the standardisation."""
        self.get_buffer("mean").copy_(x.mean(0))
        self.get_buffer("scale").copy_(x.std(0).clamp(min=1e-3 * float(x.std()) + 1e-8))

    def normed(self, x: Tensor) -> Tensor:
        return (x - self.get_buffer("mean")) / self.get_buffer("scale")

    def dense_codes(self, x: Tensor) -> Tensor:
        """ReLU(E(x − b_pre) + b_lat) before the top k are chosen, …×latents."""
        return F.relu(F.linear(self.normed(x) - self.before, self.encoder, self.bias))

    def codes(self, x: Tensor) -> Tensor:
        """The codes z, at most k of them above 0."""
        return self._sparse(self.dense_codes(x))

    def _sparse(self, dense: Tensor) -> Tensor:
        kept = dense.topk(self.k, -1)
        return torch.zeros_like(dense).scatter(-1, kept.indices, kept.values)

    def change(self, codes: Tensor) -> Tensor:
        """What a change of the codes does to the activations: scale·(D Δz)."""
        return F.linear(codes, self.decoder) * self.get_buffer("scale")

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of activations …×width."""
        normed = F.linear(self.codes(x), self.decoder, self.before)
        return normed * self.get_buffer("scale") + self.get_buffer("mean")


def train_sae(
    x: Tensor, latents: int | None = None, k: int = 16, *, epochs: int = 20, lr: float = 1e-3, batch: int = 1024,
    seed: int = 0,
) -> SparseAutoencoder:  # fmt: skip
    """A `SparseAutoencoder` of activations N×width: mean squared error, Adam; after each epoch but the last, latents
    that were never on start anew at the samples explained worst. Raises UsageError for fewer than two activations."""
    if len(x) < 2:
        raise UsageError("A sparse autoencoder needs at least two activations.")
    sae = SparseAutoencoder(x.shape[1], latents, k, seed)
    sae.fit_scale(x)
    optimizer = torch.optim.Adam(sae.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        used = torch.zeros(sae.latents, dtype=torch.bool)
        for chosen in torch.randperm(len(x), generator=generator).split(batch):
            wanted = sae.normed(x[chosen])
            z = sae.codes(x[chosen])
            loss = F.mse_loss(F.linear(z, sae.decoder, sae.before), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            used |= (z.detach() > 0).any(0)
        if epoch < epochs - 1:
            _revive(sae, x[torch.randperm(len(x), generator=generator)[: 4 * batch]], ~used)
    return sae.eval()


@torch.no_grad()
def _revive(sae: SparseAutoencoder, x: Tensor, dead: Tensor) -> None:
    numbers = dead.nonzero()[:, 0]
    if not len(numbers):
        return
    error = sae.normed(x) - sae.normed(sae(x))
    worst = error.pow(2).sum(1).topk(min(len(numbers), len(x))).indices
    numbers = numbers[: len(worst)]
    directions = F.normalize(error[worst[: len(numbers)]], dim=1)
    sae.decoder[:, numbers] = directions.T
    sae.encoder[numbers] = directions
    sae.bias[numbers] = 0.0
