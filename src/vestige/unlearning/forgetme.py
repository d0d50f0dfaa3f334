"""ForgetMe: pairs of pictures in which one thing is gone, made without training.

A mask says what is to be forgotten; it is refined, the hole is filled, and the picture falls into a pack of four:
original, foreground, background (the picture after the removal) and mask. `vestige.metrics.entangled` scores pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.data.filling import FILLS, fill


@dataclass(frozen=True)
class FourPack:
    """original, foreground (white elsewhere), background: float32 3×H×W in [0, 1]; mask: bool H×W, the refined one."""

    original: np.ndarray = field(repr=False)
    foreground: np.ndarray = field(repr=False)
    background: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)


def refine(mask: np.ndarray, feather: float = 3.0, grow: int = 3) -> np.ndarray:
    """A mask bool H×W with a smooth rim, widened: Gaussian blur of that radius, cut at a half, then a disc of ``grow``
    pixels. Small parts do not vanish: what was covered stays covered.

    >>> hole = np.zeros((9, 9), bool)
    >>> hole[4, 4] = True
    >>> int(refine(hole, 1, 1).sum())
    5
    """
    import cv2

    if feather < 0 or grow < 0:
        raise UsageError(f"feather is {feather} and grow {grow}; both must be 0 or more.")
    if not mask.any():
        return mask.copy()
    soft = mask.astype(np.float32)
    if feather:
        soft = np.maximum(soft, cv2.GaussianBlur(soft, (0, 0), feather / 2))
    cut = (soft >= 0.5).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
    return cv2.dilate(cut, disc).astype(bool)


def named_region(
    model: Any, image: np.ndarray, prompt: str, *, draws: int = 12, share: float | None = None, seed: int = 0
) -> np.ndarray:
    """bool H×W: where a text-to-image model (`TextToImage`) sees what the prompt names, without a mask or a training.

    map = mean over noises ε and levels t of ‖ε_θ(x_t, t, prompt) − ε_θ(x_t, t, "")‖², smoothed; the region is what
    lies above the threshold of Otsu, or the largest ``share`` of the picture. image: float32 3×H×W in [0, 1] of any
    size; the model looks at it at its own. Raises InputError when the prompt makes no difference to the model.

    Source: DiffEdit: Diffusion-based Semantic Image Editing with Mask Guidance, ICLR 2023 (its difference is to
    another prompt); the paper scores the segments of a segmenter instead.
    """
    import cv2
    import torch
    from scipy.ndimage import binary_fill_holes

    if share is not None and not 0 < share < 1:
        raise UsageError(f"share is {share}; it must lie between 0 and 1.")
    height, width = image.shape[1:]
    side = pixels_of(model)
    small = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (side, side), interpolation=cv2.INTER_AREA)
    latents = model.encode(torch.from_numpy(small.transpose(2, 0, 1)[None].copy())).repeat(draws, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    levels = torch.linspace(0.3, 0.7, draws).mul(len(model.table)).long().clamp(max=len(model.table) - 1)
    noisy, time = model.table.add_noise(latents, noise, levels), model.table.network_time(levels).to(latents.device)
    with torch.no_grad():
        said = [model.network(noisy, time, model.embed([text] * draws)) for text in (prompt, "")]
    heat = (said[0] - said[1]).square().mean((0, 1)).cpu().numpy()
    if not float(heat.max()) > 0:
        raise InputError(f"The model makes nothing of the prompt {prompt!r}.")
    heat = cv2.GaussianBlur(heat / heat.max(), (0, 0), max(0.6, heat.shape[0] / 32))
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC)
    if share is not None:
        return heat >= np.quantile(heat, 1 - share)
    scaled = np.clip(255 * heat / heat.max(), 0, 255).astype(np.uint8)
    found = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0
    return np.asarray(binary_fill_holes(found), bool)


def pixels_of(model: Any) -> int:
    """The side of the pictures that a `TextToImage` was made for."""
    return int(model.latent_shape()[1]) * 2 ** (len(model.vae.config.block_out_channels) - 1)


@dataclass(frozen=True)
class ForgetMe:
    """Remove what the masks cover.

    fill: "telea", "navier-stokes" (both of that ``radius``) or "diffusion", which needs a ``model`` (`TextToImage` of
    the pictures' size): known pixels are put back at every step (RePaint), and with ``suppress`` no place attends to
    those inside the hole, so that the thing does not return. prompt: for the model, of the picture without the thing.
    feather, grow: of the mask, in pixels, see `refine`; the widening for shadows is this implementation's.

    Source: Prompt-Driven and Training-Free Forgetting Approach and Dataset for Large Language Models (ForgetMe), 2025.
    Its masks come from a segmenter and a text score; here they are given.

    >>> images, masks = np.full((1, 3, 32, 32), 0.5, np.float32), np.zeros((1, 1, 32, 32), bool)
    >>> images[..., 12:18, 12:18], masks[..., 12:18, 12:18] = 1.0, True
    >>> filled, refined = ForgetMe().erase(images, masks)
    >>> bool(abs(filled - 0.5).max() < 0.02), bool((refined & masks).sum() == masks.sum())
    (True, True)
    """

    slug: ClassVar[str] = "forgetme"
    fill: str = "telea"
    radius: float = 3.0
    feather: float = 3.0
    grow: int = 3
    model: Any = field(default=None, repr=False)
    prompt: str = ""
    steps: int = 20
    repeats: int = 3
    suppress: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fill not in (*FILLS, "diffusion"):
            raise UsageError(f"fill is {self.fill!r}; choose one of {', '.join((*FILLS, 'diffusion'))}.")
        if self.fill == "diffusion" and self.model is None:
            raise UsageError("Filling by diffusion needs a model.")
        if not 1 <= self.radius <= 100:
            raise UsageError(f"The radius is {self.radius} pixels; choose 1 to 100.")

    def erase(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """images float32 N×3×H×W in [0, 1], masks bool N×1×H×W -> (pictures after the removal, refined masks)."""
        if masks is None:
            raise UsageError("Forgetting a part of a picture needs a mask of it.")
        if images.ndim != 4 or images.shape[1] != 3 or masks.dtype != np.bool_:
            raise UsageError(f"Images are N×3×H×W and masks bool, got {images.shape} and {masks.dtype}.")
        if masks.shape != (len(images), 1, *images.shape[2:]):
            raise UsageError(f"Masks are N×1×H×W of the images' size, got {masks.shape} for {images.shape}.")
        refined = np.stack([refine(m[0], self.feather, self.grow)[None] for m in masks])
        filled = np.array(images, np.float32)
        if self.fill == "diffusion":
            return self._diffuse(filled, refined), refined
        for image, mask in zip(filled, refined[:, 0], strict=True):
            fill(image, mask, self.radius, self.fill)
        return filled, refined

    def pack(self, image: np.ndarray, mask: np.ndarray) -> FourPack:
        """The pack of one picture 3×H×W and a mask H×W. Raises InputError for an empty mask: nothing would be gone."""
        if not mask.any():
            raise InputError("The mask is empty, so there is nothing to forget in this picture.")
        filled, refined = self.erase(image[None], mask[None, None])
        foreground = np.where(mask, image, 1).astype(np.float32)
        return FourPack(image.astype(np.float32), foreground, filled[0], refined[0, 0])

    def _diffuse(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        import torch

        from vestige.engines.diffusion.editing import repaint
        from vestige.engines.diffusion.schedules import grid

        chosen = masks.any((1, 2, 3))
        if not chosen.any():
            return images
        holes = torch.from_numpy(masks[chosen])
        known = self.model.encode(torch.from_numpy(images[chosen]))
        hole = torch.nn.functional.interpolate(holes.float(), known.shape[2:], mode="area") > 0
        generator = torch.Generator().manual_seed(self.seed)
        with closed(self.model.unet, hole) if self.suppress else _open():
            latents = repaint(
                self.model.denoiser([self.prompt] * len(known)), known, hole, grid(self.model.table, self.steps),
                generator, jump=max(1, self.steps // 4), repeats=self.repeats,
            )  # fmt: skip
        made = self.model.decode(latents).cpu().numpy()
        images[chosen] = np.where(masks[chosen], made, images[chosen])
        return images


@contextmanager
def _open() -> Iterator[None]:
    yield


@contextmanager
def closed(unet: Any, hole: Any) -> Iterator[None]:
    """Self-attention of a diffusers UNet without the keys inside the hole (bool N×1×h×w), at every scale.

    A scale at which the hole is everything keeps its attention. The processors are put back on leaving.
    """
    import torch
    from diffusers.models.attention_processor import AttnProcessor2_0

    side = tuple(hole.shape[2:])

    class Closed(AttnProcessor2_0):
        def __call__(
            self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *rest: Any, **more: Any
        ) -> Any:
            if encoder_hidden_states is None:
                flat = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
                scale = (side[0] * side[1] / flat.shape[1]) ** 0.5
                size = (round(side[0] / scale), round(side[1] / scale))
                inside = torch.nn.functional.interpolate(hole.float(), size, mode="area").flatten(1) > 0.5
                inside = inside & ~inside.all(1, keepdim=True)
                inside = inside.repeat(len(flat) // len(inside), 1)
                more["attention_mask"] = (inside[:, None].to(flat.dtype) * -1e4).expand(-1, flat.shape[1], -1)
                rest = ()
            return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **more)

    before = unet.attn_processors
    unet.set_attn_processor(Closed())
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def packs(images: Sequence[np.ndarray], masks: Sequence[np.ndarray], eraser: ForgetMe | None = None) -> list[FourPack]:
    """A pack for every picture and mask; those whose mask is empty are left out."""
    eraser = eraser or ForgetMe()
    return [eraser.pack(i, m) for i, m in zip(images, masks, strict=True) if m.any()]
