"""Arrays that take long to make and that many runs share, kept beside the runs.

A set of pictures is made once and read by every arm that learns from it. The name of the file holds what it was made
from, the code included, so that nothing outdated is ever read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vestige.core.files import write_atomic
from vestige.engines.runs import runs_root


def kept_arrays(
    name: str, settings: Mapping[str, Any], code: Sequence[ModuleType], make: Callable[[], Mapping[str, np.ndarray]],
    root: Path | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What ``make`` returns, from the folder of runs where it was made before by the same code with the same settings.

    settings: JSON-like. code: modules whose source the arrays depend on. root: the folder of runs. A damaged file is
    made again.
    """
    told = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for module in code:
        assert module.__file__ is not None
        told.update(Path(module.__file__).read_bytes())
    file = (root or runs_root()) / "kept" / f"{name}-{told.hexdigest()[:16]}.npz"
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
        except (ValueError, OSError, zipfile.BadZipFile):
            pass
    made = {key: np.asarray(value) for key, value in make().items()}
    content = io.BytesIO()
    np.savez(content, **made)  # type: ignore[arg-type]  # the names are those of the arrays
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, content.getvalue())
    return made
