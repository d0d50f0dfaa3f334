"""How sparse models are, and what they still say about what was to be forgotten."""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.engines.forgetting.evaluate import evaluate
from vestige.nn.pruning import density, prunable
from vestige.unlearning.tools._request import asked, models, reference, rounded


def measure(work: Work) -> Result:
    """Density and the standard row of each model: ``measure BEFORE AFTER --data FOLDER [--reference RETRAINED]``.

    "density" is the share of weights of convolutions and linear layers that are not 0, "least density" that of the
    emptiest layer.
    """
    label = work.option("label", "")
    request = asked(work, label)
    again = reference(work, request)
    work.settled()
    rows = []
    for name, model in models(work, request).items():
        kept = density({n: (w.detach() != 0).float() for n, w in prunable(model).items()})
        row = evaluate(model, request.problem, again)
        shown: dict[str, float] = {k: row[k] for k in ("UA", "RA", "TA", "MIA", "gap") if k in row}
        rows.append(rounded({"model": name, "density": kept["all"], "least density": kept["least"]} | shown))
    last = rows[-1]
    return Result(figures={k: v for k, v in last.items() if k != "model"}, rows=rows)
