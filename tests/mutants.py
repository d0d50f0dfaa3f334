"""Damaged pictures made from whole ones: cut, overwritten with zeros, flipped bytes, exchanged chunks.

Each mutant comes with the word of an independent judge where one exists: libjpeg's own warnings (through OpenCV, from
the error stream), zlib on the joined IDAT chunks, tifffile.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")


def scene(height: int = 72, width: int = 96, seed: int = 7) -> np.ndarray:
    """A picture with detail everywhere, so that no row looks like missing ones."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    base = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], -1)
    return (base + rng.integers(1, 60, (height, width, 3))).clip(1, 254).astype(np.uint8)


def variants(picture: np.ndarray) -> dict[str, bytes]:
    """The picture in every format, in the ways each format has of storing it."""
    image = Image.fromarray(picture)

    def save(format: str, what: Image.Image = image, **options: object) -> bytes:
        buffer = io.BytesIO()
        what.save(buffer, format, **options)
        return buffer.getvalue()

    from vestige.core.image_io import encode

    return {
        "jpeg": save("JPEG", quality=88),
        "jpeg progressive": save("JPEG", quality=88, progressive=True),
        "jpeg restarts": save("JPEG", quality=88, restart_marker_blocks=5),
        "jpeg grey": save("JPEG", image.convert("L"), quality=80),
        "png": save("PNG"),
        "png palette": save("PNG", image.quantize(64)),
        "png sixteen": encode(picture.astype(np.uint16) * 257, "PNG"),
        "png interlaced": interlaced(picture),
        "webp": save("WEBP", quality=90),
        "webp lossless": save("WEBP", lossless=True),
        "tiff": save("TIFF"),
        "tiff lzw": save("TIFF", compression="tiff_lzw"),
        "tiff deflate": save("TIFF", compression="tiff_adobe_deflate"),
        "tiff packbits": save("TIFF", compression="packbits"),
        "tiff jpeg": save("TIFF", compression="jpeg"),
        "gif": save("GIF", image.quantize(128)),
        "bmp": save("BMP"),
        "bmp palette": save("BMP", image.quantize(64)),
        "avif": save("AVIF", quality=80),
        "heif": encode(picture, "HEIF"),
    }


def interlaced(picture: np.ndarray) -> bytes:
    """An Adam7 PNG, which Pillow does not write."""
    height, width = picture.shape[:2]
    rows = bytearray()
    for x, dx, y, dy in (
        (0, 8, 0, 8),
        (4, 8, 0, 8),
        (0, 4, 4, 8),
        (2, 4, 0, 4),
        (0, 2, 2, 4),
        (1, 2, 0, 2),
        (0, 1, 1, 2),
    ):
        for row in picture[y::dy, x::dx]:
            rows += b"\0" + row.tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    )


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data) // 8, len(data)))]


def _cut_and_closed(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Cut, but with the format's end mark put back."""
    ends = {b"\xff\xd8": b"\xff\xd9", b"\x89P": chunk(b"IEND", b""), b"GI": b"\0;"}
    return _cut(data, rng) + ends.get(bytes(data[:2]), b"")


def _hole(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Bytes taken out of the middle."""
    at = int(rng.integers(len(data) // 4, len(data)))
    del data[at : at + int(rng.integers(1, len(data) // 3))]
    return data


def _zeros(data: bytearray, rng: np.random.Generator) -> bytearray:
    at, n = int(rng.integers(len(data) // 8, len(data))), int(rng.integers(4, len(data) // 3))
    end = min(at + n, len(data))
    data[at:end] = bytes(end - at)
    return data


def _flips(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(16, len(data), int(rng.integers(1, 6))):
        data[int(at)] ^= 1 << int(rng.integers(8))
    return data


def _header(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(8, min(len(data), 160), int(rng.integers(1, 4))):
        data[int(at)] = int(rng.choice([0, 1, 2, 16, 127, 128, 255]))
    return data


def _swapped(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Two stretches of one length exchanged, as chunks written in the wrong order."""
    n = int(rng.integers(8, max(9, len(data) // 6)))
    a, b = sorted(int(k) for k in rng.integers(32, max(33, len(data) - n), 2))
    if b - a >= n:
        data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]
    return data


def _repacked(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A PNG whose stream ends early but whose checksums are all right; other formats are cut."""
    if data[:4] != b"\x89PNG":
        return _cut(data, rng)
    samples = inflated(bytes(data))
    start = bytes(data).index(b"IDAT") - 4
    kept = samples[: int(rng.integers(1, len(samples)))]
    return data[:start] + chunk(b"IDAT", zlib.compress(kept)) + chunk(b"IEND", b"")


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    _cut, _cut_and_closed, _hole, _zeros, _flips, _header, _swapped, _repacked,
)  # fmt: skip


def mutants(seed: int, count: int, files: dict[str, bytes] | None = None) -> Iterator[tuple[str, bytes]]:
    """(what was done to what, bytes): as many as asked for, formats and mutations in turn."""
    rng = np.random.default_rng(seed)
    files = files or variants(scene())
    names = list(files)
    for k in range(count):
        name, mutate = names[k % len(names)], MUTATIONS[(k // len(names)) % len(MUTATIONS)]
        yield f"{name}, {mutate.__name__.strip('_')}", bytes(mutate(bytearray(files[name]), rng))


def inflated(png: bytes) -> bytes:
    """The samples of a PNG as zlib gives them, up to where it stops; chunks are taken by their lengths alone."""
    joined, at = bytearray(), 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            joined += png[at + 8 : at + 8 + length]
        at += 12 + length
    stream, out = zlib.decompressobj(), bytearray()
    try:
        for k in range(len(joined)):
            out += stream.decompress(joined[k : k + 1])
    except zlib.error:
        pass
    return bytes(out)


@contextmanager
def error_stream() -> Iterator[list[str]]:
    """What libraries write to the process's error stream in the block, as one text in the list."""
    said: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))


def judge(data: bytes) -> str:
    """What an independent decoder says against a file: empty where it has no objection or there is no judge."""
    if data[:2] == b"\xff\xd8":
        import cv2

        with error_stream() as said:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            return ""  # it may have left the format out: Pillow reads more
        return "premature end of data" if "premature end" in said[0].lower() else ""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 33:
        width, height, bits, colour, _, _, laced = struct.unpack_from(">IIBBBBB", data, 16)
        pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        least = ((width * pixel + 7) // 8) * height + (0 if laced else height)
        held = len(inflated(data))
        return f"{held} of {least} bytes inflate" if held < least else ""
    if data[:4] in (b"II*\0", b"MM\0*"):
        import tifffile

        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                file.pages[0].asarray()
        except ImportError:
            return ""
        except Exception as error:
            return "" if "imagecodecs" in str(error) else str(error)[:80]
    return ""
