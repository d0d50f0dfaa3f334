"""Text-to-image models as diffusers folders: the model class, saving and loading.

A `TextToImage` is tokenizer + text encoder + autoencoder + UNet + schedule. ``save_pipeline`` writes it as a folder
that ``diffusers.DiffusionPipeline.from_pretrained`` runs (class StableDiffusionPipeline; a pixel-space model has the
identity as its autoencoder); ``load_pipeline`` reads ours and others' folders, offline, from safetensors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic, read_json
from vestige.core.models.safetensors_header import read_header
from vestige.engines.diffusion.losses import diffusion_loss
from vestige.engines.diffusion.samplers import Denoiser, Sampler, Step, sample
from vestige.engines.diffusion.schedules import Prediction, Schedule, Spacing, cosine, flow, from_betas, grid, schedule
from vestige.nn import vae as autoencoder
from vestige.nn.text import token_ids

_PREDICTIONS: dict[Prediction, str] = {
    "eps": "epsilon",
    "x0": "sample",
    "v": "v_prediction",
    "flow": "flow_prediction",
}


class TextToImage(nn.Module):
    """A text-conditional diffusion model over the latents of an autoencoder (the identity for pixel models).

    unet: (x, t, context) -> prediction; vae, text_encoder, tokenizer: as in `vestige.nn`. Images are float32 N×3×H×W in
    [0, 1] at every method; latents are scaled, as diffusers' pipelines have them.

    >>> from vestige.nn import text, unet, vae
    >>> tokenizer = text.build_tokenizer(["a red ball"], 8)
    >>> model = TextToImage(unet.text_unet(16, 3, "tiny", 32), vae.identity_vae(), text.text_encoder(tokenizer, 32, 1),
    ...                     tokenizer, cosine(), "v")
    >>> model.sample(["a red ball"], steps=2).shape
    torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, table: Schedule, prediction: Prediction = "eps"
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.text_encoder = unet, vae.requires_grad_(False), text_encoder
        self.tokenizer, self.table, self.prediction = tokenizer, table, prediction

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def context(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids N×L -> what the UNet attends to, N×L×D."""
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = (ids != self.tokenizer.pad_token_id).long()
        return self.text_encoder(ids, attention_mask=mask)[0]

    def embed(self, prompts: str | Sequence[str]) -> torch.Tensor:
        """Prompts -> contexts N×L×D; over-long prompts are cut."""
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        return self.context(token_ids(self.tokenizer, listed).to(self.device))

    def network(self, x: torch.Tensor, time: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        """The UNet as the plain function that losses and samplers call."""
        return self.unet(x, time, encoder_hidden_states=context, return_dict=False)[0]

    def encode(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Images in [0, 1] -> scaled latents: the mode, or a draw when given a generator."""
        # bfloat16 would round the pixels themselves, so autocast ends here.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return autoencoder.encode(self.vae, images.to(self.device) * 2 - 1, generator)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents -> images, clamped to [0, 1]."""
        return (autoencoder.decode(self.vae, latents) / 2 + 0.5).clamp(0, 1)

    def denoiser(
        self, prompts: str | Sequence[str], *, guidance: float = 1.0, negative: str | Sequence[str] = "", **options: Any
    ) -> Denoiser:
        """The guided denoiser of the prompts; options as in `Denoiser`. The empty prompt is the null condition."""
        with torch.no_grad():
            null = self.embed(negative) if guidance != 1.0 else None
            return Denoiser(
                self.network, self.table, self.prediction, self.embed(prompts), null, guidance=guidance, **options
            )

    def latent_shape(self, size: int | tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of ``size`` (default: the model's own).

        Raises UsageError for sizes the autoencoder and the UNet cannot divide.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        own = self.unet.config.sample_size
        own = (own, own) if isinstance(own, int) else tuple(own)
        height, width = (
            (own[0] * factor, own[1] * factor) if size is None else (size, size) if isinstance(size, int) else size
        )
        multiple = factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise UsageError(f"The size {width}×{height} must be a multiple of {multiple} in both directions.")
        return self.unet.config.in_channels, height // factor, width // factor

    @torch.no_grad()
    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        steps: int = 25,
        method: Sampler = "dpm++",
        guidance: float = 3.0,
        negative: str | Sequence[str] = "",
        spacing: Spacing = "trailing",
        size: int | tuple[int, int] | None = None,
        latents: torch.Tensor | None = None,
        batch: int = 64,
        eta: float | None = None,
        on_step: Callable[[Step], Any] | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """One image per prompt, N×3×H×W in [0, 1]; same seed, same images, whatever the batch size.

        latents: the starting noise instead of one drawn from ``seed`` (row i from seed and i). options: rescale,
        guided and clip of `Denoiser`. Raises UsageError for an empty list of prompts, sizes or options out of range.
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if not listed or batch < 1:
            raise UsageError("Give at least one prompt, and a batch size of at least 1.")
        shape = self.latent_shape(size)
        levels = grid(self.table, steps, spacing)
        training = self.training
        self.eval()
        images = []
        try:
            for at in range(0, len(listed), batch):
                rows = range(at, min(at + batch, len(listed)))
                generators = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in rows]
                if latents is None:
                    start = torch.stack([torch.randn(shape, generator=g) for g in generators])
                else:
                    start = latents[rows.start : rows.stop]
                denoiser = self.denoiser(
                    listed[rows.start : rows.stop],
                    guidance=guidance,
                    negative=negative if isinstance(negative, str) else negative[rows.start : rows.stop],
                    **options,
                )
                noise = torch.Generator().manual_seed(seed * 1_000_003 + at)
                clean = sample(
                    denoiser, start.to(self.device), levels, method, eta=eta, generator=noise, on_step=on_step
                )
                images.append(self.decode(clean))
        finally:
            self.train(training)
        return torch.cat(images)

    def loss(
        self, latents: torch.Tensor, ids: torch.Tensor, generator: torch.Generator, *, drop: float = 0.1, **options: Any
    ) -> torch.Tensor:
        """Diffusion loss of latents N×C×H×W under the captions' token ids N×L; gradients reach UNet and text encoder.

        drop: share of captions replaced by the empty one, for classifier-free guidance. options: `diffusion_loss`.
        """
        empty = token_ids(self.tokenizer, [""]).to(ids.device)
        dropped = torch.rand(len(ids), generator=generator, device=generator.device).to(ids.device) < drop
        context = self.context(torch.where(dropped[:, None], empty, ids))
        return diffusion_loss(
            lambda x, t: self.network(x, t, context), latents, self.table, self.prediction, generator, **options
        )


def save_pipeline(folder: str | Path, model: TextToImage) -> Path:
    """Write a model as a StableDiffusionPipeline folder (safetensors), which appears whole or not at all.

    An existing pipeline folder of that name is replaced. Raises InputError when the name is taken by anything else or
    cannot be written; UsageError for a schedule diffusers does not know.
    """
    from diffusers import StableDiffusionPipeline

    folder = Path(folder)
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise InputError(f"{folder} exists and is no pipeline folder; choose another name.")
    pipeline: Any = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=diffusers_scheduler(model.table, model.prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with folder_atomic(folder) as new:
        pipeline.save_pretrained(new, safe_serialization=True)
    return folder


def diffusers_scheduler(table: Schedule, prediction: Prediction, method: str = "ddim") -> Any:
    """diffusers' scheduler with the same noise levels: "ddim", "ddpm" or "dpm++" (flow schedules: always the last)."""
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    config = {**table.diffusers_config(), "prediction_type": _PREDICTIONS[prediction]}
    if table.kind == "flow":
        shift = config.pop("shift")
        return DPMSolverMultistepScheduler(**config, use_flow_sigmas=True, flow_shift=shift)
    config |= {"timestep_spacing": "trailing"}
    if method == "dpm++":
        return DPMSolverMultistepScheduler(**config, final_sigmas_type="zero")
    if method == "ddim":
        # Unused by "trailing" grids; diffusers warns of any other value.
        return DDIMScheduler(**config, clip_sample=False, steps_offset=1)
    return DDPMScheduler(**config, clip_sample=False)


class DiffusersPipeline:
    """A pipeline of a class `TextToImage` has no form for (SDXL, Flux, PixArt, ...), run by diffusers itself."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        steps: int = 25,
        guidance: float | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """One image per prompt, N×3×H×W in [0, 1]. options go to the pipeline's call."""
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        options |= {} if guidance is None else {"guidance_scale": guidance}
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(len(listed))]
        made = self.pipeline(
            listed, num_inference_steps=steps, generator=generators, output_type="np", **options
        ).images
        return torch.from_numpy(made).permute(0, 3, 1, 2).float().contiguous()


def load_pipeline(folder: str | Path) -> TextToImage | DiffusersPipeline:
    """Read a diffusers text-to-image folder without network access and without running code from it.

    Folders of one CLIP text encoder, an autoencoder and a UNet2DConditionModel (Stable Diffusion 1 and 2, ours) become
    a `TextToImage`; other pipeline classes of the installed diffusers become a `DiffusersPipeline`.
    Raises InputError when the folder is missing, incomplete, damaged, has weights other than safetensors, or names
    classes outside diffusers and transformers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a diffusers pipeline folder.")
    index = read_json(folder / "model_index.json")
    parts = _checked_parts(folder, index)
    try:
        if _fits(folder, parts):
            return _load_own(folder, parts)
        from diffusers import DiffusionPipeline

        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return DiffusersPipeline(pipeline.to(torch.float32))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded as a pipeline ({reason}).") from None


def _checked_parts(folder: Path, index: Any) -> dict[str, str]:
    """{component: class name} of a model index whose classes and weight files are safe to load."""
    import diffusers

    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str) or not hasattr(diffusers, kind):
        raise InputError(f"{folder}/model_index.json names the pipeline {kind!r}, which diffusers does not have.")
    parts: dict[str, str] = {}
    for name, entry in index.items():
        if not (isinstance(entry, list) and len(entry) == 2) or entry == [None, None]:
            continue
        library, part = entry
        known = library in ("diffusers", "transformers") or hasattr(diffusers.pipelines, str(library))
        if not known or not isinstance(part, str) or not part.isidentifier():
            raise InputError(
                f"{folder} needs {library}.{part} for its {name}; only diffusers and transformers are run."
            )
        if not (folder / name).is_dir():
            raise InputError(f"{folder} has no folder {name}, which its model_index.json asks for.")
        parts[name] = part
    for path in sorted(folder.glob("*/*")):
        if path.suffix == ".py":
            raise InputError(f"{folder} holds code ({path.name}), which is not run; remove it after reading it.")
        if path.suffix == ".safetensors":
            read_header(path)
    for name in parts:
        inside = folder / name
        pickled = any(inside.glob("*.bin")) or any(inside.glob("*.pt")) or any(inside.glob("*.ckpt"))
        if pickled and not any(inside.glob("*.safetensors")):
            raise InputError(f"{inside} has pickled weights only; convert them to safetensors first.")
    return parts


def _fits(folder: Path, parts: dict[str, str]) -> bool:
    """Whether the components are those of a `TextToImage`: no second encoder, no added or embedded conditions."""
    wanted = {
        "unet": {"UNet2DConditionModel"},
        "text_encoder": {"CLIPTextModel"},
        "vae": {"AutoencoderKL", "AutoencoderTiny"},
    }
    if any(parts.get(name) not in kinds for name, kinds in wanted.items()):
        return False
    extra = set(parts) - {*wanted, "tokenizer", "scheduler", "safety_checker", "feature_extractor"}
    config = read_json(folder / "unet" / "config.json")
    special = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
    same = config.get("in_channels") == config.get("out_channels")
    return not extra and same and not any(config.get(key) for key in special)


def _load_own(folder: Path, parts: dict[str, str]) -> TextToImage:
    import diffusers
    from transformers import AutoTokenizer, CLIPTextModel

    table, prediction = _read_schedule(read_json(folder / "scheduler" / "scheduler_config.json"), folder)
    kinds = {name: getattr(diffusers, parts[name]) for name in ("unet", "vae")} | {"text_encoder": CLIPTextModel}
    loaded = {}
    for name, kind in kinds.items():
        options = {} if name == "text_encoder" else {"low_cpu_mem_usage": False}
        loaded[name], info = kind.from_pretrained(
            folder / name, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
        if info["missing_keys"]:  # the libraries would start them at random and go on
            raise InputError(f"{folder / name} lacks weights its configuration asks for ({min(info['missing_keys'])}).")
    for part in loaded.values():
        part.float()  # files may hold half precision
    return TextToImage(
        loaded["unet"],
        loaded["vae"],
        loaded["text_encoder"],
        AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        table,
        prediction,
    ).eval()


def _read_schedule(config: dict[str, Any], folder: Path) -> tuple[Schedule, Prediction]:
    named = {value: key for key, value in _PREDICTIONS.items()}
    prediction = named.get(config.get("prediction_type", "epsilon"))
    steps = config.get("num_train_timesteps", 1000)
    if config.get("use_flow_sigmas") or "Flow" in str(config.get("_class_name")):
        return flow(steps, config.get("flow_shift", config.get("shift", 1.0))), "flow"
    if prediction is None:
        raise InputError(f"{folder} predicts {config.get('prediction_type')!r}, which is not known.")
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        table = from_betas(torch.tensor(config["trained_betas"], dtype=torch.float64), "trained")
    elif kind == "squaredcos_cap_v2":
        table = cosine(steps)
    elif kind in ("linear", "scaled_linear"):
        table = schedule(kind, steps=steps, start=config.get("beta_start", 1e-4), end=config.get("beta_end", 0.02))
    else:
        raise InputError(f"{folder} has the noise schedule {kind!r}, which is not known.")
    return (table.zero_terminal() if config.get("rescale_betas_zero_snr") else table), prediction
