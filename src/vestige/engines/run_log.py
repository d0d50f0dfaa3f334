"""What a training run says while it goes and leaves behind: scalars, log lines, a progress bar and a plot."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from vestige.core.errors import InputError
from vestige.core.files import write_atomic


class Meter:
    """The scalars of the steps since the last log line.

    On an accelerator they stay there until they are wanted, so that a step does not wait for its own loss.
    """

    def __init__(self, values: Mapping[str, list[float]] | None = None) -> None:
        self._values: dict[str, list[float | Tensor]] = {k: list(v) for k, v in (values or {}).items()}

    def add(self, scalars: Mapping[str, Any]) -> None:
        """Remember the numbers and one-element tensors among ``scalars``; anything else is left out."""
        for name, value in scalars.items():
            if isinstance(value, Tensor):
                if value.numel() != 1:
                    continue
                value = value.detach()
            elif not isinstance(value, int | float):
                continue
            self._values.setdefault(name, []).append(value)

    def floats(self) -> dict[str, list[float]]:
        """All remembered values as numbers; waits for the accelerator."""
        for values in self._values.values():
            places = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
            if places:
                fetched = torch.stack([values[i].float().reshape(()) for i in places]).tolist()  # type: ignore[union-attr]
                for i, number in zip(places, fetched, strict=True):
                    values[i] = number
        return {name: [float(v) for v in values] for name, values in self._values.items()}

    def means(self) -> dict[str, float]:
        """The mean of each scalar; waits for the accelerator."""
        return {name: math.fsum(values) / len(values) for name, values in self.floats().items() if values}

    def clear(self) -> None:
        self._values.clear()


class RunLog:
    """``log.jsonl``: one JSON object per logged step. Opening it cuts it back to ``length`` bytes, the length it had at
    the checkpoint the run resumes from. Without a path (the other processes of a parallel run) nothing is written."""

    def __init__(self, path: Path | None, length: int = 0) -> None:
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115  (closed by __exit__)
            self._file.truncate(min(length, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise InputError(f"Cannot write {path} ({error.strerror or error}).") from None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; numbers that are not finite become null."""
        if self._file is not None:
            self._file.write(json.dumps(finite(line), ensure_ascii=False).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Make sure that the lines are on disk; returns the length of the file in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()


def finite(value: Any) -> Any:
    """The same JSON-like value with numbers JSON cannot hold (NaN, infinity) replaced by None."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "tolist"):  # tensors, arrays and numpy's numbers
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(out: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``. A line cut short by a kill, which can only be the last, is left out.

    Raises InputError when the file is missing.
    """
    path = Path(out) / "log.jsonl"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


class TrainingBar:
    """A bar with loss, speed and time left on a terminal's standard error; nothing elsewhere or when ``quiet``."""

    _EVERY = 0.25  # seconds between updates: drawing must not cost training time

    def __init__(self, steps: int, quiet: bool) -> None:
        self._bar: Any = None
        self._steps = steps
        self._next = 0.0
        self._started: tuple[int, float] | None = None
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> TrainingBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, fraction: float, loss: Tensor | float) -> None:
        """Show the state after ``step`` updates, ``fraction`` of the run being done."""
        if self._bar is None:
            return
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + self._EVERY
        first, since = self._started = self._started or (step, now)
        speed = f"{(step - first) / (now - since):.1f} it/s" if now > since else ""
        text = f"{step}/{self._steps}  loss {float(loss):.4g}  {speed}"
        self._bar.update(self._task, completed=fraction, description=text)


def plot_loss(out: Path) -> None:
    """Draw ``loss.png`` from ``log.jsonl``: the loss over the steps, and below it the learning rate."""
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [line for line in read_log(out) if line.get("loss") is not None]
    if not lines:
        return
    steps = [line["step"] for line in lines]
    losses = [line["loss"] for line in lines]
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot(steps, losses, linewidth=1.2, marker="." if len(steps) < 40 else "")
    if min(losses) > 0 and max(losses) > 10 * min(losses):
        upper.set_yscale("log")
    upper.set_ylabel("loss")
    lower.plot(steps, [line["lr"] for line in lines], linewidth=1.2, color="C1")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    write_atomic(out / "loss.png", buffer.getvalue())
