"""Claims of TriPINet in narrow form: edited photographs that share no photograph with the training.

Splices, copy-moves and removals; training saw them stored without loss and as JPEG with halved colours. All networks
had the same pictures in as many updates, and every map, also those that nobody learnt, is cut where validation pictures
serve best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vestige.bench.forensics.verdicts import Margin, over_pictures
from vestige.claims import ClaimContext, Evidence, claim, headline

SEEDS = range(3)
ABOUT = {
    "tripinet": "TriPINet", "rgb": "colours alone", "concat": "three branches side by side",
    "rgb_freq": "colours and frequencies", "rgb_noise": "colours and noise", "freq_noise": "frequencies and noise",
    "unet": "U-Net on colours", "mvss": "MVSS-Net, small", "mantra": "ManTra-Net, small",
    "shuffled": "TriPINet, masks of other pictures",
}  # fmt: skip
PAIRS = ("rgb_freq", "rgb_noise", "freq_noise")
Figures = Mapping[str, Any]


def better(ours: Sequence[Figures], theirs: Sequence[Figures], shuffled: Figures, floor: float, test: str) -> Margin:
    """F1 of every edited picture ahead of the rival's; what shuffled masks reach above marking all is nothing."""
    null = max(0.0, float(shuffled[f"f1, {test}"]) - floor)
    each, other = ([f[f"each f1, {test}"] for f in found] for found in (ours, theirs))
    return over_pictures(each, other, null)


def _runs(context: ClaimContext) -> dict[str, list[Figures]]:
    return {
        n: [context.run("tripinet", n, s).figures for s in (SEEDS if n in ("tripinet", "rgb") else (0,))] for n in ABOUT
    }


def _table(runs: Mapping[str, Sequence[Figures]]) -> list[dict[str, Any]]:
    rows = []
    for name, found in runs.items():
        for seed, one in enumerate(found):
            rows.append({"detector": ABOUT[name], "seed": seed, **_plain(one)})
    first = runs["tripinet"][0]
    rows.append({"detector": "TriPINet, untrained", "seed": 0, **_plain(first["untrained"])})
    floors = {k.removeprefix("floor: "): v for k, v in first.items() if k.startswith("floor: ")}
    return rows + [{"detector": name, "seed": "", **_plain(v)} for name, v in floors.items()]


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("f1, ", "pixel auc, ", "marked where", "threshold")
    return {k: v for k, v in found.items() if k.startswith(kept) and not isinstance(v, list | dict)}


def _floor(runs: Mapping[str, Sequence[Figures]], test: str) -> float:
    return float(runs["tripinet"][0]["floor: every pixel"][f"f1, {test}"])


@headline("with three branches the F1 is above that of colours alone, on other photographs")
def three_branches_help(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    margin = better(runs["tripinet"], runs["rgb"], runs["shuffled"][0], _floor(runs, "stored"), "stored")
    return Evidence(margin.holds, _table(runs), f"{margin.said('ahead')}; the card hopes for 0.10", margin.weak)


@claim("with three branches the F1 is above that of every pair of branches")
def pairs_are_worse(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    best = max(PAIRS, key=lambda n: runs[n][0]["f1, stored"])
    margin = better(runs["tripinet"][:1], runs[best], runs["shuffled"][0], _floor(runs, "stored"), "stored")
    return Evidence(
        margin.holds, _table(runs), f"best pair: {ABOUT[best]}; {margin.said('ahead')}; one seed", margin.weak
    )


@claim("guided attention fuses better than the same branches side by side")
def attention_helps(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    margin = better(runs["tripinet"][:1], runs["concat"], runs["shuffled"][0], _floor(runs, "stored"), "stored")
    return Evidence(
        margin.holds, _table(runs), f"{margin.said('ahead')}; one seed; the card hopes for 0.02", margin.weak
    )


@claim("after JPEG 70 with halved colours the F1 is above that of colours alone, and above marking every pixel")
def bears_jpeg(context: ClaimContext) -> Evidence:
    runs = _runs(context)
    floor = _floor(runs, "jpeg")
    margin = better(runs["tripinet"], runs["rgb"], runs["shuffled"][0], floor, "jpeg")
    ours = min(f["f1, jpeg"] for f in runs["tripinet"])
    kept = ours / max(1e-9, runs["tripinet"][0]["f1, stored"])
    return Evidence(
        margin.holds and ours > floor, _table(runs), f"{margin.said('ahead')}; keeps {kept:.0%}", margin.weak
    )
