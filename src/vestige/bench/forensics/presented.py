"""Live and presented faces before four cameras, three of which detectors learn from: the bed of DADM, and its rivals.

Source of the gate: Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing, CVPR 2024 (uncertain
modalities are held down; here by their answers, not by their tokens).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.runtime import rng
from vestige.data.forged_faces import portraits
from vestige.data.presentations import ATTACKS, CAMERAS, MODALITIES, present
from vestige.forensics.dadm import DADMNet
from vestige.metrics.detection import auroc, equal_error


@dataclass(frozen=True)
class Shown:
    """pictures: uint8 N×3×S×S by modality. live: int64 N. cameras: int64 N. kinds: N, "" for live."""

    pictures: dict[str, Tensor]
    live: Tensor
    cameras: Tensor
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.live)

    @property
    def presented(self) -> np.ndarray:
        return (self.live == 0).numpy()


@lru_cache(maxsize=8)
def shown(part: str, size: int, count: int, cameras: Sequence[int], seed: int = 0, root: Path | None = None) -> Shown:
    """``count`` people of a part, each live and in every attack before one of the cameras, drawn anew for each."""
    faces = portraits(part, size, count, root=root)[0]
    draw, rows, kinds, where = rng(seed, "presentations", part), [], [], []
    for index, face in enumerate(faces):
        for kind in ("", *ATTACKS):
            camera = cameras[int(draw.integers(len(cameras)))]
            picture = face.astype(np.float32) / 255
            rows.append(present(picture, kind, camera=camera, seed=1000 * index + seed, varied=True))
            kinds.append(kind)
            where.append(camera)
    pictures = {
        name: torch.from_numpy(np.stack([np.round(255 * r[name]) for r in rows]).astype(np.uint8))
        for name in MODALITIES
    }
    live = torch.tensor([kind == "" for kind in kinds]).long()
    return Shown(pictures, live, torch.tensor(where), tuple(kinds))


@torch.no_grad()
def scores_of(network: nn.Module, part: Shown, without: str = "", batch: int = 64) -> np.ndarray:
    """Scores N of a network, with one modality missing where it is named."""
    given = {k: v for k, v in part.pictures.items() if k != without}
    found = []
    for at in range(0, len(part), batch):
        found.append(network({k: v[at : at + batch].float() / 255 for k, v in given.items()}))
    return torch.cat(found).cpu().numpy()


def half_total_error(scores: np.ndarray, presented: np.ndarray, threshold: float) -> float:
    """HTER: mean of the share of live faces refused and of presented ones let through."""
    return float(((scores >= threshold)[~presented].mean() + (scores < threshold)[presented].mean()) / 2)


def figures(network: nn.Module, val: Shown, test: Shown) -> dict[str, float]:
    """HTER and AUC before the camera left out, at the threshold of equal errors before the others, complete and with
    each modality missing."""
    cut = float(equal_error(val.presented, scores_of(network, val)).threshold)
    found = {"threshold": cut}
    for gone in ("", *MODALITIES):
        scores = scores_of(network, test, gone)
        end = f" without {gone}" if gone else ""
        found[f"hter{end}"] = half_total_error(scores, test.presented, cut)
        found[f"auc{end}"] = auroc(test.presented, scores)
    found["hter, one missing"] = float(np.mean([found[f"hter without {m}"] for m in MODALITIES]))
    return found


class GatedNet(DADMNet):
    """Every modality decides by itself; a decision counts by how little entropy it has."""

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


class Alone(nn.Module):
    """One modality of `GatedNet`."""

    def __init__(self, network: GatedNet, modality: int) -> None:
        super().__init__()
        self.network, self.modality = network, modality

    def forward(self, pictures: Mapping[str, Tensor]) -> Tensor:
        logits = self.network.each(pictures)[:, self.modality]
        return logits[:, 0] - logits[:, 1]


def all_cameras() -> tuple[int, ...]:
    return tuple(range(len(CAMERAS)))
