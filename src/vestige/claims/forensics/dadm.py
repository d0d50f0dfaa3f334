"""Claims of DADM on faces presented before four made-up cameras: trained on three of them, tested on the fourth.

People of training, validation and test are different; the threshold is that of equal errors on validation people before
the cameras of the training. Depth and infrared are made from a dome and another reflectance, not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.runtime import rng
from vestige.data.packs import load_pack
from vestige.data.presentations import ATTACKS, CAMERAS, MODALITIES, present
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.dadm import DADM, DADMNet, dadm_loss
from vestige.metrics.detection import auroc, equal_error

SIDE, STEPS, BATCH = 48, 150, 24
OURS, NO_MASKS, CONCAT, DROPOUT, GATED, BEST = (
    "DADM",
    "DADM without masks",
    "concatenation, cross-entropy",
    "the same with modality dropout",
    "modalities by themselves, weighed by certainty (MMDG-like)",
    "of these the modality that is best in validation",
)


class GatedNet(DADMNet):
    """Every modality decides by itself; a decision counts by how little entropy it has.

    Source: Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing, CVPR 2024 (uncertain modalities
    are held down; here by their answers, not by their tokens).
    """

    def each(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Logits N×3×2 of presented and live by modality; without masks no stream sees another."""
        return torch.einsum("nmd,kmd->nmk", self.tokens(pictures)[0], self.heads[0].unflatten(1, (3, -1)))

    def joined(self, each: Tensor) -> Tensor:
        p = each.softmax(2)
        entropy = -(p * p.clamp_min(1e-9).log()).sum(2) / math.log(2)
        return ((-4 * entropy).softmax(1)[..., None] * each).sum(1)

    def forward(self, pictures: Mapping[str, Tensor]) -> Tensor:
        logits = self.joined(self.each(pictures))
        return logits[:, 0] - logits[:, 1]

    def loss(self, pictures: Mapping[str, Tensor], live: Tensor) -> dict[str, Tensor]:
        each = self.each(pictures)
        alone = F.cross_entropy(each.flatten(0, 1), live.repeat_interleave(3))
        return {"loss": alone + F.cross_entropy(self.joined(each), live)}


class _Alone(nn.Module):
    """One modality of `GatedNet`."""

    def __init__(self, network: GatedNet, modality: int) -> None:
        super().__init__()
        self.network, self.modality = network, modality

    def forward(self, pictures: Mapping[str, Tensor]) -> Tensor:
        logits = self.network.each(pictures)[:, self.modality]
        return logits[:, 0] - logits[:, 1]


@dataclass(frozen=True)
class Shown:
    """pictures: N×3×S×S by modality. live: int64 N. cameras: int64 N. kinds: N."""

    pictures: dict[str, Tensor]
    live: Tensor
    cameras: Tensor
    kinds: tuple[str, ...]

    def before(self, *cameras: int) -> Shown:
        chosen = torch.tensor([int(c) in cameras for c in self.cameras])
        rows = chosen.nonzero().squeeze(1)
        kinds = tuple(self.kinds[int(r)] for r in rows)
        return Shown({k: v[rows] for k, v in self.pictures.items()}, self.live[rows], self.cameras[rows], kinds)

    @property
    def presented(self) -> np.ndarray:
        return (self.live == 0).numpy()


@lru_cache(maxsize=1)
def _shown(context: ClaimContext) -> dict[str, Shown]:
    pack = load_pack(context.pack("faces"), size=SIDE, label="person")
    people = rng(context.seed, "people").permutation(np.unique(pack.labels))
    found = {}
    for part, chosen in zip(
        ("train", "val", "test"), np.split(people, [len(people) * 5 // 8, len(people) * 6 // 8]), strict=True
    ):
        mine = np.flatnonzero(np.isin(pack.labels, chosen))[:: 2 if part == "train" else 1][: context.limit or None]
        rows, kinds, cameras = [], [], []
        for index in mine:
            for kind in ("", *ATTACKS):
                for camera in range(len(CAMERAS)):
                    seed = (context.seed * 1000 + int(index)) * 64 + camera
                    rows.append(present(pack.images[index].astype(np.float32) / 255, kind, camera=camera, seed=seed))
                    kinds.append(kind)
                    cameras.append(camera)
        pictures = {name: torch.from_numpy(np.stack([r[name] for r in rows])) for name in MODALITIES}
        found[part] = Shown(
            pictures, torch.tensor([k == "" for k in kinds]).long(), torch.tensor(cameras), tuple(kinds)
        )
    return found


@lru_cache(maxsize=20)
def _trained(context: ClaimContext, name: str, held: int) -> DADMNet:
    others = [c for c in range(len(CAMERAS)) if c != held]
    known = _shown(context)["train"].before(*others)
    domains = torch.tensor([others.index(int(c)) for c in known.cameras])
    full = name in (OURS, NO_MASKS)
    torch.manual_seed(context.seed)
    build = GatedNet if name == GATED else DADMNet
    network = build(n_domains=len(others) if full else 1, size=SIDE, mim=name == OURS, hidden=32)
    sides = [(known.live == value).nonzero().squeeze(1) for value in (0, 1)]

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = torch.cat([s[rows_of(len(s), BATCH // 2, generator)] for s in sides])
        pictures = {k: v[rows] for k, v in known.pictures.items()}
        if name == DROPOUT and float(torch.rand(1, generator=generator)) < 0.5:
            gone = MODALITIES[int(torch.randint(3, (1,), generator=generator))]
            pictures[gone] = torch.zeros_like(pictures[gone])
        return pictures, known.live[rows], domains[rows] if full else torch.zeros_like(rows)

    def step(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, DADMNet)
        pictures, live, domain = batch
        if isinstance(model, GatedNet):
            return model.loss(pictures, live)
        weights = (0.2, 0.3, 0.15) if full else (0.0, 0.0, 0.0)
        return dadm_loss(model, pictures, live, domain, generator, weights=weights)

    config = TrainConfig(
        steps=3 if context.limit else STEPS, lr=7e-4, betas=(0.9, 0.99), weight_decay=5e-5, warmup=15, seed=context.seed
    )

    def align(number: int, model: nn.Module) -> None:
        assert isinstance(model, DADMNet)
        model.align()

    return fit(network, step, batches, config, on_step=align if full else None)


def _threshold(context: ClaimContext, network: nn.Module, held: int) -> float:
    return float(_equal_error(context, network, held).threshold)


def _equal_error(context: ClaimContext, network: nn.Module, held: int) -> Any:
    """Where both errors are equal before the other cameras, on validation people."""
    val = _shown(context)["val"].before(*(c for c in range(len(CAMERAS)) if c != held))
    return equal_error(val.presented, DADM(network, side=SIDE).score(val.pictures).numpy())


def _chosen(context: ClaimContext, name: str, held: int) -> nn.Module:
    """The network of that name; of single modalities the one of least equal error in validation."""
    if name != BEST:
        return _trained(context, name, held)
    network = _trained(context, GATED, held)
    assert isinstance(network, GatedNet)
    return min((_Alone(network, k) for k in range(3)), key=lambda one: _equal_error(context, one, held).value)


def _hter(scores: np.ndarray, presented: np.ndarray, threshold: float) -> float:
    """Mean of the share of live faces refused and of presented ones let through."""
    return float(((scores >= threshold)[~presented].mean() + (scores < threshold)[presented].mean()) / 2)


@lru_cache(maxsize=1)
def _table(context: ClaimContext) -> tuple[dict[str, Any], ...]:
    rows = []
    for name in (OURS, NO_MASKS, CONCAT, DROPOUT, GATED, BEST):
        for held in range(len(CAMERAS)):
            network, test = _chosen(context, name, held), _shown(context)["test"].before(held)
            threshold, system = _threshold(context, network, held), DADM(network, side=SIDE)
            scores = system.score(test.pictures).numpy()
            row: dict[str, Any] = {"detector": name, "camera": held, "hter": _hter(scores, test.presented, threshold)}
            row["auc"] = auroc(test.presented, scores)
            for gone in MODALITIES:
                left = {k: v for k, v in test.pictures.items() if k != gone}
                row[f"hter without {gone}"] = _hter(system.score(left).numpy(), test.presented, threshold)
            rows.append(row)
        keys = [k for k in rows[-1] if k not in ("detector", "camera")]
        mine = [r for r in rows if r["detector"] == name]
        rows.append({"detector": name, "camera": "mean", **{k: float(np.mean([r[k] for r in mine])) for k in keys}})
    return tuple(rows)


def _means(context: ClaimContext) -> dict[str, dict[str, Any]]:
    return {row["detector"]: row for row in _table(context) if row["camera"] == "mean"}


@claim(
    "the mean HTER on cameras left out is >= 15 % lower than that of plain concatenation with cross-entropy and than "
    "that of the same model without the masks"
)
def generalises_to_another_camera(context: ClaimContext) -> Evidence:
    means = _means(context)
    ours, others = means[OURS]["hter"], [means[n]["hter"] for n in (CONCAT, NO_MASKS)]
    note = f"HTER {ours / max(min(others), 1e-9) - 1:+.0%} against the better one; {STEPS} updates of {BATCH}; one seed"
    return Evidence(ours <= 0.85 * min(others), list(_table(context)), note)


@claim("with one modality missing, the HTER rises at most half as much as that of plain concatenation")
def bears_a_missing_modality(context: ClaimContext) -> Evidence:
    means, rows = _means(context), []
    for name, row in means.items():
        gone = float(np.mean([row[f"hter without {m}"] for m in MODALITIES]))
        rows.append({"detector": name, "hter": row["hter"], "hter, one missing": gone, "rise": gone - row["hter"]})
    by = {row["detector"]: row["rise"] for row in rows}
    return Evidence(by[CONCAT] > 0 and by[OURS] <= by[CONCAT] / 2, rows, "mean over the three modalities")


@claim("the mask of depth is lower on masks of a face, whose depth is right, than on prints (sign test, p < 0.05)")
@torch.no_grad()
def depth_is_masked_where_it_deceives(context: ClaimContext) -> Evidence:
    from scipy.stats import binomtest

    rows: list[dict[str, Any]] = []
    lower, total = 0, 0
    for held in range(len(CAMERAS)):
        network, test = _trained(context, OURS, held), _shown(context)["test"].before(held)
        masks = network.tokens(test.pictures)[2]
        depth = ((masks[0][1] + masks[2][0]) / 2).mean((1, 2)).numpy()
        by = {kind: depth[[k == kind for k in test.kinds]] for kind in ("", *ATTACKS)}
        lower += int((by["mask"] < by["print"]).sum())
        total += len(by["mask"])
        rows.append({"camera": held, **{kind or "live": float(v.mean()) for kind, v in by.items()}})
    p = float(binomtest(lower, total, alternative="greater").pvalue)
    rows.append({"camera": "all", "lower on masks": lower, "faces": total, "p": p})
    return Evidence(p < 0.05, rows, "pairs of the same face; mean mask of depth in the last block")
