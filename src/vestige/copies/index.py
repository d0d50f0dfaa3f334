"""An index of pictures in a folder on disk: who they are, what they are found again by, and the search.

``entries.sqlite`` says what each number of the `VectorIndex` beside it is. Pictures go in one at a time or thousands at
a time and come out the same way, without anything being loaded or built anew. A kill loses at most the pictures of the
batch in work.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vestige.copies.descriptor import Descriptor, load_descriptor, strangers
from vestige.copies.duplicates import fingerprint
from vestige.core.dataset import DatasetSubject, FolderDataset
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.files import cannot_write, read_json, write_json
from vestige.core.image_io import DEFAULT_LIMITS
from vestige.core.picture import ImageSubject
from vestige.engines.vector_index import VectorIndex

_ABOUT, _ENTRIES = "index.json", "entries.sqlite"
_FORMAT = 1
_BATCH = 256
_TABLE = """create table if not exists entries (
    id integer primary key, container text not null, name text not null, item integer not null, label text,
    bytes integer not null, modified integer not null, sha256 blob not null, pixels blob not null, vector integer,
    unique (container, name, item))"""


@dataclass(frozen=True)
class Entry:
    """A picture of the index. container: the folder, parquet or tar that was indexed; name: of the picture in it; item:
    its place there, -1 for a file. vector: its number in the vector index, None for a picture too plain for one."""

    id: int
    container: str
    name: str
    item: int
    label: str | None
    sha256: bytes
    pixels: bytes
    vector: int | None

    @property
    def source(self) -> str:
        """What a person calls it."""
        return str(Path(self.container, self.name)) if self.item < 0 else f"{self.container}: {self.name}"

    def subject(self) -> ImageSubject:
        """The picture itself; raises InputError where it is no longer there."""
        if self.item < 0:
            return ImageSubject.open(Path(self.container, self.name))
        return DatasetSubject.open(self.container)[self.item].subject()


@dataclass(frozen=True)
class Hit:
    """A picture of the index that looks like the query. score: inner product less the strangers' (see
    `vestige.copies.descriptor`), 1 for the same file or pixels. how: "the same file", "the same pixels" or ""."""

    entry: Entry
    score: float
    how: str = ""


@dataclass
class Added:
    """What `CopyIndex.add` did. failed: name and reason of what could not be read."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    plain: int = 0
    failed: list[tuple[str, str]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.failed = self.failed or []


class CopyIndex:
    """Pictures that copies are looked for among; `create` or `open` make one, ``close`` or a with-block ends it."""

    def __init__(self, path: Path, descriptor: Descriptor, vectors: VectorIndex, write: bool) -> None:
        self.path, self.descriptor, self.vectors = path, descriptor, vectors
        self._stack = contextlib.ExitStack()
        if write:
            self._stack.enter_context(vectors.writing())
        uri = f"file:{_quoted(path / _ENTRIES)}?mode={'rwc' if write else 'ro'}"
        try:
            self._base = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._stack.callback(self._base.close)
            self._base.execute("pragma trusted_schema = off")
            if write:
                self._base.execute(_TABLE)
                self._base.execute("create index if not exists by_vector on entries (vector)")
                self._base.execute("create index if not exists by_sha on entries (sha256)")
                self._base.execute("create index if not exists by_pixels on entries (pixels)")
                self._drop_orphans()
            self._base.execute("select id, vector from entries limit 1")
        except sqlite3.Error as error:
            self._stack.close()
            raise InputError(f"{path / _ENTRIES} is damaged ({error}); build the index again.") from None

    @classmethod
    def create(cls, path: str | Path, descriptor: str = "", **sizes: int) -> CopyIndex:
        """A new index in a folder that does not exist or is empty, open for writing. sizes: of `VectorIndex.create`."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists already and is no index; choose another name.")
        loaded = load_descriptor(descriptor)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from None
        vectors = VectorIndex.create(path, loaded.width, **sizes)
        write_json(path / _ABOUT, {"vestige index": _FORMAT, "descriptor": loaded.name})
        return cls(path, loaded, vectors, True)

    @classmethod
    def open(cls, path: str | Path, write: bool = False) -> CopyIndex:
        """An index that is there. Raises InputError where there is none, and for a descriptor that is not here."""
        path = Path(path)
        if not is_index(path):
            raise InputError(f"{path} is no index of pictures; 'vestige index FOLDER -o {path}' makes one.")
        about = read_json(path / _ABOUT)
        if not isinstance(about, dict) or about.get("vestige index") != _FORMAT or not about.get("descriptor"):
            raise InputError(f"{path / _ABOUT} is not of this version; build the index again.")
        descriptor = load_descriptor(str(about["descriptor"]))
        vectors = VectorIndex.open(path)
        if vectors.width != descriptor.width:
            raise InputError(f"{path} was made with another version of {descriptor.name}; build the index again.")
        return cls(path, descriptor, vectors, write)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> CopyIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._base.execute("select count(*) from entries").fetchone()[0])

    def add(self, path: str | Path, workers: int = 1, watch: Any = iter) -> Added:
        """Add all pictures of a folder, parquet or tar, or one file; what is there unchanged is left as it is.

        watch: wraps the iteration over pictures (a progress bar). Raises InputError where there is nothing to read.
        """
        path = Path(path)
        done = Added()
        batch: list[tuple[Any, ...]] = []
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for chunk in _chunks(watch(self._wanted(path, done)), 4 * max(1, workers)):
                for about, made in zip(chunk, pool.map(self._described, chunk), strict=True):
                    if isinstance(made, str):
                        done.failed.append((about[1], made))
                        continue
                    batch.append((about, *made))
                    if len(batch) >= _BATCH:
                        self._insert(batch, done)
                        batch = []
        self._insert(batch, done)
        return done

    def remove(self, ids: Iterable[int]) -> int:
        """Take entries out by their ids; returns how many were there."""
        found = [row for i in ids for row in self._base.execute("select id, vector from entries where id = ?", (i,))]
        self._base.execute("begin immediate")
        self._base.executemany("delete from entries where id = ?", [(i,) for i, _ in found])
        self._base.execute("commit")  # first: a vector without an entry is left out by every search
        self.vectors.delete([v for _, v in found if v is not None])
        return len(found)

    def find_source(self, path: str | Path) -> list[int]:
        """Ids of the picture of that file, or of all that lie in that folder or container."""
        whole = os.path.abspath(path)
        rows = self._base.execute("select id, container, name, item from entries")
        return [
            i for i, container, name, item in rows
            if (there := os.path.join(container, name) if item < 0 else container) == whole
            or there.startswith(whole.rstrip(os.sep) + os.sep)
        ]  # fmt: skip

    def gone(self) -> list[int]:
        """Ids of pictures whose files are no longer there."""
        rows = self._base.execute("select id, container, name, item from entries")
        return [i for i, c, name, item in rows if not os.path.exists(os.path.join(c, name) if item < 0 else c)]

    def entries(self) -> Iterator[Entry]:
        """All of them, in the order they came."""
        for row in self._base.execute(f"select {_COLUMNS} from entries order by id"):
            yield Entry(*row)

    def search(self, subject: ImageSubject, k: int = 10) -> list[Hit]:
        """The k pictures of the index most like this one: the same file first, the same pixels, then by score."""
        print_ = fingerprint(subject)
        keys = (("the same file", "sha256", print_.sha256), ("the same pixels", "pixels", print_.pixels))
        found: dict[int, Hit] = {}
        for how, column, digest in keys:
            rows = self._base.execute(f"select {_COLUMNS} from entries where {column} = ?", (bytes.fromhex(digest),))
            for row in rows.fetchmany(max(k, 1)):
                found.setdefault(row[0], Hit(Entry(*row), 1.0, how))
        for vector, score in self.nearest(subject.pixels, k):
            for row in self._base.execute(f"select {_COLUMNS} from entries where vector = ?", (vector,)):
                found.setdefault(row[0], Hit(Entry(*row), score))
        return list(found.values())[: max(k, len([h for h in found.values() if h.how]))]

    def nearest(self, pixels: np.ndarray, k: int) -> list[tuple[int, float]]:
        """Numbers and scores of the k nearest vectors, of the picture as it is or mirrored."""
        best: dict[int, float] = {}
        for view in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
            described = self.descriptor.describe(view)
            if described is None:
                continue
            scores, ids = self.vectors.search(described[None], k)
            scores = scores - strangers(self.descriptor.background, described[None])[:, None]
            for i, score in zip(ids[0].tolist(), scores[0].tolist(), strict=True):
                if i >= 0:
                    best[i] = max(score, best.get(i, -np.inf))
        return sorted(best.items(), key=lambda pair: -pair[1])[:k]

    def _wanted(self, path: Path, done: Added) -> Iterator[tuple[Any, ...]]:
        """(container, name, item, label, bytes, modified, data or path, old vector) of what is new or changed."""
        if not path.is_dir() and _is_picture(path):
            whole = Path(os.path.abspath(path))
            items: Iterable[Any] = [(str(whole.parent), whole.name, -1, None, path)]
        else:
            items = _items(DatasetSubject.open(path), os.path.abspath(path), done)
        for container, name, item, label, source in items:
            size, modified = 0, 0
            if isinstance(source, Path):
                try:
                    about = source.stat()
                except OSError as error:
                    done.failed.append((name, f"{source} cannot be read ({error.strerror})."))
                    continue
                size, modified = about.st_size, about.st_mtime_ns
            else:
                size, modified = len(source), zlib.crc32(source)
            old = self._base.execute(
                "select bytes, modified, vector from entries where container = ? and name = ? and item = ?",
                (container, name, item),
            ).fetchone()
            if old is not None and old[:2] == (size, modified):
                done.unchanged += 1
                continue
            yield container, name, item, label, size, modified, source, old

    def _described(self, about: tuple[Any, ...]) -> tuple[bytes, bytes, np.ndarray | None] | str:
        source = about[6]
        try:
            subject = ImageSubject.open(source) if isinstance(source, Path) else ImageSubject(source, about[1])
            print_ = fingerprint(subject)
            return bytes.fromhex(print_.sha256), bytes.fromhex(print_.pixels), self.descriptor.describe(subject.pixels)
        except InputError as error:
            return str(error)

    def _insert(self, batch: list[tuple[Any, ...]], done: Added) -> None:
        if not batch:
            return
        known = [b[3] for b in batch if b[3] is not None]
        numbers = iter(self.vectors.add(np.stack(known)).tolist() if known else [])
        rows, stale = [], []
        for (container, name, item, label, size, modified, _, old), sha, pixels, vector in batch:
            number = None if vector is None else next(numbers)
            rows.append((container, name, item, label, size, modified, sha, pixels, number))
            done.plain += vector is None
            done.new, done.changed = done.new + (old is None), done.changed + (old is not None)
            if old is not None and old[2] is not None:
                stale.append(old[2])
        try:
            self._base.execute("begin immediate")
            self._base.executemany(
                "insert or replace into entries (container, name, item, label, bytes, modified, sha256, pixels, vector)"
                " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._base.execute("commit")
        except sqlite3.OperationalError as error:
            raise InputError(f"{self.path / _ENTRIES} cannot be written ({error}).") from None
        self.vectors.delete(stale)

    def _drop_orphans(self) -> None:
        """Leave out vectors of which a kill kept the entry from being written: those after the last entry's."""
        last = self._base.execute("select max(vector) from entries").fetchone()[0]
        self.vectors.delete(range(0 if last is None else last + 1, self.vectors.next_id))


_COLUMNS = "id, container, name, item, label, sha256, pixels, vector"


def is_index(path: str | Path) -> bool:
    """Whether there is an index of ours at that path."""
    return (Path(path) / _ABOUT).is_file()


def _items(dataset: DatasetSubject, container: str, done: Added) -> Iterator[tuple[str, str, int, str | None, Any]]:
    if isinstance(dataset, FolderDataset):
        for file in dataset.files:
            name = file.relative_to(dataset.path)
            label = name.parts[0] if len(name.parts) > 1 else None
            try:
                str(name).encode()
            except UnicodeEncodeError:
                done.failed.append((str(name), "Its name is no text; rename it."))
                continue
            yield container, str(name), -1, label, file
        return
    for i in range(len(dataset)):
        try:
            item = dataset[i]
        except VestigeError as error:
            done.failed.append((f"item {i}", str(error)))
            continue
        yield container, item.name, i, None if item.label is None else str(item.label), item.data


def _is_picture(path: Path) -> bool:
    from vestige.core.sniff import is_image

    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; copy its content to a file first.")
    if path.stat().st_size > DEFAULT_LIMITS.max_bytes:
        return False
    with path.open("rb") as file:
        return is_image(file.read(300))


def _chunks(items: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.path.abspath(path))
