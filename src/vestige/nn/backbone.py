"""Encoders from anywhere behind one face: ``features(images in [0, 1]) -> N×width``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, MissingDependencyError, UsageError
from vestige.core.files import read_json, write_atomic
from vestige.core.models.checkpoint import ModelSubject
from vestige.nn.efficientnet import EfficientNetConfig, EfficientNetLite, pretrained
from vestige.nn.resnet import RESNETS, ResNet, ResNetConfig
from vestige.nn.vit import VITS, ViT, ViTConfig
from vestige.nn.vit_weights import vit_from_weights

_KINDS: dict[str, tuple[Any, Any]] = {
    "vit": (ViT, ViTConfig), "resnet": (ResNet, ResNetConfig), "efficientnet": (EfficientNetLite, EfficientNetConfig),
}  # fmt: skip
#: The name under which the network of the extra of this name is loaded.
FEATURES = "features"


def save_backbone(model: ViT | ResNet | EfficientNetLite, path: str | Path) -> None:
    """Write one of our encoders as safetensors, its configuration in the header; `load_backbone` reads it back."""
    from safetensors.torch import save

    kind = next(name for name, (network, _) in _KINDS.items() if isinstance(model, network))
    header = {"vestige": json.dumps({"kind": kind, "config": dataclasses.asdict(model.config)})}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(path, save(state, header))


def load_backbone(
    name_or_path: str | Path, *, weights: str | Path | None = None, component: str | None = None
) -> nn.Module:
    """An encoder with ``features(images N×3×H×W in [0, 1]) -> N×width`` and ``width``, in evaluation mode.

    name_or_path: one of our sizes ("vit_tiny_4_32", "resnet18_cifar", ...; random weights unless ``weights`` names a
    file), "features" for EfficientNet-lite2 as it learnt ImageNet (the package of the extra of this name; ``weights``
    are its own), a safetensors or torch file of ours or of a published ViT or MAE, a transformers folder, a diffusers
    pipeline folder (``component``: its part, default "vae") or the folder of one component, or "timm:NAME" where timm
    is installed (never downloaded: random weights, or ``weights``). Normalisation, and for fixed-size models a
    change of size, happen inside. Nothing is taken from the network.

    Raises InputError for files that are missing, damaged or of an unknown kind, UsageError for an unknown name,
    MissingDependencyError when timm or the package of the extra is needed.

    >>> load_backbone("vit_nano_4_32").features(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 128])
    """
    name = str(name_or_path)
    if name == FEATURES:
        if weights is not None:
            raise UsageError("The backbone 'features' brings its weights; leave out weights, or name the file alone.")
        return pretrained()
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), weights).eval()
    if name in VITS or name in RESNETS:
        model: nn.Module = ViT(VITS[name]) if name in VITS else ResNet(RESNETS[name])
        if weights is not None:
            _fill(model, ModelSubject.open(weights).state_dict(), str(weights))
        return model.eval()
    path = Path(name)
    if not path.exists():
        known = ", ".join([FEATURES, *VITS, *RESNETS])
        raise UsageError(f"There is no backbone {name!r}: give a file, a folder, timm:NAME, or one of {known}.")
    if path.is_file():
        return _from_file(path).eval()
    if (path / "model_index.json").is_file():
        part = path / (component or "vae")
        if not (part / "config.json").is_file():
            raise InputError(f"{path} has no component {component or 'vae'!r}; name one of its folders.")
        return _diffusers(part).eval()
    table = read_json(path / "config.json") if (path / "config.json").is_file() else None
    if isinstance(table, dict) and "_class_name" in table:
        return _diffusers(path).eval()
    return _transformers(path).eval()


def _fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{source} does not fit the network ({' '.join(str(error).split())[:200]}).") from None


def _from_file(path: Path) -> nn.Module:
    subject = ModelSubject.open(path)
    described = _description(path) if subject.format == "safetensors" else None
    if described is None:
        return vit_from_weights(subject.state_dict())
    try:
        module, config = _KINDS[described["kind"]]
        fields = {f.name for f in dataclasses.fields(config)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in described["config"].items() if k in fields}
        model = module(config(**values))
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, UsageError) as error:
        raise InputError(f"{path} does not say which network it belongs to ({str(error)[:120]}).") from None
    _fill(model, subject.state_dict(), str(path))
    return model


def _description(path: Path) -> dict[str, Any] | None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get("vestige")
    if text is None:
        return None
    try:
        described = json.loads(text)
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise InputError(f"{path} does not say which network it belongs to (its header is damaged).")
    return described


class Wrapped(nn.Module):
    """A module of another library with normalisation, a fixed size where it needs one, and pooling."""

    model: Any

    def __init__(
        self, model: nn.Module, width: int, mean: list[float], std: list[float], size: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.width, self.size = model, width, size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def prepare(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        return (images - self.get_buffer("mean")) / self.get_buffer("std")

    def features(self, images: Tensor) -> Tensor:
        out = self.model(self.prepare(images))
        return out.flatten(2).mean(2) if out.dim() == 4 else out

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class _Transformers(Wrapped):
    def features(self, images: Tensor) -> Tensor:
        hidden = self.model(pixel_values=self.prepare(images)).last_hidden_state
        if hidden.dim() == 4:
            return hidden.flatten(2).mean(2)
        return hidden[:, 1:].mean(1) if hidden.shape[1] > 1 else hidden[:, 0]


class _Autoencoder(Wrapped):
    def features(self, images: Tensor) -> Tensor:
        encoded = self.model.encode(self.prepare(images))
        latent = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded[0]
        return latent.flatten(2).mean(2)


class _UNet(Wrapped):
    """The middle of a denoising network at time 0, where its input is the picture itself."""

    def features(self, images: Tensor) -> Tensor:
        kept: list[Tensor] = []
        handle = self.model.mid_block.register_forward_hook(lambda *call: kept.append(call[-1]))
        try:
            self.model(self.prepare(images), torch.zeros(len(images), device=images.device))
        finally:
            handle.remove()
        return kept[0].flatten(2).mean(2)


def _transformers(path: Path) -> nn.Module:
    model = ModelSubject.open(path).load().float()  # files may hold half precision
    table = read_json(path / "config.json")
    kind = str(table.get("model_type"))
    processor = path / "preprocessor_config.json"
    settings = read_json(processor) if processor.is_file() else {}
    mean, std = settings.get("image_mean") or [0.485, 0.456, 0.406], settings.get("image_std") or [0.229, 0.224, 0.225]
    if kind in ("vit", "vit_mae"):
        config = ViTConfig(eps=float(table.get("layer_norm_eps", 1e-12)), mean=tuple(mean), std=tuple(std))
        return vit_from_weights(model.state_dict(), heads=table.get("num_attention_heads"), config=config)
    model = getattr(model, "vision_model", getattr(model, "base_model", model))
    config = getattr(model.config, "vision_config", model.config)
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [0])[-1]
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values" or not width:
        raise InputError(f"{path} holds a {kind} model, which does not take images.")
    size = getattr(config, "image_size", None)
    return _Transformers(model, int(width), mean, std, size if isinstance(size, int) else None)


def _diffusers(path: Path) -> nn.Module:
    import diffusers

    name = read_json(path / "config.json").get("_class_name")
    builder = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(builder, type) and issubclass(builder, diffusers.ModelMixin)):
        raise InputError(f"{path} is not loaded: {str(name)[:60]} is no model of diffusers.")
    try:
        model = builder.from_pretrained(str(path), local_files_only=True, use_safetensors=True)
    except Exception as error:  # the library raises every type on damaged folders
        raise InputError(f"{path} cannot be loaded ({' '.join(str(error).split())[:160]}).") from None
    assert isinstance(model, nn.Module)
    model.float()
    config: Any = model.config
    if hasattr(model, "encode"):
        width = int(getattr(config, "latent_channels", 0) or getattr(config, "vq_embed_dim", 0) or 0)
        return _Autoencoder(model, width, [0.5] * 3, [0.5] * 3)
    if hasattr(model, "mid_block") and config.in_channels == 3 and getattr(config, "cross_attention_dim", None) is None:
        return _UNet(model, int(config.block_out_channels[-1]), [0.5] * 3, [0.5] * 3)
    raise InputError(f"{path} is a {name}, which takes more than a picture; name the pipeline's vae instead.")


def _timm(name: str, weights: str | Path | None) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise MissingDependencyError(f"The backbone timm:{name} needs timm; install vestige[timm].") from None
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0)
    except Exception as error:
        raise UsageError(f"timm has no model {name!r} ({' '.join(str(error).split())[:120]}).") from None
    if weights is not None:
        own = model.state_dict()
        _fill(model, {k: v for k, v in ModelSubject.open(weights).state_dict().items() if k in own}, str(weights))
    settings = timm.data.resolve_model_data_config(model)
    size = settings["input_size"][-1] if settings.get("fixed_input_size") else None
    return Wrapped(model, model.num_features, list(settings["mean"]), list(settings["std"]), size)
