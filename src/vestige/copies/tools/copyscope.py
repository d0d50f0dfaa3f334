"""Which part of a generator makes its pictures resemble a protected work, from pictures of every coalition of parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vestige.copies.copyscope import EXACT, CopyScope, coalitions, named
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work

_SIDE = 64


def measure(work: Work) -> Result:
    """``measure COALITIONS --reference PROTECTED --method copyscope``: the share of every part.

    COALITIONS holds a folder for every subset of the parts, named by them (``none``, ``base``, ``base+style``, ...),
    with as many pictures in each, the i-th of all drawn with the same seed. ``--set distance=kid`` suits few pictures,
    ``--set dims=N`` keeps fewer components, ``--set rounds=N`` resamples more often.
    """
    root = work.only(1).path(0, "a folder with a folder of pictures for every coalition of parts")
    reference = work.needed("reference", "a folder of the protected pictures")
    scope = CopyScope(
        dims=work.option("dims", 64), distance=work.option("distance", "fid"), rounds=work.option("rounds", 50),
        seed=work.seed,
    )  # fmt: skip
    work.settled()
    folders = _folders(root)
    protected = _pictures(reference)
    drawn = {c: _pictures(f) for c, f in folders.items()}
    from vestige.nn.features import extract_features, load_feature_net

    net = load_feature_net()
    features = {c: extract_features(net, p) for c, p in work.track(list(drawn.items()), "features")}
    found = scope.measure(features, extract_features(net, protected))
    parts = sorted(found.phi, key=lambda p: -found.phi[p])
    rows = [
        {
            "part": p, "share": found.share[p], "Shapley": found.phi[p], "low": found.low[p], "high": found.high[p],
            "left out": found.left_out[p],
        }
        for p in parts
    ]  # fmt: skip
    whole = frozenset(parts)
    figures = {f"v({named(c)})": v for c, v in sorted(found.value.items(), key=lambda i: (len(i[0]), named(i[0])))}
    figures |= {"order kept": found.order_kept, "pictures": len(drawn[whole])}
    best = parts[0]
    if found.value[whole] <= 0:
        said = "The whole generator is no nearer to the protected pictures than without any part: nothing to share out."
    elif found.low[best] <= 0:
        said = f"No part stands out: the interval of {best}, the largest, reaches to {found.low[best]:.3g}."
    else:
        said = f"{best} accounts for {found.share[best]:.0%} of the likeness."
    return Result(figures, said=[f"{said} Features: {net.provenance}."], rows=rows)


def _folders(root: Path) -> dict[frozenset[str], Path]:
    if not root.is_dir():
        raise InputError(f"{root} is no folder of coalitions; it needs a folder for every subset of the parts.")
    found: dict[frozenset[str], Path] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        parts = frozenset(p.strip() for p in folder.name.split("+") if p.strip()) - {"none"}
        if parts in found:
            raise InputError(f"{folder} and {found[parts].name} are the same coalition; keep one.")
        found[parts] = folder
    every = sorted(frozenset().union(*found)) if found else []
    if not every:
        raise InputError(f"{root} has no folders named by parts, such as none, base and base+style.")
    if len(every) > EXACT:
        raise UsageError(f"{root} names {len(every)} parts; at most {EXACT} are attributed.")
    missing = [c for c in coalitions(every) if c not in found]
    if missing:
        raise InputError(f"{root} has no folder {named(missing[0])}; all {2 ** len(every)} coalitions are needed.")
    return found


def _pictures(path: Path) -> np.ndarray:
    """uint8 N×3×64×64, in the order of names."""
    dataset = DatasetSubject.open(path)
    made = []
    for i in range(len(dataset)):
        small = cv2.resize(dataset[i].subject().pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        made.append(small.transpose(2, 0, 1))
    return np.stack(made)
