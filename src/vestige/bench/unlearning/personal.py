"""What ZK-APEX is tried on: a provider's vision transformer, and a client that made it its own.

A small vision transformer learns nine CIFAR-10 classes (rendered scenes of six kinds where the pack is missing); a
client fine-tunes it on some of them in its own style (channels swapped, half the contrast). The provider asks for a
class to be forgotten that the client does not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.bench.unlearning.world import Settings, splits
from vestige.data.packs import find_data_root, has_pack
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.problem import ForgetProblem, class_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.masked.evaluate import Classifier
from vestige.engines.run_state import load_trained
from vestige.engines.runs import Run
from vestige.nn.vit import ViT, ViTConfig
from vestige.unlearning.zk_apex import ZkApex

FORGOTTEN, DEPTH = 0, 6
#: The published settings of the mask, 4 % of the expansion matrices of all blocks; blocks and damping are the
#: defaults. On validation pictures of another pool a mask on the last blocks alone cost no personal accuracy.
METHOD = ZkApex(
    fraction=0.04, block=64, damping=1.0, layers=tuple(f"encoder.blocks.{i}.mlp.fc1.weight" for i in range(DEPTH))
)
#: Names of the parts of a run that hold the models.
MODELS = ("original", "retrain", "personal", "personal retrain")


@dataclass(frozen=True, eq=False)
class Pictures:
    """known: of the provider, some for validation in ``val``. own, test: the client's, in its style. public: test
    pictures of the provider's classes."""

    classes: int
    known: Samples
    val: Samples
    own: Samples
    test: Samples
    public: Samples

    @property
    def rest(self) -> Samples:
        return self.known.take(self.known.labels != FORGOTTEN)


@dataclass(frozen=True, eq=False)
class Scene:
    """The client's model, the provider's problem (its model is the provider's), the client's data, and references."""

    model: nn.Module
    problem: ForgetProblem
    own: Samples
    test: Samples
    retrained: nn.Module

    def row(self, model: nn.Module) -> dict[str, Any]:
        """Accuracies: "forget" on the provider's pictures of the class, "personal" on the client's test pictures."""
        gone = self.problem.test_forget
        assert gone is not None
        row = METHOD.measure(model, self.problem.forget, self.test)
        return {n: round(v, 4) for n, v in {**row, "forget, test pictures": say(model, gone).accuracy}.items()}


def network(classes: int, seed: int = 0) -> nn.Module:
    """A fresh transformer; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(ViT(ViTConfig(32, 8, 96, DEPTH, 4)), classes, drop_path=0.0)


def pictures(options: Mapping[str, Any], seed: int) -> Pictures:
    """Everybody's pictures. options: images of the provider, own of the client, tested."""
    images, tested = int(options["images"]), int(options["tested"])
    cifar = has_pack("cifar10")
    classes, mine = (9, (1, 3, 4, 5, 7)) if cifar else (6, (1, 3, 4))
    settings = Settings("cifar10" if cifar else "scenes", images + images * 2 // 3, max(20, images // 8), tested)
    pool, val, test = splits(settings, seed, find_data_root())
    first, later = pool.take(range(images)), pool.take(range(images, len(pool)))
    own = styled(later, mine)
    own = own.take(range(min(int(options["own"]), len(own))))

    def provided(samples: Samples) -> Samples:
        return samples.take(samples.labels < classes)

    return Pictures(classes, provided(first), provided(val), own, styled(test, mine), provided(test))


def styled(samples: Samples, classes: tuple[int, ...]) -> Samples:
    """Pictures of the client's classes in its style."""
    own = samples.take(torch.isin(samples.labels, torch.tensor(classes)))
    changed = own.inputs[:, [2, 0, 1]].float() * 0.5 + 64
    return replace(own, inputs=changed.to(torch.uint8))


def scene(made: Pictures, models: Mapping[str, nn.Module], seed: int) -> Scene:
    """The scene of models by the names in `MODELS`."""
    problem = class_problem(models["original"], made.known, FORGOTTEN, test=made.public, seed=seed)
    return Scene(models["personal"], problem, made.own, made.test, models["personal retrain"])


def scene_of(run: Run) -> Scene:
    """The scene of a finished run."""
    made = pictures(run.metrics["options"], run.seed)
    models = {name: _part(run.folder, name, made.classes) for name in MODELS}
    return scene(made, models, run.seed)


def _part(folder: Path, name: str, classes: int) -> nn.Module:
    return load_trained(folder / f"{name}.safetensors", network(classes)).eval()
