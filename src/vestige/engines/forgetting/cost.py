"""What forgetting costs: seconds, samples passed forward and backward, optimiser steps, peak memory."""

from __future__ import annotations

import contextlib
import contextvars
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """seconds of wall time; forward and backward: samples passed; steps of an optimiser; peak_mb: the most memory the
    process (or the GPU) held meanwhile, NaN where the system does not tell."""

    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    steps: int = 0
    peak_mb: float = float("nan")

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: an unknown peak is None."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


_ACTIVE: contextvars.ContextVar[tuple[Cost, ...]] = contextvars.ContextVar("vestige_costs", default=())


def count(*, forward: int = 0, backward: int = 0, steps: int = 0) -> None:
    """Add to every cost that is being measured."""
    for cost in _ACTIVE.get():
        cost.forward += forward
        cost.backward += backward
        cost.steps += steps


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what happens inside; measurements may be nested.

    >>> with measured() as cost:
    ...     count(forward=3)
    >>> cost.forward, cost.seconds >= 0
    (3, True)
    """
    cost = Cost()
    token = _ACTIVE.set((*_ACTIVE.get(), cost))
    if len(_ACTIVE.get()) == 1:  # a nested measurement would wipe out the peak of the outer one
        _reset_peak()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        cost.peak_mb = _peak_mb()
        _ACTIVE.reset(token)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts from the present size


def _peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    return float("nan") if line is None else int(line.split()[1]) / 1024
