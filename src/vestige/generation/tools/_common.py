"""What the tools of this wing share: the model behind a prompt, its words, and pictures on their way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vestige.core.errors import UsageError
from vestige.core.image_io import format_for, save_image, to_uint8
from vestige.core.runtime import device
from vestige.core.work import Result, Work
from vestige.engines.diffusion.pipeline import DiffusersPipeline, TextToImage, load_pipeline
from vestige.nn.text import unknown_words

#: The text-to-image model that is used where no ``--model`` is given.
SHIPPED = Path(__file__).parents[2] / "weights" / "scenes_text2image"


def prompt_of(work: Work) -> str:
    """The prompt; raises UsageError without one."""
    if not work.prompt.strip():
        raise UsageError(f'{work.method} needs a prompt: --prompt "a red boat on sand".')
    return work.prompt.strip()


def picture_file(work: Work) -> Path:
    """``--out`` as a picture file; raises UsageError for another ending."""
    out = work.out_file()
    format_for(out)
    return out


def any_model(work: Work, folder: Path | None = None) -> TextToImage | DiffusersPipeline:
    """The diffusers folder of ``--model`` (or ``folder``), the shipped model without one; on the chosen device."""
    if folder is None:
        folder = work.model_file(what="a diffusers folder") if work.model is not None else SHIPPED
    model = load_pipeline(folder)
    where = device(work.device)
    if isinstance(model, TextToImage):
        return model.to(where).eval().requires_grad_(False)
    model.pipeline.to(where)
    return model


def own_model(work: Work, folder: Path | None = None) -> TextToImage:
    """As `any_model`, for methods that reach into the network.

    Raises UsageError for pipelines of other shapes than one text encoder, one autoencoder and a UNet.
    """
    model = any_model(work, folder)
    if not isinstance(model, TextToImage):
        raise UsageError(
            f"{work.method} works inside a UNet with one text encoder (Stable Diffusion 1 and 2, ours); {work.model} "
            f"is a {type(model.pipeline).__name__}."
        )
    return model


def strangers(model: TextToImage | DiffusersPipeline, *prompts: str) -> list[str]:
    """A sentence about words that a model with a word vocabulary does not know; none for other tokenizers."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None or tokenizer.unk_token != "<unknown>":
        return []
    words = sorted({word for text in prompts for word in unknown_words(tokenizer, text)})
    return [f"The model does not know: {', '.join(words)}."] if words else []


def sheet(images: torch.Tensor) -> np.ndarray:
    """N×3×H×W in [0, 1] -> the pictures side by side as uint8, in rows as near to a square as fits."""
    n, _, height, width = images.shape
    columns = next(c for c in range(1, n + 1) if c * c >= n)
    rows = -(-n // columns)
    canvas = torch.ones(3, rows * height, columns * width)
    for i, image in enumerate(images.cpu()):
        y, x = divmod(i, columns)
        canvas[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = image
    return to_uint8(canvas.numpy())


def written(work: Work, images: torch.Tensor, said: list[str], figures: dict[str, float | int | str]) -> Result:
    """Write the pictures to ``--out``, several as one sheet, and report."""
    out = picture_file(work)
    save_image(out, sheet(images))
    return Result(figures=figures, files=[out], said=said)


def count_of(work: Work) -> int:
    """``--set count=N``: how many pictures, 1 by default, at most 256."""
    count = work.option("count", 1)
    if not 1 <= count <= 256:
        raise UsageError(f"count is {count}; it must be from 1 to 256.")
    return count


def steps_of(work: Work, default: int) -> int:
    """``--set steps=N`` of sampling."""
    steps = work.option("steps", default)
    if not 1 <= steps <= 1000:
        raise UsageError(f"steps is {steps}; it must be from 1 to 1000.")
    return steps
