"""Sources of generated pictures that need networks: autoencoders, adversarial generators, diffusion models.

All are `vestige.data.fakes.FakeSource`: photographs and a seed in, pictures of the same shape out. Row i draws from
the seed and i alone, so batch sizes do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.fakes import SOURCES, FakeSource, fitted_sources, squares
from vestige.data.fakes_synthesis import synthesis_sources
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.diffusion.editing import start_at
from vestige.engines.diffusion.latent import decode_latents, encode_images
from vestige.engines.diffusion.pipeline import DiffusersPipeline, TextToImage, load_pipeline
from vestige.engines.diffusion.samplers import sample
from vestige.engines.diffusion.schedules import grid
from vestige.engines.run_state import load_trained, write_model
from vestige.nn.gan import ConvGenerator

#: Where trained weights are shipped.
WEIGHTS = Path(__file__).parent.parent / "weights"
_BATCH = 32


def _noise(seed: int, name: str, rows: range, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, one generator a row."""
    return torch.from_numpy(np.stack([rng(seed, "fakes", name, i).standard_normal(shape, np.float32) for i in rows]))


def _parts(count: int) -> list[range]:
    return [range(at, min(at + _BATCH, count)) for at in range(0, count, _BATCH)]


def autoencoder_source(vae: Any, name: str = "autoencoder") -> FakeSource:
    """Round trips decode(encode(x)) through an autoencoder, the latents being the modes.

    vae: the folder of a diffusers autoencoder, that of a pipeline (its "vae"), or such a model. Sides of the
    photographs must be multiples of its factor. Raises InputError when the folder holds no autoencoder.
    """
    if isinstance(vae, str | Path):
        vae = load_autoencoder(vae, tiny=True)
    vae.eval()

    def make(photographs: np.ndarray, seed: int) -> np.ndarray:
        images = torch.from_numpy(photographs)
        return decode_latents(vae, encode_images(vae, images, batch=_BATCH), batch=_BATCH).numpy()

    return FakeSource(name, "autoencoder", make)


def load_generator(path: str | Path) -> ConvGenerator:
    """The generator of a file that recipes/forensics/zoo_gan wrote, in evaluation mode.

    Raises InputError when it is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            settings = json.loads((file.metadata() or {})["generator"])
        model = ConvGenerator(**settings)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; train it with: vestige learn zoo_gan") from None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, UsageError):
        raise InputError(f"{path} holds no generator; give a file that recipes/forensics/zoo_gan wrote.") from None
    load_trained(path, model)
    return model.requires_grad_(False)


def save_generator(model: ConvGenerator, path: Path) -> None:
    """Write weights and settings as safetensors, atomically."""
    write_model(path, model, {"generator": model.settings})


def gan_source(generator: ConvGenerator | str | Path, name: str = "gan") -> FakeSource:
    """Pictures of an adversarially trained generator, of its own size only; see `load_generator`.

    One with the code "picture" enlarges the photographs' reduced copies, so its pictures are paired with them.
    """
    model = generator if isinstance(generator, ConvGenerator) else load_generator(generator)
    model.eval()

    @torch.no_grad()
    def make(photographs: np.ndarray, seed: int) -> np.ndarray:
        if photographs.shape[2:] != (model.size, model.size):
            raise UsageError(f"The generator {name} makes pictures of {model.size}×{model.size} pixels only.")
        made = []
        for rows in _parts(len(photographs)):
            low = torch.nn.functional.avg_pool2d(torch.from_numpy(photographs[rows.start : rows.stop]), 4)
            made.append(model(_noise(seed, name, rows, (model.latent,)), low if model.code == "picture" else None))
        return torch.cat(made).numpy()

    return FakeSource(name, "gan", make, paired=model.code == "picture")


def _model(pipeline: Any) -> TextToImage:
    model = load_pipeline(pipeline) if isinstance(pipeline, str | Path) else pipeline
    if not isinstance(model, TextToImage):
        kind = type(model.pipeline).__name__ if isinstance(model, DiffusersPipeline) else type(model).__name__
        raise InputError(f"Photographs are not redrawn with a {kind}; give a Stable Diffusion 1 or 2 folder or ours.")
    return model.eval()


def redraw_source(
    pipeline: Any, strength: float = 0.2, *, prompt: str = "", steps: int = 20, name: str = ""
) -> FakeSource:
    """Photographs redrawn by a diffusion model (SDEdit, DDIM): noised to ``strength`` of the chain and denoised.

    pipeline: a diffusers folder or a `TextToImage`. The model is run at the photographs' size.
    Source: SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, ICLR 2022.
    """
    model = _model(pipeline)
    levels = start_at(grid(model.table, steps), strength)
    alpha, sigma = float(model.table.alpha[levels[0]]), float(model.table.sigma[levels[0]])
    name = name or f"redrawn_{strength:g}"

    @torch.no_grad()
    def make(photographs: np.ndarray, seed: int) -> np.ndarray:
        model.latent_shape((int(photographs.shape[2]), int(photographs.shape[3])))  # refuses sides that do not divide
        denoiser, made = model.denoiser(prompt), []
        for rows in _parts(len(photographs)):
            latents = model.encode(torch.from_numpy(photographs[rows.start : rows.stop]))
            noise = _noise(seed, name, rows, tuple(latents.shape[1:])).to(latents)
            made.append(model.decode(sample(denoiser, alpha * latents + sigma * noise, levels, "ddim")).cpu())
        return torch.cat(made).numpy()

    return FakeSource(name, "diffusion", make)


def sample_source(
    pipeline: Any, captions: Sequence[str], *, steps: int = 20, guidance: float = 3.0, name: str = "samples"
) -> FakeSource:
    """Pictures of captions by a diffusion model; row i has caption i, starting over when they are used up.

    The pictures they are compared with must show the same captions: rendered scenes for the shipped model. The
    model draws at their size. Raises UsageError without captions.
    """
    model, listed = _model(pipeline), list(captions)
    if not listed:
        raise UsageError("Samples need at least one caption.")

    def make(photographs: np.ndarray, seed: int) -> np.ndarray:
        prompts = [listed[i % len(listed)] for i in range(len(photographs))]
        size = (int(photographs.shape[2]), int(photographs.shape[3]))
        return model.sample(prompts, seed=seed, steps=steps, guidance=guidance, size=size, batch=_BATCH).cpu().numpy()

    return FakeSource(name, "diffusion", make, paired=False)


def shipped_sources(*, diffusion: bool = True, size: int = 64) -> list[FakeSource]:
    """Sources made of the package's weights: the autoencoder and the diffusion model of scenes, and the zoo's
    autoencoder, generators and diffusion model of photographs (weights/zoo_*).

    diffusion: include the redrawn photographs, which take the most time. size: side of the photographs; generators of
    other sizes are left out.
    """
    found = [
        autoencoder_source(WEIGHTS / folder, folder)
        for folder in ("scenes_vae", "zoo_vae")
        if (WEIGHTS / folder / "config.json").is_file()
    ]
    generators = {path.stem: load_generator(path) for path in sorted(WEIGHTS.glob("zoo_gan*.safetensors"))}
    found += [gan_source(model, name) for name, model in generators.items() if model.size == size]
    for folder, name in (("scenes_text2image", "redrawn"), ("zoo_diffusion", "zoo_redrawn")) if diffusion else ():
        if (WEIGHTS / folder).is_dir():
            pipeline = load_pipeline(WEIGHTS / folder)
            found += [redraw_source(pipeline, s, steps=10, name=f"{name}_{s:g}") for s in (0.1, 0.3)]
    return found


def zoo(photographs: np.ndarray, *, size: int = 64, diffusion: bool = True, seed: int = 0) -> list[FakeSource]:
    """Every source there is; the fitted ones learn from ``photographs`` (float N×3×S×S), used for nothing else."""
    fitted = [*fitted_sources(photographs, seed=seed), *synthesis_sources(photographs, seed=seed)]
    return [*SOURCES.values(), *fitted, *shipped_sources(diffusion=diffusion, size=size)]


def zoo_squares(size: int = 64, per_photo: int = 4, *, limit: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Squares that the zoo's generators learn from and that judge them: uint8 N×3×size×size each, of other photographs.

    From the photos pack, reduced by two; where there is none, rendered scenes. limit: photographs in all, 0 for all.
    """
    photographs: list[np.ndarray] = []
    if has_pack("photos"):
        packs = [named_pack("photos", part, size=256, limit=limit or None) for part in ("train", "val")]
        photographs = [pack.images for pack in packs]
    if not photographs or not all(len(images) for images in photographs):
        count = limit or 600
        photographs = [render_pack(n, 2 * size, seed + i).images for i, n in enumerate((count, max(16, count // 8)))]
    train, held = (squares(images, size, per_photo=per_photo, seed=seed)[0] for images in photographs)
    return train, held
