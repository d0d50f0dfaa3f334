"""The test bed that claims of the wing share: a network, what it is asked to forget, and what was made of it.

A run of the recipe ``unlearning_bed`` holds, for one seed, the original, models retrained without a class and without a
random tenth of the pictures, and the model of every eraser for both; with their rows. Here is how it is made, part by
part, and how it is read again.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.bench.methods import Method
from vestige.bench.unlearning.protocol import METRICS
from vestige.bench.unlearning.world import KINDS, Settings, posed, splits
from vestige.core.catalogue import system
from vestige.core.errors import UsageError, VestigeError
from vestige.core.files import write_atomic
from vestige.core.roles import Unlearner
from vestige.data.packs import find_data_root
from vestige.engines import parts
from vestige.engines.forgetting.cost import Cost, measured
from vestige.engines.forgetting.evaluate import evaluate, say
from vestige.engines.forgetting.loop import Phase, Tuning, tune
from vestige.engines.forgetting.losses import fit
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.recipe import RecipeContext
from vestige.engines.run_state import load_trained
from vestige.engines.runs import Run, finished
from vestige.metrics.unlearning import activation_distance, average_gap
from vestige.nn.resnet import ResNet, ResNetConfig

RECIPE = "unlearning_bed"
#: Settings of the bed, as options of its recipe; rate and batch size are those of its training settings.
OPTIONS: dict[str, Any] = {
    "source": "auto",
    "images": 6000,
    "held": 1000,
    "tested": 2000,
    "net_width": 0.25,
    "passes": 20,
}


@dataclass(frozen=True)
class BedSettings(Settings):
    """As `Settings`, with a stem that halves the picture twice (five times as quick) and a cosine schedule, whose last
    passes change little: what a curve must show before anything is judged."""

    stem: str = "imagenet"

    def build(self) -> nn.Module:
        return ResNet(ResNetConfig(18, self.stem, self.width, self.classes))

    @property
    def training(self) -> Tuning:
        return Tuning(self.epochs, self.lr, batch_size=self.batch_size, schedule="cosine", augment=self.augment)


def settings_of(options: Mapping[str, Any], lr: float, batch_size: int, stem: str = "imagenet") -> BedSettings:
    """Settings from a recipe's options. source "auto": cifar10 where its pack is, rendered scenes otherwise."""
    source = str(options["source"])
    if source == "auto":
        root = find_data_root()
        there = root is not None and (root / "cifar10" / "train.parquet").is_file()
        source = "cifar10" if there else "scenes"
    return BedSettings(
        source, int(options["images"]), int(options["held"]), int(options["tested"]), float(options["net_width"]),
        int(options["passes"]), lr, batch_size, stem=stem,
    )  # fmt: skip


def bed_settings(ctx: RecipeContext) -> BedSettings:
    """The settings of a recipe whose options hold `OPTIONS`."""
    return settings_of(ctx.options, ctx.config.lr, ctx.config.batch_size)


def fresh(settings: Settings, seed: int) -> nn.Module:
    """A network that was never trained; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return settings.build()


def taught(
    ctx: RecipeContext, name: str, model: nn.Module, samples: Samples, tuning: Tuning, val: Samples, *,
    mask: Mapping[str, torch.Tensor] | None = None, score: Callable[[nn.Module], float] | None = None,
    figure: str = "accuracy",
) -> nn.Module:  # fmt: skip
    """Train a copy of ``model`` on ``samples`` as part ``name`` of a run, with a log that is validated every epoch.

    score: the validation figure, accuracy on ``val`` unless given. Raises UsageError when training diverges.
    """

    def change(start: nn.Module) -> nn.Module:
        said: list[float] = []
        began, steps = time.perf_counter(), -(-len(samples) // tuning.batch_size)

        def note(epoch: int, student: nn.Module) -> None:
            said.append(say(student, val).accuracy if score is None else score(student))

        tuned = tune(start, [Phase(samples, fit)], tuning, mask=mask, after_epoch=note)
        if tuned.stopped:
            raise UsageError(f"Training of {name} did not converge: {tuned.stopped}; lower the rate.")
        lines = [
            {"step": (i + 1) * steps, "loss": loss, "validation": {figure: value}}
            for i, (loss, value) in enumerate(zip(tuned.losses, said, strict=True))
        ]
        lines[-1]["seconds"] = round(time.perf_counter() - began, 2)
        write_atomic(ctx.out / name / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        return tuned.model

    return _timed(ctx, name, model, change)


def _timed(ctx: RecipeContext, name: str, model: nn.Module, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """`parts.weights` with the cost of the change beside it."""

    def counted(start: nn.Module) -> nn.Module:
        with measured() as cost:
            made = change(start)
        parts.figures(ctx, f"{name}.cost", cost.to_dict)
        return made

    return parts.weights(ctx, name, copy.deepcopy(model), counted)


def cost_of(ctx: RecipeContext, name: str) -> dict[str, Any]:
    """What the part of that name took; zeros for one that was given."""
    return dict(parts.figures(ctx, f"{name}.cost", Cost().to_dict))


def retrained(ctx: RecipeContext, name: str, problem: ForgetProblem, seed: int | None = None) -> nn.Module:
    """The reference as a part: the original's recipe on the retained samples, under the problem's mask."""
    assert problem.val is not None
    seed = problem.seed + 1000 if seed is None else seed
    start = problem.fresh(seed)
    if problem.mask is not None:
        with torch.no_grad():
            for parameter_name, parameter in start.named_parameters():
                if parameter_name in problem.mask:
                    parameter.mul_(problem.mask[parameter_name])
    val = problem.val
    if problem.classes:
        val = val.take(~torch.isin(val.labels, torch.tensor(problem.classes)))
    return taught(ctx, name, start, problem.retain, replace(problem.training, seed=seed), val, mask=problem.mask)


def erased(ctx: RecipeContext, name: str, problem: ForgetProblem, eraser: Unlearner) -> nn.Module:
    """What an eraser makes of the problem's model, as a part. Statistics are made before the clock starts."""
    needs = eraser.needs
    given = problem if needs & {"labels", "training"} else problem.without_labels()
    if "statistics" in needs and hasattr(eraser, "importances"):
        eraser.importances(given)
    return _timed(ctx, name, problem.model, lambda _: eraser.erase(given))


def made(method: Method, parameters: Mapping[str, Any]) -> Unlearner:
    """The eraser with parameters, the method's own options above them."""
    chosen = {**parameters, **dict(method.options)}
    if method.slug == "sparse_unlearn" and isinstance(chosen.get("unlearner"), Mapping):
        chosen["unlearner"] = system("finetune").load()(**chosen["unlearner"])
    eraser: Unlearner = system(method.slug).load()(**chosen)
    return eraser


def row_of(
    ctx: RecipeContext, name: str, model: nn.Module, problem: ForgetProblem, reference: nn.Module
) -> dict[str, Any]:
    """The standard row of a part, kept, without its gap."""

    def compute() -> dict[str, Any]:
        row = evaluate(model, problem)
        forgotten = problem.train.take(problem.forget_idx)
        apart = activation_distance(say(model, forgotten).probs, say(reference, forgotten).probs)
        return {**row, "activation_distance": apart}

    return dict(parts.figures(ctx, f"{name}.row", compute))


def tried(
    ctx: RecipeContext, kind: str, method: Method, problem: ForgetProblem, reference: nn.Module,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """One eraser on one problem: its row, or the reason why it has none."""
    name = f"{kind}/{method.label.replace(':', ',')}"
    row: dict[str, Any] = {"problem": kind, "method": method.label, "seed": problem.seed}
    try:
        model = erased(ctx, name, problem, made(method, parameters))
        row |= row_of(ctx, name, model, problem, reference)
    except VestigeError as error:
        return row | {"error": str(error)}
    return row | {"cost": cost_of(ctx, name)}


def with_gaps(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the average gap to the retrained model of the same problem, and shares of its cost."""
    aims = {r["problem"]: r for r in rows if r["method"] == "retrain"}
    found = []
    for row in rows:
        aim = aims[row["problem"]]
        more: dict[str, Any] = {}
        if "error" not in row:
            more["gap"] = average_gap(row, aim, METRICS)
            for part, name in (("seconds", "of retraining"), ("backward", "passes of retraining")):
                whole = float((aim["cost"] or {}).get(part) or 0)
                more[name] = float(row["cost"][part] or 0) / whole if whole else 0.0
        found.append({**row, **more})
    return found


@dataclass(frozen=True, eq=False)
class Bed:
    """A finished run of the bed. problems, references: by kind. parameters: of the erasers, by slug and kind."""

    run: Run
    settings: BedSettings
    problems: dict[str, ForgetProblem] = field(repr=False)
    references: dict[str, nn.Module] = field(repr=False)
    parameters: dict[str, dict[str, dict[str, Any]]] = field(repr=False)

    def model(self, kind: str, label: str) -> nn.Module:
        """The model that an eraser made; raises InputError when it failed there."""
        path = self.run.folder / kind / f"{label.replace(':', ',')}.safetensors"
        return load_trained(path, copy.deepcopy(self.problems[kind].model))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.run.figures["rows"])


def load_bed(seed: int, root: Path | None = None, variant: str = "default") -> Bed:
    """The finished run of that seed. Raises UsageError, with the command that makes it, when there is none."""
    run = finished(RECIPE, variant, seed, root)
    if run is None:
        command = f"vestige learn {RECIPE} --variant {variant} --seed {seed}"
        raise UsageError(f"This rests on the run {RECIPE}/{variant}/{seed}; make it with '{command}'.")
    figures = run.figures
    settings = BedSettings(**figures["settings"])
    sets = splits(settings, seed, find_data_root())
    model = load_trained(run.folder / "original.safetensors", settings.build())
    problems = {kind: posed(kind, seed, settings, model, sets) for kind in KINDS}
    references = {kind: load_trained(run.folder / kind / "retrain.safetensors", settings.build()) for kind in KINDS}
    return Bed(run, settings, problems, references, figures["parameters"])
