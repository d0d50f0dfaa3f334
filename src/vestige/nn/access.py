"""One face for any classifier or regressor: its output tensor, its head, its penultimate features, its blocks.

Works for our networks, for transformers models (whose output is an object with ``logits``) and for any module whose
last linear layer is its head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: Containers whose parts count as blocks of their own.
_LISTS = (nn.Sequential, nn.ModuleList)


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says, as a tensor: its output, or the ``logits`` of its output.

    >>> outputs(nn.Linear(3, 2), torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """
    said: Any = model(x)
    said = getattr(said, "logits", said)
    if not isinstance(said, Tensor):
        raise UsageError(
            f"{type(model).__name__} returns {type(said).__name__}; a tensor or an object with logits fits."
        )
    return said


def head_name(model: nn.Module) -> str:
    """The name of the last linear layer. Raises UsageError when there is none.

    >>> head_name(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    '2'
    """
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise UsageError(f"{type(model).__name__} has no linear layer, so it has no head to tell from its features.")
    return names[-1]


def head(model: nn.Module) -> nn.Linear:
    """The last linear layer itself."""
    found = model.get_submodule(head_name(model))
    assert isinstance(found, nn.Linear)
    return found


def features(model: nn.Module, x: Tensor) -> Tensor:
    """N×width: the input of the head, with gradients where they are on.

    >>> features(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """
    return features_and_outputs(model, x)[0]


def features_and_outputs(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The input of the head and the output of the model, in one pass."""
    seen: list[Tensor] = []
    handle = head(model).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        said = outputs(model, x)
    finally:
        handle.remove()
    return seen[-1].flatten(1), said


def activations(model: nn.Module, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of the modules of those names, in one pass.

    >>> sorted(activations(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.zeros(5, 3), ["0", "1"]))
    ['0', '1']
    """
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, args: Any, said: Any) -> None:
            seen[name] = said[0] if isinstance(said, tuple) else said

        return keep

    handles = [model.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def block_names(model: nn.Module) -> list[str]:
    """The units with parameters that layer-wise methods count: children, and the members of lists of layers.

    >>> block_names(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))))
    ['0', '2.0', '2.1']
    """
    return list(_blocks(model, ""))


def _blocks(module: nn.Module, prefix: str) -> Iterator[str]:
    children = [(n, c) for n, c in module.named_children() if any(True for _ in c.parameters())]
    for name, child in children:
        full = f"{prefix}{name}"
        # A model wrapped in a single child (transformers: "vit") or a list is opened; everything else is one block.
        if isinstance(child, _LISTS) or (len(list(child.children())) and _wraps_lists(child)):
            yield from _blocks(child, f"{full}.")
        else:
            yield full


def _wraps_lists(module: nn.Module) -> bool:
    """Whether a list of layers of one class (a trunk) lies somewhere in the module."""
    return any(
        isinstance(part, nn.ModuleList) and len(part) > 1 and len({type(p) for p in part}) == 1
        for part in module.modules()
    )


def last_blocks(model: nn.Module, k: int) -> list[str]:
    """The names of the last ``k`` blocks; raises UsageError when the model has fewer."""
    names = block_names(model)
    if not 1 <= k <= len(names):
        raise UsageError(f"k is {k}; this model has {len(names)} blocks.")
    return names[-k:]


def inside(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a parameter's name lies in one of those modules."""
    return any(name == p or name.startswith(f"{p}.") for p in prefixes)


def reinitialise(model: nn.Module, seed: int, prefixes: Sequence[str] | None = None) -> nn.Module:
    """A copy with fresh weights everywhere, or in the modules of those names; running statistics start anew too.

    Modules draw their own initial values; parameters that belong to none (class tokens) become N(0, 0.02²).

    >>> a = nn.Linear(3, 2)
    >>> bool((reinitialise(a, 0).weight == reinitialise(a, 0).weight).all())
    True
    """
    fresh = copy.deepcopy(model)
    done: set[int] = set()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, part in fresh.named_modules():
            reset = getattr(part, "reset_parameters", None)
            if prefixes is not None and not inside(name, prefixes):
                done.update(id(p) for p in part.parameters(recurse=False))
            elif callable(reset):
                reset()
                done.update(id(p) for p in part.parameters())
        for parameter in fresh.parameters():
            if id(parameter) not in done:
                parameter.normal_(0, 0.02)
    return fresh


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode; every part gets its own mode back."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for part, mode in modes:
            part.training = mode
