"""Claims of PatchCraft on published pictures: families of generators and sources left out in turn.

All networks see the same levelled squares of 64 pixels, smashed into squares of 8, in as many updates.
"""

from __future__ import annotations

from typing import Any

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.forensics.published_runs import MEAN, arm, families, figures, judged, kinds, row, told
from vestige.engines.runs import Need

NEEDS = (Need("patchcraft"),)
_RGB, _SRM = "residual network on RGB", "residual network on SRM"


def _rows(context: ClaimContext) -> list[dict[str, Any]]:
    ours = arm(context, "patchcraft", "held")
    return [
        row("PatchCraft", ours),
        row(_RGB, arm(context, "patchcraft", "rgb")),
        row(_SRM, arm(context, "patchcraft", "srm")),
        row("NPR", arm(context, "patchcraft", "npr", (0,))),
        row("control: PatchCraft, shuffled labels", arm(context, "patchcraft", "shuffled_labels", (0,))),
        *families(ours),
        *kinds(ours),
    ]


@headline(
    "on families and sources never seen, mean AUROC is above that of a residual network on RGB and of one on the noise "
    "residual of the whole picture"
)
def generalises(context: ClaimContext) -> Evidence:
    ours, rgb, srm = (figures(arm(context, "patchcraft", name)) for name in ("held", "rgb", "srm"))
    shuffled = figures(arm(context, "patchcraft", "shuffled_labels", (0,)))[0]
    holds, differences, weak = judged(ours, [rgb, srm], shuffled)
    note = f"{told(differences, [_RGB, _SRM])}; the paper's margin would be 0.05"
    return Evidence(holds, _rows(context), note, too_weak=weak)


@claim("leaving Smash & Reconstruct out costs AUROC on families and sources never seen")
def smashing_helps(context: ClaimContext) -> Evidence:
    ours, whole = (arm(context, "patchcraft", name) for name in ("held", "whole"))
    both = arm(context, "patchcraft", "both", (0,))
    shuffled = figures(arm(context, "patchcraft", "shuffled_labels", (0,)))[0]
    holds, differences, weak = judged(figures(ours), [figures(whole)], shuffled)
    rows = [
        row("PatchCraft", ours),
        row("without Smash & Reconstruct", whole),
        row("both textures instead of their contrast", both, "one fold"),
        row("PatchCraft, that fold", ours[:1]),
    ]
    return Evidence(holds, rows, told(differences, ["the whole picture"]), too_weak=weak)


@claim("mean AUROC on families and sources never seen falls by at most 0.10 under JPEG 70")
def survives_jpeg(context: ClaimContext) -> Evidence:
    rows = [row(name, arm(context, "patchcraft", variant)) for name, variant in
            (("PatchCraft", "held"), (_RGB, "rgb"), (_SRM, "srm"))]  # fmt: skip
    drop = rows[0][MEAN] - rows[0]["JPEG 70, mean"]
    chance = rows[0][MEAN] < 0.55  # a detector at chance survives anything
    return Evidence(drop <= 0.10 and not chance, rows, f"it falls by {drop:.3f}")
