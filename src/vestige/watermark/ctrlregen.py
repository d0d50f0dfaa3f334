"""CtrlRegen: regeneration from clean noise, held to the picture by its meaning and its edges.

A frozen text-to-image model gets two controls. Meaning: tokens of a frozen picture encoder become further keys and
values of every cross-attention, attn(Q, K_text, V_text) + a·attn(Q, K_img, V_img). Place: a copy of the UNet's encoder
reads the edges and adds to the UNet through convolutions that start at zero. Both are trained by the ordinary diffusion
loss on clean pictures. Removal starts from pure noise (s = 1, CtrlRegen) or from the picture noised to a share s < 1 of
the chain (CtrlRegen+), and ends with the colours of the input.

Source: Image Watermarks Are Removable Using Controllable Regeneration from Clean Noise, ICLR 2025.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.runtime import rng
from vestige.engines.diffusion.editing import start_at
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline
from vestige.engines.diffusion.samplers import Denoiser, sample
from vestige.engines.diffusion.schedules import grid
from vestige.nn.features import FeatureNet, load_feature_net
from vestige.watermark.attacks.regeneration import tilewise
from vestige.watermark.attacks.registry import check, eight_bit
from vestige.watermark.learned import WEIGHTS

#: How the controls for the shipped model are made.
TRAIN = "vestige learn ctrlregen"


def edges(images: Tensor, low: float = 100, high: float = 150) -> Tensor:
    """Canny edges, float N×3×H×W of zeros and ones (one map, three times), of pictures in [0, 1].

    low, high: thresholds on the gradient of grey levels.

    >>> int(edges(torch.zeros(1, 3, 8, 8)).sum())
    0
    """
    maps = []
    for picture in images.detach().cpu().numpy():
        grey = cv2.cvtColor((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0), cv2.COLOR_RGB2GRAY)
        maps.append(cv2.Canny(grey, low, high) > 0)
    found = torch.from_numpy(np.stack(maps)).to(images)
    return found[:, None].repeat(1, 3, 1, 1)


def transport_colours(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """3×H×W with the mean and covariance of the colours of ``reference`` (Monge-Kantorovich, linear).

    y = A (c − μs) + μr, A = Σs^{-1/2} (Σs^{1/2} Σr Σs^{1/2})^{1/2} Σs^{-1/2}. Source: Pitié and Kokaram, The linear
    Monge-Kantorovitch linear colour mapping for example-based colour transfer, CVMP 2007.
    """
    source, target = (x.reshape(3, -1).astype(np.float64) for x in (image, reference))
    mean_s, mean_r = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    cov_s, cov_r = (np.atleast_2d(np.cov(x, bias=True)) + 1e-8 * np.eye(3) for x in (source, target))
    root = _power(cov_s, 0.5)
    inverse = _power(cov_s, -0.5)
    matrix = inverse @ _power(root @ cov_r @ root, 0.5) @ inverse
    return (matrix @ (source - mean_s) + mean_r).reshape(image.shape).astype(np.float32)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T


def match_histograms(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """3×H×W whose channels hold exactly the values of ``reference`` (of the same shape), in the order of ``image``."""
    made = np.empty_like(image, dtype=np.float32)
    for channel, wanted, out in zip(image, reference, made, strict=True):
        out.reshape(-1)[np.argsort(channel, axis=None, kind="stable")] = np.sort(wanted, axis=None)
    return made


def match_colours(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Histograms, linear transport, histograms again, picture by picture; N×3×H×W."""
    pairs = zip(images, references, strict=True)
    return np.stack([match_histograms(transport_colours(match_histograms(i, r), r), r) for i, r in pairs])


def _shipped(weights: str | Path | None) -> tuple[TextToImage, str | Path]:
    """The model of scenes and its controls; raises InputError, with the commands, where one is missing."""
    folder, controls = WEIGHTS / "scenes_text2image", weights or WEIGHTS / "ctrlregen.safetensors"
    if not folder.is_dir():
        raise InputError(
            f"There is no text-to-image model in {folder}; train it with: "
            "vestige learn scenes_text2image, or give CtrlRegen a model."
        )
    if not Path(controls).is_file():
        raise InputError(
            f"There are no controls of CtrlRegen in {controls}; train them with: {TRAIN}, and copy them there."
        )
    model = load_pipeline(folder)
    assert isinstance(model, TextToImage)
    return model, controls


class FeatureTokens(nn.Module):
    """Places of the last map of a `FeatureNet` as tokens N×L×256: what a small picture shows, and roughly where."""

    width = 256

    def __init__(self, net: FeatureNet | None = None) -> None:
        super().__init__()
        self.net = (net or load_feature_net()).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures N×3×H×W in [0, 1] -> N×L×256."""
        return self.net(images).maps[-1].flatten(2).transpose(1, 2)


class CtrlRegen(nn.Module):
    """Both controls on a copy of a text-to-image model, their loss, and the removal of marks.

    model: frozen; its UNet is copied. Without one, the model of scenes that comes with vestige, with its trained
    controls. weights: a file that `save` wrote; a model without one gets controls to be trained. encoder: pictures in
    [0, 1] -> tokens N×L×width, with an attribute ``width``; frozen. semantic: the weight a of the picture's tokens, 0
    leaves them out; spatial: of the edges. thresholds: of Canny, by default those of ``weights``, else the paper's,
    100 and 150 at 512 pixels. Raises InputError when weights are missing or damaged, UsageError when they are of
    another model.
    """

    slug = "ctrlregen"

    def __init__(
        self,
        model: TextToImage | None = None,
        encoder: Any = None,
        *,
        weights: str | Path | None = None,
        semantic: float = 1.0,
        spatial: float = 1.0,
        thresholds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        from diffusers import ControlNetModel
        from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

        if model is None:
            model, weights = _shipped(weights)
        self.model = model.requires_grad_(False)
        self.encoder = (encoder or FeatureTokens()).requires_grad_(False)
        self.semantic, self.spatial = semantic, spatial
        self.thresholds: tuple[float, float] = (100.0, 150.0)
        width = int(model.unet.config.cross_attention_dim)
        self.factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
        halvings = self.factor.bit_length() - 1
        self.control = ControlNetModel.from_unet(
            model.unet, conditioning_embedding_out_channels=(16, 32, 96, 256)[: halvings + 1]
        )
        self.unet = copy.deepcopy(model.unet)
        processors: dict[str, Any] = {}
        for name in self.unet.attn_processors:
            layer = self.unet.get_submodule(name.removesuffix(".processor"))
            if ".attn1." in name:
                processors[name] = AttnProcessor2_0()
            else:
                processors[name] = IPAdapterAttnProcessor2_0(layer.to_q.out_features, width, num_tokens=(1,))
                # The picture's keys and values start as those of the text.
                processors[name].to_k_ip[0].weight.data.copy_(layer.to_k.weight)
                processors[name].to_v_ip[0].weight.data.copy_(layer.to_v.weight)
        self.unet.set_attn_processor(processors)
        self.projection = nn.Sequential(nn.LayerNorm(self.encoder.width), nn.Linear(self.encoder.width, width))
        self.control.requires_grad_(True)
        for processor in processors.values():
            if isinstance(processor, nn.Module):
                processor.requires_grad_(True)
        if weights is not None:
            self.load(weights)
        if thresholds is not None:
            self.thresholds = (float(thresholds[0]), float(thresholds[1]))
        self.train(self.training)

    def train(self, mode: bool = True) -> CtrlRegen:
        """As usual, but for the frozen parts: their batch statistics must not follow the training pictures."""
        super().train(mode)
        self.model.eval()
        self.encoder.eval()
        return self

    def controls(self) -> dict[str, Tensor]:
        """The trained part alone: state of the projection, the attention adapters and the edge network."""
        # By name, because a moving average of this module has nothing that requires a gradient.
        return {
            name: value
            for name, value in self.state_dict().items()
            if name.startswith(("control.", "projection.")) or ".processor.to_" in name
        }

    def load_controls(self, state: dict[str, Tensor]) -> None:
        """Take over what `controls` gave. Raises UsageError when names or shapes do not fit this model."""
        own = self.controls()
        if set(own) != set(state) or any(own[n].shape != state[n].shape for n in own):
            raise UsageError("These controls were trained for another model.")
        self.load_state_dict(state, strict=False)

    def save(self, path: str | Path) -> None:
        """Write `controls` and the thresholds they were trained with as safetensors, atomically."""
        from safetensors.torch import save

        state = {name: value.detach().cpu().contiguous() for name, value in self.controls().items()}
        write_atomic(path, save({**state, "thresholds": torch.tensor(self.thresholds, dtype=torch.float32)}))

    def load(self, path: str | Path) -> None:
        """Take over what `save` wrote; raises InputError for a damaged file, UsageError for another model's."""
        state = ModelSubject.open(Path(path)).state_dict()
        thresholds = state.pop("thresholds", torch.empty(0))
        if thresholds.shape != (2,) or not all(torch.isfinite(x).all() for x in (thresholds, *state.values())):
            raise InputError(f"{path} holds no controls of CtrlRegen, or damaged ones; train them again with: {TRAIN}")
        self.load_controls(state)
        self.thresholds = (float(thresholds[0]), float(thresholds[1]))

    def _network(self, images: Tensor, edge_map: Tensor) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """The controlled UNet as a function of (x, time, text context)."""
        tokens = self.projection(self.encoder(images))
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [self.semantic]

        def network(x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
            assert context is not None
            again = len(x) // len(tokens)  # guidance doubles the batch
            seen = tokens.repeat(again, 1, 1)
            down: Any = None
            middle: Any = None
            if self.spatial:
                down, middle = self.control(
                    x, time, encoder_hidden_states=context, controlnet_cond=edge_map.repeat(again, 1, 1, 1),
                    conditioning_scale=self.spatial, return_dict=False,
                )  # fmt: skip
            return self.unet(
                x, time, encoder_hidden_states=(context, [seen]), down_block_additional_residuals=down,
                mid_block_additional_residual=middle, return_dict=False,
            )[0]  # fmt: skip

        return network

    def loss(self, images: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Diffusion loss of clean pictures N×3×H×W in [0, 1] under captions' token ids N×L and both controls.

        The plain squared error: weights by the signal-to-noise ratio would take away the levels next to pure noise,
        where a picture is nothing but its controls and from which removal starts.
        """
        context = self.model.context(ids)
        network = self._network(images, edges(images, *self.thresholds))
        latents = self.model.encode(images)
        return diffusion_loss(
            lambda x, t: network(x, t, context), latents, self.model.table, self.model.prediction, generator, gamma=None
        )

    @torch.no_grad()
    def remove(
        self,
        images: np.ndarray,
        strength: float = 1.0,
        *,
        prompts: Sequence[str] = (),
        negative: str = "",
        guidance: float = 2.0,
        steps: int = 50,
        seed: int = 0,
        colours: bool = True,
        batch: int = 32,
    ) -> np.ndarray:
        """Pictures float N×3×H×W regenerated under their own meaning and edges; float32 of the same shape.

        strength: s in (0, 1]; 1 starts from pure noise. prompts: one for each picture, or none. negative, guidance: of
        classifier-free guidance by the prompts; both sides see the picture. colours: match them to the input at the
        end. Large pictures are done in tiles. Raises UsageError for a strength out of range, a number of prompts that
        is not that of the pictures or arrays of another shape, InputError for samples that are not finite.
        """
        check(images)
        if prompts and len(prompts) != len(images):
            raise UsageError(f"There are {len(prompts)} prompts for {len(images)} pictures; give one for each.")
        model, training = self.model, self.training
        levels = start_at(grid(model.table, min(steps, len(model.table))), strength)
        generator = torch.Generator().manual_seed(int(rng(seed, "ctrlregen").integers(2**62)))
        size = min(model.latent_shape()[1:]) * self.factor
        # Prompts that all equal the negative one have nothing to be guided by.
        guided = guidance != 1.0 and any(said != negative for said in prompts or [""])
        null = model.embed(negative) if guided else None

        def redraw(tiles: Tensor, which: Tensor) -> Tensor:
            said = [prompts[i] for i in which.tolist()] if prompts else [""] * len(tiles)
            tiles = tiles.to(model.device)
            network = self._network(tiles, edges(tiles, *self.thresholds))
            denoiser = Denoiser(network, model.table, model.prediction, model.embed(said), null, guidance=guidance)
            latents = model.encode(tiles)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            start = noise
            if strength < 1:
                start = float(model.table.alpha[levels[0]]) * latents + float(model.table.sigma[levels[0]]) * noise
            return model.decode(sample(denoiser, start, levels, "dpm++")).cpu()

        self.eval()
        try:
            stacked = torch.from_numpy(np.ascontiguousarray(images, np.float32))
            made = tilewise(stacked, size, redraw, batch=batch).numpy()
        finally:
            self.train(training)
        return eight_bit(match_colours(made, images) if colours else made)

    def attack(self, images: np.ndarray) -> np.ndarray:
        """`remove` from clean noise."""
        return self.remove(images)
