"""What every family of the audit shares: settings, the generator, a judge of its own, prompts and plain training.

The generator is the shipped 32-pixel text-to-image model of drawn scenes; objects play the part of concepts and
palettes that of artists.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from vestige.bench.generation import runs
from vestige.core.errors import UsageError
from vestige.data.scenes import CLASSES, render_pack, sample_scene
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.metrics.distribution import squared_mmd
from vestige.nn.features import extract_features
from vestige.watermark.copyrightmeter.imitation import torch_rng

#: Series of scenes: for the judge, for artists, and prompts that are erased, kept, or used by attackers. None of them
#: is the series of the generator's training.
JUDGE, ARTISTS, PROMPTS, OWN = 401, 402, 403, 404
SIDE = 32


@dataclass(frozen=True)
class Settings:
    """Sizes of everything that is drawn, trained and read.

    pictures: for each prompt list, protected gallery and mark. steps: of sampling. inversion: steps of sampling and
    inverting marked pictures. updates, batch: of every training, by protectors and attackers alike. perturb: PGD steps
    of cloaks. epsilon: their L∞ budget in grey levels. keys: wrong keys an unmarked picture is read with. known:
    pictures of a concept that an attacker has. scenes: that the judge is fitted on. guidance: of sampling.
    """

    pictures: int = 12
    steps: int = 6
    inversion: int = 10
    updates: int = 24
    batch: int = 4
    perturb: int = 10
    epsilon: float = 16.0
    keys: int = 16
    known: int = 8
    scenes: int = 1500
    guidance: float = 3.0

    def __post_init__(self) -> None:
        counts = (
            self.pictures,
            self.steps,
            self.inversion,
            self.updates,
            self.batch,
            self.perturb,
            self.keys,
            self.known,
        )
        if min(counts) < 1 or self.pictures < 2 or self.scenes < 2 or self.epsilon < 1:
            raise UsageError("Every count of the audit must be at least 1, pictures and scenes at least 2.")

    @classmethod
    def trial(cls, limit: int) -> Settings:
        """The same audit in seconds, on about ``limit`` pictures."""
        few = max(2, limit)
        return cls(few, 2, 2, 1, 2, 1, 16.0, 4, 2, 20 * few)


def generator_model() -> TextToImage:
    """The generator, frozen; attackers and protectors change copies."""
    return runs.pipeline()


class Judge:
    """Reads objects, and how far sets of pictures are apart, independently of the generator.

    The heads are fitted by ridge regression on scenes of a series that the generator never saw, on the features of the
    shipped network, which was trained on renders alone.
    """

    def __init__(self, scenes: int, ridge: float = 1.0) -> None:
        self.net = runs.judge()
        pack = render_pack(scenes, SIDE, JUDGE, n_objects=1, object_size=runs.OBJECT_SIZES[0])
        assert pack.labels is not None
        features = extract_features(self.net, pack.images).astype(np.float64)
        self.mean, self.spread = features.mean(0), features.std(0) + 1e-6
        x = self._design(features)
        penalty = ridge * len(x) / 1000 * np.eye(x.shape[1])
        self.weights = np.linalg.solve(x.T @ x + penalty, x.T @ np.eye(len(CLASSES))[pack.labels])

    def _design(self, features: np.ndarray) -> np.ndarray:
        return np.column_stack([(features - self.mean) / self.spread, np.ones(len(features))])

    def objects(self, images: Tensor) -> np.ndarray:
        """Numbers of `CLASSES`, int64 (N,)."""
        return (self._design(extract_features(self.net, images)) @ self.weights).argmax(1)

    def kept(self, before: Tensor, after: Tensor) -> float:
        """Share of pictures in which the judge still reads the same object."""
        return float(np.mean(self.objects(before) == self.objects(after)))

    def distance(self, first: Tensor, second: Tensor) -> float:
        """Squared kernel distance of the features of two sets, unbiased (negative by chance for equal ones)."""
        return squared_mmd(extract_features(self.net, first), extract_features(self.net, second))


@cache
def judge(scenes: int) -> Judge:
    """The judge fitted on that many scenes, once."""
    return Judge(scenes)


def fidelity(content: float, distance: float) -> float:
    """One number for the quality that protecting keeps: (content + exp(-distance)) / 2, 1 for no loss."""
    return (min(1.0, content) + float(np.exp(-max(0.0, distance)))) / 2


@lru_cache(maxsize=32)
def scenes_of(count: int, series: int, seed: int, kind: str | None = None, without: str | None = None) -> runs.Scenes:
    """Rendered one-object scenes of a series: of one kind of object, or of all but one."""
    classes = [c for c in CLASSES if c != without]
    numbers = range(series * 1_000_003 + 10_000 * seed, series * 1_000_003 + 10_000 * seed + count)
    size = runs.OBJECT_SIZES[0]
    return runs.rendered(
        [sample_scene(n, n_objects=1, object_size=size, object=kind, classes=classes) for n in numbers], SIDE
    )


def start_noise(count: int, seed: int, *path: object) -> Tensor:
    """Starting noise N×C×H×W for the generator."""
    shape = (count, *generator_model().latent_shape())
    return torch.randn(shape, generator=torch_rng(seed, "start", *path))
