"""Pictures that somebody names by folder, class by class, read strictly: a request that cannot be read is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vestige.core.dataset import DatasetSubject, FolderDataset, files_below
from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import decode
from vestige.core.progress import track
from vestige.data.packs import resize

#: Most bytes of decoded pictures that one set may take.
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Pictures:
    """images: uint8 N×3×S×S. labels: folder names or numbers, None where there is none. digests: SHA-256 of files."""

    images: np.ndarray = field(repr=False)
    labels: tuple[str | int | None, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    digests: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)


def read_pictures(path: str | Path, size: int, what: str = "reading pictures") -> Pictures:
    """Every picture of a folder (class/*.png), parquet file or tar shard, its middle square at ``size`` pixels a side.

    Raises InputError for a folder that is empty or holds a file that is no picture, and for damaged pictures;
    LimitError above 4 GiB.
    """
    source = DatasetSubject.open(path)
    if isinstance(source, FolderDataset):
        others = sorted(set(files_below(Path(path))) - set(source.files))
        if others:
            raise InputError(f"{others[0]} is no picture; {path} must hold pictures only, so that none is passed over.")
    if len(source) * 3 * size * size > MOST_BYTES:
        raise LimitError(f"{path} holds {len(source)} pictures, too many at {size} pixels; give a smaller --size.")
    images = np.empty((len(source), 3, size, size), np.uint8)
    labels, names, digests = [], [], []
    for number, item in enumerate(track(source, what, len(source))):
        pixels = decode(item.data, item.name).pixels
        images[number] = resize(pixels, (size, size)).transpose(2, 0, 1)
        labels.append(item.label)
        names.append(item.name)
        digests.append(hashlib.sha256(item.data).hexdigest())
    return Pictures(images, tuple(labels), tuple(names), tuple(digests))


def usual_side(path: str | Path, most: int = 224) -> int:
    """The shorter side of the first picture of a set, at most ``most``."""
    item = DatasetSubject.open(path)[0]
    return min(most, *decode(item.data, item.name).pixels.shape[:2])


def overlap(one: Pictures, other: Pictures) -> list[tuple[str, str]]:
    """Names of files that are in both sets, byte for byte or, after decoding, pixel for pixel."""
    places: dict[str | bytes, str] = dict(zip(other.digests, other.names, strict=True))
    places |= {_pixels(image): name for image, name in zip(other.images, other.names, strict=True)}
    found = []
    for image, digest, name in zip(one.images, one.digests, one.names, strict=True):
        twin = places.get(digest) or places.get(_pixels(image))
        if twin is not None:
            found.append((name, twin))
    return found


def _pixels(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def class_numbers(
    sets: Mapping[str, Pictures], outputs: int, classes: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels of several sets as numbers of a model's outputs, and the classes' names.

    classes: names in the order of the outputs. Without them numbers are taken as they are, and names are numbered in
    the order of the alphabet where there are as many as outputs. Raises InputError when a picture has no label, a class
    is unknown, or names and outputs do not fit.
    """
    for where, one in sets.items():
        if None in one.labels:
            name = one.names[one.labels.index(None)]
            raise InputError(f"{name} in {where} has no label; put pictures into a folder for each class.")
    said = {str(label) for one in sets.values() for label in one.labels}
    if classes:
        known = {name: i for i, name in enumerate(classes)}
        known |= {str(i): i for i in range(len(classes)) if str(i) not in known}
    elif all(name.isdigit() for name in said):
        known = {str(i): i for i in range(outputs)}
    else:
        known = {name: i for i, name in enumerate(sorted(said))}
        if len(known) != outputs:
            raise InputError(
                f"The folders name {len(known)} classes but the model has {outputs} outputs; give --classes FILE with "
                "a name a line, in the order of the outputs."
            )
    if len(classes) not in (0, outputs):
        raise InputError(f"There are names for {len(classes)} classes but the model has {outputs} outputs.")
    unknown = sorted(said - set(known))
    if unknown:
        raise InputError(f"The model has no class {unknown[0]!r}; it has {', '.join(list(known)[:8])}...")
    numbers = {where: np.array([known[str(label)] for label in one.labels], np.int64) for where, one in sets.items()}
    names = classes or [name for name, _ in sorted(known.items(), key=lambda pair: pair[1])]
    return numbers, tuple(names)
