"""Claims of the default examiner of generated pictures, on published pictures of real generators.

Families of generators and all sources of the judged pictures are left out of the training in turn, in three folds; NPR,
PatchCraft, judges of seven groups of evidence and the same network as ImageNet left it stand in the same table, on the
same squares of the same pictures. Whole pictures, as the examiner meets them, are judged beside. False alarms are
counted on photographs of another collection that set no threshold, and by kind of real picture at thresholds that each
fold chose on other sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vestige.bench.controls import over_seeds, share
from vestige.bench.forensics.corpus import innocent, photographs, untouched
from vestige.bench.forensics.plain_features import rounded
from vestige.bench.forensics.published_bed import HANDLINGS
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.forensics.published_runs import MEAN, arm, families, figures, judged, kinds, row, told
from vestige.core.image_io import decode, encode
from vestige.core.subjects import ImageSubject
from vestige.data.fakes import SOURCES, as_float
from vestige.engines.fakes import WEIGHTS, redraw_source, shipped_sources
from vestige.engines.runs import Need, Run
from vestige.forensics.generated_image import GeneratedImage

OURS = "generated_image"
NEEDS = (Need(OURS), Need("npr", ("held",)), Need("patchcraft", ("held", "rgb")))
RIVALS = ("NPR", "PatchCraft", "judges of evidence", "the network as ImageNet left it")


@headline(
    "on families and sources never seen, the network has a higher mean AUROC than NPR, than PatchCraft, than judges of "
    "seven groups of evidence and than itself without learning further"
)
def is_ahead(context: ClaimContext) -> Evidence:
    runs = arm(context, OURS, "held")
    rivals = [arm(context, *of) for of in (("npr", "held"), ("patchcraft", "held"), (OURS, "judges"), (OURS, "frozen"))]
    control = arm(context, OURS, "shuffled_labels", (0,))
    holds, differences, weak = judged(figures(runs), [figures(theirs) for theirs in rivals], figures(control)[0])
    rows: list[dict[str, Any]] = [row(OURS, runs)]
    rows += [row(name, theirs) for name, theirs in zip(RIVALS, rivals, strict=True)]
    alone = rivals[2][0].figures["alone"]
    rows += [{"detector": f"  {name} alone", "folds": len(rivals[2]),
              MEAN: float(np.mean([run.figures["alone"][name] for run in rivals[2]]))} for name in alone]  # fmt: skip
    rows.append(row("small squares, a stem that does not reduce", arm(context, OURS, "texture", (0,)), "one fold"))
    rows.append(row("residual network on RGB", arm(context, "patchcraft", "rgb")))
    rows.append(row("control: shuffled labels", control, "one fold"))
    return Evidence(holds, rounded([*rows, *families(runs), *kinds(runs)]), told(differences, RIVALS), too_weak=weak)


def whole(runs: Sequence[Run], name: str) -> list[float]:
    """One figure of whole pictures of each run."""
    return [float(run.figures["whole"][name]) for run in runs]


@claim(
    "whole pictures: mean AUROC >= 0.93 on families that were seen, from sources never seen, and >= 0.80 with families "
    "and sources left out"
)
def finds_what_it_never_saw(context: ClaimContext) -> Evidence:
    held, sources = (arm(context, OURS, name) for name in ("held", "sources"))
    seen, unseen = over_seeds(whole(sources, "levelled, seen")), over_seeds(whole(held, MEAN))
    rows: list[dict[str, Any]] = []
    for name, runs in (("families and sources left out", held), ("sources left out", sources)):
        for figure in ("mean", "seen"):
            if figure == "mean" or runs is sources:
                means = {f"{h}, mean": float(np.mean(whole(runs, f"{h}, {figure}"))) for h in HANDLINGS}
                rows.append({"left out": name, "families": "all" if figure == "mean" else "those seen", **means})
    rows += [row("squares, families and sources left out", held), row("squares, sources left out", sources)]
    for runs in (held, sources):
        inner = [replace(run, metrics={"evaluation": run.figures["whole"]}) for run in runs]
        rows += [*families(inner), *kinds(inner)]
    note = f"sources left out {seen}, families and sources left out {unseen}; over three folds"
    return Evidence(seen.value >= 0.93 and unseen.value >= 0.80, rounded(rows), note)


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
