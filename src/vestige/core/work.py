"""What a verb hands to a system: the user's files and options, and what comes back.

A system that has the role ``attack``, ``measure`` or ``make`` (and one whose ``find``, ``mark``, ``read``, ``erase`` or
``restore`` is not about single pictures) has a module ``vestige.<wing>.tools.<slug>`` with a function named like the
verb. It takes a `Work` and returns a `Result`:

    def measure(work: Work) -> Result:
        before, after = work.picture(0), work.picture(1)
        return Result(figures=Pixar().measure(before.image, after.image))

It may return None for inputs that the verb's ordinary way is for, before it has written anything.
Everything that a `Work` gives is checked; what does not fit is refused in one sentence before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vestige.core.errors import InputError, UsageError
from vestige.core.guard import check_output

if TYPE_CHECKING:
    import numpy as np

    from vestige.core.dataset import DatasetSubject
    from vestige.core.models.checkpoint import ModelSubject
    from vestige.core.subjects import ImageSubject

T = TypeVar("T")
_TEXT_BYTES = 2**22


@dataclass(frozen=True)
class Result:
    """What a verb reports. figures: named numbers (or words), printed and given as JSON. files: what was written, in
    order of importance. said: sentences for the terminal. rows: a table, one dictionary a row. exit_code: other than 0
    where an answer has one (not marked, a trace found)."""

    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    said: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    exit_code: int = 0


@dataclass(frozen=True)
class Work:
    """The inputs of one command.

    verb, method: what was asked for. paths: the inputs in order. out: where to write, None where it was not given.
    mask, prompt, model, data, reference, retain, test: the options of these names, None (prompt: "") where not given;
    data is also what ``erase --forget`` names. key: secret bytes, the public key where none was given. options:
    NAME=VALUE pairs of ``--set``, still words.
    """

    verb: str
    method: str
    paths: tuple[Path, ...] = ()
    out: Path | None = None
    mask: Path | None = None
    prompt: str = ""
    model: Path | None = None
    data: Path | None = None
    reference: Path | None = None
    retain: Path | None = None
    test: Path | None = None
    message: str | None = None
    key: bytes = b""
    options: Mapping[str, str] = field(default_factory=dict)
    build: str = ""
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    _taken: set[str] = field(default_factory=set, compare=False, repr=False)

    def path(self, index: int = 0, what: str = "an input") -> Path:
        """The input at ``index``; raises UsageError when there are fewer, InputError when it is not there."""
        if index >= len(self.paths):
            few = f"{self.method} needs {what}" + (f" as input number {index + 1}" if index else "")
            raise UsageError(f"{few}; 'vestige systems {self.method}' shows the exact words.")
        path = self.paths[index]
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        return path

    def only(self, count: int) -> Work:
        """This work, when it has at most ``count`` inputs; raises UsageError for more."""
        if len(self.paths) > count:
            raise UsageError(f"{self.method} takes {count} input{'s' * (count != 1)}, got {len(self.paths)}.")
        return self

    def picture(self, index: int = 0, what: str = "a picture") -> ImageSubject:
        """The input at ``index`` as a picture; raises InputError when it is none."""
        return _picture(self.path(index, what))

    def pictures(self, what: str = "pictures") -> list[ImageSubject]:
        """Every input as pictures: files, and all pictures of folders and data sets, decoded one at a time on use."""
        self.path(0, what)
        found: list[ImageSubject] = []
        for i in range(len(self.paths)):
            path = self.path(i, what)
            found += [item.subject() for item in _dataset(path)] if is_set(path) else [_picture(path)]
        return found

    def dataset(self, index: int = 0, what: str = "a folder of pictures") -> DatasetSubject:
        """The input at ``index`` as a data set: a folder of pictures, parquet or tar."""
        return _dataset(self.path(index, what))

    def model_file(self, index: int | None = None, what: str = "a model") -> Path:
        """The model: ``--model``, or the input at ``index`` where one is given."""
        if index is None:
            return self.needed("model", what)
        return self.path(index, what)

    def checkpoint(self, index: int = 0, what: str = "a model file") -> ModelSubject:
        """The input at ``index`` as a model of any format, unread."""
        from vestige.core.models.checkpoint import ModelSubject

        return ModelSubject.open(self.path(index, what))

    def text(self, index: int = 0, what: str = "a text file") -> str:
        """The input at ``index`` as UTF-8 text of at most 4 MB."""
        path = self.path(index, what)
        if path.is_dir():
            raise InputError(f"{path} is a folder; {self.method} takes {what}.")
        try:
            data = path.read_bytes()[: _TEXT_BYTES + 1]
            if len(data) > _TEXT_BYTES or b"\0" in data:
                raise ValueError
            return data.decode()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
        except ValueError:
            raise InputError(f"{path} is not a text of up to 4 MB in UTF-8; {self.method} takes {what}.") from None

    def needed(self, name: str, what: str) -> Path:
        """The path option ``name`` (mask, model, data, reference); raises when it is not given or not there."""
        path = getattr(self, name)
        if path is None:
            raise UsageError(f"{self.method} needs --{name}: {what}.")
        if not path.exists():
            raise InputError(f"--{name} {path} does not exist; check the path.")
        return path

    def masked(self, subject: ImageSubject) -> np.ndarray:
        """bool 1×1×H×W of ``--mask``, white where it is True; raises when it is not given or of another size."""
        mask = _picture(self.needed("mask", "a picture of the same size, white where it counts"))
        if mask.pixels.shape != subject.pixels.shape:
            raise UsageError(
                f"The mask is {mask.width}×{mask.height} and the picture {subject.width}×{subject.height}; they must "
                "have the same size."
            )
        return (mask.pixels.max(axis=2) > 127)[None, None]

    def out_file(self, ending: str = "") -> Path:
        """``--out`` as a file that is no input, no key and no file that vestige did not write. ending: of its name."""
        if self.out is None:
            raise UsageError(f"Say where to write with --out{' FILE' + ending if ending else ''}.")
        if self.out.is_dir():
            raise UsageError(f"--out {self.out} is a folder; give the name of a file.")
        if ending and self.out.suffix.lower() != ending:
            raise UsageError(f"--out {self.out} must end in {ending}.")
        given = (*self.paths, self.mask, self.model, self.reference)
        check_output(self.out, inputs=[p for p in given if p is not None])
        return self.out

    def out_folder(self) -> Path:
        """``--out`` as a folder that does not exist yet or is empty."""
        if self.out is None:
            raise UsageError("Say where to write with --out FOLDER.")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise InputError(f"{self.out} exists already; choose another name.")
        return self.out

    def option(self, name: str, default: T) -> T:
        """The value of ``--set NAME=VALUE`` in the type of ``default``; raises UsageError for another type."""
        self._taken.add(name)
        if name not in self.options:
            return default
        text = self.options[name]
        kind: Callable[[str], Any] = type(default) if default is not None else str
        try:
            if isinstance(default, bool):
                return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]  # type: ignore[return-value]
            value = kind(text)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError
            return value
        except (ValueError, KeyError):
            raise UsageError(f"--set {name}={text} is not of the kind that is wanted, as {default!r}.") from None

    def rest(self) -> dict[str, str]:
        """The ``--set`` options that `option` did not take, for a constructor that takes them."""
        return {name: text for name, text in self.options.items() if name not in self._taken}

    def settled(self) -> None:
        """Raises UsageError for an option that nothing took."""
        for name in self.rest():
            known = ", ".join(sorted(self._taken)) or "none"
            raise UsageError(f"{self.method} has no setting {name!r}; it has {known}.")

    def track(self, items: Sequence[T], label: str) -> Iterator[T]:
        """The items, with a bar on a terminal."""
        from vestige.core.progress import track

        return track(items, label, len(items))


def is_set(path: Path) -> bool:
    if path.is_dir():
        return True
    from vestige.core.sniff import sniff

    with path.open("rb") as file:
        return sniff(file.read(300)) in ("parquet", "tar")


def _picture(path: Path) -> ImageSubject:
    from vestige.core.subjects import ImageSubject

    if path.is_dir():
        raise InputError(f"{path} is a folder; give a picture.")
    return ImageSubject.open(path)


def _dataset(path: Path) -> DatasetSubject:
    from vestige.core.dataset import DatasetSubject

    return DatasetSubject.open(path)
