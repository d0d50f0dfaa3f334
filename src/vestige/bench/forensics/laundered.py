"""How well pristine, laundered and full pictures are told apart: the pictures after handling, and the readings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from vestige.core.errors import UsageError
from vestige.data.fakes import handled
from vestige.forensics.laundering import LABELS, LaunderingDetector, LaunderingNet
from vestige.forensics.patchcraft import PatchCraftNet

FRONTS = ("srm", "npr", "patchcraft")


def network(front: str = "srm", width: float = 0.25) -> LaunderingNet:
    """Both stages on a front; "patchcraft" puts PatchCraft in their place."""
    if front not in FRONTS:
        raise UsageError(f"front is one of {', '.join(FRONTS)}; got {front!r}.")
    made = LaunderingNet(width, "srm" if front == "patchcraft" else front)
    if front == "patchcraft":
        made.stages = nn.ModuleList(PatchCraftNet(patch=8, grid=4, width=16) for _ in range(2))
    return made


def treated(kinds: Mapping[str, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pictures uint8 N×3×48×48 after handling, the number of each one's kind in `LABELS`, int N)."""
    pictures = [picture[:, :48, :48] for label in LABELS for picture in handled(kinds[label], seed)]
    return np.stack(pictures), np.repeat(np.arange(len(LABELS)), [len(kinds[label]) for label in LABELS])


def shares_of(found: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """Shares recognised of each kind, and their mean."""
    shares = {label: float((found[kinds == k] == k).mean()) for k, label in enumerate(LABELS) if (kinds == k).any()}
    return {**shares, "balanced accuracy": float(np.mean(list(shares.values())))}


def shares(detector: LaunderingDetector, pictures: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """`shares_of` what a detector says."""
    return shares_of(np.array([LABELS.index(label) for label in detector.classify(pictures)]), kinds)


def by_margin(
    detector: LaunderingDetector, known: tuple[np.ndarray, np.ndarray], asked: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Three kinds by two thresholds on the first stage alone, those that serve the known pictures best."""
    scores = detector.score(known[0])["real_vs_synth"]
    edges, best, chosen = np.quantile(scores, np.linspace(0.02, 0.98, 40)), -1.0, (0.0, 0.0)
    for low in edges:
        for high in edges[edges >= low]:
            value = shares_of(np.digitize(scores, (low, high)), known[1])["balanced accuracy"]
            if value > best:
                best, chosen = value, (float(low), float(high))
    return shares_of(np.digitize(detector.score(asked[0])["real_vs_synth"], chosen), asked[1])
