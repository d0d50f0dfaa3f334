"""Gradients of single samples from one ordinary backward pass: each layer's input and the gradient of its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import UsageError

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _supported(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)
    if isinstance(part, _BATCH_NORMS):
        return part.track_running_stats
    return isinstance(part, nn.Linear | nn.LayerNorm | nn.GroupNorm)


def tappable(model: nn.Module, wanted: Iterable[str], x: Tensor) -> bool:
    """Whether every wanted parameter lies in one layer of a kind known here, whose first axis counts the samples."""
    owners: dict[int, int] = {}
    for part in model.modules():
        for parameter in part.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    parts: list[nn.Module] = []
    parameters = dict(model.named_parameters())
    for name in wanted:
        part = model.get_submodule(name.rpartition(".")[0])
        if not _supported(part) or owners[id(parameters[name])] != 1:
            return False
        parts.append(part)
    fits: list[bool] = []
    handles = [p.register_forward_pre_hook(lambda m, args: fits.append(len(args[0]) == len(x))) for p in set(parts)]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return bool(fits) and all(fits)


class Tapped:
    """Context in which the gradients of each sample are read out of the layers of ``model``, for losses that are sums
    over samples.

    weight of a linear layer: g_b x_bᵀ summed over positions; of a convolution: the same with unfolded patches; of a
    normalisation with fixed statistics: Σ g·x̂. Exact. Only the gradients of activations are propagated, so the pass
    costs no more than an ordinary one.
    """

    def __init__(self, model: nn.Module, wanted: Iterable[str]) -> None:
        self.model, self.wanted = model, set(wanted)
        self.names = {
            part: prefix
            for prefix, part in model.named_modules()
            if any(_join(prefix, n) in self.wanted for n, _ in part.named_parameters(recurse=False))
        }
        self.seen: list[tuple[nn.Module, Tensor, list[Tensor]]] = []
        self.sums: dict[str, Tensor] = {}

    def __enter__(self) -> Tapped:
        self.flags = [(p, p.requires_grad) for p in self.model.parameters()]
        for p, _ in self.flags:
            p.requires_grad_(False)
        self.handles = [part.register_forward_hook(self._keep) for part in self.names]
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self.handles:
            handle.remove()
        for p, flag in self.flags:
            p.requires_grad_(flag)
        self.seen.clear()

    def _keep(self, part: nn.Module, args: Any, said: Tensor) -> None:
        caught: list[Tensor] = []
        if said.requires_grad:
            said.register_hook(caught.append)
        self.seen.append((part, args[0].detach(), caught))

    def _pass(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.seen.clear()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.grad(loss(x), x)

    def gradients(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
        """By parameter name: B×shape, the gradients of each sample's part of ``loss(x)``."""
        self._pass(loss, x)
        shapes = dict(self.model.named_parameters())
        out: dict[str, Tensor] = {}
        with torch.no_grad():
            for part, inside, caught in self.seen:
                for g in caught:
                    for name, each in _of_layer(part, inside, g).items():
                        full = _join(self.names[part], name)
                        if full in self.wanted:
                            out[full] = out[full] + each if full in out else each
        for name in self.wanted - set(out):  # a layer the loss does not depend on
            out[name] = shapes[name].detach().new_zeros(len(x), *shapes[name].shape)
        self.seen.clear()
        return out

    def add_squares(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """Add Σ_b g_b² of every wanted parameter to ``sums``, layer by layer, so that no more than one layer's
        gradients are held at a time."""
        self._pass(loss, x)
        used = [part for part, _, _ in self.seen]
        with torch.no_grad():
            while self.seen:
                part, inside, caught = self.seen.pop()
                if used.count(part) > 1:
                    raise UsageError("A layer is used more than once; its gradients have to be added first.")
                for g in caught:
                    _add_layer_squares(part, inside, g, self.sums, self.names[part])

    def squares(self) -> dict[str, Tensor]:
        """By parameter name: the sums of `add_squares`, in the shape of the parameters."""
        shapes = dict(self.model.named_parameters())
        found = {}
        for name in self.wanted:
            total = self.sums.get(name)
            part = self.model.get_submodule(name.rpartition(".")[0])
            if total is None:
                total = torch.zeros_like(shapes[name].detach())
            elif isinstance(part, nn.Conv2d) and name.endswith("weight"):
                total = _as_weight(part, total)
            found[name] = total.reshape(shapes[name].shape).contiguous()
        return found


def once_each(model: nn.Module, wanted: Iterable[str], x: Tensor) -> bool:
    """Whether every layer with a wanted parameter is called at most once in a pass."""
    calls: list[nn.Module] = []
    parts = {model.get_submodule(name.rpartition(".")[0]) for name in wanted}
    handles = [part.register_forward_hook(lambda m, args, said: calls.append(m)) for part in parts]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return len(calls) == len(set(calls))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _add_layer_squares(part: nn.Module, x: Tensor, g: Tensor, sums: dict[str, Tensor], prefix: str) -> None:
    def add(name: str, value: Tensor) -> None:
        full = _join(prefix, name)
        sums[full] = sums[full] + value if full in sums else value

    if isinstance(part, nn.Linear) and x.ndim == 2:
        add("weight", g.pow(2).T @ x.pow(2))  # Σ_b (g_bo x_bi)²: no gradient of a single sample is formed
        add("bias", g.pow(2).sum(0))
    elif isinstance(part, nn.Conv2d):
        rows, patches = _positions_first(g), _patches(part, x)
        total = rows.new_zeros(rows.shape[2], patches.shape[2])
        each = torch.empty_like(total)
        for row, columns in zip(rows, patches, strict=True):  # one sample's gradient stays in the processor's cache
            torch.mm(row.T, columns, out=each)
            total.addcmul_(each, each)
        add("weight", total)
        add("bias", rows.sum(1).pow(2).sum(0))
    else:
        for name, gradients in _of_layer(part, x, g).items():
            add(name, gradients.pow(2).sum(0))


def _positions_first(g: Tensor) -> Tensor:
    """B×C×h×w -> B×(h·w)×C; free for channels-last tensors."""
    return g.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _patches(part: nn.Conv2d, x: Tensor) -> Tensor:
    """B×L×(k·k·C): what each of the L outputs of the convolution sees, channels last."""
    assert not isinstance(part.padding, str)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = part.kernel_size, part.stride, part.padding, part.dilation
    height = (x.shape[2] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph)).contiguous()
    batch, row, column, channel = x.stride()
    shape = (len(x), height, width, kh, kw, x.shape[3])
    view = x.as_strided(shape, (batch, sh * row, sw * column, dh * row, dw * column, channel))
    return view.reshape(len(x), height * width, kh * kw * x.shape[3])


def _as_weight(part: nn.Conv2d, product: Tensor) -> Tensor:
    """…×O×(k·k·C) -> …×O×C×k×k, the layout of the weight."""
    kh, kw = part.kernel_size
    return product.unflatten(-1, (kh, kw, part.in_channels)).movedim(-1, -3)


def _of_layer(part: nn.Module, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    n = len(x)
    if isinstance(part, nn.Conv2d):
        product = torch.bmm(_positions_first(g).transpose(1, 2), _patches(part, x))
        return {"weight": _as_weight(part, product), "bias": g.flatten(2).sum(2)}
    if isinstance(part, nn.Linear):
        if x.ndim == 2:
            return {"weight": g[:, :, None] * x[:, None, :], "bias": g}
        rows, columns = g.flatten(1, -2), x.flatten(1, -2)
        return {"weight": torch.bmm(rows.transpose(1, 2), columns), "bias": rows.sum(1)}
    if isinstance(part, nn.LayerNorm):
        normed = F.layer_norm(x, part.normalized_shape, eps=part.eps)
        keep = (n, -1, *part.normalized_shape)
        return {"weight": (g * normed).reshape(keep).sum(1), "bias": g.reshape(keep).sum(1)}
    if isinstance(part, nn.GroupNorm):
        normed = F.group_norm(x, part.num_groups, eps=part.eps)
    else:
        assert isinstance(part, _BATCH_NORMS)
        normed = F.batch_norm(x, part.running_mean, part.running_var, eps=part.eps)
    per_channel = (n, g.shape[1], -1)
    return {"weight": (g * normed).reshape(per_channel).sum(2), "bias": g.reshape(per_channel).sum(2)}
