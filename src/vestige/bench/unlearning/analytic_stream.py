"""A stream of requests to learn and to forget, served by an analytic head, by joint solutions and by gradient methods.

The backbone learned CIFAR-10's first five classes and is frozen; the other five come, and parts of all ten go. Samples
are the backbone's features, computed once for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError
from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import ascend, fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.ridge import Ridge, solve
from vestige.unlearning.acu import ACU, AnalyticHead
from vestige.unlearning.ssd import SSD

BASE, CLASSES = 5, 10
GAMMAS = (0.01, 0.1, 1.0, 10.0, 100.0)
#: Each gradient method is shown at the rate that suits it best.
RATES = (0.0001, 0.001, 0.01)
#: Classes arrive and go whole, so that what should be known at every point is clear.
PLAN = (
    ("learn", 5), ("forget", 0), ("learn", 6), ("forget", 5), ("learn", 7), ("forget", 2), ("learn", 8), ("learn", 9),
    ("forget", 7), ("forget", 4),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stream:
    """learned, test: samples as features. width: of the random expansion. gamma: the ridge."""

    learned: Samples = field(repr=False)
    test: Samples = field(repr=False)
    width: int
    gamma: float
    seed: int = 0

    def head(self, dtype: torch.dtype = torch.float64) -> AnalyticHead:
        """An empty head."""
        return AnalyticHead(width=self.width, gamma=self.gamma, seed=self.seed, dtype=dtype)


def best_gamma(learned: Samples, val: Samples, width: int, seed: int) -> float:
    """The ridge that is best on validation samples of the first classes."""
    base, seen = (s.take(s.labels < BASE) for s in (learned, val))
    base = base.take(range(min(3000, len(base))))
    scores = []
    for gamma in GAMMAS:
        head = ACU(width, gamma, seed).start(None)
        head.learn(base)
        scores.append(float((head.predict(seen) == seen.labels).double().mean()))
    return GAMMAS[int(np.argmax(scores))]


def requests(labels: np.ndarray, count: int, seed: int, least: int = 1500) -> list[tuple[str, Tensor]]:
    """A random sequence: rows of the first classes to begin with, then parts of what waits and of what is held.

    A quarter of the forgetting takes all that is held of a class; what was forgotten may be learned again. least: rows
    below which nothing is forgotten.
    """
    g = rng(seed, "acu", "sequence")
    held = np.flatnonzero(labels < BASE)[: 4 * least // 3]
    waiting = g.permutation(np.setdiff1d(np.arange(len(labels)), held))
    made = [("learn", torch.from_numpy(held))]
    while len(made) < count:
        size = int(g.integers(max(2, least // 75), max(4, 2 * least // 5)))
        if len(waiting) > size and (len(held) < least or g.random() < 0.5):
            chosen, waiting = waiting[:size], waiting[size:]
            held = np.concatenate([held, chosen])
            made.append(("learn", torch.from_numpy(chosen)))
            continue
        chosen = g.permutation(held)[:size]
        if g.random() < 0.25:
            chosen = held[labels[held] == g.choice(np.unique(labels[held]))]
        held, waiting = np.setdiff1d(held, chosen), np.concatenate([waiting, chosen])
        made.append(("forget", torch.from_numpy(chosen)))
    return made


def served(stream: Stream, count: int, least: int = 1500) -> list[dict[str, Any]]:
    """Every fifth request's difference from the joint solution, in float64 and float32, and differing predictions."""
    held, table = torch.zeros(0, dtype=torch.int64), []
    heads = {"float64": stream.head(), "float32": stream.head(torch.float32)}
    alive = set(heads)
    for number, (kind, chosen) in enumerate(requests(stream.learned.labels.numpy(), count, stream.seed, least), 1):
        held = torch.cat([held, chosen]) if kind == "learn" else held[~torch.isin(held, chosen)]
        for name in sorted(alive):
            try:
                getattr(heads[name], kind)(stream.learned.take(chosen))
            except (InputError, RuntimeError):
                if name == "float64":
                    raise
                alive.discard(name)  # float32 has drifted so far that it refuses a request
        if number % 5:
            continue
        exact = heads["float64"]
        w = joint(stream, exact, held)
        said, expected = exact.scores(stream.test), exact.rows(stream.test) @ w
        row: dict[str, Any] = {"request": number, "rows": len(held), "classes": len(exact.classes)}
        for name, head in heads.items():
            off = float((head.ridge.weights.double() - w).abs().max() / w.abs().max()) if name in alive else None
            row[f"difference {name}"] = off
        row["float32"] = "serves" if "float32" in alive else "has refused a request"
        row["other predictions"] = int((said.argmax(1) != expected.argmax(1)).sum())
        row["predictions"] = len(stream.test)
        table.append(row)
    return table


def joint(stream: Stream, head: AnalyticHead, held: Tensor) -> Tensor:
    """W solved from scratch on the rows that remain, columns in the head's order."""
    samples = stream.learned.take(held)
    places = torch.tensor([head.classes.index(c) for c in samples.labels.tolist()])
    return solve(head.rows(samples).double(), F.one_hot(places, len(head.classes)).double(), stream.gamma)


def costs(
    backbone: nn.Module, pictures: Samples, width: int, gamma: float, seed: int, rows: int = 500
) -> list[dict[str, Any]]:
    """Processor seconds of a request and of solving anew from raw pictures."""
    head = ACU(width, gamma, seed).start(backbone)
    for chosen in torch.arange(len(pictures)).split(2000):
        head.learn(pictures.take(chosen))
    asked = torch.arange(0, len(pictures), max(1, len(pictures) // rows))[:rows]
    rest = torch.arange(len(pictures))
    rest = rest[~torch.isin(rest, asked)]
    classes = int(pictures.labels.max()) + 1
    seconds: dict[str, float] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        start = time.process_time()
        act()
        seconds[name] = time.process_time() - start

    def anew() -> None:
        kept = pictures.take(rest)
        solve(head.rows(kept), F.one_hot(kept.labels, classes).double(), gamma)

    timed("solving anew", anew)
    timed("forgetting pictures", lambda: head.forget(pictures.take(asked)))
    timed("learning pictures", lambda: head.learn(pictures.take(asked)))
    features = head.rows(pictures.take(asked))
    places = torch.tensor([head.classes.index(c) for c in pictures.labels[asked].tolist()])
    targets = F.one_hot(places, len(head.classes)).double()
    timed("forgetting rows of features", lambda: head.ridge.forget(features, targets))
    return [
        {
            "what": name, "rows": len(rest) if name == "solving anew" else len(asked),
            "processor seconds": round(value, 4), "times less": round(seconds["solving anew"] / max(value, 1e-9), 1),
        }
        for name, value in seconds.items()
    ]  # fmt: skip


def compared(stream: Stream, each: int = 500) -> list[dict[str, Any]]:
    """Retained accuracy after `PLAN`: the joint solution, the analytic head, learning alone, and gradient methods, each
    at the best of `RATES` (chosen on the same test samples: the favour is theirs)."""
    labels = stream.learned.labels
    rows = {c: (labels == c).nonzero()[:each, 0] for c in range(CLASSES)}
    base = torch.cat([rows[c] for c in range(BASE)])
    head = ACU(stream.width, stream.gamma, stream.seed).start(None)
    expanded, watched = (replace(s, inputs=head.rows(s).float()) for s in (stream.learned, stream.test))
    plan = [(kind, c) for kind, c in PLAN if len(rows[c])]
    present = sorted(_present(plan))

    def accuracy(said: Tensor) -> float:
        known = torch.isin(stream.test.labels, torch.tensor(present))
        masked = said.clone()
        masked[:, [c for c in range(said.shape[1]) if c not in present]] = -torch.inf
        return float((masked.argmax(1) == stream.test.labels)[known].double().mean())

    def solved(chosen: Tensor) -> Tensor:
        return solve(expanded.inputs[chosen].double(), F.one_hot(labels[chosen], CLASSES).double(), stream.gamma)

    def analytic(forgets: bool) -> float:
        ridge = Ridge(stream.width, CLASSES, gamma=stream.gamma)
        for kind, chosen in [("learn", base), *((k, rows[c]) for k, c in plan)]:
            if kind == "learn" or forgets:
                getattr(ridge, kind)(expanded.inputs[chosen].double(), F.one_hot(labels[chosen], CLASSES).double())
        return accuracy(watched.inputs.double() @ ridge.weights)

    start = nn.Linear(stream.width, CLASSES)
    with torch.no_grad():
        start.weight.copy_(10 * solved(base).T)  # ridge scores lie in [0, 1]; as logits they are spread out
        start.bias.zero_()

    def by_gradient(name: str, rate: float) -> float:
        model: nn.Module = start
        seen = {c: rows[c] for c in range(BASE)}
        tuning = Tuning(3, rate, weight_decay=0.0, batch_size=64, seed=stream.seed)
        for kind, c in plan:
            asked = expanded.take(rows[c])
            if kind == "learn":
                model = tune(model, [Phase(asked, fit)], tuning).model
                seen[c] = rows[c]
            elif name != "FT":
                model = forgotten(name, model, asked, joined([expanded.take(s) for s in seen.values()]), tuning)
                del seen[c]
        return accuracy(torch.from_numpy(say(model, watched).outputs))

    found = {"joint solution": accuracy(watched.inputs.double() @ solved(torch.cat([rows[c] for c in present])))}
    found |= {"ACU": analytic(True), "learning only (naive)": analytic(False)}
    kept = stream.test.labels[torch.isin(stream.test.labels, torch.tensor(present))]
    found["one class for all"] = float(kept.bincount().max() / len(kept))
    found |= {name: max(by_gradient(name, rate) for rate in RATES) for name in ("FT", "GA", "RL", "SSD")}
    return [{"method": name, "retained accuracy": value} for name, value in found.items()]


def _present(plan: Sequence[tuple[str, int]]) -> set[int]:
    known = set(range(BASE))
    for kind, c in plan:
        known = known | {c} if kind == "learn" else known - {c}
    return known


def forgotten(name: str, model: nn.Module, asked: Samples, seen: Samples, tuning: Tuning) -> nn.Module:
    """What that method makes of the head when a class must go; SSD alone has importances of all that was seen."""
    if name == "GA":
        return tune(model, [Phase(asked, ascend)], replace(tuning, epochs=1, clip=1.0)).model
    if name == "RL":
        draw = torch.Generator().manual_seed(tuning.seed)
        wrong = (asked.labels + torch.randint(1, CLASSES, (len(asked),), generator=draw)) % CLASSES
        return tune(model, [Phase(asked.with_targets(wrong), fit)], tuning).model
    gone = seen.labels == asked.labels[0]
    problem = ForgetProblem(model, seen, gone.nonzero()[:, 0], (~gone).nonzero()[:, 0], kind="class", seed=tuning.seed)
    return SSD().erase(problem)
