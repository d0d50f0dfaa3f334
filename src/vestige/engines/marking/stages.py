"""When the parts of a mark's training begin: gates that open by the accuracy reached, and weights that move linearly.

An embedder that is asked for fidelity before its reader can read stays silent for good: the cheapest change is none.
So bits come first, then masks, then distortions, then fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.errors import UsageError


def ramp(step: float, points: Sequence[tuple[float, float]]) -> float:
    """Piecewise linear through (step, value) points with rising steps; constant outside them.

    >>> [ramp(s, [(0, 20.0), (100, 0.0)]) for s in (-5, 50, 1000)]
    [20.0, 10.0, 0.0]
    """
    steps, values = zip(*points, strict=True)
    return float(np.interp(step, steps, values))


@dataclass(frozen=True)
class Stage:
    """A part of the training that begins once the one before has.

    wait: updates since the one before began. accuracy: running bit accuracy that must be reached. patience: begin
    after so many updates anyway; None never. ramp: updates in which its level rises from 0 to 1.
    """

    name: str
    wait: int = 0
    accuracy: float = 0.0
    patience: int | None = None
    ramp: int = 1


class Stages:
    """Which stages have begun; part of the checkpoint.

    Call `update` once after every update of the weights with its bit accuracy. Raises UsageError for repeated names.

    >>> stages = Stages([Stage("distortions", accuracy=0.9, ramp=4)], memory=0.0)
    >>> for accuracy in (0.5, 0.95, 0.95, 0.95):
    ...     stages.update(accuracy)
    >>> stages.level("distortions")
    0.5
    """

    def __init__(self, stages: Sequence[Stage], memory: float = 0.95) -> None:
        self.stages = tuple(stages)
        names = [s.name for s in self.stages]
        if len(set(names)) != len(names):
            raise UsageError(f"Stages must have different names; got {', '.join(names)}.")
        self.memory = memory
        self.step, self.accuracy = 0, 0.0
        self.begun: list[int] = []

    def level(self, name: str) -> float:
        """0 before the stage, rising to 1 over its ramp; 1 for a stage this training does not have."""
        for i, stage in enumerate(self.stages):
            if stage.name == name:
                return min(1.0, (self.step - self.begun[i]) / stage.ramp) if i < len(self.begun) else 0.0
        return 1.0

    def update(self, accuracy: float) -> None:
        """Count one update and begin the next stage when its conditions hold."""
        self.step += 1
        self.accuracy = self.memory * self.accuracy + (1 - self.memory) * accuracy
        if len(self.begun) == len(self.stages):
            return
        stage = self.stages[len(self.begun)]
        waited = self.step - (self.begun[-1] if self.begun else 0)
        ready = waited >= stage.wait and self.accuracy >= stage.accuracy
        if ready or (stage.patience is not None and waited >= stage.patience):
            self.begun.append(self.step)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "accuracy": self.accuracy, "begun": list(self.begun)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.accuracy = int(state["step"]), float(state["accuracy"])
        self.begun = [int(step) for step in state["begun"]]
