"""PIXAR in small: one network that says whether a picture was tampered with, where by the pixel, what, and in words.

Source: From Masks to Pixels and Meaning: A New Taxonomy, Benchmark, and Metrics for VLM Image Tampering, arXiv
2603.20193, 2026. The paper fine-tunes a language model of seven billion parameters with a SAM decoder; this network has
the same heads, prompts and losses at the size of drawn scenes. Labels and metrics: `vestige.metrics.pixel_labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.errors import InputError, UsageError
from vestige.core.findings import Finding
from vestige.data.scene_edits import OBJECTS
from vestige.data.scenes import BACKGROUNDS, COLOURS, SIZES, TEXTURES
from vestige.forensics.learned import load_network
from vestige.metrics.pixel_labels import CLASSES, pixar_report
from vestige.nn.mask_losses import balanced_bce, dice_loss
from vestige.nn.residual import SRM
from vestige.nn.text import build_tokenizer, token_ids
from vestige.nn.vit import ViT, ViTConfig

if TYPE_CHECKING:
    from vestige.core.subjects import ImageSubject

FUSIONS = ("fuse", "seg_only", "text_only")
UNCHANGED, REDRAWN = "nothing was changed", "the whole picture was drawn anew"
_PHRASES = (
    UNCHANGED, REDRAWN, "the was replaced by a an", "removed of another picture pasted in", "made coloured added",
    "painted over", "background changed , scene is now", *BACKGROUNDS.values(),
)  # fmt: skip
#: Every word of the sentences of `vestige.data.scene_edits` and of the two above.
WORDS: tuple[str, ...] = tuple(sorted({*OBJECTS, *COLOURS, *TEXTURES, *SIZES, *" ".join(_PHRASES).split()}))
_TAMPERED = CLASSES.index("tampered")


@dataclass(frozen=True)
class Answer:
    """classes: logits N×3. objects: logits N×K. masks: logits N×1×H×W. words: logits N×(L-1)×V of the word after each.
    ids: int64 N×L, the sentences that were given or written."""

    classes: Tensor
    objects: Tensor
    masks: Tensor
    words: Tensor
    ids: Tensor


def _mlp(inside: int, hidden: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, hidden), nn.GELU(), nn.Linear(hidden, outside))


def _conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.GroupNorm(4, outside), nn.ReLU())


class PixarModel(nn.Module):
    """Images N×3×S×S in [0, 1] -> `Answer`.

    A vision transformer reads the picture; a small decoder attends to it and writes [CLS] [OBJ] [SEG] and a sentence.
    The hidden states of the three give class, objects and a prompt; the mean state of the sentence gives another
    prompt. fusion: "fuse" g·seg + (1 - g)·text with g = sigmoid(Linear([seg, text])), "seg_only" or "text_only". The
    mask decoder joins the picture's tokens with filters of its pixels and noise, and asks every pixel with the prompt.

    >>> answer = PixarModel(size=32, width=16, heads=2, depth=1).eval()(torch.zeros(1, 3, 32, 32))
    >>> answer.classes.shape, answer.masks.shape
    (torch.Size([1, 3]), torch.Size([1, 1, 32, 32]))
    """

    def __init__(
        self,
        size: int = 64,
        *,
        patch: int = 8,
        width: int = 96,
        depth: int = 3,
        heads: int = 3,
        prompt: int = 16,
        length: int = 20,
        fusion: str = "fuse",
        objects: int = len(OBJECTS),
        words: Sequence[str] = WORDS,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise UsageError(f"Prompts are joined by {', '.join(FUSIONS)}; got {fusion!r}.")
        self.settings: dict[str, Any] = {
            "size": size, "patch": patch, "width": width, "depth": depth, "heads": heads, "prompt": prompt,
            "length": length, "fusion": fusion, "objects": objects, "words": list(words),
        }  # fmt: skip
        self.size, self.fusion, self.length = size, fusion, length
        self.tokenizer = build_tokenizer(words, length)
        self.encoder = ViT(ViTConfig(size, patch, width, depth, heads, class_token=False))
        self.queries = nn.Parameter(torch.randn(3, width) * 0.02)
        self.word = nn.Embedding(len(self.tokenizer), width)
        nn.init.normal_(self.word.weight, std=0.02)  # also gives the logits of words
        self.place = nn.Parameter(torch.randn(3 + length, width) * 0.02)
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(width))
        self.to_class = _mlp(width, width // 2, len(CLASSES))
        self.to_objects = _mlp(width, width // 2, objects)
        self.to_seg = _mlp(width, width, prompt)
        self.to_text = nn.Linear(width, prompt)
        self.gate = nn.Linear(2 * prompt, prompt)
        self.noise = SRM(3, limit=0.1)
        self.fine, self.coarse = _conv(12, prompt), _conv(prompt, 2 * prompt, 2)
        self.spread = nn.Conv2d(width, 2 * prompt, 1)
        self.join_coarse, self.join_fine = _conv(4 * prompt, 2 * prompt), _conv(3 * prompt, prompt)
        self.level = nn.Conv2d(prompt, 1, 1)

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Answer:
        """ids: the sentences, in training; without them the network writes its own, word by word."""
        seen = self.encoder(images)
        ids = self._written(seen) if ids is None else ids
        states = self._states(seen, ids)
        words = states[:, 3:-1] @ self.word.weight.T
        spoken = (ids != self.tokenizer.pad_token_id).to(states)[..., None]
        text = self.to_text((states[:, 3:] * spoken).sum(1) / spoken.sum(1).clamp_min(1))
        prompt = self.prompt(self.to_seg(states[:, 2]), text)
        masks = self._masks(images, seen, prompt)
        return Answer(self.to_class(states[:, 0]), self.to_objects(states[:, 1]), masks, words, ids)

    def prompt(self, seg: Tensor, text: Tensor) -> Tensor:
        """The two prompts N×P joined."""
        if self.fusion != "fuse":
            return seg if self.fusion == "seg_only" else text
        g = self.gate(torch.cat([seg, text], 1)).sigmoid()
        return g * seg + (1 - g) * text

    def sentences(self, ids: Tensor) -> list[str]:
        """The words of ids N×L."""
        return [self.tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in ids]

    def _states(self, seen: Tensor, ids: Tensor) -> Tensor:
        """Hidden states N×(3+L)×width of the three queries and the words; none sees what comes after it."""
        x = torch.cat([self.queries.expand(len(ids), -1, -1), self.word(ids)], 1) + self.place[: 3 + ids.shape[1]]
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.decoder(x, seen, tgt_mask=later)

    @torch.no_grad()
    def _written(self, seen: Tensor) -> Tensor:
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        ids = torch.full((len(seen), 1), self.tokenizer.bos_token_id, device=seen.device)
        for _ in range(self.length - 1):
            following = (self._states(seen, ids)[:, -1] @ self.word.weight.T).argmax(1)
            over = (ids[:, -1] == end) | (ids[:, -1] == pad)
            ids = torch.cat([ids, torch.where(over, pad, following)[:, None]], 1)
        return ids

    def _masks(self, images: Tensor, seen: Tensor, prompt: Tensor) -> Tensor:
        fine = self.fine(torch.cat([self.encoder.normalise(images), 10 * self.noise(images)], 1))
        coarse = self.coarse(fine)
        grid = self.encoder.config.grid
        tokens = self.spread(seen.mT.unflatten(2, grid))
        tokens = F.interpolate(tokens, coarse.shape[2:], mode="bilinear", align_corners=False)
        x = self.join_coarse(torch.cat([coarse, tokens], 1))
        x = F.interpolate(x, fine.shape[2:], mode="bilinear", align_corners=False)
        x = self.join_fine(torch.cat([fine, x], 1))
        return (x * prompt[:, :, None, None]).sum(1, keepdim=True) + self.level(x)


def pixar_loss(
    answer: Answer, target: Mapping[str, Tensor], *, semantic: float = 0.5, text: float = 3.0, pad: int = 0
) -> dict[str, Tensor]:
    """L = L_cls + semantic·L_sem + L_bce + L_dice + text·L_text, and its parts.

    target: "classes" int N, "objects" float N×K, "masks" float N×1×H×W, "ids" int N×L. Objects and masks are learnt
    from tampered pictures alone; ``pad`` is not a word. A weight of 0 leaves its part out.
    """
    rows = target["classes"] == _TAMPERED
    parts = {"class": F.cross_entropy(answer.classes.float(), target["classes"])}
    if bool(rows.any()):
        logits, masks = answer.masks[rows].float(), target["masks"][rows].float()
        parts["bce"] = F.binary_cross_entropy_with_logits(logits, masks)
        parts["dice"] = dice_loss(logits, masks)
        if semantic:
            parts["semantic"] = balanced_bce(answer.objects[rows], target["objects"][rows])
    if text:
        parts["text"] = F.cross_entropy(
            answer.words.float().flatten(0, 1), target["ids"][:, 1:].flatten(), ignore_index=pad
        )
    weights = {"semantic": semantic, "text": text}
    total = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()
    return {"loss": total, **{name: value.detach() for name, value in parts.items()}}


@torch.no_grad()
def answers(model: PixarModel, images: np.ndarray, batch: int = 64) -> dict[str, Any]:
    """What `pixar_report` takes as ``pred``: classes, masks, objects and texts of pictures uint8 or float N×3×S×S."""
    was = model.training
    model.eval()
    device = next(model.parameters()).device
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    found: dict[str, list[Any]] = {"classes": [], "masks": [], "objects": [], "texts": []}
    for part in tensor.split(batch):
        x = part.to(device)
        answer = model(x.float() / 255 if part.dtype == torch.uint8 else x.float())
        found["classes"].append(answer.classes.argmax(1).cpu().numpy())
        found["masks"].append(answer.masks.sigmoid().cpu().numpy())
        found["objects"].append(answer.objects.sigmoid().cpu().numpy())
        found["texts"] += model.sentences(answer.ids)
    model.train(was)
    return {name: values if name == "texts" else np.concatenate(values) for name, values in found.items()}


def sentence_ids(model: PixarModel, sentences: Sequence[str]) -> Tensor:
    """int64 N×L for ``target["ids"]``."""
    return token_ids(model.tokenizer, sentences)


class Pixar:
    """Examines pictures of the network's own size for tampering, and measures answers against pixel labels.

    weights: a file that the recipe ``forensics/pixar`` wrote, by default the shipped one, read at first use. network: a
    network to use instead. The network has seen drawn scenes of its size alone and applies to nothing else: larger
    pictures are not scaled down, which would wipe out the traces. The score is the log-odds of "tampered".

    >>> from vestige.core.image_io import encode
    >>> from vestige.core.subjects import ImageSubject
    >>> Pixar().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "pixar"
    photographs = True
    kind = "edit"

    def __init__(self, weights: str | Path | None = None, *, network: PixarModel | None = None) -> None:
        self._weights, self._network = weights, network
        self.facts: dict[str, Any] = {}

    @property
    def network(self) -> PixarModel:
        """Raises InputError with the command that trains it when there are no weights."""
        if self._network is None:
            self._network, self.facts = load_network(self.slug, PixarModel, self._weights)
        return self._network.eval()

    def measure(self, pred: Mapping[str, Any], target: Mapping[str, Any], **options: Any) -> dict[str, float]:
        """`vestige.metrics.pixel_labels.pixar_report`."""
        return pixar_report(pred, target, **options)

    def find(self, subject: ImageSubject) -> Finding:
        try:
            pixels, network = subject.stored, self.network
        except InputError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        side = network.size
        if pixels.shape[:2] != (side, side):
            return Finding.not_applicable(
                self.slug, self.kind, f"the network knows drawn scenes of {side}×{side} pixels and nothing else"
            )
        if int(pixels.max()) - int(pixels.min()) < 8:
            return Finding.not_applicable(self.slug, self.kind, "the picture is flat")
        with torch.no_grad():
            answer = network(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255)
        p = answer.classes[0].softmax(0)
        score = float(torch.log(p[_TAMPERED].clamp_min(1e-9)) - torch.log((1 - p[_TAMPERED]).clamp_min(1e-9)))
        sentence = network.sentences(answer.ids)[0]
        thing = OBJECTS[int(answer.objects[0].argmax())] if network.settings["objects"] == len(OBJECTS) else "other"
        map_ = answer.masks[0, 0].sigmoid().numpy().astype(np.float32)
        return Finding(
            self.slug,
            self.kind,
            score,
            "The picture looks like an edited scene; the map shows the pixels that seem to have changed.",
            "The picture does not look like an edited scene.",
            evidence=(f"in the network's words: {sentence or 'nothing'}", f"most likely touched: {thing}"),
            map=np.ascontiguousarray(subject.upright(map_)),
            map_caption="How likely each pixel was changed.",
            details={name: round(float(v), 4) for name, v in zip(CLASSES, cast(Any, p), strict=True)},
        )
