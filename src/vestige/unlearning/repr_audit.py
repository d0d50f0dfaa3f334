"""Representation-level audit: does the encoder differ from the original's where retraining would make it differ?

A forget accuracy of zero can come from the last layer alone. Next to what models say, this compares what they
represent: similarity to the retrained model, transfer to other tasks, and what a new head finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.metrics.representation import knn_probe, linear_probe
from vestige.metrics.similarity import debiased_cka, linear_cka
from vestige.metrics.unlearning import mia_efficacy
from vestige.nn.access import head

LOGIT = ("FA", "RA", "TFA", "TRA", "MIA")


def closeness(row: Mapping[str, float], reference: Mapping[str, float], metrics: Sequence[str]) -> float:
    """Π over the metrics of (1 − |row − reference|), in [0, 1]; 1 for equal rows.

    >>> closeness({"FA": 0.5, "RA": 1.0}, {"FA": 0.0, "RA": 1.0}, ("FA", "RA"))
    0.5
    """
    return float(np.prod([max(0.0, 1 - abs(row[m] - reference[m])) for m in metrics]))


def harmonic(a: float, b: float) -> float:
    """Harmonic mean, 0 when both are 0.

    >>> harmonic(1.0, 0.5)
    0.6666666666666666
    """
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def silenced(problem: ForgetProblem, value: float = -1e4) -> nn.Module:
    """The cheat that this audit is for: the original with the logits of the forgotten classes set to ``value``.

    Raises UsageError for a problem without forgotten classes.
    """
    if not problem.classes:
        raise UsageError("Only the logits of whole classes can be silenced; this problem forgets single samples.")
    model = problem.copy()
    last = head(model)
    with torch.no_grad():
        for label in problem.classes:
            last.weight[label] = 0
            last.bias[label] = value
    return model


def most_similar(
    features: np.ndarray, labels: np.ndarray, downstream: np.ndarray, count: int
) -> tuple[list[int], dict[int, float]]:
    """The Top protocol: the classes to forget so that a downstream task must suffer.

    features N×d with labels (N,) of the source, downstream M×d of the other task, all from one independent encoder.
    Returns the ``count`` classes nearest to the downstream pictures, by the mean cosine of the class centroid (features
    centred by the source's mean) to them, and that similarity for every class. Raises UsageError for a count out of
    range.

    >>> most_similar(np.eye(3), np.arange(3), np.array([[0.0, 1.0, 0.0]]), 1)[0]
    [1]
    """
    classes = np.unique(labels)
    if not 1 <= count < len(classes):
        raise UsageError(f"Of {len(classes)} classes 1 to {len(classes) - 1} can be forgotten; got {count}.")
    middle = features.mean(0)
    other = _unit(downstream - middle)
    scores = {int(c): float((other @ _unit((features[labels == c].mean(0) - middle)[None])[0]).mean()) for c in classes}
    return sorted(scores, key=lambda c: -scores[c])[:count], scores


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def halves(samples: Samples, seed: int = 0, share: float = 0.8) -> tuple[Samples, Samples]:
    """A fixed 80/20 split of a downstream set for probes."""
    order = rng(seed, "downstream").permutation(len(samples))
    cut = round(share * len(samples))
    return samples.take(order[:cut]), samples.take(order[cut:])


@dataclass
class ReprAudit:
    """Logit metrics, representation metrics and their agreement with a retrained model, for any number of models.

    FA, RA: accuracy on D_f and D_r; TFA, TRA: on test samples of forgotten and retained classes; MIA: mia_efficacy.
    Representation: CKA of the penultimate features with the retrained model's on D_f, D_r and every downstream set
    (debiased by default; the linear estimate of small sets is too high), k-NN accuracy (cosine) on downstream sets.
    AGL = Π over logit metrics of (1 − |m − m_retrained|), AGR likewise over representation metrics with 1 − CKA for the
    gap, H-LR their harmonic mean. recovery: accuracy on held-out D_f of a new linear head trained on the frozen
    features of D_f ∪ D_r; cka_original: similarity to the original on D_f.

    downstream: {name: labelled samples}, each split 80/20 with a fixed seed. Classes of a downstream set that are also
    forgotten must be declared by whoever reports the figures. most: at most so many samples for each CKA and probe.
    reference: None where there is no retrained model: a row then has what needs none, and neither CKA to it nor AGL,
    AGR and H-LR.

    Source: Are We Truly Forgetting? A Critical Re-examination of Machine Unlearning Evaluation Protocols, 2025. The
    form of the aggregate is this implementation's.
    """

    problem: ForgetProblem
    reference: nn.Module | None = field(repr=False)
    downstream: Mapping[str, Samples] = field(default_factory=dict, repr=False)
    k: int = 5
    debiased: bool = True
    most: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        p = self.problem
        if p.test is None or not p.classification:
            raise UsageError("The audit needs a classifier and test samples.")
        forget = p.train.take(p.forget_idx).sample(self.most, self.seed)
        self._sets = {"forget": forget, "retain": p.retain_sample(self.most, self.seed)}
        self._sets |= {name: s.sample(self.most, self.seed) for name, s in self.downstream.items()}
        self._originals = represent(p.model, forget)
        self._expected: dict[str, np.ndarray] = {}
        self._reference_row: dict[str, float] = {}
        if self.reference is not None:
            self._expected = {name: represent(self.reference, s) for name, s in self._sets.items()}
            self._reference_row = self._measured(self.reference)

    @property
    def representation_metrics(self) -> list[str]:
        return [f"cka_{name}" for name in self._sets] + [f"knn_{name}" for name in self.downstream]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """One row: every metric, then AGL, AGR and H-LR against the retrained model where there is one."""
        row = self._measured(model)
        if self.reference is None:
            return row
        agl = closeness(row, self._reference_row, LOGIT)
        agr = closeness(row, self._reference_row, self.representation_metrics)
        return row | {"AGL": agl, "AGR": agr, "H-LR": harmonic(agl, agr)}

    def _cka(self, x: np.ndarray, y: np.ndarray) -> float:
        if min(x.std(0).max(), y.std(0).max()) == 0:
            return 0.0  # a collapsed encoder says the same about everything
        return max(0.0, debiased_cka(x, y) if self.debiased else linear_cka(x, y))

    def _measured(self, model: nn.Module) -> dict[str, float]:
        p = self.problem
        assert p.test is not None
        said = {"F": say(model, p.train.take(p.forget_idx)), "R": say(model, p.retain), "T": say(model, p.test)}
        row = {"FA": said["F"].accuracy, "RA": said["R"].accuracy}
        row["TFA"] = said["F"].accuracy if p.test_forget is None else say(model, p.test_forget).accuracy
        row["TRA"] = said["T"].accuracy
        row["MIA"] = mia_efficacy(
            said["R"].probs, said["R"].labels, said["T"].probs, said["T"].labels, said["F"].probs, said["F"].labels,
            seed=p.seed,
        )  # fmt: skip
        features = {name: represent(model, s) for name, s in self._sets.items()}
        for name, expected in self._expected.items():
            row[f"cka_{name}"] = self._cka(features[name], expected)
        row["cka_original"] = self._cka(features["forget"], self._originals)
        for name, samples in self.downstream.items():
            fit, held = halves(samples, self.seed)
            row[f"knn_{name}"] = knn_probe(
                represent(model, fit), fit.labels.numpy(), represent(model, held), held.labels.numpy(), k=self.k
            )
        row["recovery"] = self._recovery(features)
        return row

    def _recovery(self, features: Mapping[str, np.ndarray]) -> float:
        """Accuracy on held-out D_f of a new head on frozen features: is what was forgotten still linearly there?"""
        x, y, z, t = [], [], [], []
        for name in ("forget", "retain"):
            labels = self._sets[name].labels.numpy()
            order = rng(self.seed, "recovery", name).permutation(len(labels))
            fit, held = order[: len(order) // 2], order[len(order) // 2 :]
            x.append(features[name][fit])
            y.append(labels[fit])
            if name == "forget":
                z.append(features[name][held])
                t.append(labels[held])
        return linear_probe(np.concatenate(x), np.concatenate(y), np.concatenate(z), np.concatenate(t))
