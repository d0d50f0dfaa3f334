"""What is to be forgotten, from which model, with which data: the one input of every eraser of knowledge."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.fisher import Output, importance
from vestige.engines.forgetting.loop import Phase, Tuned, Tuning, tune
from vestige.engines.forgetting.samples import AUGMENTATIONS, Samples
from vestige.nn.access import reinitialise

KINDS = ("class", "random", "subclass", "identity", "corrective", "range")


@dataclass(eq=False)
class ForgetProblem:
    """model: trained on ``train``, in whatever mode; never changed by anyone. train: all training samples.

    forget_idx, retain_idx: positions in ``train`` (int64 tensors once made), disjoint. kind: one of `KINDS`. known_idx:
    the part of ``forget_idx`` an eraser is shown (corrective setting; the rest stays among what it may retain). val,
    test: samples never trained on; test_forget: those of the test samples that belong to what is forgotten (a class, a
    range), test then holds the others. classes: the class numbers that are forgotten (class kinds). training: how the
    model was trained, for retraining. build: makes a fresh model of the architecture; without it a copy is drawn anew.
    augment: "none", "flip" or "crop_flip" while tuning. mask: by parameter name, 0 for weights that were pruned and
    stay zero whatever the eraser. Same seed, same problem, same numbers.

    ``forget`` and ``retain`` are what an eraser sees. Raises InputError for overlapping or empty sets.
    """

    model: nn.Module = field(repr=False)
    train: Samples = field(repr=False)
    forget_idx: Any = field(repr=False)
    retain_idx: Any = field(repr=False)
    val: Samples | None = field(default=None, repr=False)
    test: Samples | None = field(default=None, repr=False)
    test_forget: Samples | None = field(default=None, repr=False)
    known_idx: Any = field(default=None, repr=False)
    kind: str = "random"
    classes: tuple[int, ...] = ()
    training: Tuning = field(default_factory=lambda: Tuning(20, 0.1, schedule="onecycle", augment="crop_flip"))
    build: Callable[[], nn.Module] | None = field(default=None, repr=False)
    augment: str = "none"
    seed: int = 0
    mask: dict[str, Tensor] | None = field(default=None, repr=False)
    statistics: dict[tuple[Any, ...], dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}.")
        if self.augment not in AUGMENTATIONS:
            raise UsageError(f"augment is {self.augment!r}; choose one of {', '.join(AUGMENTATIONS)}.")
        self.forget_idx, self.retain_idx = _positions(self.forget_idx), _positions(self.retain_idx)
        if not len(self.forget_idx):
            raise InputError("There is nothing to forget; name at least one sample.")
        both = np.intersect1d(self.forget_idx.numpy(), self.retain_idx.numpy())
        if len(both):
            raise InputError(
                f"{len(both)} samples are both to be forgotten and to be kept (number {int(both[0])}, for one); "
                "take them out of one side."
            )
        if self.known_idx is not None:
            self.known_idx = _positions(self.known_idx)
            if not len(self.known_idx) or not np.isin(self.known_idx.numpy(), self.forget_idx.numpy()).all():
                raise InputError("known_idx must name some of the samples to forget.")
        self.train = replace(self.train, index=torch.arange(len(self.train)))

    @property
    def forget(self) -> Samples:
        """What the eraser is shown of the samples to forget, flagged as such."""
        return self.train.take(self.forget_idx if self.known_idx is None else self.known_idx).marked(True)

    @property
    def retain(self) -> Samples:
        """What it may keep on using; in the corrective setting the undetected rest is still in it."""
        kept = self.retain_idx
        if self.known_idx is not None:
            hidden = self.forget_idx[~torch.isin(self.forget_idx, self.known_idx)]
            kept = torch.cat([kept, hidden]).sort().values
        return self.train.take(kept).marked(False)

    @property
    def classification(self) -> bool:
        """Whether targets are class numbers; labels that are absent count as such."""
        return self.train.targets is None or not self.train.targets.is_floating_point()

    @property
    def n_outputs(self) -> int:
        """How many numbers the model gives for a sample."""
        if not hasattr(self, "_n_outputs"):
            from vestige.nn.access import evaluating, outputs

            with torch.no_grad(), evaluating(self.model):
                device = next(self.model.parameters()).device
                self._n_outputs = outputs(self.model, next(self.forget.batches(1, device=device)).x).flatten(1).shape[1]
        return self._n_outputs

    def retain_sample(self, n: int, seed: int | None = None) -> Samples:
        """n of the retained samples at random, for methods that are allowed only some of them."""
        return self.retain.sample(n, self.seed if seed is None else seed)

    def labels(self) -> Tensor:
        """Targets of the training set; raises InputError when there are none."""
        return self.train.labels

    def without_labels(self) -> ForgetProblem:
        """The same problem as an eraser sees it that is given no labels."""
        return replace(self, train=self.train.with_targets(None))

    def copy(self) -> nn.Module:
        """A copy of the model, in eval mode."""
        return copy.deepcopy(self.model).eval()

    def fresh(self, seed: int) -> nn.Module:
        """A model of the same architecture that was never trained; same seed, same weights."""
        if self.build is None:
            return reinitialise(self.model, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().to(next(self.model.parameters()).device)

    def tuning(self, **changes: Any) -> Tuning:
        """The loop's defaults with this problem's augmentation and seed."""
        return replace(Tuning(augment=self.augment, seed=self.seed), **changes)

    def tune(self, phases: Sequence[Phase], tuning: Tuning, start: nn.Module | None = None, **more: Any) -> Tuned:
        """`tune` from the problem's model (or ``start``), under the problem's mask and the one given."""
        mask = {**(self.mask or {})}
        for name, values in (more.pop("mask", None) or {}).items():
            mask[name] = values * mask[name] if name in mask else values
        return tune(self.model if start is None else start, phases, tuning, mask=mask, **more)

    def importance_of_all(
        self, *, per_sample: bool = True, output: Output = "loss", batch_size: int = 32, most: int | None = None
    ) -> dict[str, Tensor]:
        """`importance` of the whole training set (what is to be forgotten included), computed once and kept.

        most: from at most so many samples, drawn at random.
        """
        key = ("all", per_sample, output, batch_size, most)
        if key not in self.statistics:
            samples = self.train if most is None else self.train.sample(most, self.seed)
            self.statistics[key] = importance(
                self.model, samples, per_sample=per_sample, output=output, batch_size=batch_size
            )
        return self.statistics[key]


def _positions(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.int64).flatten()


def _rest(n: int, chosen: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(n), chosen)


def random_problem(
    model: nn.Module, train: Samples, share: float = 0.1, *, seed: int = 0, **more: Any
) -> ForgetProblem:
    """Forget a random share of the training samples. Raises UsageError for a share outside (0, 1)."""
    if not 0 < share < 1:
        raise UsageError(f"The share to forget is {share}; it must lie between 0 and 1.")
    n = len(train)
    chosen = np.sort(rng(seed, "forget").permutation(n)[: max(1, round(share * n))])
    return ForgetProblem(model, train, chosen, _rest(n, chosen), kind="random", seed=seed, **more)


def class_problem(
    model: nn.Module, train: Samples, classes: int | Sequence[int], *, test: Samples, seed: int = 0, **more: Any
) -> ForgetProblem:
    """Forget all samples of some classes; ``test`` is parted into the forgotten and the other classes.

    Raises InputError when no sample has those classes.
    """
    wanted = (classes,) if isinstance(classes, int) else tuple(classes)
    hit = np.isin(train.labels.numpy(), wanted)
    if not hit.any() or hit.all():
        raise InputError(f"Forgetting class {wanted} needs samples of it and samples of other classes.")
    gone = torch.from_numpy(np.isin(test.labels.numpy(), wanted))
    return ForgetProblem(
        model, train, np.flatnonzero(hit), np.flatnonzero(~hit), test=test.take(~gone), test_forget=test.take(gone),
        kind="class", classes=wanted, seed=seed, **more,
    )  # fmt: skip


def group_problem(
    model: nn.Module, train: Samples, groups: Any, forget: Sequence[Any], *, kind: str = "identity", seed: int = 0,
    test: Samples | None = None, test_groups: Any = None, **more: Any,
) -> ForgetProblem:  # fmt: skip
    """Forget the samples of some groups: persons (kind "identity") or parts of a class (kind "subclass").

    groups: N values, one for each training sample; forget: the values to forget. test_groups parts ``test`` likewise.
    """
    hit = np.isin(np.asarray(groups), np.asarray(forget))
    if len(hit) != len(train):
        raise InputError(f"There are {len(train)} training samples but {len(hit)} group names.")
    parts: dict[str, Any] = {"test": test}
    if test is not None and test_groups is not None:
        gone = torch.from_numpy(np.isin(np.asarray(test_groups), np.asarray(forget)))
        parts = {"test": test.take(~gone), "test_forget": test.take(gone) if gone.any() else None}
    return ForgetProblem(model, train, np.flatnonzero(hit), np.flatnonzero(~hit), kind=kind, seed=seed, **parts, **more)


def corrective_problem(
    model: nn.Module, train: Samples, manipulated: Any, known: float = 1.0, *, seed: int = 0, **more: Any
) -> ForgetProblem:
    """Forget manipulated samples of which only a share is known; ``train`` holds the manipulated pictures and labels.

    manipulated: their positions. known: share γ in (0, 1] that the eraser is shown, drawn uniformly; smaller shares
    are parts of larger ones.
    """
    if not 0 < known <= 1:
        raise UsageError(f"The known share is {known}; it must lie in (0, 1].")
    chosen = np.asarray(manipulated, np.int64)
    shown = rng(seed, "known").permutation(chosen)[: max(1, round(known * len(chosen)))]
    return ForgetProblem(
        model, train, np.sort(chosen), _rest(len(train), chosen), known_idx=np.sort(shown), kind="corrective",
        seed=seed, **more,
    )  # fmt: skip


def range_problem(
    model: nn.Module,
    train: Samples,
    low: float,
    high: float,
    *,
    test: Samples | None = None,
    seed: int = 0,
    **more: Any,
) -> ForgetProblem:
    """Forget all samples of a regression whose target lies in [low, high]; ``test`` is parted likewise."""

    def within(samples: Samples) -> Tensor:
        first = samples.labels.reshape(len(samples), -1)[:, 0]
        return (first >= low) & (first <= high)

    hit = within(train)
    if not hit.any() or hit.all():
        raise InputError(
            f"Targets from {low} to {high} hold {int(hit.sum())} of {len(train)} samples; change the range."
        )
    parts: dict[str, Any] = {"test": None, "test_forget": None}
    if test is not None:
        parts = {"test": test.take(~within(test)), "test_forget": test.take(within(test))}
    return ForgetProblem(
        model, train, hit.nonzero()[:, 0], (~hit).nonzero()[:, 0], kind="range", seed=seed, **parts, **more
    )
