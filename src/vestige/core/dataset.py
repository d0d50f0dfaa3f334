"""Data sets as they come: a folder of pictures, parquet files, tar shards. Items are read one at a time."""

from __future__ import annotations

import json
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from vestige.core.errors import InputError, LimitError, NothingInsideError
from vestige.core.image_io import DEFAULT_LIMITS, Limits, read_bytes
from vestige.core.picture import ImageSubject
from vestige.core.sniff import is_image, sniff, told

_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "png")
_LABEL_COLUMNS = ("label", "labels", "class", "target")
_NAME_COLUMNS = ("file_name", "filename", "name", "__key__")
#: A parquet row group up to this size is kept for random access; a larger one is streamed at each access.
_KEEP_BYTES = 512 * 2**20


@dataclass(frozen=True)
class DatasetItem:
    """One picture of a data set: its name, its encoded bytes, its class where one is given, and all other columns."""

    name: str
    data: bytes = field(repr=False)
    label: str | int | None = None
    fields: dict[str, Any] = field(default_factory=dict, repr=False)

    def subject(self, limits: Limits = DEFAULT_LIMITS) -> ImageSubject:
        """The picture as an `ImageSubject`; decoding and its errors come on first use."""
        return ImageSubject(self.data, self.name, limits)


class DatasetSubject:
    """A data set at ``path``; ``kind`` is "folder", "parquet" or "tar".

    ``len(ds)``, ``ds[i]`` and iteration give `DatasetItem`. Nothing but the index is held in memory: pictures are
    read from disk one at a time, parquet by row group. An item that cannot be read raises InputError when it is
    reached; ``ds[i]`` in a loop lets the caller skip it. Instances can be pickled to workers.

    >>> import tempfile
    >>> from vestige.core.image_io import encode
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> Path(folder.name, "cat").mkdir()
    >>> _ = Path(folder.name, "cat", "a.png").write_bytes(encode(np.zeros((2, 2, 3), np.uint8)))
    >>> [(item.name, item.label) for item in DatasetSubject.open(folder.name)]
    [('cat/a.png', 'cat')]
    """

    kind = "dataset"

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.limits = limits

    @staticmethod
    def open(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> DatasetSubject:
        """Open a folder of pictures, a parquet file, a tar shard, or a folder of such shards, judged by content.

        In a folder hidden files are ignored, linked folders are not entered and links that lead outside are not
        followed. Raises InputError when there is nothing to read or an index is damaged, LimitError for a tar member
        above ``limits.max_bytes``.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path.")
        if not path.is_dir():
            kind = _sniff_file(path)
            if kind == "parquet":
                return ParquetDataset(path, [path], limits)
            if kind == "tar":
                return TarDataset(path, [path], limits)
            raise InputError(f"{path} is not a data set (content looks like {told(kind)}); it takes parquet or tar.")
        found: dict[str, list[Path]] = {"image": [], "parquet": [], "tar": []}
        for file in files_below(path):
            kind = _sniff_file(file)
            if kind in found:
                found[kind].append(file)
        if found["parquet"] and not found["image"]:
            return ParquetDataset(path, found["parquet"], limits)
        if found["parquet"]:  # pictures beside parquet: a table of pictures wins over its illustrations
            tables = [p for p in found["parquet"] if _has_image_column(p)]
            if tables:
                return ParquetDataset(path, tables, limits)
        if found["image"]:
            return FolderDataset(path, found["image"], limits)
        if found["tar"]:
            return TarDataset(path, found["tar"], limits)
        raise InputError(f"{path} holds no pictures, parquet files or tar shards; check the folder.")

    def __len__(self) -> int:
        raise NotImplementedError

    def item(self, index: int) -> DatasetItem:
        """The item at ``index``, which must be in range."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> DatasetItem:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"item {index} of {count}")
        return self.item(index % count)

    def __iter__(self) -> Iterator[DatasetItem]:
        for index in range(len(self)):
            yield self.item(index)

    def __repr__(self) -> str:
        return f"<{self.kind} data set of {len(self)} items at {self.path}>"


class FolderDataset(DatasetSubject):
    """Pictures in a folder, sorted by path; the first-level sub-folder is the class."""

    kind = "folder"

    def __init__(self, path: Path, files: list[Path], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(path, limits)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def item(self, index: int) -> DatasetItem:
        name = _text(self.files[index].relative_to(self.path).as_posix())
        return DatasetItem(name, read_bytes(self.files[index], self.limits), _first_folder(name))


@dataclass(frozen=True)
class _Shard:
    path: Path
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    image: str
    label: str | None


class ParquetDataset(DatasetSubject):
    """Rows of parquet files in the Hugging Face layout (``image: {bytes, path}``) or with a plain binary column."""

    kind = "parquet"

    def __init__(self, path: Path, files: list[Path], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(path, limits)
        self.shards = [_read_shard(file) for file in files]
        groups = [(s, g, rows) for s, shard in enumerate(self.shards) for g, rows in enumerate(shard.group_rows)]
        self._groups = [(s, g) for s, g, _ in groups]
        self._starts = [0, *accumulate(rows for _, _, rows in groups)]
        self._kept: tuple[int, Any] = (-1, None)
        if not len(self):
            raise NothingInsideError(f"{path} is a parquet data set without rows.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (-1, None)}

    def __len__(self) -> int:
        return self._starts[-1]

    def item(self, index: int) -> DatasetItem:
        group = bisect_right(self._starts, index) - 1
        offset = index - self._starts[group]
        shard_index, in_shard = self._groups[group]
        shard = self.shards[shard_index]
        if shard.group_bytes[in_shard] > _KEEP_BYTES:
            for row_offset, row in enumerate(self._stream(shard, in_shard)):
                if row_offset == offset:
                    return self._to_item(shard, row, index)
            raise InputError(f"{shard.path} ends before row {index}; it is damaged.")
        if self._kept[0] != group:
            with _parquet(shard.path) as file:
                self._kept = (group, file.read_row_group(in_shard, use_threads=False))
        return self._to_item(shard, self._kept[1].slice(offset, 1).to_pylist()[0], index)

    def __iter__(self) -> Iterator[DatasetItem]:
        index = 0
        for shard_index, group in self._groups:
            shard = self.shards[shard_index]
            for row in self._stream(shard, group):
                yield self._to_item(shard, row, index)
                index += 1

    def _stream(self, shard: _Shard, group: int) -> Iterator[dict[str, Any]]:
        with _parquet(shard.path) as file:
            for batch in file.iter_batches(batch_size=16, row_groups=[group], use_threads=False):
                yield from batch.to_pylist()

    def _to_item(self, shard: _Shard, row: dict[str, Any], index: int) -> DatasetItem:
        image = row.pop(shard.image)
        label = row.pop(shard.label, None) if shard.label else None
        stored_name = image.get("path") if isinstance(image, dict) else None
        data = image.get("bytes") if isinstance(image, dict) else image
        if not data:
            raise InputError(f"Row {index} of {shard.path} holds no picture bytes; embed the pictures.")
        if len(data) > self.limits.max_bytes:
            raise LimitError(f"Row {index} of {shard.path} is {len(data) / 2**20:.0f} MiB, above the limit.")
        fields = {
            key: value["bytes"] if isinstance(value, dict) and set(value) == {"bytes", "path"} else value
            for key, value in row.items()
        }
        named = stored_name or next((row[c] for c in _NAME_COLUMNS if isinstance(row.get(c), str)), None)
        label = label if isinstance(label, str | int | None) else str(label)
        return DatasetItem(named or f"{shard.path.stem}/{index:06d}", data, label, fields)


class TarDataset(DatasetSubject):
    """Pictures in uncompressed tar shards; members that share a name up to the first dot form one item.

    ``x.cls`` is the class, ``x.txt`` and ``x.json`` become text and parsed fields, other members bytes. Without a
    ``cls`` member the first-level folder is the class. Only regular members are read, and never onto the disk.
    """

    kind = "tar"

    def __init__(self, path: Path, files: list[Path], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(path, limits)
        self._index = [entry for file in files for entry in _index_tar(file, limits)]
        if not self._index:
            raise NothingInsideError(f"{path} is a tar archive without pictures.")

    def __len__(self) -> int:
        return len(self._index)

    def item(self, index: int) -> DatasetItem:
        shard, key, image, members = self._index[index]
        try:
            with shard.open("rb") as file:
                parts = {}
                for extension, (offset, size) in members.items():
                    file.seek(offset)
                    parts[extension] = file.read(size)
                    if len(parts[extension]) != size:
                        raise InputError(f"{shard} is a truncated tar archive.")
        except OSError as error:
            raise InputError(f"{shard} cannot be read ({error.strerror or error}).") from None
        name = f"{key}.{image}" if image else key
        data = parts.pop(image)
        label: str | int | None = _first_folder(name)
        if "cls" in parts:
            text = parts.pop("cls").decode(errors="replace").strip()
            label = int(text) if text.isdecimal() and len(text) < 19 else text
        fields = {extension: _parse(extension, part, f"{key} in {shard}") for extension, part in parts.items()}
        return DatasetItem(name, data, label, fields)


def files_below(root: Path) -> list[Path]:
    """Regular, non-hidden files below root, sorted by path; nothing that resolves outside root."""
    inside = root.resolve()
    files = []
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = [f for f in folders if not f.startswith(".") and not Path(folder, f).is_symlink()]
        for name in names:
            file = Path(folder, name)
            if name.startswith(".") or not file.is_file():
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(inside):
                continue
            files.append(file)
    return sorted(files, key=lambda file: file.relative_to(root).parts)


def _sniff_file(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; copy its content to a file first.")
    try:
        with path.open("rb") as file:
            head = file.read(300)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    return "image" if is_image(head) else sniff(head)


class _parquet:  # noqa: N801 - reads as a function: `with _parquet(path) as file`
    """A ParquetFile whose errors, at opening and in the block, are InputErrors naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._errors = (pa.ArrowException, OSError, ValueError)
        try:
            self._file = pq.ParquetFile(self.path)
        except self._errors as error:
            raise self._damaged(error) from None
        return self._file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._file.close()
        if isinstance(error, self._errors) and not isinstance(error, InputError):
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException) -> InputError:
        reason = " ".join(str(error).split())[:120]
        return InputError(f"{self.path} is a truncated or damaged parquet file ({reason}).")


def _read_shard(path: Path) -> _Shard:
    with _parquet(path) as file:
        image = _image_column(file)
        if image is None:
            raise NothingInsideError(
                f"{path} has no image column (columns: {', '.join(file.schema_arrow.names)[:200]}); "
                f"a column of encoded pictures or of {{bytes, path}} is needed."
            )
        groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
        label = next((c for c in _LABEL_COLUMNS if c in file.schema_arrow.names and c != image), None)
        return _Shard(path, tuple(g.num_rows for g in groups), tuple(g.total_byte_size for g in groups), image, label)


def _has_image_column(path: Path) -> bool:
    with _parquet(path) as file:
        return _image_column(file) is not None


def _image_column(file: Any) -> str | None:
    """Name of the column of pictures: by type and usual name first, then by the bytes of the first row."""
    import pyarrow as pa

    def binary(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    structs, plain = [], []
    for column in file.schema_arrow:
        if pa.types.is_struct(column.type):
            index = column.type.get_field_index("bytes")
            if index >= 0 and binary(column.type.field(index).type):
                structs.append(column.name)
        elif binary(column.type):
            plain.append(column.name)
    for group in (structs, plain):
        for name in _IMAGE_COLUMNS:
            if name in group:
                return name
    if structs:
        return structs[0]
    if plain:
        for batch in file.iter_batches(batch_size=1, columns=plain, use_threads=False):
            row = batch.to_pylist()[0]
            return next((name for name in plain if row[name] and is_image(row[name][:300])), None)
    return None


_TarEntry = tuple[Path, str, str, dict[str, tuple[int, int]]]


def _index_tar(path: Path, limits: Limits) -> list[_TarEntry]:
    """(shard, key, extension of the picture, {extension: (offset, size)}) for every item with a picture."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        if path.stat().st_size % 512:
            raise InputError(f"{path} is a truncated tar archive.")
        with tarfile.open(path, "r:") as archive, path.open("rb") as file:
            pictures = set()
            for member in archive:
                if not member.isreg() or member.sparse is not None:
                    continue
                name = PurePosixPath(_text(member.name))
                if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
                    raise InputError(f"{path} has a member with an unsafe name ({name!s:.80}); repack it.")
                if any(part.startswith(".") for part in name.parts):
                    continue
                if member.size > limits.max_bytes:
                    raise LimitError(f"{name!s:.80} in {path} is {member.size / 2**20:.0f} MiB, above the limit.")
                stem, _, extension = name.name.partition(".")
                key, extension = str(name.with_name(stem)), extension.lower()
                groups.setdefault(key, {})[extension] = (member.offset_data, member.size)
                file.seek(member.offset_data)
                if is_image(file.read(min(300, member.size))):
                    pictures.add((key, extension))
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is a truncated or damaged tar archive ({error}).") from None
    entries: list[_TarEntry] = []
    for key, members in groups.items():
        # of "a.jpg" and "a.mask.png" the picture is the one with the plainer name
        images = sorted((e for e in members if (key, e) in pictures), key=lambda e: (e.count("."), e))
        if images:
            entries.append((path, key, images[0], members))
    return entries


def _parse(extension: str, data: bytes, where: str) -> Any:
    if extension == "json":
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise InputError(f"{where} has a json member that is not JSON.") from None
    return data.decode(errors="replace").strip() if extension in ("txt", "caption") else data


def _first_folder(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else None


def _text(name: str) -> str:
    """A file name that can be printed: undecodable bytes become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
