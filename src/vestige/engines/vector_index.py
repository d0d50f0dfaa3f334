"""Nearest vectors in a folder on disk: exact while they are few, inverted lists of product codes once they are many.

New vectors go to a tail that is searched exactly. When the tail is longer than ``exact_up_to`` it is coded into a
shard: `nlist` lists around k-means centres, each vector as ``code_bytes`` bytes beside its number. Shards and tail are
mapped into memory, not read. Every change is complete when the state file has been replaced, so that a kill leaves the
index as it was before the change or after it.

Source: Product quantization for nearest neighbor search, TPAMI 2011; the faiss library carries it out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.files import cannot_write, read_json, write_atomic, write_json

try:
    import fcntl
except ImportError:  # not a POSIX system: nobody is kept from writing at the same time
    fcntl = None  # type: ignore[assignment]

_STATE = "vectors.json"
_BLOCK = 16_384
_MAX_WIDTH = 8192


@dataclass
class _State:
    """What the index consists of. tail_rows: rows of the tail file that count. shards: name, rows, bytes of each.
    deleted: numbers that a search leaves out. version: of the names of files."""

    width: int
    exact_up_to: int
    shard_rows: int
    code_bytes: int
    nlist: int
    tail: str = "tail-0.rows"
    tail_rows: int = 0
    shards: list[list[Any]] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    next_id: int = 0
    version: int = 0


class VectorIndex:
    """Unit vectors with whole numbers as names, in the folder ``path``; `create` or `open` make one.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> index = VectorIndex.create(folder.name, 4)
    >>> index.add(np.eye(4, dtype=np.float32))
    array([0, 1, 2, 3])
    >>> index.delete([2])
    1
    >>> scores, ids = index.search(np.eye(4, dtype=np.float32)[:1], 2)
    >>> float(scores[0, 0]), int(ids[0, 0]), len(index)
    (1.0, 0, 3)
    """

    def __init__(self, path: Path, state: _State) -> None:
        self.path = path
        self.nprobe = 64  # lists that a search looks into: copies lie near their original, not always in its list
        self._state = state
        self._deleted = np.array(sorted(state.deleted), np.int64)
        self._open_shards: dict[str, Any] = {}
        self._mapped: tuple[tuple[str, int], np.ndarray] | None = None

    @classmethod
    def create(
        cls, path: str | Path, width: int, *, exact_up_to: int = 100_000, shard_rows: int = 2_000_000,
        code_bytes: int = 64, nlist: int = 1024,
    ) -> VectorIndex:  # fmt: skip
        """A new index in a folder that does not hold one. code_bytes must divide width. Raises UsageError."""
        path = Path(path)
        if not 1 <= width <= _MAX_WIDTH or min(exact_up_to, shard_rows, nlist, code_bytes) < 1:
            raise UsageError(f"An index has a width of 1 to {_MAX_WIDTH} and counts of at least one; got {width}.")
        if (path / _STATE).exists():
            raise UsageError(f"{path} holds an index already.")
        index = cls(path, _State(width, exact_up_to, shard_rows, code_bytes, nlist))
        index._commit()
        return index

    @classmethod
    def open(cls, path: str | Path) -> VectorIndex:
        """The index in a folder; raises InputError where there is none or where it is damaged."""
        path = Path(path)
        found = read_json(path / _STATE)
        try:
            state = _State(**{f.name: found[f.name] for f in fields(_State)})
            counts = (state.width, state.exact_up_to, state.shard_rows, state.code_bytes, state.nlist)
            if min(counts) < 1 or state.width > _MAX_WIDTH or state.tail_rows < 0 or state.next_id < 0:
                raise ValueError
            names = [state.tail, *(str(name) for name, _, _ in state.shards)]
            if any(Path(n).name != n or n.startswith(".") for n in names):
                raise ValueError
            index = cls(path, state)
            sizes = {path / str(name): int(size) for name, _, size in state.shards}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path / _STATE} does not describe an index; build it again.") from None
        tail = path / state.tail
        if state.tail_rows and (not tail.is_file() or tail.stat().st_size < state.tail_rows * index._row.itemsize):
            raise InputError(f"{tail} is missing or cut short; build the index again.")
        for file, size in sizes.items():
            if not file.is_file() or file.stat().st_size != size:
                raise InputError(f"{file} is missing or damaged; build the index again.")
        return index

    def __len__(self) -> int:
        state = self._state
        return state.tail_rows + sum(int(rows) for _, rows, _ in state.shards) - len(self._deleted)

    @property
    def width(self) -> int:
        return self._state.width

    @property
    def next_id(self) -> int:
        """The number that the next vector gets."""
        return self._state.next_id

    @property
    def exact(self) -> bool:
        """Whether every vector is compared exactly."""
        return not self._state.shards

    @property
    def bytes(self) -> int:
        """Bytes on disk of everything a search reads."""
        names = [_STATE, self._state.tail, *(str(name) for name, _, _ in self._state.shards)]
        return sum(p.stat().st_size for p in map(self.path.joinpath, names) if p.exists())

    @property
    def _row(self) -> np.dtype:
        return np.dtype([("id", "<i8"), ("vector", "<f2", (self._state.width,))])

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other writers out; raises InputError when one is at work. Kept by the system, so a kill frees it."""
        with contextlib.ExitStack() as stack:
            try:
                lock: IO[bytes] = stack.enter_context((self.path / "lock").open("ab"))
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path} is being written by another command; wait for it.") from None
            except OSError as error:
                raise cannot_write(self.path, error) from None
            yield

    def add(self, vectors: np.ndarray) -> np.ndarray:
        """Add N×width vectors of length one; returns their numbers, which are never used again."""
        vectors = self._checked(vectors)
        state = self._state
        ids = np.arange(state.next_id, state.next_id + len(vectors))
        rows = np.empty(len(vectors), self._row)
        rows["id"], rows["vector"] = ids, vectors
        try:
            with (self.path / state.tail).open("r+b" if (self.path / state.tail).exists() else "w+b") as file:
                file.truncate(state.tail_rows * rows.itemsize)  # what a killed command left behind is not counted
                file.seek(0, os.SEEK_END)
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path / state.tail, error) from None
        state.tail_rows += len(vectors)
        state.next_id += len(vectors)
        self._commit()
        if state.tail_rows > state.exact_up_to:
            self.seal()
        return ids

    def delete(self, ids: Any) -> int:
        """Leave these numbers out of every search from now on; returns how many were there.

        Where more than a quarter is deleted the files are written anew without them.
        """
        ids = np.unique(np.asarray(list(ids), np.int64))
        gone = np.setdiff1d(ids[(ids >= 0) & (ids < self._state.next_id)], self._deleted)
        gone = gone[np.isin(gone, self._all_ids())]
        if len(gone):
            self._deleted = np.union1d(self._deleted, gone)
            self._commit()
            if len(self._deleted) > max(64, len(self) // 3):
                self.compact()
        return len(gone)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each of Q queries: inner products and numbers, Q×k, best first; −inf and −1 for none."""
        queries = self._checked(queries)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        if not len(queries) or k < 1:
            return scores, ids
        for found in self._parts(queries, k):
            scores, ids = _merged((scores, ids), found, k)
        return scores, ids

    def seal(self) -> None:
        """Code the tail into a shard, after training the code on it where there is none yet."""
        state = self._state
        rows = self._tail()
        rows = rows[~np.isin(rows["id"], self._deleted)]
        if not len(rows):
            return
        vectors = rows["vector"].astype(np.float32)
        last = state.shards[-1] if state.shards else None
        joins = last is not None and int(last[1]) + len(rows) <= state.shard_rows
        if last is None:
            index = self._trained(vectors)
        else:
            index = self._read(str(last[0]), mapped=False)
            if not joins:
                index.reset()
        index.add_with_ids(vectors, np.ascontiguousarray(rows["id"]))
        old = [state.tail] + ([str(last[0])] if joins and last is not None else [])
        deleted = self._deleted[~np.isin(self._deleted, self._tail()["id"])]
        shard = self._write_shard(index)
        state.shards = [*(state.shards[:-1] if joins else state.shards), shard]
        state.tail, state.tail_rows = f"tail-{state.version}.rows", 0
        self._deleted = deleted
        self._commit(old)

    def compact(self) -> None:
        """Write every file anew without what was deleted."""
        state, old = self._state, []
        rows = self._tail()
        kept = rows[~np.isin(rows["id"], self._deleted)].copy()
        shards = []
        for name, _, _ in state.shards:
            index = self._read(str(name), mapped=False)
            index.remove_ids(self._deleted)
            old.append(str(name))
            if index.ntotal:
                shards.append(self._write_shard(index))
        old.append(state.tail)
        state.version += 1
        state.tail, state.tail_rows, state.shards = f"tail-{state.version}.rows", len(kept), shards
        write_atomic(self.path / state.tail, kept.tobytes())
        self._deleted = self._deleted[:0]
        self._commit(old)

    def ids(self) -> np.ndarray:
        """Every number that a search can return, sorted."""
        return np.setdiff1d(self._all_ids(), self._deleted)

    def _all_ids(self) -> np.ndarray:
        found = [np.asarray(self._tail()["id"])]
        for name, _, _ in self._state.shards:
            import faiss

            lists = self._read(str(name)).invlists
            for i in range(lists.nlist):
                count = lists.list_size(i)
                if count:
                    found.append(faiss.rev_swig_ptr(lists.get_ids(i), count).copy())
        return np.sort(np.concatenate(found))

    def _parts(self, queries: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores and numbers of the best of every shard and of every block of the tail."""
        rows = self._tail()
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            ids = np.asarray(block["id"])
            scores = queries @ block["vector"].astype(np.float32).T
            scores[:, np.isin(ids, self._deleted)] = -np.inf
            best = min(k, len(ids))
            at = np.argpartition(-scores, best - 1, axis=1)[:, :best]
            top = np.take_along_axis(scores, at, 1)
            yield top, np.where(np.isfinite(top), ids[at], -1)
        if self._state.shards:
            import faiss

            options: dict[str, Any] = {"nprobe": min(self.nprobe, self._state.nlist)}
            if len(self._deleted):
                options["sel"] = faiss.IDSelectorNot(faiss.IDSelectorBatch(self._deleted))
            parameters = faiss.SearchParametersIVF(**options)
            for name, _, _ in self._state.shards:
                scores, found = self._read(str(name)).search(queries, k, params=parameters)
                yield np.where(found >= 0, scores, -np.inf).astype(np.float32), found

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self._state.width or not np.isfinite(vectors).all():
            raise UsageError(f"The index holds finite vectors N×{self._state.width}; got shape {vectors.shape}.")
        return vectors

    def _tail(self) -> np.ndarray:
        state = self._state
        if not state.tail_rows:
            return np.empty(0, self._row)
        key = (state.tail, state.tail_rows)
        if self._mapped is None or self._mapped[0] != key:
            self._mapped = key, np.memmap(self.path / state.tail, self._row, "r", shape=(state.tail_rows,))
        return self._mapped[1]

    def _trained(self, vectors: np.ndarray) -> Any:
        import faiss

        state = self._state
        if state.width % state.code_bytes:
            raise UsageError(f"Codes of {state.code_bytes} bytes do not divide a width of {state.width}.")
        sample = vectors[np.random.default_rng(0).permutation(len(vectors))[: 64 * state.nlist]]
        state.nlist = max(1, min(state.nlist, len(sample) // 8))
        bits = 8 if len(sample) >= 256 else 4
        coarse: Any = faiss.IndexFlatIP(state.width)
        index = faiss.IndexIVFPQ(coarse, state.width, state.nlist, state.code_bytes, bits, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = True
        coarse.this.disown()
        index.cp.spherical, index.cp.niter = True, 10
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # the sample is what it is
        index.train(sample)
        return index

    def _read(self, name: str, mapped: bool = True) -> Any:
        import faiss

        if mapped and name in self._open_shards:
            return self._open_shards[name]
        try:
            index = faiss.read_index(str(self.path / name), faiss.IO_FLAG_MMAP if mapped else 0)
            if index.d != self._state.width:
                raise RuntimeError
        except RuntimeError:
            raise InputError(f"{self.path / name} is damaged; build the index again.") from None
        if mapped:
            self._open_shards[name] = index
        return index

    def _write_shard(self, index: Any) -> list[Any]:
        import faiss

        self._state.version += 1
        name = f"shard-{self._state.version}.faiss"
        data = faiss.serialize_index(index)
        write_atomic(self.path / name, data.tobytes())
        return [name, int(index.ntotal), len(data)]

    def _commit(self, old: list[str] | None = None) -> None:
        """Replace the state file, then remove the files that it no longer names."""
        self._state.deleted = self._deleted.tolist()
        write_json(self.path / _STATE, asdict(self._state))
        for name in old or ():
            self._open_shards.pop(name, None)
            with contextlib.suppress(OSError):
                (self.path / name).unlink()


def _merged(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    scores, ids = np.concatenate([a[0], b[0]], 1), np.concatenate([a[1], b[1]], 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
