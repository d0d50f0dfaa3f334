"""What the settings of the training loop do to a run: parts of a batch, averages, precision, layouts, compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.engines.train_task import regression
from vestige.engines.run_log import read_log
from vestige.engines.train import TrainConfig, load_trained


def test_accumulated_parts_equal_one_large_batch(tmp_path):
    data = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0))

    def step(model: nn.Module, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": model(batch).square().mean()}

    weights = []
    for parts in (1, 2):
        config = TrainConfig(steps=3, optimizer="sgd", lr=0.1, accumulate=parts)
        torch.manual_seed(1)
        model = nn.Linear(4, 2)

        def batches(number: int, generator: torch.Generator, parts: int = parts) -> Tensor:
            return data[2 * number : 2 * number + 2].flatten(0, 1) if parts == 1 else data[number]

        regression(tmp_path / str(parts), config, model=model, step=step, batches=batches).run()
        weights.append(model.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


def test_what_is_validated_and_saved_is_the_average(tmp_path):
    seen = []
    trainer = regression(
        tmp_path, TrainConfig(steps=30, lr=0.05, ema=0.95, validate_every=10),
        validate=lambda model: (seen.append((model, model.training)), {"norm": model.weight.norm()})[1],
    )  # fmt: skip
    result = trainer.run()
    assert result.model is not trainer.model
    assert all(model is result.model and not training for model, training in seen)
    assert len(seen) == 3, "the validation of the last step is not repeated"
    assert not torch.equal(result.model.weight, trainer.model.weight)
    assert torch.equal(load_trained(tmp_path, nn.Linear(4, 2)).weight, result.model.weight)
    assert [line["step"] for line in read_log(tmp_path) if "validation" in line] == [10, 20, 30]


class Pair(NamedTuple):
    images: Tensor
    label: int


@dataclass(frozen=True)
class Views:
    images: Tensor
    names: list[str]


def test_batches_of_any_form_arrive_as_they_are_in_channels_last(tmp_path):
    images = torch.rand(2, 3, 4, 4)
    forms = [Pair(images, 1), Views(images, ["a"]), [images, None], {"images": images, "n": 2}]

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        got = batch[0] if isinstance(batch, tuple | list) else getattr(batch, "images", None)
        got = batch["images"] if got is None else got
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert model.weight.is_contiguous(memory_format=torch.channels_last)
        kinds.append(type(batch))
        return {"loss": model(got).mean(), "ignored": got, "number": 2}  # type: ignore[dict-item]

    kinds: list[type] = []
    regression(
        tmp_path, TrainConfig(steps=4, channels_last=True, log_every=2), model=nn.Conv2d(3, 2, 2), step=step,
        batches=lambda number, generator: forms[number],
    ).run()  # fmt: skip
    assert kinds == [Pair, Views, list, dict]
    assert set(read_log(tmp_path)[0]) == {"step", "loss", "number", "lr", "seconds"}


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(tmp_path):
    seen = []

    def step(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        output = model(batch["x"])
        seen.append(output.dtype)
        return {"loss": (output.float() - batch["y"]).square().mean()}

    trainer = regression(tmp_path, TrainConfig(steps=40, lr=0.05, precision="bf16"), step=step)
    trainer.run()
    losses = [line["loss"] for line in read_log(tmp_path)]
    assert set(seen) == {torch.bfloat16}
    assert trainer.model.weight.dtype == torch.float32
    assert losses[-1] < losses[0]


def test_a_compiled_model_has_the_same_names(tmp_path, monkeypatch):
    """The compiler itself takes long to start, so a stand-in takes its place in the module."""
    calls = []

    def stand_in(module: nn.Module) -> None:
        module._compiled_call_impl = lambda *given: (calls.append(module), module._call_impl(*given))[1]

    monkeypatch.setattr(nn.Module, "compile", stand_in)
    trainer = regression(tmp_path, TrainConfig(steps=3, compile=True, ema=0.5))
    trainer.run()
    assert calls == [trainer.model] * 3
    load_trained(tmp_path, nn.Linear(4, 2))


def test_tied_weights_are_saved(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))[:, :2]

    result = regression(tmp_path, TrainConfig(steps=3), model=Tied()).run()
    assert torch.equal(load_trained(tmp_path, Tied()).b.weight, result.model.a.weight)
