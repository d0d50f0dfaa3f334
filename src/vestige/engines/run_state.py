"""A training run on disk: its checkpoint, its final weights, and how it ends early."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core import errors
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.files import write_atomic
from vestige.engines.run_log import Meter
from vestige.engines.train_config import TrainConfig

_FORMAT = 1
_OUTPUTS = ("config.json", "log.jsonl", "checkpoint.pt", "model.safetensors", "metrics.json", "loss.png")


class Interrupted(errors.Interrupted):
    """A signal stopped the run after it had saved itself; the exit code is the shell's, 128 + signal."""

    def __init__(self, number: int, step: int, steps: int, out: Path) -> None:
        super().__init__(
            f"Stopped at step {step} of {steps} and saved in {out}; the same command continues from there."
        )
        self.exit_code = 128 + number


class NonFiniteLossError(VestigeError):
    """The loss became NaN or infinite."""

    def __init__(self, loss: float, step: int, lr: float, out: Path) -> None:
        super().__init__(
            f"The loss is {loss} at step {step}; lower the learning rate (now {lr:g}) or the clip, or lengthen the "
            f"warm-up. The last checkpoint in {out} is from before."
        )


@dataclass
class RunState:
    """Where a run is. seconds: training time of all sessions. core_seconds: what the processor's cores worked for it,
    which a busy machine does not change. logged: step of the last log line. log_bytes: length of
    the log at the checkpoint. lr, loss: of the last update, of the last log line."""

    step: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    lr: float = 0.0
    loss: float = float("nan")
    logged: int = 0
    log_bytes: int = 0
    validation: dict[str, float] | None = None
    meter: Meter = field(default_factory=Meter)


class RunFiles:
    """Writes and reads the checkpoint of one run.

    parts: everything with state_dict and load_state_dict that must come back. The checkpoint is loaded with
    ``weights_only``, so it can hold tensors, numbers, strings and containers of them, and runs no code.
    """

    def __init__(self, out: Path, config: TrainConfig, about: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self.path = out / "checkpoint.pt"
        self.parts = parts
        # Through JSON, so that what is compared on resume is what can be stored: tuples are lists.
        self.settings: dict[str, Any] = json.loads(json.dumps({**asdict(config), "about": dict(about)}, default=str))
        self._checked = False

    def save(self, state: RunState) -> None:
        """Write the checkpoint whole. Raises UsageError when a part holds something that could not be read back."""
        place = {k: v for k, v in vars(state).items() if k != "meter"}
        whole = {
            "format": _FORMAT,
            "settings": json.dumps(self.settings),
            "state": {**place, "pending": state.meter.floats()},
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        buffer = io.BytesIO()
        torch.save(whole, buffer)
        if not self._checked:  # once: what a part holds does not change its kind
            buffer.seek(0)
            try:
                torch.load(buffer, weights_only=True, map_location="cpu")
            except Exception as error:
                reason = str(error).split("\n")[0]
                raise UsageError(f"A part of the run cannot be saved safely: {reason}") from error
            self._checked = True
        write_atomic(self.path, buffer.getvalue())

    def load(self) -> RunState:
        """Bring every part back to the checkpoint, if there is one, and say where the run was.

        Raises InputError when the checkpoint is damaged or belongs to another model or other settings.
        """
        for leftover in self.path.parent.glob(f".{self.path.name}.*"):
            with contextlib.suppress(OSError):  # of a write that was killed; of no use to anyone
                leftover.unlink()
        if not self.path.exists():
            return RunState()
        again = "delete it or use --fresh to start over"
        try:
            whole = torch.load(self.path, weights_only=True, map_location="cpu")
            settings, place, parts = json.loads(whole["settings"]), dict(whole["state"]), whole["parts"]
            meter = Meter(place.pop("pending"))
            state = RunState(**place, meter=meter)
            if whole["format"] != _FORMAT:
                raise ValueError(f"format {whole['format']}")
        except Exception as error:  # a damaged pickle fails in every way there is
            raise InputError(f"{self.path} is damaged or no checkpoint; {again}.") from error
        self._same_settings(settings)
        if set(parts) != set(self.parts):
            odd = sorted(set(parts) ^ set(self.parts))[0]
            raise InputError(f"{self.path} belongs to another run ({odd!r} is only in one of the two); {again}.")
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                self._same_shapes(name, part.state_dict(), parts[name])
            try:
                part.load_state_dict(parts[name])
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path} does not fit this {name}; {again}.") from error
        return state

    def _same_settings(self, other: Mapping[str, Any]) -> None:
        """When to save, and when to stop, do not change what is computed (unless the schedule follows the time)."""
        free = {"checkpoint_every"} | ({"budget_seconds"} if self.settings["schedule_by"] == "step" else set())
        for key in {**self.settings, **other}:
            mine, theirs = self.settings.get(key), other.get(key)
            if mine == theirs or key in free:
                continue
            if key == "about":
                key = next(k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k))  # type: ignore[dict-item,union-attr]
                mine, theirs = mine.get(key), theirs.get(key)  # type: ignore[union-attr]
            raise InputError(
                f"{self.path} was trained with {key}={theirs} and this run has {key}={mine}; use the same settings or "
                "another --out, or --fresh to start over."
            )

    def _same_shapes(self, name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        for key in {**mine, **theirs}:
            here, there = (_shape(values.get(key)) for values in (mine, theirs))
            if here != there:
                raise InputError(
                    f"{self.path} belongs to another model ({name} {key}: {there} there, {here} here); use another "
                    "--out, or --fresh to start over."
                )


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__


class Signals:
    """Remembers the first SIGINT or SIGTERM while it is entered; a second one acts as it did before.

    Python takes signals in the main thread only; elsewhere this does nothing.
    """

    received = 0

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def write_model(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the state of a model as safetensors, atomically; metadata values are stored as JSON."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()  # the format has no shared tensors: tied weights are written twice
        seen.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    write_atomic(path, save(tensors, {"format": "pt", **{k: json.dumps(v, default=str) for k, v in metadata.items()}}))


def load_trained(out: str | Path, model: nn.Module) -> nn.Module:
    """Load the final weights of a run into ``model`` and return it in evaluation mode.

    out: the run's folder, or a safetensors file. Raises InputError when the file is missing, damaged or of another
    model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(out)
    if path.is_dir() or not path.suffix:
        path = path / "model.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as trained weights ({error}).") from None
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).split("\n")[1:] if line.strip()), str(error))
        raise InputError(f"{path} holds the weights of another model: {first}") from None
    return model.eval()


def clear_run(out: str | Path) -> None:
    """Delete what a run wrote to ``out``, so that the next one starts from nothing; other files stay.

    Trainings of a recipe's parts, one folder below, go too: they belong to the run.
    """
    folder = Path(out)
    if (folder / "config.json").is_file():
        for part in folder.glob("*/checkpoint.pt"):
            clear_run(part.parent)
    for name in _OUTPUTS:
        (folder / name).unlink(missing_ok=True)
