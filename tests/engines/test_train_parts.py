"""The parts of the training loop: groups, schedules, averages, logs."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.engines.ema import EMA, cosine_momentum
from vestige.engines.optim import learning_rate, make_optimizer, parameter_groups, set_lr
from vestige.engines.run_log import Meter, RunLog, TrainingBar, finite, plot_loss, read_log


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.wide_norm = nn.LayerNorm((2, 2))
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.again = self.conv

    def no_weight_decay(self) -> set[str]:
        return {"token"}


def test_only_matrices_and_kernels_decay():
    model = Block()
    decayed, rest = parameter_groups(model, 0.3)
    assert decayed["params"] == [model.conv.weight]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in rest["params"]} == {
        "conv.bias", "norm.weight", "norm.bias", "wide_norm.weight", "wide_norm.bias", "token", "scale",
    }  # fmt: skip
    with pytest.raises(UsageError, match="no trainable"):
        parameter_groups(model.frozen, 0.1)


def test_weight_decay_shrinks_only_its_group():
    model = nn.Linear(3, 3)
    bias = model.bias.detach().clone()
    weight = model.weight.detach().clone()
    optimizer = make_optimizer(parameter_groups(model, 0.5), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(model.bias, bias)
    assert torch.allclose(model.weight, weight * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizers_minimise_and_groups_keep_their_ratio(name):
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    groups = [{"params": iter([a])}, {"params": [b], "lr": 0.01}]
    optimizer = make_optimizer(groups, name, lr=0.1, weight_decay=0.0)
    set_lr(optimizer, 0.02)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.02, 0.002])
    for _ in range(20):
        optimizer.zero_grad()
        (a.square().sum() + b.square().sum()).backward()
        optimizer.step()
    assert a.abs().max() < b.abs().max() < 1


def test_what_cannot_be_optimised_is_refused():
    with pytest.raises(UsageError, match="choose adamw or sgd"):
        make_optimizer([nn.Parameter(torch.ones(1))], "lamb")
    with pytest.raises(UsageError, match="no parameters"):
        make_optimizer([])


@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.one_of(st.integers(0, 300), st.floats(0, 1)),
    st.integers(1, 200),
    st.floats(0, 0.5),
)
def test_learning_rates_rise_through_the_warmup_and_then_never(schedule, warmup, steps, low):
    settings = {"lr": 1.0, "min_lr": low, "warmup": warmup, "steps": steps, "schedule": schedule}
    rates = [learning_rate(s, s / steps, **settings) for s in range(steps)]
    assert all(0 < r <= 1 for r in rates)
    ramp = warmup if warmup >= 1 else warmup * steps
    for s, (before, after) in enumerate(itertools.pairwise(rates)):
        if s + 1 < ramp:
            assert after > before or math.isclose(after, before)
        elif s >= ramp:
            assert after <= before + 1e-12
    if schedule == "constant" and ramp <= 1:
        assert set(rates) == {1.0}


def test_schedules_by_hand():
    half = {"lr": 2.0, "min_lr": 1.0, "warmup": 0, "steps": 10}
    assert learning_rate(5, 0.5, schedule="cosine", **half) == pytest.approx(1.5)
    assert learning_rate(2, 0.25, schedule="linear", **half) == pytest.approx(1.75)
    assert learning_rate(9, 1.0, schedule="cosine", **half) == pytest.approx(1.0)
    assert learning_rate(9, 0.9, schedule="constant", **half) == 2.0
    # In time, step 3 of a warm-up of 10 steps is warming up however much of the budget is gone.
    assert learning_rate(3, 0.5, lr=1.0, min_lr=0.0, warmup=10, steps=100, schedule="cosine") == pytest.approx(0.4)


def test_ema_follows_weights_and_statistics():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(model, 0.9, warm=False)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    model(torch.randn(8, 2))
    ema.update(model, 0)
    for name, value in ema.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.9 * start[name] + 0.1 * model.state_dict()[name]), name
        else:
            assert value == 1
    assert not any(p.requires_grad for p in ema.parameters())
    ema.train()
    assert not ema.module.training
    assert ema(torch.randn(3, 2)).shape == (3, 2)


def test_ema_survives_replaced_buffers_and_moved_models():
    class Queue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("queue", torch.zeros(2))

    model = Queue()
    ema = EMA(model, 0.0, warm=False)
    for value in (1.0, 2.0):
        model.queue = torch.full((2,), value)
        ema.update(model, 0)
        assert ema.module.queue.tolist() == [value, value]
        ema.double().float()
    other = Queue()
    other.queue.fill_(7.0)
    ema.update(other, 0)
    assert ema.module.queue.tolist() == [7.0, 7.0]


def test_ema_warms_up_and_takes_a_schedule():
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.999)
    start = model.weight.item()
    with torch.no_grad():
        model.weight.add_(1.0)
    ema.update(model, 0)  # (1 + 0) / (10 + 0) = 0.1
    assert ema.module.weight.item() == pytest.approx(start + 0.9)
    ema = EMA(model, cosine_momentum(0.5, 10), warm=False)
    ema.update(nn.Linear(1, 1, bias=False), 10)
    assert ema.module.weight.item() == model.weight.item(), "the momentum is 1 at the end"
    with pytest.raises(UsageError):
        EMA(model, 1.5)
    with pytest.raises(UsageError):
        cosine_momentum(0.9, 0)


def test_meter_means_tensors_and_numbers_and_ignores_the_rest():
    meter = Meter({"loss": [1.0]})
    meter.add({"loss": torch.tensor([3.0], requires_grad=True), "n": 2, "map": torch.zeros(4), "word": "x"})
    meter.add({"n": torch.tensor(4)})
    assert meter.floats() == {"loss": [1.0, 3.0], "n": [2.0, 4.0]}
    assert meter.means() == {"loss": 2.0, "n": 3.0}
    meter.clear()
    assert meter.floats() == {}


def test_log_is_cut_back_and_a_torn_line_is_ignored(tmp_path):
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write({"step": 1, "loss": float("nan")})
        kept = log.sync()
        log.write({"step": 2})
    path.write_bytes(path.read_bytes() + b'{"step": 3, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": None}, {"step": 2}]
    with RunLog(path, kept) as log:
        log.write({"step": 2, "again": True})
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {"step": 2, "again": True}
    with RunLog(path, 10**9) as log:
        assert log.sync() == path.stat().st_size, "a log that was shortened by someone is continued"
    with RunLog(None) as log:
        log.write({"step": 1})
        assert log.sync() == 0
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "elsewhere")
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="Cannot write"):
        RunLog(path)


def test_finite_makes_values_json_can_hold():
    import numpy as np

    value = {
        "a": float("inf"),
        1: (torch.tensor(2.0), np.float32(0.5), np.arange(2)),
        "t": torch.tensor([float("nan")]),
    }
    assert finite(value) == {"a": None, "1": [2.0, 0.5, [0, 1]], "t": [None]}
    json.dumps(finite(value), allow_nan=False)


def test_plot_needs_a_loss(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": null, "lr": 0.1}\n')
    plot_loss(tmp_path)
    assert not (tmp_path / "loss.png").exists()
    (tmp_path / "log.jsonl").write_text(
        "".join(f'{{"step": {i}, "loss": {100 / i}, "lr": 0.1}}\n' for i in range(1, 50))
    )
    plot_loss(tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_bar_shows_loss_and_speed_on_a_terminal_only(monkeypatch, capsys):
    import sys

    with TrainingBar(10, quiet=False) as bar:
        bar.update(1, 0.1, 2.0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(TrainingBar, "_EVERY", 0.0)
    with TrainingBar(10, quiet=False) as bar:
        bar.update(1, 0.1, 2.0)
        bar.update(2, 0.2, torch.tensor(0.125))
        text = bar._bar.tasks[0].description
    assert text.startswith("2/10  loss 0.125")
    assert text.endswith("it/s")
    with TrainingBar(10, quiet=True) as bar:
        assert bar._bar is None
