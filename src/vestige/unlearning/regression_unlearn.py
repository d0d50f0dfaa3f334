"""Deep regression unlearning: Blindspot and Gaussian fine-tuning for models whose output is a number.

"Misclassify" means nothing for a regressor. Blindspot lets a cheap, half-trained model that never saw the forgotten
samples say what not knowing them looks like; Gaussian fine-tuning teaches random targets instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit, task_loss
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Batch, Samples, joined
from vestige.engines.forgetting.train import train
from vestige.metrics.unlearning import anamnesis_index, relearn_time
from vestige.nn.access import block_names, head_name


def attention_map(x: Tensor) -> Tensor:
    """Activations N×C×h×w -> N×hw: the mean over channels of a², flattened, unit norm. N×C or N×T×C: a² over channels.

    >>> attention_map(torch.ones(2, 3, 2, 2))[0].tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    if x.ndim == 4:
        return F.normalize(x.pow(2).mean(1).flatten(1), dim=1)
    return F.normalize((x if x.ndim == 2 else x.mean(1)).pow(2), dim=1)


def watched_layers(model: nn.Module) -> list[str]:
    """The blocks whose activations are compared, the head left out."""
    last = head_name(model)
    return [name for name in block_names(model) if last != name and not last.startswith(f"{name}.")]


@dataclass(frozen=True)
class Blindspot:
    """min c·L_f + (1 − c)·L_r from θ_o, c being the share of forgotten samples in the batch:

    L_r = mean |s(x) − y| on D_r,  L_f = mean |s(x) − b(x)| + β·Σ_layers mean (AT(s_l) − AT(b_l))² on D_f.

    b, the blindspot model: the same architecture from fresh weights, trained ``blind_epochs`` on D_r alone. AT: see
    `attention_map`, taken after each block's last ReLU. β = 0 leaves the attention term out. layers: names of modules,
    all blocks but the head by default. schedule: of the student's rate, see `Tuning`. Outputs may have any number of
    columns (a classifier's logits are met likewise, with its own loss as L_r).

    Source: Deep Regression Unlearning, ICML 2023; defaults are its AgeDB recipe (Adam 1e-3, batches of 256, one epoch).

    >>> Blindspot(beta=0).beta
    0
    """

    slug: ClassVar[str] = "regression_unlearn"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    beta: float = 50.0
    lr: float = 1e-3
    epochs: int = 1
    blind_epochs: int = 2
    blind_lr: float = 0.01
    batch_size: int = 256
    layers: Sequence[str] | None = None
    schedule: str = "constant"

    @staticmethod
    def measure(
        model: nn.Module, problem: ForgetProblem, reference: nn.Module, *, steps: tuple[int, int] | None = None
    ) -> dict[str, float]:
        """`regression_row`: how a regressor forgot, against the retrained model."""
        return regression_row(model, problem, reference, steps=steps)

    def blind(self, problem: ForgetProblem) -> nn.Module:
        """The blindspot model."""
        tuning = problem.tuning(
            lr=self.blind_lr, epochs=self.blind_epochs, optimizer="adam", weight_decay=0.0, batch_size=self.batch_size
        )
        return train(problem.fresh(problem.seed + 21), problem.retain, tuning)

    def erase(self, problem: ForgetProblem) -> nn.Module:
        blind = self.blind(problem)
        names = list(watched_layers(problem.model) if self.layers is None else self.layers)
        samples = joined([problem.forget, problem.retain])

        def loss(student: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            u = batch.forget
            said, seen = _seen(student, batch.x, names if self.beta else [])
            total = said.new_zeros(())
            share = float(u.float().mean())
            if share < 1:
                total = total + (1 - share) * task_loss(said[~u], batch.labels[~u])
            if share > 0:
                with torch.no_grad():
                    wanted, theirs = _seen(blind, batch.x[u], names if self.beta else [])
                missed = (said[u] - wanted).abs().mean()
                for name, value in seen.items():
                    missed = missed + self.beta * F.mse_loss(attention_map(value[u]), attention_map(theirs[name]))
                total = total + share * missed
            return total

        tuning = problem.tuning(
            lr=self.lr, epochs=self.epochs, optimizer="adam", weight_decay=0.0, batch_size=self.batch_size,
            schedule=self.schedule,
        )  # fmt: skip
        return problem.tune([Phase(samples, loss)], tuning, teachers=(blind,)).model


@dataclass(frozen=True)
class GaussianTargets:
    """Replace the targets of D_f by draws from N(mean(y), std(y)) of the training set; fine-tune on everything.

    After range forgetting such targets overshoot: a retrained model extrapolates to the border of the range, not to the
    mean. Raises InputError for class labels. Source: Deep Regression Unlearning, ICML 2023 (Gaussian amnesiac).
    """

    slug: ClassVar[str] = "gaussian_targets"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    lr: float = 1e-3
    epochs: int = 1
    batch_size: int = 256
    schedule: str = "constant"

    def erase(self, problem: ForgetProblem) -> nn.Module:
        y = problem.labels()
        if not y.is_floating_point():
            raise InputError("Gaussian targets are for regressors; these labels are class numbers.")
        forget = problem.forget
        generator = torch.Generator().manual_seed(problem.seed + 23)
        noise = torch.randn(forget.labels.shape, generator=generator)
        wrong = forget.with_targets(y.mean(0) + y.std(0) * noise)
        tuning = problem.tuning(
            lr=self.lr, epochs=self.epochs, optimizer="adam", weight_decay=0.0, batch_size=self.batch_size,
            schedule=self.schedule,
        )  # fmt: skip
        return problem.tune([Phase(joined([wrong, problem.retain]), fit)], tuning).model


def _seen(model: nn.Module, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and the activations of those modules, in one pass."""
    kept: dict[str, Tensor] = {}

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, args: Any, said: Any) -> None:
            kept[name] = said[0] if isinstance(said, tuple) else said

        return keep

    handles = [model.get_submodule(n).register_forward_hook(keeper(n)) for n in names]
    try:
        said = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return getattr(said, "logits", said), kept


def relearning_steps(
    model: nn.Module,
    problem: ForgetProblem,
    *,
    relearn_on: str = "train",
    most: int = 2000,
    epochs: int = 10,
    tuning: Tuning | None = None,
) -> int:
    """Epochs of training until the loss on D_f is within 5 % of the original's, ``epochs`` + 1 when it never is.

    relearn_on: "train" (all training samples, as published) or "forget", at most ``most`` of them; Adam 1e-3 unless a
    tuning is given. Raises UsageError for another ``relearn_on``.
    """
    if relearn_on not in ("train", "forget"):
        raise UsageError(f"relearn_on is {relearn_on!r}; choose train or forget.")
    forget = problem.train.take(problem.forget_idx)
    shown = (problem.train if relearn_on == "train" else forget).sample(most, problem.seed)
    target = say(problem.model, forget).loss
    curve = [say(model, forget).loss]

    def reached(epoch: int, student: nn.Module) -> bool:
        curve.append(say(student, forget).loss)
        return relearn_time(curve, target) < len(curve)

    if relearn_time(curve, target) == len(curve):
        base = tuning or Tuning(lr=1e-3, optimizer="adam", weight_decay=0.0)
        tune(model, [Phase(shown, fit)], replace(base, epochs=epochs), after_epoch=reached)
    return relearn_time(curve, target)


def updates_to_relearn(
    model: nn.Module,
    problem: ForgetProblem,
    reference: nn.Module,
    *,
    share: float = 0.95,
    most: int = 1000,
    every: int = 5,
    batch_size: int = 64,
    lr: float = 3e-4,
) -> int:
    """Updates on D_f until ``share`` of what the original knows of it beyond ``reference`` is back; ``most`` when it
    never is.

    The loss to reach is L_original + (1 − share)·(L_reference − L_original), looked at every ``every`` updates of Adam
    over at most 500 samples. Finer than `relearning_steps`, whose published margin of 5 % of the original's loss is out
    of reach of any network once the original knows its samples by heart.
    """
    forget = problem.train.take(problem.forget_idx)
    watched = forget.sample(500, problem.seed)
    known, unknown = (say(m, watched).loss for m in (problem.model, reference))
    aim = known + (1 - share) * max(0.0, unknown - known)
    if say(model, watched).loss <= aim:
        return 0
    chunk, done = every * batch_size, 0
    order = torch.cat([
        torch.randperm(len(forget), generator=torch.Generator().manual_seed(problem.seed + i))
        for i in range(-(-most * batch_size // len(forget)))
    ])  # fmt: skip
    tuning = Tuning(1, lr, optimizer="adam", weight_decay=0.0, batch_size=batch_size, seed=problem.seed, freeze_bn=True)
    epochs = -(-most // every)

    def reached(epoch: int, student: nn.Module) -> bool:
        nonlocal done
        done = (epoch + 1) * every
        return say(student, watched).loss <= aim

    phases = [
        Phase(forget.take(order[i * chunk : (i + 1) * chunk]), fit, first=i, last=i + 1)
        for i in range(epochs)
        if i * chunk < len(order)
    ]
    tuned = tune(model, phases, replace(tuning, epochs=len(phases)), after_epoch=reached)
    return min(most, done) if tuned.stopped.startswith("ended") else most


def regression_row(
    model: nn.Module, problem: ForgetProblem, reference: nn.Module, *, steps: tuple[int, int] | None = None
) -> dict[str, float]:
    """How a regressor forgot, against the retrained model.

    "MAE D_f", "MAE D_r", "MAE test" (of the targets that stay) and "MAE test_f"; "W1": Wasserstein-1 distance of the
    two models' predictions on D_f; "MIA": share of D_f that a support vector classifier (C 3, rbf) on the absolute
    error, fitted on retained against test samples, calls member; "AIN": `relearning_steps` over the retrained model's,
    from ``steps`` (of both) or measured. Raises UsageError without test samples.
    """
    if problem.test is None:
        raise UsageError("The evaluation needs test samples.")
    forget = problem.train.take(problem.forget_idx)
    said = {name: say(m, forget) for name, m in (("model", model), ("reference", reference))}
    retain, test = say(model, problem.retain), say(model, problem.test)
    row = {"MAE D_f": said["model"].loss, "MAE D_r": retain.loss, "MAE test": test.loss}
    if problem.test_forget is not None:
        row["MAE test_f"] = say(model, problem.test_forget).loss
    from scipy.stats import wasserstein_distance

    row["W1"] = float(wasserstein_distance(said["model"].outputs.ravel(), said["reference"].outputs.ravel()))
    assert retain.losses is not None
    assert test.losses is not None
    assert said["model"].losses is not None
    row["MIA"] = _called_members(retain.losses, test.losses, said["model"].losses, problem.seed)
    own, theirs = steps or (relearning_steps(model, problem), relearning_steps(reference, problem))
    row["relearn"], row["AIN"] = float(own), anamnesis_index(own, theirs)
    return row


def _called_members(members: np.ndarray, others: np.ndarray, asked: np.ndarray, seed: int) -> float:
    from sklearn.svm import SVC

    from vestige.core.runtime import rng

    n = min(len(members), len(others))
    draw = rng(seed, "regression membership")
    x = np.concatenate([draw.permutation(members)[:n], draw.permutation(others)[:n]])[:, None]
    if n < 2 or np.ptp(x) == 0:
        return 0.0
    return float(SVC(C=3, kernel="rbf", gamma="auto").fit(x, np.repeat([1, 0], n)).predict(asked[:, None]).mean())


def regression_samples(inputs: Tensor, targets: Any) -> Samples:
    """Samples with real targets (N, or N×T); raises InputError for targets that are not finite."""
    y = torch.as_tensor(np.asarray(targets), dtype=torch.float32)
    if not torch.isfinite(y).all():
        raise InputError("A regression target is not a finite number.")
    return Samples(inputs, y)
