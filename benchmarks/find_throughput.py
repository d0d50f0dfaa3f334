"""Pictures per second of ``vestige find`` with one and two workers; processor seconds by examiner and peak memory for
pictures of 1, 4, 12 and 24 megapixels.

Usage: python benchmarks/find_throughput.py [--images FOLDER] [--count 40] [--out results/benchmarks/find.json]
Without --images, crops of the photographs that ship with scikit-learn and scikit-image are used (512×384, JPEG 90).
The larger ones are one of them enlarged, with grain. Processor seconds are those of one process on one thread, whatever
else the machine does; set OMP_NUM_THREADS=1 as ``find`` does for its workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vestige.app.jobs.batch import Batch, FindOptions, collect
from vestige.core.files import write_json
from vestige.core.image_io import encode
from vestige.core.runtime import hardware, versions


def sample_pictures(folder: Path, count: int) -> None:
    """Write ``count`` different 512×384 crops as JPEG."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    sources = [load_sample_image("china.jpg"), load_sample_image("flower.jpg"), skimage.data.coffee()]
    for i in range(count):
        source = sources[i % len(sources)]
        top, left = (i * 3) % (source.shape[0] - 384 + 1), (i * 7) % (source.shape[1] - 512 + 1)
        (folder / f"{i:03d}.jpg").write_bytes(encode(source[top : top + 384, left : left + 512], "JPEG", quality=90))


def large_picture(path: Path, megapixels: float) -> None:
    """A JPEG in the ratio 3:2: the sample photograph enlarged, with fine grain so that it is not smooth."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    size = (round(1.5 * height), height)
    pixels = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size, Image.Resampling.BICUBIC))
    grain = np.random.default_rng(0).normal(0, 3, pixels.shape[:2]).astype(np.float32)[..., None]
    path.write_bytes(encode((pixels + grain).clip(0, 255).astype(np.uint8), "JPEG", quality=92))


def examine_one(path: str) -> None:
    """Child process: examine one file; print processor seconds, whole and by examiner, and peak memory."""
    import cv2
    import torch

    from vestige.core.panel import default_panel
    from vestige.core.picture import ImageSubject

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    panel = default_panel(fast=True)  # without the second look at verdicts near the threshold
    warm = encode(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8), "JPEG", quality=90)
    panel.examine(ImageSubject(warm, "warm"))  # loads the networks and libraries
    subject = ImageSubject.open(path)
    seconds, failed = {}, []
    start = last = time.process_time()
    megapixels = subject.pixels.shape[0] * subject.pixels.shape[1] / 1e6
    _ = subject.luma
    seconds["decoding"] = time.process_time() - last
    for finder in panel.finders:
        last = time.process_time()
        found = dataclasses.replace(panel, finders=[finder]).findings(subject)
        seconds[finder.slug] = time.process_time() - last
        failed += [f.examiner for f in found if "error" in f.details]
    whole = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    order = sorted(seconds, key=lambda name: -seconds[name])
    result = {
        "megapixels": round(megapixels, 2),
        "cpu_seconds": round(whole, 2),
        "per_megapixel": round(whole / megapixels, 3),
        "peak_mib": round(peak),
        "by_examiner": {name: round(seconds[name], 3) for name in order},
        "failed": failed,
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--examine", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.examine:
        return examine_one(options.examine)
    result: dict = {"versions": versions(), "hardware": hardware()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.images or Path(scratch) / "pictures"
        if options.images is None:
            folder.mkdir()
            sample_pictures(folder, options.count)
        files = collect([folder])[: options.count]
        print(f"{'workers':>8} {'pictures':>9} {'seconds':>8} {'per second':>11}")
        for jobs in (1, 2):
            start = time.perf_counter()
            Batch(Path(scratch) / f"run{jobs}", FindOptions(), jobs).run(files)
            seconds = time.perf_counter() - start
            result[f"workers_{jobs}"] = {"pictures": len(files), "per_second": round(len(files) / seconds, 2)}
            print(f"{jobs:>8} {len(files):>9} {seconds:>8.1f} {len(files) / seconds:>11.2f}")
        ratio = result["workers_2"]["per_second"] / result["workers_1"]["per_second"]
        result["speedup"] = round(ratio, 2)
        print(f"two workers against one: {ratio:.2f}×")
        for size in (1, 4, 12, 24):
            large = Path(scratch) / f"{size}.jpg"
            large_picture(large, size)
            done = subprocess.run([sys.executable, __file__, "--examine", str(large)], capture_output=True, check=True)
            one = json.loads(done.stdout)
            result[f"{size}_megapixels"] = one
            print(
                f"{size} megapixels: {one['cpu_seconds']} CPU-seconds, {one['per_megapixel']} a megapixel, peak "
                f"{one['peak_mib']} MiB; "
                + ", ".join(f"{name} {seconds:.2f}" for name, seconds in list(one["by_examiner"].items())[:8])
            )
    if options.out:
        write_json(options.out, result)
    return None


if __name__ == "__main__":
    main()
