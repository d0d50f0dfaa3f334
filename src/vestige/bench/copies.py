"""Makes and measures the descriptors of copies: codebook, components and background, then the table with its peers.

    python -m vestige.bench.copies fit --descriptor local        # writes weights/copies_local.safetensors
    python -m vestige.bench.copies measure                       # μAP beside hashes; calibration; the record

Pictures: every second one of the photos pack and half of the scenery for what is fitted; the other photographs, people,
scenery and published pictures for what is measured. Copies are edited in the ways of `EDITS`, none of which any
descriptor learnt. Half of the queries have no copy. Calibration is fitted on every second query, and what is recorded
is counted on the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from vestige.bench.store import results_root
from vestige.copies.descriptor import SHIPPED, Descriptor, Vlad, network_sees, strangers
from vestige.copies.duplicates import low_frequencies
from vestige.copies.hashes import HASHES, agreement
from vestige.copies.local import DESCRIBE, best_match, both_ways, features
from vestige.copies.search import CALIBRATION, PairCalibration
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError, VestigeError
from vestige.core.files import read_json, write_atomic, write_json
from vestige.core.progress import track
from vestige.core.runtime import hardware, one_thread, rng, versions
from vestige.data.distortions import distort
from vestige.data.packs import find_data_root
from vestige.metrics.retrieval import copy_scores

#: Centres of the codebook, numbers a local feature is reduced to, and what the network sees.
CENTRES, REDUCED, SEEN = 32, 64, 256
Edit = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _chain(*steps: tuple[str, float]) -> Edit:
    def edit(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        images = pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255
        for name, strength in steps:
            images = distort(images, name, strength, seed=int(random.integers(2**31)))
        return (images[0].transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)

    return edit


def _words(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Three lines of large coloured words across the picture."""
    out = pixels.copy()
    height, width = out.shape[:2]
    for _ in range(3):
        at = (int(random.integers(0, max(1, width // 3))), int(random.integers(height // 4, height)))
        colour = tuple(int(c) for c in random.integers(0, 255, 3))
        cv2.putText(out, "SAMPLE TEXT", at, cv2.FONT_HERSHEY_DUPLEX, width / 200 * random.uniform(0.7, 1.3), colour, 2)
    return out


def _then(*edits: Edit) -> Edit:
    def edit(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        for one in edits:
            pixels = one(pixels, random)
        return pixels

    return edit


#: What is done to a picture to make a copy. "pasted" is made in `queries`: it needs another picture.
EDITS: dict[str, Edit] = {
    "JPEG 20": _chain(("jpeg", 20)),
    "to 40 %": _chain(("resize", 0.4)),
    "half cropped": _chain(("crop", 0.5)),
    "quarter left": _chain(("crop", 0.25)),
    "quarter left, JPEG 50": _chain(("crop", 0.25), ("jpeg", 50)),
    "turned by 45°": _chain(("rotate", 45)),
    "mirrored": _chain(("flip", 1)),
    "mirrored, half cropped": _chain(("flip", 1), ("crop", 0.5)),
    "overlay 40 %": _chain(("overlay", 0.4)),
    "border 40 %": _chain(("border", 0.4)),
    "screenshot": _chain(("screenshot", 1)),
    "printed and scanned": _chain(("print_scan", 1)),
    "blurred": _chain(("blur", 4)),
    "hue": _chain(("hue", 0.5)),
    "grey": _chain(("grayscale", 1)),
    "perspective": _chain(("perspective", 0.5)),
    "words": _words,
    "cropped, brighter, JPEG, words": _then(_chain(("crop", 0.5), ("brightness", 1.3), ("jpeg", 40)), _words),
    "pasted": lambda pixels, random: pixels,
}


def _pictures(
    pack: str, choose: Callable[[int], bool] = lambda i: True, limit: int = 10**6, label: int | None = None
) -> list[np.ndarray]:
    """Pictures of a pack, by their place in it and their label, reduced to a longest side of 320."""
    root = find_data_root()
    if root is None:
        raise InputError("The research data packs are not here; point VESTIGE_DATA to their folder.")
    dataset = DatasetSubject.open(root / pack)
    found: list[np.ndarray] = []
    for i in range(len(dataset)):
        if choose(i) and len(found) < limit:
            item = dataset[i]
            if label is not None and item.label != label:
                continue
            pixels = item.subject().pixels
            scale = 320 / max(pixels.shape[:2])
            if scale < 1:
                size = tuple(max(1, round(n * scale)) for n in pixels.shape[1::-1])
                pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            found.append(pixels)
    return found


@dataclass(frozen=True)
class Collection:
    """references: what is searched. queries: pictures; truth: place of the reference each was made of, -1 for none;
    kinds: how, "stranger" for none."""

    references: list[np.ndarray]
    queries: list[np.ndarray]
    truth: np.ndarray
    kinds: list[str]


def collection(each: int = 10, seed: int = 0) -> Collection:
    """``each`` copies of every kind, and as many strangers as copies."""
    photos = _pictures("photos/train.parquet", lambda i: i % 2 == 1)
    people = _pictures("people/test.parquet", limit=500)
    scenery = _pictures("scenery/train.parquet", lambda i: i >= 100)
    # only generated ones: some of the real ones are crops of photographs of the photos pack, as `find --in` tells
    published = _pictures("generated/validation.parquet", lambda i: i % 2 == 0, label=1)
    references = photos[:300] + people[:160]
    others = photos[300:] + people[400:440] + scenery[:50] + published
    made, truth, kinds = [], [], []
    for kind, edit in EDITS.items():
        for n in range(each):
            random = rng(seed, "copies", kind, n)
            at = int(random.integers(360))  # the other people only distract
            copy = edit(references[at], random)
            if kind == "pasted":
                copy = _pasted(copy, scenery[50 + int(random.integers(50))], random)
            made.append(copy)
            truth.append(at)
            kinds.append(kind)
    chosen = rng(seed, "strangers").permutation(len(others))[: len(made)]
    made += [others[i] for i in chosen]
    kinds += ["stranger"] * len(chosen)
    return Collection(references, made, np.array(truth + [-1] * len(chosen)), kinds)


def _pasted(pixels: np.ndarray, ground: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The picture at 45 to 65 % of the size of another, somewhere on it."""
    height, width = ground.shape[:2]
    part = random.uniform(0.45, 0.65)
    small = cv2.resize(pixels, (round(width * part), round(height * part)), interpolation=cv2.INTER_AREA)
    y, x = (int(random.integers(0, n - m + 1)) for n, m in zip((height, width), small.shape[:2], strict=True))
    out = ground.copy()
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def fit(name: str) -> dict[str, np.ndarray]:
    """Codebook, background and, with the network, whitened components of a descriptor of `SHIPPED`."""
    from sklearn.cluster import MiniBatchKMeans

    photos = _pictures("photos/train.parquet", lambda i: i % 2 == 0)
    pictures = photos + _pictures("scenery/train.parquet", lambda i: i < 100)
    found = [features(p, *DESCRIBE).descriptors for p in track(pictures, "local features")]
    random = rng(0, "codebook")
    sample = np.concatenate([d[:150] for d in found])
    sample = sample[random.permutation(len(sample))[:60_000]]
    mean = sample.mean(0)
    _, axes = np.linalg.eigh(np.cov((sample - mean).T))
    basis = axes[:, ::-1][:, :REDUCED].T
    reduced = (sample - mean) @ basis.T
    clusters = MiniBatchKMeans(CENTRES, random_state=0, n_init=1, batch_size=4096, max_iter=60).fit(reduced)
    tables = {"mean": mean, "basis": basis, "centres": clusters.cluster_centers_}
    seen: list[Any] = [None] * len(pictures)
    if name == "features":
        seen = [network_sees(p) for p in track(pictures, "network")]
        tables["shift"] = np.mean(seen, 0)
        _, spread, directions = np.linalg.svd(np.stack(seen) - tables["shift"], full_matrices=False)
        tables["axes"] = (directions[:SEEN] / (spread[:SEEN, None] / np.sqrt(len(seen)))).T
    made = Vlad(name, tables, name == "features")
    own = [made.combined(f, low_frequencies(p), s) for p, f, s in zip(photos, found, seen, strict=False)]
    tables["background"] = np.stack([o for o in own if o is not None])
    return {k: np.ascontiguousarray(v, np.float32) for k, v in tables.items()}  # files keep the order in memory


def scores(descriptor: Descriptor, pictures: Collection, normalise: bool = True) -> np.ndarray:
    """Scores Q×R, the better of the query and its mirror image; −2 where one of the two has no descriptor."""
    references = [descriptor.describe(p) for p in track(pictures.references, f"{descriptor.name}: references")]
    nothing = np.zeros(descriptor.width, np.float32)
    matrix = np.stack([nothing if r is None else r for r in references])
    found = np.full((len(pictures.queries), len(references)), -2.0)
    for i, query in enumerate(track(pictures.queries, f"{descriptor.name}: queries")):
        for view in (query, np.ascontiguousarray(query[:, ::-1])):
            described = descriptor.describe(view)
            if described is not None:
                less = strangers(descriptor.background, described[None])[0] if normalise else 0.0
                found[i] = np.maximum(found[i], matrix @ described - less)
    found[:, [r is None for r in references]] = -2.0
    return found


def measure(names: Sequence[str], each: int) -> dict[str, Any]:
    """The table of all descriptors and hashes, and the calibration of those that are shipped."""
    pictures = collection(each)
    truth = np.zeros((len(pictures.queries), len(pictures.references)), bool)
    copies = np.flatnonzero(pictures.truth >= 0)
    truth[copies, pictures.truth[copies]] = True
    record: dict[str, Any] = {
        "pictures": {"references": len(pictures.references), "copies": len(copies),
                     "strangers": len(pictures.queries) - len(copies), "kinds": list(EDITS)},
        "table": {}, "by kind": {}, "wrong": {}, "calibration": {},
        "versions": versions("numpy", "opencv-python-headless"), "hardware": hardware(),
    }  # fmt: skip
    for name, hashed in HASHES.items():
        references, queries = (np.stack([hashed(p) for p in ps]) for ps in (pictures.references, pictures.queries))
        flipped = np.stack([hashed(np.ascontiguousarray(q[:, ::-1])) for q in pictures.queries])
        both = np.maximum(agreement(queries, references), agreement(flipped, references))
        record["table"][name] = copy_scores(both, truth)._asdict()
        record["by kind"][name] = by_kind(both, pictures)
    verified: dict[tuple[int, int], int] = {}
    sides: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for name in names:
        descriptor = Vlad(name, read(name), name == "features")
        found = scores(descriptor, pictures)
        record["table"][name] = copy_scores(found, truth)._asdict()
        record["by kind"][name] = by_kind(found, pictures)
        calibration, checked = calibrate(found, pictures, verified, sides)
        record["calibration"][name] = asdict(calibration)
        record["table"][f"{name}, verified"] = copy_scores(checked, truth)._asdict()
        record["by kind"][f"{name}, claimed"] = claimed(checked, calibration, pictures)
        wrong = np.argwhere((checked >= calibration.threshold) & ~truth)
        record["wrong"][name] = [[pictures.kinds[i], int(i), int(j)] for i, j in wrong]
    return record


def by_kind(found: np.ndarray, pictures: Collection) -> dict[str, float]:
    """Share of the copies of each kind whose original is ranked first."""
    first = found.argmax(1) == pictures.truth
    kinds = np.array(pictures.kinds)
    return {kind: float(first[kinds == kind].mean()) for kind in EDITS}


def claimed(z: np.ndarray, calibration: PairCalibration, pictures: Collection) -> dict[str, float]:
    """Share of the copies of each kind that are claimed to be copies of their original."""
    copies = np.flatnonzero(pictures.truth >= 0)
    own = dict(zip(copies.tolist(), (z[copies, pictures.truth[copies]] >= calibration.threshold).tolist(), strict=True))
    return {k: float(np.mean([own[i] for i in copies.tolist() if pictures.kinds[i] == k])) for k in EDITS}


def calibrate(
    found: np.ndarray, pictures: Collection, verified: dict[tuple[int, int], int],
    sides: tuple[dict[int, Any], dict[int, Any]], shortlist: int = 4,
) -> tuple[PairCalibration, np.ndarray]:  # fmt: skip
    """The calibration of a matrix of scores, and z of every pair (a shortlisted one's with its inliers, −50 + score of
    the others). verified, sides: what was computed already."""
    from sklearn.linear_model import LogisticRegression

    pairs = []
    for i in track(range(len(found)), "comparing points"):
        for j in np.argsort(-found[i], kind="stable")[:shortlist].tolist():
            if (i, j) not in verified:
                if i not in sides[0]:
                    sides[0][i] = both_ways(pictures.queries[i])
                if j not in sides[1]:
                    sides[1][j] = features(pictures.references[j])
                match = best_match(sides[0][i], sides[1][j])
                verified[i, j] = 0 if match is None else match.inliers
            pairs.append((i, j))
    rows, columns = np.array(pairs).T
    x = np.column_stack([found[rows, columns], np.log1p([verified[p] for p in pairs])])
    y = pictures.truth[rows] == columns
    fitted = rows % 2 == 0
    model = LogisticRegression(C=10.0, class_weight="balanced").fit(x[fitted], y[fitted])
    (a, b), c = model.coef_[0], model.intercept_[0]
    z = model.decision_function(x)
    threshold = max(float(z[fitted & ~y].max()) + 1.0, 2.2)
    alone_model = LogisticRegression(C=10.0, class_weight="balanced").fit(x[fitted, :1], y[fitted])
    alone = alone_model.decision_function(x[:, :1])
    all_z = found - 50.0
    all_z[rows, columns] = z
    checked = np.arange(len(found)) % 2 == 1
    copies = checked & (pictures.truth >= 0)
    own = all_z[np.flatnonzero(copies), pictures.truth[copies]]
    calibration = PairCalibration(
        float(a), float(b), float(c), threshold,
        false=int((z[~fitted & ~y] >= threshold).sum()),
        comparisons=int(checked.sum()) * found.shape[1] - int(copies.sum()),
        found=int((own >= threshold).sum()), copies=int(copies.sum()),
        alone=(float(alone_model.coef_[0, 0]), float(alone_model.intercept_[0]),
               max(float(alone[fitted & ~y].max()) + 1.0, 2.2)),
    )  # fmt: skip
    return calibration, all_z


def read(name: str) -> dict[str, np.ndarray]:
    """The tables of a descriptor of the package."""
    from vestige.copies.descriptor import read_tables

    return read_tables(SHIPPED[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit a descriptor, or measure all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vestige.bench.copies", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["fit", "measure"])
    parser.add_argument("--descriptor", action="append", choices=list(SHIPPED))
    parser.add_argument("--each", type=int, default=10, help="copies of every kind")
    given = parser.parse_args(arguments)
    names = given.descriptor or [n for n in SHIPPED if given.what == "fit" or SHIPPED[n].exists()]
    one_thread()
    start = time.time()
    try:
        if given.what == "fit":
            from safetensors.numpy import save

            for name in names:
                tables = {k: v.astype(np.float16) if v.size > 4096 else v for k, v in fit(name).items()}
                write_atomic(SHIPPED[name], save(tables))
                print(
                    f"{SHIPPED[name].name}: {SHIPPED[name].stat().st_size / 2**20:.1f} MB, {time.time() - start:.0f} s"
                )
            return 0
        record = measure(names, given.each)
    except VestigeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    known = read_json(CALIBRATION) if CALIBRATION.exists() else {}
    write_json(CALIBRATION, known | record["calibration"])
    out = results_root() / "benchmarks" / "copies_descriptors.json"
    write_json(out, record)
    for name, row in record["table"].items():
        print(f"{name:28s}" + "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    for name, c in record["calibration"].items():
        print(f"{name}: found {c['found']}/{c['copies']}, false {c['false']}/{c['comparisons']}")
    print(f"{time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
