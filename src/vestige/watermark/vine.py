"""VINE: a one-step diffusion network as embedder, trained against blur because editing acts on pictures as blur does.

Source: Robust Watermarking Using Generative Priors Against Image Editing: From Benchmarking to Advances, ICLR 2025
(arXiv 2410.18775).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.metrics.perceptual import perceptual_distance
from vestige.nn.features import FeatureNet, load_feature_net
from vestige.nn.messages import DensePlane
from vestige.nn.unet import text_unet
from vestige.nn.vae import small_vae
from vestige.watermark.learned import LearnedMark

#: The noise level that the one step starts from.
TIMESTEP = 999
#: Radii of the frequency bands, in cycles per pixel.
BANDS = {"low": (0.02, 0.1), "mid": (0.1, 0.25), "high": (0.25, 0.5)}
_YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))


class ConditionAdaptor(nn.Module):
    """Picture and message to a picture for the autoencoder: conv(ReLU(conv[x, plane])), both in [-1, 1].

    Starts as the picture alone, so that an autoencoder that has been trained before is not upset.
    """

    def __init__(self, bits: int, side: int, hidden: int) -> None:
        super().__init__()
        self.plane = DensePlane(bits, side=side, hidden=hidden)
        self.first = nn.Conv2d(6, 6, 3, 1, 1)
        self.last = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x: Tensor, bits: Tensor) -> Tensor:
        mixed = torch.cat([x, self.plane(bits, *x.shape[2:])], 1)
        return x + self.last(F.relu(self.first(mixed)))


class OneStep(nn.Module):
    """VAE encoder, one step of a U-Net without a prompt, VAE decoder with 1×1 skips from the encoder's blocks.

    ẑ = (z − √(1 − ᾱ) U(z, t = 999, nothing)) / √ᾱ,  x̂ = D(ẑ; skips): [-1, 1] to [-1, 1]. vae: an ``AutoencoderKL``;
    unet: a ``UNet2DConditionModel``; of any size, from this package or a diffusers folder. alpha_bar: ᾱ of a
    pretrained noise predictor at that level; None for networks without a past, ẑ = z − U(z). The skips start at zero.
    """

    def __init__(self, vae: Any, unet: Any, alpha_bar: float | None = None) -> None:
        super().__init__()
        self.vae, self.unet = vae, unet
        self.keep: float = 1.0 if alpha_bar is None else alpha_bar**0.5
        self.take: float = 1.0 if alpha_bar is None else (1 - alpha_bar) ** 0.5
        widths = list(vae.config.block_out_channels)
        entering = [widths[0], *widths[:-1]]  # channels at the entrance of each block of the encoder
        leaving = [widths[-1], *reversed(widths)][: len(widths)]  # and of the decoder
        self.skips = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in zip(reversed(entering), leaving))
        for skip in self.skips:
            nn.init.zeros_(skip.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        encoder, decoder = self.vae.encoder, self.vae.decoder
        kept = []
        h = encoder.conv_in(x)
        for block in encoder.down_blocks:
            kept.append(h)
            h = block(h)
        h = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(h))))
        h = h if self.vae.quant_conv is None else self.vae.quant_conv(h)
        z = h.chunk(2, 1)[0] * self.vae.config.scaling_factor  # the mode
        nothing = z.new_zeros(len(z), 1, self.unet.config.cross_attention_dim)
        time = torch.full((len(z),), TIMESTEP, device=z.device)
        z = (z - self.take * self.unet(z, time, nothing).sample) / (self.keep * self.vae.config.scaling_factor)
        h = z if self.vae.post_quant_conv is None else self.vae.post_quant_conv(z)
        h = decoder.mid_block(decoder.conv_in(h))
        for block, skip, source in zip(decoder.up_blocks, self.skips, reversed(kept), strict=True):
            h = block(h + skip(source))
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(h)))


class VineNet(EmbedderReader):
    """Condition adaptor, `OneStep` and a ConvNeXt reader.

    L = 1.5 BCE(bits) + λ (2 MSE_YUV + 1.5 d_features + 0.5 critic),  MSE_YUV = MSE_Y + 100 MSE_U + 100 MSE_V,

    λ the level of the stage "fidelity"; pictures in [0, 1]. d_features is `perceptual_distance` on this package's
    feature network (the paper's is LPIPS on VGG), over a quarter of the batch. residual: E(x) = x + scale·tanh of the
    network's output, which small networks without a pretrained autoencoder need (our choice); without it the output is
    the picture, as in the paper.
    alpha_bar: see `OneStep`. widths, unet_widths: of autoencoder and U-Net; dims, depths: of the reader; side, hidden:
    of `DensePlane`. vae, unet: pretrained modules instead. features: weights of a `FeatureNet`; "" takes the shipped
    ones or, without them, random ones. Raises UsageError for sizes that do not fit.

    Source: Robust Watermarking Using Generative Priors Against Image Editing, ICLR 2025.

    >>> net = VineNet(8, 32, widths=(8, 8), unet_widths=(16, 16), dims=(8, 8, 8, 8), side=8, hidden=16)
    >>> x = net.embed(torch.rand(1, 3, 32, 32), torch.zeros(1, 8))
    >>> x.shape, net.read(x).soft.shape
    (torch.Size([1, 3, 32, 32]), torch.Size([1, 8]))
    """

    def __init__(
        self,
        bits: int = 100,
        size: int = 256,
        *,
        widths: Sequence[int] = (128, 256, 512, 512),
        unet_widths: Sequence[int] = (320, 640, 1280, 1280),
        dims: Sequence[int] = (128, 256, 512, 1024),
        depths: Sequence[int] = (3, 3, 27, 3),
        side: int = 64,
        hidden: int = 4096,
        residual: bool = True,
        scale: float = 0.2,
        features: str = "",
        vae: Any = None,
        unet: Any = None,
        alpha_bar: float | None = None,
    ) -> None:
        super().__init__()
        latent = size // 2 ** (len(widths) - 1)
        if size % 2 ** (len(widths) - 1) or latent % 2 ** (len(unet_widths) - 1) or len(dims) != len(depths):
            raise UsageError(f"A picture of {size} pixels cannot be halved as often as these widths ask.")
        self.bits, self.size, self.residual, self.scale = bits, size, residual, scale
        self.settings = {
            "bits": bits, "size": size, "widths": list(widths), "unet_widths": list(unet_widths), "dims": list(dims),
            "depths": list(depths), "side": side, "hidden": hidden, "residual": residual, "scale": scale,
        }  # fmt: skip
        self.adaptor = ConditionAdaptor(bits, side, hidden)
        vae = small_vae(size, widths, 4) if vae is None else vae
        unet = (
            text_unet(latent, vae.config.latent_channels, unet_widths, 16, attention_size=16) if unet is None else unet
        )
        self.network = OneStep(vae, unet)
        self.reader = _convnext(dims, depths)
        self.head = nn.Linear(dims[-1], bits)
        self._features = features
        self._judge: list[FeatureNet] = []  # in a list, so that it is no part of the weights

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        x = 2 * images - 1
        made = self.network(self.adaptor(x, bits)).float()
        if self.residual:
            return images + self.scale * torch.tanh(made) / 2
        return made / 2 + 0.5

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        return BitReading(self.head(self.reader(2 * images - 1).pooler_output))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        colour, loss = yuv_loss(trial.embedded, trial.images), 1.5 * message
        weight = level("fidelity")
        if weight > 0:
            few = max(1, len(trial.images) // 4)  # it costs more than the rest of the step
            maps = self.judge(trial.images.device).maps
            judged = perceptual_distance(trial.images[:few], trial.embedded[:few], maps).mean()
            loss = loss + weight * (2.0 * colour + 1.5 * judged + 0.5 * trial.adversarial)
        return {"loss": loss, "message": message.detach(), "colour": colour.detach()}

    def judge(self, device: torch.device) -> FeatureNet:
        """The frozen network of the perceptual term."""
        if not self._judge:
            self._judge.append(load_feature_net(self._features or None))
        return self._judge[0].to(device)


def yuv_loss(changed: Tensor, images: Tensor) -> Tensor:
    """MSE_Y + 100 MSE_U + 100 MSE_V of two batches N×3×H×W in [0, 1].

    >>> round(float(yuv_loss(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2))), 4)
    0.01
    """
    error = torch.einsum("ij,njhw->nihw", changed.new_tensor(_YUV), changed - images).square().mean((0, 2, 3))
    return (error * error.new_tensor([1.0, 100.0, 100.0])).sum()


def _convnext(dims: Sequence[int], depths: Sequence[int]) -> Any:
    from transformers import ConvNextConfig, ConvNextModel

    # Without layer scale: its start at 1e-6 is meant for deep networks and long trainings.
    config = ConvNextConfig(
        hidden_sizes=list(dims), depths=list(depths), num_stages=len(dims), layer_scale_init_value=0.0
    )
    return ConvNextModel(config)


class Vine(LearnedMark):
    """VINE as a keyed mark, and its frequency study as a measure.

    measure(edit, images) tells how much of a pattern in each band of frequencies an editor leaves. The arguments are
    those of `LearnedMark`. Source: Robust Watermarking Using Generative Priors Against Image Editing, ICLR 2025.

    >>> net = VineNet(16, 32, widths=(8, 8), unet_widths=(16, 16), dims=(8, 8, 8, 8), side=8, hidden=16)
    >>> Vine(network=net).bits
    16
    """

    slug = "vine"

    @staticmethod
    def build(**settings: Any) -> VineNet:
        return VineNet(**settings)

    @staticmethod
    def measure(edit: Callable[[np.ndarray], np.ndarray], images: np.ndarray, **options: Any) -> dict[str, float]:
        """See `band_study`."""
        return band_study(edit, images, **options)


def band_pattern(height: int, width: int, band: tuple[float, float], seed: int = 0) -> np.ndarray:
    """A zero-mean pattern H×W of unit variance, all of its energy in a ring of frequencies (cycles per pixel).

    Every frequency of the ring has the same amplitude and a random phase, symmetric so that the pattern is real.
    Raises UsageError for an empty ring.

    >>> pattern = band_pattern(32, 48, (0.1, 0.2))
    >>> pattern.shape, round(float(pattern.std()), 3)
    ((32, 48), 1.0)
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = (radius >= band[0]) & (radius < band[1])
    if not ring.any():
        raise UsageError(f"Pictures of {width}×{height} pixels have no frequency from {band[0]:g} to {band[1]:g}.")
    phases = rng(seed, "band pattern", band).uniform(0, 2 * np.pi, ring.shape)
    pattern = np.fft.irfft2(np.where(ring, np.exp(1j * phases), 0.0), s=(height, width))
    return (pattern / max(float(pattern.std()), 1e-12)).astype(np.float32)


def band_study(
    edit: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    *,
    amplitude: float = 4 / 255,
    bands: dict[str, tuple[float, float]] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Share of a pattern's energy that survives an edit, by frequency band: 1 all of it, 0 none.

    kept = c²,  c = ⟨edit(x + aP) − edit(x), aP⟩ / ⟨aP, aP⟩, averaged over the pictures (before squaring), with the
    change of clipping counted as part of the edit. edit: float32 N×3×H×W in [0, 1] -> the same shape; a random one
    must repeat itself (same seed in both calls). Raises UsageError when the edit changes the shape.

    >>> kept = band_study(lambda x: x, np.full((1, 3, 32, 32), 0.5, np.float32))
    >>> {name: round(value, 3) for name, value in kept.items()}
    {'low': 1.0, 'mid': 1.0, 'high': 1.0}
    """
    plain = edit(images)
    if plain.shape != images.shape:
        raise UsageError(f"The edit turned {images.shape} into {plain.shape}; the study needs pictures of one size.")
    kept = {}
    height, width = images.shape[2:]
    for name, band in (bands or BANDS).items():
        pattern = amplitude * band_pattern(height, width, band, seed)
        changed = edit((images + pattern).clip(0, 1).astype(np.float32)) - plain
        share = (changed * pattern).mean((1, 2, 3)) / np.mean(pattern**2)
        kept[name] = float(np.mean(share) ** 2)
    return kept


def vine_from_folder(folder: str | Path, bits: int = 100, size: int = 256, **options: Any) -> VineNet:
    """A VineNet on the autoencoder and U-Net of a diffusers pipeline folder (a one-step model such as SD-Turbo).

    Raises InputError when the folder cannot be read. options: as in `VineNet`.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    try:
        table: Any = DDPMScheduler.from_pretrained(str(folder), subfolder="scheduler", local_files_only=True)
        vae = AutoencoderKL.from_pretrained(str(folder), subfolder="vae", local_files_only=True)
        unet = UNet2DConditionModel.from_pretrained(str(folder), subfolder="unet", local_files_only=True)
        vae, unet = vae.float(), unet.float()  # files may hold half precision
    except Exception as error:  # the library raises every type on damaged folders
        raise InputError(f"{folder} has no readable vae and unet ({' '.join(str(error).split())[:120]}).") from None
    alpha_bar = float(table.alphas_cumprod[TIMESTEP])
    return VineNet(bits, size, vae=vae, unet=unet, alpha_bar=alpha_bar, residual=False, **options)
