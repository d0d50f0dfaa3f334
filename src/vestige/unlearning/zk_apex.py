"""ZK-APEX: forget by zeroing chosen weights of a private model, make up for it on private data, and prove that."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.engines.forgetting.evaluate import say
from vestige.engines.forgetting.fisher import sample_gradients, woodbury
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.nn.access import head_name, inside
from vestige.nn.pruning import prunable
from vestige.unlearning.proofs.commit import Block, fixed
from vestige.unlearning.proofs.kkt import Statement, mask_digest

#: How the first matrix of a transformer block's MLP is called, here and in transformers.
EXPANSIONS = (".mlp.fc1.weight", ".intermediate.dense.weight", ".mlp.c_fc.weight", ".mlp.up_proj.weight")
#: Ridge of the small system over the masked weights of a block.
RIDGE = 1e-9


@dataclass(eq=False)
class Update:
    """What the client holds after compensating: the new model, and every block before and after with its gradients.

    masked: bool blocks×size. statement: the public claim about them, which a `Prover` proves. growth: ‖δ‖ / ‖θ_S‖ of
    the block that moved most; far above 1 the damping is too small for the quadratic picture to hold.
    """

    model: nn.Module = field(repr=False)
    blocks: list[Block] = field(repr=False)
    masked: np.ndarray = field(repr=False)
    statement: Statement
    growth: float = 0.0


@dataclass(frozen=True)
class ZkApex:
    """Provider: ΔL = −g·w + h·F·w², what deleting weight w adds to the loss (F diagonal Fisher), on D_f and on retained
    samples; the top ``fraction`` by ΔL_f / (ρ·ΔL_r) is masked (both clamped at 0), over all ``layers`` together.
    Client, in each block of ``block`` weights of the flattened matrix, S the masked ones:

    δ = −F⁻¹E_S (E_Sᵀ F⁻¹ E_S)⁻¹ θ_S,   F = GᵀG/N + λI,   θ' = θ + δ,   θ'_S = 0

    with N single gradients G of personal data, scaled to a mean square of 1 in each matrix, so that λ = ``damping`` is
    relative. Weights and gradients are rounded to fixed-point numbers first and θ' last: what is served is what is
    committed to. layers: names of weights; by default the expansion matrices of all transformer blocks, or, where there
    are none, all matrices and kernels but the head's. score: "ratio", or "difference" ΔL_f − ρ·ΔL_r. signs: of the two
    terms of ΔL. Raises UsageError for values out of range and weights that are not there.

    `explain` says what a proof proves. Source: ZK-APEX: Zero-Knowledge Approximate Personalized Unlearning with
    Executable Proofs, MLSys 2026.

    >>> from vestige.unlearning.proofs.spotcheck import Prover, Verifier
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> data = Samples(torch.rand(20, 4), torch.arange(20) % 2)
    >>> method = ZkApex(fraction=0.2, block=8)
    >>> mask = method.mask(net, data.take(data.labels == 1), data.take(data.labels == 0))
    >>> update = method.compensate(net, data.take(data.labels == 0), mask, request="requests of 28 November")
    >>> client, verifier = Prover(update.blocks, update.statement), Verifier(update.statement, update.masked)
    >>> verifier.verify(client.open(verifier.receive(client.root)))
    """

    slug: ClassVar[str] = "zk_apex"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "retain"})
    fraction: float = 0.04
    rho: float = 2.0
    half: float = 0.5
    block: int = 64
    damping: float = 1.0
    gradients: int = 480
    personal: int = 64
    layers: tuple[str, ...] | None = None
    score: str = "ratio"
    signs: tuple[int, int] = (-1, 1)

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or not self.rho > 0 or not self.damping > 0:
            raise UsageError("fraction must lie in (0, 1), rho and damping must be positive.")
        if self.block < 2 or min(self.gradients, self.personal) < 1:
            raise UsageError("A block has at least two weights, and at least one gradient is needed.")
        if self.score not in ("ratio", "difference"):
            raise UsageError(f"score is {self.score!r}; choose ratio or difference.")

    def names(self, model: nn.Module) -> list[str]:
        """The weights that may be masked, in the order of the model."""
        known = dict(model.named_parameters())
        if self.layers is not None:
            missing = [n for n in self.layers if n not in known]
            if missing:
                raise UsageError(f"The model has no weight {missing[0]!r}.")
            return [n for n in known if n in self.layers]
        found = [n for n in known if n.endswith(EXPANSIONS)]
        found = found or [n for n in prunable(model) if not inside(n, [head_name(model)])]
        if not found:
            raise UsageError("The model has no weight to mask before its head; name some with layers.")
        return found

    def increase(self, model: nn.Module, samples: Samples) -> dict[str, Tensor]:
        """ΔL of deleting each weight alone, by name, from at most ``gradients`` single gradients."""
        weights, names = dict(model.named_parameters()), self.names(model)
        seen = samples.sample(self.gradients, 0)
        mean = {n: torch.zeros_like(weights[n]) for n in names}
        square = {n: torch.zeros_like(weights[n]) for n in names}
        for each in sample_gradients(model, seen, only=names):
            for n in names:
                mean[n] += each[n].sum(0) / len(seen)
                square[n] += each[n].pow(2).sum(0) / len(seen)
        first, second = self.signs
        return {
            n: (first * mean[n] * weights[n] + second * self.half * square[n] * weights[n] ** 2).detach() for n in names
        }

    def mask(self, model: nn.Module, forget: Samples, retain: Samples) -> dict[str, Tensor]:
        """The provider's public mask: true where a weight must become zero."""
        lost, kept = self.increase(model, forget), self.increase(model, retain)
        if self.score == "difference":
            scores = {n: lost[n] - self.rho * kept[n] for n in lost}
        else:
            scores = {n: lost[n].clamp(min=0) / (self.rho * kept[n].clamp(min=0) + 1e-12) for n in lost}
        every = torch.cat([s.flatten() for s in scores.values()])
        count = max(1, round(self.fraction * len(every)))
        chosen = torch.zeros(len(every), dtype=torch.bool, device=every.device)
        chosen[every.topk(count).indices] = True
        parts = chosen.split([s.numel() for s in scores.values()])
        return {n: part.view_as(s) for (n, s), part in zip(scores.items(), parts, strict=True)}

    def compensate(self, model: nn.Module, personal: Samples, mask: dict[str, Tensor], *, request: str = "") -> Update:
        """The client's step on its own model and data; ``request`` names what is to be forgotten (hashed)."""
        if not len(personal):
            raise UsageError("There is no personal sample to take gradients from.")
        names = list(mask)
        masked = np.concatenate([self._cut(mask[n].reshape(1, -1).cpu().numpy())[0] for n in names])
        some = personal.sample(self.personal, 0)
        statement = Statement(
            hashlib.sha256(request.encode()).hexdigest(), mask_digest(masked), len(masked), self.block, len(some),
            damping=self.damping,
        )  # fmt: skip
        new, growth = copy.deepcopy(model).eval(), 0.0
        blocks: list[Block] = []
        weights = dict(new.named_parameters())
        for name, theta, gradients in self._parts(new, some, names, statement):
            made = []
            for t, g in zip(theta, gradients.transpose(1, 0, 2), strict=True):
                number = len(blocks)
                delta = compensation(t / 2.0**statement.weight_bits, g / 2.0**statement.gradient_bits, masked[number],
                                     self.damping)  # fmt: skip
                fresh = t + np.rint(delta * 2.0**statement.weight_bits).astype(np.int64)
                fresh[masked[number]] = 0
                if masked[number].any():
                    norm = float(np.linalg.norm(t[masked[number]]))
                    growth = max(growth, float(np.linalg.norm(fresh - t) / max(norm, 1.0)))
                blocks.append(Block(number, t, fresh, np.ascontiguousarray(g)))
                made.append(fresh)
            flat = np.concatenate(made)[: weights[name].numel()] / 2.0**statement.weight_bits
            with torch.no_grad():
                weights[name].copy_(torch.from_numpy(flat).view_as(weights[name]))
        return Update(new, blocks, masked, statement, growth)

    def erase(self, problem: ForgetProblem) -> nn.Module:
        """Provider and client in one: the retained samples are the personal data."""
        mask = self.mask(problem.model, problem.forget, problem.retain_sample(self.gradients))
        return self.compensate(problem.copy(), problem.retain_sample(self.personal), mask).model

    def evidence(self, problem: ForgetProblem) -> dict[str, bytes]:
        """{"proof.npz": file} for what `erase` returns: a commitment with the blocks that it opens, in clear."""
        from vestige.unlearning.proofs.document import to_bytes
        from vestige.unlearning.proofs.spotcheck import Prover

        mask = self.mask(problem.model, problem.forget, problem.retain_sample(self.gradients))
        update = self.compensate(problem.copy(), problem.retain_sample(self.personal), mask)
        return {"proof.npz": to_bytes(Prover(update.blocks, update.statement), update.masked, list(mask))}

    def measure(self, model: nn.Module, forget: Samples, personal: Samples) -> dict[str, float]:
        """Accuracy on what must be forgotten, and on the client's own held-out data."""
        return {"forget": say(model, forget).accuracy, "personal": say(model, personal).accuracy}

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        """R×n -> R×blocks×size, the last block padded with zeros."""
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % self.block)))
        return padded.reshape(len(rows), -1, self.block)

    def _parts(
        self, model: nn.Module, samples: Samples, names: list[str], statement: Statement
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Of each matrix its fixed-point weights blocks×size and scaled gradients N×blocks×size, as integers."""
        weights = dict(model.named_parameters())
        for name in names:
            each = torch.cat([g[name].flatten(1) for g in sample_gradients(model, samples, only=[name])]).double()
            scale = each.pow(2).mean().sqrt().clamp(min=1e-30)
            theta = self._cut(weights[name].detach().double().reshape(1, -1).cpu().numpy())[0]
            gradients = self._cut((each / scale).cpu().numpy())
            yield name, fixed(theta, statement.weight_bits), fixed(gradients, statement.gradient_bits)


def compensation(theta: np.ndarray, gradients: np.ndarray, masked: np.ndarray, damping: float) -> np.ndarray:
    """δ = −F⁻¹E_S (E_Sᵀ F⁻¹ E_S)⁻¹ θ_S, F = GᵀG/N + λI, for one block (d,), gradients N×d.

    >>> d = compensation(np.array([1.0, 0.5]), np.array([[1.0, 1.0]]), np.array([True, False]), 1.0)
    >>> d.round(6).tolist()
    [-1.0, 0.5]
    """
    if not masked.any():
        return np.zeros_like(theta)
    chosen = torch.eye(len(theta), dtype=torch.float64)[:, torch.from_numpy(masked)]
    columns = woodbury(torch.from_numpy(gradients), chosen, damping)
    small = columns[torch.from_numpy(masked)]
    small.diagonal().add_(RIDGE)
    return -(columns @ torch.linalg.solve(small, torch.from_numpy(theta[masked]))).numpy()


def explain() -> str:
    """What an accepted proof says, and what it does not.

    >>> "NOT" in explain()
    True
    """
    return (
        "Proved: the committed new weights are the prescribed change of the committed old weights, with the committed "
        "gradients and under the public mask, up to the stated tolerance, in every opened block; a share of 5 % wrong "
        "blocks would have been found but for one chance in a million. "
        "NOT proved: that the old weights were those in use, that the gradients come from genuine data, that the new "
        "weights are those served from now on, that the knowledge is gone, and anything about blocks that were not "
        "opened beyond that probability. Opened blocks are seen in clear unless the SNARK backend proves them."
    )
