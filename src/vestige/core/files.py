"""Writing without losing: every file appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError


def write_atomic(path: str | Path, data: bytes | str, *, mode: int | None = None) -> None:
    """Write ``data`` beside ``path`` and move it into place; a kill leaves the old file or the new one.

    mode: permission bits of a new file (0o600 for keys). Raises InputError when the folder cannot be written.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode if mode is not None else _default_mode())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror or error}).") from None


@contextmanager
def folder_atomic(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``path`` when the block ends without an error.

    What was at ``path`` is replaced. Raises InputError when something cannot be written, in the block too.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent))
        try:
            new = temporary / "new"
            new.mkdir()
            yield new
            if path.exists():
                path.rename(temporary / "old")
            new.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"Cannot write {path} ({' '.join(str(error.strerror or error).split())[:120]}).") from None


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, readable and in a stable order."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raises InputError naming the file when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSON ({error}).") from None
