"""A detector of generated pictures that others are compared with: a residual network on the slopes of another.

Source: Learning on Gradients: Generalized Artifacts Representation for GAN-Generated Images Detection, CVPR 2023
(LGrad).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vestige.forensics.npr import TraceResNet
from vestige.nn.features import FeatureNet, load_feature_net


class LGradNet(TraceResNet):
    """A residual network on the gradient that a fixed network's summed features have with respect to the picture.

    settings: of `TraceResNet`, whose front is "rgb". fixed: the shipped feature network unless given, frozen; it stays
    on its device.

    >>> LGradNet(depth=18, width=0.125)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(self, *, fixed: FeatureNet | None = None, **settings: Any) -> None:
        super().__init__("rgb", **settings)
        # In a tuple it is no part of this network: not trained, not saved, and its norms stay in evaluation mode.
        self._fixed: tuple[nn.Module] = (fixed or load_feature_net(),)

    @torch.enable_grad()
    def slopes(self, images: Tensor) -> Tensor:
        """N×3×H×W: the gradient, each picture's scaled to [0, 1]; zeros where it has none."""
        x = images.detach().requires_grad_()
        (found,) = torch.autograd.grad(self._fixed[0](x).pooled.sum(), x)
        low, high = found.amin((1, 2, 3), keepdim=True), found.amax((1, 2, 3), keepdim=True)
        return (found - low) / (high - low).clamp_min(1e-12)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return super().forward(self.slopes(images), generator)
