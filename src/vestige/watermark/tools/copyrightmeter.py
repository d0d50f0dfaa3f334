"""Audit a cloak on a user's own pictures: a folder of protected pictures and a folder of the originals.

A generator (``--model FOLDER``, else the model of drawn scenes that comes with vestige) is trained on either after
every attack, and what it then draws is compared with the originals. Pictures are seen at the generator's size. With
more ``--set seeds`` intervals are narrower; ``--set attacks=N`` runs the first N attacks only.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.nn.features import extract_features, load_feature_net
from vestige.watermark.attacks.regeneration import native
from vestige.watermark.copyrightmeter import CLOAK_ATTACKS, CopyrightMeter
from vestige.watermark.tools.redrawing import model_of, stack


def measure(work: Work) -> Result:
    """Efficacy and resilience of the cloak under every attack, as a table. Inputs: PROTECTED ORIGINALS."""
    work.only(2)
    seeds, updates, batch = work.option("seeds", 5), work.option("updates", 24), work.option("batch", 4)
    pictures, steps, count = work.option("pictures", 24), work.option("steps", 6), work.option("attacks", 0)
    work.settled()
    if seeds < 2 or not 0 <= count <= len(CLOAK_ATTACKS):
        raise UsageError(f"seeds are at least 2, and attacks 0 (all) to {len(CLOAK_ATTACKS)}.")
    names = [[PurePosixPath(item.name).stem for item in work.dataset(i, "a folder of pictures")] for i in (0, 1)]
    if names[0] != names[1]:
        raise InputError(
            f"{work.paths[0]} and {work.paths[1]} must hold the same pictures under the same names, protected and not."
        )
    model = model_of(work)
    if not isinstance(model, TextToImage):
        raise InputError("The audit needs a text-to-image model: one of ours, or Stable Diffusion 1 or 2.")
    side = native(model).size
    protected, originals = (
        torch.from_numpy(stack(work, i, side, what).clip(0, 1))
        for i, what in enumerate(("a folder of protected pictures", "a folder of the originals"))
    )
    net = load_feature_net()
    meter = CopyrightMeter(
        model, lambda x: extract_features(net, x), seeds=range(work.seed, work.seed + seeds), updates=updates,
        batch=batch, pictures=pictures, steps=steps, attacks=CLOAK_ATTACKS[: count or None],
    )  # fmt: skip
    said = [work.prompt] * len(originals) if work.prompt else []
    rows = meter.measure(originals, protected, said, work.track)
    plain, attacked = rows[0], rows[1:]
    worst = min(attacked, key=lambda row: row["resilience"], default=None)
    effective = plain["efficacy low"] > 0
    words = "protects" if effective else "is not shown to protect"
    limits = f"[{plain['efficacy low']:.2f}, {plain['efficacy high']:.2f}]"
    sentence = f"The cloak {words}: efficacy {plain['efficacy']:.2f} {limits}"
    if worst is not None and effective:
        sentence += f"; {worst['attack']} leaves {worst['resilience']:.2f} of it"
    return Result(
        rows=rows, figures={"efficacy": plain["efficacy"], "effective": str(effective)}, said=[sentence + "."]
    )
