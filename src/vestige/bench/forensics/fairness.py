"""The bed of FairFD: people of four groups in four parts, figures by group, and pruning chosen on validation people.

Pruning sets weights to zero by what a detector shows on real faces of the groups, from a part that is used for nothing
else; its share is chosen on validation people, and everything is judged on others.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.forensics.face_bed import faces_of
from vestige.core.runtime import rng
from vestige.data.forged_faces import METHODS, Faces, answers
from vestige.forensics.fairfd import FairFD, Importance, bpfa_prune
from vestige.metrics.detection import auroc, equal_error
from vestige.metrics.fairness import REAL

SIDE, TRAIN, REST, TEST = 48, 2000, 700, 1000
FRACTIONS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
KEYS = ("accuracy", "worst_group_accuracy", "naive-deodds", "aa-deodds", "ur-deodds", "aa-dpd")


def people_of(limit: int = 0, root: Path | None = None) -> dict[str, Faces]:
    """{"train", "prune", "val", "test"}: faces with their forgeries of four groups; parts share nobody."""

    def faces(part: str, count: int) -> Faces:
        found = faces_of(part, SIDE, count, limit=limit, root=root)
        return found.take(found.groups < 4)

    rest = faces("val", REST)
    half = int(rest.people.max()) // 2
    return {
        "train": faces("train", TRAIN), "prune": rest.take(rest.people < half), "val": rest.take(rest.people >= half),
        "test": faces("test", TEST),
    }  # fmt: skip


def groups_of(faces: Faces) -> tuple[str, ...]:
    """Names of the groups that are there."""
    return tuple(faces.names[int(g)] for g in faces.groups.unique())


def skewed(faces: Faces, share: float, seed: int) -> Faces:
    """The faces thinned until the first group has that share and the others are as many each."""
    draw, people = rng(seed, "skewed"), faces.people.numpy()
    mine = {int(g): np.unique(people[(faces.groups == g).numpy()]) for g in faces.groups.unique()}
    others = max(1, len(mine) - 1)
    first = min(mine)
    most = min([len(mine[first]) / share, *(len(v) * others / (1 - share) for g, v in mine.items() if g != first)])
    kept = [
        draw.permutation(v)[: max(2, round(most * (share if g == first else (1 - share) / others)))]
        for g, v in mine.items()
    ]
    return faces.take(torch.from_numpy(np.isin(people, np.concatenate(kept))))


def figures(model: nn.Module, part: Faces, threshold: float | dict[int, float]) -> dict[str, float]:
    """Accuracy, AUC and spreads; threshold: one for all, or one by group, which scores are then compared with."""
    scores, group = answers(model, part.images), part.groups.numpy()
    cut = threshold
    if isinstance(threshold, dict):
        scores, cut = scores - np.array([threshold[int(g)] for g in group]), 0.0
    approach = [REAL if m == 0 else METHODS[m - 1] for m in part.methods.tolist()]
    assert isinstance(cut, float)
    found = FairFD(threshold=cut).measure(scores, approach, [part.names[int(g)] for g in group])
    return {"auc": auroc(part.fake, scores), **{key: found[key] for key in KEYS}}


def threshold_of(model: nn.Module, part: Faces) -> float:
    """That of equal errors."""
    return float(equal_error(part.fake, answers(model, part.images)).threshold)


def thresholds_by_group(model: nn.Module, part: Faces) -> dict[int, float]:
    """Those of equal errors in each group."""
    scores, fake, group = answers(model, part.images), part.fake, part.groups.numpy()
    return {int(g): float(equal_error(fake[group == g], scores[group == g]).threshold) for g in np.unique(group)}


def pruned(model: nn.Module, part: Faces, share: float, by: Importance) -> nn.Module:
    """A copy without that share of the weights, by what real faces of ``part`` show."""
    changed, real = copy.deepcopy(model), part.take(part.methods == 0)
    groups = {
        real.names[int(g)]: [x.float() / 255 for x in real.take(real.groups == g).images.split(64)]
        for g in real.groups.unique()
    }
    bpfa_prune(changed, groups, fraction=share, by=by)
    return changed


def chosen_share(model: nn.Module, parts: dict[str, Faces], threshold: float, by: Importance) -> float:
    """The share that is fairest on validation people among those that cost them at most a point of accuracy."""
    before = figures(model, parts["val"], threshold)
    best, chosen = before["aa-deodds"], 0.0
    for share in FRACTIONS:
        found = figures(pruned(model, parts["prune"], share, by), parts["val"], threshold)
        if found["accuracy"] >= before["accuracy"] - 0.01 and found["aa-deodds"] < best:
            best, chosen = found["aa-deodds"], share
    return chosen


def audited(model: nn.Module, parts: dict[str, Faces]) -> dict[str, Any]:
    """{"none", "fair", "weight", "activation", "weight, the share of fair", "thresholds by group"}: figures on test
    people as the detector is, pruned in three ways, and with other thresholds; with the shares that were chosen."""
    cut, found = threshold_of(model, parts["val"]), dict[str, Any]()
    found["none"] = figures(model, parts["test"], cut)
    shares: dict[str, float] = {}
    for by in ("fair", "weight", "activation"):
        shares[by] = chosen_share(model, parts, cut, by)
        other = pruned(model, parts["prune"], shares[by], by)
        found[by] = {"share": shares[by], **figures(other, parts["test"], cut)}
    plain = pruned(model, parts["prune"], shares["fair"], "weight")
    found["weight, the share of fair"] = {"share": shares["fair"], **figures(plain, parts["test"], cut)}
    found["thresholds by group"] = figures(model, parts["test"], thresholds_by_group(model, parts["val"]))
    return found
