"""The default examiner of generated pictures: small squares in the resolution that the picture has, judged one by one.

It uses the network below, or the judges of groups of evidence (`vestige.forensics.generated_judges`), whichever the
weights are of.

The first stages of EfficientNet-lite2 are learnt further on published pictures of real generators; mean and spread of
every stage's channels over a square go into one linear judge. Squares show less of what is depicted than pictures do,
so that texture has to decide more; whole pictures are the mean of many of them. With a stem that does not reduce, and
smaller squares, texture decides alone: the variant "texture" of the recipe.

Sources: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (the network); Are GAN
Generated Images Easy to Detect? A Critical Analysis of the State-of-the-Art, ICME 2021 (a stem that does not reduce);
What Makes Fake Images Detectable? Understanding Properties that Generalize, ECCV 2020 (squares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError
from vestige.core.findings import Finding
from vestige.forensics.generated import GeneratedExaminer, TraceDetector
from vestige.forensics.generated_evidence import evidence
from vestige.forensics.generated_judges import EvidenceHead
from vestige.nn.efficientnet import STAGES, EfficientNetConfig, EfficientNetLite, pretrained

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject


class TextureNet(TraceDetector):
    """Stages of EfficientNet-lite2 and a linear judge of the means and spreads of their channels.

    stages: how many, 1 to 7. stride: of the stem. side: of the squares that it is shown. The stages start at random;
    `from_imagenet` takes published ones. Their normalisation keeps its statistics in training, because the squares of a
    batch are few.

    >>> TextureNet(2)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    def __init__(self, stages: int = 6, stride: int = 2, side: int = 128) -> None:
        super().__init__()
        self.settings = {"stages": stages, "stride": stride, "side": side}
        self.trunk = EfficientNetLite(EfficientNetConfig(stages=stages, stride=stride))
        count = 2 * sum(self.trunk.config.channels(base) for _, _, _, base, _ in STAGES[:stages])
        self.units = nn.BatchNorm1d(count, momentum=0.05, affine=False)
        self.judge = nn.Linear(count, 1)
        nn.init.zeros_(self.judge.weight)
        nn.init.zeros_(self.judge.bias)

    @classmethod
    def from_imagenet(cls, stages: int = 6, stride: int = 2, side: int = 128) -> TextureNet:
        """With the stages that the extra ``features`` brings; raises MissingDependencyError without it."""
        found = cls(stages, stride, side)
        published = pretrained(stages=stages, stride=stride).state_dict()
        found.trunk.load_state_dict({name: t for name, t in published.items() if not name.startswith("fc.")})
        return found

    def train(self, mode: bool = True) -> TextureNet:
        super().train(mode)
        self.trunk.eval()
        return self

    def groups(self, lr: float, share: float) -> list[dict[str, Any]]:
        """Parameters for the optimiser: the judge at the rate ``lr``, the stages at a ``share`` of it, 0 not at all."""
        for parameter in self.trunk.parameters():
            parameter.requires_grad_(share > 0)
        judge = {"params": list(self.judge.parameters()), "lr": lr}
        return [judge, {"params": list(self.trunk.parameters()), "lr": lr * share}] if share > 0 else [judge]

    def measured(self, images: Tensor) -> Tensor:
        """N×F: means and spreads of the channels."""
        maps = self.trunk.maps(images)[: self.settings["stages"]]
        return torch.cat([part for x in maps for part in (x.mean((2, 3)), x.flatten(2).std(2))], 1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.judge(self.units(self.measured(images)).clamp(-8, 8)).squeeze(1)


class GeneratedImage(GeneratedExaminer):
    """How much a picture looks generated: score, fit and find. Arguments as in `GeneratedExaminer`.

    The weights are of a `TextureNet` or of an `EvidenceHead`. The squares are looked at in the resolution they have.
    What it reaches on generators that it never saw, and how often it flags real pictures, is in the model card.

    >>> import numpy as np
    >>> GeneratedImage(network=TextureNet(1)).score(np.zeros((2, 3, 64, 64), np.uint8)).shape
    (2,)
    """

    slug = "generated_image"
    found = "is like that of the generators it learnt from, or was heavily processed"

    @staticmethod
    def build(**settings: Any) -> Any:
        """A network or, where the settings are those of one, a head of judges."""
        return EvidenceHead(**settings) if "sizes" in settings else TextureNet(**settings)

    def find(self, subject: ImageSubject) -> Finding:
        """Score and spread over squares as large as the network knows and the picture allows, from 64 pixels on."""
        try:
            smaller = min(subject.stored.shape[:2])
            self.side = max(64, min(self.network.settings.get("side", 64), smaller // 8 * 8))
        except InputError as trouble:
            return Finding.not_applicable(self.slug, self.kind, str(trouble))
        return super().find(subject)

    def logits(self, images: np.ndarray) -> np.ndarray:
        network: Any = self.network
        return network.score(evidence(images)) if isinstance(network, EvidenceHead) else super().logits(images)
