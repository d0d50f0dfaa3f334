"""The examination corpus: photographs with known histories.

From each photograph come untouched, innocently processed, tampered, recompressed, resampled, payload-carrying and
marked versions, each with the traces it truly has. Validation and test photographs are split by name, so the
thresholds set on one half are judged on the other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vestige.core.dataset import DatasetSubject
from vestige.core.image_io import decode, encode, to_float, to_uint8
from vestige.core.keys import PUBLIC_KEY
from vestige.core.runtime import rng
from vestige.data.packs import split
from vestige.data.tampering import OPERATIONS, tamper

#: What each statistical examiner of the panel seeks, in the corpus's trace names.
SEEKS = {
    "jpeg_double": {"double"},
    "jpeg_crop": {"cropped"},
    "jpeg_dq": {"edit"},
    "jpeg_grid": {"edit"},
    "jpeg_ghosts": {"edit"},
    "ela": {"edit"},
    "noise_level": {"edit"},
    "copy_move": {"edit"},
    "tamper_map": {"edit"},
    "resampling": {"resampled"},
    "steganalysis": {"payload"},
}
#: Examiners that learned from the training part of the photos pack, and may know those photographs.
LEARNED = frozenset({"tamper_map"})
#: Traces that come with every file of a kind and make an examiner's answer neither right nor wrong.
ALWAYS = frozenset({"edit", "double", "cropped", "resampled", "payload", "mark"})
#: Validation photographs set thresholds, test photographs judge them.
HALVES = {"validation": 0.5, "test": 0.5}


@dataclass(frozen=True)
class Case:
    """One file with a known history.

    present: traces it has. possible: traces it may show, so that neither answer counts. mask: bool H×W of the edit.
    """

    photo: str
    name: str
    data: bytes
    present: frozenset[str] = frozenset()
    possible: frozenset[str] = frozenset()
    mask: np.ndarray | None = None

    def truth(self, examiner: str) -> bool | None:
        """Whether this examiner should flag the file; None where neither answer counts."""
        sought = SEEKS[examiner]
        if sought & self.present:
            return True
        return None if sought & self.possible else False


Photo = tuple[str, bytes]


def learned_from(photo: str) -> bool:
    """Whether the networks of `LEARNED` were trained on a photograph, given as PACK/NAME."""
    pack, _, name = photo.partition("/")
    return pack == "photos" and split([name])["train"].size > 0


def photographs(
    root: Path, part: str, packs: Sequence[str] = ("photos", "scenery"), limit: int = 0, *, unseen: bool = False
) -> list[Photo]:
    """(name, file bytes) of the photographs of one half, "validation" or "test", split by hashing names.

    unseen: only those that no examiner of the panel was trained on.
    """
    chosen: list[Photo] = []
    for pack in packs:
        if not (root / pack).is_dir():
            continue
        items = {f"{pack}/{item.name}": item.data for item in DatasetSubject.open(root / pack)}
        names = sorted(items)  # the halves are cut before any are left out, so that they never meet
        chosen += [(names[i], items[names[i]]) for i in split(names, HALVES, salt="examination")[part]]
    if unseen:
        chosen = [photo for photo in chosen if not learned_from(photo[0])]
    if limit:
        order = rng(0, "limit", part).permutation(len(chosen))[:limit]
        chosen = [chosen[i] for i in sorted(order)]
    return chosen


def jpeg(pixels: np.ndarray, quality: int | np.integer, subsampling: int = 0) -> bytes:
    """JPEG bytes of uint8 H×W×3 (subsampling 0 is 4:4:4, 2 is 4:2:0)."""
    return encode(pixels, "JPEG", quality=int(quality), subsampling=subsampling)


def resized(pixels: np.ndarray, scale: float) -> np.ndarray:
    """uint8 H×W×3 scaled with antialiased bicubic interpolation, sides at least 32."""
    height, width = pixels.shape[:2]
    size = (max(32, round(width * scale)), max(32, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def untouched(photo: Photo) -> Iterator[Case]:
    """The file as it is; what happened to it before it was collected is unknown."""
    yield Case(photo[0], "untouched", photo[1], possible=frozenset({"double", "cropped"}))


def innocent(photo: Photo, seed: int = 0) -> Iterator[Case]:
    """What ordinary handling makes of a photograph: no part of the picture is edited."""
    name, data = photo
    pixels = decode(data).pixels
    r = rng(seed, "innocent", name)
    past = frozenset({"double", "cropped"})  # of the photograph, before it was collected
    maybe = past | {"resampled"}
    chroma = (0, 2)[int(r.integers(2))]
    yield Case(name, "saved as PNG", encode(pixels, "PNG"), possible=past)
    yield Case(name, "saved again", jpeg(pixels, r.integers(60, 96), chroma), possible=maybe)
    small = resized(pixels, r.uniform(0.5, 0.85))
    yield Case(name, "reduced", jpeg(small, r.integers(70, 98), chroma), possible=frozenset({"resampled"}))
    large = resized(pixels, r.uniform(1.2, 1.9))
    yield Case(name, "enlarged", jpeg(large, r.integers(80, 98)), frozenset({"resampled"}), past)
    top, left = r.integers(1, 8, 2)
    yield Case(name, "cropped", jpeg(pixels[top:, left:], r.integers(75, 96)), possible=maybe)
    gain, offset = r.uniform(0.85, 1.15), r.uniform(-12, 12)
    adjusted = (pixels * gain + offset).clip(0, 255).astype(np.uint8)
    yield Case(name, "brightness adjusted", jpeg(adjusted, r.integers(85, 98)), possible=maybe)


def double_compressed(photo: Photo, seed: int = 0) -> Iterator[Case]:
    """Saved as JPEG twice, the second time at a higher quality, as it is and cropped in between.

    The photograph is reduced first, so that no older grid is left.
    """
    name, data = photo
    r = rng(seed, "double", name)
    pixels = resized(decode(data).pixels, 0.75)
    first = int(r.integers(50, 81))
    second = int(r.integers(first + 8, 98))
    once = np.asarray(Image.open(io.BytesIO(jpeg(pixels, first))).convert("RGB"))
    possible = frozenset({"resampled"})
    yield Case(name, "saved twice", jpeg(once, second), frozenset({"double"}), possible)
    top, left = r.integers(1, 8, 2)
    shifted = jpeg(once[top:, left:], second)
    yield Case(name, "cropped in between", shifted, frozenset({"cropped"}), possible | {"double"})


def with_payload(photo: Photo, seed: int = 0) -> Iterator[Case]:
    """Random bits replace the lowest bits of a share of the samples, spread or from the start, saved as PNG."""
    name, data = photo
    r = rng(seed, "payload", name)
    pixels = decode(data).pixels.copy()
    rate = float(r.choice([0.1, 0.25, 0.5, 1.0]))
    flat = pixels.reshape(-1)
    count = int(rate * flat.size)
    where = np.arange(count) if r.random() < 0.5 else r.permutation(flat.size)[:count]
    flat[where] = (flat[where] & 0xFE) | r.integers(0, 2, count, dtype=np.uint8)
    possible = ALWAYS - {"payload", "mark"}
    yield Case(name, f"payload {rate:.0%}", encode(pixels, "PNG"), frozenset({"payload"}), possible)


def tampered(photo: Photo, donor: Photo, operation: str, seed: int = 0) -> Iterator[Case]:
    """One local edit with an exact mask, saved as PNG or as JPEG of quality 85 to 97."""
    name, data = photo
    r = rng(seed, "tamper", operation, name)
    pixels = decode(data).pixels
    other = to_float(decode(donor[1]).pixels)
    edited = tamper(to_float(pixels), operation, donor=other, seed=int(r.integers(2**31)), blend=bool(r.integers(2)))
    if edited.details["changed"] < 0.3:
        return  # the region was too flat for the edit to change anything
    result = to_uint8(edited.image)
    content = encode(result, "PNG") if r.random() < 0.3 else jpeg(result, r.integers(85, 98))
    mask = np.asarray(edited.mask).reshape(result.shape[:2])
    yield Case(name, operation, content, frozenset({"edit"}), ALWAYS - {"edit", "mark"}, mask)


def posted(case: Case) -> Case:
    """A case scaled to 75 % and saved as JPEG 80 with halved colour, as platforms do."""
    import cv2

    small = resized(decode(case.data).pixels, 0.75)
    mask = case.mask
    if mask is not None:
        mask = cv2.resize(mask.astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5
    return Case(case.photo, f"{case.name}, posted", jpeg(small, 80, 2), case.present, case.possible, mask)


def tampered_and_posted(photo: Photo, donor: Photo, operation: str, seed: int = 0) -> Iterator[Case]:
    """`tampered`, and the same file `posted`."""
    for case in tampered(photo, donor, operation, seed):
        yield case
        yield posted(case)


def marked(photo: Photo, seed: int = 0) -> Iterator[Case]:
    """The default watermark with the public key, saved as JPEG of quality 90."""
    from vestige.core.catalogue import system

    name, data = photo
    marker = system("spread_spectrum").load()()
    bits = rng(seed, "mark", name).integers(0, 2, 32).astype(bool)
    image = to_float(decode(data).pixels)
    if min(image.shape[2:]) < marker.minimum_side:
        return
    pixels = to_uint8(marker.mark(image, bits, PUBLIC_KEY))
    yield Case(name, "marked", jpeg(pixels, 90), frozenset({"mark"}), ALWAYS - {"mark"})


Maker = Callable[[], Iterable[Case]]


def corpus(photos: Sequence[Photo], *, seed: int = 0, processed: int = 0, edited: int = 0) -> list[Maker]:
    """Makers of the cases: every photograph untouched, ``processed`` of them also innocently processed, ``edited``
    of them also saved twice, with a payload and tampered with by every operation, as edited and as posted (0: all).
    """
    order = [photos[int(i)] for i in rng(seed, "corpus").permutation(len(photos))]
    makers: list[Maker] = [partial(untouched, photo) for photo in photos]
    makers += [partial(innocent, photo, seed) for photo in order[: processed or len(order)]]
    chosen = order[: edited or len(order)]
    for i, photo in enumerate(chosen):
        donor = chosen[(i + 1) % len(chosen)]
        makers += [partial(double_compressed, photo, seed), partial(with_payload, photo, seed)]
        makers += [partial(tampered_and_posted, photo, donor, operation, seed) for operation in OPERATIONS]
    return makers
