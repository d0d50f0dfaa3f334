"""Long work in parts that are kept: what a recipe's ``perform`` finished before a kill is not done again.

A part is a JSON value or a model's weights, in a file of its own under the run's folder, named by what it is. Its
training log lies beside it, so that curves can be judged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from vestige.core.errors import UsageError
from vestige.core.files import read_json, write_json
from vestige.engines.recipe import Job, RecipeContext
from vestige.engines.run_log import finite
from vestige.engines.run_state import load_trained, write_model
from vestige.engines.train import TrainConfig, Trainer

N = TypeVar("N", bound=nn.Module)


def figures(ctx: RecipeContext, name: str, compute: Callable[[], Any]) -> Any:
    """The JSON value of ``compute()``, from ``ctx.out``/NAME.json where an earlier session wrote it."""
    path = _path(ctx.out, name, ".json")
    if not path.is_file():
        write_json(path, finite(compute()))
    return read_json(path)


def trained(ctx: RecipeContext, name: str, job: Job, config: TrainConfig | None = None) -> nn.Module:
    """Train ``job.model`` in the folder ``ctx.out``/NAME, or go on there, and return it in evaluation mode."""
    trainer = Trainer(
        job.model, job.step, job.batches, config or ctx.config, out=ctx.out / name, validate=job.validate,
        extra=job.extra, parameters=job.parameters, on_step=job.on_step, device=ctx.device, quiet=ctx.quiet,
    )  # fmt: skip
    return trainer.run().model


def weights(ctx: RecipeContext, name: str, model: N, change: Callable[[N], N]) -> N:
    """``change(model)``, a network of the same shape, from ``ctx.out``/NAME.safetensors where it was written before."""
    path = _path(ctx.out, name, ".safetensors")
    if path.is_file():
        load_trained(path, model)
        return model.eval()
    changed = change(model)
    write_model(path, changed, {"part": name})
    return changed.eval()


def _path(out: Path, name: str, ending: str) -> Path:
    if not name or name.startswith((".", "/")) or ".." in name:
        raise UsageError(f"A part of a run needs a plain name; got {name!r}.")
    return out / f"{name}{ending}"
