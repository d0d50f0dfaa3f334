"""Visual paraphrase: say a picture in words, then redraw it from them.

The picture is noised to a share s of the chain and denoised under its caption with classifier-free guidance; several
seeds give several paraphrases. Detection falls with s, the drift of the content grows with s and the guidance.

Source: The Brittleness of AI-Generated Image Watermarking Techniques: Examining Their Robustness Against Visual
Paraphrasing Attacks, arXiv 2408.10446, 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.data.scenes import BACKGROUNDS, CLASSES, COLOURS, SIZES, STYLES, TEXTURES, Scene, SceneObject
from vestige.engines.run_state import load_trained
from vestige.nn.features import FeatureNet
from vestige.watermark.attacks.regeneration import regenerate

Captioner = Callable[[np.ndarray], list[str]]

#: What a caption of a scene with one object says.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "object": CLASSES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "style": STYLES,
    "background": tuple(BACKGROUNDS),
}


class SceneCaptioner(nn.Module):
    """Captions of synthetic scenes with one object: a classifier of each attribute, whose answers make the sentence.

    >>> SceneCaptioner().caption(np.zeros((1, 3, 32, 32), np.float32))[0].split()[0] in ("a", "an")
    True
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.net = FeatureNet({name: len(values) for name, values in ATTRIBUTES.items()}, seed=seed)

    @staticmethod
    def labels(scenes: Iterable[Scene]) -> Tensor:
        """int64 N×6, in the order of `ATTRIBUTES`, of each scene's first object."""
        rows = []
        for scene in scenes:
            item = scene.objects[0]
            said = (item.kind, item.colour, item.texture, item.size, scene.style, scene.background)
            rows.append([values.index(word) for values, word in zip(ATTRIBUTES.values(), said, strict=True)])
        return torch.tensor(rows)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of the attributes' cross-entropies; batch: (pictures in [0, 1], labels N×6)."""
        images, labels = batch
        logits = self.net.classify(images)
        return torch.stack([F.cross_entropy(logits[name], labels[:, i]) for i, name in enumerate(ATTRIBUTES)]).sum()

    @torch.no_grad()
    def attributes(self, images: np.ndarray) -> np.ndarray:
        """int64 N×6: the most likely value of each attribute."""
        self.eval()
        parts = torch.from_numpy(np.ascontiguousarray(images, np.float32)).split(128)
        logits = [self.net.classify(part) for part in parts]
        return torch.stack([torch.cat([x[name] for x in logits]).argmax(1) for name in ATTRIBUTES], 1).numpy()

    def caption(self, images: np.ndarray) -> list[str]:
        """One sentence for each picture."""
        said = []
        for row in self.attributes(images):
            kind, colour, texture, size, style, background = (
                values[i] for values, i in zip(ATTRIBUTES.values(), row, strict=True)
            )
            said.append(Scene((SceneObject(kind, colour, texture, size),), style, background).caption)
        return said

    __call__: Callable[..., Any]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute."""
        return self.net.classify(images)


def load_scene_captioner(path: str | Path) -> SceneCaptioner:
    """The captioner of drawn scenes that ``vestige learn visual_paraphrase`` wrote. Raises InputError for other files.

    It says what a drawn scene with one object shows; of a photograph it says the drawing that is most like it.
    """
    made = SceneCaptioner()
    load_trained(path, made)
    return made.eval()


def load_captioner(folder: str | Path) -> Captioner:
    """An image-to-text model of transformers (BLIP, GIT, ...) in a local folder, as pictures -> sentences.

    Raises InputError when the folder holds none; nothing is downloaded and no code of the folder is run.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{folder} cannot be loaded as an image-to-text model ({reason}).") from None

    def caption(images: np.ndarray) -> list[str]:
        pixels = [(p.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0) for p in images]
        with torch.no_grad():
            inputs = processor(images=pixels, return_tensors="pt")
            made = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        return [text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)]

    return caption


class VisualParaphrase:
    """Caption-guided redrawing as an attack, and the grid of strengths and guidances as an audit.

    model: a text-to-image model (`vestige.engines.diffusion.pipeline.TextToImage`). captioner: pictures N×3×H×W in
    [0, 1] -> N sentences. strength: s in (0, 1]. guidance: weight of the caption. steps: of the whole chain.
    Raises UsageError for a strength out of range.
    """

    slug = "visual_paraphrase"

    def __init__(
        self,
        model: Any,
        captioner: Captioner | None = None,
        *,
        strength: float = 0.6,
        guidance: float = 3.0,
        steps: int = 50,
        seed: int = 0,
    ) -> None:
        if not 0 < strength <= 1 or guidance < 0:
            raise UsageError(f"strength {strength} must lie in (0, 1] and guidance {guidance} be at least 0.")
        self.model, self.captioner = model, captioner
        self.strength, self.guidance, self.steps, self.seed = strength, guidance, steps, seed

    def paraphrase(
        self,
        images: np.ndarray,
        captions: Sequence[str] | None = None,
        *,
        variants: int = 1,
        strength: float | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """variants×N×3×H×W redrawn pictures.

        captions: of the pictures, instead of the captioner's; empty strings give plain regeneration. Raises UsageError
        when there is neither.
        """
        if captions is None:
            if self.captioner is None:
                raise UsageError("A paraphrase needs captions, or a captioner that makes them.")
            captions = self.captioner(images)
        if variants < 1:
            raise UsageError(f"variants is {variants}; it must be at least 1.")
        made = [
            regenerate(
                images, self.model, strength or self.strength, prompts=list(captions),
                guidance=self.guidance if guidance is None else guidance, steps=self.steps,
                seed=self.seed + 7919 * variant,
            )
            for variant in range(variants)
        ]  # fmt: skip
        return np.stack(made)

    def attack(self, images: np.ndarray) -> np.ndarray:
        """One paraphrase of each picture."""
        return self.paraphrase(images)[0]

    def audit(
        self,
        marked: np.ndarray,
        unmarked: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        *,
        strengths: Sequence[float] = (0.1, 0.2, 0.4, 0.6, 0.8),
        guidances: Sequence[float] = (1.0, 3.0, 7.0),
        captions: Sequence[str] | None = None,
        drift: Callable[[np.ndarray, np.ndarray], float] | None = None,
    ) -> list[dict[str, float]]:
        """One row per strength and guidance: detection after the paraphrase, fidelity, and drift of the content.

        score: pictures -> (N,), higher for marked. The threshold of "tpr@1fpr" comes from paraphrased unmarked
        pictures. drift: (before, after) -> distance of the contents.
        """
        from vestige.metrics.detection import auroc, tpr_at_fpr
        from vestige.metrics.quality import psnr

        labels = np.repeat([True, False], [len(marked), len(unmarked)])
        said = list(captions) if captions is not None else None
        rows = []
        for strength in strengths:
            for guidance in guidances:
                options = {"strength": strength, "guidance": guidance}
                after = self.paraphrase(marked, said, **options)[0]  # type: ignore[arg-type]
                null = self.paraphrase(unmarked, said, **options)[0]  # type: ignore[arg-type]
                scores = np.concatenate([score(after), score(null)])
                row = {**options, "auroc": auroc(labels, scores), "tpr@1fpr": tpr_at_fpr(labels, scores, 0.01).tpr}
                row["psnr"] = float(psnr(marked, after).mean())
                rows.append(row if drift is None else row | {"drift": drift(marked, after)})
        return rows

    def measure(
        self, marked: np.ndarray, unmarked: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, float]:
        """The row of `audit` at this object's strength and guidance."""
        (row,) = self.audit(marked, unmarked, score, strengths=[self.strength], guidances=[self.guidance])
        return row
