"""The audit of one erasure: what the model says, what an attacker finds, how fast it relearns, what its features hold.

Every figure stands beside that of the original and, where there is one, of a retrained model. Without a retrained model
the aim is the behaviour on pictures the model never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.core.errors import UsageError, VestigeError
from vestige.core.runtime import rng
from vestige.engines.forgetting.cost import Cost, measured
from vestige.engines.forgetting.evaluate import Said, relearning_curve, say
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import expected_cost, retrain
from vestige.metrics.unlearning import relearn_time
from vestige.unlearning.audit_attacks import (
    FEWEST,
    Candidates,
    Shadows,
    membership,
    scores,
    shadow_models,
    worst,
)  # fmt: skip
from vestige.unlearning.audit_features import features_moved, representations, restoration
from vestige.unlearning.audit_tests import Requests, Tests, requested, tests
from vestige.unlearning.audit_verdict import Verdict, decide, in_words, retraining, said_of

EFFORTS = ("brief", "quick", "full")


@dataclass(frozen=True)
class Audit:
    """rows: figures by model ("original", "unlearned", "retrained"). findings: sentences, the first the verdict.
    verdict: with the power it rests on. tests: each with effect, interval and power. requests: whether the original was
    trained on them. losses: of forgotten and unseen samples, by model.
    missing: what was not measured, why, and how to get it. relearning: the loss on forgotten samples before and after
    each epoch of training on them, by model, and the original's as "aim". worst: the forgotten samples remembered best.
    costs: "erasure" and "retraining" (measured, or expected from a few steps). chance: the AUC that attackers who know
    nothing stay below."""

    rows: dict[str, dict[str, float]]
    findings: list[str]
    verdict: Verdict
    tests: Tests = field(repr=False)
    requests: Requests
    losses: dict[str, dict[str, list[float]]] = field(repr=False)
    missing: list[str] = field(default_factory=list)
    relearning: dict[str, list[float]] = field(default_factory=dict, repr=False)
    worst: dict[str, Any] = field(default_factory=dict, repr=False)
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    chance: float = 1.0

    @property
    def suppressed(self) -> bool:
        """Whether the knowledge is hidden rather than gone."""
        return self.verdict.word == "suppressed"

    def to_dict(self, *, names: bool = False) -> dict[str, Any]:
        """For JSON and certificates; names: with those of pictures, which a certificate keeps to itself."""
        worst = dict(self.worst)
        if worst and not names:
            worst["pictures"] = [{k: v for k, v in one.items() if k != "name"} for one in worst["pictures"]]
        return {
            "verdict": self.verdict.word, "power": self.verdict.power,
            "tests": [test.to_dict() for test in self.tests.all], "requests": self.requests.to_dict(),
            "models": self.rows, "findings": self.findings, "suppressed": self.suppressed, "not measured": self.missing,
            "relearning": self.relearning, "worst case": worst, "costs": self.costs,
        }  # fmt: skip


def audit(
    unlearned: nn.Module,
    problem: ForgetProblem,
    *,
    reference: nn.Module | None = None,
    effort: str = "quick",
    shadows: int = FEWEST,
    budget: float = 600.0,
    names: Sequence[str] = (),
    costs: Mapping[str, Cost] | None = None,
    most: int = 500,
    epochs: int = 5,
    seed: int = 0,
) -> Audit:
    """Measure a model from which ``problem`` was erased.

    reference: a model retrained without the forgotten samples. effort: "quick" trains nothing from fresh weights;
    "full" also retrains the reference, if none is given, and ``shadows`` shadow models for LiRA and RMIA, each by
    ``problem.training`` and as far as ``budget`` seconds are expected to suffice; "brief" measures only what
    `distance_to_aim` needs. names: of the forgotten samples, for the list of those remembered best. costs: what the
    "erasure" took, and "retraining" where that is known; otherwise "retraining, expected" comes from a few steps.
    most: samples of each set that probes, similarities and relearning use. epochs: of relearning. What was not measured
    is listed in ``missing`` with the reason.

    Raises UsageError for an unknown effort or too few shadow models, and without test samples or labels: what is normal
    for pictures never seen cannot be said without them.
    """
    if problem.test is None or problem.train.targets is None:
        raise UsageError("The audit needs labels and test pictures that were never trained on.")
    if effort not in EFFORTS:
        raise UsageError(f"effort is {effort!r}; choose {' or '.join(EFFORTS)}.")
    if shadows < FEWEST:
        raise UsageError(f"There are {shadows} shadow models; LiRA and RMIA need at least {FEWEST}.")
    spent, missing = dict(costs or {}), list[str]()
    forget = problem.train.take(problem.forget_idx)
    candidates = Candidates(forget, _unseen(problem, forget))
    known: Shadows | None = None
    if effort != "brief" and "retraining" not in spent:
        spent["retraining, expected"] = expected_cost(problem)
    if effort == "full":
        reference, known = _compared(problem, candidates, reference, shadows, budget, spent, missing, seed)
    elif effort == "quick":
        missing += _not_compared(reference, spent)
    models = {"original": problem.copy(), "unlearned": unlearned}
    if reference is not None:
        models["retrained"] = reference
    both = {name: say(model, candidates.both) for name, model in models.items()}
    rows, worst_case = _answers(models, both, problem, candidates, known, names)
    losses = {name: _split(said, candidates) for name, said in both.items()}
    relearning = {} if effort == "brief" else _relearning(rows, models, forget, most, epochs, seed)
    _add(rows, representations(models, forget, problem, most, seed))
    if problem.classes:
        try:
            _add(rows, restoration(models, forget, problem, most, seed))
        except UsageError as error:
            missing.append(f"Sparse restoration was not run: {str(error).rstrip('.')}.")
    else:
        missing.append("Sparse restoration was not run: single pictures have no latents of their own to restore.")
    moved = features_moved(models["original"], unlearned)
    if moved is None:
        missing.append(
            "The weights were not compared: the parameters of the two models have other names or shapes. Whether only "
            "the last layer was changed is not known."
        )
    else:
        rows["unlearned"]["change of the features' weights"] = moved
    asked = requested(models["original"], both["original"], candidates, problem, most)
    found = tests(models, both, problem, candidates, known, most, seed)
    verdict = decide(found, asked, moved, rows, len(forget))
    findings = said_of(verdict, found, asked, rows, len(forget), known, worst_case, spent, missing)
    table = {name: cost.to_dict() for name, cost in spent.items()}
    return Audit(
        rows, findings, verdict, found, asked, losses, missing, relearning, worst_case, table, candidates.chance
    )


def _unseen(problem: ForgetProblem, forget: Samples) -> Samples:
    """Pictures never trained on, of the forgotten ones' classes where there are such."""
    assert problem.test is not None
    if problem.test_forget is not None:
        return problem.test_forget
    same = torch.isin(problem.test.labels, forget.labels.unique())
    return problem.test.take(same) if int(same.sum()) >= 10 else problem.test


def _not_compared(reference: nn.Module | None, spent: Mapping[str, Cost]) -> list[str]:
    """What an audit lacks that trained nothing, how long it would take, and how to get it."""
    each = retraining(spent).seconds
    how = "effort full (vestige erase --audit full)"
    if reference is not None:
        return [f"LiRA was not run: {how} trains the {FEWEST} shadow models it needs, in about "
                f"{in_words(FEWEST * each)}."]  # fmt: skip
    return [
        "No retrained model was given, so closeness to one is not known; it is the only full comparison. LiRA and RMIA "
        f"were not run for want of models to compare with. {how[0].upper()}{how[1:]} trains one of the first kind in "
        f"about {in_words(each)}, and {FEWEST} of the second in about {in_words(FEWEST * each)}."
    ]


def _compared(
    problem: ForgetProblem, candidates: Candidates, reference: nn.Module | None, shadows: int, budget: float,
    spent: dict[str, Cost], missing: list[str], seed: int,
) -> tuple[nn.Module | None, Shadows | None]:  # fmt: skip
    """The reference and the shadow models that the budget allows; adds what was spent, and what is missing."""
    each = retraining(spent).seconds
    try:
        if reference is None and each > budget:
            missing.append(
                f"No retrained model was given and none was trained: it would take about {in_words(each)}, the budget "
                f"is {in_words(budget)}. Closeness to one, the only full comparison, is not known."
            )
        elif reference is None:
            with measured() as cost:
                reference = retrain(problem)
            spent["retraining"], each, budget = cost, cost.seconds, budget - cost.seconds
            spent.pop("retraining, expected", None)
        affordable = min(shadows, int(budget / max(each, 1e-9)))
        if affordable < FEWEST:
            missing.append(
                f"LiRA was not run: {shadows} shadow models would take about {in_words(shadows * each)}, and "
                f"{in_words(max(budget, 0))} of the budget are left."
            )
            return reference, None
        known = shadow_models(problem, candidates, affordable, seed)
        if affordable < shadows:
            missing.append(f"Only {affordable} of {shadows} shadow models were trained: the budget allows no more.")
        spent["shadow models"] = known.cost
        return reference, known
    except VestigeError as error:
        missing.append(f"Networks to compare with could not be trained: {error}")
        return reference, None


def _answers(
    models: Mapping[str, nn.Module], both: Mapping[str, Said], problem: ForgetProblem, candidates: Candidates,
    known: Shadows | None, names: Sequence[str],
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:  # fmt: skip
    """Accuracies, attacks and the worst tenth by model, and which pictures that tenth holds."""
    rows: dict[str, dict[str, float]] = {}
    worst_case: dict[str, Any] = {}
    assert problem.test is not None
    for name, model in models.items():
        right = both[name].outputs.argmax(1) == both[name].labels
        row = {"forget accuracy": float(right[candidates.members].mean()),
               "retain accuracy": say(model, problem.retain).accuracy,
               "test accuracy": say(model, problem.test).accuracy}  # fmt: skip
        if problem.test_forget is not None:
            row["test accuracy, forgotten classes"] = float(right[~candidates.members].mean())
        # A reference says nothing about itself; only shadow models can attack it.
        judge = both.get("retrained") if name != "retrained" else None
        row |= membership(scores(both[name], candidates, known, judge), candidates)
        if name != "retrained" or known is not None:
            figures, found = worst(model, problem, candidates, both[name], known, judge, names)
            row |= figures
            worst_case = found if name == "unlearned" else worst_case
        rows[name] = row
    return rows, worst_case


def _split(said: Said, candidates: Candidates) -> dict[str, list[float]]:
    assert said.losses is not None
    members = candidates.members
    return {"forgotten": said.losses[members].tolist(), "never seen": said.losses[~members].tolist()}


def _relearning(
    rows: dict[str, dict[str, float]], models: Mapping[str, nn.Module], forget: Samples, most: int, epochs: int,
    seed: int,
) -> dict[str, list[float]]:  # fmt: skip
    """Epochs on the forgotten samples until their loss is the original's again; ``epochs`` + 1 where it is not."""
    some = forget.sample(most, seed)
    curves = {"aim": [target := say(models["original"], some).loss + 0.05]}
    tuning = Tuning(lr=1e-3, optimizer="adam", weight_decay=0.0, batch_size=64, freeze_bn=True, seed=seed)
    for name, model in models.items():
        if name != "original":
            curves[name] = relearning_curve(model, some, some, epochs=epochs, tuning=tuning)
            rows[name]["epochs to relearn"] = float(relearn_time(curves[name], target))
    return curves


def _add(rows: dict[str, dict[str, float]], more: Mapping[str, Mapping[str, float]]) -> None:
    for name, figures in more.items():
        rows[name] |= figures


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
