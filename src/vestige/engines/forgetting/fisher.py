"""Fisher information from gradients: diagonals for importance, blocks and recursions for inverse-vector products.

The empirical Fisher F = (1/N) Σ g gᵀ is made of gradients g of the loss at the true labels. Its diagonal tells how much
each weight matters; its inverse turns a gradient into the step that removes a sample.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from vestige.core.errors import UsageError
from vestige.engines.forgetting.cost import count
from vestige.engines.forgetting.losses import task_loss
from vestige.engines.forgetting.per_sample import Tapped, once_each, tappable
from vestige.engines.forgetting.samples import Batch, Samples
from vestige.nn.access import evaluating, outputs
from vestige.nn.layout import channels_last, channels_last_helps, safe_strides

Output = Literal["loss", "output_norm"]


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def _value_at(model: nn.Module, batch: Batch, output: str, x: Tensor) -> Tensor:
    """The sum over the batch of the loss or of ‖f(x)‖², at inputs ``x``."""
    said = outputs(model, x)
    if output == "output_norm":
        return said.pow(2).sum()
    return task_loss(said, batch.labels, "sum")


def importance(
    model: nn.Module,
    samples: Samples,
    *,
    per_sample: bool = True,
    output: Output = "loss",
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """What each parameter matters to the samples: mean (∂ℓ/∂θ)², by parameter name, in eval mode.

    per_sample: squares of each sample's gradient (the diagonal of the empirical Fisher). Otherwise squares of the mean
    gradient of each batch, averaged over batches, as published code has it: those depend on the batch size.
    output: "loss" (needs labels), or "output_norm" for mean |∂‖f(x)‖²/∂θ|, which needs none. Raises UsageError for an
    empty set or an unknown output, InputError when labels are missing.

    >>> net = nn.Linear(2, 2)
    >>> s = Samples(torch.rand(6, 2), torch.zeros(6, dtype=torch.int64))
    >>> sorted(importance(net, s))
    ['bias', 'weight']
    """
    if not len(samples):
        raise UsageError("There are no samples to take the importance from.")
    if output not in ("loss", "output_norm"):
        raise UsageError(f"output is {output!r}; choose loss or output_norm.")
    safe_strides(model)
    total = {name: torch.zeros_like(p) for name, p in _trained(model).items()}
    device = next(model.parameters()).device
    with evaluating(model):
        if per_sample:
            probe = next(samples.take(range(min(2, len(samples)))).batches(2, device=device)).x
            if output == "loss" and tappable(model, total, probe) and once_each(model, total, probe):
                fast = copy.deepcopy(model)
                if channels_last_helps(fast):
                    channels_last(fast)
                with Tapped(fast, total) as tapped:
                    for batch in samples.batches(batch_size, device=device):
                        tapped.add_squares(partial(_value_at, fast, batch, output), batch.x)
                        count(forward=len(batch), backward=len(batch))
                    total = tapped.squares()
            else:
                for gradients in sample_gradients(model, samples, output=output, batch_size=batch_size):
                    for name, g in gradients.items():
                        total[name] += (g.abs() if output == "output_norm" else g.pow(2)).sum(0)
            return {name: value / len(samples) for name, value in total.items()}
        batches = 0
        for batch in samples.batches(batch_size, device=device):
            gradients = mean_gradient(model, batch, output=output)
            for name, g in gradients.items():
                total[name] += g.abs() if output == "output_norm" else g.pow(2)
            batches += 1
    return {name: value / batches for name, value in total.items()}


def mean_gradient(
    model: nn.Module, samples: Samples | Batch, *, output: Output = "loss", batch_size: int = 256
) -> dict[str, Tensor]:
    """The gradient of the mean loss over the samples, by parameter name, in eval mode."""
    names, parameters = zip(*safe_strides(model).named_parameters(), strict=True)
    flags = [p.requires_grad for p in parameters]
    total = [torch.zeros_like(p) for p in parameters]
    device = parameters[0].device
    batches: Iterable[Batch] = [samples] if isinstance(samples, Batch) else samples.batches(batch_size, device=device)
    try:
        for p in parameters:
            p.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            for batch in batches:
                value = _value_at(model, batch, output, batch.x)
                for t, g in zip(total, torch.autograd.grad(value, parameters, allow_unused=True), strict=True):
                    if g is not None:
                        t += g
                count(forward=len(batch), backward=len(batch))
    finally:
        for p, flag in zip(parameters, flags, strict=True):
            p.requires_grad_(flag)
    return {name: t / max(len(samples), 1) for name, t in zip(names, total, strict=True)}


def sample_gradients(
    model: nn.Module,
    samples: Samples,
    *,
    output: Output = "loss",
    batch_size: int = 32,
    only: Iterable[str] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Gradients of each sample's loss, batch by batch: by parameter name, B×shape. In eval mode.

    Convolutions and linear layers keep their inputs and the gradients of their outputs, from which a sample's
    gradient is one product; normalisation layers in eval mode likewise. Any other parameter goes through
    `torch.func.vmap`. only: names of the parameters wanted.
    """
    safe_strides(model)
    wanted = set(dict(model.named_parameters())) if only is None else set(only)
    device = next(model.parameters()).device
    with evaluating(model):
        if tappable(model, wanted, next(samples.take(range(min(2, len(samples)))).batches(2, device=device)).x):
            with Tapped(model, wanted) as tapped:
                for batch in samples.batches(batch_size, device=device):
                    yield tapped.gradients(partial(_value_at, model, batch, output), batch.x)
                    count(forward=len(batch), backward=len(batch))
            return
        parameters = _trained(model)
        buffers = {name: b.detach() for name, b in model.named_buffers()}
        chosen = {n: p for n, p in parameters.items() if n in wanted}
        fixed = {n: p for n, p in parameters.items() if n not in wanted}

        def one(weights: dict[str, Tensor], x: Tensor, y: Tensor | None) -> Tensor:
            said: Any = functional_call(model, ({**fixed, **weights}, buffers), (x[None],))
            said = getattr(said, "logits", said)
            if output == "output_norm":
                return said.pow(2).sum()
            assert y is not None
            if y.dtype == torch.int64:
                return nn.functional.cross_entropy(said, y[None])
            return (said.flatten() - y.flatten()).abs().mean()

        for batch in samples.batches(batch_size, device=device):
            y = batch.labels if output == "loss" else None
            yield vmap(grad(one), in_dims=(None, 0, None if y is None else 0))(chosen, batch.x, y)
            count(forward=len(batch), backward=len(batch))


def flat(gradients: dict[str, Tensor], names: Iterable[str], batched: bool = False) -> Tensor:
    """The parameters of those names in one row (or B rows), in that order."""
    parts = [gradients[n].flatten(1) if batched else gradients[n].flatten() for n in names]
    return torch.cat(parts, -1)


def unflat(vector: Tensor, model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The inverse of `flat` for one row."""
    shapes = dict(model.named_parameters())
    out, at = {}, 0
    for name in names:
        size = shapes[name].numel()
        out[name] = vector[at : at + size].view_as(shapes[name])
        at += size
    return out


def block_fisher(gradients: Tensor, block: int, damping: float) -> Tensor:
    """Damped diagonal blocks (1/N) G_bᵀG_b + λI of N×d gradients: K×block×block, the last one padded by λI."""
    n, d = gradients.shape
    padded = nn.functional.pad(gradients, (0, -d % block)).view(n, -1, block)
    eye = torch.eye(block, dtype=gradients.dtype, device=gradients.device)
    return torch.einsum("nkb,nkc->kbc", padded, padded) / n + damping * eye


def woodbury(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """F⁻¹v for F = (1/N) GᵀG + λI without forming F: (v − Gᵀ(λN·I + GGᵀ)⁻¹ G v) / λ.

    gradients: N×d. vector: d or d×k. Raises UsageError unless λ > 0.

    >>> g, v = torch.rand(3, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    >>> f = g.T @ g / 3 + 0.1 * torch.eye(5, dtype=torch.float64)
    >>> bool(torch.allclose(f @ woodbury(g, v, 0.1), v))
    True
    """
    if not damping > 0:
        raise UsageError(f"The damping is {damping}; it must be positive.")
    n = len(gradients)
    gram = gradients @ gradients.T
    gram.diagonal().add_(damping * n)
    return (vector - gradients.T @ torch.linalg.solve(gram, gradients @ vector)) / damping


def woodfisher(rows: Iterable[Tensor], vector: Tensor, n: int) -> Tensor:
    """An estimate of F⁻¹v by the published rank-one recursion over n single gradients g₁, g₂, … (each d).

    o₁ = g₁, k₁ = v;  then for each next g:  k ← k − (k·g)/(n + o·g)·o,   o ← o − (o·g)/(n + o·g)·o.
    One running direction stands for the whole inverse, so it costs O(n d) and is rough; `woodbury` is exact. Source:
    WoodFisher, NeurIPS 2020, in the form of Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023. Raises
    UsageError when there is no gradient.
    """
    o: Tensor | None = None
    k = vector.clone()
    for g in rows:
        if o is None:
            o = g.clone()
            continue
        along = o @ g
        k = k - (k @ g) / (n + along) * o
        o = o - along / (n + along) * o
    if o is None:
        raise UsageError("The recursion needs at least one gradient.")
    return k
