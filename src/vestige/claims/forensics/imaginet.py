"""Claims of ImagiNet's learner on published pictures: self-contrast against cross-entropy of the same encoder.

All arms see the same levelled squares in as many updates; pictures are cut, scaled and saved as networks leave them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.bench.controls import over_seeds
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.forensics.published_runs import arm, families, figures, judged, kinds, row, told
from vestige.engines.runs import Need

NEEDS = (Need("imaginet"), Need("patchcraft", ("held",)), Need("npr", ("held",)))
_CE = "cross-entropy of the same encoder"


@headline(
    "on families and sources never seen, mean AUROC by self-contrast is above cross-entropy of the same encoder in as "
    "many updates"
)
def generalises(context: ClaimContext) -> Evidence:
    ours, entropy = (arm(context, "imaginet", name) for name in ("held", "entropy"))
    control = arm(context, "imaginet", "shuffled_labels", (0,))
    holds, differences, weak = judged(figures(ours), [figures(entropy)], figures(control)[0])
    rows = [
        row("self-contrast", ours),
        row(_CE, entropy),
        row("supervised contrast of two views", arm(context, "imaginet", "views", (0,)), "one fold"),
        row("self-contrast, that fold", ours[:1]),
        row("PatchCraft", arm(context, "patchcraft", "held")),
        row("NPR", arm(context, "npr", "held")),
        row("control: self-contrast, shuffled labels", control),
        *families(ours),
        *kinds(ours),
    ]
    return Evidence(holds, rows, f"{told(differences, [_CE])}; the paper's margin would be 0.02", too_weak=weak)


@claim("with all families learnt from, mean AUROC on the validation part is >= 0.95 and >= 0.02 above cross-entropy")
def knows_what_it_has_seen(context: ClaimContext) -> Evidence:
    ours, entropy = (arm(context, "imaginet", name, (0,)) for name in ("default", "known_entropy"))
    rows = [row("self-contrast", ours), row(_CE, entropy), *families(ours)]
    found, other = figures(ours)[0], figures(entropy)[0]
    return Evidence(found >= max(0.95, other + 0.02), rows, f"{found - other:+.3f} above cross-entropy; one training")


@claim("a linear judge of the features names the generator at least as often as one of cross-entropy's features")
def features_name_the_generator(context: ClaimContext) -> Evidence:
    arms = {name: arm(context, "imaginet", variant) for name, variant in (("self-contrast", "held"), (_CE, "entropy"))}
    named = {name: figures(runs, "generator named") for name, runs in arms.items()}
    rows: list[dict[str, Any]] = [
        {
            "features": name,
            "generator named": float(np.mean(values)),
            "chance": float(np.mean(figures(arms[name], "chance"))),
        }
        for name, values in named.items()
    ]
    apart = over_seeds(named["self-contrast"], named[_CE])
    return Evidence(apart.low >= 0, rows, f"{apart} over three folds, pictures kept apart of known families")
