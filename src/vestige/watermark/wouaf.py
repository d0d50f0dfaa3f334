"""WOUAF: every user gets an equally good image decoder whose weights carry the user's fingerprint.

    W'_{oc,ic} = W_{oc,ic} · A_l(M(φ))_{ic}

for both convolutions of every residual block and the query, key and value projections of the attention of the decoder
of a KL-VAE; M is the mapping network, A_l one affine layer for each of them, with bias 1. A reader, trained together
with them, finds φ in every picture the decoder makes. No training is needed for a new user, and the delivered decoder
is plain weights.

Source: WOUAF: Weight Modulation for User Attribution and Fingerprinting in Text-to-Image Diffusion Models, CVPR 2024
(arXiv 2306.04744).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic
from vestige.core.findings import Finding
from vestige.core.runtime import device as device_of
from vestige.core.subjects import ImageSubject
from vestige.engines.diffusion.autoencoders import autoencoder_folder, load_autoencoder
from vestige.engines.marking.distort import Draw
from vestige.engines.marking.model import BitReading, EmbedderReader, Level, Trial
from vestige.engines.marking.residual import read_at_native
from vestige.metrics.perceptual import perceptual_distance
from vestige.nn.features import FeatureNet, load_feature_net
from vestige.nn.messages import check_bits
from vestige.nn.modulation import EqualisedLinear, Layer, ScaledLeakyReLU, bake, chosen_layers, inputs_of, modulated
from vestige.nn.resnet import ResNet, ResNetConfig
from vestige.nn.vae import decode, encode
from vestige.watermark.learned import as_tensor, load_weights
from vestige.watermark.users import Attribution, UserRegistry

#: The post-processing it is trained with. The paper's blur has kernels of 3 to 7 pixels, of up to 1.8 deviation.
AUGMENTATIONS = (
    Draw("crop_resize", 1, 0.8), Draw("rotate", 0, 30, signed=True), Draw("blur", 0.5, 2),
    Draw("brightness", 1, 0.7), Draw("brightness", 1, 1.3), Draw("noise", 0, 0.2), Draw("overlay", 0, 0.2),
    Draw("jpeg", 90, 50),
)  # fmt: skip
#: Names of projections in attention, before and after diffusers renamed them.
PROJECTIONS = ("to_q", "to_k", "to_v", "query", "key", "value")


def modulated_layers(vae: Any) -> dict[str, Layer]:
    """Both convolutions of every residual block and the attention projections in the decoder, by dotted name.

    >>> from vestige.nn.vae import small_vae
    >>> list(modulated_layers(small_vae(8, (8,), 4)))[:2]
    ['up_blocks.0.resnets.0.conv1', 'up_blocks.0.resnets.0.conv2']
    """

    def chosen(name: str) -> bool:
        parts = name.split(".")
        convolution = "resnets" in parts and parts[-1] in ("conv1", "conv2")
        return convolution or ("attentions" in parts and parts[-1] in PROJECTIONS)

    return chosen_layers(vae.decoder, chosen)


class WouafNet(EmbedderReader):
    """Autoencoder, mapping network (two layers, leaky ReLU), one affine layer for each modulated layer, and reader.

    L = BCE(φ̂(T(D_φ(E(x)))), φ) + λ (d_features(x̂, x) + pixels · MSE(x̂, x)), x̂ = D_φ(E(x)), pictures in [0, 1], λ the
    level of the stage "fidelity" (``first`` before it). d_features is `perceptual_distance` on this package's feature
    network at 32 pixels (the paper: LPIPS on VGG, and no pixel term; at this size colours drift without one).

    vae: an ``AutoencoderKL``, which is trained on (its decoder) or kept (its encoder); or its configuration. width: of
    the mapping. depth, reader_width, stem: of the ResNet reader (paper: 50, 1, "imagenet"). features: weights of a
    `FeatureNet`; "" takes the shipped ones. first: weight of fidelity from the start; as much as 0.1 keeps a small
    decoder from ever marking.
    Raises UsageError when the autoencoder cannot make pictures of that size.

    >>> from vestige.nn.vae import small_vae
    >>> net = WouafNet(8, 16, vae=small_vae(16, (8, 16), 4), reader_width=0.125).eval()
    >>> x = net.embed(torch.rand(2, 3, 16, 16), torch.zeros(2, 8))
    >>> x.shape, net.read(x).soft.shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        bits: int = 32,
        size: int = 512,
        *,
        vae: Any,
        width: int = 128,
        depth: int = 50,
        reader_width: float = 1.0,
        stem: str = "imagenet",
        pixels: float = 10.0,
        first: float = 0.01,
        features: str = "",
    ) -> None:
        super().__init__()
        if isinstance(vae, Mapping):
            vae = _untrained(vae)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        if min(bits, size, width) < 1 or size % factor:
            raise UsageError(f"bits, size and width are at least 1, and size a multiple of {factor}; got {size}.")
        self.bits, self.size, self.pixels, self.first = bits, size, pixels, first
        config = {k: v for k, v in vae.config.items() if not k.startswith("_")}
        self.settings = {
            "bits": bits, "size": size, "vae": config, "width": width, "depth": depth, "reader_width": reader_width,
            "stem": stem, "pixels": pixels, "first": first,
        }  # fmt: skip
        self.vae = copy.deepcopy(vae).requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.mapping = nn.Sequential(
            EqualisedLinear(bits, width, multiplier=0.01), ScaledLeakyReLU(),
            EqualisedLinear(width, width, multiplier=0.01), ScaledLeakyReLU(),
        )  # fmt: skip
        layers = modulated_layers(self.vae)
        # Names of submodules have no dots.
        self.affine = nn.ModuleDict(
            {n.replace(".", "/"): EqualisedLinear(width, inputs_of(layer), bias=1.0) for n, layer in layers.items()}
        )
        self.reader = ResNet(ResNetConfig(depth, stem, reader_width, classes=bits))
        self._features = features
        self._judge: list[FeatureNet] = []  # in a list, so that it is no part of the weights

    def vectors(self, bits: Tensor) -> dict[str, Tensor]:
        """A_l(M(φ)) for fingerprints float N×L: {layer: N×C}."""
        inside = self.mapping(check_bits(bits, self.bits).float())
        return {name.replace("/", "."): affine(inside) for name, affine in self.affine.items()}

    def decode(self, latents: Tensor, bits: Tensor) -> Tensor:
        """Scaled latents N×C×h×w and fingerprints N×L (or 1×L for all) -> pictures N×3×S×S, nominally in [0, 1]."""
        with modulated(modulated_layers(self.vae), self.vectors(bits)):
            return decode(self.vae, latents) / 2 + 0.5

    def encode(self, images: Tensor) -> Tensor:
        """Pictures in [0, 1] -> scaled latents, the mode."""
        with torch.no_grad():
            return encode(self.vae, images * 2 - 1)

    def embed(self, images: Tensor, bits: Tensor, masks: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(images), bits)

    def read(self, images: Tensor, masks: Tensor | None = None) -> BitReading:
        return BitReading(self.reader(images))

    def objective(self, trial: Trial, level: Level) -> dict[str, Tensor]:
        message = trial.bit_loss(F.binary_cross_entropy_with_logits, trial.reading.soft)
        judge = self.judge(trial.images.device)
        image = image_distance(trial.images, trial.embedded.float(), judge, self.pixels)
        loss = message + (self.first + (1 - self.first) * level("fidelity")) * image
        return {"loss": loss, "message": message.detach(), "image": image.detach()}

    def judge(self, device: torch.device) -> FeatureNet:
        """The frozen network of the perceptual term."""
        if not self._judge:
            self._judge.append(load_feature_net(self._features or None))
        return self._judge[0].to(device)

    @torch.no_grad()
    def stamped(self, bits: Tensor) -> Any:
        """The user's autoencoder: a plain ``AutoencoderKL`` with the fingerprint (1×L) in its weights."""
        vae = copy.deepcopy(self.vae)
        bake(modulated_layers(vae), self.vectors(bits))
        return vae.requires_grad_(False).eval()


def image_distance(images: Tensor, made: Tensor, judge: FeatureNet, pixels: float) -> Tensor:
    """Mean distance in the feature network, at up to 32 pixels, plus ``pixels`` times the mean squared error."""
    small = [F.adaptive_avg_pool2d(x, 32) if min(x.shape[2:]) > 32 else x for x in (images, made)]
    return perceptual_distance(small[0], small[1], judge.maps).mean() + pixels * F.mse_loss(made, images)


def _untrained(config: Mapping[str, Any]) -> Any:
    """An autoencoder of that configuration, from a file that is not trusted; UsageError for sizes out of reason."""
    from diffusers import AutoencoderKL

    widths = config.get("block_out_channels", ())
    sane = (
        isinstance(widths, list | tuple)
        and 1 <= len(widths) <= 6
        and all(isinstance(w, int) and 1 <= w <= 1024 for w in widths)
        and all(
            isinstance(config.get(k, 1), int) and 1 <= config.get(k, 1) <= 64
            for k in ("layers_per_block", "latent_channels", "norm_num_groups", "in_channels", "out_channels")
        )
    )
    if not sane:
        raise UsageError("The configuration of the autoencoder is damaged or of unusual size.")
    try:
        return AutoencoderKL.from_config(dict(config))
    except Exception as error:  # the library raises every type
        raise UsageError(f"No autoencoder has this configuration ({' '.join(str(error).split())[:120]}).") from None


class Wouaf:
    """Per-user decoders, and the user behind a picture.

    weights: a file that the recipe wrote, by default the shipped one; it is read when first needed. network: a network
    to use instead. users: the registry that pictures are attributed to. rate: false attribution rate that ``find``
    keeps to. device: as in ``--device``. Everything but ``find`` raises InputError, with the command that trains them,
    when there are no weights.

    Source: WOUAF: Weight Modulation for User Attribution and Fingerprinting in Text-to-Image Diffusion Models, CVPR
    2024.

    >>> from vestige.nn.vae import small_vae
    >>> net = WouafNet(8, 16, vae=small_vae(16, (8, 16), 4), reader_width=0.125)
    >>> system = Wouaf(network=net, users=UserRegistry(8, b"key"))
    >>> vae = system.stamp(system.users.register("ada"))
    >>> system.attribute(np.zeros((1, 3, 20, 30), np.float32))[0].user
    'ada'
    """

    slug = "wouaf"
    kind = "mark"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        network: WouafNet | None = None,
        users: UserRegistry | None = None,
        rate: float = 1e-3,
        device: str = "cpu",
    ) -> None:
        if not 0 < rate < 1:
            raise UsageError(f"The false attribution rate lies between 0 and 1, got {rate}.")
        self.rate, self.facts = rate, dict[str, Any]()
        self._weights, self._device = weights, device
        self._network: WouafNet | None = None
        if network is not None:
            self._network = network.eval().requires_grad_(False).to(device_of(device))
            self._fits(users)
        self.users = users

    def _fits(self, users: UserRegistry | None) -> None:
        if users is not None and users.bits != self.bits:
            raise UsageError(f"The registry has fingerprints of {users.bits} bits, the network reads {self.bits}.")

    @staticmethod
    def build(**settings: Any) -> WouafNet:
        """The network for these settings."""
        return WouafNet(**settings)

    @property
    def network(self) -> WouafNet:
        """The trained network."""
        if self._network is None:
            found, self.facts = load_weights(self.slug, self.build, self._weights)
            assert isinstance(found, WouafNet)
            self._network = found.eval().requires_grad_(False).to(device_of(self._device))
            self._fits(self.users)
        return self._network

    @property
    def bits(self) -> int:
        """L."""
        return self.network.bits

    def stamp(self, bits: np.ndarray, vae: Any = None) -> Any:
        """The autoencoder of one user, a plain ``AutoencoderKL`` without any fingerprint code.

        bits: bool (L,). vae: the model's own autoencoder, to check that the trained decoder belongs to it. Raises
        UsageError for other bits, or an autoencoder whose encoder is another.
        """
        row = np.asarray(bits)
        if row.shape != (self.bits,) or not np.isin(row, (0, 1)).all():
            raise UsageError(f"A fingerprint is {self.bits} bits, got shape {row.shape}.")
        net = self.network
        if vae is not None and not _same_latents(vae, net.vae):
            raise UsageError("This autoencoder has other latents than the one the fingerprints were trained with.")
        device = next(net.parameters()).device
        return net.stamped(torch.from_numpy(row.astype(np.float32))[None].to(device)).cpu()

    def stamp_folder(self, folder: str | Path, out: str | Path, bits: np.ndarray) -> Path:
        """Copy a diffusers folder with the user's decoder in it: all of a pipeline, or the autoencoder alone.

        The copy appears whole or not at all. Raises InputError when ``out`` exists or ``folder`` cannot be read, and
        as `stamp`.
        """
        source, out = Path(folder), Path(out)
        if out.exists():
            raise InputError(f"{out} exists already; choose another name.")
        vae = self.stamp(bits, load_autoencoder(source))
        inside = autoencoder_folder(source).relative_to(source)
        with folder_atomic(out) as copied:
            shutil.copytree(source, copied, ignore=without_weights(source / inside), dirs_exist_ok=True)
            vae.save_pretrained(copied / inside, safe_serialization=True)
        return out

    @torch.no_grad()
    def read(self, images: np.ndarray) -> np.ndarray:
        """Logits float32 N×L of pictures float N×3×H×W in [0, 1] of any size, above 0 for a one."""
        x = as_tensor(images)
        parts = [read_at_native(self.network, part).soft for part in x.split(64)]
        return torch.cat(parts).cpu().numpy()

    def attribute(self, images: np.ndarray) -> list[Attribution]:
        """The nearest user of the registry to each picture. Raises UsageError without a registry."""
        if self.users is None:
            raise UsageError("Attribution needs a registry of users; give one as users.")
        return self.users.attribute(self.read(images) > 0)

    def find(self, subject: ImageSubject) -> Finding:
        """Whether a registered user's decoder made the picture."""
        if not self.users:
            return Finding.not_applicable(self.slug, self.kind, "no registry of users was given to attribute it to.")
        try:
            size = self.network.size
        except InputError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        if min(subject.height, subject.width) < size // 2:
            return Finding.not_applicable(self.slug, self.kind, f"the picture is smaller than {size // 2} pixels.")
        (found,) = self.attribute(subject.image)
        return Finding(
            examiner=self.slug,
            kind=self.kind,
            score=float(-np.log10(max(found.p_value, 1e-300))),
            flagged=found.p_value <= self.rate,
            threshold=float(-np.log10(self.rate)),
            false_positive_rate=self.rate,
            when_flagged=f"The picture was made with the decoder of user {found.user}.",
            when_clear="No registered user's decoder stands out.",
            evidence=(
                f"{found.matches} of {self.bits} bits agree; by chance for any of {len(self.users)} users "
                f"with probability {found.p_value:.2g}",
            ),
            details={"user": found.user, "matches": found.matches, "p_value": found.p_value},
        )


def _same_latents(vae: Any, other: Any) -> bool:
    """Whether two autoencoders have the same encoder, one of them perhaps rounded to half precision."""
    mine, theirs = vae.encoder.state_dict(), other.encoder.state_dict()
    return mine.keys() == theirs.keys() and all(
        a.shape == theirs[n].shape and torch.allclose(a.float().cpu(), theirs[n].float().cpu(), rtol=2e-3, atol=1e-4)
        for n, a in mine.items()
    )


def without_weights(place: Path) -> Any:
    """A filter for copytree that leaves out the weight files of one folder."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n.endswith((".safetensors", ".bin"))] if Path(folder) == place else []

    return ignored
