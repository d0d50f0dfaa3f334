"""RIGID: generated pictures by how much faint noise moves them in the features of a frozen encoder. No training.

Photographs are said to lie where features are flat, generated pictures where they are steep. What moves features,
and in which direction generators deviate, depends on the encoder and on the size of the noise: `RIGID.sweep` shows it,
and a sign or a noise level must never be chosen on the generators it is judged by.

Source: RIGID: A Training-free and Model-Agnostic Framework for Robust AI-Generated Image Detection, arXiv 2405.20112
(2024); the blurred copy and the smaller of both distances, in a plain form: Understanding and Improving Training-Free
AI-Generated Image Detections with Vision Foundation Models, arXiv 2411.19117 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.core.runtime import device as device_of
from vestige.core.runtime import rng
from vestige.forensics.generated import picture_digest, squares_of
from vestige.metrics.detection import auroc, null_threshold
from vestige.nn.backbone import load_backbone
from vestige.nn.features import FeatureNet, load_feature_net

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

SPACES, MODES = ("normalised", "pixel"), ("noise", "blur", "both")
#: Spread of the channels that an encoder normalises by where it does not say, the mean of ImageNet's.
_SPREAD = 0.225


class RIGID:
    """Score 1 - cos(f(x), f(x + λδ)), δ ~ N(0, I), averaged over ``draws``; higher for generated.

    encoder: a callable from images float N×3×H×W in [0, 1] to N×d, a module with ``features``, or what `load_backbone`
    takes (a ViT or MAE file, a folder); None is the small network that comes with vestige, which has seen drawn scenes
    only and is no foundation model. lambda_: size of the noise, in spreads of the encoder's normalised input (space
    "normalised") or of [0, 1] (space "pixel"). seed: the noise follows from it and the picture, not from its place in
    a batch. mode: "noise"; "blur" compares with a copy blurred by ``blur`` pixels; "both" takes the smaller distance.
    size: pictures are resized to that side first, None leaves them. quantise: clip and round the noisy picture to
    eight bits, which takes part of the noise away. sign: -1 where validation generators score lower than photographs.
    Raises UsageError for settings out of range; InputError for encoders that cannot be read.

    >>> x = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    >>> RIGID(lambda images: images.flatten(1), lambda_=0.0).score(x).tolist()
    [0.0, 0.0]
    """

    slug = "rigid"
    photographs = True
    kind = "generated"

    def __init__(
        self, encoder: Any = None, lambda_: float = 0.05, space: str = "normalised", draws: int = 3, seed: int = 0, *,
        mode: str = "noise", blur: float = 0.55, size: int | None = None, quantise: bool = False, sign: int = 1,
        side: int = 64, count: int = 4, device: str = "cpu",
    ) -> None:  # fmt: skip
        if space not in SPACES or mode not in MODES or sign not in (1, -1):
            raise UsageError(f"space is one of {', '.join(SPACES)}, mode one of {', '.join(MODES)}, sign 1 or -1.")
        if not 0 <= lambda_ <= 10 or draws < 1 or not 0 < blur <= 10 or (size is not None and size < 8):
            raise UsageError("lambda_ lies from 0 to 10, blur above 0 and up to 10, draws from 1, size from 8.")
        self.lambda_, self.space, self.draws, self.seed = lambda_, space, draws, seed
        self.mode, self.blur, self.size, self.quantise, self.sign = mode, blur, size, quantise, sign
        self.side, self.count, self.device = side, count, device_of(device)
        self.threshold: float | None = None
        self._given = encoder
        self._loaded: tuple[Callable[[Tensor], Tensor], Tensor] | None = None

    @property
    def encoder(self) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """(features of images in [0, 1], spread of the channels that it divides by, 3×1×1)."""
        if self._loaded is None:
            self._loaded = _encoder(self._given, self.device)
        return self._loaded

    def scale(self, space: str | None = None) -> Tensor:
        """λ for each channel, 3×1×1, in units of [0, 1] (space "pixel") or of the normalised input."""
        spread = self.encoder[1]
        pixel = self.lambda_ * (spread if self.space == "normalised" else torch.ones_like(spread))
        return pixel if (space or "pixel") == "pixel" else pixel / spread

    def score(self, images: np.ndarray | Tensor, *, batch_size: int = 64) -> np.ndarray:
        """float64 N for images N×3×H×W, float in [0, 1] or uint8.

        Raises UsageError for other arrays, InputError for samples or features that are not finite.
        """
        x = _as_tensor(images)
        parts = [self._scored(part.to(self.device)) for part in x.split(batch_size)]
        return self.sign * torch.cat(parts).cpu().numpy()

    @torch.no_grad()
    def _scored(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True).clamp(0, 1)
        features, similarities = self.encoder[0], []
        clean = features(images)
        if self.mode != "blur":
            drawn = [
                _cosine(clean, features(self._noisy(images, [rng(self.seed, "rigid", k, d) for d in digests])))
                for digests in [[picture_digest(image) for image in images]]
                for k in range(self.draws)
            ]
            similarities.append(torch.stack(drawn).mean(0))
        if self.mode != "noise":
            similarities.append(_cosine(clean, features(_blurred(images, self.blur))))
        return 1 - torch.stack(similarities).amax(0)

    def _noisy(self, images: Tensor, draws: list[np.random.Generator]) -> Tensor:
        noise = np.stack([draw.standard_normal(images.shape[1:], np.float32) for draw in draws])
        noisy = images + self.scale().to(images) * torch.from_numpy(noise).to(images)
        return (noisy.clamp(0, 1) * 255).round() / 255 if self.quantise else noisy

    def calibrate(self, real_images: np.ndarray | Tensor, fpr: float = 0.05) -> float:
        """Set and return the ``threshold`` at or above which at most ``fpr`` of these photographs score."""
        self.threshold = null_threshold(self.score(real_images), fpr)
        return self.threshold

    def sweep(
        self, lambdas: Sequence[float], real: np.ndarray | Tensor, fakes: Mapping[str, np.ndarray | Tensor]
    ) -> list[dict[str, Any]]:
        """AUROC of every generator at every noise level, and the sign that would make it at least 0.5.

        Rows: generator, lambda (normalised), lambda (pixel), auroc with sign 1, sign. The levels are in this object's
        space; it keeps its own.
        """
        own, rows = (self.lambda_, self.sign), []
        try:
            self.sign = 1
            for level in lambdas:
                self.lambda_ = float(level)
                null = self.score(real)
                sizes = {f"lambda ({space})": round(float(self.scale(space).mean()), 5) for space in SPACES}
                for name, images in fakes.items():
                    scores = self.score(images)
                    area = auroc(np.repeat([False, True], [len(null), len(scores)]), np.append(null, scores))
                    rows.append({"generator": name, **sizes, "auroc": area, "sign": 1 if area >= 0.5 else -1})
        finally:
            self.lambda_, self.sign = own
        return rows

    def find(self, subject: ImageSubject) -> Finding:
        """ln of the mean score over squares at the picture's own resolution; see `windows`."""
        squares, why = squares_of(subject, self.side, self.count)
        if why:
            return Finding.not_applicable(self.slug, self.kind, why)
        values = np.abs(self.score(squares))
        return Finding(
            self.slug,
            self.kind,
            self.sign * math.log(float(values.mean()) + 1e-9),
            "Faint noise moves the picture further in the encoder's features than it moves photographs, as is said of "
            "generated pictures; this is weak evidence.",
            "Faint noise moves the picture no further than photographs; this says little.",
            evidence=(f"mean distance of {len(values)} squares from their noisy copies: {values.mean():.3g}",),
            details={"squares": len(values), "lambda": self.lambda_, "space": self.space, "mode": self.mode},
        )


def _encoder(given: Any, device: torch.device) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    if given is None:
        given = load_feature_net()
    elif isinstance(given, str | Path):
        given = load_backbone(given)
    if isinstance(given, torch.nn.Module):
        given = given.eval().to(device)
    spread = getattr(given, "std", None)
    features = getattr(given, "features", given)
    if not callable(features):
        raise UsageError("An encoder is a callable from images to features, a module, or the path of one.")

    def encode(images: Tensor) -> Tensor:
        found = features(images)
        return getattr(found, "pooled", found)

    if not isinstance(spread, Tensor) or spread.numel() != 3:
        spread = torch.full((3,), 0.25 if isinstance(given, FeatureNet) else _SPREAD)
    return encode, spread.detach().reshape(3, 1, 1).to(device)


def _as_tensor(images: np.ndarray | Tensor) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    if x.ndim != 4 or x.shape[1] != 3 or not len(x) or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise UsageError(f"Pictures are float or uint8 N×3×H×W; got {x.dtype} {tuple(x.shape)}.")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if not torch.isfinite(x).all():
        raise InputError("The pictures hold samples that are not finite (NaN or infinity).")
    return x


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """float64 N, in double precision because the similarities are close to 1."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    # Equal rows must give exactly 1.
    dot, norms = (a * b).sum(1), ((a * a).sum(1) * (b * b).sum(1)).sqrt()
    found = torch.where((a == b).all(1), torch.ones_like(dot), dot / norms.clamp_min(1e-30))
    if not torch.isfinite(found).all():
        raise InputError("The encoder gives features that are not finite; use another one.")
    return found


def _blurred(images: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float32) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(images)
    mode = "reflect" if min(images.shape[2:]) > radius else "replicate"
    x = F.pad(images, (radius,) * 4, mode=mode).flatten(0, 1)[:, None]
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return x.view_as(images)
