"""Writers of files for the zoo: pickles, checkpoints, archives and folders, saved with their own libraries."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn

Writer = Callable[[Path], None]


def as_bytes(data: bytes | Callable[[], bytes]) -> Writer:
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data())


def folder_(**files: bytes | str) -> Writer:
    def write(path: Path) -> None:
        for name, data in files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def torch_(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def joblib_(content: Any, compress: Any = 0) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(content, buffer, compress=compress)
    return buffer.getvalue()


def npz_(compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy_(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def tar_(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def safetensors_(**tensors: Any) -> bytes:
    from safetensors.torch import save

    return save(tensors)


def scripted_(module: nn.Module, traced: Any = None) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = module.eval()
        made = torch.jit.script(module) if traced is None else torch.jit.trace(module, traced, check_trace=False)
        torch.jit.save(made, buffer)
    return buffer.getvalue()


def json_(table: Any) -> bytes:
    return json.dumps(table).encode()
