"""What a picture is found again by: a vector that editing changes little.

"local": SIFT reduced to 64 numbers each and summed as differences from the nearest of the codebook's centres (VLAD),
beside the low frequencies of the whole picture; nothing in it is trained but the codebook. "features" adds what an
EfficientNet that learnt ImageNet sees, and needs the extra of this name. A file of
the user's own, which the recipe `sscd` trains, is a third way.

A score is an inner product less what the query's nearest strangers reach: s' = s − β·mean of the top n among background
pictures, so that one threshold serves plain and busy pictures.

Sources: Aggregating local image descriptors into compact codes, TPAMI 2012; A Self-Supervised Descriptor for Image Copy
Detection, CVPR 2022 (score normalisation).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from vestige.copies.duplicates import low_frequencies
from vestige.copies.local import DESCRIBE, features
from vestige.core.errors import InputError, UsageError

WEIGHTS = Path(__file__).parent.parent / "weights"
#: Names of the package's descriptors, and where their tables are. Those of "features" do not ship: they are not
#: measured yet, and weigh as much as a network.
SHIPPED = {"local": WEIGHTS / "copies_local.safetensors", "features": WEIGHTS / "copies_features.safetensors"}
_BETA, _NEAREST = 1.0, 5


class Descriptor(Protocol):
    """name: with a digest of its numbers, for an index to hold on to. background: K×width, of strangers."""

    name: str
    width: int
    background: np.ndarray

    def describe(self, pixels: np.ndarray) -> np.ndarray | None:
        """float32 width, of length one; None for a picture that says too little."""


class Vlad:
    """The descriptor "local", and with ``network`` "features".

    tables: mean (128), basis (64×128) and centres (K×64) of the codebook, background; for "features" also shift and
    axes (1280×256) of what the network sees.
    """

    def __init__(self, name: str, tables: dict[str, np.ndarray], network: bool = False) -> None:
        self.name = name
        self.tables = {k: np.asarray(v, np.float32) for k, v in tables.items()}
        self.network = network
        self.width = self.tables["centres"].size + LOW + (self.tables["axes"].shape[1] if network else 0)
        self.background = self.tables.get("background", np.zeros((0, self.width), np.float32))

    def describe(self, pixels: np.ndarray) -> np.ndarray | None:
        """See `Descriptor`; uint8 H×W×3."""
        seen = network_sees(pixels) if self.network else None
        return self.combined(features(pixels, *DESCRIBE).descriptors, low_frequencies(pixels), seen)

    def combined(self, found: np.ndarray, low: np.ndarray | None, seen: np.ndarray | None) -> np.ndarray | None:
        """Local features, low frequencies and what the network sees together; None where all say too little."""
        if len(found) < 8 and low is None and seen is None:
            return None
        parts = [aggregate(found, self.tables), LOW_WEIGHT * (np.zeros(LOW, np.float32) if low is None else low)]
        if seen is not None:
            parts.append(NETWORK_WEIGHT * unit((seen - self.tables["shift"]) @ self.tables["axes"]))
        return unit(np.concatenate(parts))


#: How much the low frequencies of the whole picture, and what the network sees, count beside the local features.
LOW_WEIGHT, NETWORK_WEIGHT = 0.4, 0.5
#: Low DCT coefficients of `vestige.copies.duplicates.low_frequencies`.
LOW = 255


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one along the last axis; zero stays zero."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9), np.float32)


def aggregate(descriptors: np.ndarray, tables: dict[str, np.ndarray]) -> np.ndarray:
    """Σ over the features nearest to each centre of their unit differences from it, of equal length for each centre,
    with square roots taken; float32 of length one, zero without features."""
    centres = tables["centres"]
    sums = np.zeros(centres.shape, np.float32)
    if len(descriptors):
        reduced = (descriptors - tables["mean"]) @ tables["basis"].T
        nearest = (2 * reduced @ centres.T - (centres**2).sum(1)).argmax(1)
        np.add.at(sums, nearest, unit(reduced - centres[nearest]))
    sums = unit(sums)
    return unit((np.sign(sums) * np.sqrt(np.abs(sums))).ravel())


@cache
def _network() -> Any:
    from vestige.nn.backbone import FEATURES, load_backbone

    return load_backbone(FEATURES).requires_grad_(False)


def network_sees(pixels: np.ndarray) -> np.ndarray:
    """float32 1280: the generalised mean (p = 3) over space of the last convolution of the network of the extra
    ``features``, at 224 pixels. Raises MissingDependencyError without the package."""
    import torch

    small = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        last = _network().maps(torch.from_numpy(small.transpose(2, 0, 1)[None].astype(np.float32) / 255))[-1]
        return last.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)[0].numpy()


def strangers(background: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """β·mean of the highest inner products of each query with background pictures; zero without any."""
    if len(background) < _NEAREST:
        return np.zeros(len(queries), np.float32)
    return _BETA * np.sort(queries @ background.T, axis=1)[:, -_NEAREST:].mean(1)


@cache
def load_descriptor(name: str = "") -> Descriptor:
    """The descriptor of that name ("local", "features"), or of a file that ``vestige learn sscd`` wrote.

    "": "local", whose false claims are counted. Raises InputError, UsageError or MissingDependencyError.
    """
    name = name or "local"
    if name in SHIPPED:
        if not SHIPPED[name].is_file():
            raise UsageError(
                f"The tables of the descriptor {name!r} are not here; 'python -m vestige.bench.copies fit --descriptor "
                f"{name}' makes them from the data packs. The default, local, needs none."
            )
        if name == "features":
            _network()
        return Vlad(name, read_tables(SHIPPED[name]), network=name == "features")
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"There is no descriptor {name!r}; it is local, or a file that 'learn sscd' wrote.")
    from vestige.copies.sscd import TrainedDescriptor

    return TrainedDescriptor(path)


def read_tables(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of ours; raises InputError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing or damaged ({' '.join(str(error).split())[:100]}).") from None
    return {name: np.asarray(value, np.float32) for name, value in found.items()}
