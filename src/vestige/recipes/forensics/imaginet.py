"""Self-contrastive features of generated pictures over four kinds of content, and their calibrated judge.

    vestige learn imaginet

Real pictures are photographs, rendered scenes, faces and fractals, as many of each; four generators of different
families re-make them, as many by each. The encoder learns by self-contrast; then the judge learns on a part of its own.

Options: each, pictures of a content for a generator; width of the encoder; crop; judge, updates of the judge.

Result: imaginet.safetensors; a copy of it goes into the package's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vestige.data.contents import content_set
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.forensics.generated import logits
from vestige.forensics.imaginet import Calibrator, SelfConDetector, contrast_batches, contrast_step
from vestige.forensics.imaginet_data import four_generators
from vestige.forensics.learned import save_network
from vestige.metrics.detection import auroc


def build(ctx: RecipeContext) -> Job:
    """The encoder and the balanced set it learns from."""
    o = ctx.options
    each, crop = int(o["each"]), int(o["crop"])
    sources = four_generators(ctx.seed)
    train, held, test = (
        content_set(part, sources, each=n, seed=ctx.seed)
        for part, n in (("train", each), ("calibration", max(2, each // 3)), ("test", max(2, each // 3)))
    )
    batches = contrast_batches(train, ctx.config.batch_size, crop=crop)
    judged: list[nn.Module] = []

    def judge(module: nn.Module) -> SelfConDetector:
        assert isinstance(module, SelfConDetector)
        if not judged:
            judged.append(Calibrator(int(o["judge"]), seed=ctx.seed).fit(module, held, crop=crop))
        assert isinstance(judged[0], SelfConDetector)
        return judged[0]

    def evaluate(module: nn.Module) -> dict[str, Any]:
        scores = logits(judge(module), test.images)
        real = ~test.generated
        return {
            name: auroc(test.generated[rows], scores[rows])
            for name in sorted(set(test.generator) - {"real"})
            for rows in [real | (test.generator == name)]
        }

    def save(module: nn.Module, out: Path) -> None:
        facts = {"learnt": [source.name for source in sources], "pictures": len(train.images), "crop": crop}
        save_network(out / "imaginet.safetensors", judge(module), "imaginet", facts)

    return Job(SelfConDetector(width=float(o["width"])), contrast_step, batches, evaluate=evaluate, save=save)


RECIPE = Recipe(
    name="imaginet",
    about="Features of generated pictures by self-contrast over four kinds of content, with a calibrated judge.",
    build=build,
    config=TrainConfig(
        steps=300, batch_size=64, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=20, clip=1.0, log_every=25,
        validate_every=0, checkpoint_every=100,
    ),
    reach={"mean": "0.95 over the generators, under what social networks do (vestige claims imaginet)"},
    options={"each": 60, "width": 0.25, "crop": 40, "judge": 120},
)  # fmt: skip
