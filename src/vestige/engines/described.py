"""Weights that say what network they belong to: safetensors with a description in the header.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder) / "a.safetensors"
...     save_described(path, nn.Linear(2, 1), "example", {"width": 2})
...     read_description(path, "example")
{'width': 2}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vestige.core.errors import InputError
from vestige.core.models.safetensors_header import read_header
from vestige.engines.run_state import write_model


def save_described(path: str | Path, model: nn.Module, kind: str, description: Mapping[str, Any]) -> None:
    """Write the state of ``model`` with a description of that kind (JSON values), atomically."""
    write_model(Path(path), model, {"kind": kind, "description": dict(description)})


def read_description(path: str | Path, kind: str) -> dict[str, Any]:
    """The description of `save_described`; raises InputError for files that are damaged or of another kind."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; give weights of {kind}.")
    read_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            about = {name: json.loads(value) for name, value in (file.metadata() or {}).items() if name != "format"}
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} cannot be read as weights ({str(error)[:120]}).") from None
    description = about.get("description")
    if about.get("kind") != kind or not isinstance(description, dict):
        raise InputError(f"{path} holds no weights of {kind}.")
    return description
