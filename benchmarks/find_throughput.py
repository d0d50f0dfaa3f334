"""Pictures per second of ``vestige find`` with one and two workers, and time and peak memory for 24 megapixels.

Usage: python benchmarks/find_throughput.py [--images FOLDER] [--count 40] [--out results/benchmarks/find.json]
Without --images, crops of the photographs that ship with scikit-learn and scikit-image are used (512×384, JPEG 90).
"""

from __future__ import annotations

import argparse
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


def large_picture(path: Path) -> None:
    """A 6000×4000 JPEG: the sample photograph enlarged, with fine grain so that it is not smooth."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    pixels = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((6000, 4000), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(0).normal(0, 3, pixels.shape[:2]).astype(np.float32)[..., None]
    path.write_bytes(encode((pixels + grain).clip(0, 255).astype(np.uint8), "JPEG", quality=92))


def examine_one(path: str) -> None:
    """Child process: examine one file and print seconds and peak memory."""
    from vestige.app.jobs.examine import examine
    from vestige.core.intake import Entry

    start = time.perf_counter()
    (item,) = examine(Entry(Path(path), "picture"), FindOptions(timeout=0)).parts
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    failed = [f.examiner for f in item.findings.findings if "error" in f.details]
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": round(peak), "failed": failed}))


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
        large = Path(scratch) / "large.jpg"
        large_picture(large)
        done = subprocess.run([sys.executable, __file__, "--examine", str(large)], capture_output=True, check=True)
        result["24_megapixels"] = json.loads(done.stdout)
        print(f"24 megapixels: {result['24_megapixels']}")
    if options.out:
        write_json(options.out, result)
    return None


if __name__ == "__main__":
    main()
