"""A scene of Gaussians that a small decoder and the right key turn into another scene.

Source: All That Glitters Is Not Gold: Key-Secured 3D Secrets within 3D Gaussian Splatting, ICLR 2026
(arXiv 2503.07191). This implementation optimises a fixed number of Gaussians (no splitting or pruning), and its default
key encoder is a keyed hash instead of a CLIP text encoder.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.engines.run_state import load_trained, write_model
from vestige.engines.splatting import Cameras, Gaussians, Rates, descend, photometric, render
from vestige.engines.splatting.fit import BLACK, SHORT, check_views
from vestige.engines.splatting.gaussians import SH_COUNTS

#: A key's text -> a vector of unit length (D,).
KeyEncoder = Callable[[str], Tensor]
ALPHABET = string.ascii_letters + string.digits
KEY_LENGTH = 16
#: What a decoder can change, in the order of the paper's ablation.
ATTRIBUTES = ("opacity", "rotation", "xyz", "scale", "sh")
_MAX_DECODER = 64 * 2**20


@dataclass(frozen=True)
class HashedKey:
    """A key's text as a random direction: vectors of different keys, also near misses, are independent.

    >>> encode = HashedKey(64)
    >>> bool(abs(encode("Ab3dEf6hIj9lMn2p") @ encode("Ab3dEf6hIj9lMn2q")) < 0.6)
    True
    """

    dim: int = 64

    def __call__(self, key: str) -> Tensor:
        draw = rng(0, "keyss key", key).normal(size=self.dim)
        return F.normalize(torch.from_numpy(draw).float(), dim=0)


@dataclass(frozen=True)
class TextKey:
    """The published encoder: the mean of all last hidden states of a text encoder, padding included, at unit length.

    tokenizer, encoder: of transformers (the paper takes CLIP ViT-L/14). The padding that all keys share makes their
    vectors nearly parallel: look at the cosine of near misses, and train with them (``near_misses``).
    """

    tokenizer: Any
    encoder: Any

    @torch.no_grad()
    def __call__(self, key: str) -> Tensor:
        tokens = self.tokenizer([key], padding="max_length", truncation=True, return_tensors="pt")
        hidden = self.encoder(input_ids=tokens["input_ids"], attention_mask=tokens.get("attention_mask"))[0]
        return F.normalize(hidden.float().mean((0, 1)), dim=0)


def random_key(draw: np.random.Generator) -> str:
    """A key of 16 letters and digits."""
    return "".join(draw.choice(list(ALPHABET), KEY_LENGTH))


def near_miss(key: str, draw: np.random.Generator) -> str:
    """The key with one character changed; raises UsageError for an empty key."""
    if not key:
        raise UsageError("An empty key has no near miss; give a key of at least one character.")
    place = int(draw.integers(len(key)))
    other = draw.choice([c for c in ALPHABET if c != key[place]])
    return f"{key[:place]}{other}{key[place + 1 :]}"


class KeyDecoder(nn.Module):
    """[Gaussian, key vector] -> 64 -> 128, and for every chosen attribute 128 -> 128 -> its change h.

    scale, rotation, xyz and sh become raw + ReLU(h), opacity raw + h, all on the stored values, before exponential,
    normalisation and sigmoid. inside: numbers that describe a Gaussian, 14, 23, 38 or 59 for degrees 0
    to 3. Every Gaussian is decoded on its own. Raises UsageError for unknown attributes or none, or sizes out of range.
    """

    def __init__(
        self, attributes: Sequence[str] = ATTRIBUTES[:4], inside: int = 59, key_dim: int = 64, width: int = 64,
        hidden: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        if not attributes or len(set(attributes)) != len(attributes) or not set(attributes) <= set(ATTRIBUTES):
            raise UsageError(f"A decoder changes some of {', '.join(ATTRIBUTES)}; got {list(attributes)}.")
        known = inside in {11 + 3 * count for count in SH_COUNTS}
        if not (known and all(1 <= n <= 2048 for n in (key_dim, width, hidden))):
            raise UsageError(f"No decoder has sizes {inside}, {key_dim}, {width}, {hidden}.")
        self.settings = {
            "attributes": list(attributes), "inside": inside, "key_dim": key_dim, "width": width, "hidden": hidden,
        }  # fmt: skip
        sizes = {"opacity": 1, "rotation": 4, "xyz": 3, "scale": 3, "sh": inside - 11}
        self.inside, self.key_dim = inside, key_dim
        self.trunk = nn.Sequential(nn.Linear(inside + key_dim, width), nn.ReLU(), nn.Linear(width, hidden), nn.ReLU())
        self.heads = nn.ModuleDict(
            {a: nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, sizes[a])) for a in attributes}
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, gaussians: Gaussians, key: Tensor) -> Gaussians:
        """The scene that this key vector (key_dim,) gives. Raises UsageError for other sizes."""
        rows = gaussians.vectors()
        if rows.shape[1] != self.inside or key.shape != (self.key_dim,):
            raise UsageError(
                f"This decoder reads Gaussians of {self.inside} numbers and keys of {self.key_dim}; got "
                f"{rows.shape[1]} and {tuple(key.shape)}."
            )
        seen = self.trunk(torch.cat([rows, key.to(rows).expand(len(rows), -1)], 1))
        changed = {}
        for name, head in self.heads.items():
            raw = gaussians.tensors()[name]
            change = head(seen).view_as(raw)
            changed[name] = raw + (change if name == "opacity" else F.relu(change))
        return replace(gaussians, **changed)


@dataclass(frozen=True)
class KeySS:
    """Optimise Gaussians G and a decoder D so that G is the cover, D(G, key) the secret, D(G, other key) the cover:

        L = 0.5 R(G, cover) + 0.5 R(D(G, key), secret) + 0.01 R(D(G, random key), cover)
        R(x, y) = (1 − λ) |x − y| + λ (1 − SSIM), of renderings x and pictures y

    attributes: what D changes. encoder: text -> unit vector. cover_weight, secret_weight, wrong_weight: of the three
    terms; with several secrets each has a term. near_misses: share of the other keys that differ from a true one in a
    single character. ssim_weight: λ. rates: of the Gaussians; decoder_rate falls to decoder_decay times itself.
    batch: views of a step. Defaults are the paper's, for 30,000 steps; `short` has settings for a thousand.

    Source: All That Glitters Is Not Gold: Key-Secured 3D Secrets within 3D Gaussian Splatting, ICLR 2026.

    >>> from vestige.engines.splatting import random_gaussians, ring
    >>> views = torch.rand(2, 3, 16, 16)
    >>> method = KeySS.short(iterations=2)
    >>> scene, decoder = method.hide(random_gaussians(30), ring(2, 16), views, {"Ab3dEf6hIj9lMn2p": 1 - views})
    >>> len(method.reveal(scene, decoder, "Ab3dEf6hIj9lMn2p"))
    30
    """

    attributes: tuple[str, ...] = ATTRIBUTES[:4]
    encoder: KeyEncoder = field(default_factory=HashedKey)
    width: int = 64
    hidden: int = 128
    cover_weight: float = 0.5
    secret_weight: float = 0.5
    wrong_weight: float = 0.01
    near_misses: float = 0.0
    ssim_weight: float = 0.2
    iterations: int = 30_000
    rates: Rates = field(default_factory=Rates)
    decoder_rate: float = 5e-5
    decoder_decay: float = 1.0
    batch: int = 1
    background: tuple[float, float, float] = BLACK
    seed: int = 0

    slug = "keyss"

    @classmethod
    def short(cls, **settings: Any) -> KeySS:
        """Settings for about a thousand steps on small views, where the wrong-key term needs a larger share."""
        usual = {
            "iterations": 1000, "rates": SHORT, "decoder_rate": 2e-3, "decoder_decay": 0.1, "wrong_weight": 0.5,
        }  # fmt: skip
        return cls(**{**usual, **settings})

    def hide(
        self, start: Gaussians, cameras: Cameras, cover: Tensor, secrets: Mapping[str, Tensor]
    ) -> tuple[Gaussians, KeyDecoder]:
        """The Gaussians to publish, and the decoder.

        start: where the optimisation begins; their number stays. cover: C×3×H×W, the views of the cameras. secrets:
        for every key the views of the scene it opens. Raises UsageError for views that do not fit the cameras, no
        secret, an empty key or settings out of range.
        """
        check_views(cameras, cover, "The cover's views")
        if not secrets or not all(secrets):
            raise UsageError("KeySS hides at least one secret, each under a key of at least one character.")
        for views in secrets.values():
            check_views(cameras, views, "A secret's views")
        vectors = {key: self._vector(key, cover) for key in secrets}
        inside = start.vectors().shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            dim = len(next(iter(vectors.values())))
            decoder = KeyDecoder(self.attributes, inside, dim, self.width, self.hidden).to(cover.device)
        draw = rng(self.seed, "wrong keys")

        def term(scene: Gaussians, wanted: Tensor, views: Tensor) -> Tensor:
            drawn = render(scene, cameras[views], background=self.background)
            return photometric(drawn, wanted[views], self.ssim_weight)

        def loss(scene: Gaussians, views: Tensor) -> Tensor:
            total = self.cover_weight * term(scene, cover, views)
            for key, secret in secrets.items():
                total = total + self.secret_weight * term(decoder(scene, vectors[key]), secret, views)
            if self.wrong_weight > 0:
                wrong = self._vector(self._wrong_key(list(secrets), draw), cover)
                total = total + self.wrong_weight * term(decoder(scene, wrong), cover, views)
            return total

        optimizer = torch.optim.AdamW(decoder.parameters(), lr=self.decoder_rate, weight_decay=1e-4)
        scene = descend(
            start, loss, len(cameras), iterations=self.iterations, rates=self.rates, batch=self.batch,
            seed=self.seed, others=optimizer, decay=self.decoder_decay,
        )  # fmt: skip
        return scene, decoder.eval()

    @torch.no_grad()
    def reveal(self, gaussians: Gaussians, decoder: KeyDecoder, key: str) -> Gaussians:
        """The scene that this key gives: a secret for its own key, the cover for any other."""
        return decoder(gaussians, self._vector(key, gaussians.xyz))

    def measure(self, original: Gaussians, published: Gaussians) -> dict[str, float]:
        """How far the published scene's statistics are from an ordinary one's: see `scene_distance`."""
        return scene_distance(original, published)

    def _vector(self, key: str, like: Tensor) -> Tensor:
        return self.encoder(key).to(like)

    def _wrong_key(self, keys: list[str], draw: np.random.Generator) -> str:
        while True:
            near = self.near_misses > 0 and draw.random() < self.near_misses
            found = near_miss(keys[int(draw.integers(len(keys)))], draw) if near else random_key(draw)
            if found not in keys:
                return found


def save_decoder(path: str | Path, decoder: KeyDecoder) -> None:
    """Write a decoder as safetensors, atomically; it holds no key."""
    write_model(Path(path), decoder, {"keyss": decoder.settings})


def load_decoder(path: str | Path) -> KeyDecoder:
    """Read a decoder in evaluation mode.

    Raises InputError when the file is missing, damaged, larger than 64 MiB or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    other = InputError(f"{path} holds no KeySS decoder; give one that save_decoder wrote.")
    try:
        if Path(path).stat().st_size > _MAX_DECODER:
            raise other
        with safe_open(str(path), "pt") as file:
            settings = json.loads((file.metadata() or {})["keyss"])
        decoder = KeyDecoder(**settings)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError, UsageError):
        raise other from None
    load_trained(path, decoder)
    return decoder


def sinkhorn(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, *, regularisation: float = 0.01, steps: int = 100
) -> float:
    """Cost of the entropic transport plan between two histograms: min ⟨P, C⟩ − ε H(P), in the logarithmic domain.

    a: n, b: m, positive, each summing to 1; cost: n×m. Raises UsageError for other shapes or a non-positive ε.
    Source: Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013.

    >>> bool(sinkhorn(np.array([1.0, 1e-9]), np.array([1e-9, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])) > 0.99)
    True
    """
    from scipy.special import logsumexp

    if cost.shape != (len(a), len(b)) or not regularisation > 0:
        raise UsageError(f"Transport needs costs of shape {(len(a), len(b))} and ε > 0; got {cost.shape}.")
    kernel, log_a, log_b = -cost / regularisation, np.log(a), np.log(b)
    u, v = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(steps):
        v = log_b - logsumexp(kernel + u[:, None], axis=0)
        u = log_a - logsumexp(kernel + v, axis=1)
    return float((np.exp(u[:, None] + kernel + v) * cost).sum())


def scene_distance(original: Gaussians, published: Gaussians, *, bins: int = 100) -> dict[str, float]:
    """3D-Sinkhorn: transport between histograms of opacity and of ‖scale‖, ‖rotation‖, ‖xyz‖, ‖SH constant‖.

    Lengths are divided by the scene's largest; the bins are the original's. Returns the five values, their "mean"
    and "outside", the mean share of published values that fall beyond those bins and are not counted.

    >>> from vestige.engines.splatting import random_gaussians
    >>> scene_distance(random_gaussians(50), random_gaussians(50))["mean"] < 0.01
    True
    """
    values, outside = {}, []
    for (name, first), second in zip(_lengths(original).items(), _lengths(published).values(), strict=True):
        counts, edges = np.histogram(first, bins)
        others, _ = np.histogram(second, edges)
        outside.append(1 - others.sum() / len(second))
        a, b = ((h + 1e-10) / (h + 1e-10).sum() for h in (counts, others))
        centers = (edges[:-1] + edges[1:]) / 2
        values[name] = sinkhorn(a, b, np.abs(centers[:, None] - centers))
    return {**values, "mean": float(np.mean(list(values.values()))), "outside": float(np.mean(outside))}


def _lengths(scene: Gaussians) -> dict[str, np.ndarray]:
    lengths = {"scale": scene.scale.exp(), "rotation": scene.rotation, "xyz": scene.xyz, "sh": scene.sh[:, 0]}
    found = {"opacity": scene.opacity.sigmoid()[:, 0]}
    for name, tensor in lengths.items():
        norm = tensor.norm(dim=1)
        found[name] = norm / norm.max().clamp_min(1e-12)
    return {name: tensor.detach().cpu().double().numpy() for name, tensor in found.items()}
