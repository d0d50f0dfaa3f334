"""Real and generated pictures of several kinds of content, as many of each, so that content says nothing.

Contents: photographs, rendered scenes, faces and fractals. Sources of one picture never fall into two parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.fakes import FakeSource, as_float, saved, squares
from vestige.data.fractals import plasma, render_fractal, sample_ifs
from vestige.data.packs import find_data_root, has_pack, named_pack
from vestige.data.scenes import render_pack

CONTENTS = ("photos", "scenes", "faces", "fractals")
PARTS = ("train", "calibration", "test")
R = TypeVar("R")


def balance(records: Iterable[R], keys: Sequence[str] = ("content", "origin"), *, seed: int = 0) -> list[R]:
    """As many records of every combination of the keys: the smallest count there is, drawn at random, in their order.

    records: mappings, or objects with these attributes. Raises UsageError when a combination is missing or no key is
    given.

    >>> balance([{"content": c, "origin": o} for c in "ab" for o in "rrf"], seed=1).__len__()
    4
    """
    listed = list(records)
    groups: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for i, record in enumerate(listed):
        groups[tuple(_value(record, key) for key in keys)].append(i)
    values = [{combination[k] for combination in groups} for k in range(len(keys))]
    wanted = int(np.prod([len(found) for found in values])) if keys else 0
    if not groups or not keys or len(groups) < wanted:
        raise UsageError(f"Records cannot be balanced: {len(groups)} of {wanted} combinations of their keys occur.")
    count = min(len(rows) for rows in groups.values())
    draw = rng(seed, "balance")
    kept = [int(i) for key in sorted(groups, key=repr) for i in draw.permutation(groups[key])[:count]]
    return [listed[i] for i in sorted(kept)]


def _value(record: Any, key: str) -> Hashable:
    found: Hashable = record[key] if isinstance(record, Mapping) else getattr(record, key)
    return found


@dataclass(frozen=True)
class ContentSet:
    """images: uint8 N×3×S×S. generated: bool N. content, generator: str N ("real" where it is). source: str N, the
    picture each comes from."""

    images: np.ndarray = field(repr=False)
    generated: np.ndarray
    content: np.ndarray
    generator: np.ndarray
    source: np.ndarray

    def take(self, rows: np.ndarray) -> ContentSet:
        """These rows, by indices or a mask."""
        return ContentSet(*(x[rows] for x in (self.images, self.generated, self.content, self.generator, self.source)))

    def joined(self, other: ContentSet) -> ContentSet:
        """These pictures and the others."""
        names = ("images", "generated", "content", "generator", "source")
        return ContentSet(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def without(self, generator: str) -> ContentSet:
        """All but the pictures of one generator, with the real ones thinned to as many as are generated."""
        rows = np.flatnonzero(self.generator != generator)
        real, made = rows[~self.generated[rows]], rows[self.generated[rows]]
        thin = np.linspace(0, len(real) - 1, len(made)).astype(int)
        return self.take(np.sort(np.concatenate([real[thin], made])))


def content_set(
    part: str,
    sources: Sequence[FakeSource],
    *,
    each: int = 40,
    size: int = 64,
    seed: int = 0,
    root: Path | None = None,
) -> ContentSet:
    """``each`` real pictures of every content for each generator, and as many that the generator made of them.

    part: of `PARTS`. Pictures of every origin are saved the same way. Photographs and faces come from the packs where
    there are such; otherwise scenes take their place. root: the folder of packs, by default `find_data_root`. Raises
    UsageError for another part or no sources.
    """
    if part not in PARTS or not sources or each < 1:
        raise UsageError(f"A set of contents is one of {', '.join(PARTS)}, of at least one generator and picture.")
    count = each * len(sources)
    images, content, generator, names = [], [], [], []
    for kind in CONTENTS:
        real = _pictures(kind, part, count, size, seed, root or find_data_root())
        kept = saved(real, seed)
        images.append(kept)
        generator += ["real"] * count
        for k, source in enumerate(sources):
            rows = slice(k * each, (k + 1) * each)
            made = np.round(source(as_float(real[rows]), seed=seed) * 255).astype(np.uint8)
            whole = real.copy()
            whole[rows] = made  # codec and quality follow from the row
            images.append(saved(whole, seed)[rows])
            generator += [source.name] * each
        content += [kind] * (2 * count)
        names += 2 * [f"{part}/{kind}/{i}" for i in range(count)]
    origin = np.array(generator)
    return ContentSet(np.concatenate(images), origin != "real", np.array(content), origin, np.array(names))


def _pictures(kind: str, part: str, count: int, size: int, seed: int, root: Path | None) -> np.ndarray:
    """uint8 count×3×size×size; the same picture may be cut twice, never in two parts."""
    number = PARTS.index(part)
    own = 10_000 * (seed + 1) + 1000 * number
    if kind == "fractals":
        draw = rng(seed, "fractals", part)
        made = []
        for i in range(count):
            flat = plasma(size, own + i)
            drawn = render_fractal(sample_ifs(own + i), size, own + i)
            share = draw.uniform(0.3, 0.7)
            made.append(np.round(_as_bytes(flat) * share + _as_bytes(drawn) * (1 - share)).astype(np.uint8))
        return np.stack(made)
    if kind in ("photos", "faces") and root and has_pack(kind, root):
        return _cut(kind, number, count, size, seed, root)
    return render_pack(count, size, own + 500 * CONTENTS.index(kind)).images


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    """Whatever a renderer gives -> float 3×H×W from 0 to 255."""
    x = picture.astype(np.float32)
    x = x * 255 if picture.dtype.kind == "f" else x
    x = x[None].repeat(3, 0) if x.ndim == 2 else x
    return x if x.shape[0] == 3 else x.transpose(2, 0, 1)


def _cut(kind: str, number: int, count: int, size: int, seed: int, root: Path) -> np.ndarray:
    if kind == "photos":
        images = named_pack("photos", ("train", "val", "test")[number], root=root, size=256).images
        reduce = 2
    else:
        pack = named_pack("faces", root=root, size=(112, 92), label="person")
        people = rng(0, "people").permutation(np.unique(pack.labels))
        chosen = np.array_split(people, [len(people) // 2, 3 * len(people) // 4])[number]
        images, reduce = pack.images[np.isin(pack.labels, chosen)], 1
    each = -(-count // len(images))
    return squares(images, size, per_photo=each, reduce=reduce, seed=seed)[0][:count]
