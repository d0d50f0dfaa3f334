"""The audit of one erasure: what the model says, what an attacker finds, how fast it relearns, what its features hold.

Every figure stands beside that of the original and, where there is one, of a retrained model. Without a retrained model
the aim is the behaviour on pictures the model never saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import relearning_curve, represent, say
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.metrics.detection import auroc
from vestige.metrics.membership import entropy_score, loss_score
from vestige.metrics.representation import linear_probe
from vestige.metrics.similarity import linear_cka
from vestige.metrics.unlearning import relearn_time
from vestige.nn.access import head_name, inside

#: A change of the features' weights, relative to their size, below which only the head was edited.
UNTOUCHED = 1e-6
#: A new head that finds this share of what the original's features gave has nothing missing.
KEPT = 0.95


@dataclass(frozen=True)
class Audit:
    """rows: figures by model ("original", "unlearned", "retrained"). findings: sentences, the first the verdict.
    suppressed: whether the knowledge is hidden rather than gone. losses: of forgotten and unseen samples, by model."""

    rows: dict[str, dict[str, float]]
    findings: list[str]
    suppressed: bool
    losses: dict[str, dict[str, list[float]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON and certificates."""
        return {"models": self.rows, "findings": self.findings, "suppressed": self.suppressed}


def audit(
    unlearned: nn.Module,
    problem: ForgetProblem,
    *,
    reference: nn.Module | None = None,
    most: int = 500,
    epochs: int = 5,
    seed: int = 0,
) -> Audit:
    """Measure a model from which ``problem`` was erased.

    reference: a model retrained without the forgotten samples. most: samples of each set that probes, similarities and
    relearning use. epochs: of relearning. Raises UsageError without test samples or labels: what is normal for pictures
    never seen cannot be said without them.
    """
    if problem.test is None or problem.train.targets is None:
        raise UsageError("The audit needs labels and test pictures that were never trained on.")
    models = {"original": problem.copy(), "unlearned": unlearned}
    if reference is not None:
        models["retrained"] = reference
    forget = problem.train.take(problem.forget_idx)
    unseen = _unseen(problem, forget)
    rows: dict[str, dict[str, float]] = {}
    losses: dict[str, dict[str, list[float]]] = {}
    for name, model in models.items():
        gone, new = say(model, forget), say(model, unseen)
        row = {"forget accuracy": gone.accuracy, "retain accuracy": say(model, problem.retain).accuracy,
               "test accuracy": say(model, problem.test).accuracy}  # fmt: skip
        if problem.test_forget is not None:
            row["test accuracy, forgotten classes"] = say(model, problem.test_forget).accuracy
        assert gone.losses is not None
        assert new.losses is not None
        members = np.repeat([True, False], [len(forget), len(unseen)])
        row["membership by loss (AUC)"] = auroc(
            members, np.concatenate([loss_score(gone.losses), loss_score(new.losses)])
        )
        row["membership by entropy (AUC)"] = auroc(
            members, np.concatenate([entropy_score(gone.probs), entropy_score(new.probs)])
        )
        rows[name] = row
        losses[name] = {"forgotten": gone.losses.tolist(), "never seen": new.losses.tolist()}
    _relearning(rows, models, forget, problem, most, epochs, seed)
    _representations(rows, models, forget, problem, most, seed)
    moved = features_moved(models["original"], unlearned)
    rows["unlearned"]["change of the features' weights"] = moved
    findings, suppressed = _verdict(rows, moved, problem)
    return Audit(rows, findings, suppressed, losses)


def _unseen(problem: ForgetProblem, forget: Samples) -> Samples:
    """Pictures never trained on, of the forgotten ones' classes where there are such."""
    assert problem.test is not None
    if problem.test_forget is not None:
        return problem.test_forget
    same = torch.isin(problem.test.labels, forget.labels.unique())
    return problem.test.take(same) if int(same.sum()) >= 10 else problem.test


def _relearning(
    rows: dict[str, dict[str, float]], models: dict[str, nn.Module], forget: Samples, problem: ForgetProblem, most: int,
    epochs: int, seed: int,
) -> None:  # fmt: skip
    """Epochs on the forgotten samples until their loss is the original's again; ``epochs`` + 1 where it is not."""
    some = forget.sample(most, seed)
    target = say(models["original"], some).loss + 0.05
    tuning = Tuning(lr=1e-3, optimizer="adam", weight_decay=0.0, batch_size=64, freeze_bn=True, seed=seed)
    for name, model in models.items():
        if name == "original":
            continue
        curve = relearning_curve(model, some, some, epochs=epochs, tuning=tuning)
        rows[name]["epochs to relearn"] = float(relearn_time(curve, target))


def _representations(
    rows: dict[str, dict[str, float]], models: dict[str, nn.Module], forget: Samples, problem: ForgetProblem, most: int,
    seed: int,
) -> None:  # fmt: skip
    """Similarity of the features to the original's, and what a new head on them finds of the forgotten samples."""
    gone, kept = forget.sample(most, seed), problem.retain.sample(2 * most, seed)
    fit, held = (order := rng(seed, "probe").permutation(len(gone)))[: len(gone) // 2], order[len(gone) // 2 :]
    base = {}
    for name, model in models.items():
        inner, outer = represent(model, gone), represent(model, kept)
        if name == "original":
            base = {"forget": inner, "retain": outer}
        rows[name]["similarity of features, forgotten (CKA)"] = _cka(inner, base["forget"])
        rows[name]["similarity of features, retained (CKA)"] = _cka(outer, base["retain"])
        if len(held) and len(fit):
            rows[name]["a new head finds (accuracy)"] = linear_probe(
                np.concatenate([inner[fit], outer]), np.concatenate([gone.labels[fit], kept.labels]),
                inner[held], gone.labels[held].numpy(),
            )  # fmt: skip


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    return linear_cka(x, y) if min(x.std(0).max(), y.std(0).max()) > 0 else 0.0


def features_moved(original: nn.Module, changed: nn.Module) -> float:
    """‖θ' − θ‖ / ‖θ‖ over all weights but the head's; 0 when only the last layer was edited.

    >>> a = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> features_moved(a, a)
    0.0
    """
    last = [head_name(original)]
    before = {n: v for n, v in original.state_dict().items() if v.is_floating_point() and not inside(n, last)}
    after = changed.state_dict()
    moved = sum(float((after[n] - v).double().square().sum()) for n, v in before.items())
    size = sum(float(v.double().square().sum()) for v in before.values())
    return (moved / max(size, 1e-30)) ** 0.5


def _verdict(rows: dict[str, dict[str, float]], moved: float, problem: ForgetProblem) -> tuple[list[str], bool]:
    before, after = rows["original"], rows["unlearned"]
    gone = before["forget accuracy"] - after["forget accuracy"]
    probe = "a new head finds (accuracy)"
    # What a new head finds in a retrained model's features; without one, nearly all that it finds in the original's.
    usual = rows["retrained"][probe] + 0.1 if "retrained" in rows else KEPT * before.get(probe, 1.0)
    found = after.get(probe, 0.0) > usual
    head_only = moved < UNTOUCHED
    suppressed = gone > 0.05 and (head_only or (found and bool(problem.classes)))
    findings = []
    if gone <= 0.05:
        findings.append(
            "The model says the same about the forgotten pictures as before: by its answers it forgot nothing."
        )
    elif head_only:
        findings.append(
            "Suppressed, not deleted: only the last layer was changed, and the features are the original's."
        )
    elif suppressed:
        findings.append(
            f"Suppressed, not deleted: a new last layer on the features names {after[probe]:.0%} of the forgotten "
            f"pictures (on the original's {before[probe]:.0%})."
        )
    else:
        findings.append(
            "By every test made here the model behaves as if it had not been trained on the forgotten pictures."
        )
    attack = after["membership by loss (AUC)"]
    if attack > 0.6 and gone > 0.05 and not suppressed:
        findings[0] = "Forgetting is incomplete: an attacker still tells forgotten pictures from ones never seen."
    findings.append(
        f"Membership by loss: AUC {before['membership by loss (AUC)']:.2f} before, {attack:.2f} after; 0.50 is what "
        "pictures never seen give; far below it they were visibly treated."
    )
    lost = before["test accuracy"] - after["test accuracy"]
    findings.append(
        f"Accuracy on test pictures: {before['test accuracy']:.1%} before, {after['test accuracy']:.1%} after."
    )
    if lost > 0.02:
        findings.append(f"The rest suffered: {100 * lost:.1f} points of test accuracy were lost.")
    if "retrained" not in rows:
        findings.append(
            "No retrained model was given, so closeness to one is not known; it is the only full comparison."
        )
    return findings, suppressed


def distance_to_aim(result: Audit, problem: ForgetProblem) -> float:
    """How far an erasure is from its aim, 0 at best: accuracy on the forgotten, membership, and what the rest lost.

    The aim for a forgotten class is accuracy 0, for single samples that on test pictures; 0.5 for the membership AUC;
    no loss on retained and test pictures. Knowledge that is merely suppressed costs another half.
    """
    before, after = result.rows["original"], result.rows["unlearned"]
    aim = 0.0 if problem.classes else before["test accuracy"]
    parts = [
        abs(after["forget accuracy"] - aim),
        abs(after["membership by loss (AUC)"] - 0.5) if not problem.classes else 0.0,
        max(0.0, before["retain accuracy"] - after["retain accuracy"]),
        max(0.0, before["test accuracy"] - after["test accuracy"]),
    ]
    return float(sum(parts) + 0.5 * result.suppressed)


def halves(problem: ForgetProblem, seed: int = 0) -> tuple[ForgetProblem, ForgetProblem]:
    """The problem with one half of its test samples for choosing a method, and with the other for reporting it."""
    assert problem.test is not None
    parts: list[dict[str, Samples | None]] = [{}, {}]
    for name in ("test", "test_forget"):
        samples = getattr(problem, name)
        order = None if samples is None else rng(seed, "audit halves", name).permutation(len(samples))
        for i, part in enumerate(parts):
            part[name] = None if samples is None or order is None else samples.take(np.sort(order[i::2]))
    return replace(problem, **parts[0]), replace(problem, **parts[1])  # type: ignore[arg-type]
