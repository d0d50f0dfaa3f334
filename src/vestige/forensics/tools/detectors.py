"""How well a detector of generated pictures tells two of the user's folders apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.roles import Finder
from vestige.core.work import Result, Work


def told_apart(work: Work, make: Callable[..., Finder]) -> Result:
    """AUROC, and shares flagged, of an examiner on real pictures (first input) and generated ones (second).

    Generated pictures in sub-folders are told by sub-folder as well. ``--set side=64``: the squares that are looked at.
    make: takes ``weights``, the file of ``--model`` or None, and ``side``. Raises InputError where it applies to no
    picture of one side.
    """
    from vestige.metrics.detection import auroc, equal_error

    work.only(2)
    data = [work.dataset(i, what) for i, what in ((0, "a folder of real pictures"), (1, "a folder of generated ones"))]
    side = work.option("side", 64)
    if not 16 <= side <= 1024:
        raise UsageError(f"--set side={side}: squares have 16 to 1024 pixels a side.")
    weights = None if work.model is None else work.needed("model", "trained weights")
    examiner: Any = make(weights=weights, side=side)
    _ = examiner.network  # a missing one is told before the pictures are read
    work.settled()
    scores: list[float] = []
    sides: list[bool] = []
    groups: list[str] = []
    flags: list[bool] = []
    skipped = 0
    for generated, subject in enumerate(data):
        for index in work.track(range(len(subject)), "examining"):
            item = subject[index]
            finding = examiner.find(item.subject())
            if not finding.applies or finding.score is None:
                skipped += 1
                continue
            scores.append(float(finding.score))
            sides.append(bool(generated))
            groups.append(str(item.label) if item.label is not None else "all")
            flags.append(bool(finding.flagged))
    found, truth, names, flagged = np.array(scores), np.array(sides), np.array(groups), np.array(flags)
    if not truth.any() or truth.all():
        raise InputError(
            f"{work.method} applies to no picture of one side; give pictures of {side} pixels a side or more."
        )
    rows: list[dict[str, Any]] = []
    for name in sorted(set(names[truth].tolist())):
        own = truth & (names == name)
        rows.append(
            {"generated": name, "pictures": int(own.sum()), "AUROC": auroc(truth[~truth | own], found[~truth | own])}
        )
    best = equal_error(truth, found)
    figures: dict[str, float | int | str] = {
        "real pictures": int((~truth).sum()), "generated pictures": int(truth.sum()), "AUROC": auroc(truth, found),
        "score of equal errors": float(best.threshold), "skipped": skipped,
    }  # fmt: skip
    if "threshold" in getattr(examiner, "facts", {}):
        figures |= {"real flagged": float(flagged[~truth].mean()), "generated flagged": float(flagged[truth].mean())}
    return Result(figures, rows=rows if len(rows) > 1 else ())
