"""A descriptor of copies that is trained: two edited views of a picture near each other, all others apart.

L = −mean over pairs of one picture of log( e^{s_ij/τ} / Σ_{k≠i} e^{s_ik/τ} ) + λ·L_KoLeo, with
L_KoLeo = −mean_i log min_{j of another picture} ‖z_i − z_j‖: the second term spreads the vectors, so that one threshold
fits all queries.

Source: A Self-Supervised Descriptor for Image Copy Detection, CVPR 2022.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.models.checkpoint import ModelSubject
from vestige.nn.resnet import ResNet, ResNetConfig

_KIND = "copy descriptor"


class CopyNet(nn.Module):
    """ResNet-18, generalised mean over space (p = 3), a linear layer. forward(N×3×H×W in [0, 1]) -> N×dims of length
    one. width: of the network, as in `ResNetConfig`. size: side that pictures are brought to.

    >>> CopyNet(dims=8, width=0.125)(torch.rand(2, 3, 64, 64)).norm(dim=1).round().tolist()
    [1.0, 1.0]
    """

    def __init__(self, dims: int = 256, width: float = 0.5, size: int = 96) -> None:
        super().__init__()
        if not 2 <= dims <= 4096 or not 32 <= size <= 1024:
            raise UsageError(f"A descriptor has 2 to 4096 dimensions of pictures of 32 to 1024 pixels; got {dims}.")
        self.config = {"dims": dims, "width": width, "size": size}
        self.size = size
        self.trunk = ResNet(ResNetConfig(18, stem="imagenet", width=width))
        self.head = nn.Linear(self.trunk.width, dims)

    def forward(self, images: Tensor) -> Tensor:
        last = self.trunk.maps(images)[-1]
        pooled = last.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        return F.normalize(self.head(pooled), dim=1)


def contrastive_loss(z: Tensor, picture: Tensor, temperature: float = 0.05) -> Tensor:
    """Mean over ordered pairs of views of one picture; z: N×d of length one, picture: int N.

    >>> z = torch.eye(2).repeat_interleave(2, 0)
    >>> float(contrastive_loss(z, torch.tensor([0, 0, 1, 1]))) < 1e-6
    True
    """
    alike = z @ z.T / temperature
    alike = alike.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    same = picture[:, None] == picture[None]
    same = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return -torch.log_softmax(alike, dim=1)[same].mean()


def spread_loss(z: Tensor, picture: Tensor) -> Tensor:
    """−mean log of the distance to the nearest view of another picture.

    >>> float(spread_loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))) < 0
    True
    """
    distances = (2 - 2 * z @ z.T).clamp(min=0)
    distances = distances.masked_fill(picture[:, None] == picture[None], torch.inf)
    return -0.5 * torch.log(distances.min(1).values + 1e-8).mean()


def save_descriptor(net: CopyNet, background: np.ndarray, path: str | Path) -> None:
    """Weights and the descriptors of background pictures, in one file that ``--descriptor`` takes."""
    from safetensors.torch import save

    state = {f"net.{k}": v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    state["background"] = torch.from_numpy(np.ascontiguousarray(background, np.float32))
    write_atomic(path, save(state, {"vestige": json.dumps({"kind": _KIND, "config": net.config})}))


class TrainedDescriptor:
    """What `save_descriptor` wrote, as a `Descriptor`; its name is the path, so that an index finds it again.

    Raises InputError for a file of another kind.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        path = Path(path).resolve()
        try:
            with safe_open(str(path), "pt") as file:
                about: Any = json.loads((file.metadata() or {}).get("vestige", "null"))
            if about["kind"] != _KIND:
                raise ValueError
            self.net = CopyNet(**{k: about["config"][k] for k in ("dims", "width", "size")})
            state = ModelSubject.open(path).state_dict()
            self.background = state.pop("background").float().numpy()
            self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items()})
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, UsageError):
            raise InputError(f"{path} holds no descriptor of copies; 'vestige learn sscd' writes one.") from None
        self.net.eval().requires_grad_(False)
        self.name, self.width = str(path), int(about["config"]["dims"])
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def describe(self, pixels: np.ndarray) -> np.ndarray | None:
        """float32 of length one; None for a picture without any contrast."""
        if pixels.max() == pixels.min():
            return None
        small = cv2.resize(pixels, (self.net.size,) * 2, interpolation=cv2.INTER_AREA)
        with torch.no_grad():
            return self.net(torch.from_numpy(small.transpose(2, 0, 1)[None].astype(np.float32) / 255))[0].numpy()
