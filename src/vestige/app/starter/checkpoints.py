"""Two checkpoints of pickles to scan: one of plain weights, one whose loading calls a function."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vestige.core.files import write_atomic


class _Caller:
    """Pickled as the call eval("None"): to a scanner a way to run any code, and harmless if it is loaded after all."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, ("None",)


def write(folder: Path) -> list[str]:
    """checkpoints/weights.pt and checkpoints/runs-code.pt."""
    place = folder / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    weights = {"layer.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "epoch": 3}
    write_atomic(place / "weights.pt", pickle.dumps(weights, protocol=4))
    write_atomic(place / "runs-code.pt", pickle.dumps({"layer.weight": [0.0, 1.0], "hook": _Caller()}, protocol=4))
    return ["checkpoints/weights.pt", "checkpoints/runs-code.pt"]
