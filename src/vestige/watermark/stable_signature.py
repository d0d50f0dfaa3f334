"""Stable Signature: fine-tune an image decoder so that everything it makes reads as one fixed message.

    L = BCE(W(D_m(z)), m) + image_weight · d(D_m(z), D(z))

over latents z of pictures; only the decoder D_m moves. W is a frozen extractor, such as the reader of HiDDeN or of
WOUAF; every user costs a training run of about a hundred steps.

Source: The Stable Signature: Rooting Watermarks in Latent Diffusion Models, ICCV 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.scenes import render_pack
from vestige.engines.marking.model import load_marker, straight_clamp
from vestige.engines.optim import learning_rate, make_optimizer, set_lr
from vestige.nn.features import load_feature_net
from vestige.nn.vae import decode, encode
from vestige.watermark.hidden import HiddenNet
from vestige.watermark.learned import as_tensor, load_weights
from vestige.watermark.wouaf import Wouaf, WouafNet, image_distance

#: Pictures N×3×H×W in [0, 1] -> logits N×L, above 0 for a one.
Extractor = Callable[[Tensor], Tensor]


@torch.no_grad()
def whitened(extractor: Extractor, images: Tensor) -> Extractor:
    """An extractor whose logits on unmarked ``images`` have zero mean and are uncorrelated with unit variance.

    soft' = Σ^(-1/2) (soft − μ), Σ and μ over ``images``; without it messages near the extractor's favourite word are
    easier to embed, and its bits on plain pictures are no fair coins. Raises UsageError for fewer pictures than bits.

    >>> pictures = torch.rand(64, 3, 4, 4)
    >>> whitened(lambda x: x.mean((2, 3)) + 3, pictures)(pictures[:2]).shape
    torch.Size([2, 3])
    """
    soft = torch.cat([extractor(part).float() for part in images.split(32)]).double()
    if len(soft) <= soft.shape[1]:
        raise UsageError(f"Whitening {soft.shape[1]} bits takes more pictures than that; got {len(soft)}.")
    values, vectors = torch.linalg.eigh(torch.cov(soft.T).view(soft.shape[1], -1))
    # A bit that says nearly nothing would be blown up into noise.
    root = (vectors * values.clamp_min(1e-3 * float(values.max())).rsqrt()) @ vectors.T
    matrix, mean = root.float(), soft.mean(0).float()
    return lambda x: (extractor(x).float() - mean) @ matrix


def shipped_extractor(weights: str | Path | None = None) -> tuple[Extractor, int]:
    """A frozen reader, whitened on rendered scenes, and the size of the pictures it reads.

    weights: of HiDDeN, as in the paper, or of WOUAF, whose shipped reader is the default. Raises InputError for others.
    """
    net: Any = None
    for slug, build in (("hidden", HiddenNet), ("wouaf", WouafNet)):
        try:
            net, _ = load_marker(weights, slug, build) if weights is not None else load_weights("wouaf", WouafNet)
            break
        except InputError:
            if weights is None or slug == "wouaf":
                raise
    net = net.eval().requires_grad_(False)
    pictures = torch.from_numpy(render_pack(4 * net.bits + 64, net.size, 90).images).float() / 255
    return whitened(lambda x: net.read(x).soft, pictures), int(net.size)


class StableSignature:
    """Decoders with one fixed message, against a frozen extractor.

    extractor: see `Extractor`; None takes the reader of the shipped WOUAF weights. steps, batch_size, lr, image_weight:
    of the fine-tuning (paper: 100, 4, 5e-4, 0.2); the image term is the distance of this package's feature network at
    up to 32 pixels and ``pixels`` times the mean squared error (paper: Watson-VGG). warmup: share of the steps.

    Source: The Stable Signature: Rooting Watermarks in Latent Diffusion Models, ICCV 2023.

    >>> from vestige.nn.vae import small_vae
    >>> method = StableSignature(lambda x: x.mean((2, 3)) - 0.5, steps=1, batch_size=1)
    >>> marked = method.stamp(small_vae(16, (8, 16), 4), np.array([1, 0, 1]), torch.rand(2, 3, 16, 16))
    >>> method.read(np.zeros((1, 3, 16, 16), np.float32)).shape
    (1, 3)
    """

    slug = "stable_signature"

    def __init__(
        self,
        extractor: Extractor | None = None,
        *,
        steps: int = 100,
        batch_size: int = 4,
        lr: float = 5e-4,
        image_weight: float = 0.2,
        pixels: float = 10.0,
        warmup: float = 0.2,
        seed: int = 0,
    ) -> None:
        if min(steps, batch_size) < 1 or lr <= 0 or min(image_weight, pixels) < 0 or not 0 <= warmup < 1:
            raise UsageError("steps and batch_size are at least 1, lr above 0, weights at least 0, warmup in [0, 1).")
        self.steps, self.batch_size, self.lr, self.warmup, self.seed = steps, batch_size, lr, warmup, seed
        self.image_weight, self.pixels = image_weight, pixels
        self._extractor = extractor

    @torch.no_grad()
    def length(self, pictures: Tensor) -> int:
        """Bits of a message: as many as the extractor reads."""
        return int(self.extractor(pictures[:1]).shape[1])

    @property
    def extractor(self) -> Extractor:
        """The frozen reader; raises InputError when it is the shipped one and that is not installed."""
        if self._extractor is None:
            self._extractor = Wouaf().network.reader
        return self._extractor

    def stamp(self, vae: Any, bits: np.ndarray, pictures: Tensor) -> Any:
        """A copy of ``vae`` whose decoder writes ``bits`` (bool (L,)) into every picture.

        pictures: float N×3×S×S in [0, 1] to fine-tune on. Raises UsageError when the extractor reads another number of
        bits, or the pictures are of another form.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) == 0 or not pictures.is_floating_point():
            raise UsageError(f"Pictures must be float N×3×H×W in [0, 1]; got {pictures.dtype} {tuple(pictures.shape)}.")
        frozen = copy.deepcopy(vae).eval().requires_grad_(False)
        tuned = copy.deepcopy(frozen)
        tuned.decoder.requires_grad_(True)
        extractor = self.extractor
        length = self.length(pictures)
        word = torch.from_numpy(np.asarray(bits).astype(np.float32))
        if word.shape != (length,):
            raise UsageError(f"The extractor reads {length} bits, the message has shape {tuple(word.shape)}.")
        judge = load_feature_net()
        optimizer = make_optimizer(tuned.decoder.parameters(), lr=self.lr, weight_decay=0.0)
        for step in range(self.steps):
            rate = learning_rate(
                step, step / self.steps, lr=self.lr, min_lr=1e-6, warmup=self.warmup, steps=self.steps,
                schedule="cosine",
            )  # fmt: skip
            set_lr(optimizer, rate)
            chosen = rng(self.seed, "stable signature", step).integers(0, len(pictures), self.batch_size)
            with torch.no_grad():
                latents = encode(frozen, pictures[chosen] * 2 - 1)
                plain = (decode(frozen, latents) / 2 + 0.5).clamp(0, 1)
            made = straight_clamp(decode(tuned, latents) / 2 + 0.5)
            soft = extractor(made)
            message = F.binary_cross_entropy_with_logits(soft, word.to(soft).expand_as(soft))
            image = image_distance(plain, made, judge, self.pixels)
            optimizer.zero_grad(set_to_none=True)
            (message + self.image_weight * image).backward()
            nn.utils.clip_grad_norm_(tuned.decoder.parameters(), 1.0)
            optimizer.step()
        return tuned.requires_grad_(False).eval()

    @torch.no_grad()
    def read(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 N×L of pictures float N×3×S×S in [0, 1], of the size the extractor reads."""
        return torch.cat([self.extractor(part) for part in as_tensor(images).split(64)]).float().numpy()
