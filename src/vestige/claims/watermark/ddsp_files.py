"""Whole files hidden in pictures: plain, with error correction over every sample there is, and in a robust mark.

A carrier takes chips (±1, one for each of its slots) and gives soft chips back. Error correction is that of
`vestige.watermark.payload`: packets of eight bytes under a convolutional code, repeated until all slots are used, each
with a check of its own. The robust carrier quantises twelve low frequencies of every 8×8 block of the mean channel
(quantisation index modulation: Chen, Wornell, IEEE Trans. Inf. Theory 2001).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn, idctn

from vestige.core.runtime import rng
from vestige.watermark.payload import PayloadCode
from vestige.watermark.stego import lsb_match, lsb_read, lsb_replace

PACKET, SMALLEST = 8, 256
_KEY = b"hidden files"
#: Quantisation step in grey levels of the orthonormal transform, and the coefficients that carry chips.
_STEP = 20.0
_LOW = [(u, v) for u in range(5) for v in range(5) if 0 < u + v < 5][:12]


@dataclass(frozen=True)
class Carrier:
    """write: (uint8 3×H×W, chips, seed) -> uint8; read: (uint8, count) -> soft chips. coded: with error correction."""

    write: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    read: Callable[[np.ndarray, int], np.ndarray]
    slots: Callable[[np.ndarray], int] = lambda pixels: pixels.size
    coded: bool = True


def _plane(plane: int, *, coded: bool, match: bool = False) -> Carrier:
    def write(pixels: np.ndarray, chips: np.ndarray, seed: int) -> np.ndarray:
        if match:
            return lsb_match(pixels, chips < 0, _KEY, seed=seed)
        return lsb_replace(pixels, chips < 0, _KEY, plane=plane)

    def read(pixels: np.ndarray, count: int) -> np.ndarray:
        return 1.0 - 2.0 * lsb_read(pixels, count, _KEY, plane=plane)

    return Carrier(write, read, coded=coded)


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """8×8 transforms of the mean channel, h×w×8×8."""
    grey = pixels.astype(np.float64).mean(0)
    height, width = (n // 8 for n in grey.shape)
    cut = grey[: 8 * height, : 8 * width].reshape(height, 8, width, 8).swapaxes(1, 2)
    return dctn(cut, axes=(2, 3), norm="ortho")


def _quantise(pixels: np.ndarray, chips: np.ndarray, seed: int) -> np.ndarray:
    """Multiples of the step for +1, halfway between them for -1; the change is added to every channel."""
    found = _blocks(pixels)
    changed = found.copy()
    u, v = np.array(_LOW).T
    offset = (np.resize(chips, (*found.shape[:2], len(_LOW))) < 0) * (_STEP / 2)
    changed[:, :, u, v] = ((found[:, :, u, v] - offset) / _STEP).round() * _STEP + offset
    change = idctn(changed - found, axes=(2, 3), norm="ortho").swapaxes(1, 2)
    height, width = (8 * n for n in found.shape[:2])
    out = pixels.astype(np.float64)
    out[:, :height, :width] += change.reshape(height, width)
    return out.round().clip(0, 255).astype(np.uint8)


def _quantised(pixels: np.ndarray, count: int) -> np.ndarray:
    u, v = np.array(_LOW).T
    return np.cos(2 * np.pi / _STEP * _blocks(pixels)[:, :, u, v]).reshape(-1)[:count]


CARRIERS: dict[str, Carrier] = {
    "LSB replacement": _plane(0, coded=False),
    "LSB matching": _plane(0, coded=False, match=True),
    "LSB replacement, error-corrected": _plane(0, coded=True),
    "LSB matching, error-corrected": _plane(0, coded=True, match=True),
    "second plane": _plane(1, coded=False),
    "second plane, error-corrected": _plane(1, coded=True),
    "third plane, error-corrected": _plane(2, coded=True),
    "quantised frequencies, error-corrected": Carrier(
        _quantise, _quantised, lambda pixels: _blocks(pixels)[:, :, 0, 0].size * len(_LOW)
    ),
}
#: The carriers that stay within the three lowest bit planes.
LOW = tuple(CARRIERS)[:-1]


def files(count: int, seed: int) -> Iterator[bytes]:
    """Zip archives and shell scripts in turn, a little above the smallest size."""
    for i in range(count):
        words = rng(seed, "file", i).integers(0, 1 << 24, 40)
        if i % 2:
            yield "\n".join(["#!/bin/sh", *(f"echo {w:06x}" for w in words[:24])]).encode()
            continue
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(zipfile.ZipInfo("notes.txt"), " ".join(f"{w:06x}" for w in words[:24]))
        yield archive.getvalue()


def _packets(data: bytes) -> list[np.ndarray]:
    padded = data + bytes(-len(data) % PACKET)
    return [
        np.unpackbits(np.frombuffer(padded[i : i + PACKET], np.uint8)).astype(bool)
        for i in range(0, len(padded), PACKET)
    ]


def write_file(carrier: Carrier, pixels: np.ndarray, data: bytes, seed: int) -> np.ndarray:
    """The picture with the file in it."""
    if not carrier.coded:
        return carrier.write(pixels, 1.0 - 2.0 * np.unpackbits(np.frombuffer(data, np.uint8)), seed)
    packets = _packets(data)
    code = PayloadCode(_KEY, carrier.slots(pixels) // len(packets))
    return carrier.write(pixels, np.concatenate([code.encode(p) for p in packets]), seed)


def read_file(carrier: Carrier, pixels: np.ndarray, length: int) -> bytes | None:
    """The file of that length, or None where a packet's check fails."""
    if not carrier.coded:
        return np.packbits(carrier.read(pixels, 8 * length) < 0).tobytes()
    count = -(-length // PACKET)
    code = PayloadCode(_KEY, carrier.slots(pixels) // count)
    soft, data = carrier.read(pixels, code.slots * count), b""
    for part in soft.reshape(count, code.slots):
        best = code.decode(part)[0]
        if not best.authentic or best.bits is None or len(best.bits) != 8 * PACKET:
            return None
        data += np.packbits(best.bits).tobytes()
    return data[:length]


def hidden_files(
    purify: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, seed: int
) -> Iterator[dict[str, object]]:
    """A row for each carrier: how many of the files, one a picture, come back byte-exact. pictures: uint8 N×3×H×W."""
    payloads = list(files(len(pictures), seed))
    for name, carrier in CARRIERS.items():
        marked = np.stack(
            [write_file(carrier, p, d, seed + i) for i, (p, d) in enumerate(zip(pictures, payloads, strict=True))]
        )
        back = (purify(marked.astype(np.float32) / np.float32(255)) * 255).round().astype(np.uint8)
        exact = [read_file(carrier, p, len(d)) == d for p, d in zip(back, payloads, strict=True)]
        sizes = [len(d) for d in payloads]
        yield {"carrier": name, "files": len(exact), "byte-exact": sum(exact), "bytes": f"{min(sizes)}-{max(sizes)}"}
