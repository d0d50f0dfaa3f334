"""The standard erasers of knowledge: each states its losses, the shared loop does the rest.

Every class takes a `ForgetProblem` and returns a new model; ``needs`` tells what else it uses. Rates are those of the
papers for full-size networks; small ones want larger steps (see `vestige.bench.unlearning.protocol`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.fisher import mean_gradient
from vestige.engines.forgetting.loop import Phase
from vestige.engines.forgetting.losses import ascend, fit, kl
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Batch, Samples, joined
from vestige.engines.forgetting.train import retrain
from vestige.nn.access import inside, last_blocks, outputs, reinitialise


@dataclass(frozen=True)
class Retrain:
    """The reference: the recipe of the original on D_r alone, from other initial weights."""

    slug: ClassVar[str] = "retrain"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "training"})
    seed: int | None = None

    def erase(self, problem: ForgetProblem) -> nn.Module:
        return retrain(problem, self.seed)


@dataclass(frozen=True)
class FineTune:
    """min CE(D_r) from θ_o and hope that D_f is forgotten on the way; clip: the largest norm of the gradient."""

    slug: ClassVar[str] = "finetune"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    lr: float = 0.01
    epochs: int = 10

    def erase(self, problem: ForgetProblem) -> nn.Module:
        return problem.tune([Phase(problem.retain, fit)], problem.tuning(lr=self.lr, epochs=self.epochs)).model


@dataclass(frozen=True)
class CFk:
    """Catastrophic forgetting of the last k blocks: fine-tune them on D_r, the others stay. Source: Goel et al.,
    Towards Adversarial Evaluations for Inexact Machine Unlearning, 2022."""

    slug: ClassVar[str] = "cfk"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    k: int = 3
    lr: float = 0.01
    epochs: int = 10

    def erase(self, problem: ForgetProblem) -> nn.Module:
        names = last_blocks(problem.model, self.k)
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, trainable=lambda name: inside(name, names))
        return problem.tune([Phase(problem.retain, fit)], tuning).model


@dataclass(frozen=True)
class EUk:
    """Exact unlearning of the last k blocks: draw them anew and train them on D_r, the others stay. Source as `CFk`."""

    slug: ClassVar[str] = "euk"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    k: int = 3
    lr: float = 0.05
    epochs: int = 10

    def erase(self, problem: ForgetProblem) -> nn.Module:
        names = last_blocks(problem.model, self.k)
        start = reinitialise(problem.model, problem.seed + 3, names)
        if problem.mask is not None:
            with torch.no_grad():
                for name, parameter in start.named_parameters():
                    if name in problem.mask:
                        parameter.mul_(problem.mask[name])
        tuning = problem.tuning(
            lr=self.lr, epochs=self.epochs, schedule="onecycle", trainable=lambda name: inside(name, names)
        )
        return problem.tune([Phase(problem.retain, fit)], tuning, start).model


def other_labels(labels: Tensor, classes: int, seed: int, true_allowed: bool = False) -> Tensor:
    """A random class for each label, another one than its own unless that is allowed.

    >>> bool((other_labels(torch.zeros(50, dtype=torch.int64), 3, 0) > 0).all())
    True
    """
    if classes < 2:
        raise UsageError("Random labels need at least two classes.")
    generator = torch.Generator().manual_seed(seed)
    if true_allowed:
        return torch.randint(classes, labels.shape, generator=generator)
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def relabelled(problem: ForgetProblem, true_allowed: bool = False) -> Samples:
    """The samples to forget under random labels."""
    forget = problem.forget
    return forget.with_targets(other_labels(forget.labels, problem.n_outputs, problem.seed + 11, true_allowed))


@dataclass(frozen=True)
class RandomLabels:
    """min CE on D_r mixed with D_f under random labels, drawn once and never the true ones unless ``true_allowed``.

    retain: without it D_f alone is relabelled. Source: Amnesiac Machine Learning, AAAI 2021.
    """

    slug: ClassVar[str] = "random_labels"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "classes"})
    lr: float = 0.01
    epochs: int = 10
    true_allowed: bool = False
    retain: bool = True

    def erase(self, problem: ForgetProblem) -> nn.Module:
        wrong = relabelled(problem, self.true_allowed)
        samples = joined([wrong, problem.retain]) if self.retain else wrong
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, freeze_bn=not self.retain)
        return problem.tune([Phase(samples, fit)], tuning).model


@dataclass(frozen=True)
class GradAscent:
    """max CE(D_f), running statistics frozen; ends when the loss is not finite or, with labels of D_r at hand, when
    the accuracy on 500 retained samples falls below ``collapse``."""

    slug: ClassVar[str] = "grad_ascent"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    lr: float = 1e-4
    epochs: int = 5
    collapse: float = 0.0

    def erase(self, problem: ForgetProblem) -> nn.Module:
        from vestige.engines.forgetting.evaluate import say

        watched = problem.retain_sample(500) if self.collapse else None

        def collapsed(epoch: int, student: nn.Module) -> bool:
            return watched is not None and say(student, watched).accuracy < self.collapse

        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, freeze_bn=True)
        return problem.tune([Phase(problem.forget, ascend)], tuning, after_epoch=collapsed).model


@dataclass(frozen=True)
class NegGradPlus:
    """min a·CE(D_r) − (1 − a)·CE(D_f), a batch of each a step, norms clipped. Source: SCRUB, NeurIPS 2023."""

    slug: ClassVar[str] = "neggrad_plus"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    weight: float = 0.95
    lr: float = 0.01
    epochs: int = 5
    clip: float = 1.0

    def erase(self, problem: ForgetProblem) -> nn.Module:
        def loss(model: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            assert beside is not None
            return self.weight * fit(model, batch) - (1 - self.weight) * fit(model, beside)

        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, clip=self.clip, freeze_bn=True)
        return problem.tune([Phase(problem.retain, loss, beside=problem.forget)], tuning).model


@dataclass(frozen=True)
class BadTeacher:
    """min KL(target ‖ student): the target is a random network's output on D_f, the original's on a share of D_r.

    Needs no labels. Source: Can Bad Teaching Induce Forgetting?, AAAI 2023.
    """

    slug: ClassVar[str] = "bad_teacher"
    needs: ClassVar[frozenset[str]] = frozenset({"retain", "classes"})
    lr: float = 1e-4
    epochs: int = 5
    share: float = 0.3
    temperature: float = 1.0

    def erase(self, problem: ForgetProblem) -> nn.Module:
        good, bad = problem.copy(), problem.fresh(problem.seed + 5)
        kept = problem.retain
        samples = joined([problem.forget, kept.sample(max(1, round(self.share * len(kept))), problem.seed)])

        def loss(student: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            with torch.no_grad():
                target = torch.where(batch.forget[:, None], outputs(bad, batch.x), outputs(good, batch.x))
            return kl(target, outputs(student, batch.x), self.temperature)

        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, optimizer="adam", weight_decay=0.0)
        return problem.tune([Phase(samples, loss)], tuning, teachers=(good, bad)).model


@dataclass(frozen=True)
class Unsir:
    """Learn noise that maximises the loss of the classes in D_f, impair with it, repair on retained samples.

    noise: so many tensors, shared by the classes: max CE(model(n), c) − 0.1·mean‖n‖², Adam 0.1, 25 steps; then one
    epoch at 0.02 on noise labelled c and a retained subset, one at 0.01 on the subset. Never looks at the pictures of
    D_f. Source: Fast Yet Effective Machine Unlearning, TNNLS 2023.
    """

    slug: ClassVar[str] = "unsir"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "classes"})
    impair_lr: float = 0.02
    repair_lr: float = 0.01
    steps: int = 25
    noise: int = 256
    retain_samples: int = 2000

    def erase(self, problem: ForgetProblem) -> nn.Module:
        kept = problem.retain_sample(self.retain_samples)
        pixels = kept.inputs.float() / 255 if kept.inputs.dtype == torch.uint8 else kept.inputs
        kept = Samples(pixels, kept.labels)
        classes = problem.forget.labels.unique().tolist()
        each = max(1, self.noise // len(classes))
        noise = joined([self._noise(problem, int(c), each) for c in classes])
        impaired = problem.tune(
            [Phase(joined([noise, kept]), fit)], problem.tuning(lr=self.impair_lr, epochs=1, augment="none")
        ).model
        return problem.tune([Phase(kept, fit)], problem.tuning(lr=self.repair_lr, epochs=1), impaired).model

    def _noise(self, problem: ForgetProblem, label: int, count: int) -> Samples:
        device = next(problem.model.parameters()).device
        generator = torch.Generator().manual_seed(problem.seed + label)
        shape = problem.train.inputs.shape[1:]
        noise = torch.randn(count, *shape, generator=generator).to(device).requires_grad_()
        labels = torch.full((count,), label, device=device)
        optimizer = torch.optim.Adam([noise], lr=0.1)
        model = problem.copy()
        for _ in range(self.steps):
            loss = (
                -nn.functional.cross_entropy(outputs(model, noise), labels)
                + 0.1 * noise.flatten(1).pow(2).sum(1).mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        inputs = noise.detach().to(problem.train.inputs.device)
        return Samples(inputs, labels.to(inputs.device))


@dataclass(frozen=True)
class BoundaryShrink:
    """Label every x in D_f with the nearest wrong class, argmax_{k≠y} of f(x + b·sign ∇_x CE), and fine-tune on that.

    Needs no retained data. Source: Boundary Unlearning, CVPR 2023.
    """

    slug: ClassVar[str] = "boundary_shrink"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "classes"})
    bound: float = 0.1
    lr: float = 1e-4
    epochs: int = 10

    def erase(self, problem: ForgetProblem) -> nn.Module:
        forget, model = problem.forget, problem.copy()
        wrong = []
        for batch in forget.batches(256, device=next(model.parameters()).device):
            x = batch.x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(outputs(model, x), batch.labels), x)
            with torch.no_grad():
                said = outputs(model, x + self.bound * slope.sign())
                wrong.append(said.scatter(1, batch.labels[:, None], -torch.inf).argmax(1))
        nearest = forget.with_targets(torch.cat(wrong).to(forget.inputs.device))
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, freeze_bn=True)
        return problem.tune([Phase(nearest, fit)], tuning).model


def saliency_mask(problem: ForgetProblem, share: float) -> dict[str, Tensor]:
    """1 for the ``share`` of all weights with the largest |Σ_{D_f} ∇CE| at θ_o, 0 for the others."""
    if not 0 < share <= 1:
        raise UsageError(f"The share of weights is {share}; it must lie in (0, 1].")
    slopes = {name: g.abs() for name, g in mean_gradient(problem.model, problem.forget).items()}
    every = torch.cat([s.flatten() for s in slopes.values()])
    threshold = every.kthvalue(max(1, round((1 - share) * len(every)))).values if share < 1 else every.min() - 1
    return {name: (s > threshold).to(s.dtype) for name, s in slopes.items()}


@dataclass(frozen=True)
class SalUn:
    """Random labels, but only the weights most salient for D_f move; the others are put back after every step.

    Source: SalUn, ICLR 2024.
    """

    slug: ClassVar[str] = "salun"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "classes"})
    share: float = 0.5
    lr: float = 0.01
    epochs: int = 10

    def erase(self, problem: ForgetProblem) -> nn.Module:
        samples = joined([relabelled(problem), problem.retain])
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs)
        return problem.tune([Phase(samples, fit)], tuning, mask=saliency_mask(problem, self.share)).model


@dataclass(frozen=True)
class Scrub:
    """Disobey the teacher θ_o on D_f, obey it on D_r: epochs of max KL(θ_o ‖ θ) on D_f for the first ``msteps``, each
    followed by min α·KL + γ·CE on D_r.

    rewind: return the epoch whose forget error is nearest to the final model's on validation samples of the same
    distribution (SCRUB+R). Source: Towards Unbounded Machine Unlearning, NeurIPS 2023.
    """

    slug: ClassVar[str] = "scrub"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain", "classes"})
    alpha: float = 0.5
    gamma: float = 0.99
    lr: float = 5e-4
    epochs: int = 10
    msteps: int = 3
    temperature: float = 4.0
    rewind: bool = False

    def erase(self, problem: ForgetProblem) -> nn.Module:
        teacher = problem.copy()

        def disobey(student: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            with torch.no_grad():
                target = outputs(teacher, batch.x)
            return -kl(target, outputs(student, batch.x), self.temperature)

        def obey(student: nn.Module, batch: Batch, beside: Batch | None) -> Tensor:
            with torch.no_grad():
                target = outputs(teacher, batch.x)
            said = outputs(student, batch.x)
            hard = nn.functional.cross_entropy(said, batch.labels)
            return self.alpha * kl(target, said, self.temperature) + self.gamma * hard

        phases = [Phase(problem.forget, disobey, last=self.msteps), Phase(problem.retain, obey)]
        tuning = problem.tuning(lr=self.lr, epochs=self.epochs, optimizer="adam", freeze_bn=True)
        snapshots: list[tuple[float, dict[str, Tensor]]] = []
        tuned = problem.tune(
            phases, tuning, teachers=(teacher,), after_epoch=self._keeper(problem, snapshots) if self.rewind else None
        )
        if snapshots:
            aim = self._error(tuned.model, self._alike(problem))
            tuned.model.load_state_dict(min(snapshots, key=lambda s: abs(s[0] - aim))[1])
        return tuned.model

    def _keeper(
        self, problem: ForgetProblem, snapshots: list[tuple[float, dict[str, Tensor]]]
    ) -> Callable[[int, nn.Module], None]:
        self._alike(problem)  # refuse before the work, not after it

        def keep(epoch: int, student: nn.Module) -> None:
            state = {n: v.detach().clone() for n, v in student.state_dict().items()}
            snapshots.append((self._error(student, problem.forget), state))

        return keep

    @staticmethod
    def _error(model: nn.Module, samples: Samples) -> float:
        from vestige.engines.forgetting.evaluate import say

        return 1 - say(model, samples).accuracy

    @staticmethod
    def _alike(problem: ForgetProblem) -> Samples:
        if problem.val is None:
            raise InputError("Rewinding needs validation samples; give the problem some or leave rewind off.")
        if not problem.classes:
            return problem.val
        return problem.val.take(torch.isin(problem.val.labels, torch.tensor(problem.classes)))
