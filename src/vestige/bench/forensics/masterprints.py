"""Master pictures against a small CLIP: the pictures and captions, the model, and how far a picture fools it.

Rendered scenes of eight objects in eight colours, 64 captions in all; masters aim at 25 of them. Pictures to learn
from, to choose by and to judge by are different ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from vestige.core.runtime import rng
from vestige.data.scenes import COLOURS, render, sample_scene
from vestige.engines.run_state import load_trained
from vestige.forensics.clipmasterprints import Matcher, fooling_rate
from vestige.nn.image_text import ImageText, cosines, small_clip
from vestige.nn.text import build_tokenizer

SIZE, TARGETS = 32, 25
OBJECTS = ("ball", "cube", "tree", "car", "fish", "star", "cup", "heart")
SHADES = tuple(COLOURS)[:8]
CAPTIONS = tuple(sorted(f"a photo of a {shade} {kind}" for kind in OBJECTS for shade in SHADES))
#: Pictures of each caption.
EACH = {"train": 60, "val": 4, "test": 6}


@dataclass(frozen=True)
class Captioned:
    """images: float N×3×32×32 in eight-bit values; captions: N."""

    images: Tensor
    captions: list[str]

    def of(self, caption: str) -> Tensor:
        """The pictures of a caption."""
        return self.images[[i for i, c in enumerate(self.captions) if c == caption]]


def captioned(part: str, seed: int = 0, each: int = 0) -> Captioned:
    """Scenes of every caption. part: of `EACH`; each: pictures of a caption, by default as there."""
    number, images, captions = list(EACH).index(part), [], []
    for i in range((each or EACH[part]) * len(CAPTIONS)):
        kind, shade = OBJECTS[i % len(OBJECTS)], SHADES[i // len(OBJECTS) % len(SHADES)]
        scene = sample_scene(
            (seed * 3 + number) * 1_000_003 + i, object=kind, colour=shade, texture="solid", style="photo",
            background="studio", n_objects=1,
        )  # fmt: skip
        images.append(np.round(render(scene, SIZE).image * 255) / 255)
        captions.append(f"a photo of a {shade} {kind}")
    return Captioned(torch.from_numpy(np.stack(images)).float(), captions)


def aims(seed: int = 0) -> tuple[list[str], list[str]]:
    """(the captions aimed at, the others)."""
    order = rng(seed, "targets").permutation(len(CAPTIONS))
    return [CAPTIONS[i] for i in order[:TARGETS]], [CAPTIONS[i] for i in order[TARGETS:]]


def clip(weights: Path | None = None) -> ImageText:
    """The small CLIP of these captions, with the weights of a run; fresh ones from the global generator without."""
    tokenizer = build_tokenizer(CAPTIONS, 8)
    model = ImageText(small_clip(tokenizer, size=SIZE), tokenizer)
    if weights is not None:
        load_trained(weights, model)
        model.requires_grad_(False)
    return model.eval()


@torch.no_grad()
def right(model: Matcher, part: Captioned) -> float:
    """Zero-shot accuracy over all captions."""
    best = cosines(model.images(part.images), model.texts(CAPTIONS)).argmax(1)
    return float(np.mean([CAPTIONS[int(b)] == c for b, c in zip(best, part.captions, strict=True)]))


@torch.no_grad()
def fooled(model: Matcher, masters: Tensor, part: Captioned, captions: Sequence[str]) -> np.ndarray:
    """Fooling rate float64 N of masters N×3×H×W, over the captions and their pictures."""
    own = [cosines(model.images(part.of(c)), model.texts([c]))[:, 0].numpy() for c in captions]
    found = cosines(model.images(masters), model.texts(captions)).numpy()
    return np.array([fooling_rate(row, own) for row in found])


def starts(part: Captioned, others: Sequence[str], count: int = 8) -> Tensor:
    """Held-out pictures of other captions, where mining starts and with which it is compared."""
    return part.images[[i for i, c in enumerate(part.captions) if c in set(others)]][:count]


def lettered(images: Tensor, captions: Sequence[str]) -> Tensor:
    """A typographic attack: pictures N×3×H×W in eight bits with words of the captions drawn on them.

    Words that not every caption has, the most frequent first, each in the first line with room for it, in the smallest
    letters that can still be read (about five pixels high); black on bright pictures and white on dark ones.
    """
    font, scale, line = cv2.FONT_HERSHEY_SIMPLEX, 0.25, 7
    height, width = images.shape[2:]
    counts = Counter(word for caption in captions for word in sorted(set(caption.split())))
    telling = sorted((w for w, n in counts.items() if n < len(captions)), key=lambda w: (-counts[w], len(w), w))
    lines = [""] * ((height - 2) // line)
    for word in telling:
        for i, text in enumerate(lines):
            if cv2.getTextSize(longer := f"{text} {word}".strip(), font, scale, 1)[0][0] <= width:
                lines[i] = longer
                break
    drawn = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    for picture in drawn:
        ink = 0 if picture.mean() > 127 else 255
        for i, text in enumerate(lines):
            cv2.putText(picture, text, (0, line * (i + 1) - 1), font, scale, (ink,) * 3, 1, cv2.LINE_AA)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
