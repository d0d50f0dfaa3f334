"""Claims of FairFD: what the averaged metrics see, and what pruning with fair activations removes.

Groups are colour palettes laid over the faces pack; they stand for skin and light and name nobody. The detector is a
small convolutional network trained on people of whom most have the first palette, so that it is biased on purpose.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.runtime import rng
from vestige.data.face_forgeries import FORGERIES, PALETTES, FaceBasis, forge_face, in_palette
from vestige.data.packs import load_pack
from vestige.forensics.fairfd import FairFD, Importance, biased_answers, bpfa_prune
from vestige.metrics.detection import auroc, equal_error
from vestige.metrics.fairness import REAL

LADDER = (0.0, 0.1, 0.2, 0.3)
SIZE = (48, 40)
SHARES = (0.7, 0.1, 0.1, 0.1)  # of the palettes in training
STEPS, BATCH, SEEDS = 400, 32, 3
FRACTIONS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # one is chosen on validation people
TAILS = (0.8, 0.5)  # shares of the worst losses that fair losses average; one is chosen on validation people
#: Fair losses by what they take the tail over. Source: Improving Fairness in Deepfake Detection, WACV 2024; its
#: inner tail over the pictures of a group answers few real ones, and is their mean here, where batches hold as many.
FAIR_LOSSES: dict[str, Literal["pictures", "groups"]] = {
    "none, loss of the worst pictures (DAG-FDD)": "pictures",
    "none, loss of the worst groups (DAW-FDD)": "groups",
}


@claim(
    "errors that cancel over approaches read 0 in naive DPD, 1 in AA-DPD and 1/1.5 in UR-DPD; a constant detector "
    "reads 0 everywhere and is exposed by its accuracy alone"
)
def unit_cases(context: ClaimContext) -> Evidence:
    measure = FairFD().measure
    answers = {
        "cancelling": ([0.1, 0.9, 0.1, 0.9], [REAL, REAL, "swap", "swap"], ["a", "b", "a", "b"]),
        "constant": ([0.9] * 4, [REAL, REAL, "swap", "swap"], ["a", "b", "a", "b"]),
    }
    rows: list[dict[str, Any]] = [{"detector": name, **measure(*given)} for name, given in answers.items()]
    wanted = {"naive-dpd": 0.0, "aa-dpd": 1.0, "ur-dpd": 1 / 1.5}
    exact = all(abs(rows[0][name] - value) < 1e-12 for name, value in wanted.items())
    silent = all(rows[1][name] == 0 for name in rows[1] if "dpd" in name or "deo" in name or "std" in name)
    return Evidence(exact and silent and rows[1]["accuracy"] == 0.5, rows)


@claim("AA-DPD ranks injected biases of 0, 0.1, 0.2 and 0.3 in order for every seed, naive DPD does not")
def ranks_a_ladder(context: ClaimContext) -> Evidence:
    rows, ordered = [], {"aa-dpd": [], "naive-dpd": [], "ur-dpd": []}  # type: list[dict[str, Any]], dict[str, list[bool]]
    for seed in range(context.seed, context.seed + 10):
        found = []
        for bias in LADDER:
            draw = rng(seed, "ladder", bias)
            found.append(FairFD().measure(*biased_answers(bias, 3, 4, 1000, draw)))
            rows.append({"seed": seed, "bias": bias, **{k: found[-1][k] for k in (*ordered, "accuracy")}})
        for name, outcomes in ordered.items():
            outcomes.append(all(a[name] < b[name] for a, b in itertools.pairwise(found)))
    shares = {name: float(np.mean(outcomes)) for name, outcomes in ordered.items()}
    rows.append({"seed": "ladders in order", **shares})
    return Evidence(shares["aa-dpd"] == 1 and shares["naive-dpd"] < 0.5, rows, "1,000 pictures in each cell")


@claim("pruning with fair activations lowers AA-DEOdds by at least 10 % at no more than 1 point of accuracy")
def pruning_is_fairer(context: ClaimContext) -> Evidence:
    parts = _people(context)
    rows: list[dict[str, Any]] = []
    for seed in range(context.seed, context.seed + SEEDS):
        detector = _trained(parts["train"], seed, 20 if context.limit else STEPS)
        threshold = _threshold(detector, parts["val"])
        rows.append({"seed": seed, "pruning": "none", "share": 0.0, **_figures(detector, parts["test"], threshold)})
        shares: dict[str, float] = {}
        for by in ("fair", "weight", "activation"):
            shares[by] = share = _chosen(detector, parts, threshold, by)
            pruned = _pruned(detector, parts["prune"], share, by)
            rows.append({"seed": seed, "pruning": by, "share": share, **_figures(pruned, parts["test"], threshold)})
        others = _others(context, parts, detector, threshold, seed, shares["fair"])
        rows += [{"seed": seed, **row} for row in others]
    means = {
        by: {key: float(np.mean([r[key] for r in rows if r["pruning"] == by])) for key in ("aa-deodds", "accuracy")}
        for by in dict.fromkeys(row["pruning"] for row in rows)
    }
    lower = 1 - means["fair"]["aa-deodds"] / max(means["none"]["aa-deodds"], 1e-9)
    loss = means["none"]["accuracy"] - means["fair"]["accuracy"]
    rows += [{"seed": "mean", "pruning": by, **found} for by, found in means.items()]
    note = f"AA-DEOdds {100 * lower:+.1f} % lower at {100 * loss:+.1f} points of accuracy; threshold of equal errors"
    return Evidence(lower >= 0.1 and loss <= 0.01, rows, note)


class _Part:
    """Pictures of some people: real ones and every forgery, in palettes. images: N×3×H×W."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []
        self.approach: list[str] = []
        self.group: list[str] = []

    def add(self, face: np.ndarray, approach: str, group: str) -> None:
        self.pictures.append(np.round(in_palette(face, group) * 255) / 255)
        self.approach.append(approach)
        self.group.append(group)

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(np.stack(self.pictures)).float()

    @property
    def fake(self) -> np.ndarray:
        return np.array([a != REAL for a in self.approach])


def _people(context: ClaimContext) -> dict[str, _Part]:
    """The faces pack cut by person: half to train, then thirds to prune with, to choose by and to judge."""
    pack = load_pack(context.pack("faces"), size=SIZE, label="person")
    people = rng(context.seed, "people").permutation(np.unique(pack.labels))
    cuts = np.split(people, [16, 20, 24]) if len(people) >= 30 else np.array_split(people, 4)
    faces = pack.images.astype(np.float32) / 255
    basis = FaceBasis.of(faces[np.isin(pack.labels, cuts[0])])
    parts = {}
    for name, chosen in zip(("train", "prune", "val", "test"), cuts, strict=True):
        part, draw = _Part(), rng(context.seed, "forged", name)
        mine = np.flatnonzero(np.isin(pack.labels, chosen))
        for index in mine[: context.limit or None]:
            strangers = mine[pack.labels[mine] != pack.labels[index]]
            versions = {REAL: faces[index]}
            for kind in FORGERIES:
                seed = int(draw.integers(2**31))
                donor = faces[draw.choice(strangers)] if len(strangers) else faces[0]
                versions[kind] = forge_face(faces[index], kind, donor=donor, basis=basis, seed=seed)[0]
            # judged people appear in every palette, training people mostly in the first
            groups = draw.choice(list(PALETTES), 1, p=SHARES) if name == "train" else list(PALETTES)
            for group in groups:
                for kind, face in versions.items():
                    part.add(face, kind, str(group))
        parts[name] = part
    return parts


def cvar(values: Tensor, share: float) -> Tensor:
    """Mean of the largest ``share`` of the values N: the least of λ + mean [v - λ]₊ / share, which a value attains."""
    return (values + (values - values[:, None]).relu().mean(1) / share).min()


def _trained(
    part: _Part, seed: int, steps: int, over: Literal["pictures", "groups"] = "pictures", tail: float = 1.0
) -> nn.Module:
    """over, tail: the loss is the mean of the worst ``tail`` of the pictures, or of the groups, of a batch."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 24), (24, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if inside > 3 else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    images, fake, group, draw = part.images, part.fake, np.array(part.group), rng(seed, "batches")
    real, forged = np.flatnonzero(~fake), np.flatnonzero(fake)
    for _ in range(steps):
        rows = np.concatenate([draw.choice(real, BATCH // 2), draw.choice(forged, BATCH // 2)])
        batch = images[rows]
        flipped = torch.from_numpy(draw.random(len(rows)) < 0.5)[:, None, None, None]
        logits = model(torch.where(flipped, batch.flip(3), batch)).squeeze(1)
        each = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(fake[rows]).float(), reduction="none")
        if over == "groups":
            each = torch.stack([each[torch.from_numpy(group[rows] == g)].mean() for g in np.unique(group[rows])])
        loss = cvar(each, tail) if tail < 1 else each.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def _scores(model: nn.Module, part: _Part) -> np.ndarray:
    return torch.cat([model(batch).squeeze(1).sigmoid() for batch in part.images.split(256)]).numpy()


def _figures(model: nn.Module, part: _Part, threshold: float | dict[str, float]) -> dict[str, float]:
    """threshold: one for all, or one by group; scores are then compared by how far they are above it."""
    scores = _scores(model, part)
    if isinstance(threshold, dict):
        scores, threshold = scores - np.array([threshold[g] for g in part.group]), 0.0
    found = FairFD(threshold=threshold).measure(scores, part.approach, part.group)
    keys = ("accuracy", "worst_group_accuracy", "naive-deodds", "aa-deodds", "ur-deodds")
    return {"auroc": auroc(part.fake, scores), **{key: found[key] for key in keys}}


def _threshold(model: nn.Module, part: _Part) -> float:
    return equal_error(part.fake, _scores(model, part)).threshold


def _thresholds(model: nn.Module, part: _Part) -> dict[str, float]:
    """Those of equal errors in each group."""
    scores, fake, group = _scores(model, part), part.fake, np.array(part.group)
    return {g: equal_error(fake[group == g], scores[group == g]).threshold for g in PALETTES}


def _others(
    context: ClaimContext, parts: dict[str, _Part], detector: nn.Module, threshold: float, seed: int, share: float
) -> list[dict[str, Any]]:
    """Rows of what pruning with fair activations at ``share`` is compared with, beside pruning by parts of it."""
    test = parts["test"]
    plain = _pruned(detector, parts["prune"], share, "weight")
    rows = [{"pruning": "weight, the share of fair", "share": share, **_figures(plain, test, threshold)}]
    for name, known in (("thresholds by group", "val"), ("thresholds by group of the judged (oracle)", "test")):
        found = _figures(detector, test, _thresholds(detector, parts[known]))
        rows.append({"pruning": f"none, {name}", "share": 0.0, **found})
    before = _figures(detector, parts["val"], threshold)
    for name, over in FAIR_LOSSES.items():
        tried = []
        for tail in TAILS:
            model = _trained(parts["train"], seed, 20 if context.limit else STEPS, over, tail)
            own = _threshold(model, parts["val"])
            figures = _figures(model, parts["val"], own)
            within = figures["accuracy"] >= before["accuracy"] - 0.01
            tried.append((not within, figures["aa-deodds"], tail, model, own))
        *_, tail, model, own = min(tried, key=lambda found: found[:3])
        rows.append({"pruning": name, "share": 0.0, "tail": tail, **_figures(model, test, own)})
    return rows


def _pruned(model: nn.Module, part: _Part, share: float, by: Importance) -> nn.Module:
    pruned = copy.deepcopy(model)
    images, fake, group = part.images, part.fake, np.array(part.group)
    groups = {name: images[torch.from_numpy(~fake & (group == name))].split(256) for name in PALETTES}
    bpfa_prune(pruned, groups, fraction=share, by=by)
    return pruned


def _chosen(model: nn.Module, parts: dict[str, _Part], threshold: float, by: Importance) -> float:
    """The share that is fairest on validation people among those that cost them at most a point of accuracy."""
    before = _figures(model, parts["val"], threshold)
    best, chosen = before["aa-deodds"], 0.0
    for share in FRACTIONS:
        found = _figures(_pruned(model, parts["prune"], share, by), parts["val"], threshold)
        if found["accuracy"] >= before["accuracy"] - 0.01 and found["aa-deodds"] < best:
            best, chosen = found["aa-deodds"], share
    return chosen
