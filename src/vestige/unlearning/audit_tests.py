"""The named tests of an audit, from what the models say and from their features.

Pictures to forget are compared with pictures never seen; a model that was not trained on either treats both alike. The
answers are asked by accuracy, loss, entropy and, with models to compare with, LiRA and RMIA; the features by a new last
layer that learns from retained pictures alone and then has to know the forgotten ones no better than new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import Said, represent, say
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import joined
from vestige.unlearning.audit_attacks import Candidates, Shadows, scores
from vestige.unlearning.audit_stats import Test, by_scores, by_share, fell, stand_out

#: Level at which single pictures are called remembered, and requests not trained on.
PICTURES, UNTRAINED = 0.01, 0.05
NEW_HEAD = "a new head tells them from new pictures"
CLASS_NAMED, CLASS_FOUND = "the answers name the class", "a new head names the class"


@dataclass(frozen=True)
class Requests:
    """Whether the original was trained on the requests. members: AUC against pictures never seen; usual: the same of
    retained pictures. unlike: positions that do not look trained on. none: whether the requests as a whole do not.
    """

    members: float
    usual: float
    unlike: tuple[int, ...] = ()
    none: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "original (AUC)": self.members,
            "retained (AUC)": self.usual,
            "do not look trained on": len(self.unlike),
            "none were trained on": self.none,
        }


@dataclass(frozen=True)
class Tests:
    """all: of the audit. fell: whether the answers about the forgotten pictures clearly changed towards forgetting.
    same: whether all answers are the original's. remembered: pictures that stand out as still remembered."""

    __test__ = False

    all: tuple[Test, ...]
    fell: bool
    same: bool
    remembered: tuple[int, ...] = ()
    missing: tuple[str, ...] = field(default=())


def requested(model: nn.Module, said: Said, candidates: Candidates, problem: ForgetProblem, most: int) -> Requests:
    """Look in the original for signs that it was trained on the requests."""
    assert said.losses is not None
    assert problem.test is not None
    kept = say(model, problem.retain.sample(2 * most, 0)).losses
    gone, new = said.losses[candidates.members], said.losses[~candidates.members]
    # Of a forgotten class the new pictures are of that class, and the retained ones of others: to each its own.
    others = new if problem.test_forget is None else say(model, problem.test).losses
    assert kept is not None
    assert others is not None
    asked, usual = _auc(gone, new), _auc(kept, others)
    shown = usual.left and usual.measurable
    unlike = np.zeros(len(gone), bool)
    if shown and not problem.classes:
        # A picture that is answered worse than nearly all retained ones, and no better than a new one usually is.
        unlike = stand_out(gone, kept, UNTRAINED) & (gone >= np.quantile(new, 0.25))
    none = shown and asked.high < usual.effect / 2
    return Requests(asked.effect + 0.5, usual.effect + 0.5, tuple(np.flatnonzero(unlike).tolist()), bool(none))


def _auc(gone: np.ndarray, new: np.ndarray) -> Test:
    members = np.repeat([True, False], [len(gone), len(new)])
    values = -np.concatenate([gone, new])
    return by_scores("loss", "answers", members, values, values, 1)


def tests(
    models: Mapping[str, nn.Module], both: Mapping[str, Said], problem: ForgetProblem, candidates: Candidates,
    shadows: Shadows | None, most: int, seed: int,
) -> Tests:  # fmt: skip
    """Every test that can be made of the unlearned model."""
    members, again = candidates.members, both.get("retrained")
    missing: list[str] = []
    values = {name: _values(said, candidates, shadows, again) for name, said in both.items()}
    found = {name: {k: v for k, v in one.items() if k in values["unlearned"]} for name, one in values.items()}
    alike = not problem.classes or problem.test_forget is not None
    if not alike and again is None:
        missing.append(
            "Membership was not tested: there are no new pictures of the forgotten class, and pictures of other "
            "classes are no measure. Give some in --test."
        )
    names = list(found["unlearned"]) if alike or again is not None else []
    heads = new_head(models, candidates, problem, most, seed) if alike else {}
    if alike and not heads:
        missing.append("The features were not tested: too few pictures for a new last layer.")
    count = len(names) + bool(heads) + (2 if problem.classes else 0)
    result: list[Test] = []
    for name in names:
        # LiRA and RMIA are calibrated picture by picture already; the reference would be taken off twice.
        own = None if again is None or name in ("LiRA", "RMIA") else found["retrained"].get(name)
        result.append(
            by_scores(
                f"membership by {name}",
                "answers",
                members,
                found["unlearned"][name],
                found["original"][name],
                count,
                own,
            )
        )
    if heads:
        result.append(
            by_scores(
                NEW_HEAD,
                "features",
                heads["members"],
                heads["unlearned"],
                heads["original"],
                count,
                heads.get("retrained"),
            )
        )
    if problem.classes:
        result += _classes(models, both, problem, candidates, count, most, seed)
    went_down = [n for n in names if n != "entropy" and fell(members, found["unlearned"][n], found["original"][n])]
    named = next((t for t in result if t.name == CLASS_NAMED), None)
    same = bool(np.allclose(both["original"].outputs, both["unlearned"].outputs, rtol=0, atol=1e-6))
    remembered: tuple[int, ...] = ()
    if alike:
        log = -_losses(both["unlearned"]) + (0 if again is None else _losses(again))
        remembered = tuple(np.flatnonzero(stand_out(log[members], log[~members], PICTURES)).tolist())
    down = bool(went_down) or (named is not None and named.effect < 0.9 * named.before)
    return Tests(tuple(result), down, same, remembered, tuple(missing))


def _losses(said: Said) -> np.ndarray:
    assert said.losses is not None
    return said.losses


def _values(said: Said, candidates: Candidates, shadows: Shadows | None, again: Said | None) -> dict[str, np.ndarray]:
    judge = None if again is None or said is again else again
    right = (said.outputs.argmax(1) == said.labels).astype(float)
    return {"accuracy": right, **scores(said, candidates, shadows, judge)}


def new_head(
    models: Mapping[str, nn.Module], candidates: Candidates, problem: ForgetProblem, most: int, seed: int
) -> dict[str, np.ndarray]:
    """By model, log p of the right class that a new last layer gives to forgotten and new pictures; which is which as
    "members". It learns from retained pictures, and of a forgotten class from half of the pictures to forget, which
    are not asked afterwards."""
    gone, new = candidates.gone.sample(most, seed), candidates.new.sample(most, seed)
    teach = problem.retain.sample(2 * most, seed)
    if problem.classes:
        order = rng(seed, "new head").permutation(len(gone))
        taught, gone = gone.take(np.sort(order[: len(gone) // 2])), gone.take(np.sort(order[len(gone) // 2 :]))
        teach = joined([teach, taught])
    known = np.unique(teach.labels.numpy())
    gone, new = (one.take(np.flatnonzero(np.isin(one.labels.numpy(), known))) for one in (gone, new))
    if min(len(gone), len(new)) < 3 or len(known) < 2:
        return {}
    asked = joined([gone, new])
    labels = asked.labels.numpy()
    result = {"members": np.repeat([True, False], [len(gone), len(new)])}
    for name, model in models.items():
        result[name] = _taught(represent(model, teach), teach.labels.numpy(), represent(model, asked), labels)
    return result


def _taught(x: np.ndarray, y: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x, y)
    said = head.predict_log_proba(asked)
    return np.asarray(said[np.arange(len(asked)), np.searchsorted(head.classes_, labels)])


def _classes(
    models: Mapping[str, nn.Module], both: Mapping[str, Said], problem: ForgetProblem, candidates: Candidates,
    count: int, most: int, seed: int,
) -> list[Test]:  # fmt: skip
    """What the answers, and with a reference also the features, still know of a forgotten class."""
    gone = np.isin(candidates.both.labels.numpy(), problem.classes)
    right = {name: (said.outputs.argmax(1) == said.labels)[gone] for name, said in both.items()}
    result = [by_share(CLASS_NAMED, "answers", right["unlearned"], right["original"], count, right.get("retrained"))]
    if "retrained" not in models:
        return result
    some = candidates.gone.sample(most, seed)
    kept = problem.retain.sample(2 * most, seed)
    order = rng(seed, "probe").permutation(len(some))
    fit, held = some.take(order[: len(some) // 2]), some.take(order[len(some) // 2 :])
    if len(fit) < 2 or not len(held):
        return result
    found = {name: _names(model, fit, kept, held) for name, model in models.items()}
    result.append(
        by_share(CLASS_FOUND, "features", found["unlearned"], found["original"], count, found["retrained"], least=0.2)
    )
    return result


def _names(model: nn.Module, fit: Any, kept: Any, held: Any) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    teach = joined([fit, kept])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    head.fit(represent(model, teach), teach.labels.numpy())
    return np.asarray(head.predict(represent(model, held)) == held.labels.numpy())
