"""Sets of the forensics benchmark for those who have none: edits and fakes made of photographs that trained nothing.

The photographs are the test half of the scenery pack; where there is no pack, rendered scenes. Every photograph is
there once as it is and once edited or re-made, each saved as PNG or as JPEG of quality 85 to 97.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vestige.bench.forensics.corpus import Photo, jpeg, photographs, tampered
from vestige.core.errors import InputError
from vestige.core.files import write_atomic
from vestige.core.image_io import decode, encode, to_uint8
from vestige.core.progress import track
from vestige.core.runtime import rng
from vestige.data.fakes import FakeSource, as_float, squares
from vestige.data.forensic_sets import REAL, ForensicItem, ForensicSet
from vestige.data.packs import find_data_root
from vestige.data.tampering import OPERATIONS

#: Rendered scenes where there are no photographs, and their side.
_SCENES, _SIDE = 24, 256
#: Side of the squares that generators re-make, and photographs that the fitted ones learn from.
_SQUARE, _FITTED = 64, 40
_PNG = b"\x89PNG"


def made_edits(work: Path, *, limit: int = 0, seed: int = 0) -> ForensicSet:
    """Every photograph once with one edit, by all operations in turn. limit: of pictures, 0 for all."""
    photos, what = _photos("test", limit, seed)
    items = []
    for number, photo in enumerate(track(photos, "editing pictures")):
        name = Path(photo[0]).stem
        items.append(_item(work, f"{name}-as it is", REAL, _file(decode(photo[1]).pixels, photo[0], seed)))
        case = _edited(photo, photos[(number + 1) % len(photos)], number, seed)
        if case is not None:
            items.append(_item(work, f"{name}-{case[0]}", *case))
    return ForensicSet(f"made-up edits of {what}", work / "made", tuple(items)).take(limit, seed)


def _edited(photo: Photo, donor: Photo, number: int, seed: int) -> tuple[str, bytes, np.ndarray] | None:
    """(operation, file, mask) by the operation whose turn it is; by the next where the picture does not take it."""
    names = list(OPERATIONS)
    for step in range(len(names)):
        try:
            cases = list(tampered(photo, donor, names[(number + step) % len(names)], seed))
        except InputError:
            continue
        if cases and cases[0].mask is not None:
            return cases[0].name, cases[0].data, cases[0].mask
    return None


def made_fakes(work: Path, *, limit: int = 0, seed: int = 0) -> ForensicSet:
    """A square of every photograph, reduced by two, and the same re-made by all sources of `vestige.engines.fakes.zoo`
    in turn; the fitted ones learn from the other half of the photographs. Detectors that learnt from these sources have
    an easy time: only leaving a family out tells what they do with new ones. limit: of pictures, 0 for all.
    """
    from vestige.engines.fakes import zoo

    photos, what = _photos("test", limit, seed)
    others, _ = _photos("validation", 2 * _FITTED, seed + 1)
    real = _squares(photos, seed)
    sources = _mixed(zoo(as_float(_squares(others, seed)), size=_SQUARE, seed=seed))
    items = []
    for number, source in enumerate(track(sources, "making pictures")):
        rows = range(number, len(real), len(sources))
        if not rows:
            break
        for row, made in zip(rows, source(as_float(real[rows]), seed=seed), strict=True):
            name = Path(photos[row][0]).stem
            pairs = ((REAL, real[row].transpose(1, 2, 0)), (source.name, to_uint8(made)))
            for approach, pixels in pairs:
                items.append(_item(work, f"{name}-{approach}", approach, _file(pixels, photos[row][0], seed)))
    return ForensicSet(f"fakes made of {what}", work / "made", tuple(items)).take(limit, seed)


def _mixed(sources: Iterable[FakeSource]) -> list[FakeSource]:
    """One source of every family first, then the second ones, so that few pictures show many families."""
    seen: dict[str, int] = {}
    turns = []
    for source in sources:
        turns.append((seen.setdefault(source.family, 0), source))
        seen[source.family] += 1
    return [source for _, source in sorted(turns, key=lambda turn: turn[0])]


def _squares(photos: Iterable[Photo], seed: int) -> np.ndarray:
    """uint8 N×3×S×S, one of each photograph."""
    each = [decode(data).pixels.transpose(2, 0, 1)[None] for _, data in photos]
    return np.concatenate([squares(p, _SQUARE, per_photo=1, seed=seed + i)[0] for i, p in enumerate(each)])


def _photos(part: str, limit: int, seed: int) -> tuple[list[Photo], str]:
    """(photographs for so many pictures, what they are)."""
    wanted = -(-limit // 2)
    root = find_data_root()
    photos = photographs(root, part, ("scenery",), limit=wanted) if root is not None else []
    if len(photos) >= 2:
        return photos, "photographs"
    from vestige.data.scenes import render, sample_scene

    found = []
    for number in range(max(2, wanted or _SCENES)):
        scene = sample_scene(int(rng(seed, "scene", number).integers(2**31)))
        found.append((f"scene {number}", encode(to_uint8(render(scene, _SIDE).image), "PNG")))
    return found, "rendered scenes"


def _file(pixels: np.ndarray, photo: str, seed: int) -> bytes:
    """The pixels as the file that this photograph and all that is made of it are saved as."""
    draw = rng(seed, "saved as", photo)
    return encode(pixels, "PNG") if draw.random() < 0.3 else jpeg(np.ascontiguousarray(pixels), draw.integers(85, 98))


def _item(work: Path, name: str, approach: str, data: bytes, mask: np.ndarray | None = None) -> ForensicItem:
    """The item of a file that is written to ``work``, with its mask."""
    folder = work / "made"
    file = f"{name}.{'png' if data.startswith(_PNG) else 'jpg'}"
    write_atomic(folder / file, data)
    drawn = None
    if mask is not None:
        drawn = folder / f"{name}-mask.png"
        write_atomic(drawn, encode(np.repeat(mask[..., None] * np.uint8(255), 3, 2), "PNG"))
    return ForensicItem(file, folder / file, approach != REAL, drawn, approach=approach)
