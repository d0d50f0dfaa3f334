"""The training loop: a step function in, a trained model, a log and a plot out.

One update is: learning rate, batch, loss, backward (``accumulate`` times), clip, optimiser, moving average. Everything
random in update number s is drawn from generators seeded by (seed, s), so a run that is killed and started again does
exactly what it would have done: on a CPU with the same number of threads its log and weights are the same bit for bit.

>>> import tempfile
>>> model = nn.Linear(2, 1)
>>> def batches(step, generator):
...     x = torch.randn(16, 2, generator=generator)
...     return x, x.sum(1, keepdim=True)
>>> def step(model, batch, generator):
...     return {"loss": (model(batch[0]) - batch[1]).square().mean()}
>>> config = TrainConfig(steps=200, lr=0.05)
>>> with tempfile.TemporaryDirectory() as out:
...     result = Trainer(model, step, batches, config, out=Path(out), device="cpu", quiet=True).run()
>>> result.loss < 0.1
True
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core import runtime
from vestige.core.errors import UsageError
from vestige.core.files import write_json
from vestige.engines.ema import EMA
from vestige.engines.optim import learning_rate, make_optimizer, parameter_groups, set_lr
from vestige.engines.run_log import Meter, RunLog, TrainingBar, finite, plot_loss, read_log
from vestige.engines.run_state import (
    Interrupted,
    NonFiniteLossError,
    RunFiles,
    RunState,
    Signals,
    clear_run,
    load_trained,
    write_model,
)
from vestige.engines.train_config import TrainConfig
from vestige.nn.layout import channels_last, safe_strides

__all__ = [
    "Batch", "Interrupted", "NonFiniteLossError", "Step", "TrainConfig", "TrainResult", "Trainer", "clear_run",
    "load_trained", "read_log",
]  # fmt: skip

Batch = Any
#: (model, batch, generator) -> {"loss": scalar, other scalars to log}. The generator is on the model's device.
Step = Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives. model: in evaluation mode, the moving average where one was kept. loss: mean since the
    last but one log line. stopped: "steps" or "budget". metrics: as in metrics.json."""

    out: Path
    model: nn.Module
    step: int
    seconds: float
    loss: float
    stopped: str
    metrics: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains ``model`` by ``step`` on ``batches``; `run` resumes by itself from what ``out`` holds.

    batches: (number, generator) -> batch, a pure function of the two; tensors in it (also in tuples, lists,
    dictionaries and dataclasses) are moved to the device. The number counts batches over the whole run and all
    devices, from 0; the generator is on the CPU. step: see `Step`. validate: model -> metrics, without gradients.
    extra: modules and objects with state_dict/load_state_dict that belong to the checkpoint, such as a teacher.
    parameters: parameters or groups for the optimiser instead of those of `parameter_groups`, which leave biases,
    norms and everything one-dimensional out of weight decay; may include those of ``extra`` (on one device: only the
    model's own gradients are shared between processes). on_step: called after every update with the number of updates
    done and the model. about: JSON-like facts that are recorded with the run and must be the same when it resumes.

    ``out`` gets config.json, log.jsonl, checkpoint.pt, model.safetensors, metrics.json and loss.png.
    """

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        batches: Callable[[int, torch.Generator], Batch],
        config: TrainConfig,
        *,
        out: str | Path,
        validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        extra: Mapping[str, Any] | None = None,
        parameters: Iterable[nn.Parameter | Mapping[str, Any]] | None = None,
        on_step: Callable[[int, nn.Module], None] | None = None,
        device: str | torch.device = "auto",
        quiet: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.step = step
        self.batches = batches
        self.config = config
        self.out = Path(out)
        self.validate = validate
        self.extra = dict(extra or {})
        self.parameters = None if parameters is None else list(parameters)
        self.on_step = on_step
        self.device = runtime.device(str(device))
        self.quiet = quiet
        self.about = dict(about or {})
        self.leader = True

    def run(self) -> TrainResult:
        """Train to the end, from the checkpoint in ``out`` where there is one.

        Raises Interrupted on SIGINT or SIGTERM, after the current update is finished and saved; NonFiniteLossError,
        naming the update; InputError when the checkpoint is damaged or belongs to another model or configuration.
        """
        self._set_up()
        c = self.config
        about = {**self.about, "model": type(self.model).__name__}
        parts = {"model": self.model, "optimizer": self.optimizer, **{f"extra {k}": v for k, v in self.extra.items()}}
        if self.ema is not None:
            parts["ema"] = self.ema
        self.files = RunFiles(self.out, c, about, parts)
        state = self.files.load()
        machine = {"versions": runtime.versions("vestige", "torch", "lightning-fabric"), "hardware": runtime.hardware()}
        if self.leader:
            write_json(self.out / "config.json", finite({"config": asdict(c), "about": about, **machine}))
        self.model.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # Inside, because these seed the global generators, which belong to the caller.
            self._loop(state)
            if self.validate is not None and (state.validation or {}).get("step") != state.step:
                state.validation = {"step": state.step, **self._validated()}
        final = (self.ema.module if self.ema is not None else self.model).eval()
        metrics: dict[str, Any] = {
            "step": state.step,
            "steps": c.steps,
            "stopped": self._ended(state),
            "seconds": round(state.seconds, 3),
            "core_seconds": round(state.core_seconds, 3),
            "loss": state.loss,
            "validation": state.validation,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **machine,
        }
        if self.leader:
            write_model(
                self.out / "model.safetensors", final, {"config": asdict(c), "about": about, "step": state.step}
            )
            write_json(self.out / "metrics.json", finite(metrics))
            plot_loss(self.out)
        self.fabric.barrier()
        return TrainResult(self.out, final, state.step, state.seconds, state.loss, str(metrics["stopped"]), metrics)

    def _set_up(self) -> None:
        """Devices, precision, optimiser and wrappers."""
        from lightning_fabric import Fabric  # takes seconds to import, and settings and recipes do without it

        c = self.config
        if self.device.type == "cpu":
            runtime.keep_freed_memory()
        bf16 = c.precision == "bf16" or (c.precision == "auto" and runtime.bf16_pays(self.device))
        chosen = [self.device.index] if self.device.index is not None and self.device.type != "cpu" else c.devices
        self.fabric = Fabric(
            accelerator=self.device.type,
            devices=chosen,
            strategy=c.strategy,
            precision="bf16-mixed" if bf16 else "32-true",
        )
        if c.devices > 1 or c.strategy != "auto":
            self.fabric.launch()
        self.device = self.fabric.device
        self.leader = self.fabric.is_global_zero
        self.model.to(self.device)
        safe_strides(self.model)
        if c.channels_last:
            channels_last(self.model)
        self.ema = EMA(self.model, c.ema) if c.ema is not None else None
        if c.compile:
            self.model.compile()
        for thing in self.extra.values():
            if isinstance(thing, nn.Module):
                thing.to(self.device)
        groups = self.parameters if self.parameters is not None else parameter_groups(self.model, c.weight_decay)
        self.optimizer = make_optimizer(
            groups, c.optimizer, lr=c.lr, betas=c.betas, weight_decay=c.weight_decay, momentum=c.momentum
        )
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._module, self._stepper = self.fabric.setup(_StepModule(self.model, self.step), self.optimizer)
        self._batch_generator = torch.Generator()
        self._step_generator = torch.Generator(self.device)

    def _loop(self, state: RunState) -> None:
        c = self.config
        with (
            RunLog(self.out / "log.jsonl" if self.leader else None, state.log_bytes) as log,
            TrainingBar(c.steps, self.quiet or not self.leader) as bar,
            Signals() as signals,
        ):
            saved = state.step
            clock, cores = time.perf_counter(), time.process_time()
            while self._ended(state) is None:
                loss = self._update(state)
                state.step += 1
                now = time.perf_counter()
                state.seconds += now - clock
                worked = time.process_time()
                state.core_seconds += worked - cores
                clock, cores = now, worked
                stop = signals.received  # looked at once a step, so that all processes decide alike
                if self.fabric.world_size > 1:
                    state.seconds, agreed = self._shared([state.seconds, float(stop)], "max")
                    stop = int(agreed)
                bar.update(state.step, c.fraction(state.step, state.seconds), loss)
                validating = bool(self.validate and c.validate_every and state.step % c.validate_every == 0)
                if state.step % c.log_every == 0 or validating or self._ended(state):
                    line = self._line(state)
                    if validating:
                        state.validation = {"step": state.step, **self._validated()}
                        line["validation"] = {k: v for k, v in state.validation.items() if k != "step"}
                        clock = time.perf_counter()
                    log.write(line)
                if state.step % c.checkpoint_every == 0 or stop:
                    saved = self._save(state, log)
                    clock, cores = time.perf_counter(), time.process_time()
                if stop and self._ended(state) is None:
                    raise Interrupted(stop, state.step, c.steps, self.out)
            if saved != state.step:
                self._save(state, log)

    def _save(self, state: RunState, log: RunLog) -> int:
        """Write the checkpoint; returns its step."""
        self._check_finite(state)
        if self.fabric.world_size > 1:  # one checkpoint holds what all processes saw
            pending = sorted(state.meter.floats().items())
            state.meter = Meter({name: self._shared(values) for name, values in pending})
        if self.leader:
            state.log_bytes = log.sync()
            self.files.save(state)
        return state.step

    def _update(self, state: RunState) -> Tensor:
        """One update of the weights; returns its last loss."""
        c = self.config
        rate = learning_rate(
            state.step, c.fraction(state.step, state.seconds), lr=c.lr, min_lr=c.min_lr, warmup=c.warmup,
            steps=c.steps, schedule=c.schedule,
        )  # fmt: skip
        set_lr(self.optimizer, rate)
        state.lr = rate
        world, rank = self.fabric.world_size, self.fabric.global_rank
        for part in range(c.accumulate):
            number = (state.step * c.accumulate + part) * world + rank
            self._seed(number)
            batch = _to_device(self.batches(number, self._batch_generator), self.device, c.channels_last)
            last = part == c.accumulate - 1
            with contextlib.nullcontext() if last or world == 1 else self.fabric.no_backward_sync(self._module):
                if world > 1:
                    scalars = self._module(_Call(batch, self._step_generator))
                else:  # the wrapper has nothing to add but its own time
                    with self.fabric.autocast():
                        scalars = self.step(self.model, batch, self._step_generator)
                loss = _loss_of(scalars)
                if self.device.type == "cpu" and not math.isfinite(loss.item()):
                    raise NonFiniteLossError(loss.item(), state.step + 1, c.lr, self.out)
                self.fabric.backward(loss if c.accumulate == 1 else loss / c.accumulate)
            state.meter.add(scalars)
        if c.clip is not None:
            nn.utils.clip_grad_norm_(self._trained, c.clip)
        self._stepper.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, state.step)
        if self.on_step is not None:
            self.on_step(state.step + 1, self.model)
        return loss.detach()

    def _seed(self, number: int) -> None:
        """Generators of batch ``number``; the global one too, because dropout layers use it."""
        digest = hashlib.sha256(f"{self.config.seed}/{number}".encode()).digest()
        self._batch_generator.manual_seed(int.from_bytes(digest[:7], "little"))
        self._step_generator.manual_seed(int.from_bytes(digest[8:15], "little"))
        everywhere = int.from_bytes(digest[16:23], "little")
        torch.default_generator.manual_seed(everywhere)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(everywhere)
        elif self.device.type == "mps":
            torch.mps.manual_seed(everywhere)

    def _ended(self, state: RunState) -> str | None:
        if state.step >= self.config.steps:
            return "steps"
        budget = self.config.budget_seconds
        return "budget" if budget is not None and state.seconds >= budget else None

    def _shared(self, values: list[float], how: str = "mean") -> list[float]:
        """The mean or maximum of each value over all processes."""
        reduced = self.fabric.all_reduce(torch.tensor(values, dtype=torch.float64, device=self.device), reduce_op=how)
        assert isinstance(reduced, Tensor)
        return reduced.tolist()

    def _line(self, state: RunState) -> dict[str, Any]:
        """The log line of this step: means over the steps since the last one."""
        self._check_finite(state)
        means = state.meter.means()
        if self.fabric.world_size > 1:
            means = {name: self._shared([mean])[0] for name, mean in sorted(means.items())}
        state.meter.clear()
        state.logged, state.loss = state.step, means["loss"]
        rest = {k: v for k, v in means.items() if k != "loss"}
        return {
            "step": state.step, "loss": means["loss"], **rest, "lr": state.lr, "seconds": round(state.seconds, 3),
        }  # fmt: skip

    def _check_finite(self, state: RunState) -> None:
        """Raise NonFiniteLossError when a loss since the last log line is NaN or infinite."""
        for i, loss in enumerate(state.meter.floats().get("loss", [])):
            if not math.isfinite(loss):
                raise NonFiniteLossError(loss, state.logged + 1 + i // self.config.accumulate, self.config.lr, self.out)

    def _validated(self) -> dict[str, float]:
        assert self.validate is not None
        model = self.ema.module if self.ema is not None else self.model
        training = model.training
        model.eval()
        self._seed(-1)  # the same draws every time, so that validations can be compared
        try:
            with torch.no_grad():
                return {name: float(value) for name, value in self.validate(model).items()}
        finally:
            model.train(training)


class _Call:
    """One call's arguments in one object, which Fabric passes on untouched whatever the batch is made of."""

    def __init__(self, batch: Batch, generator: torch.Generator) -> None:
        self.batch = batch
        self.generator = generator


class _StepModule(nn.Module):
    """The step as a forward pass, so that precision and data parallelism apply to whatever the step calls."""

    def __init__(self, model: nn.Module, step: Step) -> None:
        super().__init__()
        self.model = model
        self.function = step

    def forward(self, call: _Call) -> dict[str, Tensor]:
        return self.function(self.model, call.batch, call.generator)


def _loss_of(scalars: Any) -> Tensor:
    loss = scalars.get("loss") if isinstance(scalars, Mapping) else None
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise UsageError('The step function must return a dictionary with a scalar "loss" that has a gradient.')
    return loss


def _to_device(batch: Batch, device: torch.device, last: bool) -> Batch:
    """The batch with every tensor in it on ``device``."""
    if isinstance(batch, Tensor):
        if last and batch.ndim == 4:
            return batch.to(device, non_blocking=True, memory_format=torch.channels_last)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {k: _to_device(v, device, last) for k, v in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [_to_device(v, device, last) for v in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    if is_dataclass(batch) and not isinstance(batch, type):
        changed = {f.name: _to_device(getattr(batch, f.name), device, last) for f in fields(batch) if f.init}
        return replace(batch, **changed)
    return batch
