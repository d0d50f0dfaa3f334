"""Training inside a computation: the training loop in a folder that is thrown away, the network changed in place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from vestige.core import errors
from vestige.engines.train import Batch, Interrupted, Step, TrainConfig, Trainer

N = TypeVar("N", bound=nn.Module)


def fit(
    network: N,
    step: Step,
    batches: Callable[[int, torch.Generator], Batch],
    config: TrainConfig,
    on_step: Callable[[int, nn.Module], None] | None = None,
) -> N:
    """Train ``network`` in place on the CPU by `Trainer` and return it in evaluation mode; arguments as there.

    Raises Interrupted on SIGINT or SIGTERM; unlike a `Trainer` with a folder, nothing is kept then.

    >>> net = nn.Linear(1, 1)
    >>> def halves(number, generator):
    ...     x = torch.rand(8, 1, generator=generator)
    ...     return x, x / 2
    >>> def squares(model, batch, generator):
    ...     return {"loss": (model(batch[0]) - batch[1]).square().mean()}
    >>> _ = fit(net, squares, halves, TrainConfig(steps=150, lr=0.05, weight_decay=0.0))
    >>> abs(net(torch.ones(1, 1)).item() - 0.5) < 0.05
    True
    """
    with tempfile.TemporaryDirectory(prefix="vestige-fit-") as out, torch.enable_grad():
        trainer = Trainer(network, step, batches, config, out=out, on_step=on_step, device="cpu", quiet=True)
        try:
            trained = trainer.run()
        except Interrupted as stop:  # it names a folder that is gone in a moment
            said = errors.Interrupted(
                "Interrupted; the network that was being trained starts anew with the same command."
            )
            said.exit_code = stop.exit_code
            raise said from None
    network.load_state_dict(trained.model.state_dict())
    return network.eval()


def rows_of(count: int, batch_size: int, generator: torch.Generator) -> Any:
    """int64 batch_size: which of ``count`` examples are in a batch, with replacement."""
    return torch.randint(count, (batch_size,), generator=generator)
