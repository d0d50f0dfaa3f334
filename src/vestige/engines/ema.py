"""Moving averages of weights: for evaluation, and as the slow teacher of self-distillation.

Sources: Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 1992; Mean Teachers Are Better
Role Models, NeurIPS 2017; the cosine momentum is that of Bootstrap Your Own Latent, NeurIPS 2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError


class EMA(nn.Module):
    """A frozen copy of a model that follows it: theta' <- m theta' + (1 - m) theta.

    decay: m, a number or a function of the update number (0, 1, ...). With ``warm`` it is min(m, (1 + t)/(10 + t)), so
    that short runs are not averaged with the random start. Floating-point buffers (batch-norm statistics) are averaged
    too, integer ones are copied. The copy, ``module``, stays in evaluation mode and takes no gradient; calling the EMA
    calls it. Raises UsageError for a number outside [0, 1].

    >>> model = nn.Linear(2, 1)
    >>> ema = EMA(model, 0.5, warm=False)
    >>> with torch.no_grad():
    ...     _ = model.weight.add_(1.0)
    >>> ema.update(model, 0)
    >>> bool(torch.allclose(model.weight - ema.module.weight, torch.tensor(0.5)))
    True
    """

    def __init__(self, model: nn.Module, decay: float | Callable[[int], float] = 0.999, *, warm: bool = True) -> None:
        super().__init__()
        if not callable(decay) and not 0 <= decay <= 1:
            raise UsageError(f"The EMA decay is {decay}; it must be between 0 and 1.")
        self.decay = decay
        self.warm = warm
        self.module: nn.Module = copy.deepcopy(model).eval().requires_grad_(False)
        self._pairs: tuple[int, list[_Slots]] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> EMA:
        """Stays in evaluation mode, whatever ``mode`` says: an average is never trained."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model``, which must have the structure of the copied one, after update number ``step``."""
        momentum = self.decay(step) if callable(self.decay) else self.decay
        if self.warm:
            momentum = min(momentum, (1 + step) / (10 + step))
        # Walking the module tree costs more than the arithmetic of a small model, so the places are remembered. They
        # are dictionaries rather than tensors: moving a model or assigning a buffer replaces the tensors in them.
        if self._pairs is None or self._pairs[0] != id(model):
            self._pairs = (id(model), list(_slots(self.module, model)))
        slow: list[Tensor] = []
        fast: list[Tensor] = []
        for ours, theirs, name in self._pairs[1]:
            mine, other = ours[name], theirs[name]
            if mine is None or other is None:
                continue
            if mine.is_floating_point():
                slow.append(mine)
                fast.append(other.detach())
            else:
                mine.copy_(other)
        if slow:
            torch._foreach_lerp_(slow, fast, 1.0 - momentum)


_Slots = tuple[dict[str, Tensor | None], dict[str, Tensor | None], str]


def _slots(ours: nn.Module, theirs: nn.Module) -> Iterator[_Slots]:
    """Every parameter and buffer of two models of one structure, as (dictionary, dictionary, key)."""
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        for kind in ("_parameters", "_buffers"):
            for name in getattr(mine, kind):
                yield getattr(mine, kind), getattr(other, kind), name


def cosine_momentum(start: float, steps: int, end: float = 1.0) -> Callable[[int], float]:
    """m(t) = end - (end - start)(1 + cos(pi t / steps)) / 2: the momentum of a teacher that settles by the end.

    >>> momentum = cosine_momentum(0.9, 100)
    >>> [round(momentum(t), 3) for t in (0, 50, 100, 200)]
    [0.9, 0.95, 1.0, 1.0]
    """
    if steps < 1 or not 0 <= start <= end <= 1:
        raise UsageError("A cosine momentum needs at least one step and 0 <= start <= end <= 1.")
    return lambda step: end - (end - start) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
