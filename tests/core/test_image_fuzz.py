"""Damaged and hostile picture files: every one is either decoded or refused in one sentence, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from vestige.core.errors import InputError
from vestige.core.image_io import decode, encode

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat or extend parts of a file; headers are hit more often."""
    array = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(min(len(array), 128) if rng.random() < 0.5 else len(array)))
        match int(rng.integers(6)):
            case 0:
                array[at] ^= 1 << int(rng.integers(8))
            case 1:
                array[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                array[at : at + 4] = bytes(rng.integers(0, 256, 4, dtype=np.uint8))
            case 3:
                del array[at : at + int(rng.integers(1, 64))]
            case 4:
                array[at:at] = array[at : at + int(rng.integers(1, 64))]
            case 5:
                del array[max(at, 32) :]
        if len(array) < 16:
            break
    return bytes(array)


def test_two_hundred_mutated_pictures_are_examined_or_refused(tmp_path):
    """The whole panel runs in a process of its own, so that its peak memory and time per file can be bounded."""
    script = """
import resource, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.core.test_image_fuzz import FORMATS, mutate
from vestige.core.errors import InputError
from vestige.core.image_io import encode
from vestige.core.panel import default_panel
from vestige.core.subjects import ImageSubject

rng = np.random.default_rng(7)
y, x = np.mgrid[:72, :96]
picture = (np.stack([x * 2, y * 3, x + y], -1) + rng.integers(0, 20, (72, 96, 3))).clip(0, 255).astype(np.uint8)
files = [encode(picture, f, quality=90) for f in FORMATS]
panel = default_panel()
examined = refused = 0
for i in range(200):
    data = mutate(files[i % len(files)], rng)
    start = time.monotonic()
    try:
        findings = panel.examine(ImageSubject(data, f"case {i}"))
        failed = [f.details for f in findings.findings if "error" in f.details]
        assert not failed, (i, failed)
        examined += 1
    except InputError as error:
        assert "\\n" not in str(error) and len(str(error)) < 400, (i, error)
        refused += 1
    assert time.monotonic() - start < 10, i
# The peak of this program: ru_maxrss counts that of the process it was started from as well.
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = int(status.split("VmHWM:")[1].split()[0]) if status else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak /= 2**20
assert peak < 1.5, f"peak memory {peak:.2f} GiB"
print(examined, refused)
"""
    from pathlib import Path

    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, root], capture_output=True, text=True, cwd=tmp_path, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    examined, refused = map(int, done.stdout.split())
    assert examined + refused == 200
    assert examined > 20
    assert refused > 20


def test_random_bytes_after_a_signature_are_refused():
    rng = np.random.default_rng(3)
    picture = np.zeros((8, 8, 3), np.uint8)
    for format in FORMATS:
        head = encode(picture, format)[:16]
        for _ in range(10):
            try:
                decode(head + rng.bytes(200))
            except InputError as error:
                said = str(error)
            else:
                said = "damaged"  # a reader may make a picture of anything
            assert "damaged" in said or "not a picture" in said or "megapixels" in said
