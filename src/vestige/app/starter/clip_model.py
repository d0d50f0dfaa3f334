"""A small model of pictures and captions (a CLIP of transformers) for the kit's six kinds, and their captions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vestige.core.files import write_atomic
from vestige.data.packs import load_pack
from vestige.data.starter_set import CLASSES, SIDE, starter_set
from vestige.engines.fitting import fit, rows_of
from vestige.engines.train import Batch, TrainConfig
from vestige.nn.image_text import ImageText, save_image_text, small_clip
from vestige.nn.text import build_tokenizer, token_ids

CAPTIONS = tuple(f"a photo of a {name}" for name in CLASSES)


def write(folder: Path) -> list[str]:
    """clip/ and captions.txt."""
    written = folder / "data" / "retain"
    pack = load_pack(written, SIDE) if written.is_dir() else starter_set("retain")
    images = torch.from_numpy(pack.images).float() / 255
    tokenizer = build_tokenizer(CAPTIONS, 10)
    ids = token_ids(tokenizer, [f"a photo of a {pack.class_names[label]}" for label in pack.labels])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ImageText(small_clip(tokenizer, size=SIDE, width=48, depth=2, projection=32, scale=20.0), tokenizer)

    def batches(number: int, generator: torch.Generator) -> Batch:
        rows = rows_of(len(images), 24, generator)
        return images[rows], ids[rows]

    def step(network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, ImageText)
        return {"loss": network.loss(batch[0], batch[1])}

    config = TrainConfig(steps=60, lr=4e-3, warmup=4, weight_decay=0.01)
    save_image_text(fit(model, step, batches, config), folder / "clip")
    write_atomic(folder / "captions.txt", "\n".join(CAPTIONS) + "\n")
    return ["clip/", "captions.txt"]
