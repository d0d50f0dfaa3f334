"""The networks of Safe-SD: one encoder for pictures and marks, an injection convolution, two decoders, keyed mixing.

    z_i = E(x),  z_w = E(w),  u = K z̃_w,  z_m = f_c([z_i, u]),  x̂ = D_img(z_m),  ŵ = D_wm(Kᵀ R(x̂))

with z̃_w the mark's latents minus their mean over marks, in units of their spread, and K an orthonormal matrix over the
latent positions that a key and a trigger word decide. E serves pictures and marks and stays as it is once marks are
injected; R, the reader, begins as its copy. (With R = E, trained on, E forgets both pictures and marks: every code that
is easy to pass on lowers the loss, the empty one too.)

Source: Safe-SD: Safe and Traceable Stable Diffusion with Text Prompt Trigger for Invisible Generative Watermarking, ACM
MM 2024. The paper names the parts; what they are made of here (K, R, the losses, λ) is our choice.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.keys import derive
from vestige.core.models.safetensors_header import read_header
from vestige.core.runtime import rng
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.diffusion.latent import shrink_factor
from vestige.engines.marking.critic import Critic
from vestige.engines.marking.model import straight_clamp
from vestige.metrics.perceptual import perceptual_distance
from vestige.nn.jnd import jnd
from vestige.watermark.safe_sd_marks import modules

_LARGEST = 64  # latent positions along a side: K has their fourth power entries


class SafeSDNet(nn.Module):
    """Injector and extractor around an autoencoder; pictures and marks are float N×3×S×S in [0, 1].

    vae: an ``AutoencoderKL``; its encoder serves pictures and marks, its decoder is copied once for each, and a copy of
    its encoder with some convolutions of width ``reader`` behind it reads. Raises UsageError for latents of more than
    64 positions a side.

    >>> from vestige.nn.vae import small_vae
    >>> net = SafeSDNet(small_vae(16, (8, 16), 4), reader=8).eval()
    >>> K = mixing(b"key", "signed", net.positions)[None]
    >>> marks, pictures = torch.rand(1, 3, 16, 16), torch.rand(2, 3, 16, 16)
    >>> z = net.inject(net.encode(pictures), net.code(marks, K))
    >>> net.reveal(net.read(net.decode(z)), K).shape
    torch.Size([2, 3, 16, 16])
    """

    mark_mean: Tensor
    mark_spread: Tensor

    def __init__(self, vae: Any, *, reader: int = 64) -> None:
        super().__init__()
        size = vae.config.sample_size
        self.vae, self.size = vae, int(size[0] if isinstance(size, list | tuple) else size)
        self.side, self.channels = self.size // shrink_factor(vae), int(vae.config.latent_channels)
        if not 1 <= self.side <= _LARGEST:
            raise UsageError(f"Latents of {self.side}×{self.side} positions; Safe-SD takes 1 to {_LARGEST} a side.")
        self.settings = {"reader": reader}
        self.mark_decoder = copy.deepcopy(vae.decoder)
        self.mark_entry = copy.deepcopy(vae.post_quant_conv)
        self.mark_encoder = copy.deepcopy(vae.encoder)
        self.mark_exit = copy.deepcopy(vae.quant_conv)
        self.injection = nn.Conv2d(2 * self.channels, self.channels, 3, 1, 1)
        self.reader = nn.Sequential(
            nn.Conv2d(2 * self.channels, reader, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(reader, reader, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(reader, reader, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(reader, self.channels, 1),
        )  # fmt: skip
        self._open(torch.ones(self.channels))
        self.register_buffer("mark_mean", torch.zeros(self.channels, self.side, self.side))
        self.register_buffer("mark_spread", torch.ones(self.channels, 1, 1))

    @property
    def positions(self) -> int:
        """Latent positions of a picture: the side of K."""
        return self.side**2

    @torch.no_grad()
    def _open(self, gain: Tensor) -> None:
        """Let the injection pass the picture unchanged and add the code, channel by channel, times ``gain``."""
        assert self.injection.bias is not None
        self.injection.weight.zero_()
        self.injection.bias.zero_()
        for c in range(self.channels):
            self.injection.weight[c, c, 1, 1] = 1.0
            self.injection.weight[c, self.channels + c, 1, 1] = gain[c]

    @torch.no_grad()
    def settle(self, images: Tensor, marks: Tensor, gain: float = 0.7) -> None:
        """Called once between the autoencoders' own training and the injection's.

        The reader starts as a copy of the encoder, the mean and spread of z_w are those of ``marks``, and the injection
        starts with a code of ``gain`` times the spread of the pictures' latents: training does not find fainter ones.
        """
        self.mark_encoder.load_state_dict(self.vae.encoder.state_dict())
        self.mark_exit.load_state_dict(self.vae.quant_conv.state_dict())
        latents = torch.cat([self.encode(part) for part in marks.split(32)])
        self.mark_mean.copy_(latents.mean(0))
        self.mark_spread.copy_((latents - self.mark_mean).square().mean((0, 2, 3)).sqrt()[:, None, None])
        spread = torch.cat([self.encode(part) for part in images.split(32)]).std((0, 2, 3))
        self._open(gain * spread)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder says of pictures: means and log-variances, N×C×h×w each."""
        mean, log_variance = self.vae.encode(2 * images - 1).latent_dist.parameters.chunk(2, 1)
        return mean, log_variance

    def encode(self, images: Tensor) -> Tensor:
        """Latents N×C×h×w, not scaled: the means."""
        return self.moments(images)[0]

    def code(self, marks: Tensor, keys: Tensor) -> Tensor:
        """u = K (E(w) − mean) / spread: marks N×3×S×S, K N×P×P -> N×C×h×w."""
        return mixed((self.encode(marks) - self.mark_mean) / self.mark_spread.clamp_min(1e-4), keys)

    def inject(self, latents: Tensor, code: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """z_λ = z_i + λ (f_c([z_i, u]) − z_i); λ: a number or N."""
        share = strength if isinstance(strength, int | float) else strength.view(-1, 1, 1, 1)
        code = code.expand(len(latents), -1, -1, -1)
        return latents + share * (self.injection(torch.cat([latents, code], 1)) - latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, nominally in [0, 1]; not clipped."""
        return self.vae.decode(latents).sample / 2 + 0.5

    def read(self, images: Tensor) -> Tensor:
        """Estimates of the code u, N×C×h×w."""
        return self.reader(self.mark_exit(self.mark_encoder(2 * images - 1)))

    def reveal(self, code: Tensor, keys: Tensor) -> Tensor:
        """ŵ = D_wm(mean + spread · Kᵀ û): N×3×S×S, nominally in [0, 1]; not clipped."""
        latents = self.mark_mean + self.mark_spread * mixed(code, keys.mT)
        return self.mark_decoder(self.mark_entry(latents)) / 2 + 0.5


def mixed(latents: Tensor, keys: Tensor) -> Tensor:
    """K applied to the positions of every channel: N×C×h×w, K N×P×P or 1×P×P -> N×C×h×w."""
    flat = latents.flatten(2).transpose(1, 2)
    return (keys @ flat).transpose(1, 2).reshape(latents.shape)


def mixing(key: bytes, trigger: str, positions: int, *, spread: bool = True) -> Tensor:
    """The orthonormal matrix K (P×P) of a key and a trigger word: z ↦ K z over latent positions.

    Permuted and flipped cosines, K = F₂ Π₂ C Π₁ F₁, so that every position carries a little of all of the mark and a
    crop takes none of it away; without ``spread`` a permutation with flipped signs, K = F₂ Π₂.

    >>> K = mixing(b"key", "signed", 16)
    >>> torch.allclose(K @ K.T, torch.eye(16), atol=1e-5)
    True
    """
    seed = int.from_bytes(derive(key, f"safe_sd {trigger.casefold()}")[:16], "little")
    return torch.from_numpy(_mixing(rng(seed, "mixing"), positions, spread))


def random_mixings(count: int, positions: int, seed: int) -> Tensor:
    """K of ``count`` keys drawn for training, count×P×P."""
    generator = rng(seed, "training keys")
    return torch.from_numpy(np.stack([_mixing(generator, positions, True) for _ in range(count)]))


def _mixing(generator: np.random.Generator, positions: int, spread: bool) -> np.ndarray:
    from scipy.fft import dct

    first, second = generator.permutation(positions), generator.permutation(positions)
    flips = generator.choice(np.array([-1, 1], np.float32), (2, positions))
    base = np.eye(positions, dtype=np.float32)
    if spread:
        base = dct(base, axis=0, norm="ortho")[:, first] * flips[0]
    return np.ascontiguousarray(base[second] * flips[1][:, None], np.float32)


def stage_one_loss(
    net: SafeSDNet,
    images: Tensor,
    marks: Tensor,
    keys: Tensor,
    *,
    injected: bool = True,
    reveal_weight: float = 1.0,
    distort: Callable[[Tensor], Tensor] | None = None,
    features: Callable[[Tensor], Sequence[Tensor]] | None = None,
    critic: Critic | None = None,
    noise: float = 0.05,
    kl: float = 1e-6,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """What injector and extractor are trained to lower, and figures to log.

    L = W|x̂ − x| + ½|∇x̂ − ∇x| + LPIPS + 0.1 A + μ (‖û − λu‖²/‖u‖² + |ŵ − w| + BCE of the modules) + kl·KL

    images: N×3×S×S. marks: M×3×S×S, used in turn. keys: K, N×P×P. A quarter of the batch has λ = 0: pictures without a
    mark must look as good and read as nothing; the others have λ = 1. injected: off, the two autoencoders learn alone;
    on, the encoder gets no gradient, and neither does the reader from ŵ.
    reveal_weight: μ. distort: pictures in [0, 1] -> the same size. features: maps for the LPIPS term, None without.
    critic: A, None without. noise: on z, in its standard deviations, in place of a sampler's errors.
    """
    count = len(images)
    which = torch.arange(count, device=images.device) % len(marks)
    strength = torch.full((count,), float(injected), device=images.device)
    strength[count - count // 4 :] = 0
    with torch.set_grad_enabled(not injected):
        latents, log_variance = net.moments(images)
        unmixed = net.code(marks, torch.eye(net.positions, device=images.device)[None])
    code = mixed(unmixed[which], keys)
    mixture = net.inject(latents, code, strength)
    error = torch.randn(mixture.shape, generator=generator, device=mixture.device)
    made = net.decode(mixture + noise * mixture.detach().std() * error)
    total = image_loss(made, images)
    figures = {"image": total.detach()}
    shown = straight_clamp(made)
    if features is not None:
        total = total + perceptual_distance(images, shown, features).mean()
    if critic is not None:
        total = total + 0.1 * critic.embedder_term(shown)
        figures["critic"] = critic.learn(images, shown)
    few = slice(0, max(1, count // 4))  # the mark's decoder costs as much as the picture's
    truth = marks[which[few]]
    if injected:
        found = net.read(shown if distort is None else distort(shown))
        wrong = (found - strength.view(-1, 1, 1, 1) * code).square().mean() / code.square().mean()
        # Half from the marks' own latents. What the decoder makes of a poor reading would only disturb the reader.
        seen = net.reveal(torch.cat([code[few], found[few].detach()]), keys[few].repeat(2, 1, 1))
        truth = truth.repeat(2, 1, 1, 1)
        total = total + reveal_weight * wrong
        figures["code_error"] = wrong.detach()
    else:
        seen = net.reveal(code[few], keys[few])
    soft, white = modules(seen), modules(truth) > 0
    clear = F.l1_loss(seen, truth) + F.binary_cross_entropy_with_logits(4 * soft, white.float())
    divergence = 0.5 * (latents.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    total = total + reveal_weight * clear + kl * divergence
    right = ((soft > 0) == white).float().mean((1, 2))[len(seen) // 2 if injected else 0 :].mean()
    psnr = -10 * (shown.detach() - images).square().mean().clamp_min(1e-10).log10()
    return {"loss": total, **figures, "modules_right": right, "psnr": psnr}


def image_loss(made: Tensor, images: Tensor) -> Tensor:
    """Mean of W|x̂ − x| + ½|∇x̂ − ∇x|, twice, as in [-1, 1].

    W = 1/(1 + J/J̄) over its mean, J the just-noticeable difference of x and J̄ its mean over the picture, so that errors
    cost most where they are seen.
    """
    threshold = jnd(images)
    weight = 1 / (1 + threshold / threshold.mean((2, 3), keepdim=True).clamp_min(1e-6))
    weight = weight / weight.mean((2, 3), keepdim=True)
    edges = sum((F.l1_loss(made.diff(dim=d), images.diff(dim=d)) for d in (2, 3)), made.new_zeros(()))
    return 2 * (weight * (made - images).abs()).mean() + edges


def put_back(images: Tensor, side: int, top: int, left: int) -> Tensor:
    """Pictures that were a crop of ``side`` pixels at (top, left), enlarged: back where they were, edges repeated.

    >>> put_back(torch.rand(1, 3, 16, 16), 12, 1, 2).shape
    torch.Size([1, 3, 16, 16])
    """
    size = images.shape[-1]
    small = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return F.pad(small, (left, size - left - side, top, size - top - side), mode="replicate")


def kept_positions(size: int, positions: int, side: int, top: int, left: int) -> Tensor:
    """float 1×1×positions×positions: 1 where a latent position lies wholly inside the crop."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + side, left : left + side] = 1
    return (F.adaptive_avg_pool2d(mask, positions) > 0.999).float()


def save_net(folder: str | Path, net: SafeSDNet, facts: Mapping[str, Any]) -> None:
    """Write the autoencoder as ``vae`` (a diffusers folder) and the rest as ``mark.safetensors``."""
    from safetensors.torch import save

    folder = Path(folder)
    net.vae.save_pretrained(folder / "vae", safe_serialization=True)
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items() if not k.startswith("vae.")}
    metadata = {"marker": "safe_sd", "settings": json.dumps(net.settings), "facts": json.dumps(dict(facts))}
    write_atomic(folder / "mark.safetensors", save(state, {"format": "pt", **metadata}))


def load_net(folder: str | Path) -> tuple[SafeSDNet, dict[str, Any]]:
    """(network in evaluation mode, facts) of a folder written by `save_net`; raises InputError when it is none."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = Path(folder) / "mark.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no mark.safetensors; train it with: vestige learn safe_sd.")
    read_header(path)
    vae = load_autoencoder(folder)
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        settings, facts = json.loads(metadata["settings"]), json.loads(metadata["facts"])
        if metadata["marker"] != "safe_sd" or not 1 <= int(settings["reader"]) <= 4096 or not isinstance(facts, dict):
            raise ValueError("settings")
        net = SafeSDNet(vae, reader=int(settings["reader"]))
        state = load_file(path)
        missing, extra = net.load_state_dict(state, strict=False)
        if extra or any(not name.startswith("vae.") for name in missing):
            raise ValueError("weights")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError):
        raise InputError(f"{path} holds no weights of Safe-SD that fit its autoencoder; train it again.") from None
    if not all(bool(torch.isfinite(value).all()) for value in net.state_dict().values()):
        raise InputError(f"{folder} holds weights that are not finite; train it again.")
    return net.eval(), facts
