"""Models on disk: opened safely, described without reading weights where the format allows, never executed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError, LimitError, MissingDependencyError, UsageError, VestigeError
from vestige.core.files import read_json
from vestige.core.models.files import file_format, file_report, is_model_folder
from vestige.core.models.pickle_scan import PickleReport, scan
from vestige.core.models.safetensors_header import read_header

#: What training scripts call the weights inside a checkpoint that holds more than weights.
_NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params_ema",
    "params",
    "ema",
)
_MAX_FILES = 20_000
_MAX_JSON = 64 * 2**20


@dataclass
class ModelSubject:
    """A model on disk.

    kind: "weights" (one file), "transformers", "diffusers" or "folder" (of another library). format:
    "safetensors", "torch" (zip archive),
    "pickle" (legacy torch or bare pickle), "tar" (torch's first format), "npy", "npz", "zip", "compressed",
    the name of a format that is not examined, or "none" for a folder without weights.
    ``sha256`` of a folder covers the names and the content of all its files.
    """

    path: Path
    kind: str
    format: str

    @classmethod
    def open(cls, path: str | Path) -> ModelSubject:
        """Look at a file or folder and check what can be checked without reading weights.

        Raises InputError when it is missing, damaged or no model; LimitError beyond a limit.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        if path.is_dir():
            return cls._open_folder(path)
        format = file_format(path)
        subject = cls(path, "weights", format)
        if format == "safetensors":
            read_header(path)
        return subject

    @classmethod
    def _open_folder(cls, path: Path) -> ModelSubject:
        diffusers = (path / "model_index.json").is_file()
        transformers = (path / "config.json").is_file()
        if not is_model_folder(path):
            raise InputError(f"{path} is no model folder; it has neither a model_index.json nor a config.json.")
        subject = cls(path, "diffusers" if diffusers else "transformers" if transformers else "folder", "none")
        if diffusers or transformers:
            _read_table(path / ("model_index.json" if diffusers else "config.json"))
        weights = [file for _, file in subject.weight_files]
        for file in weights:
            if file.suffix == ".safetensors":
                read_header(file)
        if weights:
            safe = all(file.suffix == ".safetensors" for file in weights)
            subject.format = "safetensors" if safe else file_format(weights[0])
        return subject

    @property
    def source(self) -> str:
        return str(self.path)

    @cached_property
    def sha256(self) -> str:
        if self.kind == "weights":
            return _file_sha256(self.path)
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.relative_to(self.path).as_posix()}\0{_file_sha256(file)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every file of the model, sorted; hidden folders are left out."""
        if self.kind == "weights":
            return (self.path,)
        found = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            found += [Path(folder, name) for name in names if Path(folder, name).is_file()]
            if len(found) > _MAX_FILES:
                raise LimitError(f"{self.path} holds more than {_MAX_FILES} files; name the model's own folder.")
        return tuple(sorted(found))

    @cached_property
    def weight_files(self) -> tuple[tuple[str, Path], ...]:
        """(prefix, file) of the weights that make up the model; the prefix is a diffusers component and a dot."""
        if self.kind == "weights":
            return (("", self.path),)
        if self.kind in ("transformers", "folder"):
            return tuple(("", file) for file in _folder_weights(self.path))
        folders = sorted(f for f in self.path.iterdir() if f.is_dir() and not f.name.startswith("."))
        return tuple((f"{f.name}.", file) for f in folders for file in _folder_weights(f))

    def _weights(self) -> tuple[tuple[str, Path], ...]:
        if not self.weight_files:
            raise InputError(f"{self.path} holds no weights in safetensors or torch format; download them again.")
        return self.weight_files

    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """{name: (shape, dtype)}; safetensors and torch archives are described from their headers alone.

        Raises InputError for damaged weights and for pickles that hold more than tensors.
        """
        table: dict[str, tuple[tuple[int, ...], str]] = {}
        for prefix, file in self._weights():
            if file_format(file) == "safetensors":
                table |= {prefix + name: entry for name, entry in read_header(file).items()}
            else:
                for name, tensor in _torch_load(file, map_location="meta").items():
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    table[prefix + name] = (tuple(tensor.shape), dtype)
        return table

    def state_dict(self) -> dict[str, Any]:
        """{name: tensor on the CPU}; no code from the file runs.

        A checkpoint that also holds an optimiser and the like gives the weights alone. Raises InputError for damaged
        weights and for pickles that hold more than tensors.
        """
        table: dict[str, Any] = {}
        for prefix, file in self._weights():
            if file_format(file) == "safetensors":
                read_header(file)
                from safetensors.torch import load_file

                loaded = _guard(file, partial(load_file, file))
            else:
                loaded = _torch_load(file, map_location="cpu")
            table |= {prefix + name: tensor for name, tensor in loaded.items()}
        return table

    def pickles(self) -> dict[Path, PickleReport]:
        """A report on every file that holds a pickle, or something that is not known to be harmless."""
        if self.kind == "weights" and self.format != "safetensors":
            return {self.path: scan(self.path)}
        files = (self.path,) if self.kind == "weights" else self._all_files()
        reports = {file: file_report(file) for file in files}
        told = (item for item in reports.items() if item[1].pickles or item[1].examined or not item[1].clean)
        return dict(told)

    def _all_files(self) -> list[Path]:
        """Every file of a folder, the hidden ones too, which a loader can be told to open; not git's own."""
        found: list[Path] = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(f for f in folders if f != ".git")
            found += [Path(folder, name) for name in names if Path(folder, name).is_file()]
            if len(found) > _MAX_FILES:
                raise LimitError(f"{self.path} holds more than {_MAX_FILES} files; name the model's own folder.")
        return sorted(found)

    def load(self) -> Any:
        """The model of a folder: a transformers module in evaluation mode, or a diffusers pipeline; offline.

        Raises UsageError for a single file (its architecture is not in it), InputError for folders that need code of
        their own, hold pickles that import more than weights do, or are damaged.
        """
        if self.kind == "weights":
            raise UsageError(f"{self.path} holds weights without an architecture; load its state_dict() into a module.")
        if self.kind == "folder":
            raise UsageError(f"{self.path} is no folder of transformers or diffusers; load it with its own library.")
        weights = [file for _, file in self.weight_files]
        for file, report in self.pickles().items():
            # training leaves other pickles beside the weights, which the libraries do not open
            culprits = report.dangerous + (report.unknown if file in weights else [])
            if report.hazards:
                raise InputError(f"{self.path} is not loaded: {report.hazards[0]}.")
            if culprits:
                raise InputError(f"{self.path} is not loaded: the pickle in {file.name} imports {culprits[0]}.")
            if report.damaged and file in weights:
                raise InputError(f"{self.path} is not loaded: {report.damaged}.")
        with _offline():
            return self._load_pipeline() if self.kind == "diffusers" else self._load_transformers()

    def _load_transformers(self) -> Any:
        config = _read_table(self.path / "config.json")
        if any("/" in str(value) for key, value in config.items() if key.endswith("attn_implementation")):
            raise InputError(f"{self.path} is not loaded: its config.json asks for attention code from the network.")
        try:
            import transformers
        except ImportError:
            raise MissingDependencyError("Loading this model needs transformers; install it.") from None
        names = config.get("architectures")
        name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
        builder = getattr(transformers, name, None) if name.isidentifier() else None
        if not (isinstance(builder, type) and issubclass(builder, transformers.PreTrainedModel)):
            if name and "auto_map" in config:
                raise InputError(f"{self.path} is not loaded: {name[:60]} needs Python code that comes with the model.")
            builder = transformers.AutoModel
        safe = self.format == "safetensors"

        def load() -> Any:
            return builder.from_pretrained(
                str(self.path), local_files_only=True, use_safetensors=safe, trust_remote_code=False
            )

        return _guard(self.path, load).eval()

    def _load_pipeline(self) -> Any:
        index = _read_table(self.path / "model_index.json")
        try:
            import diffusers
        except ImportError:
            raise MissingDependencyError("Loading this model needs diffusers; install it.") from None
        name = index.get("_class_name")
        builder = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
        if not (isinstance(builder, type) and issubclass(builder, diffusers.DiffusionPipeline)):
            raise InputError(f"{self.path} is not loaded: {str(name)[:60]} is no pipeline of diffusers.")
        for key, value in index.items():
            if key.startswith("_") or not isinstance(value, list):
                continue
            library = value[0] if value else None
            known = library in (None, "diffusers", "transformers") or (
                isinstance(library, str) and library.isidentifier() and hasattr(diffusers.pipelines, library)
            )
            if not known or any((self.path / key).glob("*.py")):
                raise InputError(
                    f"{self.path} is not loaded: its component {key[:60]!r} needs Python code that diffusers lacks."
                )
        safe = True if self.format == "safetensors" else None

        def load() -> Any:
            return builder.from_pretrained(str(self.path), local_files_only=True, use_safetensors=safe)

        return _guard(self.path, load)


def _folder_weights(folder: Path) -> list[Path]:
    """The weights in one folder: safetensors before pickles, shards through their index."""
    for suffix in (".safetensors", ".bin"):
        for index in sorted(folder.glob(f"*{suffix}.index.json")):
            weight_map = _read_table(index).get("weight_map")
            names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else {""}
            for name in names:
                if re.search(r"[/\\\0]|^\.*$", name):
                    raise InputError(f"{index} is damaged: {name[:60]!r} is no name of a shard in its folder.")
                if not (folder / name).is_file():
                    raise InputError(f"{index} names the shard {name[:60]}, which is missing; download it again.")
            return [folder / name for name in sorted(names)]
        preferred = ("model", "pytorch_model", "diffusion_pytorch_model")
        found = sorted(folder.glob(f"*{suffix}"), key=lambda f: (f.stem not in preferred, f.name))
        if found:
            return found[:1]
    return []


def _read_table(path: Path) -> dict[str, Any]:
    if path.is_file() and path.stat().st_size > _MAX_JSON:
        raise LimitError(f"{path} is larger than {_MAX_JSON / 2**20:.0f} MiB; it is no configuration.")
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(f"{path} is damaged: it is no table of settings.")
    return table


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def _guard(path: Path, load: Callable[[], Any]) -> Any:
    """Run a library's reader; whatever it raises on a damaged file becomes one sentence."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except VestigeError:
        raise
    except MemoryError:
        raise LimitError(f"{path} needs more memory than there is.") from None
    except Exception as error:  # these libraries raise every type on damaged files
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path} cannot be loaded ({reason}).") from None


def _torch_load(path: Path, map_location: str) -> Mapping[str, Any]:
    """The tensors of a torch checkpoint by name, unpickled with torch's allow-list of weights only."""
    report = scan(path)
    if report.dangerous:
        name = report.dangerous[0]
        raise InputError(f"{path} is not loaded: its pickle imports {name}, which runs code; see vestige find.")
    if report.damaged or report.hazards:
        raise InputError(f"{path} is not loaded: {report.damaged or report.hazards[0]}.")
    format = file_format(path)
    if format not in ("torch", "pickle", "tar", "zip"):
        raise InputError(f"{path} is not loaded: weights are read from safetensors and torch files, not from {format}.")
    import torch

    archive = format == "torch"

    def load() -> Any:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=archive)

    try:
        content = _guard(path, load)
    except InputError:
        if report.unknown:
            raise InputError(
                f"{path} is not loaded: its pickle imports {report.unknown[0]}, which weights do not need; save its "
                "state_dict() instead."
            ) from None
        raise
    for candidate in (content, *_nested(content)):
        if isinstance(candidate, Mapping):
            tensors = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
            if tensors:
                return tensors
    raise InputError(f"{path} holds no named tensors; save the model's state_dict().")


def _nested(content: Any) -> Iterator[Any]:
    if isinstance(content, Mapping):
        yield from (content[key] for key in _NESTED if key in content)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep the Hugging Face libraries off the network while a model is loaded."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
