"""What is measured about a trained masked model: frozen probes for all, and what each system's claims are about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.runtime import rng
from vestige.data.packs import Pack
from vestige.data.scenes import render_pack
from vestige.engines.masked.evaluate import (
    LinearClassifier,
    attention_distance,
    effective_rank,
    extract,
    fine_tune,
    fit_linear,
    knn_accuracy,
)
from vestige.engines.masked.masking import uniform
from vestige.engines.masked.model import MaskedModel
from vestige.nn.blocks import take
from vestige.nn.vit import ViT
from vestige.pretraining.color_mae import ColorMask
from vestige.pretraining.droppos import DropPos
from vestige.pretraining.lut import LUT
from vestige.pretraining.mp3 import MP3

#: Part of the name of a record: raise the version when the meaning of a figure changes. tokens, judged: test pictures
#: for figures about tokens and about positions. scenes: drawn pictures to fit and to judge the segmentation with.
PROTOCOL: dict[str, Any] = {"version": 2, "k": 20, "tokens": 200, "judged": 1000, "scenes": [500, 250]}


@dataclass(frozen=True)
class Judged:
    """The test pictures, their frozen features and the linear probe."""

    pack: Pack
    features: Tensor = field(default_factory=lambda: torch.empty(0))
    classifier: LinearClassifier | None = None

    def images(self, count: int) -> Tensor:
        return torch.from_numpy(self.pack.images[:count]).float() / 255


Diagnostic = Callable[[MaskedModel, Judged], dict[str, float]]


def measure(model: MaskedModel, name: str, labelled: Pack, test: Pack) -> dict[str, float]:
    """Figures of a frozen model; test pictures decide nothing.

    "knn", "linear": accuracy on ``test``, with ``labelled`` as bank and to fit the classifier, whose weight decay is
    chosen on a tenth of it. "quarter": of the linear probe where encoder and probe are given a random quarter of the
    patches of every picture. "effective_rank", "attention_distance" (in patches, mean over the heads of the last two
    blocks): over whole test pictures. The rest by `DIAGNOSTICS`. A network that sees patches alone has only positions.
    """
    model.eval()
    if not len(model.encoder.blocks):
        with torch.no_grad():
            return positions(model, Judged(test))
    encoder = model.encoder
    x, y = extract(encoder, labelled.images, batch_size=250), torch.from_numpy(labelled.labels)
    test_x, truth = extract(encoder, test.images, batch_size=250), torch.from_numpy(test.labels)
    classifier = fit_linear(x, y, int(max(y.max(), truth.max())) + 1)
    found = {
        "knn": knn_accuracy(x, y, test_x, truth, k=min(PROTOCOL["k"], len(x))),
        "linear": classifier.accuracy(test_x, truth),
    }
    judged = Judged(test, test_x, classifier)
    images = judged.images(PROTOCOL["tokens"])
    with torch.no_grad():
        found["quarter"] = quarter(encoder, labelled, test)
        found["effective_rank"] = effective_rank(encoder(images)[:, encoder.extra :])
        last = range(max(0, len(encoder.blocks) - 2), len(encoder.blocks))
        distances = [float(attention_distance(encoder, images, block).mean()) for block in last]
        found["attention_distance"] = sum(distances) / len(distances)
        for diagnose in DIAGNOSTICS.get(name.partition("/")[0], ()):
            found |= diagnose(model, judged)
    return found


def quarter(encoder: ViT, labelled: Pack, test: Pack) -> float:
    """Accuracy on ``test`` of a linear probe on what the encoder makes of a random quarter of each picture."""
    generator = _generator()

    def features(pack: Pack) -> Tensor:
        parts = []
        for chosen in torch.from_numpy(pack.images).split(250):
            patches = encoder.patches(chosen.float() / 255)
            plan = uniform(len(patches), encoder.config.grid, generator, ratio=0.75)
            tokens = encoder.encode(take(patches, plan.ids_keep), plan.ids_keep)
            parts.append(tokens[:, encoder.extra :].mean(1))
        return torch.cat(parts)

    labels, truth = torch.from_numpy(labelled.labels), torch.from_numpy(test.labels)
    fitted = fit_linear(features(labelled), labels, int(max(labels.max(), truth.max())) + 1)
    return fitted.accuracy(features(test), truth)


def fine_tuned(
    model: MaskedModel, labelled: Pack, test: Pack, *, epochs: int, seed: int, scratch: bool
) -> dict[str, float]:
    """{"tuned": test accuracy after training the whole encoder on ``labelled``}. Without what only long trainings
    need (mixing pictures, drop path); from random weights (``scratch``) all layers learn at the full rate."""
    accuracy, _ = fine_tune(
        model.encoder, labelled, test, epochs=epochs, layer_decay=1.0 if scratch else 0.75, drop_path=0.0, mix=0.0,
        seed=seed,
    )  # fmt: skip
    return {"tuned": accuracy}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(int(rng(0, "measuring").integers(2**62)))


def shuffled(model: MaskedModel, judged: Judged) -> dict[str, float]:
    """Accuracy of the linear probe when each picture's patches get each other's positions, and as they are."""
    encoder, images, generator, parts = model.encoder, judged.images(PROTOCOL["judged"]), _generator(), []
    for chosen in images.split(250):
        patches = encoder.patches(chosen)
        ids = torch.rand(patches.shape[:2], generator=generator).argsort(1)
        parts.append(encoder.encode(patches, ids)[:, encoder.extra :].mean(1))
    truth = torch.from_numpy(judged.pack.labels[: len(images)])
    assert judged.classifier is not None
    return {
        "linear_in_place": judged.classifier.accuracy(judged.features[: len(images)], truth),
        "linear_shuffled": judged.classifier.accuracy(torch.cat(parts), truth),
    }


def reconstruction(model: MaskedModel, judged: Judged) -> dict[str, float]:
    """Loss on test pictures under uniform masks and under green ones, whichever the model was trained with."""
    images, own, found = judged.images(PROTOCOL["judged"]), model.mask, {}
    for name, mask in (("uniform", partial(uniform, ratio=0.75)), ("green", ColorMask("green"))):
        model.mask = mask
        found[f"loss_{name}"] = float(model.loss(images, _generator())["loss"])
    model.mask = own
    return found


def positions(model: MaskedModel, judged: Judged) -> dict[str, float]:
    """How often the place of a patch is found: by DropPos with 0, 4 and 8 positions shown, by MP3 with the context it
    was trained with and with every patch as context."""
    images, found = judged.images(PROTOCOL["judged"]), {}
    if isinstance(model, DropPos):
        own, seen = model.hidden_count, model.encoder.config.length // 4
        for anchors in (0, 4, 8):
            model.hidden_count = seen - anchors
            found[f"positions_{anchors}"] = model.accuracy(images, _generator())
        model.hidden_count = own
    elif isinstance(model, MP3):
        found["positions"] = model.accuracy(images, _generator())
        context, model.mask = model.mask, partial(uniform, ratio=0.0)
        found["positions_all_keys"] = model.accuracy(images, _generator())
        model.mask = context
    return found


def collapse(model: MaskedModel, judged: Judged) -> dict[str, float]:
    """Spread of LUT's normalised summaries over pictures, times √dimension: 1 where they are spread evenly, 0 where
    all are one."""
    assert isinstance(model, LUT)
    z = F.normalize(model.summaries(model.encoder.patches(judged.images(PROTOCOL["judged"]))), dim=1)
    return {"summary_spread": float(z.std(0).mean()) * math.sqrt(z.shape[1])}


@cache
def _scenes() -> tuple[Pack, Pack]:
    fitting, judged = PROTOCOL["scenes"]
    return render_pack(fitting, 32, 1, masks=True), render_pack(judged, 32, 2, masks=True)


def segmentation(model: MaskedModel, judged: Judged) -> dict[str, float]:
    """Mean IoU of objects and background on drawn scenes, by a linear layer on frozen tokens whose logits are scaled
    up to pixels; the layer is fitted to what most of each patch shows."""
    (tokens, masks), (held, truth) = (_tokens_and_masks(model.encoder, pack) for pack in _scenes())
    side = model.encoder.config.patch_size
    shown = F.avg_pool2d(masks[:, None].float(), side).flatten(1) > 0.5
    layer = fit_linear(tokens.flatten(0, 1), shown.flatten().long(), 2, decays=(1e-4, 1e-2), iterations=50)
    logits = layer.logits(held).transpose(1, 2).unflatten(2, model.encoder.config.grid)
    found = F.interpolate(logits, scale_factor=side, mode="bilinear").argmax(1).bool()
    ious = [float((a & b).sum() / (a | b).sum().clamp_min(1)) for a, b in ((found, truth), (~found, ~truth))]
    return {"scenes_miou": sum(ious) / 2}


def _tokens_and_masks(encoder: ViT, pack: Pack) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(pack.images).float() / 255
    tokens = torch.cat([encoder(images[i : i + 250])[:, encoder.extra :] for i in range(0, len(images), 250)])
    return tokens, torch.from_numpy(np.stack([masks.any(0) for masks in pack.fields["masks"]]))


DIAGNOSTICS: dict[str, tuple[Diagnostic, ...]] = {
    "mae": (shuffled, reconstruction, segmentation),
    "color_mae": (reconstruction, segmentation),
    "droppos": (shuffled, positions),
    "mp3": (positions,),
    "lut": (collapse,),
}
