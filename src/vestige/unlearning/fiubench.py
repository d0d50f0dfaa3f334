"""FIUBench: make a vision-language model forget facts tied to faces, and see what the forgetting is worth.

The erasers of the benchmark are four losses over one loop; the measures ask for the facts with known and unknown
wordings, compare probabilities with those of a model that never saw them, and try to tell members from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.data.fictitious import LONG, WORDINGS, perturbed, question
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import fit, kl
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Batch, Samples
from vestige.metrics import answers as metric
from vestige.metrics.detection import auroc
from vestige.nn.access import outputs
from vestige.nn.vlm import Words, answers, token_log_probs

OBJECTIVES = ("ga", "gd", "kl", "po")


def answer_kl(target_logits: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """KL(original ‖ current) at the words of the answers, or of the outputs of a classifier (N×K)."""
    if logits.ndim == 3:
        counted = targets >= 0
        target_logits, logits = target_logits[counted], logits[counted]
    return kl(target_logits, logits)


@dataclass(frozen=True)
class FiuBench:
    """The benchmark's erasers and its row of figures.

    objective, with L_f and L_r the mean negative log-probability of the answers to forget and to retain: "ga" −L_f;
    "gd" −L_f + L_r; "kl" −L_f + KL(original ‖ current) on retained answers; "po" L(refusals | questions to forget)
    + L_r. refusals: for "po", the questions to forget with refusals as answers. frozen: beginnings of the names of
    parameters that stay (the vision tower). Works on every model of a `ForgetProblem`, classifiers included.

    Source: Benchmarking Vision Language Model Unlearning via Fictitious Facial Identity Dataset, ICLR 2025: 5 epochs,
    cosine rate; its AdamW with decay 0.01 and warm-up are plain Adam here. lr is the paper's for large models.

    >>> import torch
    >>> from vestige.engines.forgetting.problem import random_problem
    >>> from vestige.engines.forgetting.samples import Samples
    >>> net = nn.Linear(3, 2)
    >>> gone = FiuBench(lr=1e-2).erase(random_problem(net, Samples(torch.rand(20, 3), torch.arange(20) % 2)))
    >>> bool((gone.weight != net.weight).any())
    True
    """

    slug: ClassVar[str] = "fiubench"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    objective: str = "gd"
    lr: float = 2e-5
    epochs: int = 5
    batch_size: int = 32
    clip: float | None = 1.0
    frozen: tuple[str, ...] = ()
    refusals: Samples | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UsageError(f"objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}.")

    def erase(self, problem: ForgetProblem) -> nn.Module:
        """A model that was tuned to forget. Raises UsageError for "po" without refusals."""
        original = problem.copy()

        def loss(model: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            forget = fit(model, batch)
            if self.objective == "ga":
                return -forget
            assert beside is not None
            if self.objective == "kl":
                with torch.no_grad():
                    before = outputs(original, beside.x)
                return -forget + answer_kl(before, outputs(model, beside.x), beside.labels)
            return (forget if self.objective == "po" else -forget) + fit(model, beside)

        forget = problem.forget
        if self.objective == "po":
            if self.refusals is None:
                raise UsageError("Objective 'po' needs refusals: the questions to forget with other answers.")
            forget = self.refusals
        phase = Phase(forget, loss, None if self.objective == "ga" else problem.retain)
        tuning = problem.tuning(
            epochs=self.epochs, lr=self.lr, optimizer="adam", weight_decay=0.0, batch_size=self.batch_size,
            schedule="cosine", clip=self.clip, freeze_bn=True,
            trainable=(lambda name: not name.startswith(self.frozen)) if self.frozen else None,
        )  # fmt: skip
        return problem.tune([phase], tuning, teachers=[original] if self.objective == "kl" else ()).model

    def measure(
        self, model: nn.Module, forget: Quiz, retain: Quiz, unseen: Quiz, reference: np.ndarray | None = None
    ) -> dict[str, float]:
        """The row of a model.

        "EM", "ROUGE", "p", "truth", "APE" on the facts to forget; "log10 p" and "KS": forget quality against the truth
        ratios of the reference; "Min-K", "Min-K++": area under the curve of telling the facts to forget from facts
        about persons nobody was told of (``unseen``), 0.5 is none; "EM swapped": with the picture of another person;
        "utility": harmonic mean of ROUGE, p, truth and EM on retained facts.
        """
        gone, kept, others = (ask(model, quiz, quiz is forget) for quiz in (forget, retain, unseen))
        row = figures(gone, kept, others, forget.wanted, reference)
        row["EM swapped"] = metric.exact_match(answers(model, forget.swapped(), forget.words), forget.wanted)
        return row


def figures(
    gone: Answers, kept: Answers | None, others: Answers | None, wanted: Sequence[str],
    reference: np.ndarray | None = None,
) -> dict[str, float]:  # fmt: skip
    """The row of what a model said about facts to forget, to retain and that nobody was told; see `FiuBench.measure`.

    wanted: right answers to the first. Without retained facts there is no utility, without unseen ones no Min-K; truth
    ratios are left out where a fact has no wrong answers.
    """
    row = {"EM": gone.exact, "ROUGE": gone.rouge, "p": gone.probability}
    if len(gone.ratio):
        row["truth"] = metric.forget_truth(gone.ratio)
    if gone.variants:
        row["APE"] = metric.worst_match(gone.variants, wanted)
    if reference is not None and len(gone.ratio):
        row["log10 p"], row["KS"] = metric.forget_quality(gone.ratio, reference)
    if others is not None:
        for name, a, b in (("Min-K", gone.log_probs, others.log_probs), ("Min-K++", gone.standard, others.standard)):
            row[name] = auc(metric.min_k(a), metric.min_k(b))
    if kept is None:
        return row
    parts = {"ROUGE": kept.rouge, "p": kept.probability, "EM": kept.exact}
    if len(kept.ratio):
        parts["truth"] = metric.retain_truth(kept.ratio)
    return {**row, **{f"retain {k}": v for k, v in parts.items()}, "utility": metric.harmonic(list(parts.values()))}


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Area under the curve of members (higher) against others."""
    return auroc(np.repeat([True, False], [len(members), len(others)]), np.concatenate([members, others]))


@dataclass(frozen=True)
class Quiz:
    """Facts about persons, one picture for each: what is asked, how else, and what would be wrong.

    pictures: number of the picture of each person in the bank of the model; profiles: theirs. Every attribute of every
    person is one fact, in the order person, attribute. wrongs: how many wrong values stand beside each right one.
    """

    words: Words = field(repr=False)
    pictures: Sequence[int]
    profiles: Sequence[dict[str, str]] = field(repr=False)
    length: int = 14
    wrongs: int = 3
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.profiles) or not len(self.pictures):
            raise InputError(f"{len(self.pictures)} pictures do not fit {len(self.profiles)} profiles.")
        if not self.attributes:
            object.__setattr__(self, "attributes", tuple(self.profiles[0]))

    @property
    def wanted(self) -> list[str]:
        return [p[a] for p in self.profiles for a in self.attributes]

    def rows(
        self, wording: int = 0, said: Sequence[str] | None = None, pictures: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets under a wording, with these answers instead of the right ones where given."""
        shown = np.repeat(np.asarray(self.pictures if pictures is None else pictures), len(self.attributes))
        asked = [question(a, wording) for _ in self.profiles for a in self.attributes]
        return self.words.rows(shown.tolist(), asked, self.wanted if said is None else said, self.length)

    def swapped(self) -> Tensor:
        """The questions with the picture of the next person."""
        return self.rows(pictures=np.roll(np.asarray(self.pictures), -1).tolist())[0]

    def wrong(self) -> list[list[str]]:
        """``wrongs`` lists of wrong values, one for each fact."""
        each = [perturbed(a, p[a], self.wrongs) for p in self.profiles for a in self.attributes]
        return [list(column) for column in zip(*each, strict=True)]


@dataclass(frozen=True)
class Answers:
    """What a model said to a quiz: exact match, ROUGE-L, p, truth ratios (N,), the answers to every other wording, and
    log-probabilities of the right answers, plain and standardised."""

    exact: float
    rouge: float
    probability: float
    ratio: np.ndarray = field(repr=False)
    variants: list[list[str]] = field(repr=False)
    log_probs: list[Any] = field(repr=False)
    standard: list[Any] = field(repr=False)


def ask(model: nn.Module, quiz: Quiz, variants: bool = True) -> Answers:
    """Ask everything. The canonical wording gives match, ROUGE, p and Min-K; the other wordings are variants; the truth
    ratio is that of the longer form of right and wrong answers. variants: without them only the canonical wording."""
    x, y = quiz.rows()
    said, wanted = answers(model, x, quiz.words), quiz.wanted
    logp, standard = token_log_probs(model, x, y)

    def losses(values: list[str]) -> np.ndarray:
        rows = quiz.rows(0, [LONG.format(v) for v in values])
        return np.array([-float(v.mean()) for v in token_log_probs(model, *rows)[0]])

    return Answers(
        metric.exact_match(said, wanted),
        float(np.mean([metric.rouge_l(s, w) for s, w in zip(said, wanted, strict=True)])),
        float(np.mean([metric.normalised_probability(v.numpy()) for v in logp])),
        metric.truth_ratio(losses(wanted), np.stack([losses(v) for v in quiz.wrong()], 1)),
        [answers(model, quiz.rows(w)[0], quiz.words) for w in WORDINGS if w and variants],
        [v.numpy() for v in logp],
        [v.numpy() for v in standard],
    )
