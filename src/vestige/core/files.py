"""Writing without losing: every file appears whole or not at all, and no temporary file outlives a kill for long.

Temporary files lie beside their target, are called ``.vestige-XXXXXXXX.tmp`` and are locked while their writer lives;
the next write into the same folder removes those whose writer is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vestige.core.errors import InputError, UsageError, WriteError
from vestige.core.guard import is_protected, stamp

try:
    import fcntl
except ImportError:  # not a POSIX system: left-overs are told by their age
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.vestige-\w{8}\.tmp")
_OLD = 24 * 3600.0
_swept: set[str] = set()


def write_atomic(path: str | Path, data: bytes | str, *, mode: int | None = None) -> None:
    """Write ``data`` beside ``path`` and move it into place; a kill leaves the old file or the new one.

    mode: permission bits of a new file (0o600 for keys). Raises UsageError for an input of the running command (see
    `vestige.core.guard`), WriteError when it cannot be written; nothing is left over then.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    if is_protected(path):
        raise UsageError(f"{path} is an input or a key; choose another name, they are never overwritten.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        handle, temporary = _temporary_file(path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(temporary, mode if mode is not None else _default_mode())
                stamp(file.fileno())
                if fcntl is not None:
                    os.replace(temporary, path)  # still locked, so that nobody takes it for a left-over
            if fcntl is None:
                os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: str | Path, error: OSError) -> WriteError:
    """What to raise where ``path`` cannot be written: one sentence with the system's reason."""
    return WriteError(f"Cannot write {path} ({' '.join(str(error.strerror or error).split())[:120]}).")


@contextmanager
def folder_atomic(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``path`` when the block ends without an error.

    What was at ``path`` is replaced, unless it is or holds an input of the running command. Raises UsageError for
    such a one, WriteError when something cannot be written, in the block too.
    """
    path = Path(path)
    if path.is_dir() and any(map(is_protected, (path, *path.rglob("*")))):
        raise UsageError(f"{path} is an input or holds one; choose another name, inputs are never overwritten.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(path.parent) as temporary:
            new = temporary / "new"
            new.mkdir()
            yield new
            if path.exists():
                path.rename(temporary / "old")
            new.rename(path)
    except WriteError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what a command needs while it runs; one that a kill leaves behind is removed by the next command.

    Raises WriteError when there is no place for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_temporary_folder(Path(tempfile.gettempdir())))
        except OSError as error:
            raise cannot_write("temporary files", error) from None
        yield folder


def sweep(folder: str | Path) -> None:
    """Remove the temporary files and folders of killed commands from a folder; looks once in a process."""
    where = os.path.abspath(folder)
    if where in _swept:
        return
    _swept.add(where)
    with contextlib.suppress(OSError), os.scandir(where) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and _is_left_over(entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    try:
        about = entry.stat(follow_symlinks=False)
        if entry.is_symlink() or (hasattr(os, "geteuid") and about.st_uid != os.geteuid()):
            return False
        if fcntl is None:
            return time.time() - about.st_mtime > _OLD
        handle = os.open(entry.path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # its writer lives
    finally:
        os.close(handle)
    return True


def _temporary_file(folder: Path) -> tuple[int, str]:
    """An open, locked file; one that another process swept between the making and the locking is made again."""
    while True:
        handle, temporary = tempfile.mkstemp(prefix=".vestige-", suffix=".tmp", dir=folder)
        if _lock(handle):
            return handle, temporary
        os.close(handle)


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    sweep(parent)
    while True:
        folder = tempfile.mkdtemp(prefix=".vestige-", suffix=".tmp", dir=parent)
        handle = os.open(folder, os.O_RDONLY) if fcntl is not None else -1
        if handle < 0 or _lock(handle):
            break
        os.close(handle)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Hold a file or folder for as long as it is open; False when it is gone already."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks: left-overs look like live ones at worst
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(handle).st_nlink > 0
    return True


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
