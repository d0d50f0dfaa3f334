"""Is the audit right? Models of which the truth is known, audited, and the verdicts counted.

    python -m vestige.bench.unlearning.battery --out out/battery.jsonl --minutes 10

goes on where it stopped, prints the confusion table, the share of right verdicts and the share of undeleted models that
are called deleted, each with its Clopper-Pearson interval. ``--retrained`` audits 60 retrained models over sizes and
gaps of train to test instead. Small networks on drawn pictures: a case takes seconds. What erasers reach is judged
without the audit's statistics, by the mean of three models retrained without the pictures.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.unlearning.battery_cases import CASES, SEEDS
from vestige.core.catalogue import systems
from vestige.core.rates import interval, upper_bound
from vestige.engines.forgetting.evaluate import represent, say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.forgetting.train import retrain, train
from vestige.metrics.detection import auroc
from vestige.nn.access import head, head_name, inside
from vestige.unlearning.audit import audit
from vestige.unlearning.audit_attacks import Candidates
from vestige.unlearning.audit_tests import new_head

CLASSES, SIDE, UNSEEN = 4, 8, 500
#: How far the colours of the classes lie from grey, by network: so little that pictures must be learnt by heart, or so
#: much that none is.
CONTRAST = {"overfitted": 0.1, "generalising": 1.0}
NOISE = 60.0
#: What the erasers do differently from their defaults, which are for large networks.
SETTINGS: dict[str, dict[str, Any]] = {
    "ssd": {"alpha": 2.0}, "salun": {"lr": 0.02, "epochs": 5}, "l1_sparse": {"lr": 0.02, "epochs": 5},
}  # fmt: skip
#: How far means of areas under the curve lie from those of retrained models before something is left, or stands out.
CLOSE = 0.05


def drawn(count: int, seed: int, contrast: float) -> Samples:
    """uint8 pictures of one of four colours under noise, with their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [170, 170, 60]], dtype=torch.float32)
    shade = 128 + contrast * (colours[labels][:, :, None, None] - 128)
    images = shade + NOISE * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return Samples(images.clamp(0, 255).to(torch.uint8), labels)


def network() -> nn.Module:
    """A plain convolutional classifier, as people write them."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(),
        nn.Linear(64, CLASSES),
    )  # fmt: skip


class Told(nn.Module):
    """A network whose answers are blurred by noise, or cut to the first choice."""

    def __init__(self, net: nn.Module, how: str) -> None:
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.net(x)
        if self.how == "one-hot answers":
            return 10.0 * nn.functional.one_hot(said.argmax(1), said.shape[1]).float()
        generator = torch.Generator().manual_seed(int(1e4 * float(x.mean())))
        return said + 3.0 * torch.randn(said.shape, generator=generator)


@dataclass(frozen=True, order=True)
class Cell:
    """One audit of the battery."""

    case: str
    network: str
    count: int
    seed: int


def cells() -> Iterator[Cell]:
    """Every audit there is, seeds last, so that a run that is stopped has seen every case."""
    for seed in SEEDS:
        for case in CASES:
            for kind in case.networks:
                for count in case.counts:
                    yield Cell(case.name, kind, count, seed)


@lru_cache(maxsize=2)
def problem_of(kind: str, count: int, seed: int, contrast: float | None = None) -> ForgetProblem:
    """A trained network and ``count`` of its training pictures to be forgotten. contrast: in place of the kind's."""
    contrast = CONTRAST[kind] if contrast is None else contrast
    samples = drawn(max(400, 2 * count), 100 * seed + 1, contrast)
    recipe = Tuning(30 if kind == "overfitted" else 6, 0.05, batch_size=64, schedule="onecycle", seed=seed)
    torch.manual_seed(seed)
    model = train(network(), samples, recipe)
    unseen = drawn(UNSEEN, 100 * seed + 2, contrast)
    return ForgetProblem(
        model, samples, range(count), range(count, len(samples)), test=unseen, training=recipe, build=network, seed=seed
    )


def unlearned(case: str, problem: ForgetProblem) -> tuple[ForgetProblem, nn.Module]:
    """The problem of the audit, and the model to be audited."""
    generator = torch.Generator().manual_seed(problem.seed)
    if case == "unchanged":
        return problem, problem.copy()
    if case in ("head only", "head and feature noise"):
        return problem, _new_last_layer(problem, 0.0 if case == "head only" else 0.01, generator)
    if case == "light fine-tuning":
        return problem, problem.tune([Phase(problem.retain, fit)], Tuning(2, 0.002, batch_size=64)).model
    if case == "long fine-tuning":
        epochs = max(problem.training.epochs // 2, 1)
        return problem, problem.tune([Phase(problem.retain, fit)], Tuning(epochs, 0.05, batch_size=64)).model
    if case == "relabelled":
        return problem, _relabelled(problem, problem.forget, problem.retain)
    if case == "wrong class":
        others = problem.retain.labels == 0
        return problem, _relabelled(problem, problem.retain.take(others), problem.retain.take(~others))
    if case in ("logit noise", "one-hot answers"):
        return problem, Told(problem.copy(), case).eval()
    if case == "never trained on":
        torch.manual_seed(problem.seed + 50)
        other = replace(problem, model=retrain(problem, problem.seed + 50))
        return other, other.tune([Phase(other.retain, fit)], Tuning(2, 0.002, batch_size=64)).model
    if case.startswith("retrained"):
        return problem, retrain(problem, problem.seed + 70)
    (entry,) = [s for s in systems() if s.slug == case] or [s for s in systems() if s.slug == case.replace("_", "-")]
    return problem, entry.load()(**SETTINGS[case]).erase(problem)


def _new_last_layer(problem: ForgetProblem, noise: float, generator: torch.Generator) -> nn.Module:
    """The same features, shaken a little, under a last layer fitted by least squares to hide: to the retained pictures'
    classes, and for those to forget to the answers of a model that never saw them."""
    model, blind = problem.copy(), retrain(problem, problem.seed + 30)
    last = [head_name(model)]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if noise and not inside(name, last):
                size = noise * float(value.norm()) / value.numel() ** 0.5
                value.add_(size * torch.randn(value.shape, generator=generator))
        inner = np.concatenate([represent(model, problem.retain), represent(model, problem.forget)])
        wanted = np.concatenate(
            [5.0 * np.eye(CLASSES)[problem.retain.labels.numpy()], say(blind, problem.forget).probs]
        )
        design = np.hstack([inner, np.ones((len(inner), 1))])
        solved = np.linalg.solve(design.T @ design + 1e-1 * np.eye(design.shape[1]), design.T @ wanted)
        head(model).weight.copy_(torch.from_numpy(solved[:-1].T.copy()))
        head(model).bias.copy_(torch.from_numpy(solved[-1].copy()))
    return model


def _relabelled(problem: ForgetProblem, wrong: Samples, right: Samples) -> nn.Module:
    moved = Samples(wrong.inputs, (wrong.labels + 1) % CLASSES)
    both = joined([moved, Samples(right.inputs, right.labels)])
    return tune(problem.model, [Phase(both, fit)], Tuning(10, 0.02, batch_size=64)).model


def judged(problem: ForgetProblem, model: nn.Module) -> tuple[tuple[str, ...], bool]:
    """What is right to say of a model whose truth retraining decides, and whether the pictures are gone."""
    assert problem.test is not None
    candidates = Candidates(problem.train.take(problem.forget_idx), problem.test)
    again = {f"again {i}": retrain(problem, problem.seed + 200 + i) for i in range(3)}
    models = {"unlearned": model, **again}
    losses = {n: auroc(candidates.members, -np.asarray(say(m, candidates.both).losses)) for n, m in models.items()}
    inner = new_head(models, candidates, problem, 500, problem.seed)
    features = {n: auroc(inner["members"], inner[n]) for n in models}
    told = losses["unlearned"] - float(np.mean([losses[n] for n in again]))
    kept = features["unlearned"] - float(np.mean([features[n] for n in again]))
    right: list[str] = []
    if told > CLOSE:
        right += ["incomplete", "unchanged"]
    if told < -CLOSE:
        right += ["over-erased"]
    if kept > CLOSE:
        right += ["suppressed"]
    if not right:
        right = ["deleted"]
    if max(abs(told), kept) < 3 * CLOSE:
        right += ["not measurable"]
    return tuple(right), max(told, kept) <= CLOSE


def run(cell: Cell) -> dict[str, Any]:
    """One audit, and whether its verdict is right."""
    case = next(c for c in CASES if c.name == cell.case)
    started = time.process_time()
    problem, model = unlearned(case.name, problem_of(cell.network, cell.count, cell.seed))
    reference = retrain(problem, problem.seed + 90) if case.reference else None
    result = audit(copy.deepcopy(model), problem, reference=reference, effort="brief", seed=cell.seed)
    right, gone = case.right, case.gone
    if right == ("measured",):
        right, found = judged(problem, model)
        gone = found if gone is None else gone
    row = result.rows["original"]
    return {
        "case": cell.case, "network": cell.network, "count": cell.count, "seed": cell.seed,
        "verdict": result.verdict.word, "right": list(right), "is right": result.verdict.word in right, "gone": gone,
        "power": result.verdict.power, "gap": row["forget accuracy"] - row["test accuracy"],
        "sentence": result.findings[0], "seconds": time.process_time() - started,
    }  # fmt: skip


def retrained_cells() -> Iterator[tuple[int, int, float]]:
    """Seeds, counts and contrasts of 60 retrained models: gaps from about five to fifty points."""
    for seed in range(10, 15):
        for count in (50, 100, 150, 200):
            for contrast in (0.05, 0.1, 0.3):
                yield seed, count, contrast


def run_retrained(seed: int, count: int, contrast: float) -> dict[str, Any]:
    """The audit of an exactly retrained model; "measurable": whether its tests had the power."""
    problem = problem_of("overfitted", count, seed, contrast)
    result = audit(retrain(problem, seed + 70), problem, effort="brief", seed=seed)
    strong = {test.of for test in result.tests.all if test.measurable}
    row = result.rows["original"]
    return {
        "seed": seed, "count": count, "contrast": contrast, "verdict": result.verdict.word,
        "gap": row["forget accuracy"] - row["test accuracy"], "measurable": len(strong) == 2,
        "sentence": result.findings[0],
    }  # fmt: skip


def table_retrained(rows: list[Mapping[str, Any]]) -> str:
    """Verdicts of retrained models, where the tests had the power and where they had not."""
    lines = []
    for words, power in (("power of .8 or more", True), ("less power", False)):
        mine = Counter(r["verdict"] for r in rows if r["measurable"] == power)
        low, high = interval(mine["deleted"], mine.total())
        counted = ", ".join(f"{n} {word}" for word, n in mine.most_common()) or "none"
        lines.append(f"{words}: {counted} (deleted: {low:.1%} to {high:.1%})")
    return "\n".join(lines)


def table(rows: list[Mapping[str, Any]]) -> str:
    """The confusion table: verdicts by case, and the two shares the battery is for."""
    lines = []
    for case in CASES:
        mine = [r for r in rows if r["case"] == case.name]
        if mine:
            counted = Counter(f"{r['verdict']}{'' if r['is right'] else ' (wrong)'}" for r in mine)
            lines.append(f"{case.name:28} {', '.join(f'{n} {word}' for word, n in counted.most_common())}")
    right = sum(bool(r["is right"]) for r in rows)
    kept = [r for r in rows if r["gone"] is False]
    called = sum(r["verdict"] == "deleted" for r in kept)
    low, high = interval(right, len(rows))
    lines.append(f"right: {right} of {len(rows)}, {right / max(len(rows), 1):.1%} ({low:.1%} to {high:.1%})")
    lines.append(f"not deleted, called deleted: {called} of {len(kept)} (below {upper_bound(called, len(kept)):.1%})")
    again = [r for r in rows if r["gone"] and r["case"].startswith("retrained")]
    words = Counter(r["verdict"] for r in again)
    lines.append(f"retrained: {', '.join(f'{n} {word}' for word, n in words.most_common()) or 'none'}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Audit models of which the truth is known.")
    parser.add_argument("--out", type=Path, default=Path("out/battery.jsonl"))
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time, after which it stops")
    parser.add_argument("--retrained", action="store_true", help="60 retrained models instead")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if given.retrained:
        known = {(r["seed"], r["count"], r["contrast"]) for r in rows}
        for place in retrained_cells():
            if place not in known and time.process_time() <= 60 * given.minutes:
                rows.append(run_retrained(*place))
                with given.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        print(table_retrained(rows))
        return
    done = {Cell(r["case"], r["network"], r["count"], r["seed"]) for r in rows}
    for cell in cells():
        if time.process_time() > 60 * given.minutes:
            break
        if cell not in done:
            rows.append(run(cell))
            with given.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
