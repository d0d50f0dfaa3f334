"""Claims of corrective unlearning on CIFAR-10: a backdoor with a 3×3 trigger, and cats confused with dogs.

The eraser sees the known share γ of what was manipulated; the rest stays among what it may retain. Its strength is
chosen without an oracle, by `selection_score` on validation pictures; the strength that an oracle would choose on half
of the test pictures is printed as an upper bound. Everything is judged on the other half.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from vestige.bench.unlearning.world import FOLDER, Settings, kept, splits
from vestige.claims import ClaimContext, Evidence, claim
from vestige.core.roles import Unlearner
from vestige.data.packs import CIFAR10
from vestige.data.poisons import backdoored, confused
from vestige.engines.forgetting.cost import measured
from vestige.engines.forgetting.problem import ForgetProblem, corrective_problem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.forgetting.train import retrain, train
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.baselines import BadTeacher, FineTune, Scrub
from vestige.unlearning.corrective import Corrective, trigger_success, triggered

SETTINGS = {
    # Full resolution, and epochs until the training pictures are known by heart: before, the trigger shares its
    # weights with everything else, and dampening them costs accuracy.
    "poison": Settings(images=10000, val=1000, test=2000, width=0.125, epochs=15, lr=0.1),
    "confusion": Settings(images=8000, val=1000, test=2000, width=0.25, epochs=12, lr=0.1),
}
STEM = {"poison": "cifar", "confusion": "imagenet"}
POISONED, CONFUSED = 500, 800
#: On the tenth of the pictures whose corner is as bright as the patch, the patch is no trigger: grey levels it must
#: change on average.
SEEN = 64.0
PAIR = CIFAR10.index("cat"), CIFAR10.index("dog")
SHARES = {"poison": (0.1, 1.0), "confusion": (0.25, 1.0)}
METHODS: dict[str, Unlearner] = {
    "CF": FineTune(lr=0.02, epochs=2),
    "SCRUB": Scrub(lr=1e-3, epochs=3, msteps=2),
    "bad teacher": BadTeacher(lr=1e-3, epochs=3),
}
#: Strengths tried: of the published grid those that change something here, finer around 1.
OURS = Corrective(alphas=(0.5, 1.0, 1.5, 2.0, 5.0), lambdas=(0.1, 0.25, 0.5, 1.0, 5.0), batch_size=16, most=4000)


def build(task: str) -> nn.Module:
    return ResNet(ResNetConfig(18, STEM[task], SETTINGS[task].width, SETTINGS[task].classes))


@cache
def manipulated(task: str, seed: int, data: Any) -> tuple[Samples, np.ndarray, Samples, Samples]:
    """Training samples with the manipulation, its positions, validation (clean) and test samples."""
    clean, val, test = splits(SETTINGS[task], seed, data)
    images, labels = clean.inputs.numpy(), clean.labels.numpy()
    if task == "poison":
        images, labels, where = backdoored(images, labels, POISONED, seed=seed)
    else:
        labels, where = confused(labels, *PAIR, CONFUSED, seed=seed)
    return Samples(torch.from_numpy(images), torch.from_numpy(labels)), where, val, test


def affected(task: str, test: Samples) -> Samples:
    """The domain the manipulation hurts, with true labels: pictures with the trigger where it can be seen, or the two
    classes."""
    if task == "poison":
        return triggered(test, least=SEEN)
    return test.take(torch.isin(test.labels, torch.tensor(PAIR)))


@cache
def problem(task: str, share: float, seed: int, data: Any) -> tuple[ForgetProblem, nn.Module]:
    """The problem at γ with the network trained on everything, and EU: retrained without the known part."""
    samples, where, val, test = manipulated(task, seed, data)
    settings, make = SETTINGS[task], partial(build, task)
    recipe: dict[str, object] = {"corrective": task, "stem": STEM[task], "settings": asdict(settings), "seed": seed}
    training = replace(settings.training, seed=seed)

    def first() -> nn.Module:
        torch.manual_seed(seed)
        return train(make(), samples, training)

    recipe |= {"count": len(where), "classes": PAIR if task == "confusion" else "all"}
    model, _ = kept(FOLDER, recipe, make, first)
    made = corrective_problem(model, samples, where, share, val=val, test=test, seed=seed, training=training,
                              build=make, augment="none")  # fmt: skip
    return made, kept(FOLDER, recipe | {"known": share}, make, lambda: retrain(made))[0]


@cache
def rows(task: str, context: ClaimContext) -> list[dict[str, Any]]:
    """Every method at every share; "Acc_corr" on the affected domain, "Acc_retain" on clean test pictures."""
    context.pack("cifar10")
    seed, table = context.seed, []
    for share in SHARES[task]:
        made, retrained = problem(task, share, seed, context.data)
        assert made.test is not None
        order = torch.arange(len(made.test))
        judged, told = made.test.take(order % 2 == 0), made.test.take(order % 2 == 1)

        def row(
            name: str, model: nn.Module, seconds: float | None = None, *,
            share: float = share, judged: Samples = judged,
        ) -> dict[str, Any]:  # fmt: skip
            hurt = affected(task, judged)
            found = Corrective.measure(model, hurt, judged)
            own = {"Acc_corr": found["corrected"], "Acc_retain": found["retained"]}
            if task == "poison":
                own["trigger success"] = trigger_success(model, hurt)
                own["on bright corners too"] = trigger_success(model, triggered(judged))
            return {"task": task, "known": share, "method": name, **own, "seconds": seconds}

        table += [row("no unlearning", made.model), row("EU (retrain)", retrained)]
        for name, method in METHODS.items():
            with measured() as cost:
                model = method.erase(made)
            table.append(row(name, model, cost.seconds))
        with measured() as cost:
            strength, model = OURS.chosen(made)
        table.append(row("SSD", model, cost.seconds) | strength)
        best = affected(task, told)
        strength, model = OURS.chosen(
            made,
            lambda m, best=best, told=told: sum(Corrective.measure(m, best, told).values()),  # type: ignore[misc]
        )
        table.append(row("SSD, oracle's strength", model) | strength)
    _, oracle = problem(task, 1.0, seed, context.data)
    return [
        {**r, "oracle retrain": Corrective.measure(oracle, affected(task, judged), judged)["corrected"]} for r in table
    ]


def _at(table: list[dict[str, Any]], share: float) -> dict[str, dict[str, Any]]:
    return {r["method"]: r for r in table if r["known"] == share}


@claim("retraining without the known 10 % leaves Acc_corr within 10 points of the un-corrected model: it is no gold "
       "standard here")  # fmt: skip
def retraining_fails(context: ClaimContext) -> Evidence:
    table = rows("poison", context)
    at = _at(table, 0.1)
    took = at["no unlearning"]["trigger success"]
    close = abs(at["EU (retrain)"]["Acc_corr"] - at["no unlearning"]["Acc_corr"]) <= 0.1
    return Evidence(
        took >= 0.95 and close, table, f"trigger success before unlearning {took:.3f} (>= 0.95 is asked for)"
    )


@claim(
    "with 10 % of a poison known, SSD lifts Acc_corr by >= 30 points over EU at <= 5 points loss on clean test pictures"
)
def dampening_cleans(context: ClaimContext) -> Evidence:
    table = rows("poison", context)
    at = _at(table, 0.1)
    lift = at["SSD"]["Acc_corr"] - at["EU (retrain)"]["Acc_corr"]
    loss = at["no unlearning"]["Acc_retain"] - at["SSD"]["Acc_retain"]
    ranking = sorted(at, key=lambda name: -at[name]["Acc_corr"])
    note = f"lift {100 * lift:.1f} points, loss {100 * loss:.1f}; by Acc_corr: {', '.join(ranking)}"
    return Evidence(lift >= 0.3 and loss <= 0.05, table, note)


@claim(
    "class confusion at a known share of 25 % is recorded for every method as the hard case; with everything known, EU "
    "recovers fully (poison: Acc_corr within 5 points of Acc_retain; confusion: >= 10 points above no unlearning)"
)
def confusion_is_hard(context: ClaimContext) -> Evidence:
    table = rows("confusion", context)
    few, every = _at(table, 0.25), _at(table, 1.0)
    solved = [n for n, r in few.items() if "oracle" not in n and r["Acc_corr"] >= r["oracle retrain"] - 0.05]
    eu, poison = every["EU (retrain)"], _at(rows("poison", context), 1.0)["EU (retrain)"]
    gained = eu["Acc_corr"] - every["no unlearning"]["Acc_corr"]
    note = (
        f"within 5 points of EU with everything known, at 25 %: {', '.join(solved) or 'no method'}; EU with everything "
        f"known: confusion +{100 * gained:.1f} points, poison {poison['Acc_corr']:.3f} of {poison['Acc_retain']:.3f}"
    )
    return Evidence(gained >= 0.1 and poison["Acc_corr"] >= poison["Acc_retain"] - 0.05, table, note)
