"""Suppression or deletion: bring a forgotten class back from the activations of an inner layer, as far as it is there.

A sparse autoencoder of the original's activations gives the latents that stand for a class; strengthening them in the
unlearned network shows whether the knowledge was hidden from the output or is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.samples import Samples
from vestige.nn.access import activations, evaluating, outputs
from vestige.nn.sae import SparseAutoencoder, train_sae

MODES = ("self", "inject_experts", "inject_cls")
#: A restoration rate from which the class counts as suppressed, and the margin over a never-trained control.
SUPPRESSED, MARGIN = 0.6, 0.25
#: False restoration from which a strength counts for nothing: it makes the class out of other pictures too.
MOST_FALSE = 0.05


def tokens(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Activations N×C×h×w, N×T×C or N×C -> N×T×C and the way back.

    >>> t, back = tokens(torch.zeros(2, 5, 3, 3))
    >>> t.shape, back(t).shape
    (torch.Size([2, 9, 5]), torch.Size([2, 5, 3, 3]))
    """
    if x.ndim == 4:
        height, width = x.shape[2:]
        return x.flatten(2).transpose(1, 2), lambda t: t.transpose(1, 2).unflatten(2, (height, width))
    if x.ndim == 3:
        return x, lambda t: t
    if x.ndim == 2:
        return x[:, None], lambda t: t[:, 0]
    raise UsageError(f"Activations have shape {tuple(x.shape)}; N×C×h×w, N×T×C or N×C fit.")


@contextmanager
def replaced(model: nn.Module, layer: str, value: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The output of the layer goes through ``value`` inside."""

    def hook(module: nn.Module, args: Any, said: Any) -> Any:
        return (value(said[0]), *said[1:]) if isinstance(said, tuple) else value(said)

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class SaeRestore:
    """SAE restoration at one layer.

    Latents: z = TopK(ReLU(E(x − b) + b')) of the original's activations at ``layer``. Experts of class c: the
    ``experts`` latents with the largest (mean z | c − mean z | other)·P(c | z > 0), of those with P(c | z > 0), classes
    weighing equally, ≥ ``selectivity``; the best ``fewest`` whatever their selectivity when fewer pass. Modes, x_u
    being the unlearned network's activation, a its codes before the top k:

    - "self": x_u + α·D z_experts(x_u), the unlearned network's own codes amplified;
    - "inject_experts": x_u + α·D (a_o − a_u)_experts, with the original's codes of the same picture;
    - "inject_cls": the same, and CLS ← CLS_u + α(CLS_o − CLS_u): at α = 1 the original's answer is transplanted, so it
      mostly measures whether the layers behind still work. Kept for parity; needs a class token, N×T×C.

    What the autoencoder does not explain stays as it is. The network behind the layer is the unlearned one's
    (tail="own"), which can show nothing when the last layer alone was edited; tail="original" (mode "self") reads the
    unlearned network's activations with the original's later layers, through a linear map fitted on retained pictures
    only (ridge), so that a network with another basis, such as a retrained one, is read too.

    Fit first. Raises UsageError for an unknown mode, a class token that is not there, or use before `fit`.

    Source: Suppression or Deletion: A Restoration-Based Representation-Level Analysis of Machine Unlearning, WWW 2026.
    The expert rule, the map and the modes but "inject_*" are this implementation's.
    """

    layer: str
    latents: int | None = None
    k: int = 16
    experts: int = 32
    selectivity: float = 0.5
    fewest: int = 8
    class_token: bool = False
    epochs: int = 20
    most_tokens: int = 60_000
    seed: int = 0
    sae: SparseAutoencoder | None = field(default=None, repr=False)

    def fit(self, original: nn.Module, samples: Samples) -> SaeRestore:
        """Train the autoencoder on the original's activations of the samples (class token left out)."""
        rows = [self._patches(t).flatten(0, 1) for t, _ in self._seen(original, samples)]
        x = torch.cat(rows)
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))[: self.most_tokens]
        self.sae = train_sae(x[chosen], self.latents, self.k, epochs=self.epochs, seed=self.seed)
        return self

    def _fitted(self) -> SparseAutoencoder:
        if self.sae is None:
            raise UsageError("Fit the autoencoder to the original model first.")
        return self.sae

    def _patches(self, t: Tensor) -> Tensor:
        return t[:, 1:] if self.class_token else t

    @torch.no_grad()
    def _seen(self, model: nn.Module, samples: Samples) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Tokens at the layer and labels, batch by batch."""
        with evaluating(model):
            for batch in samples.batches(256):
                yield tokens(activations(model, batch.x, [self.layer])[self.layer])[0], batch.y

    @torch.no_grad()
    def expert_latents(self, model: nn.Module, samples: Samples, label: int) -> Tensor:
        """Numbers of the latents that stand for the class, best first."""
        sae = self._fitted()
        sums = {True: torch.zeros(sae.latents), False: torch.zeros(sae.latents)}
        on = {True: torch.zeros(sae.latents), False: torch.zeros(sae.latents)}
        seen = {True: 0, False: 0}
        for t, y in self._seen(model, samples):
            z = sae.codes(self._patches(t))
            assert y is not None
            for of_class in (True, False):
                chosen = z[(y == label) == of_class]
                sums[of_class] += chosen.mean(1).sum(0)
                on[of_class] += (chosen > 0).float().mean(1).sum(0)
                seen[of_class] += len(chosen)
        if not seen[True] or not seen[False]:
            raise UsageError(f"Experts need samples of class {label} and of others.")
        mean = {c: sums[c] / seen[c] for c in sums}
        share = {c: on[c] / seen[c] for c in on}
        selective = share[True] / (share[True] + share[False]).clamp(min=1e-12)
        score = (mean[True] - mean[False]) * selective
        order = score.argsort(descending=True)
        passed = order[(selective[order] >= self.selectivity) & (score[order] > 0)]
        return passed[: self.experts] if len(passed) >= self.fewest else order[: self.fewest]

    def random_active(self, model: nn.Module, samples: Samples, count: int, *, beside: Tensor, seed: int = 0) -> Tensor:
        """As many latents at random among those that are on for the samples, experts left out: the control."""
        sae = self._fitted()
        with torch.no_grad():
            mean = torch.stack([sae.codes(self._patches(t)).mean((0, 1)) for t, _ in self._seen(model, samples)]).mean(
                0
            )
        mean[beside] = 0
        active = (mean > 0).nonzero()[:, 0].numpy()
        return torch.from_numpy(rng(seed, "active").permutation(active)[:count].copy())

    @torch.no_grad()
    def stitch(self, unlearned: nn.Module, original: nn.Module, retained: Samples, ridge: float = 1e-3) -> Tensor:
        """The linear map (C+1)×C from the unlearned network's tokens to the original's, fitted on retained pictures."""
        xtx: Tensor | float = 0.0
        xty: Tensor | float = 0.0
        for (u, _), (o, _) in zip(self._seen(unlearned, retained), self._seen(original, retained), strict=True):
            x = _affine(u).flatten(0, 1).double()
            xtx, xty = xtx + x.T @ x, xty + x.T @ o.flatten(0, 1).double()
        assert isinstance(xtx, Tensor)
        assert isinstance(xty, Tensor)
        damping = ridge * xtx.diagonal().mean() * torch.eye(len(xtx), dtype=torch.float64)
        return torch.linalg.solve(xtx + damping, xty).float()

    @torch.no_grad()
    def restore(
        self,
        unlearned: nn.Module,
        samples: Samples,
        chosen: Tensor,
        *,
        mode: str = "self",
        alpha: float = 1.0,
        original: nn.Module | None = None,
        stitch: Tensor | None = None,
    ) -> np.ndarray:
        """Logits N×K after the chosen latents are strengthened at the layer; with a `stitch`, of the original's
        tail."""
        sae = self._fitted()
        if mode not in MODES:
            raise UsageError(f"mode is {mode!r}; choose one of {', '.join(MODES)}.")
        if (mode != "self" or stitch is not None) and original is None:
            raise UsageError(f"Mode {mode!r} with this tail needs the original model.")
        if mode == "inject_cls" and not self.class_token:
            raise UsageError("This network has no class token to transplant; use self or inject_experts.")
        if mode != "self" and stitch is not None:
            raise UsageError("Injection together with the original's tail would measure the original alone.")
        said = []
        reader = unlearned if stitch is None else original
        assert reader is not None
        with evaluating(unlearned), evaluating(reader):
            for batch in samples.batches(256):
                theirs = None
                if mode != "self":
                    assert original is not None
                    with evaluating(original):
                        theirs = tokens(activations(original, batch.x, [self.layer])[self.layer])[0]
                own = None
                if stitch is not None:
                    own = _affine(tokens(activations(unlearned, batch.x, [self.layer])[self.layer])[0]) @ stitch

                def value(x: Tensor, theirs: Tensor | None = theirs, own: Tensor | None = own) -> Tensor:
                    t, back = tokens(x)
                    return back(self._steered(sae, t if own is None else own, theirs, chosen, mode, alpha))

                with replaced(reader, self.layer, value):
                    said.append(outputs(reader, batch.x).double())
        return torch.cat(said).numpy()

    def _steered(
        self, sae: SparseAutoencoder, t: Tensor, theirs: Tensor | None, chosen: Tensor, mode: str, alpha: float
    ) -> Tensor:
        patches, first = self._patches(t), t[:, :1]
        only = torch.zeros(sae.latents)
        only[chosen] = alpha
        if theirs is None:
            delta = sae.codes(patches)
        else:
            delta = sae.dense_codes(self._patches(theirs)) - sae.dense_codes(patches)
        patches = patches + sae.change(delta * only)
        if not self.class_token:
            return patches
        if mode == "inject_cls" and theirs is not None:
            first = first + alpha * (theirs[:, :1] - first)
        return torch.cat([first, patches], 1)

    def measure(
        self,
        original: nn.Module,
        unlearned: nn.Module,
        label: int,
        test: Samples,
        tuning: Samples,
        chosen: Tensor,
        *,
        mode: str = "self",
        alphas: Sequence[float] | None = None,
        retained: Samples | None = None,
    ) -> dict[str, float]:
        """How far the class comes back on ``test``, at the α that is best on ``tuning``; both hold all classes.

        retained: pictures to fit the map on, which turns to the original's tail. alphas: tried, all above 0 unless
        they are named: at 0 nothing is strengthened. Returns "restored" (accuracy on the class over the original's),
        "before" (the same without any of this, the unlearned network's own), "alpha", "false_restoration" (other
        pictures, steered alike, called the class beyond those the original calls so), "others" (accuracy on them)
        and, with a map, "read": what the original's tail already reads at α = 0. That is what the activations still
        hold for another reader, not restoration; only what "restored" is above it was brought back.

        α is the one that restores most of those with a false restoration of at most `MOST_FALSE`, the one with the
        least false restoration when there is none: a class that is steered into any picture tells nothing about what
        the network still holds.
        """
        stitch = None if retained is None else self.stitch(unlearned, original, retained)

        def row(samples: Samples, alpha: float) -> dict[str, float]:
            true = samples.labels.numpy()
            said = self.restore(
                unlearned, samples, chosen, mode=mode, alpha=alpha, original=original, stitch=stitch
            ).argmax(1)
            known, wrong = _named(original, samples, label)
            if known == 0:
                raise UsageError("The original does not know the class, so nothing can be restored.")
            return {
                "restored": float((said[true == label] == label).mean() / known),
                "alpha": alpha,
                "false_restoration": max(0.0, float((said[true != label] == label).mean()) - wrong),
                "others": float((said == true)[true != label].mean()),
            }

        rows = [row(tuning, alpha) for alpha in ((1.0, 5.0, 10.0) if alphas is None else alphas)]
        sound = [r for r in rows if r["false_restoration"] <= MOST_FALSE]
        best = max(sound, key=itemgetter("restored")) if sound else min(rows, key=itemgetter("false_restoration"))
        before = _named(unlearned, test, label)[0] / _named(original, test, label)[0]
        read = {} if retained is None else {"read": row(test, 0.0)["restored"]}
        return {"before": before, **read, **row(test, best["alpha"])}


def _named(model: nn.Module, samples: Samples, label: int) -> tuple[float, float]:
    """How often samples of the class, and others, are called the class."""
    from vestige.engines.forgetting.evaluate import say

    true, said = samples.labels.numpy(), say(model, samples).outputs.argmax(1)
    if not (true == label).any() or (true == label).all():
        raise UsageError(f"Restoration needs samples of class {label} and of others.")
    inside = float((said[true == label] == label).mean())
    return inside, float((said[true != label] == label).mean())


def verdict(restored: float, control: float) -> str:
    """ "suppressed", "deleted" or "unclear" from a restoration rate and that of a network never trained on the class.

    >>> verdict(0.95, 0.3), verdict(0.35, 0.3), verdict(0.5, 0.2)
    ('suppressed', 'deleted', 'unclear')
    """
    if restored >= SUPPRESSED and restored >= control + MARGIN:
        return "suppressed"
    return "deleted" if restored < control + MARGIN / 2 else "unclear"


def _affine(t: Tensor) -> Tensor:
    return torch.cat([t, torch.ones(*t.shape[:-1], 1)], -1)
