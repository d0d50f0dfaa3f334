"""Work units in processes of their own, and records that are computed again only when they are missing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from vestige.core.errors import InputError
from vestige.core.files import read_json
from vestige.core.runtime import start_worker

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R]:
    """Results of the items as they are done, in spawned processes of one thread each.

    Raises InputError when a process dies; what finished before is not lost if ``work`` stores it.
    """
    if min(jobs, len(items)) <= 1:
        yield from map(work, items)
        return
    try:
        with ProcessPoolExecutor(min(jobs, len(items)), multiprocessing.get_context("spawn"), start_worker) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise InputError(
            "A worker process stopped (out of memory?). Run the same command again with --jobs 1; what was finished "
            "is kept."
        ) from None


def stored(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of a key, None when there is none; a torn or foreign one counts as none."""
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        return found if found["key"] == key else None
    except (InputError, KeyError, TypeError):
        return None
