"""Choose the hyper-parameters of the unlearning benchmark: the smallest gap to retraining on validation samples.

    python -m vestige.bench.unlearning.tuning [--data FOLDER] [--methods scrub,ssd]

Runs on seed 109, whose training pictures, class and networks appear in no table, and prints what belongs into
`vestige.bench.unlearning.parameters`.
"""

from __future__ import annotations

import argparse
import pprint
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from vestige.bench.methods import Method
from vestige.bench.store import results_root
from vestige.bench.unlearning.protocol import METRICS, Grid, run
from vestige.bench.unlearning.world import FOLDER, KINDS, TUNING_SEED, Settings
from vestige.metrics.unlearning import average_gap

#: What is tried: every combination of the values. Two to four passes over the data stand for the papers' ten.
GRIDS: dict[str, dict[str, Sequence[float]]] = {
    "finetune": {"lr": (0.03, 0.1), "epochs": (2, 4)},
    "cfk": {"lr": (0.1,), "epochs": (2,), "k": (3,)},
    "euk": {"lr": (0.1,), "epochs": (2,), "k": (3,)},
    "random_labels": {"lr": (0.02, 0.1), "epochs": (2,)},
    "grad_ascent": {"lr": (1e-4, 1e-3, 5e-3), "epochs": (3,)},
    "neggrad_plus": {"lr": (0.02,), "epochs": (2,), "weight": (0.9, 0.97)},
    "bad_teacher": {"lr": (3e-4, 2e-3), "epochs": (3,)},
    "unsir": {"impair_lr": (0.02, 0.1), "repair_lr": (0.02,)},
    "influence": {"alpha": (0.2, 1, 5, 50), "samples": (300,)},
    "boundary_shrink": {"lr": (1e-3, 1e-2), "epochs": (3,)},
    "salun": {"lr": (0.02, 0.1), "epochs": (2,), "share": (0.5,)},
    "scrub": {"lr": (5e-4, 2e-3), "epochs": (2,), "msteps": (1,), "alpha": (0.1,)},
    "fisher_forget": {"alpha": (1e-3, 1e-2, 3e-2, 1e-1), "samples": (1000,)},
    # A tenth of the data is at most ten times as important as all of it; near that, some networks have no such weight.
    "ssd": {"alpha": (1.5, 3, 5)},
    "laf": {"lr_ue": (1e-4, 3e-4), "lr_ra": (1e-3, 3e-3), "loops": (8,)},
    "l1_sparse": {"gamma": (1e-4, 5e-4, 1e-3, 2e-3), "lr": (0.1,), "epochs": (2, 4), "rest": (1, 2)},
    "sparse_unlearn": {"rate": (0.9,), "recover_epochs": (2,), "recover_lr": (0.1,)},
}


def candidates(slug: str) -> Iterator[Method]:
    """Every combination of the values tried for an eraser."""
    names = list(GRIDS[slug])
    for values in product(*GRIDS[slug].values()):
        yield Method(slug, tuple(zip(names, values, strict=True)))


def choose(
    grid: Grid, slugs: Sequence[str], kinds: Sequence[str] = KINDS, jobs: int = 1
) -> dict[str, dict[str, dict[str, Any]]]:
    """{slug: {kind: parameters}} with the smallest average gap to the retrained model on validation samples."""
    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for slug in slugs:
        tried = {m.label: m for m in candidates(slug)}
        records, _ = run(grid, list(tried.values()), kinds, [TUNING_SEED], jobs=jobs)
        for kind in kinds:
            expected = _row(records, kind, "retrain")
            gaps = {}
            for label in tried:
                row = _row(records, kind, label)
                if row is not None and expected is not None:
                    gaps[label] = average_gap(row, expected, METRICS)
                    figures = " ".join(f"{m} {row[m]:.3f}" for m in METRICS)
                    print(f"{kind:7s} {label:60s} gap {gaps[label]:.3f}  {figures}", flush=True)
            if gaps:
                best = tried[min(gaps, key=lambda name: gaps[name])]
                chosen.setdefault(slug, {})[kind] = dict(best.options)
    return chosen


def _row(records: Sequence[Mapping[str, Any]], kind: str, label: str) -> Mapping[str, float] | None:
    return next((r["row"] for r in records if (r["kind"], r["method"]) == (kind, label) and "row" in r), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="", help="folder of data packs")
    parser.add_argument("--methods", default=",".join(GRIDS), help="slugs separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    args = parser.parse_args()
    grid = Grid(Settings(), args.data, FOLDER, results_root() / "bench" / "unlearning" / "tuning")
    pprint.pprint(choose(grid, args.methods.split(","), jobs=args.jobs), width=118, sort_dicts=False)


if __name__ == "__main__":
    main()
