"""``vestige data``: rendered pictures, tampered and distorted ones, and what a data set holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from vestige.core.dataset import DatasetSubject
from vestige.core.errors import OK, UsageError
from vestige.core.files import write_atomic
from vestige.core.guard import check_output
from vestige.core.image_io import SUFFIXES, save_image, to_uint8
from vestige.core.printing import say, visible
from vestige.core.progress import track
from vestige.core.subjects import ImageSubject, open_subject
from vestige.core.video import VideoSubject, clock

_ACTIONS = ("scenes", "fractals", "tamper", "distort", "info")


def run(
    what: str, source: Path | None, out: Path, n: int, size: int, operation: str, strength: float | None, seed: int,
    quiet: bool,
) -> int:  # fmt: skip
    """Carry out one action of ``vestige data``."""
    if what not in _ACTIONS:
        raise UsageError(f"'vestige data' makes {', '.join(_ACTIONS)}; got {what!r}.")
    if what in ("scenes", "fractals"):
        (_scenes if what == "scenes" else _fractals)(out, n, size, seed)
        said = f"{out}: {n} {what} of {size}×{size} pixels"
    elif what == "info":
        said = _info(_needed(source, what))
    else:
        said = (_tamper if what == "tamper" else _distort)(source, out, operation, strength, seed)
    if not quiet:
        for line in said.split("\n"):
            say(line)
    return OK


def _needed(source: Path | None, what: str) -> Path:
    if source is None:
        raise UsageError(f"'vestige data {what}' needs a picture or data set: vestige data {what} PATH.")
    return source


def _scenes(out: Path, n: int, size: int, seed: int) -> None:
    from vestige.data.scenes import render, sample_scene

    lines = []
    for i in track(range(n), "rendering", n):
        scene = render(sample_scene(seed * 1_000_003 + i), size)
        name = f"scene-{i:05d}"
        save_image(out / f"{name}.png", to_uint8(scene.image))
        order = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)[:, None, None]
        save_image(out / "masks" / f"{name}.png", (scene.masks * order).sum(0).astype(np.uint8))
        near, far = float(scene.depth.min()), float(scene.depth.max())
        depth = (scene.depth - near) / max(far - near, 1e-6)
        save_image(out / "depth" / f"{name}.png", (depth * 65535).astype(np.uint16))
        about = {"depth_range": [near, far], **scene.attributes}
        lines.append(json.dumps({"file_name": f"{name}.png", "caption": scene.caption, **about}, default=str))
    write_atomic(out / "metadata.jsonl", "\n".join(lines) + "\n")


def _fractals(out: Path, n: int, size: int, seed: int) -> None:
    from vestige.data.fractals import render_fractal, sample_ifs

    for i in track(range(n), "rendering", n):
        picture = render_fractal(sample_ifs(seed * 1_000_003 + i), size, seed=i)
        save_image(out / f"fractal-{i:05d}.png", to_uint8(picture))


def _tamper(source: Path | None, out: Path, operation: str, strength: float | None, seed: int) -> str:
    from vestige.data.scenes import render, sample_scene
    from vestige.data.tampering import OPERATIONS, tamper

    if operation == "list":
        return "\n".join(f"{name:16} {op.description}" for name, op in OPERATIONS.items())
    subject = ImageSubject.open(_needed(source, "tamper"))
    donor = render(sample_scene(seed), max(64, min(subject.width, subject.height))).image
    edited = tamper(subject.image, operation, donor=donor, seed=seed)
    mask = edited.mask.reshape(subject.height, subject.width)
    stem = f"{Path(subject.source).stem}-{operation}"
    for name in (f"{stem}.png", f"{stem}-mask.png"):
        check_output(out / name, inputs=[subject.source])
    save_image(out / f"{stem}.png", to_uint8(edited.image))
    save_image(out / f"{stem}-mask.png", mask.astype(np.uint8) * 255)
    return f"{out / stem}.png: {OPERATIONS[operation].description}; {mask.mean():.1%} of the picture"


def _distort(source: Path | None, out: Path, operation: str, strength: float | None, seed: int) -> str:
    from vestige.data.distortions import DISTORTIONS, distort

    if operation == "list":
        return "\n".join(f"{d.name:16} {d.low:g} to {d.high:g}: {d.meaning}" for d in DISTORTIONS.values())
    if operation not in DISTORTIONS:
        raise UsageError(f"There is no distortion {operation!r}; --operation list names them.")
    subject = ImageSubject.open(_needed(source, "distort"))
    ladder = DISTORTIONS[operation].ladder
    chosen = ladder[len(ladder) // 2] if strength is None else strength
    target = out if out.suffix.lower() in SUFFIXES else out / f"{Path(subject.source).stem}-{operation}.png"
    check_output(target, inputs=[subject.source])
    save_image(target, to_uint8(distort(subject.image, operation, chosen, seed=seed)))
    return f"{target}: {operation} {chosen:g}"


def _info(path: Path) -> str:
    subject = open_subject(path)
    if isinstance(subject, ImageSubject):
        decoded = subject.decoded
        notes = "".join(f"\n  {note}" for note in subject.notes)
        frames = f", {decoded.frames} frames or pages" if decoded.frames > 1 else ""
        profile = f", profile {decoded.icc_name!r}" if decoded.icc_name else ""
        return (
            f"{visible(str(path))}: {subject.format} picture, {subject.width}×{subject.height}, mode {decoded.mode}, "
            f"{decoded.bit_depth} bits, orientation {decoded.orientation}{profile}{frames}{notes}"
        )
    if isinstance(subject, DatasetSubject):
        labels = Counter(str(item.label) for item in subject if item.label is not None)
        classes = "".join(f"\n  {label}: {count}" for label, count in sorted(labels.items())[:50])
        return f"{visible(str(path))}: {subject.kind} with {len(subject)} pictures{classes}"
    if isinstance(subject, VideoSubject):
        size = f"{subject.width}×{subject.height}, {subject.rate:g} frames a second"
        length = clock(subject.seconds) if subject.seconds else "of unknown length"
        return f"{visible(str(path))}: {subject.format} clip, {size}, {length}"
    tensors = subject.tensors()
    parameters = sum(int(np.prod(shape)) for shape, _ in tensors.values())
    return f"{visible(str(path))}: {subject.format} model with {len(tensors)} tensors, {parameters:,} values"
