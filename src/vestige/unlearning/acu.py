"""Analytic Continual Unlearning: a linear head over frozen features that learns and forgets in closed form."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import represent
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.engines.ridge import Ridge
from vestige.nn.access import head

#: Largest share of the max |W| before a request that the column of a class without samples may still have.
LEFT = 1e-6


@dataclass(frozen=True)
class Request:
    """One served request: "learn" or "forget", the number of samples, the head's digest afterwards."""

    kind: str
    count: int
    digest: str


class AnalyticHead:
    """After any sequence of ``learn`` and ``forget``: W = (HᵀH + γI)⁻¹HᵀY over the samples that remain, Y one-hot.

    h = ReLU(φ(x) B / √d), φ the frozen backbone's features (d), B a fixed Gaussian d×width. Kept: R and W, how many
    samples each class has, and a SHA-256 of every sample held (so that none is forgotten that was not learned); no
    sample and no feature. backbone: a network whose last linear layer is its head; None when the samples' inputs are
    features already, as when whoever asks to be forgotten hands in features alone.

    Exactness covers the head: what the backbone learned before stays in the backbone, and for data it was trained on
    nothing is proven by this. ``log`` has a digest of (R, W) for each request. Raises InputError for samples that are
    not held, without labels, or not numbers; the head is then as before.

    >>> x, y = torch.rand(8, 5), torch.arange(8) % 2
    >>> learner = AnalyticHead(width=16)
    >>> learner.learn(Samples(x, y))
    >>> learner.forget(Samples(x[y == 1], y[y == 1]))
    >>> learner.classes, learner.predict(Samples(x)).unique().tolist()
    ([0], [0])
    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        *,
        width: int = 1024,
        gamma: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if width < 1:
            raise UsageError(f"width is {width}; it must be at least 1.")
        self.backbone, self.width, self.seed = backbone, width, seed
        self.ridge = Ridge(width, gamma=gamma, dtype=dtype)
        self.classes: list[int] = []
        self.log: list[Request] = []
        self._sizes: Counter[int] = Counter()
        self._held: Counter[bytes] = Counter()
        self._projection: Tensor | None = None

    def rows(self, samples: Samples) -> Tensor:
        """h of each sample: N×width."""
        if self.backbone is None:
            found = samples.inputs.flatten(1).double()
        else:
            found = torch.from_numpy(represent(self.backbone, samples)).double()
        if self._projection is None:
            generator = torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(found.shape[1], self.width, generator=generator, dtype=torch.float64)
            self._projection = drawn / found.shape[1] ** 0.5
        if found.shape[1] != len(self._projection):
            raise InputError(f"The samples have {found.shape[1]} features; this head was begun with "
                             f"{len(self._projection)}.")  # fmt: skip
        if not bool(found.isfinite().all()):
            raise InputError("Some samples have features that are not finite numbers.")
        return (found @ self._projection).relu().to(self.ridge.inverse.dtype)

    def learn(self, samples: Samples) -> None:
        """Add samples; classes never seen get a column."""
        labels, keys = _named(samples)
        rows = self.rows(samples)
        new = [c for c in dict.fromkeys(labels.tolist()) if c not in self.classes]
        self.classes += new
        self.ridge.widen(len(new))
        self.ridge.learn(rows, self._one_hot(labels))
        self._held.update(keys)
        self._sizes.update(labels.tolist())
        self._note("learn", len(labels))

    def forget(self, samples: Samples) -> None:
        """Take samples out; a class that has none left loses its column, which must be zero by then."""
        labels, keys = _named(samples)
        asked = Counter(keys)
        missing = sum((asked - self._held).values())
        if missing:
            raise InputError(
                f"{missing} of {len(keys)} samples to be forgotten were never learned, or are forgotten already."
            )
        before = self.ridge.inverse, self.ridge.weights, self.ridge.count, list(self.classes)
        left = self._sizes - Counter(labels.tolist())
        self.ridge.forget(self.rows(samples), self._one_hot(labels))
        try:
            for gone in [c for c in self.classes if not left[c]]:
                self._drop(gone, float(before[1].abs().max()))
        except InputError:
            self.ridge.inverse, self.ridge.weights, self.ridge.count, self.classes = before
            raise
        self._held -= asked
        self._sizes = left
        self._note("forget", len(labels))

    def scores(self, samples: Samples) -> Tensor:
        """N×classes, columns in the order of ``classes``."""
        return self.rows(samples) @ self.ridge.weights

    def predict(self, samples: Samples) -> Tensor:
        """The class of each sample. Raises UsageError when no class is held."""
        if not self.classes:
            raise UsageError("This head holds no class; let it learn first.")
        return torch.tensor(self.classes)[self.scores(samples).argmax(1)]

    def digest(self) -> str:
        """SHA-256 of R and W, for an audit trail."""
        state = hashlib.sha256()
        for part in (self.ridge.inverse, self.ridge.weights):
            state.update(part.contiguous().numpy().tobytes())
        return state.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """Everything it keeps but the backbone, as tensors; see `resumed`."""
        held = sorted(self._held.items())
        projection = torch.zeros(0, self.width) if self._projection is None else self._projection
        return {
            "inverse": self.ridge.inverse, "weights": self.ridge.weights, "projection": projection,
            "count": torch.tensor([self.ridge.count]), "classes": torch.tensor(self.classes, dtype=torch.int64),
            "sizes": torch.tensor([self._sizes[c] for c in self.classes], dtype=torch.int64),
            "held": torch.tensor([list(key) for key, _ in held], dtype=torch.uint8).reshape(len(held), 32),
            "times": torch.tensor([times for _, times in held], dtype=torch.int64),
        }  # fmt: skip

    @classmethod
    def resumed(cls, state: Mapping[str, Tensor], backbone: nn.Module | None, *, gamma: float) -> AnalyticHead:
        """The head whose `state` this is; raises InputError for a state that does not fit together."""
        try:
            inverse, classes = state["inverse"], state["classes"].tolist()
            head = cls(backbone, width=len(inverse), gamma=gamma, dtype=inverse.dtype)
            fits = state["weights"].shape == (len(inverse), len(classes)) and state["held"].shape[1] == 32
            if not fits or len(state["sizes"]) != len(classes) or len(state["times"]) != len(state["held"]):
                raise ValueError
            head.ridge.inverse, head.ridge.weights = inverse, state["weights"]
            head.ridge.count, head.classes = int(state["count"]), classes
            head._projection = state["projection"] if len(state["projection"]) else None
            head._sizes = Counter(dict(zip(classes, state["sizes"].tolist(), strict=True)))
            keys = (bytes(row) for row in state["held"].tolist())
            head._held = Counter(dict(zip(keys, state["times"].tolist(), strict=True)))
        except (KeyError, ValueError, IndexError, RuntimeError):
            raise InputError("The state of this analytic head does not fit together; it is damaged.") from None
        return head

    def _one_hot(self, labels: Tensor) -> Tensor:
        places = torch.tensor([self.classes.index(c) for c in labels.tolist()], dtype=torch.int64)
        return F.one_hot(places, len(self.classes)).to(self.ridge.inverse.dtype)

    def _drop(self, gone: int, largest: float) -> None:
        column = self.classes.index(gone)
        left = float(self.ridge.weights[:, column].abs().max())
        if left > LEFT * largest:
            raise InputError(f"Class {gone} has no sample left, but its column is not zero ({left:.1e}); "
                             "the head has drifted and must be solved anew.")  # fmt: skip
        self.ridge.drop(column)
        self.classes.remove(gone)

    def _note(self, kind: str, count: int) -> None:
        self.log.append(Request(kind, count, self.digest()))


def _named(samples: Samples) -> tuple[Tensor, list[bytes]]:
    """Labels, and a digest of every sample with its label."""
    if not len(samples):
        raise InputError("There is no sample in this request.")
    labels = samples.labels
    if labels.is_floating_point():
        raise InputError("An analytic head of classes needs whole numbers as labels.")
    inputs = samples.inputs.contiguous().cpu().numpy()
    return labels, [hashlib.sha256(x.tobytes() + b"/%d" % y).digest() for x, y in zip(inputs, labels.tolist())]


@dataclass(frozen=True)
class ACU:
    """R ← R + R Hᵀ(I − H R Hᵀ)⁻¹H R;  W ← W − R_new Hᵀ(Y − H W) for the samples H, Y to be forgotten.

    ``start`` gives the continual learner of the paper, an `AnalyticHead` over a frozen network. ``erase`` applies the
    same to a trained model: its last layer becomes the ridge solution over its own inputs [φ(x), 1], from which the
    forgotten samples are taken out; no expansion, so that the model keeps its form. Equal to the solution over the
    retained samples alone; what the layers before know of the forgotten ones they still know. Targets that are
    not classes are regressed on as they are.

    width: of the random expansion (the paper's line of work has 5,000 to 15,000). gamma: the ridge.

    Source: ACU: Analytic Continual Unlearning for Efficient and Exact Forgetting with Privacy Preservation, arXiv
    2505.12239, 2025.

    >>> learner = ACU(width=32).start(None)
    >>> learner.learn(Samples(torch.rand(4, 3), torch.tensor([0, 1, 2, 2])))
    >>> learner.classes
    [0, 1, 2]
    """

    slug: ClassVar[str] = "acu"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "statistics"})
    width: int = 1024
    gamma: float = 1.0
    seed: int = 0

    def start(self, backbone: nn.Module | None) -> AnalyticHead:
        """An empty head over the frozen network; None when samples are features."""
        return AnalyticHead(backbone, width=self.width, gamma=self.gamma, seed=self.seed)

    def erase(self, problem: ForgetProblem) -> nn.Module:
        labels = problem.train.labels
        if problem.classification:
            targets = F.one_hot(labels, problem.n_outputs).double().cpu()
        else:
            targets = labels.reshape(len(labels), -1).double().cpu()
        model = problem.copy()
        last = head(model)
        rows = torch.from_numpy(represent(model, problem.train))
        if last.bias is not None:
            rows = F.pad(rows, (0, 1), value=1.0)
        ridge = Ridge(rows.shape[1], targets.shape[1], gamma=self.gamma)
        ridge.learn(rows, targets)
        gone = problem.forget.batch(torch.arange(len(problem.forget))).index.cpu()
        ridge.forget(rows[gone], targets[gone])
        with torch.no_grad():
            last.weight.copy_(ridge.weights[: last.in_features].T)
            if last.bias is not None:
                last.bias.copy_(ridge.weights[-1])
        return model
