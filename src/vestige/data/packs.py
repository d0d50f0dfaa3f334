"""Data sets as arrays for training: load, split by name, batch. Splits never change when items are added."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from vestige.core.dataset import DatasetItem, DatasetSubject
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode
from vestige.core.runtime import rng

Fit = Literal["crop", "stretch", "pad"]
SPLIT = {"train": 0.8, "val": 0.1, "test": 0.1}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Pack:
    """Pictures of one size with their labels.

    images: uint8 N×3×H×W sRGB. labels: int64 N, -1 where an item has none; ``class_names[label]`` is the word.
    names: N item names. fields: the other columns, each a list of N values (captions, encoded masks, ...).
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...] = ()
    fields: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int] | np.ndarray) -> Pack:
        """The items at ``indices``, in that order; class names stay as they are."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Pack(
            self.images[chosen],
            self.labels[chosen],
            tuple(self.names[i] for i in chosen),
            self.class_names,
            {key: [values[i] for i in chosen] for key, values in self.fields.items()},
        )


def load_pack(
    path: str | Path | DatasetSubject,
    size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    *,
    fit: Fit = "crop",
    label: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Pack:
    """Decode a data set into arrays.

    size: side, or (height, width); None keeps the pictures as they are, which must then share one size.
    fit: "crop" scales the picture to cover the size and cuts the centre out, "stretch" ignores the aspect ratio,
    "pad" scales it to fit inside and fills the rest with grey. limit: at most so many items, evenly spaced over the
    data set. label: the column to use as label instead of the item's own. class_names: words for integer labels.

    Raises InputError for unreadable items, differing sizes without ``size``, or labels outside ``class_names``;
    UsageError for options out of range.
    """
    if fit not in ("crop", "stretch", "pad"):
        raise UsageError(f"fit is {fit!r}; choose crop, stretch or pad.")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be at least 1.")
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is not None and min(wanted) < 1:
        raise UsageError(f"size is {size}; it must be at least 1.")
    subject = path if isinstance(path, DatasetSubject) else DatasetSubject.open(path)
    count = len(subject) if limit is None else min(limit, len(subject))
    items = subject if count == len(subject) else (subject[i * len(subject) // count] for i in range(count))
    images: np.ndarray | None = None
    names, raw_labels = [], []
    fields: dict[str, list[Any]] = {}
    for index, item in enumerate(items):
        pixels = _pixels(item)
        if wanted is not None:
            pixels = resize(pixels, wanted, fit)
        if images is None:
            images = np.empty((count, 3, *pixels.shape[:2]), np.uint8)
        if pixels.shape[:2] != images.shape[2:]:
            raise InputError(
                f"{item.name} in {subject.path} is {pixels.shape[1]}×{pixels.shape[0]}, others are "
                f"{images.shape[3]}×{images.shape[2]}; give a size to bring them together."
            )
        images[index] = pixels.transpose(2, 0, 1)
        names.append(item.name)
        if label is None:
            raw_labels.append(item.label)
        elif label in item.fields:
            raw_labels.append(item.fields[label])
        else:
            raise UsageError(f"{item.name} has no column {label!r} (it has {', '.join(item.fields) or 'none'}).")
        for key, value in item.fields.items():
            fields.setdefault(key, [None] * count)[index] = value
    assert images is not None  # an empty data set cannot be opened
    labels, words = _encode_labels(raw_labels, class_names, subject.path)
    return Pack(images, labels, tuple(names), words, fields)


def _pixels(item: DatasetItem) -> np.ndarray:
    return decode(item.data, item.name).pixels


def resize(pixels: np.ndarray, size: tuple[int, int], fit: Fit = "crop") -> np.ndarray:
    """uint8 H×W×3 -> size[0]×size[1]×3; area averaging when shrinking, cubic when enlarging."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    scales = (size[0] / height, size[1] / width)
    if fit == "stretch":
        inner = size
    else:
        scale = max(scales) if fit == "crop" else min(scales)
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    method = cv2.INTER_AREA if min(scales) < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(pixels, (inner[1], inner[0]), interpolation=method)
    if inner == size:
        return scaled
    if fit == "crop":
        top, left = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
        return scaled[top : top + size[0], left : left + size[1]]
    canvas = np.full((*size, 3), 128, np.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = scaled
    return canvas


def _encode_labels(
    raw: list[Any], class_names: Sequence[str] | None, where: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Integers are kept where names for them are given; otherwise classes are numbered in sorted order."""
    if class_names is not None and all(isinstance(v, int | None) for v in raw):
        labels = np.array([-1 if v is None else v for v in raw], np.int64)
        if labels.size and (labels.min() < -1 or labels.max() >= len(class_names)):
            raise InputError(f"{where} has label {labels.max()}, but {len(class_names)} class names were given.")
        return labels, tuple(class_names)
    values = {v for v in raw if v is not None}
    numeric = all(isinstance(v, int) for v in values)
    ordered = sorted(values) if numeric else sorted(values, key=str)
    words = [str(v) for v in ordered]
    if class_names is not None:
        unknown = [w for w in words if w not in class_names]
        if unknown:
            raise InputError(f"{where} has class {unknown[0]!r}, which is not among the class names given.")
        words = list(class_names)
    index = {word: i for i, word in enumerate(words)}
    return np.array([-1 if v is None else index[str(v)] for v in raw], np.int64), tuple(words)


def split(names: Iterable[str], fractions: Mapping[str, float] | None = None, salt: str = "") -> dict[str, np.ndarray]:
    """Indices of each part, decided by every name alone.

    u = BLAKE2b(salt, name) / 2^64 falls into consecutive intervals as long as the fractions. An item therefore stays
    in its part when others are added or removed. Items that must stay together (photographs of one person, crops of
    one picture) stay together when their common key is passed in place of their names.

    fractions: default {"train": 0.8, "val": 0.1, "test": 0.1}; they must add up to 1. Raises UsageError otherwise.

    >>> parts = split([f"{i}.png" for i in range(1000)])
    >>> {part: round(len(chosen) / 1000, 1) for part, chosen in parts.items()}
    {'train': 0.8, 'val': 0.1, 'test': 0.1}
    """
    fractions = SPLIT if fractions is None else fractions
    if any(f < 0 for f in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UsageError(f"The fractions {dict(fractions)} must be positive and add up to 1.")
    edges = np.cumsum(list(fractions.values()))[:-1]
    where = np.searchsorted(edges, [_unit(name, salt) for name in names], side="right")
    return {part: np.flatnonzero(where == i) for i, part in enumerate(fractions)}


def _unit(name: str, salt: str) -> float:
    digest = hashlib.blake2b(f"{salt}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def iter_batches(
    pack: Pack, batch_size: int, *, seed: int | None = None, epoch: int = 0, drop_last: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(float32 B×3×H×W in [0, 1], int64 B) over the pack once; shuffled when a seed is given, anew each epoch."""
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1.")
    order = np.arange(len(pack)) if seed is None else rng(seed, "batches", epoch).permutation(len(pack))
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    for start in range(0, stop, batch_size):
        chosen = order[start : start + batch_size]
        yield pack.images[chosen].astype(np.float32) / np.float32(255), pack.labels[chosen]


def as_torch(pack: Pack) -> Any:
    """A map-style ``torch.utils.data.Dataset`` of (float32 3×H×W in [0, 1], int label); can be sent to workers."""
    return _torch_dataset_class()(pack)


@cache
def _torch_dataset_class() -> Any:
    import torch
    from torch.utils.data import Dataset

    class PackDataset(Dataset):
        def __init__(self, pack: Pack) -> None:
            self.pack = pack

        def __len__(self) -> int:
            return len(self.pack)

        def __getitem__(self, index: int) -> Any:
            return torch.from_numpy(self.pack.images[index]).float() / 255, int(self.pack.labels[index])

        def __reduce__(self) -> Any:  # a class made inside a function cannot be found by name
            return as_torch, (self.pack,)

    return PackDataset


def find_data_root() -> Path | None:
    """The folder of the research data packs: $VESTIGE_DATA, else ../shared/data or ./data, else None.

    Raises InputError when VESTIGE_DATA names a folder that is not there.
    """
    named = os.environ.get("VESTIGE_DATA")
    if named:
        if not Path(named).is_dir():
            raise InputError(f"VESTIGE_DATA is {named}, which is not a folder; correct or unset it.")
        return Path(named)
    return next((p for p in (Path("../shared/data"), Path("data")) if p.is_dir()), None)


def has_pack(name: str, root: Path | None = None) -> bool:
    """Whether there is a pack of that name in ``root``, by default `find_data_root`.

    A damaged pack counts: reading it then says what is wrong, and nothing takes its place unseen. Raises InputError
    when VESTIGE_DATA names a folder that is not there.

    >>> has_pack("a pack that nobody has")
    False
    """
    root = root or find_data_root()
    return root is not None and any((root / name).glob("*.parquet"))


def named_pack(name: str, part: str = "all", *, root: Path | None = None, **options: Any) -> Pack:
    """A research data pack by name; options as in `load_pack`. root: the folder of packs, by default `find_data_root`.

    part: "all", "train", "val" or "test". A pack with a test file of its own (CIFAR-10) keeps it: "test" is that
    file, "train" and "val" are 90 % and 10 % of the other. Otherwise parts are 80 %, 10 % and 10 %, by item name.
    ``limit`` is applied before the parts are cut. Raises InputError when the data or the pack is missing.
    """
    if part not in ("all", "train", "val", "test"):
        raise UsageError(f"part is {part!r}; choose all, train, val or test.")
    root = root or find_data_root()
    if root is None:
        raise InputError("The research data packs are not here; point VESTIGE_DATA to their folder.")
    known = sorted(p.name for p in root.iterdir() if any(p.glob("*.parquet")))
    if name not in known:
        raise InputError(f"There is no data pack {name!r} in {root}; it has {', '.join(known) or 'none'}.")
    if name == "cifar10":
        options.setdefault("class_names", CIFAR10)
    folder = root / name
    if part == "all":
        return load_pack(folder, **options)
    own_test = (folder / "test.parquet").is_file()
    if part == "test" and own_test:
        return load_pack(folder / "test.parquet", **options)
    pack = load_pack(folder / "train.parquet" if own_test else folder, **options)
    fractions = {"train": 0.9, "val": 0.1} if own_test else SPLIT
    return pack.take(split(pack.names, fractions)[part])
