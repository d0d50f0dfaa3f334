"""Marks of vestige beside those of the PyPI packages invisible-watermark and blind-watermark: same images, same bits.

The packages are no dependencies of vestige; how to install them for this comparison is in `vestige.bench.peers`. Run

    python benchmarks/mark_vs_invisible_watermark.py [--images FOLDER_OR_PARQUET] [--count 20] [--out results.json]

Prints seconds, fidelity, bit accuracy after every distortion and the share of images whose 32 bits all came back.
Bit accuracy is taken before authentication; a reader that finds no mark counts as guessing (0.5).
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vestige.bench.peers import BITS, BitMark, peers
from vestige.core.files import write_json
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.core.runtime import hardware, rng, versions
from vestige.data.distortions import Chain, compose
from vestige.metrics.bits import bit_accuracy
from vestige.metrics.quality import psnr, ssim
from vestige.watermark.dwt_dct_svd import DwtDctSvd
from vestige.watermark.spread_spectrum import SpreadSpectrum

DISTORTIONS = [
    [("identity", 0)],
    [("jpeg", 75)],
    [("jpeg", 50)],
    [("jpeg", 30)],
    [("webp", 70)],
    [("noise", 0.02)],
    [("blur", 1.0)],
    [("brightness", 1.2)],
    [("brightness", 0.8)],
    [("contrast", 0.8)],
    [("resize", 0.5)],
    [("resize", 1.5)],
    [("resize_back", 0.5)],
    [("crop", 0.8)],
    [("crop", 0.5)],
    [("crop", 0.8), ("resize", 0.7), ("jpeg", 75)],
    [("crop_resize", 0.75)],
    [("rotate", 2.0)],
    [("rotate", 5.0)],
    [("rotate", 15.0)],
    [("aspect", 1.2)],
    [("screenshot", 0.5)],
    [("flip", 1)],
]


class Ours:
    """A marker of vestige with its default parameters."""

    def __init__(self, method: Marker) -> None:
        self.name, self.method = f"vestige {method.slug}", method

    def embed(self, image: np.ndarray, bits: np.ndarray) -> np.ndarray:
        return self.method.mark(image, bits, PUBLIC_KEY)

    def read(self, image: np.ndarray) -> np.ndarray | None:
        reading = self.method.read(image, PUBLIC_KEY)[0]
        if reading.bits is not None and len(reading.bits) == BITS:
            return reading.bits
        return (reading.details or {}).get("raw_bits", {}).get(BITS)


def load(source: str | None, count: int, width: int | None) -> list[np.ndarray]:
    """Up to ``count`` pictures as float32 1×3×H×W with 8-bit values, optionally resized to a width."""
    pictures: list[Image.Image] = []
    if source is None:
        from skimage import data

        samples = (data.astronaut, data.coffee, data.chelsea, data.rocket)
        pictures = [Image.fromarray(sample()) for sample in samples][:count]
    elif source.endswith(".parquet"):
        import pyarrow.parquet as pq

        rows = pq.read_table(source, columns=["image"])["image"]
        pictures = [Image.open(io.BytesIO(rows[i].as_py()["bytes"])) for i in range(min(count, len(rows)))]
    else:
        kinds = {".jpg", ".jpeg", ".png", ".webp"}
        files = sorted(p for p in Path(source).iterdir() if p.suffix.lower() in kinds)[:count]
        pictures = [Image.open(file) for file in files]
    if not pictures:
        raise SystemExit("No pictures found; --images takes a folder of pictures or a parquet file.")
    loaded = []
    for picture in pictures:
        rgb = picture.convert("RGB")
        if width is not None:
            rgb = rgb.resize((width, round(rgb.height * width / rgb.width)), Image.Resampling.LANCZOS)
        loaded.append(np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1)[None]).astype(np.float32) / 255)
    return loaded


def measure(method: BitMark, images: list[np.ndarray]) -> dict[str, Any]:
    """One row of the table."""
    chains: list[Chain] = [compose(steps) for steps in DISTORTIONS]
    accuracy: dict[str, list[float]] = {chain.name: [] for chain in chains}
    seconds: dict[str, list[float]] = {"embed": [], "read": []}
    fidelity: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for index, image in enumerate(images):
        bits = rng(0, "payload", index).random(BITS) < 0.5
        marked = _timed(seconds["embed"], lambda image=image, bits=bits: method.embed(image, bits))
        marked = (np.rint(marked * 255) / 255).astype(np.float32)  # as a saved file
        fidelity["psnr"].append(float(psnr(image, marked)[0]))
        fidelity["ssim"].append(float(ssim(image, marked)[0]))
        for chain in chains:
            distorted = chain(marked, seed=index)
            clock = seconds["read"] if chain.name.startswith("identity") else []
            found = _timed(clock, lambda distorted=distorted: method.read(distorted))
            accuracy[chain.name].append(0.5 if found is None else float(bit_accuracy(bits, found)))
    return {
        "method": method.name,
        "embed_seconds": float(np.mean(seconds["embed"])),
        "read_seconds": float(np.mean(seconds["read"])),
        "psnr": float(np.mean(fidelity["psnr"])),
        "psnr_lowest": float(np.min(fidelity["psnr"])),
        "ssim": float(np.mean(fidelity["ssim"])),
        "bit_accuracy": {name: float(np.mean(values)) for name, values in accuracy.items()},
        "all_bits": {name: float(np.mean(np.array(values) == 1.0)) for name, values in accuracy.items()},
    }


def _timed(clock: list[float], call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    clock.append(time.perf_counter() - start)
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, one column for each method: bit accuracy and, in brackets, the share read without error."""
    lines = [f"{'':34}" + "".join(f"{row['method']:>32}" for row in rows)]
    for field in ("embed_seconds", "read_seconds", "psnr", "psnr_lowest", "ssim"):
        lines.append(f"{field:34}" + "".join(f"{row[field]:32.3f}" for row in rows))
    for name in rows[0]["bit_accuracy"]:
        cells = (f"{row['bit_accuracy'][name]:.3f} ({100 * row['all_bits'][name]:3.0f} %)" for row in rows)
        lines.append(f"{name:34}" + "".join(f"{cell:>32}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of pictures or parquet file (default: scikit-image's samples)")
    parser.add_argument("--count", type=int, default=20, help="number of pictures")
    parser.add_argument("--width", type=int, help="resize every picture to this width first")
    parser.add_argument("--threads", type=int, default=1, help="threads of OpenCV")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    images = load(options.images, options.count, options.width)
    others, missing = peers()
    for reason in missing:
        print(f"left out: {reason}")
    rows = [measure(method, images) for method in (Ours(SpreadSpectrum()), Ours(DwtDctSvd()), *others)]
    print(f"{len(images)} pictures, {BITS} bits; bit accuracy and, in brackets, share with all bits right")
    print(table(rows))
    if options.out is not None:
        description = {"pictures": len(images), "bits": BITS, "source": options.images or "scikit-image samples"}
        packages = (
            "vestige",
            "numpy",
            "opencv-python-headless",
            "PyWavelets",
            "invisible-watermark",
            "blind-watermark",
        )
        write_json(options.out, {**description, "rows": rows, "versions": versions(*packages), "hardware": hardware()})


if __name__ == "__main__":
    main()
