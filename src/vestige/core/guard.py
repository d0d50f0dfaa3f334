"""What must not be written over: inputs, keys, and files that vestige did not write.

`write_atomic` refuses every path that is `protecting` inputs at the time. What a user names as an output is checked
with `check_output` first, before any work is done for it. A file is vestige's own when it carries the note that `stamp`
left on it (an extended attribute, where there are some) and nobody changed it since, or starts as a report does.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from vestige.core.errors import UsageError

_NOTE = "user.vestige.written"
#: How many bytes of a file are looked at for the words that a report starts with.
_HEAD = 4096

_protected: ContextVar[dict[tuple[int, int], str] | None] = ContextVar("protected", default=None)


@contextlib.contextmanager
def protecting(paths: Iterable[str | Path] = ()) -> Iterator[None]:
    """Within the block nothing is written over these files, nor over those that `protect` adds."""
    token = _protected.set({})
    try:
        protect(paths)
        yield
    finally:
        _protected.reset(token)


def protect(paths: Iterable[str | Path]) -> None:
    """Add inputs to the block of `protecting` that is open; without one it does nothing."""
    table = _protected.get()
    if table is None:
        return
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(path)
            table[found.st_dev, found.st_ino] = os.path.abspath(path)


def is_protected(path: str | Path) -> bool:
    """Whether a path is one of the inputs, under whatever name."""
    table = _protected.get()
    if not table:
        return False
    try:
        found = os.stat(path)
        known = table.get((found.st_dev, found.st_ino))
        return known is not None and os.path.samefile(known, path)
    except OSError:
        return False


def check_output(path: str | Path, signs: Sequence[bytes] = (), inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output that would take the place of an input, a key or a file that vestige did not write.

    signs: words one of which stands at the start of a file of this kind that vestige wrote. inputs: files that are
    inputs besides those that are protected. Raises UsageError.

    >>> check_output("no_such_file.html")
    """
    path = Path(path)
    try:
        about = path.stat()
    except OSError:
        return  # there is nothing to lose; whether it can be written shows when it is
    if is_protected(path) or any(_same(path, other) for other in inputs):
        raise UsageError(f"{path} is an input or a key; choose another name, they are never overwritten.")
    if stat.S_ISDIR(about.st_mode):
        raise UsageError(f"{path} is a folder; give the name of a file.")
    if not stat.S_ISREG(about.st_mode):
        raise UsageError(f"{path} is no regular file; give the name of a file.")
    if not is_own(path, signs):
        raise UsageError(f"{path} exists already and was not written by vestige; choose another name or move it away.")


def _same(path: Path, other: str | Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def stamp(handle: int) -> None:
    """Note on an open file, whose content is complete, that vestige wrote it."""
    about = os.fstat(handle)
    with contextlib.suppress(OSError, AttributeError):  # not every file system keeps notes
        os.setxattr(handle, _NOTE, f"{about.st_size} {about.st_mtime_ns}".encode())


def is_own(path: str | Path, signs: Sequence[bytes] = ()) -> bool:
    """Whether vestige wrote a file and nobody changed it since, or it starts with one of the ``signs``."""
    try:
        about = os.stat(path)
        if about.st_size == 0:
            return True  # nothing is lost
        if hasattr(os, "getxattr"):
            with contextlib.suppress(OSError):
                if os.getxattr(path, _NOTE) == f"{about.st_size} {about.st_mtime_ns}".encode():
                    return True
        if not signs:
            return False
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return any(sign in head for sign in signs)
