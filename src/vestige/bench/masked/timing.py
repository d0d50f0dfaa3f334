"""How long an update of a masked model takes, and how many tokens it sends through an encoder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.bench.masked.systems import OPTIMISATION, SIZES, build_method, crop_scale
from vestige.core.runtime import rng
from vestige.data.packs import Pack
from vestige.engines.masked.job import masked_job
from vestige.engines.masked.model import MaskedModel
from vestige.engines.optim import make_optimizer, parameter_groups
from vestige.engines.recipe import RecipeContext
from vestige.engines.train import TrainConfig
from vestige.nn.vit import ViT


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """Torch computes on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median processor time of each action, all in turns, after one unmeasured turn."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            start = time.process_time()
            action()
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def fresh(name: str, sizes: Mapping[str, Any] = SIZES, seed: int = 0) -> MaskedModel:
    """A system or baseline with random weights from a seed of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng(seed, "first weights", name).integers(2**62)))
        return build_method(name, sizes)


class Stepper:
    """One update of a method after another, just as a run does it; calling it does the next."""

    def __init__(
        self, name: str, pack: Pack, sizes: Mapping[str, Any] = SIZES, optimisation: Mapping[str, Any] = OPTIMISATION
    ) -> None:
        config = TrainConfig(steps=1000, **optimisation)
        context = RecipeContext(None, torch.device("cpu"), 0, config, Path("unused"), {}, quiet=True)
        self.model = fresh(name, sizes).train()
        self.job = masked_job(context, self.model, pack, scale=(crop_scale(name), 1.0))
        self.optimizer = make_optimizer(parameter_groups(self.model, config.weight_decay), lr=1e-4)
        self.clip, self.done, self.generator = config.clip, 0, torch.Generator().manual_seed(0)

    def __call__(self) -> None:
        batch = self.job.batches(self.done, self.generator)
        self.job.step(self.model, batch, self.generator)["loss"].backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        assert self.job.on_step is not None
        self.job.on_step(self.done, self.model)

    def tokens(self) -> dict[str, float]:
        """Tokens that go through an encoder in one update, with and without gradient."""
        counted = {True: 0, False: 0}

        def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            counted[torch.is_grad_enabled()] += given[0].shape[0] * given[0].shape[1]

        encoders = [m for m in self.model.modules() if isinstance(m, ViT) and len(m.blocks)]
        hooks = [encoder.blocks[0].register_forward_pre_hook(count) for encoder in encoders]
        self()
        for hook in hooks:
            hook.remove()
        return {"tokens": counted[True], "tokens_without_gradient": counted[False]}


def update_times(
    names: Sequence[str], pack: Pack, rounds: int, sizes: Mapping[str, Any] = SIZES,
    optimisation: Mapping[str, Any] = OPTIMISATION, extra: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, float]:  # fmt: skip
    """{"ms NAME": processor time of an update}, all in turns on one thread. extra: other actions timed with them."""
    with thread_limit(1):
        steppers = {name: Stepper(name, pack, sizes, optimisation) for name in names}
        times = interleaved({**steppers, **(extra or {})}, rounds)
    return {f"ms {name}": 1000 * seconds for name, seconds in times.items()}
