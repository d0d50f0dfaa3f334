"""Compare the representation of models before and after forgetting, and with a retrained one."""

from __future__ import annotations

import torch

from vestige.core.work import Result, Work
from vestige.data.labelled import read_pictures
from vestige.engines.forgetting.samples import Samples
from vestige.unlearning.repr_audit import ReprAudit
from vestige.unlearning.tools._request import asked, models, reference, rounded


def measure(work: Work) -> Result:
    """``measure BEFORE AFTER --data FOLDER [--reference RETRAINED]``: `ReprAudit` of every model.

    ``--set label=CLASS``: what was forgotten is the whole class. ``--set downstream=FOLDER``: another task,
    class/*.png, for k-NN transfer. With a retrained model also CKA to it, AGL, AGR and H-LR.
    """
    label, other = work.option("label", ""), work.option("downstream", "")
    k = work.option("k", 5)
    request = asked(work, label)
    again = reference(work, request)
    work.settled()
    downstream = {}
    if other:
        from pathlib import Path

        pictures = read_pictures(Path(other), int(request.problem.train.inputs.shape[-1]))
        words = sorted({str(name) for name in pictures.labels})
        numbers = torch.tensor([words.index(str(name)) for name in pictures.labels])
        downstream["downstream"] = Samples(torch.from_numpy(pictures.images), numbers)
    audit = ReprAudit(request.problem, again, downstream, k=k, seed=work.seed)
    compared = models(work, request) | ({"retrained": again} if again is not None else {})
    rows = [rounded({"model": name, **audit.measure(model)}) for name, model in compared.items()]
    last = rows[len(work.paths) - 1]
    said = []
    if len(work.paths) > 1:
        expected = f", {rows[-1]['recovery']:.0%} on the retrained model" if again is not None else ""
        said = [
            f"{last['model']} names {last['FA']:.0%} of what was to be forgotten; a new head on its features names "
            f"{last['recovery']:.0%} (before: {rows[0]['recovery']:.0%}{expected})."
        ]
    return Result(figures={k_: v for k_, v in last.items() if k_ != "model"}, rows=rows, said=said)
