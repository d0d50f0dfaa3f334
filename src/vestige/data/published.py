"""Published pictures of many real generators, beside photographs, paintings, product pictures, screenshots, graphics.

The two sides must differ in nothing but their origin: lossy WebP occurs among generated pictures alone, JPEG qualities
differ, and most sources hold one side. `levelled` brings every picture through the same scaling, cutting and saving;
`folds` leaves whole families and sources out in turn; `shares` draws both sides with the same mix of formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode, encode
from vestige.core.runtime import rng
from vestige.data.fakes import SOURCES, as_float
from vestige.data.packs import find_data_root, has_pack, split
from vestige.data.scenes import STYLES, render_pack

PACK = "generated"


@dataclass(frozen=True)
class Published:
    """Encoded pictures and what is known of each: generated bool N; family (of a generator, or the kind of a real
    picture), source (who published it), format of the published file and part ("train" or "validation"), str N."""

    files: tuple[bytes, ...] = field(repr=False)
    generated: np.ndarray
    family: np.ndarray
    source: np.ndarray
    format: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: Sequence[int] | np.ndarray) -> Published:
        """The pictures of these rows, or where a mask of N is True."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        columns = (self.generated, self.family, self.source, self.format, self.part)
        return Published(tuple(self.files[i] for i in chosen), *(column[chosen] for column in columns))


def published(*, limit: int = 0, root: Path | None = None) -> Published:
    """The pack, still encoded. limit: at most so many pictures, evenly spaced, 0 all.

    root: the folder of packs, by default `find_data_root`. Raises InputError when the pack is not there or damaged.
    """
    root = root or find_data_root()
    if root is None or not has_pack(PACK, root):
        raise InputError(
            "This needs the data pack 'generated' (published pictures of real generators); point VESTIGE_DATA or "
            "--data to a folder that holds it."
        )
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_table

    rows = []
    for part in ("train", "validation"):
        file = root / PACK / f"{part}.parquet"
        try:
            table = read_table(file, columns=["image", "label", "family", "source", "format"])
        except (OSError, ArrowInvalid, KeyError):
            raise InputError(f"{file} is missing or damaged; fetch the data pack 'generated' again.") from None
        rows += [(part, row) for row in table.to_pylist()]
    if limit and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    words = [np.array([row[name] for _, row in rows]) for name in ("family", "source", "format")]
    files = tuple(row["image"]["bytes"] for _, row in rows)
    generated = np.array([row["label"] == 1 for _, row in rows])
    return Published(files, generated, words[0], words[1], words[2], np.array([part for part, _ in rows]))


def published_or_scenes(*, limit: int = 0, seed: int = 0, root: Path | None = None) -> Published:
    """`published`; without the pack, rendered scenes and what up-sampling stages make of them, as a stand-in.

    The stand-in serves to try a recipe: three kinds of scenes, three families, two sources of each.
    """
    if has_pack(PACK, root):
        return published(limit=limit, root=root)
    each = max(2, (limit or 240) // 12)
    makers = list(SOURCES.values())[:3]
    files: list[bytes] = []
    columns: list[tuple[bool, str, str, str, str]] = []
    for kind in range(3):
        styles = list(STYLES)[kind : kind + 1]
        for source in range(2):
            real = render_pack(2 * each, 128, seed + 10 * kind + source, styles=styles).images
            made = np.round(makers[kind](as_float(real[each:]), seed=seed) * 255).astype(np.uint8)
            for generated, images in ((False, real[:each]), (True, made)):
                family = makers[kind].name if generated else f"scene, {styles[0]}"
                for i, image in enumerate(images):
                    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
                    lossless = i % 3 == 2
                    files.append(encode(pixels, "PNG") if lossless else encode(pixels, "JPEG", quality=80 + i % 16))
                    part = "validation" if i >= each - max(1, each // 5) else "train"
                    name = f"{'made' if generated else 'drawn'} {kind}{source}"
                    columns.append((generated, family, name, "png" if lossless else "jpeg", part))
    return Published(tuple(files), *(np.array(column) for column in zip(*columns, strict=True)))


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and rows to judge by."""

    train: np.ndarray
    test: np.ndarray


def folds(made: Published, count: int = 3, *, by: str = "families") -> list[Fold]:
    """Each picture is judged in one fold. by: "families" leaves families of generators out and, on both sides, every
    source that the judged pictures come from; "sources" leaves sources alone out, so that a family with several of them
    is known. Families and sources go to the fold that has least so far, the largest first.

    Raises UsageError for fewer than two folds and another ``by``.
    """
    if count < 2 or by not in ("families", "sources"):
        raise UsageError(f"Pictures are left out by families or sources, in two folds or more; got {by!r}, {count}.")
    real, generated = ~made.generated, made.generated
    where = np.zeros(len(made), int)
    key = made.family if by == "families" else made.source
    where[generated] = _dealt(key[generated], count)
    for kind in sorted(set(made.family[real])):  # every kind is in as many folds as it has sources
        rows = real & (made.family == kind)
        start = int(np.argmin([np.count_nonzero(real & (where == k)) for k in range(count)]))
        where[rows] = (_dealt(made.source[rows], count) + start) % count
    found = []
    for k in range(count):
        test = where == k
        known = ~test & ~np.isin(made.source, made.source[test])
        if by == "families":
            known &= ~(generated & np.isin(made.family, made.family[test & generated]))
        found.append(Fold(np.flatnonzero(known), np.flatnonzero(test)))
    return found


def _dealt(names: np.ndarray, count: int) -> np.ndarray:
    """The fold of each row, by its name: largest groups first, each to the fold with fewest rows."""
    held = [0] * count
    place = {}
    for name, number in sorted(Counter(names.tolist()).items(), key=lambda item: (-item[1], item[0])):
        place[name] = int(np.argmin(held))
        held[place[name]] += number
    return np.array([place[name] for name in names.tolist()], int)


def kept_apart(made: Published, rows: np.ndarray, share: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two, to learn from and to choose thresholds by, by a digest of each picture's bytes."""
    import hashlib

    names = [hashlib.sha256(made.files[i]).hexdigest() for i in rows]
    parts = split(names, {"train": 1 - share, "apart": share})
    return rows[parts["train"]], rows[parts["apart"]]


def levelled(
    data: bytes, side: int, seed: int, *, quality: int | None = None, scale: float | None = None
) -> np.ndarray:
    """A square of a picture after the handling that both sides share: uint8 3×side×side.

    A region is cut anywhere, half of them reduced to down to a half, and saved: one in five without loss, one in five
    as WebP, the others as JPEG 4:2:0, of quality 60 to 97. quality, scale: JPEG of this quality, 0 without loss, and
    this scale instead. Sides below the region's are enlarged; what happens follows from the seed alone.
    """
    draw = rng(seed, "levelled")
    shrink, chosen, kind, places = _handling(draw, quality, scale)
    pixels = decode(data).pixels
    region = min(round(side / shrink), *pixels.shape[:2])
    top, left = (int(place * (n - region + 1)) for place, n in zip(places, pixels.shape[:2], strict=True))
    cut = pixels[top : top + region, left : left + region]
    if region != side:
        how = cv2.INTER_AREA if region > side else cv2.INTER_CUBIC
        cut = cv2.resize(cut, (side, side), interpolation=how)
    if chosen:
        cut = decode(encode(np.ascontiguousarray(cut), kind, quality=chosen, subsampling=2)).pixels
    return np.ascontiguousarray(cut.transpose(2, 0, 1))


def _handling(
    draw: np.random.Generator, quality: int | None, scale: float | None
) -> tuple[float, int, str, np.ndarray]:
    """(reduction, quality with 0 for without loss, format, two shares of the room for a cut) as `levelled` says."""
    shrink = 1.0 if draw.random() < 0.5 else float(draw.uniform(0.5, 1))
    chosen = 0 if draw.random() < 0.2 else int(draw.integers(60, 98))
    kind = "WEBP" if quality is None and draw.random() < 0.25 else "JPEG"
    places = draw.random(2)
    return shrink if scale is None else scale, chosen if quality is None else quality, kind, places


def sent(data: bytes, most: int, seed: int, *, quality: int | None = None, scale: float | None = None) -> np.ndarray:
    """A whole picture after the handling of `levelled`, as people send it, in its own size: uint8 3×H×W.

    Sides above ``most`` are cut anywhere; nothing is enlarged. quality, scale: as in `levelled`.
    """
    draw = rng(seed, "sent")
    shrink, chosen, kind, places = _handling(draw, quality, scale)
    pixels = decode(data).pixels
    sides = [min(n, most) for n in pixels.shape[:2]]
    top, left = (int(place * (n - side + 1)) for place, n, side in zip(places, pixels.shape[:2], sides, strict=True))
    cut = pixels[top : top + sides[0], left : left + sides[1]]
    if shrink < 1:
        height, width = (max(1, round(side * shrink)) for side in sides)
        cut = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
    if chosen:
        cut = decode(encode(np.ascontiguousarray(cut), kind, quality=chosen, subsampling=2)).pixels
    return np.ascontiguousarray(cut.transpose(2, 0, 1))


def shares(made: Published) -> np.ndarray:
    """How often each row is drawn, a distribution over N: both sides alike often; on either side JPEG files and others
    in the mix of the whole; among those every family or kind by the square root of its number."""
    is_jpeg = made.format == "jpeg"
    weight = np.zeros(len(made))
    for side in (False, True):
        for jpeg in (False, True):
            rows = (made.generated == side) & (is_jpeg == jpeg)
            if not rows.any():
                continue
            counts = Counter(made.family[rows].tolist())
            own = np.array([counts[name] ** -0.5 for name in made.family[rows].tolist()])
            weight[rows] = own / own.sum() * (is_jpeg == jpeg).mean() / 2
    return weight / weight.sum()
