"""Claims of the recoloured-picture examiner, on photographs that took no part in its training.

Genuine and recoloured versions go through the same scaling, cutting and JPEG; a third of the genuine ones has been
through a recolouring method with itself as reference. The networks are runs of the recipe, three seeds, each trained on
the same batches as its rivals. Every detector gets its threshold from validation photographs recoloured by the training
methods. Accuracy is the mean of the shares of genuine and of recoloured versions told right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from vestige.bench.controls import Interval, over_seeds, too_weak
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.data.packs import SPLIT, load_pack, split
from vestige.data.recolouring import HELD_OUT, METHODS, TRAINING, Versions, saved, versions
from vestige.data.recolouring_methods import to_lab
from vestige.engines.runs import Need
from vestige.forensics.learned import load_network
from vestige.forensics.recolor import effect_size, neighbour_correlation
from vestige.forensics.recolor_net import PixelNet, RecolorNet, ThreeInputNet, log_odds_of
from vestige.metrics.detection import auroc
from vestige.nn.residual import SRM

OURS, CHANNELS, PIXELS = "recolor", "inter-channel maps alone", "plain network on RGB"
INPUTS = "RecDeNet-like: picture, channel differences, illumination"
SHUFFLED = "control: shuffled labels"
NEEDS = (Need("recolor"),)
SEEDS = (0, 1, 2)
_FITTED = 150  # training photographs that the linear baselines see
_CUT = 160  # side of the square that the SRM statistics are taken of
Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Study:
    """Versions to judge by, and every detector's scores and threshold."""

    test: Versions
    scores: dict[str, np.ndarray]
    after_jpeg: dict[str, np.ndarray]
    thresholds: dict[str, float]

    @property
    def genuine(self) -> np.ndarray:
        return ~self.test.recoloured

    def accuracy(self, name: str, methods: tuple[str, ...]) -> float:
        flagged = self.scores[name] >= self.thresholds[name]
        return float((flagged[self.test.of(*methods)].mean() + (~flagged)[self.genuine].mean()) / 2)

    def auc(self, scores: np.ndarray, methods: tuple[str, ...]) -> float:
        chosen = self.genuine | self.test.of(*methods)
        return auroc(self.test.recoloured[chosen], scores[chosen])


@claim("accuracy >= 0.85 on recolourings by the training methods and >= 0.70 on methods it has not seen")
def tells_recoloured_from_genuine(context: ClaimContext) -> Evidence:
    study = _study(context)
    rows = [_row(study, name) for name in study.scores]
    ours = rows[0]
    genuine = neighbour_correlation(study.test.images[study.test.of("as it is")])
    for kind in ("as it is", *(f"identity {m}" for m in METHODS), *METHODS):
        of = study.test.of(kind)
        if not of.any():
            continue
        flagged = study.scores[OURS][of] >= study.thresholds[OURS]
        row: dict[str, Any] = {"versions": kind, "count": int(of.sum()), "flagged": float(flagged.mean())}
        if kind in METHODS:
            moved = effect_size(genuine, neighbour_correlation(study.test.images[of]))
            row |= {"held out": METHODS[kind].held_out, "auc": study.auc(study.scores[OURS], (kind,)),
                    "d of neighbour correlation": float(moved)}  # fmt: skip
        rows.append(row)
    holds = ours["accuracy, training methods"] >= 0.85 and ours["accuracy, other methods"] >= 0.70
    count = len(np.unique(study.test.sources))
    note = f"{count} photographs; one training; d < 0: residuals of neighbours go together less"
    return Evidence(holds, rows, note)


def judged(accuracy: Mapping[str, Sequence[float]], shuffled: float) -> tuple[bool, dict[str, Interval], str]:
    """Accuracy on methods not seen, over seeds, by detector: (whether ours is above the plain network and above the
    inter-channel maps with the whole interval, the differences, why the bed cannot tell)."""
    ahead = {name: over_seeds(accuracy[OURS], accuracy[name]) for name in (PIXELS, CHANNELS)}
    holds = all(apart.low > 0 for apart in ahead.values())
    least = min(apart.value for apart in ahead.values())
    weak = too_weak(least, abs(shuffled - 0.5), "shuffled labels are away from one half") if holds else ""
    return holds, ahead, weak


@headline(
    "on methods it has not seen, accuracy is above that of a plain network on RGB and of the inter-channel maps alone"
)
def needs_neighbouring_pixels(context: ClaimContext) -> Evidence:
    studies = [_study(context, seed) for seed in SEEDS]
    rows = [
        {"seed": seed, **_row(study, name)} for seed, study in zip(SEEDS, studies, strict=True) for name in study.scores
    ]
    accuracy = {
        name: [study.accuracy(name, HELD_OUT) for study in studies] for name in (OURS, PIXELS, CHANNELS, INPUTS)
    }
    holds, ahead, weak = judged(accuracy, studies[0].accuracy(SHUFFLED, HELD_OUT))
    note = "; ".join(f"{apart} above {name}" for name, apart in ahead.items()) + "; over seeds; the card's margin: 0.05"
    return Evidence(holds, rows, note, too_weak=weak)


@claim("AUC >= 0.75 over all methods after genuine and recoloured versions alike are saved as JPEG 90")
def survives_jpeg(context: ClaimContext) -> Evidence:
    study = _study(context)
    rows: list[dict[str, Any]] = []
    for name, scores in study.after_jpeg.items():
        rows.append({
            "detector": name,
            "auc before": study.auc(study.scores[name], tuple(METHODS)),
            "auc": study.auc(scores, tuple(METHODS)),
            "auc, training methods": study.auc(scores, TRAINING),
            "auc, other methods": study.auc(scores, HELD_OUT),
        })  # fmt: skip
    note = f"AUC {rows[0]['auc before']:.3f} before and {rows[0]['auc']:.3f} after JPEG 90"
    return Evidence(rows[0]["auc"] >= 0.75, rows, note)


def _row(study: Study, name: str) -> dict[str, Any]:
    return {
        "detector": name,
        "accuracy, training methods": study.accuracy(name, TRAINING),
        "accuracy, other methods": study.accuracy(name, HELD_OUT),
        "auc, training methods": study.auc(study.scores[name], TRAINING),
        "auc, other methods": study.auc(study.scores[name], HELD_OUT),
        "false alarms": float((study.scores[name] >= study.thresholds[name])[study.genuine].mean()),
    }


@lru_cache(maxsize=3)
def _study(context: ClaimContext, seed: int = 0) -> Study:
    """What the networks of a seed score, with the linear baselines beside them."""
    nets = _networks(context, seed)
    pack = load_pack(context.pack("photos"), 256)
    parts = split(pack.names, SPLIT)
    limit = context.limit or None

    def some(part: str, most: int | None) -> np.ndarray:
        return pack.images[parts[part][:most]]

    fitted = versions(some("train", limit or _FITTED), TRAINING, each=2, seed=context.seed)
    val = versions(some("val", limit), TRAINING, each=2, seed=context.seed + 1)
    test = versions(some("test", limit), tuple(METHODS), genuine=6, seed=context.seed + 2)
    resaved = replace(test, images=np.stack([saved(x.transpose(1, 2, 0), 90).transpose(2, 0, 1) for x in test.images]))
    scorers: dict[str, Scorer] = {name: _of_network(net) for name, net in nets.items()}
    for name, features in (
        ("SRM statistics, linear", srm_statistics),
        ("colour statistics, linear", colour_statistics),
        ("histogram gaps, linear", histogram_gaps),
    ):
        scorers[name] = _linear(features, fitted.images, fitted.recoloured)
    shuffled = rng(context.seed, "shuffled").permutation(fitted.recoloured)
    scorers["histogram gaps, labels shuffled"] = _linear(histogram_gaps, fitted.images, shuffled)
    return Study(
        test,
        {name: scorer(test.images) for name, scorer in scorers.items()},
        {name: scorer(resaved.images) for name, scorer in scorers.items()},
        {name: _threshold(val.recoloured, scorer(val.images)) for name, scorer in scorers.items()},
    )


def _networks(context: ClaimContext, seed: int) -> dict[str, torch.nn.Module]:
    """The networks that a run trained on the same batches; of the first seed also the control's."""
    folder = context.run("recolor", None, seed).folder
    found: dict[str, torch.nn.Module] = {
        OURS: load_network("recolor", RecolorNet, folder / "recolor.safetensors")[0],
        CHANNELS: load_network("recolor", RecolorNet, folder / "recolor_channels.safetensors")[0],
        PIXELS: load_network("recolor_pixels", PixelNet, folder / "recolor_pixels.safetensors")[0],
        INPUTS: load_network("recolor_inputs", ThreeInputNet, folder / "recolor_inputs.safetensors")[0],
    }
    if seed == 0:
        control = context.run("recolor", "shuffled_labels").folder / "recolor.safetensors"
        found[SHUFFLED] = load_network("recolor", RecolorNet, control)[0]
    return found


def _of_network(network: torch.nn.Module) -> Scorer:
    def score(images: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(images)
        if isinstance(network, RecolorNet):
            return torch.cat([log_odds_of(network, network.maps(part)) for part in values.split(128)]).numpy()
        return log_odds_of(network, values).numpy()

    return score


def _linear(features: Callable[[np.ndarray], np.ndarray], images: np.ndarray, labels: np.ndarray) -> Scorer:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(features(images), labels)
    return lambda others: model.decision_function(features(others))


def _threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Where the mean of both shares told right is largest."""
    tried = np.unique(scores)
    right = [((scores >= t)[labels].mean() + (scores < t)[~labels].mean()) / 2 for t in tried]
    return float(tried[int(np.argmax(right))])


def srm_statistics(images: np.ndarray) -> np.ndarray:
    """Mean size, deviation and tail weight of the residuals of 30 filters on each channel: N×270 of uint8 N×3×H×W."""
    filters, found = SRM(30), []
    top, left = ((n - _CUT) // 2 if n > _CUT else 0 for n in images.shape[2:])
    with torch.no_grad():
        for one in torch.from_numpy(np.ascontiguousarray(images[:, :, top : top + _CUT, left : left + _CUT])):
            residual = filters(one[None].float())[0].flatten(1)
            size, square = residual.abs().mean(1), residual.square().mean(1)
            tail = residual.square().square().mean(1) / square.square().clamp_min(1e-6)
            found.append(torch.cat([(size + 0.01).log(), (square + 0.01).log(), tail.clamp_min(1).log()]))
    return torch.stack(found).numpy()


def colour_statistics(images: np.ndarray) -> np.ndarray:
    """Mean, deviation and skewness in Lab and the shares of twelve hues: N×21. What colours alone give away."""
    found = []
    for one in images:
        lab = to_lab(np.ascontiguousarray(one.transpose(1, 2, 0))).reshape(-1, 3).astype(np.float64)
        mean, deviation = lab.mean(0), lab.std(0) + 1e-3
        skew = (((lab - mean) / deviation) ** 3).mean(0)
        hues, _ = np.histogram(
            np.arctan2(lab[:, 2], lab[:, 1]), 12, (-np.pi, np.pi), weights=np.hypot(lab[:, 1], lab[:, 2])
        )
        found.append(np.concatenate([mean, deviation, skew, hues / max(hues.sum(), 1e-9)]))
    return np.stack(found)


def histogram_gaps(images: np.ndarray) -> np.ndarray:
    """How combed each channel's histogram is: N×9.

    Share of empty levels between the darkest and the brightest, share of counts in the last and first level, and mean
    difference of neighbouring counts over their mean.
    """
    found = []
    for one in images:
        row = []
        for plane in one:
            counts = np.bincount(plane.ravel(), minlength=256)
            held = np.flatnonzero(counts)
            inside = counts[held[0] : held[-1] + 1]
            comb = np.abs(np.diff(counts)).sum() / counts.sum()
            row += [float((inside == 0).mean()), float((counts[0] + counts[-1]) / counts.sum()), float(comb)]
        found.append(row)
    return np.array(found)
