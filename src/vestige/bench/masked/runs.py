"""Short training runs of the masked models on CIFAR-10, each trained once and kept as a record.

A run is a method, a seed and a number of updates; its record holds what was measured afterwards, under a name made of
everything that could change it. Runs that are missing are trained, on ``jobs`` processes of one thread each; a run
that was killed goes on from its checkpoint. The variable VESTIGE_RUN_SECONDS sets the processor time of a run.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.bench.masked.measure import PROTOCOL, fine_tuned, measure
from vestige.bench.masked.systems import OPTIMISATION, SIZES, build_method, crop_scale
from vestige.bench.store import results_root
from vestige.claims import ClaimContext
from vestige.core.errors import UsageError, VestigeError
from vestige.core.files import read_json, write_json
from vestige.core.progress import track
from vestige.core.runtime import hardware, one_thread, rng, versions
from vestige.data.packs import CIFAR10, Pack, find_data_root, load_pack, split
from vestige.engines.masked.evaluate import Classifier
from vestige.engines.masked.job import masked_job
from vestige.engines.masked.model import MaskedModel
from vestige.engines.optim import make_optimizer, parameter_groups
from vestige.engines.recipe import RecipeContext
from vestige.engines.run_log import read_log
from vestige.engines.run_state import load_trained
from vestige.engines.train import TrainConfig, Trainer
from vestige.nn.vit import ViT

SCHEMA = 1


@dataclass(frozen=True)
class Protocol:
    """What all runs share. seconds: processor time of an equal-time run, on ``threads`` threads. seeds: their number.
    limit: pictures of the training part (0: all). probe_train, probe_test: labelled pictures that frozen encoders are
    judged with. labels: pictures that fine-tuning gets. rounds: of the calibration."""

    seconds: float = 120.0
    seeds: int = 3
    threads: int = 1
    limit: int = 0
    probe_train: int = 4000
    probe_test: int = 2500
    labels: int = 2000
    rounds: int = 5
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))
    optimisation: dict[str, Any] = field(default_factory=lambda: dict(OPTIMISATION))


@dataclass(frozen=True)
class Run:
    """A method by name, a seed, a number of updates (0: random weights), and with ``epochs`` fine-tuning on labels."""

    name: str
    seed: int
    steps: int
    epochs: int = 0


@dataclass(frozen=True)
class Study:
    """The protocol, the data and the folders of a set of runs. data: folder with train.parquet and test.parquet.
    records: where the results are kept. work: checkpoints and weights, which may be deleted. first_seed: of the runs.
    """

    protocol: Protocol
    data: Path
    records: Path
    work: Path
    jobs: int = 1
    first_seed: int = 0

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.protocol.seeds)

    @property
    def shared(self) -> dict[str, Any]:
        """What decides the weights of all runs alike."""
        p = self.protocol
        return {
            "schema": SCHEMA, "sizes": p.sizes, "optimisation": p.optimisation, "limit": p.limit,
            "data": digest(self.data),
        }  # fmt: skip

    def trained_by(self, run: Run) -> dict[str, Any]:
        """Everything that decides the weights of a run."""
        return {**self.shared, "name": run.name, "seed": run.seed, "steps": run.steps}

    def measured_by(self, run: Run) -> dict[str, Any]:
        """Everything that decides the record of a run."""
        p = self.protocol
        how = {"epochs": run.epochs, "labels": p.labels} if run.epochs else {"probe_train": p.probe_train, **PROTOCOL}
        return {**self.trained_by(run), **how, "probe_test": p.probe_test}

    def record(self, run: Run) -> Path:
        kind = f"-tuned{run.epochs}" if run.epochs else ""
        name = f"{run.name.replace('/', '-')}-{run.steps}{kind}-seed{run.seed}-{_hash(self.measured_by(run))}"
        return self.records / f"{name}.json"

    def folder(self, run: Run) -> Path:
        return self.work / f"{run.name.replace('/', '-')}-{run.steps}-seed{run.seed}-{_hash(self.trained_by(run))}"


def study_of(context: ClaimContext, protocol: Protocol | None = None) -> Study:
    """The study that a claim belongs to: kept under results/runs/masked, trials and other data under out.

    Raises UsageError when VESTIGE_RUN_SECONDS is no positive number; InputError without the data.
    """
    text = os.environ.get("VESTIGE_RUN_SECONDS", "")
    try:
        seconds = float(text or Protocol.seconds)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"VESTIGE_RUN_SECONDS is {text!r}; it must be a number of seconds above 0.")
    protocol = protocol or Protocol(seconds=seconds, limit=context.limit)
    data = context.pack("cifar10")
    work = results_root().parent / "out" / "masked_runs"
    kept = not context.limit and context.data == find_data_root()
    records = results_root() / "runs" / "masked" if kept else work / "trial"
    return Study(protocol, data, records, work, context.jobs, context.seed)


@cache
def digest(folder: Path) -> str:
    """Of the files of a data pack."""
    state = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()[:16]


@cache
def training_pack(folder: Path, limit: int) -> Pack:
    """The training part, as `named_pack` cuts it."""
    pack = load_pack(folder / "train.parquet", limit=limit or None, class_names=CIFAR10)
    return pack.take(split(pack.names, {"train": 0.9, "val": 0.1})["train"])


@cache
def test_pack(folder: Path, count: int) -> Pack:
    return load_pack(folder / "test.parquet", limit=count, class_names=CIFAR10)


def _labelled(study: Study, count: int) -> Pack:
    """Training pictures whose labels are used: the same for every run."""
    pack = training_pack(study.data, study.protocol.limit)
    return pack.take(rng(0, "labelled pictures").permutation(len(pack))[:count])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def ensure(study: Study, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The records of ``runs``, in order; those that are missing are made first."""
    # fine-tuning starts from weights that another of the runs may be training at this moment
    for stage in (False, True):
        missing = [r for r in dict.fromkeys(runs) if bool(r.epochs) is stage and not study.record(r).is_file()]
        if study.jobs > 1 and len(missing) > 1:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(study.jobs, len(missing)), context, one_thread) as pool:
                list(track(pool.map(partial(_make_elsewhere, study), missing), "training", len(missing)))
        else:
            for run in track(missing, "training"):
                make(study, run)
    return [read_json(study.record(run)) for run in runs]


def _make_elsewhere(study: Study, run: Run) -> None:
    try:
        make(study, run)
    except VestigeError as error:  # those with arguments of their own cannot travel between processes
        raise VestigeError(f"{run.name}, seed {run.seed}: {error}") from None


def make(study: Study, run: Run) -> None:
    """Train, measure and record one run."""
    p = study.protocol
    with thread_limit(p.threads):
        model, training = train(study, run)
        labelled, test = (
            _labelled(study, p.labels if run.epochs else p.probe_train),
            test_pack(study.data, p.probe_test),
        )
        start = time.process_time()
        if run.epochs:
            found = fine_tuned(model, labelled, test, epochs=run.epochs, seed=run.seed, scratch=not run.steps)
        else:
            found = measure(model, run.name, labelled, test)
        spent = round(time.process_time() - start, 1)
    record = {
        **asdict(run), **training, **found, "measuring_seconds": spent, "settings": study.measured_by(run),
        "versions": versions("vestige", "torch"), "hardware": hardware(),
    }  # fmt: skip
    write_json(study.record(run), record)


@contextmanager
def thread_limit(count: int) -> Iterator[None]:
    """Torch computes on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ProcessorClock:
    """Processor time spent in updates, over all sessions of a run."""

    def __init__(self) -> None:
        self.seconds, self._since = 0.0, 0.0

    def start(self) -> None:
        self._since = time.process_time()

    def stop(self) -> None:
        self.seconds += time.process_time() - self._since

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds = state["seconds"]


def fresh(study: Study, run: Run) -> MaskedModel:
    """The model of a run before its first update."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng(run.seed, "first weights", run.name).integers(2**62)))
        return build_method(run.name, study.protocol.sizes)


def _config(study: Study, run: Run) -> TrainConfig:
    steps = max(1, run.steps)
    return TrainConfig(steps=steps, seed=run.seed, log_every=10, checkpoint_every=50, **study.protocol.optimisation)


def train(study: Study, run: Run) -> tuple[MaskedModel, dict[str, Any]]:
    """The trained model and what its training took; goes on from a checkpoint, or loads a finished run's weights."""
    model, folder = fresh(study, run), study.folder(run)
    if not run.steps:
        return model.eval(), {"images": 0, "processor_seconds": 0.0, "final_loss": None}
    finished = folder / "trained.json"
    if not finished.is_file():
        config = _config(study, run)
        pack = training_pack(study.data, study.protocol.limit)
        clock = ProcessorClock()
        job = masked_job(_context(study, run, config), model, pack, pack, scale=(crop_scale(run.name), 1.0))

        def batches(number: int, generator: torch.Generator) -> Any:
            clock.start()
            return job.batches(number, generator)

        def on_step(done: int, module: nn.Module) -> None:
            assert job.on_step is not None
            job.on_step(done, module)
            clock.stop()

        Trainer(
            model, job.step, batches, config, out=folder, on_step=on_step, extra={"clock": clock}, device="cpu",
            quiet=True, about={"run": run.name},
        ).run()  # fmt: skip
        losses = [line["loss"] for line in read_log(folder)]
        taken = {
            "images": run.steps * min(config.batch_size, len(pack)), "processor_seconds": round(clock.seconds, 2),
            "final_loss": statistics.fmean(losses[-max(1, len(losses) // 10) :]),
        }  # fmt: skip
        write_json(finished, taken)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    load_trained(folder, model)
    return model, read_json(finished)


def _context(study: Study, run: Run, config: TrainConfig) -> RecipeContext:
    return RecipeContext(study.data.parent, torch.device("cpu"), run.seed, config, study.work, {}, quiet=True)


CALIBRATED = ("mae", "color_mae", "droppos", "mp3", "lut", "dmjd", "dmjd/one_view")


def calibration_file(study: Study) -> Path:
    return study.records / f"calibration-{_hash({**study.shared, 'threads': study.protocol.threads})}.json"


def calibration(study: Study) -> dict[str, dict[str, float]]:
    """{method: {"seconds": of processor time for an update, "tokens", "tokens_without_gradient": that go through an
    encoder in it}}, and "fine_tune"; measured once, in turns, and kept beside the records."""
    p, path = study.protocol, calibration_file(study)
    if not path.is_file():
        with thread_limit(p.threads):
            steps = {name: Stepper(study, name) for name in CALIBRATED}
            found = {name: stepper.tokens() for name, stepper in steps.items()}
            times = interleaved({**steps, "fine_tune": TuningStep(study)}, p.rounds)
        for name, seconds in times.items():
            found.setdefault(name, {})["seconds"] = seconds
        write_json(
            path, {"methods": found, "settings": study.shared, "versions": versions("torch"), "hardware": hardware()}
        )
    return read_json(path)["methods"]


def interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median processor time of each action, all in turns, after one unmeasured turn."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            start = time.process_time()
            action()
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


class Stepper:
    """One update of a method after another, just as a run does it; calling it does the next."""

    def __init__(self, study: Study, name: str, pack: Pack | None = None) -> None:
        run = Run(name, 0, 1000)
        config = _config(study, run)
        pack = pack if pack is not None else training_pack(study.data, study.protocol.limit)
        self.model = fresh(study, run).train()
        self.job = masked_job(_context(study, run, config), self.model, pack, pack, scale=(crop_scale(name), 1.0))
        self.optimizer = make_optimizer(parameter_groups(self.model, config.weight_decay), lr=1e-4)
        self.clip, self.done, self.generator = config.clip, 0, torch.Generator().manual_seed(0)

    def __call__(self) -> None:
        batch = self.job.batches(self.done, self.generator)
        self.job.step(self.model, batch, self.generator)["loss"].backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        assert self.job.on_step is not None
        self.job.on_step(self.done, self.model)

    def tokens(self) -> dict[str, float]:
        """Tokens that go through an encoder in one update, with and without gradient."""
        counted = {True: 0, False: 0}

        def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            counted[torch.is_grad_enabled()] += given[0].shape[0] * given[0].shape[1]

        encoders = [m for m in self.model.modules() if isinstance(m, ViT) and len(m.blocks)]
        hooks = [encoder.blocks[0].register_forward_pre_hook(count) for encoder in encoders]
        self()
        for hook in hooks:
            hook.remove()
        return {"tokens": counted[True], "tokens_without_gradient": counted[False]}


class TuningStep:
    """One update of fine-tuning: every patch, forward and backward."""

    def __init__(self, study: Study) -> None:
        encoder = fresh(study, Run("mae", 0, 0)).encoder
        self.model = Classifier(encoder, len(CIFAR10)).train()
        self.optimizer = make_optimizer(self.model.parameters(), lr=1e-4)
        side, count = encoder.config.image_size, study.protocol.optimisation["batch_size"]
        self.images = torch.from_numpy(np.zeros((count, 3, side, side), np.float32))

    def __call__(self) -> None:
        self.model(self.images).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
