"""One million vectors: time of a query, recall of the true copy and bytes a vector, beside faiss flat.

    python benchmarks/copies_index.py [--count 1000000] [--queries 500]

Vectors of 256 numbers in 20,000 loose clusters with a falling spectrum stand for pictures; a query is one of them with
noise, at a cosine of 0.5 to 0.95 to it. The index is built by adding in pieces of 50,000 and is opened again before it
is searched; the flat index holds the same vectors in single precision. Queries
go one at a time and all at once, into more and more lists.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from vestige.core.runtime import hardware, one_thread
from vestige.engines.vector_index import VectorIndex

WIDTH = 256
#: How many of the 1024 lists a search looks into.
LISTS = (16, 32, 64, 128)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pieces(count: int, size: int = 50_000):
    random = np.random.default_rng(0)
    spectrum = (1 / np.sqrt(1 + np.arange(WIDTH))).astype(np.float32)
    centres = random.normal(size=(20_000, WIDTH)).astype(np.float32) * spectrum
    for start in range(0, count, size):
        n = min(size, count - start)
        noise = random.normal(size=(n, WIDTH)).astype(np.float32) * spectrum
        yield unit(centres[random.integers(len(centres), size=n)] + noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    one_thread()
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(WIDTH)
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        index = VectorIndex.create(folder, WIDTH)
        start = time.perf_counter()
        spent = 0.0
        for piece in pieces(given.count):
            flat.add(piece)
            before = time.perf_counter()
            index.add(piece)
            spent += time.perf_counter() - before
        before = time.perf_counter()
        index.seal()
        spent += time.perf_counter() - before
        chosen = random.permutation(given.count)[: given.queries]
        originals = np.stack([flat.reconstruct(int(i)) for i in chosen])
        noise = unit(random.normal(size=originals.shape).astype(np.float32))
        cosine = random.uniform(0.5, 0.95, (len(chosen), 1)).astype(np.float32)
        queries = unit(originals + noise * np.sqrt(1 / cosine**2 - 1))
        index = VectorIndex.open(folder)
        index.search(queries[:2], 1)
        figures = {"vectors": given.count, "width": WIDTH, "queries": len(chosen)}
        found = {}
        for name, search, nprobe in (("flat", flat.search, 0), *((f"{n} lists", index.search, n) for n in LISTS)):
            index.nprobe = nprobe
            before = time.perf_counter()
            found[name] = search(queries, 1)[1][:, 0]
            figures[f"{name}: ms a query, all at once"] = 1e3 * (time.perf_counter() - before) / len(chosen)
            few = queries[:50]
            before = time.perf_counter()
            for query in few:
                search(query[None], 1)
            figures[f"{name}: ms a query, one at a time"] = 1e3 * (time.perf_counter() - before) / len(few)
        for name, ids in found.items():
            figures[f"{name}: recall@1"] = float((ids == chosen).mean())
            for how in ("all at once", "one at a time"):
                faster = figures[f"flat: ms a query, {how}"] / figures[f"{name}: ms a query, {how}"]
                figures[f"{name}: times faster, {how}"] = faster
        figures["bytes a vector"] = index.bytes / given.count
        figures["bytes a vector, flat"] = 4 * WIDTH
        figures["seconds to build"] = spent
        figures["seconds in all"] = time.perf_counter() - start
    for name, value in figures.items():
        print(f"{name:40s} {value:.4g}")
    if given.out:
        given.out.write_text(json.dumps({"figures": figures, "hardware": hardware()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
