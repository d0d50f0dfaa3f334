"""A training inside a computation that is interrupted says what is lost and names no folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from vestige.app.verbs.learning import run
from vestige.core.errors import Interrupted
from vestige.engines.fitting import fit
from vestige.engines.train import TrainConfig


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_keeps_nothing_and_says_so(number: signal.Signals, code: int) -> None:
    def step(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), number)
        return {"loss": model(batch).square().mean()}

    with pytest.raises(Interrupted, match="starts anew") as stopped:
        fit(nn.Linear(1, 1), step, lambda n, g: torch.ones(2, 1), TrainConfig(steps=5))
    assert stopped.value.exit_code == code
    assert "vestige-fit" not in str(stopped.value)


@pytest.mark.parametrize(("where", "said"), [("build", "before the training"), ("save", "training is finished")])
def test_ctrl_c_before_and_after_a_training_is_one_sentence(tmp_path: Path, where: str, said: str) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        f"""
import torch
from torch import nn
from vestige.engines.recipe import Job, Recipe
from vestige.engines.train import TrainConfig

def stop(*_):
    raise KeyboardInterrupt

def build(ctx):
    if {where!r} == "build":
        stop()
    step = lambda model, batch, generator: {{"loss": model(batch).square().mean()}}
    return Job(nn.Linear(1, 1), step, lambda n, g: torch.ones(2, 1), save=stop)

RECIPE = Recipe(name="stopped", about="", build=build, config=TrainConfig(steps=2))
"""
    )
    with pytest.raises(Interrupted, match=said):
        run(str(recipe), tmp_path / "out", device="cpu", quiet=True)
    assert (tmp_path / "out" / "model.safetensors").is_file() == (where == "save")
