"""One evaluation for every eraser: what the model says on forgotten, retained and unseen samples, and a table's row.

Always in eval mode and without augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit, task_loss
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.metrics import unlearning as metric
from vestige.nn.access import activations, evaluating, features_and_outputs, outputs


@dataclass(frozen=True)
class Said:
    """outputs: float64 N×K as the model gives them. probs: their softmax (classifiers). losses: (N,) or None without
    labels. labels: (N,) or None."""

    outputs: np.ndarray
    labels: np.ndarray | None
    losses: np.ndarray | None

    @property
    def probs(self) -> np.ndarray:
        shifted = np.exp(self.outputs - self.outputs.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    @property
    def accuracy(self) -> float:
        """Share named right; needs class labels."""
        if self.labels is None:
            raise UsageError("Accuracy needs labels.")
        return metric.accuracy(self.outputs, self.labels)

    @property
    def loss(self) -> float:
        """Mean loss (mean absolute error of a regressor); needs targets."""
        if self.losses is None:
            raise UsageError("The loss needs targets.")
        return float(self.losses.mean())


@torch.no_grad()
def say(model: nn.Module, samples: Samples, batch_size: int = 512) -> Said:
    """What the model says about every sample."""
    device = next(model.parameters()).device
    said, losses = [], []
    with evaluating(model):
        for batch in samples.batches(batch_size, device=device):
            out = outputs(model, batch.x)
            said.append(out.flatten(1).double().cpu())
            if batch.y is not None:
                losses.append(task_loss(out, batch.y, "none").double().cpu())
    labels = None if samples.targets is None else samples.targets.cpu().numpy()
    return Said(torch.cat(said).numpy(), labels, torch.cat(losses).numpy() if losses else None)


@torch.no_grad()
def represent(model: nn.Module, samples: Samples, batch_size: int = 512) -> np.ndarray:
    """The penultimate features, float64 N×width."""
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [features_and_outputs(model, b.x)[0].double().cpu() for b in samples.batches(batch_size, device=device)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def represent_layers(
    model: nn.Module, samples: Samples, names: Sequence[str], batch_size: int = 512
) -> dict[str, np.ndarray]:
    """The outputs of the named modules, feature maps averaged over space: {name: N×channels}."""
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in samples.batches(batch_size, device=device):
            for name, value in activations(model, batch.x, names).items():
                flat = value.mean((2, 3)) if value.ndim == 4 else value.mean(1) if value.ndim == 3 else value
                parts[name].append(flat.double().cpu())
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def evaluate(model: nn.Module, problem: ForgetProblem, reference: nn.Module | None = None) -> dict[str, float]:
    """The standard row of a classifier: UA, RA, TA (and TFA on test samples of forgotten classes), MIA by name.

    UA = 1 − accuracy on all that is to be forgotten; RA on the retained; TA on the test samples that remain. "MIA" is
    mia_efficacy. With the retrained reference also its gap (mean over UA, RA, TA, MIA), ToW and activation distance.
    """
    if problem.test is None:
        raise UsageError("The evaluation needs test samples.")
    forget = say(model, problem.train.take(problem.forget_idx))
    retain, test = say(model, problem.retain), say(model, problem.test)
    row = {"UA": 1 - forget.accuracy, "RA": retain.accuracy, "TA": test.accuracy}
    if problem.test_forget is not None:
        row["TFA"] = say(model, problem.test_forget).accuracy
    row["MIA"] = row["mia_efficacy"] = metric.mia_efficacy(
        retain.probs, retain.labels, test.probs, test.labels, forget.probs, forget.labels, seed=problem.seed
    )
    row["mia_privacy"] = metric.mia_privacy(retain.probs, retain.labels, test.probs, test.labels, seed=problem.seed)
    row["mia_entropy"] = metric.mia_entropy(retain.probs, test.probs, forget.probs, seed=problem.seed)
    # For a forgotten class the fair non-members are test samples of that class.
    unseen = test if problem.test_forget is None else say(model, problem.test_forget)
    row["mia_forget_vs_test"] = metric.mia_forget_vs_test(forget.losses, unseen.losses, seed=problem.seed)
    row["ZRF"] = metric.zrf(
        forget.probs, say(problem.fresh(problem.seed + 77), problem.train.take(problem.forget_idx)).probs
    )
    if reference is not None:
        expected = evaluate(reference, problem)
        row["gap"] = metric.average_gap(row, expected)
        row["ToW"] = metric.tug_of_war(row, expected)
        reference_said = say(reference, problem.train.take(problem.forget_idx))
        row["activation_distance"] = metric.activation_distance(forget.probs, reference_said.probs)
    return row


def relearning_curve(
    model: nn.Module, samples: Samples, watched: Samples, *, epochs: int = 10, tuning: Tuning | None = None
) -> list[float]:
    """Mean loss on ``watched`` before and after each epoch of training on ``samples``; see `relearn_time`."""
    from dataclasses import replace

    curve = [say(model, watched).loss]

    def note(epoch: int, student: nn.Module) -> None:
        curve.append(say(student, watched).loss)

    base = tuning or Tuning(lr=1e-3, optimizer="adam", weight_decay=0.0)
    tune(model, [Phase(samples, fit)], replace(base, epochs=epochs), after_epoch=note)
    return curve
