"""The judges of the default examiner of generated pictures, and its threshold.

    vestige learn evidence

Real pictures are squares of 64 pixels of photographs, in the size they have and reduced by two; every source of the
zoo re-makes some of them, and all are handled alike (scaled, brightened, JPEG 60 to 97 or lossless). The evidence is
measured once, the training takes seconds. Photographs to train, to judge by and to set the threshold are different
ones; the last are of another collection: the validation half of the scenery pack, untouched and after ordinary
handling (`vestige.bench.forensics.corpus`), whose test half the claims judge by.

Options: each, the squares that a source re-makes at either size; limit, the number of photographs, 0 all; diffusion,
the slow sources; rate, the share of photographs that may be flagged: the threshold is set for half of it, because a
threshold flags more of other photographs than of those it was set on.

Result: generated_image.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vestige.bench.forensics.examiner_threshold import threshold_on_photographs
from vestige.core.runtime import rng
from vestige.data.fakes import SOURCES, FakeSource, as_float, handled, squares
from vestige.data.packs import has_pack, named_pack
from vestige.data.scenes import render_pack
from vestige.engines.fakes import shipped_sources, zoo
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.forensics.generated_evidence import group_sizes
from vestige.forensics.generated_image import (
    TRAINING,
    EvidenceHead,
    GeneratedImage,
    evidence_of,
    head_training,
)
from vestige.forensics.learned import save_network
from vestige.metrics.detection import auroc

SIZE = 64


def build(ctx: RecipeContext) -> Job:
    """The judges and the evidence that they learn from."""
    o = ctx.options
    parts = {part: _photographs(part, int(o["limit"]), ctx.seed) for part in ("train", "val")}
    apart = max(4, len(parts["train"]) // 16)
    fitted, parts["train"] = parts["train"][:apart], parts["train"][apart:]
    known = as_float(squares(fitted, SIZE, per_photo=4, seed=ctx.seed)[0])
    sources = zoo(known, size=SIZE, diffusion=bool(o["diffusion"]), seed=ctx.seed)
    families = {source.name: source.family for source in sources}
    real, fakes = _evidence(parts["train"], sources, int(o["each"]), ctx.seed)
    batches, step = head_training(real, fakes, families, ctx.config.batch_size)

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, EvidenceHead)
        held, made = _evidence(parts["val"], sources, max(4, int(o["each"]) // 4), ctx.seed + 1)
        scores = module.settle(real).score(held)
        return {name: _area(scores, module.score(x)) for name, x in made.items()}

    def save(module: nn.Module, out: Path) -> None:
        assert isinstance(module, EvidenceHead)
        head = module.settle(real).eval()
        facts: dict[str, Any] = {"learnt": families, "real squares": len(real)}
        makers = [*SOURCES.values(), *(s for s in shipped_sources(diffusion=False) if s.family == "autoencoder")]
        examiner, rate = GeneratedImage(head=head), float(o["rate"])
        facts |= threshold_on_photographs(examiner, makers, rate, limit=int(o["limit"]), seed=ctx.seed)
        save_network(out / "generated_image.safetensors", head, "generated_image", facts)

    head = EvidenceHead(group_sizes(), sorted(set(families.values()))).measure(real).match(real, fakes, families)
    return Job(head, step, batches, evaluate=evaluate, save=save)


def _photographs(part: str, limit: int, seed: int) -> np.ndarray:
    """uint8 N×3×256×256 of the photos pack; without it, rendered scenes."""
    if has_pack("photos"):
        images = named_pack("photos", part, size=256, limit=limit or None).images
        if len(images):
            return images
    return render_pack((limit or 200) if part == "train" else max(8, limit // 4), 256, seed).images


def _evidence(
    images: np.ndarray, sources: list[FakeSource], each: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(evidence of real squares, {source: that of what it made of some of them}), at both sizes."""
    real: list[np.ndarray] = []
    fakes: dict[str, list[np.ndarray]] = {source.name: [] for source in sources}
    for reduce in (1, 2):
        cut = squares(images, SIZE, per_photo=1, reduce=reduce, seed=seed)[0]
        real += [*cut, *handled(cut, seed)]
        for source in sources:
            rows = rng(seed, "rows", source.name, reduce).permutation(len(cut))[:each]
            made = np.round(source(as_float(cut[rows]), seed=seed + reduce) * 255).astype(np.uint8)
            half = len(made) // 2  # as many untouched as handled ones, as of the real squares
            fakes[source.name] += [*made[:half], *handled(made[half:], seed)]
    return evidence_of(real), {name: evidence_of(pictures) for name, pictures in fakes.items()}


def _area(real: np.ndarray, fake: np.ndarray) -> float:
    return auroc(np.repeat([False, True], [len(real), len(fake)]), np.append(real, fake))


RECIPE = Recipe(
    name="evidence",
    about="Judges of seven groups of evidence that a picture was generated, learnt from a zoo of generators.",
    build=build,
    config=TRAINING,
    reach={"mean": "0.9 averaged over families left out in turn (vestige claims generated_image)"},
    options={"each": 120, "limit": 0, "diffusion": True, "rate": 0.02},
)  # fmt: skip
