"""The attacks of an audit: was this picture trained on, asked in four ways, and which are remembered best.

Two of them need networks to compare with. LiRA wants shadow models, trained like the original, half of them with each
picture and half without; RMIA takes those, or one model retrained without the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.cost import Cost, measured
from vestige.engines.forgetting.evaluate import Said, say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.forgetting.train import train
from vestige.metrics.detection import auroc
from vestige.metrics.membership import (
    confidence_score,
    entropy_score,
    lira,
    loss_score,
    membership_summary,
    rmia,
    scaled_confidence,
)  # fmt: skip
from vestige.unlearning.worst_case import WorstCase

#: By the name of the attack in the figures "membership by … (AUC)".
ATTACKS = ("loss", "entropy", "LiRA", "RMIA")
#: Fewer shadow models than this leave LiRA without a spread of its own.
FEWEST = 4
#: Share of the pictures that counts as worst case.
WORST = 0.1
#: Random divisions that show what the worst case is by luck.
SHUFFLES = 200


@dataclass(frozen=True)
class Candidates:
    """The samples an attacker looks at: those to forget and others, never seen, of the same classes.

    gone: the forgotten ones. new: the others. ``both`` holds them in that order; ``members`` is true for the first.
    """

    gone: Samples = field(repr=False)
    new: Samples = field(repr=False)

    @property
    def both(self) -> Samples:
        return joined([self.gone, self.new])

    @property
    def members(self) -> np.ndarray:
        return np.repeat([True, False], [len(self.gone), len(self.new)])

    @property
    def chance(self) -> float:
        """The AUC that an attacker who knows nothing stays below in all but one of a thousand audits.

        0.5 + 3 standard deviations of the Mann-Whitney statistic of that many samples, at most 1.
        """
        m, n = len(self.gone), len(self.new)
        return min(1.0, 0.5 + 3 * math.sqrt((m + n + 1) / (12 * m * n)))


@dataclass(frozen=True)
class Shadows:
    """What shadow models say about the candidates. statistic, confidence: K×N. member: bool K×N. accuracy: mean over
    models on the candidates they never saw; it should be near the original's on such pictures. cost: of training."""

    statistic: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)
    member: np.ndarray = field(repr=False)
    accuracy: float
    cost: Cost

    def __len__(self) -> int:
        return len(self.member)


def shadow_models(problem: ForgetProblem, candidates: Candidates, count: int = FEWEST, seed: int = 0) -> Shadows:
    """Train ``count`` networks from fresh weights by the problem's recipe on the retained samples and half of the
    candidates each; in pairs, so that every candidate is in one of the two. Raises UsageError below `FEWEST` models or
    when training diverges."""
    if count < FEWEST:
        raise UsageError(f"There are {count} shadow models; LiRA and RMIA need at least {FEWEST}.")
    both = candidates.both
    plain = Samples(both.inputs, both.labels)
    retain = Samples(problem.retain.inputs, problem.retain.labels)
    member = np.zeros((count, len(both)), bool)
    statistics, confidences, right = [], [], []
    with measured() as cost:
        for number in range(count):
            order = rng(seed, "shadow", number // 2).permutation(len(both))
            member[number, order[: len(order) // 2] if number % 2 == 0 else order[len(order) // 2 :]] = True
            tuning = replace(problem.training, seed=seed + 2000 + number)
            samples = joined([retain, plain.take(member[number].nonzero()[0])])
            said = say(train(problem.fresh(seed + 2000 + number), samples, tuning), both)
            statistics.append(scaled_confidence(said.outputs, both.labels))
            confidences.append(confidence_score(said.probs, both.labels))
            right.append((said.outputs.argmax(1) == both.labels.numpy())[~member[number]].mean())
    return Shadows(np.stack(statistics), np.stack(confidences), member, float(np.mean(right)), cost)


def scores(
    said: Said, candidates: Candidates, shadows: Shadows | None = None, reference: Said | None = None
) -> dict[str, np.ndarray]:
    """Of each attack that can be made, N scores of the candidates, higher for members.

    said: what the attacked model says about ``candidates.both``. reference: the same of a model that saw none of them;
    RMIA then compares with it alone (offline) unless there are shadow models. The pictures that RMIA weighs each
    candidate against are the never seen ones; a picture never outweighs itself.
    """
    assert said.losses is not None
    assert said.labels is not None
    found = {"loss": loss_score(said.losses), "entropy": entropy_score(said.probs)}
    mine, new = confidence_score(said.probs, said.labels), ~candidates.members
    if shadows is not None:
        found["LiRA"] = lira(scaled_confidence(said.outputs, said.labels), shadows.statistic, shadows.member)
        seen = shadows.confidence
        found["RMIA"] = rmia(mine, seen, mine[new], seen[:, new], member=shadows.member)
    elif reference is not None:
        assert reference.labels is not None
        other = confidence_score(reference.probs, reference.labels)[None]
        found["RMIA"] = rmia(mine, other, mine[new], other[:, new])
    return found


def membership(found: Mapping[str, np.ndarray], candidates: Candidates) -> dict[str, float]:
    """Figures of a table from `scores`: the area under the curve and the rate of true positives at 1 % false ones."""
    row = {}
    for name, values in found.items():
        summary = membership_summary(candidates.members, values)
        row[f"membership by {name} (AUC)"] = summary["auc"]
        row[f"membership by {name} (TPR at 1 % FPR)"] = summary["tpr@1fpr"]
    return row


def worst(
    model: nn.Module, problem: ForgetProblem, candidates: Candidates, said: Said,
    shadows: Shadows | None = None, reference: Said | None = None, names: Sequence[str] = (), most: int = 10,
) -> tuple[dict[str, float], dict[str, Any]]:  # fmt: skip
    """The tenth of the forgotten samples that the model remembers best: figures for a table, and which they are.

    Remembered: log p_y of the model beyond what is usual for that picture, which models that never saw it say (shadow
    models or the reference); without such models log p_y itself, by which easy pictures come first. The same tenth of
    the never seen pictures shows how much of that is picking the largest of many: both are compared (AUC). "chance" is
    what that comparison stays below by luck: 3 standard deviations above its mean over random divisions of them all.
    """
    assert said.losses is not None
    remembered, by = -said.losses, "nothing"
    if shadows is not None:
        outside = ~shadows.member
        usual = (np.log(np.maximum(shadows.confidence, 1e-30)) * outside).sum(0) / outside.sum(0)
        remembered, by = remembered - usual, "shadow models"
    elif reference is not None and reference.losses is not None:
        remembered, by = remembered + reference.losses, "the retrained model"
    gone, new = remembered[candidates.members], remembered[~candidates.members]
    order, tail = _top(gone), _top(new)
    found = WorstCase.measure(model, problem.train, problem.forget_idx.numpy()[order])
    assert said.labels is not None
    right = (said.outputs.argmax(1) == said.labels)[~candidates.members]
    figures = {
        "worst tenth: accuracy": 1 - found["UA"],
        "worst tenth of never seen: accuracy": float(right[tail].mean()),
        "worst tenth: membership (AUC)": _tails_apart(gone, new),
        "worst tenth: copies among the others": found["duplicated"],
    }
    pictures: list[dict[str, Any]] = [{"number": int(i), "remembered": float(gone[i])} for i in order[:most]]
    for picture in pictures if names else []:
        picture["name"] = names[picture["number"]]
    shuffled = rng(0, "worst tenth")
    by_luck = []
    for _ in range(SHUFFLES):
        mixed = shuffled.permutation(remembered)
        by_luck.append(_tails_apart(mixed[: len(gone)], mixed[len(gone) :]))
    chance = min(1.0, float(np.mean(by_luck) + 3 * np.std(by_luck)))
    return figures, {"calibrated by": by, "chance": chance, "pictures": pictures}


def _top(values: np.ndarray) -> np.ndarray:
    """Where the largest tenth is, the largest first."""
    return np.argsort(-values, kind="stable")[: max(1, math.ceil(WORST * len(values)))]


def _tails_apart(gone: np.ndarray, new: np.ndarray) -> float:
    """AUC between the largest tenths of both."""
    order, tail = _top(gone), _top(new)
    members = np.repeat([True, False], [len(order), len(tail)])
    return auroc(members, np.concatenate([gone[order], new[tail]]))
