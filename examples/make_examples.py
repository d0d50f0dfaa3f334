"""Make the example pictures: photographs and rendered scenes, untouched and with planted traces.

The photographs ship with scikit-learn (china.jpg) and scikit-image (astronaut, coffee, cat). What was
planted is written down in ``planted.json``; masks of the edits are under ``.masks``.

Usage: python examples/make_examples.py [FOLDER]
"""

from __future__ import annotations

import io
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vestige import mark
from vestige.core.files import write_atomic, write_json
from vestige.core.image_io import decode, encode, to_uint8
from vestige.core.runtime import rng
from vestige.data.scenes import render, sample_scene

SEED = 2024


def photograph(name: str) -> np.ndarray:
    """uint8 H×W×3 of a sample photograph of scikit-learn or scikit-image."""
    if name == "china":
        from sklearn.datasets import load_sample_image

        return load_sample_image("china.jpg")
    import skimage.data

    return getattr(skimage.data, name)()


def ellipse(shape: tuple[int, ...], centre: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def spliced() -> tuple[bytes, np.ndarray]:
    """A cup of coffee from a strongly compressed photograph, pasted into another photograph."""
    host = photograph("china")
    donor = decode(encode(photograph("coffee"), "JPEG", quality=55, subsampling=2)).pixels
    mask = np.zeros(host.shape[:2], bool)
    cut = ellipse(donor.shape, (175, 290), (120, 150))
    top, left = 93, 201
    height, width = min(donor.shape[0], host.shape[0] - top), min(donor.shape[1], host.shape[1] - left)
    window = (slice(top, top + height), slice(left, left + width))
    mask[window] = cut[:height, :width]
    edited = host.copy()
    edited[mask] = donor[:height, :width][mask[window]]
    return encode(edited, "JPEG", quality=95), mask


def copy_moved() -> tuple[bytes, np.ndarray]:
    """A part of the temple's roof appears a second time."""
    picture = photograph("china").copy()
    region = ellipse((110, 170), (55, 85), (52, 82))
    source, target = (slice(150, 260), slice(60, 230)), (slice(283, 393), slice(402, 572))
    picture[target][region] = picture[source][region].copy()
    mask = np.zeros(picture.shape[:2], bool)
    mask[target] = region
    return encode(picture, "JPEG", quality=92), mask


def saved_twice() -> bytes:
    once = decode(encode(photograph("astronaut"), "JPEG", quality=60)).pixels
    return encode(once, "JPEG", quality=92)


def with_payload() -> bytes:
    """Random bits in the lowest bit of half of the samples, from the top."""
    picture = photograph("coffee").copy()
    flat = picture.reshape(-1)
    count = flat.size // 2
    flat[:count] = (flat[:count] & 0xFE) | rng(SEED, "payload").integers(0, 2, count, dtype=np.uint8)
    return encode(picture, "PNG")


def tagged_as_generated() -> bytes:
    """A rendered scene that carries the text chunk which a diffusion web interface writes."""
    scene = render(sample_scene(SEED, style="watercolour", n_objects=3), 384)
    info = PngInfo()
    info.add_text(
        "parameters",
        f"{scene.caption}\nNegative prompt: blurry\n"
        "Steps: 28, Sampler: DPM++ 2M, CFG scale: 7, Seed: 421337, Size: 384x384, Model: scenes-toy",
    )
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(scene.image)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_appended_archive() -> bytes:
    """A zip archive behind the end of a JPEG file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(zipfile.ZipInfo("notes.txt", (2024, 1, 1, 0, 0, 0)), "hidden behind the picture\n" * 20)
    return encode(photograph("astronaut"), "JPEG", quality=90) + archive.getvalue()


def sample_file(name: str) -> bytes:
    """The file of a sample photograph exactly as scikit-learn ships it."""
    return (files("sklearn.datasets") / "images" / name).read_bytes()


def main(folder: Path) -> None:
    splice, splice_mask = spliced()
    copy, copy_mask = copy_moved()
    marked = encode(mark(encode(photograph("chelsea"), "PNG"), message="vestige"), "JPEG", quality=90)
    plain = render(sample_scene(SEED + 1, style="photo", n_objects=2), 384)
    planted = {
        "untouched-china.jpg": (sample_file("china.jpg"), None),
        "untouched-coffee.png": (encode(photograph("coffee"), "PNG"), None),
        "untouched-scene.png": (encode(to_uint8(plain.image), "PNG"), None),
        "spliced.jpg": (splice, "edit"),
        "copy-moved.jpg": (copy, "edit"),
        "saved-twice.jpg": (saved_twice(), "history"),
        "marked.jpg": (marked, "mark"),
        "payload.png": (with_payload(), "payload"),
        "generated.png": (tagged_as_generated(), "generated"),
        "appended.jpg": (with_appended_archive(), "container"),
    }
    for name, (data, _) in planted.items():
        write_atomic(folder / name, data)
    for name, mask in (("spliced", splice_mask), ("copy-moved", copy_mask)):
        write_atomic(folder / ".masks" / f"{name}.png", encode(mask.astype(np.uint8) * 255, "PNG"))
    write_json(folder / "planted.json", {name: kind for name, (_, kind) in planted.items()})
    print(f"{folder}: {len(planted)} pictures")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples"))
