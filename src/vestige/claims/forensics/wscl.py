"""Claims of WSCL: labels of whole pictures in training, edits it has never seen in the test.

All networks, the rival with masks included, saw the same pictures in as many updates, stored without loss and as JPEG
with halved colours; maps are cut where validation pictures with the edits of the training serve best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vestige.bench.forensics.verdicts import Margin, over_pictures, over_scores
from vestige.claims import ClaimContext, Evidence, claim, headline

SEEDS, THREE = range(3), ("wscl", "mil", "rgb")
ABOUT = {
    "wscl": "WSCL", "mil": "three streams, no consistency", "rgb": "colours alone, no consistency",
    "max": "highest place, no consistency", "top": "highest tenth, no consistency", "no_msc": "WSCL without MSC",
    "no_ipc": "WSCL without IPC", "cam": "Grad-CAM of a classifier on colours", "masks": "TriPINet, trained with masks",
    "shuffled": "WSCL, labels dealt out anew",
}  # fmt: skip
Figures = Mapping[str, Any]


def detects(ours: Sequence[Figures], theirs: Sequence[Figures], shuffled: Figures, test: str = "other") -> Margin:
    """Ahead in image AUC on edits that nobody saw."""
    null = abs(float(shuffled[f"image auc, {test}"]) - 0.5)
    scores, other = ([f[f"scores, {test}"] for f in each] for each in (ours, theirs))
    return over_scores(scores, other, ours[0][f"edited, {test}"], null)


def _runs(context: ClaimContext) -> dict[str, list[Figures]]:
    return {n: [context.run("wscl", n, s).figures for s in (SEEDS if n in THREE else (0,))] for n in ABOUT}


def _table(runs: Mapping[str, Sequence[Figures]]) -> list[dict[str, Any]]:
    rows = [
        {"detector": ABOUT[name], "seed": seed, **_plain(one)}
        for name, found in runs.items()
        for seed, one in enumerate(found)
    ]
    first = runs["wscl"][0]
    rows.append({"detector": "WSCL, untrained", "seed": 0, **_plain(first["untrained"])})
    floors = {k.removeprefix("floor: "): v for k, v in first.items() if k.startswith("floor: ")}
    return rows + [{"detector": name, "seed": "", **_plain(v)} for name, v in floors.items()]


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("image auc, ", "f1, ", "pixel auc, ", "threshold")
    return {k: v for k, v in found.items() if k.startswith(kept) and not isinstance(v, list | dict)}


@headline("on edits it has not seen, the image AUC is above that of the same streams without the consistencies")
def consistency_helps(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    margin = detects(runs["wscl"], runs["mil"], runs["shuffled"][0])
    return Evidence(margin.holds, _table(runs), margin.said("ahead"), margin.weak)


@claim("on edits it has not seen, the image AUC is above that of colours alone")
def residuals_help(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    margin = detects(runs["wscl"], runs["rgb"], runs["shuffled"][0])
    masks = runs["masks"][0]["image auc, other"] - runs["wscl"][0]["image auc, other"]
    note = f"{margin.said('ahead')}; the card hopes for 0.03; TriPINet trained with masks is {masks:+.3f} from it"
    return Evidence(margin.holds, _table(runs), note, margin.weak)


@claim("pixel F1 is above that of multiple-instance learning with max pooling, on seen and on other edits together")
def locates_better_than_max_pooling(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    each = {n: [f["each f1, seen"] + f["each f1, other"] for f in runs[n][:1]] for n in ("wscl", "max")}
    floor = runs["wscl"][0]["floor: every pixel"]
    null = max(0.0, *(runs["shuffled"][0][f"f1, {t}"] - floor[f"f1, {t}"] for t in ("seen", "other")))
    margin = over_pictures(each["wscl"], each["max"], null)
    return Evidence(
        margin.holds, _table(runs), f"{margin.said('ahead')}; one seed; the card hopes for 0.08", margin.weak
    )


@claim("after JPEG 70 with halved colours the image AUC on seen edits is above that of colours alone")
def bears_jpeg(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    margin = detects(runs["wscl"], runs["rgb"], runs["shuffled"][0], "seen, jpeg")
    return Evidence(margin.holds, _table(runs), margin.said("ahead"), margin.weak)
