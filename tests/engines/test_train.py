"""The training loop: it learns, survives every kind of end, and resumes bit for bit."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engines import train_task
from tests.engines.train_task import CONFIG, STEPS, Net, regression
from vestige.core.errors import InputError, UsageError
from vestige.engines.run_log import read_log
from vestige.engines.run_state import RunState
from vestige.engines.train import (
    Interrupted,
    NonFiniteLossError,
    TrainConfig,
    TrainResult,
    clear_run,
    load_trained,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Results are the same bit for bit only for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> TrainResult:
    """The task, never interrupted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train_task.trainer(tmp_path_factory.mktemp("whole")).run()
    torch.set_num_threads(before)
    return result


def curve(out: Path) -> list[dict[str, Any]]:
    """The log without the clock."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(out)]


def assert_same(one: TrainResult, other: TrainResult) -> None:
    assert curve(one.out) == curve(other.out)
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    parts = [torch.load(r.out / "checkpoint.pt", weights_only=True)["parts"] for r in (one, other)]
    for name in ("model", "ema", "extra teacher"):
        assert all(torch.equal(value, parts[1][name][key]) for key, value in parts[0][name].items())


def test_it_learns_and_leaves_everything_behind(tmp_path):
    config = TrainConfig(steps=300, lr=0.05, weight_decay=0.0, log_every=50)
    result = regression(tmp_path, config, validate=lambda m: {"bias": m.bias.abs().max()}).run()
    assert result.loss < 1e-4
    assert result.metrics["validation"]["bias"] < 0.01
    names = {"config.json", "log.jsonl", "checkpoint.pt", "model.safetensors", "metrics.json", "loss.png"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "config.json").read_text())["config"]["lr"] == 0.05
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["stopped"], metrics["step"], metrics["parameters"]) == ("steps", 300, 10)
    assert [line["step"] for line in read_log(tmp_path)] == [50, 100, 150, 200, 250, 300]
    fresh = load_trained(tmp_path, nn.Linear(4, 2))
    x = torch.randn(3, 4)
    assert torch.equal(fresh(x), result.model(x))
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["steps"] == 300


def program(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    command = [sys.executable, "-m", "tests.engines.train_task", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)


def test_kill_9_and_resume_give_the_same_bits(tmp_path, whole):
    between, writing = tmp_path / "between", tmp_path / "writing"
    killed = [program(between, "19"), program(writing, "14", "save")]
    assert [process.wait() for process in killed] == [-signal.SIGKILL] * 2
    step = {p: torch.load(p / "checkpoint.pt", weights_only=True)["state"]["step"] for p in (between, writing)}
    assert step == {between: 14, writing: 7}
    assert read_log(between)[-1]["step"] == 18, "the log is ahead of the checkpoint and must be cut back"
    assert list(writing.glob(".*")), "the second one was killed while it wrote"
    for out in (between, writing):
        assert_same(whole, train_task.trainer(out).run())
        assert not list(out.glob(".*"))


def test_two_processes_do_what_one_does_with_two_parts(tmp_path, whole):
    """Batches are numbered over the processes, so both see the same ones and average the same gradients."""
    assert program(tmp_path, "parallel").wait() == 0
    for mine, theirs in zip(read_log(whole.out), read_log(tmp_path), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    weights = load_trained(tmp_path, Net()).state_dict()
    for name, value in whole.model.named_parameters():
        assert torch.allclose(value, weights[name], atol=1e-4), name


@pytest.mark.parametrize("at", [1, 6, 7, 16, STEPS - 1])
def test_a_crash_at_any_step_changes_nothing(tmp_path, whole, at):
    def crash(done: int) -> None:
        if done == at:
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train_task.trainer(tmp_path, after=crash).run()
    assert_same(whole, train_task.trainer(tmp_path).run())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_and_saves(tmp_path, whole, number, code):
    before = signal.getsignal(number)

    def interrupt(done: int) -> None:
        if done == 11:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="step 11 of 40") as caught:
        train_task.trainer(tmp_path, after=interrupt).run()
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["step"] == 11
    assert_same(whole, train_task.trainer(tmp_path).run())


def test_a_second_signal_does_not_wait(tmp_path):
    def impatient(done: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        train_task.trainer(tmp_path, after=impatient).run()


def test_a_finished_run_is_not_trained_again(whole):
    def never(done: int) -> None:
        raise AssertionError("trained again")

    before = (whole.out / "log.jsonl").read_bytes()
    again = train_task.trainer(whole.out, after=never).run()
    assert_same(whole, again)
    assert (whole.out / "log.jsonl").read_bytes() == before
    assert (again.step, again.loss, again.stopped) == (STEPS, whole.loss, "steps")


def test_the_caller_keeps_its_random_numbers_and_its_seed_does_not_matter(tmp_path, whole):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    model = Net()
    torch.manual_seed(123)
    result = train_task.trainer(tmp_path, model=model).run()
    assert torch.equal(torch.rand(1), expected)
    assert_same(whole, result)


def test_another_seed_is_another_run(tmp_path, whole):
    other = train_task.trainer(tmp_path, replace(CONFIG, seed=4)).run()
    assert [line["loss"] for line in read_log(other.out)] != [line["loss"] for line in read_log(whole.out)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": replace(CONFIG, lr=0.5)}, "lr=0.02 and this run has lr=0.5"),
        ({"config": replace(CONFIG, betas=(0.9, 0.99))}, "betas"),
        ({"model": Net(38)}, r"another model .*37×6 there, 38×6 here"),
        ({"about": {"recipe": "other"}}, "recipe=None and this run has recipe=other"),
        ({"config": replace(CONFIG, ema=None)}, "ema=0.9 and this run has ema=None"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_sentence(whole, change, words):
    before = (whole.out / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=words) as caught:
        train_task.trainer(whole.out, **change).run()
    assert "--fresh" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (whole.out / "checkpoint.pt").read_bytes() == before


def test_the_saving_interval_may_change(tmp_path, whole):
    def crash(done: int) -> None:
        if done == 20:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train_task.trainer(tmp_path, after=crash).run()
    assert_same(whole, train_task.trainer(tmp_path, replace(CONFIG, checkpoint_every=3)).run())


class Trap:
    def __reduce__(self):
        return (os.system, ("touch trapped",))


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", pickle.dumps(Trap(), 2), None], ids=str.split("empty text hostile cut")
)
def test_a_damaged_or_hostile_checkpoint_is_refused(tmp_path, monkeypatch, whole, content):
    monkeypatch.chdir(tmp_path)
    whole_bytes = (whole.out / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole_bytes[: len(whole_bytes) // 2] if content is None else content)
    with pytest.raises(InputError, match="damaged"):
        train_task.trainer(tmp_path).run()
    assert not (tmp_path / "trapped").exists()


def test_a_part_that_could_not_be_read_back_is_refused_at_the_first_checkpoint(tmp_path):
    class Odd:
        def state_dict(self) -> dict[str, object]:
            return {"value": Trap()}

        def load_state_dict(self, state: object) -> None: ...

    with pytest.raises(UsageError, match="cannot be saved safely"):
        regression(tmp_path, TrainConfig(steps=3), extra={"odd": Odd()}).run()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path, bad):
    def step(model: nn.Module, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": model(batch[0]).mean() * (bad if batch[1] == 7 else 1.0)}

    trainer = regression(
        tmp_path, TrainConfig(steps=20, checkpoint_every=5), step=step, batches=lambda n, g: (torch.ones(2, 4), n)
    )
    with pytest.raises(NonFiniteLossError, match="at step 8;"):
        trainer.run()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["state"]["step"] == 5
    assert all(v.isfinite().all() for v in saved["parts"]["model"].values())


def test_a_loss_found_late_still_names_its_step(tmp_path):
    """On an accelerator the losses are looked at when they are logged or saved."""
    trainer = regression(tmp_path, TrainConfig(steps=20, accumulate=2))
    state = RunState(step=9, logged=4)
    for value in (1.0, 1.0, 1.0, 1.0, 1.0, float("nan")):  # steps 5, 5, 6, 6, 7, 7
        state.meter.add({"loss": torch.tensor(value)})
    with pytest.raises(NonFiniteLossError, match="at step 7;"):
        trainer._check_finite(state)


def test_budget_stops_and_a_larger_one_goes_on(tmp_path):
    config = TrainConfig(steps=30, log_every=10, budget_seconds=0.15)
    slow = {"on_step": lambda done, model: time.sleep(0.02)}
    short = regression(tmp_path, config, **slow).run()
    assert short.stopped == "budget"
    assert 1 <= short.step < 30
    assert read_log(tmp_path)[-1]["step"] == short.step
    same = regression(tmp_path, config, **slow).run()
    assert same.step == short.step, "the budget counts earlier sessions"
    full = regression(tmp_path, replace(config, budget_seconds=60.0), **slow).run()
    assert (full.stopped, full.step) == ("steps", 30)
    assert full.seconds > short.seconds


def test_the_schedule_can_follow_the_time(tmp_path):
    config = TrainConfig(
        steps=10_000, lr=0.1, log_every=1, budget_seconds=0.2, schedule="linear", schedule_by="time", warmup=0
    )
    regression(tmp_path, config, on_step=lambda done, model: time.sleep(0.01)).run()
    lines = read_log(tmp_path)
    assert len(lines) > 1
    for before, line in itertools.pairwise(lines):
        assert line["lr"] == pytest.approx(0.1 * (1 - before["seconds"] / 0.2), abs=1e-3)


@pytest.mark.parametrize("value", [{}, 1.0, {"loss": torch.ones(2, requires_grad=True)}, {"loss": torch.ones(())}])
def test_a_step_without_a_usable_loss_says_so(tmp_path, value):
    with pytest.raises(UsageError, match='scalar "loss"'):
        regression(tmp_path, TrainConfig(steps=1), step=lambda model, batch, generator: value).run()


def test_load_trained_names_what_is_wrong(tmp_path, whole):
    with pytest.raises(InputError, match="cannot be read"):
        load_trained(tmp_path, Net())
    with pytest.raises(InputError, match="another model"):
        load_trained(whole.out, Net(5))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        load_trained(tmp_path, Net())


def test_clear_run_leaves_other_files(tmp_path):
    regression(tmp_path, TrainConfig(steps=2)).run()
    regression(tmp_path / "part", TrainConfig(steps=2)).run()
    (tmp_path / "notes.txt").write_text("mine")
    clear_run(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["notes.txt"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"clip": -1.0}, {"ema": 1.0},
        {"warmup": -1}, {"optimizer": "lion"}, {"schedule": "step"}, {"precision": "16"}, {"betas": (0.9, 1.0)},
        {"budget_seconds": 0.0}, {"schedule_by": "epoch"}, {"strategy": "fsdp"}, {"accumulate": 0}, {"log_every": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainConfig(**wrong)
