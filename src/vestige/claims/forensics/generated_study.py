"""What the claims about detectors of generated pictures share: the pictures, the plain baselines and the controls.

Squares of 64 pixels of photographs reduced by two, re-made by every source there is and saved alike. Photographs to
train, to validate and to judge by are different ones; the fitted sources learn from others still.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import dctn

from vestige.bench.store import results_root
from vestige.claims import ClaimContext
from vestige.core.files import write_atomic
from vestige.core.image_io import encode
from vestige.core.runtime import rng
from vestige.data.fakes import FakeSet, FakeSource, as_float, fake_set, saved, squares
from vestige.data.packs import SPLIT, load_pack, split
from vestige.engines.fakes import WEIGHTS, zoo
from vestige.metrics.detection import auroc

SIZE = 64
#: Photographs to fit decoders to, to train, to validate and to judge by.
COUNTS = {"fit": 40, "train": 300, "val": 40, "test": 80}
#: Squares of each of the other training photographs, which no source re-makes: what is usual takes many to know.
MORE = 4


@cache
def _squares(root: Path, seed: int, limit: int) -> dict[str, np.ndarray]:
    """uint8 N×3×64×64 of each part; two squares of each training photograph, one of the others."""
    pack = load_pack(root / "photos", size=256, limit=max(60, 20 * limit) if limit else None)
    chosen = split(pack.names, SPLIT)
    counts = {part: min(count, 2 * limit) if limit else count for part, count in COUNTS.items()}
    rows = {"fit": chosen["train"][-counts["fit"] :], "train": chosen["train"][: -counts["fit"]]}
    rows |= {"val": chosen["val"], "test": chosen["test"]}
    return {
        part: squares(pack.images[rows[part][:count]], SIZE, per_photo=2 if part == "train" else 1, seed=seed)[0]
        for part, count in counts.items()
    }


@cache
def more_real(context: ClaimContext) -> np.ndarray:
    """uint8 N×3×64×64 of the training photographs beyond those in `pictures`, saved like them."""
    pack = load_pack(context.pack("photos"), size=256, limit=max(60, 20 * context.limit) if context.limit else None)
    train = split(pack.names, SPLIT)["train"][: -COUNTS["fit"]]
    rest = train[2 * context.limit : 4 * context.limit] if context.limit else train[COUNTS["train"] :]
    if not len(rest):
        return np.empty((0, 3, SIZE, SIZE), np.uint8)
    cut, _ = squares(pack.images[rest], SIZE, per_photo=MORE, seed=context.seed + 77)
    return saved(cut, context.seed + 77)


@cache
def sources(root: Path, seed: int, limit: int) -> dict[str, FakeSource]:
    """Every source by its name."""
    return {source.name: source for source in zoo(as_float(_squares(root, seed, limit)["fit"]), size=SIZE, seed=seed)}


@cache
def _made(root: Path, seed: int, limit: int, part: str, name: str) -> FakeSet:
    """Real squares and those of one source. Full sets are kept on disk, because the slow sources take minutes."""
    real, source = _squares(root, seed, limit)[part], sources(root, seed, limit)[name]
    files = [path.relative_to(WEIGHTS) for path in sorted(WEIGHTS.rglob("*.safetensors"))]
    weights = [(str(f), (WEIGHTS / f).stat().st_size) for f in files if str(f).startswith(("scenes_", "zoo_"))]
    key = hashlib.blake2b(repr((seed, part, name, real.tobytes(), weights)).encode(), digest_size=8).hexdigest()
    kept = results_root() / "runs" / "generated" / f"{part}-{name}-{key}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            return FakeSet(stored["real"], {name: stored["made"]}, {name: source.family}, np.arange(len(real)))
    made = fake_set(real, [source], seed=seed + list(COUNTS).index(part))
    if not limit:
        buffer = io.BytesIO()
        np.savez(buffer, real=made.real, made=made.fakes[name])
        write_atomic(kept, buffer.getvalue())
    return made


def pictures(context: ClaimContext, part: str, names: Iterable[str] | None = None) -> FakeSet:
    """Real squares of a part and what the sources (all by default) make of them; made once."""
    root = context.pack("photos").parent
    listed = list(sources(root, context.seed, context.limit) if names is None else names)
    found = [_made(root, context.seed, context.limit, part, name) for name in listed]
    fakes, families = (
        {n: x for made in found for n, x in getattr(made, kind).items()} for kind in ("fakes", "families")
    )
    return FakeSet(found[0].real, fakes, families, found[0].photo)


def available(context: ClaimContext) -> dict[str, str]:
    """{source: family} of every source there is."""
    known = sources(context.pack("photos").parent, context.seed, context.limit)
    return {name: source.family for name, source in known.items()}


def areas(real: np.ndarray, fakes: dict[str, np.ndarray]) -> dict[str, float]:
    """AUROC of the scores of every source against those of real squares."""
    return {
        name: auroc(np.repeat([False, True], [len(real), len(scores)]), np.append(real, scores))
        for name, scores in fakes.items()
    }


def by_family(found: dict[str, float], families: dict[str, str], names: Iterable[str]) -> dict[str, float]:
    """Means over the sources of every family among ``names``, and "mean" over these families."""
    listed = list(names)
    kinds = sorted({families[name] for name in listed})
    means = {kind: float(np.mean([found[n] for n in listed if families[n] == kind])) for kind in kinds}
    return {"mean": float(np.mean(list(means.values()))), **means}


# Plain baselines: features of a picture and a logistic regression.


def spectrum(images: np.ndarray) -> np.ndarray:
    """ln |DCT| of the grey picture, float32 N×4096 (the frequencies that FreDect looks at)."""
    grey = as_float(images).mean(1)
    return np.log(np.abs(dctn(grey, axes=(1, 2), norm="ortho")) + 1e-3).reshape(len(grey), -1).astype(np.float32)


def metadata(images: np.ndarray) -> np.ndarray:
    """What gives careless sets away, float32 N×7: size as a PNG file, mean and spread of every channel."""
    sizes = [len(encode(np.ascontiguousarray(image.transpose(1, 2, 0)), "PNG")) for image in images]
    x = as_float(images)
    return np.column_stack([np.array(sizes) / 1e4, x.mean((2, 3)), x.std((2, 3))]).astype(np.float32)


def logistic(
    real: np.ndarray, fake: np.ndarray, real_test: np.ndarray, fakes_test: dict[str, np.ndarray], *,
    shuffled: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """AUROC of every source by a regularised logistic regression on features; shuffled: seed that mixes the labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat([0, 1], [len(real), len(fake)])
    if shuffled is not None:
        labels = rng(shuffled, "shuffled labels").permutation(labels)
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))
    model.fit(np.concatenate([real, fake]), labels)
    return areas(model.decision_function(real_test), {n: model.decision_function(x) for n, x in fakes_test.items()})


def rounded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their floats to four places."""
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
