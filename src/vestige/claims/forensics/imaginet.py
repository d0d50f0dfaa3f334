"""Claims of ImagiNet's learner at small size: self-contrast against cross-entropy of the same encoder.

Photographs, rendered scenes, faces and fractals; four generators of four families. All networks see the same pictures
with the same changes in as many updates; pictures are judged as social networks would have left them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.forensics.generated_study import rounded
from vestige.data.contents import ContentSet, content_set
from vestige.engines.train import Batch, TrainConfig
from vestige.forensics.generated import TraceDetector, logits
from vestige.forensics.imaginet import (
    Calibrator,
    SelfConDetector,
    SocialNetwork,
    contrast_batches,
    contrast_step,
    entropy_step,
    selfcon_loss,
    train,
)
from vestige.forensics.imaginet_data import four_generators
from vestige.forensics.npr import TraceResNet
from vestige.forensics.patchcraft import PatchCraftNet
from vestige.metrics.detection import auroc

STEPS, JUDGE, EACH, CROP = 120, 40, 60, 32
OURS, CE, VIEWS = "self-contrast", "cross-entropy", "supervised contrast of two views"
PLAIN: dict[str, Any] = {
    "NPR": lambda: TraceResNet("npr", width=0.5),
    "PatchCraft": lambda: PatchCraftNet(patch=8, grid=4, width=16),
    "ResNet-18 on RGB, early down-sampling (Corvi-like schedule)": lambda: TraceResNet("rgb", 18, 4, width=0.5),
}


@cache
def _set(context: ClaimContext, part: str) -> ContentSet:
    root = context.pack("photos").parent
    context.pack("faces")
    each = 2 * context.limit or (EACH if part == "train" else EACH // 3)
    return content_set(part, four_generators(context.seed), each=each, seed=context.seed, root=root)


def _config(context: ClaimContext, steps: int) -> TrainConfig:
    return TrainConfig(
        steps=2 if context.limit else steps, batch_size=64, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=20,
        seed=context.seed,
    )  # fmt: skip


def two_views(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Supervised contrast of the last stage only, of every picture and of itself turned."""
    assert isinstance(model, SelfConDetector)
    views = [model.encoder(x)[:, 1] for x in (batch["images"], batch["images"].rot90(1, (2, 3)))]
    return {"loss": selfcon_loss(torch.stack(views, 1), batch["labels"])}


@cache
def _trained(context: ClaimContext, how: str, held: str = "") -> TraceDetector:
    """held: a generator left out of training and calibration."""
    known, apart = (_set(context, part) for part in ("train", "calibration"))
    if held:
        known, apart = known.without(held), apart.without(held)
    torch.manual_seed(context.seed)
    # What is trained in one go also learns from the pictures that the judge of the others is calibrated on.
    batches = contrast_batches(known if how in (OURS, VIEWS) else known.joined(apart), 64, crop=CROP)
    if how in PLAIN:
        model: TraceDetector = train(PLAIN[how](), batches, entropy_step, _config(context, STEPS + JUDGE))
        return model
    detector = SelfConDetector()
    if how == CE:
        return train(detector, batches, entropy_step, _config(context, STEPS + JUDGE))
    train(detector, batches, contrast_step if how == OURS else two_views, _config(context, STEPS))
    return Calibrator(2 if context.limit else JUDGE, seed=context.seed).fit(detector, apart, crop=CROP)


@cache
def _posted(context: ClaimContext) -> np.ndarray:
    """Test pictures as social networks leave them, uint8 N×3×48×48."""
    return SocialNetwork(context.seed + 7)(_set(context, "test").images)


def _row(context: ClaimContext, name: str, scores: np.ndarray) -> dict[str, Any]:
    test = _set(context, "test")
    found = {g: _area(test, scores, g) for g in sorted({str(name) for name in test.generator} - {"real"})}
    return {"detector": name, "mean": float(np.mean(list(found.values()))), **found}


def _area(test: ContentSet, scores: np.ndarray, generator: str) -> float:
    rows = ~test.generated | (test.generator == generator)
    return auroc(test.generated[rows], scores[rows])


@claim(
    "mean AUROC over generators, all seen, >= 0.95 and >= 0.02 above cross-entropy, as social networks leave pictures"
)
def beats_cross_entropy(context: ClaimContext) -> Evidence:
    posted = _posted(context)
    rows = [_row(context, name, logits(_trained(context, name), posted))
            for name in (OURS, CE, VIEWS, *PLAIN)]  # fmt: skip
    rows.append(_row(context, "control: what is shown alone (thumbnail, linear)", _content_only(context)))
    return Evidence(rows[0]["mean"] >= max(0.95, rows[1]["mean"] + 0.02), rounded(rows), _note(context, rows))


def _content_only(context: ClaimContext) -> np.ndarray:
    """A linear judge of pictures of eight pixels, which hold what is shown and no traces."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def small(images: np.ndarray) -> np.ndarray:
        return F.adaptive_avg_pool2d(torch.from_numpy(images).float() / 255, 8).flatten(1).numpy()

    known = _set(context, "train")
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=300))
    judge.fit(small(known.images), known.generated)
    return np.asarray(judge.decision_function(small(_posted(context))))


def _note(context: ClaimContext, rows: list[dict[str, Any]]) -> str:
    """What came out, of what; our row is the first and cross-entropy the second."""
    counts = f"{len(_posted(context))} test pictures, {len(_set(context, 'train').images)} to train"
    ahead = f"{rows[0]['mean'] - rows[1]['mean']:+.3f} above cross-entropy"
    return f"{ahead}; {counts}; {STEPS} + {JUDGE} updates"


@claim("each generator left out in turn: mean AUROC on it >= 0.02 above cross-entropy")
def generalises(context: ClaimContext) -> Evidence:
    posted, test = _posted(context), _set(context, "test")
    rows: list[dict[str, Any]] = []
    for name in (OURS, CE):
        found = {
            held: _area(test, logits(_trained(context, name, held), posted), held)
            for held in sorted({str(name) for name in test.generator} - {"real"})
        }
        rows.append({"detector": name, "mean": float(np.mean(list(found.values()))), **found})
    note = f"{_note(context, rows)}; every generator by networks without it"
    return Evidence(rows[0]["mean"] >= rows[1]["mean"] + 0.02, rounded(rows), note)


@claim("a linear probe names the generator from its features at least as well as from those of cross-entropy")
def names_the_generator(context: ClaimContext) -> Evidence:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known, test = _set(context, "calibration"), _set(context, "test")
    posted = {"known": SocialNetwork(context.seed + 8)(known.images), "test": _posted(context)}
    rows: list[dict[str, Any]] = []
    for name in (OURS, CE):
        model = _trained(context, name)
        assert isinstance(model, SelfConDetector)
        with torch.no_grad():
            seen = {k: model.encoder.features(torch.from_numpy(x).float() / 255).numpy() for k, x in posted.items()}
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        probe.fit(seen["known"][known.generated], known.generator[known.generated])
        right = probe.predict(seen["test"][test.generated]) == test.generator[test.generated]
        rows.append({"features": name, "generator named": float(right.mean())})
    return Evidence(rows[0]["generator named"] >= rows[1]["generator named"], rounded(rows), "chance is 0.25")
