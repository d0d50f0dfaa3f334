"""A small vision-language model as a folder: words, sizes and the eye in ``vlm.json``, weights in safetensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic, read_json, write_json
from vestige.nn.features import load_feature_net
from vestige.nn.vlm import SmallVLM, Words, cells

FILE = "vlm.json"
_MARKS = 3  # padding, start and end come first in every vocabulary


@dataclass(frozen=True)
class Eye:
    """What turns pictures uint8 N×3×S×S into visual tokens N×T×F, standardised by ``mean`` and ``std`` (F).

    kind: "pixels", the mean colours of a 16×16 grid in tokens of 4×4 cells; or "features", the maps of the feature
    network behind `load_feature_net`. net: the digest of that network, which tokens of another would not fit.
    """

    kind: str
    side: int
    mean: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    net: str = ""

    @classmethod
    def fitted(cls, kind: str, images: Tensor) -> Eye:
        """The eye whose tokens are standardised over those pictures. Raises UsageError for an unknown kind."""
        raw, net = _raw(kind, images)
        return cls(kind, images.shape[-1], raw.mean((0, 1)), raw.std((0, 1)).clamp(min=1e-6), net)

    def tokens(self, images: Tensor) -> Tensor:
        """Visual tokens of pictures of this side. Raises InputError where the feature network is another one."""
        if images.shape[1:] != (3, self.side, self.side):
            raise UsageError(f"The model sees pictures of {self.side} pixels; got {tuple(images.shape[1:])}.")
        raw, net = _raw(self.kind, images)
        if net != self.net:
            raise InputError("The model was trained with another feature network than is installed; train it again.")
        return (raw - self.mean) / self.std


def _raw(kind: str, images: Tensor) -> tuple[Tensor, str]:
    if kind == "pixels":
        grid = F.adaptive_avg_pool2d(images.float() / 255, 16)
        return F.unfold(grid, 4, stride=4).transpose(1, 2), ""
    if kind == "features":
        net = load_feature_net()
        return cells(lambda x: net(x.float() / 255).maps[1:], images), str(net.provenance)
    raise UsageError(f"eye is {kind!r}; choose pixels or features.")


def save_vlm(model: SmallVLM, words: Words, eye: Eye, folder: str | Path, *, half: bool = False) -> None:
    """Write a model with its words and its eye, whole or not at all; the bank of pictures stays behind.

    half: weights in 16 bits.
    """
    from safetensors.torch import save_file

    about = {
        "format": 1, "width": model.embed.embedding_dim, "depth": len(model.blocks), "heads": model.heads,
        "length": model.length, "eye": eye.kind, "side": eye.side, "net": eye.net, "words": words.names[_MARKS:],
    }  # fmt: skip
    state = {**model.state_dict(), "eye.mean": eye.mean, "eye.std": eye.std}
    kind = torch.float16 if half else torch.float32
    state = {name: value.detach().cpu().to(kind).contiguous() for name, value in state.items()}
    with folder_atomic(folder) as new:
        write_json(new / FILE, about)
        save_file(state, str(new / "model.safetensors"))


def load_vlm(folder: str | Path, images: Tensor | None = None) -> tuple[SmallVLM, Words, Eye]:
    """The model of a folder in evaluation mode, with those pictures (uint8 N×3×S×S) in its bank.

    images: None for one black picture. Raises InputError for a folder that holds none or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    about = read_json(folder / FILE)
    try:
        state = load_file(str(folder / "model.safetensors"))
        state = {name: value.float() for name, value in state.items()}
        eye = Eye(str(about["eye"]), int(about["side"]), state.pop("eye.mean"), state.pop("eye.std"), str(about["net"]))
        words = Words([" ".join(map(str, about["words"]))])
        width, depth, heads, length = (int(about[n]) for n in ("width", "depth", "heads", "length"))
        if images is None:
            images = torch.zeros(1, 3, eye.side, eye.side, dtype=torch.uint8)
        model = SmallVLM(eye.tokens(images), len(words), width=width, depth=depth, heads=heads, length=length)
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} holds no small vision-language model that can be read ({reason}).") from None
    return model.eval(), words, eye
