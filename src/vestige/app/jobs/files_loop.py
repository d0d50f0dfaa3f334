"""What mark, erase and restore share: many pictures in, as many out, one sentence for each that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vestige.app.api import encode_like
from vestige.app.carried import losses
from vestige.app.jobs.batch import collect
from vestige.core.errors import BAD_INPUT, OK, PARTIAL, UsageError, VestigeError, WriteError
from vestige.core.files import write_atomic
from vestige.core.guard import check_output, protect
from vestige.core.image_io import format_for
from vestige.core.printing import complain, say
from vestige.core.progress import track
from vestige.core.subjects import ImageSubject

#: Formats that can be written as they were read; others become PNG.
_WRITABLE = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}


def outputs(paths: Sequence[Path], out: Path | None, suffix: str) -> list[tuple[Path, Path]]:
    """Pairs of input and output file.

    One picture: ``out`` is its file (or folder). Several: ``out`` is a folder that mirrors the inputs. Without
    ``out`` a single picture is written beside the input as NAME-suffix. Raises UsageError where inputs would be
    overwritten.
    """
    if [str(p) for p in paths] == ["-"]:
        return [(Path("-"), out or Path("-"))]
    files = collect(paths)
    protect(files)
    folder_given = out is not None and (out.is_dir() or len(files) > 1 or paths[0].is_dir())
    pairs = []
    for file in files:
        if out is None:
            if len(files) > 1:
                raise UsageError("Several pictures need --out FOLDER.")
            target = file.with_name(f"{file.stem}-{suffix}{_ending(file)}")
        elif folder_given:
            root = next((p for p in paths if p.is_dir() and p in file.parents), file.parent)
            target = (out / file.relative_to(root)).with_suffix(_ending(file))
        else:
            target = out
        if target.exists() and target.resolve() == file.resolve():
            raise UsageError(f"{file} would be overwritten; choose another --out.")
        check_output(target)
        pairs.append((file, target))
    taken: dict[Path, Path] = {}
    for file, target in pairs:
        if str(target) != "-" and target in taken:
            raise UsageError(f"{taken[target]} and {file} would both be written to {target}; rename one of them.")
        taken[target] = file
    return pairs


def _ending(file: Path) -> str:
    """The input's own ending where it names its content's format; the content decides."""
    try:
        kind = ImageSubject.open(file).format
    except VestigeError:
        return file.suffix or ".png"
    try:
        if format_for(file) == kind and kind in _WRITABLE:
            return file.suffix
    except UsageError:
        pass
    return _WRITABLE.get(kind, ".png")


def process(
    paths: Sequence[Path], out: Path | None, suffix: str, change: Callable[[ImageSubject], tuple[np.ndarray, str]], *,
    quality: int, keep_metadata: bool, quiet: bool, label: str,
) -> int:  # fmt: skip
    """Apply ``change`` (subject -> new pixels and a sentence) to every picture; returns the exit code."""
    pairs = outputs(paths, out, suffix)
    failed = 0
    for source, target in track(pairs, label):
        try:
            subject = _open(source)
            pixels, said = change(subject)
            to_stdout = str(target) == "-"
            format = format_for(target) if not to_stdout else subject.format if subject.format in _WRITABLE else "PNG"
            lost = losses(pixels, subject, format, keep_metadata)
            if lost and (quiet or to_stdout):
                complain(f"{source}: {'; '.join(lost)}")
            if to_stdout:
                sys.stdout.buffer.write(
                    encode_like(pixels, subject, format, quality=quality, keep_metadata=keep_metadata)
                )
                sys.stdout.buffer.flush()
                continue
            write_atomic(target, encode_like(pixels, subject, format, quality=quality, keep_metadata=keep_metadata))
            if not quiet:
                say(f"{target}: {'; '.join((said, *lost))}")
        except WriteError:
            raise  # the others would meet the same full or closed disk
        except VestigeError as error:
            if len(pairs) == 1:
                raise
            failed += 1
            complain(error)
    if failed:
        return BAD_INPUT if failed == len(pairs) else PARTIAL
    return OK


def _open(source: Path) -> ImageSubject:
    if str(source) != "-":
        return ImageSubject.open(source)
    data = sys.stdin.buffer.read()
    if not data:
        raise UsageError("Nothing came on stdin; pipe a picture in.")
    return ImageSubject(data, "stdin")
