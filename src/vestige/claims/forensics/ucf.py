"""Claims of UCF on forged faces made here: one way of forging is left out of training, people are never shared.

All networks see the same number of pictures in as many updates; nothing is chosen on the forgeries left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.faces_study import METHODS, Faces, faces_by_person, flipped, log_odds
from vestige.engines.fitting import fit
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.ucf import UCF, UCFNet, separable_encoder, ucf_loss
from vestige.metrics.detection import auroc
from vestige.metrics.representation import linear_probe
from vestige.nn.residual import SRM

STEPS, BATCH, SEEDS = 110, 24, 3
NET: dict[str, Any] = {"width": 10, "features": 64}
OURS, CE, SRM_CE = "UCF", "same encoder, cross-entropy", "same encoder on SRM residuals, cross-entropy"
CORE, BLENDED = "same encoder, two views kept alike (CORE)", "same encoder, faces blended with themselves (SBI)"


class PlainNet(nn.Module):
    """The forgery encoder with one head: what UCF adds is left out. srm: a front of fixed residual filters."""

    def __init__(self, srm: bool) -> None:
        super().__init__()
        self.front = nn.Sequential(SRM(3), nn.Conv2d(9, 3, 1)) if srm else nn.Identity()
        self.encoder = separable_encoder(NET["width"], 2, NET["features"])
        self.head = nn.Linear(NET["features"], 1)

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(self.front(2 * images - 1)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return (low + (high - low) * torch.rand(count, generator=generator)).view(count, 1, 1, 1)


def _relit(images: Tensor, generator: torch.Generator) -> Tensor:
    """Other contrast and brightness for every picture."""
    n = len(images)
    return ((images - 0.5) * _uniform(n, 0.8, 1.2, generator) + 0.5 + _uniform(n, -0.1, 0.1, generator)).clamp(0, 1)


def core_loss(model: PlainNet, images: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of two views, and 1 - the cosine of their features.

    Source: CORE: Consistent Representation Learning for Face Forgery Detection, CVPR workshops 2022.
    """
    found = []
    for _ in range(2):
        view, side = _relit(images, generator), images.shape[2] // 4
        top, left = (int(torch.randint(images.shape[2] - side, (), generator=generator)) for _ in range(2))
        view[:, :, top : top + side, left : left + side] = 0.5  # a square erased
        found.append(model.features(view))
    each = [F.binary_cross_entropy_with_logits(model.head(x).squeeze(1), fake) for x in found]
    return (each[0] + each[1]) / 2 + (1 - F.cosine_similarity(found[0], found[1])).mean()


def self_blended(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Real faces whose middle is the face itself in other light, a little moved and softened, with soft edges.

    Source: Detecting Deepfakes with Self-Blended Images, CVPR 2022.
    """
    n, side = len(faces), faces.shape[2]
    moved = [int(torch.randint(-1, 2, (), generator=generator)) for _ in range(2)]
    other = _relit(faces, generator).roll(moved, (2, 3))
    soft = F.avg_pool2d(other, 3, 1, 1, count_include_pad=False)
    other = torch.lerp(other, soft, _uniform(n, 0.0, 1.0, generator))
    place = torch.linspace(-1, 1, side)
    down, across = ((place.view(shape) / _uniform(n, 0.5, 0.85, generator)).square()
                    for shape in ((1, 1, side, 1), (1, 1, 1, side)))  # fmt: skip
    inside = (4 * (1 - (down + across).sqrt()) + 0.5).clamp(0, 1)
    return torch.lerp(faces, other, inside)


@lru_cache(maxsize=64)
def _trained(context: ClaimContext, name: str, held: str, seed: int) -> nn.Module:
    known = faces_by_person(context)["train"].without(held)
    torch.manual_seed(seed)
    network: nn.Module = UCFNet(n_methods=len(METHODS), **NET) if name == OURS else PlainNet(name == SRM_CE)

    def batches(number: int, generator: torch.Generator) -> Batch:
        chosen = known.paired(BATCH // 2, generator)
        return Faces(flipped(chosen.images, generator), chosen.methods, chosen.people)

    def step(model: nn.Module, batch: Faces, generator: torch.Generator) -> dict[str, Tensor]:
        if isinstance(model, UCFNet):
            return ucf_loss(model, batch.images, batch.methods, generator)
        assert isinstance(model, PlainNet)
        images, fake = batch.images, (batch.methods > 0).float()
        if name == CORE:
            return {"loss": core_loss(model, images, fake, generator)}
        if name == BLENDED:  # the forged half is made of the real one
            images = torch.cat([images[fake < 0.5], self_blended(images[fake < 0.5], generator)])
        return {"loss": F.binary_cross_entropy_with_logits(model(images), fake)}

    config = TrainConfig(
        steps=3 if context.limit else STEPS, lr=1e-3, betas=(0.9, 0.99), weight_decay=5e-4, warmup=10, seed=seed
    )
    return fit(network, step, batches, config)


@claim(
    "with one way of forging left out, the AUC on it is >= 0.03 above the same encoder trained with plain "
    "cross-entropy, mean of four folds and three seeds"
)
def generalises_to_another_forgery(context: ClaimContext) -> Evidence:
    test = faces_by_person(context)["test"]
    rows: list[dict[str, Any]] = []
    compared, several = (OURS, CE, SRM_CE, CORE, BLENDED), (OURS, CE)
    for name in compared:
        for seed in range(context.seed, context.seed + (SEEDS if name in several and not context.limit else 1)):
            row: dict[str, Any] = {"detector": name, "seed": seed}
            for held in METHODS:
                scores = log_odds(_trained(context, name, held, seed), test)
                chosen = (test.methods == 0) | (test.methods == 1 + METHODS.index(held))
                seen = test.methods != 1 + METHODS.index(held)
                row[held] = auroc(test.fake[chosen], scores[chosen])
                row[f"seen, {held} held"] = auroc(test.fake[seen], scores[seen])
            row["auc, left out"] = float(np.mean([row[m] for m in METHODS]))
            rows.append(row)
    means = {n: float(np.mean([r["auc, left out"] for r in rows if r["detector"] == n])) for n in compared}
    rows += [{"detector": n, "seed": "mean", "auc, left out": value} for n, value in means.items()]
    ahead = f"{means[OURS] - means[CE]:+.3f} above {CE}"
    note = f"{ahead}; {STEPS} updates of {BATCH} faces, UCF and cross-entropy {SEEDS} seeds, the others one"
    return Evidence(means[OURS] >= means[CE] + 0.03, rows, note)


@claim("a linear probe tells the method >= 20 points better from the specific than from the common features")
def features_are_kept_apart(context: ClaimContext) -> Evidence:
    parts, rows = faces_by_person(context), []
    for held in METHODS:
        system = UCF(_trained(context, OURS, held, context.seed), side=parts["test"].images.shape[2])
        fit_on, judged = (p.without(held).take(p.without(held).methods > 0) for p in (parts["train"], parts["test"]))
        found = [system.features(p.images) for p in (fit_on, judged)]
        row: dict[str, Any] = {"left out": held, "chance": 1 / (len(METHODS) - 1)}
        for name in ("specific", "common", "content"):
            one, two = (f[name].numpy() for f in found)
            row[name] = linear_probe(one, fit_on.methods.numpy(), two, judged.methods.numpy())
        rows.append(row)
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("specific", "common", "content")}
    rows.append({"left out": "mean", **mean})
    return Evidence(mean["specific"] >= mean["common"] + 0.2, rows, "accuracy on other people's faces")


@claim("a face decoded with its content and another's forgery features has its own person nearest in >= 0.8 of cases")
def content_keeps_the_person(context: ClaimContext) -> Evidence:
    test = faces_by_person(context)["test"]
    real = test.take(test.methods == 0)
    network = _trained(context, OURS, METHODS[0], context.seed)
    assert isinstance(network, UCFNet)
    with torch.no_grad():
        maps = network.maps(real.images)
        style = torch.cat([maps["specific"], maps["common"]], 1)
        # the next picture of another person lends its forgery features
        donors = torch.tensor([next(j % len(real) for j in range(i + 1, i + 1 + len(real))
                               if real.people[j % len(real)] != real.people[i]) for i in range(len(real))])  # fmt: skip
        decoded = {
            "own content, another's forgery features": network.decode(style[donors], maps["content"]),
            "own content, own features": network.decode(style, maps["content"]),
            "another's content, own features": network.decode(style, maps["content"][donors]),
        }
    gallery = (2 * real.images - 1).flatten(1)
    rows: list[dict[str, Any]] = []
    for name, faces in decoded.items():
        nearest = torch.cdist(faces.flatten(1), gallery).argmin(1)
        rows.append({"decoded": name, "own person": float((real.people[nearest] == real.people).float().mean())})
    rows.append({"decoded": "chance", "own person": 1 / len(real.people.unique())})
    return Evidence(rows[0]["own person"] >= 0.8, rows, "nearest by pixels among all real test faces")
