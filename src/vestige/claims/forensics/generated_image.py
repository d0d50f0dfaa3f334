"""Claims of the default examiner of generated pictures, on published pictures of real generators.

Families of generators and all sources of the judged pictures are left out of the training in turn, in three folds;
single groups of evidence, one linear judge of all of it, NPR and PatchCraft stand in the same table, on the same
pictures. False alarms are counted on photographs of another collection that set no threshold, and by kind of real
picture at thresholds that each fold chose on other sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vestige.bench.controls import Interval, over_seeds, share, too_weak
from vestige.bench.forensics.corpus import innocent, photographs, untouched
from vestige.bench.forensics.plain_features import rounded
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.forensics.published_runs import arm, families, figures, kinds, row
from vestige.core.image_io import decode, encode
from vestige.core.subjects import ImageSubject
from vestige.data.fakes import SOURCES, as_float
from vestige.engines.fakes import WEIGHTS, redraw_source, shipped_sources
from vestige.engines.runs import Need
from vestige.forensics.generated_evidence import group_sizes
from vestige.forensics.generated_image import GeneratedImage

OURS = "generated_image"
NEEDS = (Need(OURS), Need("npr", ("held",)), Need("patchcraft", ("held", "rgb")))
ONE = "one linear judge"


def judged(
    ours: Sequence[float], alone: Mapping[str, Sequence[float]], shuffled: float
) -> tuple[bool, str, Interval, Interval, str]:
    """Mean AUROC over folds, ours and of single detectors: (whether ours is above the best single group and above one
    linear judge of all evidence with the whole interval, the best group, both differences, why the bed cannot tell)."""
    best = max(group_sizes(), key=lambda name: float(np.mean(alone[name])))
    apart, other = over_seeds(ours, alone[best]), over_seeds(ours, alone[ONE])
    holds = apart.low > 0 and other.low > 0
    least = min(apart.value, other.value)
    weak = too_weak(least, abs(shuffled - 0.5), "shuffled labels are away from one half") if holds else ""
    return holds, best, apart, other, weak


def _alone(context: ClaimContext) -> dict[str, list[float]]:
    runs = arm(context, OURS, "held")
    return {name: [float(run.figures["alone"][name]) for run in runs] for name in runs[0].figures["alone"]}


@headline(
    "on families and sources never seen, all groups of evidence together have a higher mean AUROC than the best group "
    "alone and than one linear judge of all measurements"
)
def is_ahead_of_single_cues(context: ClaimContext) -> Evidence:
    runs, alone = arm(context, OURS, "held"), _alone(context)
    control = arm(context, OURS, "shuffled_labels", (0,))
    holds, best, apart, other, weak = judged(figures(runs), alone, figures(control)[0])
    rows: list[dict[str, Any]] = [row(OURS, runs)]
    rows += [{"detector": f"  {n} alone" if n in group_sizes() else f"  {n}", "folds": 3,
              "levelled, mean": float(np.mean(values))} for n, values in alone.items()]  # fmt: skip
    rows += [row("NPR", arm(context, "npr", "held")), row("PatchCraft", arm(context, "patchcraft", "held"))]
    rows.append(row("residual network on RGB", arm(context, "patchcraft", "rgb")))
    rows.append(row("with our own generators as further families", arm(context, OURS, "held_zoo", (0,)), "one fold"))
    rows.append(row("control: shuffled labels", control, "one fold"))
    note = f"{apart} above {best} alone, {other} above one linear judge; over three folds of families and sources"
    return Evidence(holds, rounded([*rows, *families(runs), *kinds(runs)]), note, too_weak=weak)


@claim("mean AUROC >= 0.93 on families seen, from sources never seen, and >= 0.80 with families and sources left out")
def finds_what_it_never_saw(context: ClaimContext) -> Evidence:
    held, sources = (arm(context, OURS, name) for name in ("held", "sources"))
    rows = [row("families and sources left out", held), row("sources left out", sources)]
    unseen, seen = (over_seeds(figures(runs)) for runs in (held, sources))
    note = f"sources left out {seen}, families and sources left out {unseen}; over three folds"
    return Evidence(seen.value >= 0.93 and unseen.value >= 0.80, rounded([*rows, *families(sources)]), note)


@claim(
    "authentic photographs of another collection, untouched and after ordinary handling, are flagged no more often "
    "than at the stated rate"
)
def keeps_its_false_alarms(context: ClaimContext) -> Evidence:
    context.pack("scenery")
    assert context.data is not None
    photos = photographs(context.data, "test", packs=("scenery",), limit=context.limit)
    examiner = GeneratedImage(context.run(OURS).folder / "generated_image.safetensors")
    flags: dict[str, list[bool]] = {}
    for photo in photos:
        for case in (*untouched(photo), *innocent(photo, context.seed)):
            finding = examiner.find(ImageSubject(case.data, case.name))
            flags.setdefault(case.name, []).append(bool(finding.flagged))
    stated = float(examiner.facts["false_positive_rate"])
    rows: list[dict[str, Any]] = [
        {"pictures": name, "count": len(found), **share(sum(found), len(found)).row("flagged")}
        for name, found in flags.items()
    ]
    every = [flag for found in flags.values() for flag in found]
    alarms = share(sum(every), len(every))
    rows.append({"pictures": "all authentic", "count": len(every), **alarms.row("flagged")})
    sources = [*SOURCES.values(), *(s for s in shipped_sources(diffusion=False) if s.family == "autoencoder")]
    sources.append(redraw_source(WEIGHTS / "zoo_diffusion", 0.1, steps=10, name="zoo_redrawn_0.1"))
    for source in sources:
        hits = [bool(examiner.find(ImageSubject(data)).flagged) for data in _remade(photos[::8], source, context.seed)]
        rows.append(
            {"pictures": f"re-made by {source.name}", "count": len(hits), **share(sum(hits), len(hits)).row("flagged")}
        )
    note = f"{alarms} at a stated rate of {stated:.0%}; re-made whole, half of them JPEG 85"
    return Evidence(alarms.value <= stated, rounded(rows), note)


def _remade(photos: list[Any], source: Any, seed: int) -> list[bytes]:
    files = []
    for i, (_, data) in enumerate(photos):
        pixels = decode(data).pixels
        height, width = (side // 16 * 16 for side in pixels.shape[:2])
        made = source(as_float(pixels[None, :height, :width].transpose(0, 3, 1, 2)), seed=seed)[0]
        picture = np.ascontiguousarray(np.round(made * 255).astype(np.uint8).transpose(1, 2, 0))
        files.append(encode(picture, "PNG") if i % 2 else encode(picture, "JPEG", quality=85))
    return files
