"""An analytic head with its frozen network as one safetensors file, so that requests can be served one command each.

The file holds R, W and the SHA-256 of every sample held, no picture and no feature; and the weights of the network
before the head.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.unlearning.acu import AnalyticHead

KIND = "analytic_head"
_BACKBONE = "backbone."


@dataclass
class HeadFile:
    """head: the learner. names: of the classes, by number. side: of the pictures it was begun with."""

    head: AnalyticHead = field(repr=False)
    names: list[str]
    side: int


def is_head(path: Path) -> bool:
    """Whether the file is what `save_head` wrote."""
    return path.is_file() and _header(path).get("kind") == KIND


def _header(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get("vestige", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_head(made: HeadFile, path: Path) -> None:
    """Write the head and its network. Raises UsageError for a network that is not one of our ResNets."""
    from safetensors.torch import save

    backbone = made.head.backbone
    if not isinstance(backbone, ResNet):
        raise UsageError("An analytic head is kept together with a ResNet as vestige writes them; load such a network.")
    tensors: dict[str, Tensor] = dict(made.head.state())
    tensors |= {_BACKBONE + name: value.detach().cpu() for name, value in backbone.state_dict().items()}
    header = {
        "kind": KIND, "names": made.names, "side": made.side, "gamma": made.head.ridge.gamma,
        "config": dataclasses.asdict(backbone.config), "digest": made.head.digest(),
    }  # fmt: skip
    write_atomic(path, save({n: t.contiguous() for n, t in tensors.items()}, {"vestige": json.dumps(header)}))


def load_head(path: Path) -> HeadFile:
    """What `save_head` wrote. Raises InputError for another file, or one that was changed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = _header(path)
    if header.get("kind") != KIND:
        raise InputError(f"{path} is no analytic head; 'vestige learn acu' makes one.")
    try:
        tensors = load_file(path)
        config = dict(header["config"])  # type: ignore[call-overload]
        config |= {name: tuple(config[name]) for name in ("mean", "std")}
        backbone = ResNet(ResNetConfig(**config))
        backbone.load_state_dict({n.removeprefix(_BACKBONE): t for n, t in tensors.items() if n.startswith(_BACKBONE)})
        names, side, gamma = list(header["names"]), int(header["side"]), float(header["gamma"])  # type: ignore
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is a damaged analytic head.") from None
    head = AnalyticHead.resumed(tensors, backbone.eval().requires_grad_(False), gamma=gamma)
    if head.digest() != header["digest"]:
        raise InputError(f"{path} was changed: its digest does not fit its contents.")
    return HeadFile(head, [str(n) for n in names], side)


def begun(backbone: nn.Module, side: int, *, width: int, gamma: float, seed: int) -> HeadFile:
    """An empty head over a network."""
    frozen = backbone.eval().requires_grad_(False)
    return HeadFile(AnalyticHead(frozen, width=width, gamma=gamma, seed=seed), [], side)


def numbered(made: HeadFile, labels: list[str], *, learn: bool) -> Tensor:
    """Class names as numbers; new ones get the next number when they are to be learned, else InputError."""
    for name in dict.fromkeys(labels):
        if name not in made.names:
            if not learn:
                raise InputError(f"The head holds no class {name!r}; it holds {', '.join(made.names[:8])}.")
            made.names.append(name)
    return torch.tensor([made.names.index(name) for name in labels], dtype=torch.int64)
