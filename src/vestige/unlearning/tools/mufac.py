"""The identity-unlearning benchmark on a user's own classifier of people."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vestige.core.work import Result, Work
from vestige.data.labelled import class_numbers, read_pictures
from vestige.engines.forgetting.samples import Samples
from vestige.unlearning.intake import Asked
from vestige.unlearning.mufac import Mufac
from vestige.unlearning.tools._request import asked, models, reference, rounded


def measure(work: Work) -> Result:
    """``measure MODEL... --data FOLDER [--reference RETRAINED]``: utility A, memory M and NoMUS of every model.

    The folder holds requests (pictures of those who asked), retain, test, and where there is one unseen (other people,
    about as many as asked; the test people otherwise). Classes are those of the task, whoever is seen. Settings:
    draws, of the bootstrap interval of M.
    """
    draws = work.option("draws", 60)
    request = asked(work)
    again = reference(work, request)
    work.settled()
    unseen, whose = _unseen(work, request)
    method = Mufac(draws=draws, seed=work.seed)
    compared = models(work, request) | ({"retrained": again} if again is not None else {})
    rows: list[dict[str, Any]] = [
        {"model": name, **rounded(method.measure(model, request.problem, unseen))} for name, model in compared.items()
    ]
    said = [
        f"M is how well {len(request.problem.forget)} forgotten pictures are told from {len(unseen)} of {whose} by "
        "their loss, less one half: 0 is no memory. A loss gap above 0 is memory, below 0 over-forgetting. NoMUS alone "
        "may prefer a model that forgot nothing: read A and M too."
    ]
    if len(rows) == 1:
        return Result({k: v for k, v in rows[0].items() if k != "model"}, said=said)
    return Result(rows=rows, said=said)


def _unseen(work: Work, request: Asked) -> tuple[Samples, str]:
    folder = work.needed("data", "a folder") / "unseen"
    problem = request.problem
    if not folder.is_dir():
        assert problem.test is not None
        if problem.test_forget is not None:
            return problem.test_forget, "test pictures of the same class"
        return problem.test, "test pictures"
    pictures = read_pictures(folder, int(problem.train.inputs.shape[-1]), "reading unseen")
    numbers, _ = class_numbers({"unseen": pictures}, problem.n_outputs, request.names)
    labels = torch.from_numpy(np.asarray(numbers["unseen"]))
    return Samples(torch.from_numpy(pictures.images), labels), "unseen people"
