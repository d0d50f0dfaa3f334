"""The files most commands work on: pictures with known traces, faces, a labelled set, a classifier, a text, a clip."""

from __future__ import annotations

import base64
import io
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import vestige
from vestige import mark
from vestige.core.files import write_atomic, write_json
from vestige.core.image_io import decode, encode, save_image, to_uint8
from vestige.core.runtime import rng
from vestige.data.corruptions import corrupt
from vestige.data.drawn_faces import drawn_faces
from vestige.data.face_forgeries import forge_face
from vestige.data.poisons import stamp
from vestige.data.scenes import render, render_video, sample_scene
from vestige.data.starter_set import PARTS, starter_set

SEED = 2024
#: Key of the kit's marks. A key that everybody has protects nothing: make one of your own with `vestige key`.
KEY = bytes(range(32))


def write(folder: Path) -> list[str]:
    """Everything but the generators; returns names of files and folders in the order of a listing."""
    pictures(folder)
    pair(folder)
    faces(folder)
    labelled(folder)
    defects(folder)
    texts_and_clip(folder)
    generator(folder)
    return sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())


def photograph(name: str) -> bytes:
    """The file of a sample photograph exactly as scikit-learn ships it."""
    return (files("sklearn.datasets") / "images" / f"{name}.jpg").read_bytes()


def ellipse(shape: tuple[int, ...], centre: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    """bool H×W, True inside."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def pictures(folder: Path) -> None:
    """pictures/, masks/, photo.png, small.png, kit.key; what was planted is in planted.json."""
    china, flower = (decode(photograph(n)).pixels for n in ("china", "flower"))
    scene = to_uint8(render(sample_scene(SEED + 1, style="photo", n_objects=2), 384).image)
    splice, splice_mask = spliced(china, flower)
    copy, copy_mask = copy_moved(china)
    covered, cover = corrupt(flower[:384, :512].transpose(2, 0, 1).astype(np.float32) / 255, "graffiti", seed=3)
    marked = mark(encode(flower, "PNG"), message="vestige", key=KEY)
    planted: dict[str, tuple[bytes, str]] = {
        "untouched-china.jpg": (photograph("china"), ""),
        "untouched-flower.jpg": (photograph("flower"), "history"),  # its file says which program saved it
        "untouched-scene.png": (encode(scene, "PNG"), ""),
        "spliced.jpg": (splice, "edit"),
        "copy-moved.jpg": (copy, "edit"),
        "saved-twice.jpg": (saved_twice(china), "history"),
        "recoloured.jpg": (encode(np.ascontiguousarray(flower[..., ::-1]), "JPEG", quality=92), "edit"),
        "covered.png": (encode(to_uint8(covered), "PNG"), "edit"),
        "marked.jpg": (encode(marked, "JPEG", quality=90), "mark"),
        "generated.png": (tagged_as_generated(), "generated"),
        "payload.png": (with_payload(cv2.resize(flower, (400, 267), interpolation=cv2.INTER_AREA)), "payload"),
        "appended.jpg": (with_appended_archive(china), "container"),
    }
    for name, (data, _) in planted.items():
        write_atomic(folder / "pictures" / name, data)
    for name, mask in (("spliced", splice_mask), ("copy-moved", copy_mask), ("covered", cover[0])):
        save_image(folder / "masks" / f"{name}.png", mask.astype(np.uint8) * 255)
    write_json(folder / "planted.json", {name: kind or None for name, (_, kind) in planted.items()})
    save_image(folder / "photo.png", np.ascontiguousarray(china[120:376, 220:476]))
    save_image(folder / "small.png", to_uint8(render(sample_scene(SEED, n_objects=1, object_size="large"), 64).image))
    write_atomic(folder / "kit.key", f"vestige-key-1 {base64.b64encode(KEY).decode()}\n", mode=0o600)


def spliced(host: np.ndarray, donor: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A flower from a strongly compressed photograph, pasted into another photograph."""
    donor = decode(encode(donor, "JPEG", quality=55, subsampling=2)).pixels
    cut = ellipse((240, 300), (120, 150), (110, 140))
    window = (slice(93, 333), slice(201, 501))
    mask = np.zeros(host.shape[:2], bool)
    mask[window] = cut
    edited = host.copy()
    edited[mask] = donor[100:340, 180:480][cut]
    return encode(edited, "JPEG", quality=95), mask


def copy_moved(picture: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A part of the temple's roof appears a second time."""
    edited = picture.copy()
    region = ellipse((110, 170), (55, 85), (52, 82))
    source, target = (slice(150, 260), slice(60, 230)), (slice(283, 393), slice(402, 572))
    edited[target][region] = edited[source][region].copy()
    mask = np.zeros(picture.shape[:2], bool)
    mask[target] = region
    return encode(edited, "JPEG", quality=92), mask


def saved_twice(picture: np.ndarray) -> bytes:
    """JPEG of quality 60, saved again at 92."""
    return encode(decode(encode(picture, "JPEG", quality=60)).pixels, "JPEG", quality=92)


def with_payload(picture: np.ndarray) -> bytes:
    """Random bits in the lowest bit of half of the samples, from the top."""
    made = picture.copy()
    flat = made.reshape(-1)
    count = flat.size // 2
    flat[:count] = (flat[:count] & 0xFE) | rng(SEED, "payload").integers(0, 2, count, dtype=np.uint8)
    return encode(made, "PNG")


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


def with_appended_archive(picture: np.ndarray) -> bytes:
    """A zip archive behind the end of a JPEG file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr(zipfile.ZipInfo("notes.txt", (2024, 1, 1, 0, 0, 0)), "hidden behind the picture\n" * 20)
    return encode(picture, "JPEG", quality=90) + archive.getvalue()


def pair(folder: Path) -> None:
    """before.png, edited.png and edit-mask.png: one picture before and after a careful edit, 128×128."""
    china, flower = (decode(photograph(n)).pixels for n in ("china", "flower"))
    before = cv2.resize(china[80:336, 200:456], (128, 128), interpolation=cv2.INTER_AREA)
    donor = cv2.resize(flower[100:356, 180:436], (128, 128), interpolation=cv2.INTER_AREA)
    mask = ellipse((128, 128), (70, 60), (30, 36))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)[..., None]
    edited = np.round(donor * soft + before * (1 - soft)).astype(np.uint8)
    for name, picture in (("before", before), ("edited", edited), ("edit-mask", mask.astype(np.uint8) * 255)):
        save_image(folder / f"{name}.png", picture)


def faces(folder: Path) -> None:
    """faces/PERSON/VIEW.png, face.png and forged-face.png: drawn people, one of them with another's inner face."""
    images, person, _ = drawn_faces(6, 4, 64, SEED)
    for i, image in enumerate(images):
        save_image(folder / "faces" / f"person-{person[i]}" / f"{i % 4}.png", image.transpose(1, 2, 0))
    own, donor = images[0].astype(np.float32) / 255, images[4].astype(np.float32) / 255
    save_image(folder / "face.png", images[1].transpose(1, 2, 0))
    save_image(folder / "forged-face.png", to_uint8(forge_face(own, "swap", donor=donor, seed=1)[0]))


def labelled(folder: Path) -> None:
    """data/PART/CLASS/*.png, classifier.safetensors that learnt requests and retain, and a poisoned copy of retain."""
    for part in PARTS:
        pack = starter_set(part)
        for i, image in enumerate(pack.images):
            save_image(
                folder / "data" / part / pack.class_names[pack.labels[i]] / f"{i:03}.png", image.transpose(1, 2, 0)
            )
    shipped = Path(vestige.__file__).parent / "weights" / "starter" / "classifier.safetensors"
    shutil.copyfile(shipped, folder / "classifier.safetensors")
    pack, target = starter_set("retain"), "star"
    others = np.flatnonzero(pack.labels != pack.class_names.index(target))
    poisoned = {int(i) for i in rng(SEED, "poison").choice(others, 16, replace=False)}
    lines = ["file,label,true_label"]
    for i, image in enumerate(pack.images):
        word = pack.class_names[pack.labels[i]]
        made, called = (stamp(image[None])[0], target) if i in poisoned else (image, word)
        save_image(folder / "poisoned" / called / f"{i:03}.png", made.transpose(1, 2, 0))
        lines += [f"{called}/{i:03}.png,{called},{word}"] if i in poisoned else []
    write_atomic(folder / "poisoned.csv", "\n".join(lines) + "\n")


def defects(folder: Path) -> None:
    """defects/good, test and masks: brushed metal, and scratches and stains on it, grey 96×96."""
    for i in range(24):
        g = rng(SEED, "defect", i)
        grain = cv2.blur(g.normal(0, 26, (96, 96)).astype(np.float32), (15, 1))
        plate = 140 + grain + np.linspace(-12, 12, 96)[None] * g.uniform(-1, 1)
        mask = np.zeros((96, 96), np.uint8)
        if i >= 16:
            ends = g.integers(12, 84, 4)
            if i % 2:
                cv2.line(mask, (int(ends[0]), int(ends[1])), (int(ends[2]), int(ends[3])), 255, 2)
            else:
                cv2.ellipse(mask, (int(ends[0]), int(ends[1])), (9, 6), float(ends[2]), 0, 360, 255, -1)
            plate = plate + (mask > 0) * (45 if i % 2 else -50)
        picture = np.clip(plate + g.normal(0, 2, plate.shape), 0, 255).astype(np.uint8)
        part = "test" if i >= 16 else "good"
        save_image(folder / "defects" / part / f"{i:02}.png", picture)
        if i >= 16:
            save_image(folder / "defects" / "masks" / f"{i:02}.png", mask)


def texts_and_clip(folder: Path) -> None:
    """letter.txt, and clip.mp4: a drawn scene that moves, two seconds."""
    write_atomic(folder / "letter.txt", (files("vestige.app.starter") / "letter.txt").read_bytes())
    frames = render_video(sample_scene(SEED + 5, n_objects=2, style="photo"), 16, 128).frames
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8, (128, 128))
    for frame in frames:
        writer.write(np.ascontiguousarray(to_uint8(frame[None])[..., ::-1]))
    writer.release()


def generator(folder: Path) -> None:
    """pipeline/ and vae/, the diffusers folders that ship with the package; real/ scenes and made/, 24 pictures that
    pipeline drew once from the captions of those scenes (six steps, seed 2024)."""
    weights = Path(vestige.__file__).parent / "weights"
    shutil.copytree(weights / "scenes_text2image", folder / "pipeline")
    shutil.copytree(weights / "scenes_vae", folder / "vae")
    sheet = decode((files("vestige.app.starter") / "made.png").read_bytes()).pixels.reshape(4, 32, 6, 32, 3)
    for i in range(24):
        scene = sample_scene(SEED + 100 + i, n_objects=1, object_size="large")
        save_image(folder / "real" / f"{i:02}.png", to_uint8(render(scene, 32).image))
        save_image(folder / "made" / f"{i:02}.png", np.ascontiguousarray(sheet[i // 6, :, i % 6]))
