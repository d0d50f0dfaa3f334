"""ZK-APEX on a user's own classifier: what it costs, and whether a proof belongs to two models.

``vestige erase MODEL --forget … --retain … --test … --method zk_apex`` writes the new model, its audit and
``….proof.npz``; ``measure`` checks that file.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from vestige.core.errors import UsageError
from vestige.core.work import Result, Work
from vestige.engines.forgetting.evaluate import say
from vestige.unlearning.intake import Asked
from vestige.unlearning.proofs.document import OPENINGS, check
from vestige.unlearning.tools._request import asked, models, rounded
from vestige.unlearning.zk_apex import ZkApex, explain


def measure(work: Work) -> Result:
    """``measure BEFORE [AFTER] --data FOLDER [--reference AFTER.proof.npz]``: accuracies, and the proof's check.

    With one model the mask is set to zero with and without making up for it, in memory, to show what forgetting would
    cost. Settings: fraction (of the weights masked), block, damping.
    """
    method = ZkApex(
        fraction=work.option("fraction", ZkApex.fraction), block=work.option("block", ZkApex.block),
        damping=work.option("damping", ZkApex.damping),
    )  # fmt: skip
    request = asked(work)
    work.settled()
    compared, said, statement = models(work, request), [], None
    if work.reference is not None:
        if len(work.paths) != 2:
            raise UsageError("A proof belongs to two models: give the one before and the one after.")
        before, after = (
            {n: p.detach().cpu().numpy() for n, p in m.named_parameters()} for m in list(compared.values())[:2]
        )
        statement = check(work.needed("reference", "a proof that erase wrote"), before, after)
        said = [f"The proof holds for these two models ({min(OPENINGS, statement.blocks)} of {statement.blocks} blocks "
                f"opened, up to {statement.slack:.1e}). {explain()}"]  # fmt: skip
    elif len(compared) == 1:
        compared |= tried(method, request)
    rows = [{"model": name, **_row(model, request)} for name, model in compared.items()]
    figures: dict[str, float | int | str] = (
        {} if statement is None else {"proof": "accepted", "blocks": statement.blocks}
    )
    return Result(figures, rows=rows, said=said)


def tried(method: ZkApex, request: Asked) -> dict[str, nn.Module]:
    """The model with the mask at zero alone, and with the other weights making up for it."""
    problem = request.problem
    mask = method.mask(problem.model, problem.forget, problem.retain_sample(method.gradients))
    zeroed = copy.deepcopy(problem.model)
    with torch.no_grad():
        for name, chosen in mask.items():
            zeroed.get_parameter(name)[chosen] = 0
    made = method.compensate(problem.copy(), problem.retain_sample(method.personal), mask).model
    return {"mask at zero": zeroed, "mask at zero, made up for": made}


def _row(model: nn.Module, request: Asked) -> dict[str, Any]:
    problem = request.problem
    assert problem.test is not None
    row = {"forget": say(model, problem.forget).accuracy, "retain": say(model, problem.retain).accuracy}
    return rounded(row | {"test": say(model, problem.test).accuracy})
