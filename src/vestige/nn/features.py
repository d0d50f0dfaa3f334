"""The network behind our FID, KID and perceptual distance: a small residual classifier for pictures of 32 to 64 pixels.

Figures from it compare only among themselves, never with published ones that use another network. With random weights
it still separates distributions coarsely (colour, texture), which is enough for tests; `FeatureNet.provenance` says
which weights are in use.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.models.checkpoint import ModelSubject

WIDTHS = (32, 64, 128, 256)
BLOCKS = (2, 2, 2, 1)
#: Where trained weights are shipped.
DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "feature_net.safetensors"


class Features(NamedTuple):
    """pooled: N×256, for distances between sets. maps: four maps N×C_l×H_l×W_l, fine to coarse, for `perceptual`."""

    pooled: Tensor
    maps: list[Tensor]


class Block(nn.Module):
    """y = relu(x' + BN(conv(relu(BN(conv x))))), x' = x or a strided 1×1 convolution of it (He et al., CVPR 2016)."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide_out)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide_out)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or wide_in != wide_out:
            self.short = nn.Sequential(nn.Conv2d(wide_in, wide_out, 1, stride, bias=False), nn.BatchNorm2d(wide_out))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C'×(H/stride)×(W/stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.short(x) + self.norm2(self.conv2(y)))


class FeatureNet(nn.Module):
    """Residual network of 1.6 million parameters with one linear classifier for each head.

    heads: {name: number of classes} to train it with (for example {"object": 6, "style": 6}). seed: of the random
    weights; the global generators of torch are left as they were. Raises UsageError for a head without two classes.

    >>> net = FeatureNet({"label": 10}).eval()
    >>> features = net(torch.rand(2, 3, 32, 32))
    >>> features.pooled.shape, [tuple(m.shape[1:]) for m in features.maps]
    (torch.Size([2, 256]), [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)])
    """

    def __init__(self, heads: Mapping[str, int] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        heads = dict(heads or {})
        if any(n < 2 or not name.isidentifier() for name, n in heads.items()):
            raise UsageError(f"Each head needs a plain name and at least two classes; got {heads}.")
        with torch.random.fork_rng(devices=[]):
            self.stem = nn.Sequential(
                nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
            )
            self.stages = nn.ModuleList()
            wide_in = WIDTHS[0]
            for index, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
                strides = [2 if index else 1] + [1] * (count - 1)
                blocks = [Block(width if i else wide_in, width, s) for i, s in enumerate(strides)]
                self.stages.append(nn.Sequential(*blocks))
                wide_in = width
            self.heads = nn.ModuleDict({name: nn.Linear(WIDTHS[-1], n) for name, n in heads.items()})
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01, generator=generator)
                nn.init.zeros_(module.bias)
        self.provenance = f"random weights, seed {seed}"

    def forward(self, images: Tensor) -> Features:
        """images: float N×3×H×W sRGB in [0, 1], sides of at least 8 pixels. Raises UsageError for other shapes."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 8 or not images.is_floating_point():
            raise UsageError(
                f"Features are taken from float pictures N×3×H×W with sides of at least 8 pixels; "
                f"got {images.dtype} {tuple(images.shape)}."
            )
        x = self.stem((images - 0.5) / 0.25)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return Features(x.mean((2, 3)), maps)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The list of maps alone: what `vestige.metrics.perceptual.perceptual_distance` asks for."""
        return self(images).maps

    def classify(self, images: Tensor) -> dict[str, Tensor]:
        """Logits N×K of every head."""
        pooled = self(images).pooled
        return {name: head(pooled) for name, head in self.heads.items()}


def load_feature_net(path: str | Path | None = None, *, seed: int = 0) -> FeatureNet:
    """The network in evaluation mode with its weights frozen (gradients still reach the pictures).

    path: a file written by `save_feature_net`. Without one: the shipped weights, or, where none are shipped, random
    weights of that seed and a warning. ``provenance`` names the file and the first digits of its sha256, to be printed
    with every figure. Raises InputError for a file that does not hold such a network.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     load_feature_net().training
    False
    """
    if path is None and not DEFAULT_WEIGHTS.exists():
        warnings.warn(
            f"No trained feature network is shipped; figures use random weights (seed {seed}) and compare only with "
            "others of the same seed.",
            stacklevel=2,
        )
        net = FeatureNet(seed=seed)
    else:
        net = _read(Path(path or DEFAULT_WEIGHTS))
    return net.eval().requires_grad_(False)


def _read(path: Path) -> FeatureNet:
    subject = ModelSubject.open(path)
    weights = subject.state_dict()
    heads = {
        name.split(".")[1]: len(weight)
        for name, weight in weights.items()
        if name.startswith("heads.") and name.endswith(".weight")
    }
    try:
        net = FeatureNet(heads)
        net.load_state_dict(weights)
    except (RuntimeError, UsageError):
        raise InputError(f"{path} does not hold a feature network of this version; train it again.") from None
    if not all(torch.isfinite(w).all() for w in weights.values()):
        raise InputError(f"{path} holds weights that are not finite; train the feature network again.")
    net.provenance = f"{path.name}, sha256 {subject.sha256[:12]}"
    return net


def save_feature_net(net: FeatureNet, path: str | Path) -> None:
    """Write the weights as safetensors, atomically; raises InputError when the folder cannot be written."""
    from safetensors.torch import save

    write_atomic(path, save({name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}))


def extract_features(
    net: FeatureNet, images: Tensor | np.ndarray, *, size: int | None = None, batch_size: int = 256
) -> np.ndarray:
    """Pooled features of many pictures, float32 N×256, on the device of the network, in evaluation mode.

    images: uint8 or float N×3×H×W, uint8 being divided by 255. size: resize to size×size first (bilinear with
    anti-aliasing); real and generated pictures must go through the same. Raises UsageError for other arrays and
    InputError for samples that are not finite.

    >>> extract_features(FeatureNet(), np.zeros((3, 3, 32, 32), np.uint8)).shape
    (3, 256)
    """
    tensor = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    if tensor.ndim != 4 or tensor.shape[1] != 3 or len(tensor) == 0:
        raise UsageError(f"Features are taken from pictures N×3×H×W; got shape {tuple(tensor.shape)}.")
    if not (tensor.is_floating_point() or tensor.dtype == torch.uint8):
        raise UsageError(f"Pictures must be uint8, or float in [0, 1]; got {tensor.dtype}.")
    device = next(net.parameters()).device
    was_training, found = net.training, []
    net.eval()
    try:
        with torch.no_grad():
            for batch in tensor.split(batch_size):
                x = batch.to(device)
                x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
                if size is not None and tuple(x.shape[2:]) != (size, size):
                    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
                found.append(net(x).pooled.cpu())
    finally:
        net.train(was_training)
    features = torch.cat(found).numpy()
    if not np.isfinite(features).all():
        raise InputError("Some pictures hold samples that are not finite (NaN or infinity); repair or leave them out.")
    return features
