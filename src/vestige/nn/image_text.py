"""Models of pictures and captions in one space (CLIP): a small one, and how any of them is asked.

Source: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError
from vestige.core.files import folder_atomic, read_json, write_json
from vestige.nn.text import text_encoder, token_ids


def small_clip(
    tokenizer: Any, *, size: int = 32, patch: int = 8, width: int = 96, depth: int = 3, heads: int = 4,
    projection: int = 64, scale: float = 100.0,
) -> Any:  # fmt: skip
    """A transformers ``CLIPModel`` for pictures of ``size`` pixels and the captions of ``tokenizer``.

    scale: factor on the cosines in training. 100 is where CLIP ends; from the start it keeps the space between
    pictures and captions that large models have.
    """
    from transformers import CLIPConfig, CLIPModel

    text = text_encoder(tokenizer, width, depth, heads).config.to_dict() | {"projection_dim": projection}
    vision = {
        "hidden_size": width, "intermediate_size": 4 * width, "projection_dim": projection, "image_size": size,
        "num_hidden_layers": depth, "num_attention_heads": heads, "patch_size": patch,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    config.logit_scale_init_value = math.log(scale)
    return CLIPModel(config)


class ImageText(nn.Module):
    """A ``CLIPModel`` and its tokenizer: pictures N×3×H×W in [0, 1] and captions -> features N×d, not normalised.

    Pictures are scaled to the model's side and normalised inside, so that gradients reach their pixels. mean, std: of
    the normalisation, those of CLIP unless given.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        mean: Sequence[float] = (0.4815, 0.4578, 0.4082),
        std: Sequence[float] = (0.2686, 0.2613, 0.2758),
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.side = int(model.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def images(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        x = (images - self.get_buffer("mean")) / self.get_buffer("std")
        return self.model.visual_projection(self.model.vision_model(pixel_values=x).pooler_output)

    def texts(self, captions: Sequence[str]) -> Tensor:
        return self.of_tokens(token_ids(self.tokenizer, captions))

    def of_tokens(self, ids: Tensor) -> Tensor:
        """Features of token ids N×L: the state at the end mark, projected."""
        states = self.model.text_model(input_ids=ids).last_hidden_state
        end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        return self.model.text_projection(states[torch.arange(len(ids)), end])

    def loss(self, images: Tensor, ids: Tensor) -> Tensor:
        """Symmetric cross-entropy of pictures and their captions; equal captions in a batch are all right answers."""
        scale = self.model.logit_scale.exp()
        logits = scale * F.normalize(self.images(images), dim=1) @ F.normalize(self.of_tokens(ids), dim=1).T
        same = (ids[:, None] == ids[None]).all(2).float()
        wanted = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


def cosines(features: Tensor, texts: Tensor) -> Tensor:
    """N×K cosines of features N×d and texts K×d.

    >>> cosines(torch.eye(2), torch.tensor([[0.0, 2.0]])).tolist()
    [[0.0], [1.0]]
    """
    return F.normalize(features, dim=1) @ F.normalize(texts, dim=1).T


def load_image_text(folder: str | Path) -> ImageText:
    """A folder of transformers with a ``CLIPModel`` and its tokenizer, from the disk alone, in evaluation mode.

    Normalisation is that of its preprocessor_config.json where there is one. Raises InputError for other folders.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading weights takes no time that is worth one
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(f"{path} holds no model of pictures and captions; give a folder of transformers with a CLIP.")
    try:
        if read_json(path / "config.json").get("model_type") != "clip":
            raise ValueError("another kind of model")
        model: Any = CLIPModel.from_pretrained(path, local_files_only=True, use_safetensors=True).float()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        wanted = read_json(path / "preprocessor_config.json") if (path / "preprocessor_config.json").is_file() else {}
        spread = {name: wanted[f"image_{name}"] for name in ("mean", "std") if f"image_{name}" in wanted}
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        said = str(error).split("\n")[0][:120]
        raise InputError(f"{path} cannot be read as a CLIP of transformers ({said}).") from None
    return ImageText(model, tokenizer, **spread).eval()


def save_image_text(model: ImageText, folder: str | Path) -> None:
    """Write what `load_image_text` and transformers read, into a new folder, atomically."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with folder_atomic(folder) as place:
        model.model.save_pretrained(place, safe_serialization=True)
        model.tokenizer.save_pretrained(place)
        size = {"height": model.side, "width": model.side}
        spread = {f"image_{name}": model.get_buffer(name).flatten().tolist() for name in ("mean", "std")}
        write_json(
            place / "preprocessor_config.json",
            {"image_processor_type": "CLIPImageProcessor", "size": size, "do_center_crop": False, **spread},
        )
