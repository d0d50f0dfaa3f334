"""Classifiers from anywhere behind one face: pictures in [0, 1] to outputs per class, and back to the same form."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic, read_json, write_atomic
from vestige.core.models.checkpoint import ModelSubject
from vestige.nn.backbone import Wrapped, load_backbone, save_backbone
from vestige.nn.layout import safe_strides
from vestige.nn.resnet import ResNet


class PixelClassifier(Wrapped):
    """A transformers image classifier with its normalisation and size: N×3×H×W in [0, 1] -> logits N×classes."""

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=self.prepare(images)).logits


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier. model: pictures N×3×H×W in [0, 1] -> N×outputs, in evaluation mode. form: "ours",
    "transformers" or "built". size: side it was made for, None for any. classes: their names, where the file says."""

    source: Path
    model: nn.Module = field(repr=False)
    form: str
    size: int | None = None
    classes: tuple[str, ...] = ()
    digest: str = ""

    def save(self, model: nn.Module, path: str | Path) -> None:
        """Write a changed copy of the model in the form it came in: a file, or a transformers folder. Atomic."""
        if self.form == "transformers":
            assert isinstance(model, PixelClassifier)
            with folder_atomic(path) as folder:
                model.model.save_pretrained(str(folder))
                processor = self.source / "preprocessor_config.json"
                if processor.is_file():
                    shutil.copyfile(processor, folder / processor.name)
        elif self.form == "ours":
            assert isinstance(model, ResNet)
            save_backbone(model, path)
        else:
            from safetensors.torch import save

            state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
            write_atomic(path, save(state))


def load_classifier(path: str | Path, *, build: str = "") -> Classifier:
    """A classifier from a file of ours, a transformers folder, or weights for the module that ``build`` makes.

    path: what `save_backbone` wrote for a network with a head; a folder of an image classifier; or, with ``build``,
    any weights file. build: "module:function" without arguments, found from the working folder; its code runs. Raises
    InputError for files that are missing, damaged, or of another architecture, UsageError for a build that fails.

    >>> import tempfile
    >>> from vestige.nn.resnet import ResNetConfig
    >>> folder = tempfile.TemporaryDirectory()
    >>> save_backbone(ResNet(ResNetConfig(18, width=0.125, classes=3)), Path(folder.name, "net.safetensors"))
    >>> load_classifier(Path(folder.name, "net.safetensors")).form
    'ours'
    """
    path = Path(path)
    subject = ModelSubject.open(path)
    if build:
        model = user_network("--build", build, "my_models:small_net")
        _fill(model, subject.state_dict(), path, build)
        return Classifier(path, safe_strides(model).eval(), "built", digest=subject.sha256)
    if subject.kind == "diffusers":
        raise InputError(f"{path} is a diffusers pipeline, which classifies nothing; give an image classifier.")
    if subject.kind == "transformers":
        return _transformers(path, subject)
    if subject.format != "safetensors":
        raise UsageError(
            f"{path} holds weights without an architecture; name what builds it with --build MODULE:FUNCTION."
        )
    try:
        model = load_backbone(path)
    except (InputError, UsageError) as error:
        raise InputError(
            f"{path} does not say which classifier it belongs to; name what builds it with --build MODULE:FUNCTION."
        ) from error
    if not isinstance(model, ResNet) or model.fc is None:
        raise InputError(f"{path} holds an encoder without a head for classes; give a classifier.")
    return Classifier(path, model, "ours", digest=subject.sha256)


def _transformers(path: Path, subject: ModelSubject) -> Classifier:
    model: Any = safe_strides(subject.load().float())
    config: Any = model.config
    names = getattr(config, "id2label", None) or {}
    if not type(model).__name__.endswith("ForImageClassification"):
        raise InputError(f"{path} holds a {type(model).__name__}, which is no image classifier.")
    processor = path / "preprocessor_config.json"
    settings = read_json(processor) if processor.is_file() else {}
    mean, std = settings.get("image_mean") or [0.5] * 3, settings.get("image_std") or [0.5] * 3
    size = getattr(config, "image_size", None)
    side = size if isinstance(size, int) else None
    wrapped = PixelClassifier(model, int(config.num_labels), list(mean), list(std), side).eval()
    return Classifier(path, wrapped, "transformers", side, tuple(str(names[i]) for i in sorted(names)), subject.sha256)


def build_digest(build: str) -> str:
    """SHA-256 of the source file of the module that ``build`` names, after it was loaded; "" without one. What that
    module imports is not covered. Raises InputError when the module has no file."""
    if not build:
        return ""
    module = sys.modules.get(build.partition(":")[0])
    file = getattr(module, "__file__", None)
    if not file or not Path(file).is_file():
        raise InputError(f"{build} has no source file that a certificate could bind.")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def user_network(option: str, named: str, example: str, *arguments: Any) -> nn.Module:
    """What the user's own function returns, which must be a torch module; its code runs, with the user's rights.

    option: "--build" or the like, example: a value of it, for the messages. named: "module:function", looked for in the
    working folder too. Raises UsageError when it is malformed, cannot be called, or returns something else.
    """
    module, _, function = named.partition(":")
    if not module or not function.isidentifier():
        raise UsageError(f"{option} is MODULE:FUNCTION, as {example}; got {named!r}.")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)(*arguments)
    except Exception as error:  # code of the user's
        raise UsageError(f"{named} could not be called ({type(error).__name__}: {str(error)[:160]}).") from None
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{named} returned a {type(made).__name__}; it must return a torch module.")
    return made


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path, build: str) -> None:
    own = model.state_dict()
    wrong: Sequence[str] = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
    if wrong:
        raise InputError(
            f"The weights in {path} are of another architecture than {build} builds ({wrong[0]}, for one)."
        )
    with torch.no_grad():
        model.load_state_dict(state)
