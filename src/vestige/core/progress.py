"""Progress that people see and pipes do not: a bar on a terminal's standard error, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence every progress bar of this process (``--quiet``)."""
    global _quiet
    _quiet = quiet


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate while showing a bar with the time left.

    >>> list(track([1, 2], "reading"))
    [1, 2]
    """
    if _quiet or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total)
