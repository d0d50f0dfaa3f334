"""An adversary that tells marked pictures from unmarked ones, with its own optimiser."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vestige.core.errors import UsageError


class Critic(nn.Module):
    """Strided 3×3 convolutions to one score a picture; higher says marked.

    kind "wasserstein": the critic raises mean C(x_w) − mean C(x) with its weights clipped to ±``clip``, by RMSprop;
    the embedder lowers mean C(x_w). kind "classifier": binary cross-entropy for both. The embedder's term sees the
    live picture and frozen weights, the critic's the detached picture; so each moves only what it should.

    Sources: Wasserstein Generative Adversarial Networks, ICML 2017; Generative Adversarial Nets, NeurIPS 2014.

    >>> critic = Critic(8)
    >>> critic.embedder_term(torch.rand(2, 3, 16, 16)).shape
    torch.Size([])
    """

    def __init__(
        self,
        base: int = 16,
        *,
        kind: Literal["wasserstein", "classifier"] = "wasserstein",
        lr: float = 1e-5,
        clip: float = 0.01,
    ) -> None:
        super().__init__()
        if kind not in ("wasserstein", "classifier"):
            raise UsageError(f"A critic is 'wasserstein' or 'classifier'; got {kind!r}.")
        self.kind, self.clip = kind, clip
        layers: list[nn.Module] = []
        inside = 3
        for width in (base, 2 * base, 4 * base, 4 * base):
            layers += [nn.Conv2d(inside, width, 3, 2, 1), nn.LeakyReLU(0.2)]
            inside = width
        self.net = nn.Sequential(*layers, nn.Conv2d(inside, 1, 3, 1, 1))
        self.optimizer = torch.optim.RMSprop(self.net.parameters(), lr=lr)

    def score(self, images: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """N: one score a picture; images N×3×H×W in [0, 1]."""
        x = 2 * images - 1
        maps = self.net(x) if weights is None else functional_call(self.net, weights, (x,))
        return maps.float().mean((1, 2, 3))

    def embedder_term(self, marked: Tensor) -> Tensor:
        """What the embedder lowers; reaches the picture, not the critic."""
        # Copies, because the critic may learn before this term is sent back.
        frozen = {name: value.detach().clone() for name, value in self.net.named_parameters()}
        score = self.score(marked, frozen)
        return score.mean() if self.kind == "wasserstein" else F.softplus(score).mean()

    @torch.enable_grad()
    def learn(self, images: Tensor, marked: Tensor) -> Tensor:
        """One update of the critic; returns its loss."""
        plain, changed = self.score(images.detach()), self.score(marked.detach())
        if self.kind == "wasserstein":
            loss = plain.mean() - changed.mean()
        else:
            loss = F.softplus(plain).mean() + F.softplus(-changed).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.kind == "wasserstein":
            with torch.no_grad():
                for parameter in self.net.parameters():
                    parameter.clamp_(-self.clip, self.clip)
        return loss.detach()
