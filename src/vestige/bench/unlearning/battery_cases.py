"""The table of right verdicts of the audit's battery, written before the audit that is judged by it.

A case names what was done to a model; ``right`` are the verdicts that say the truth about it. "measured": what is
right is decided by retraining, see `battery.judged`; answers that hide what the features hold are suppressed.
Undeleted models, ``gone`` false, may never be called deleted.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Networks of the battery: learnt by heart (far better on its training pictures), or hardly better than on new ones.
NETWORKS = ("overfitted", "generalising")
#: Pictures to be forgotten.
COUNTS = (10, 30, 100, 1000)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """right: verdicts that are true. gone: whether the pictures' influence is gone; None where retraining decides.
    networks, counts: on which it is run. reference: whether the audit is given a retrained model."""

    name: str
    done: str
    right: tuple[str, ...]
    gone: bool | None
    networks: tuple[str, ...] = ("overfitted",)
    counts: tuple[int, ...] = (100,)
    reference: bool = False


_NOT_YET = ("unchanged", "incomplete")
_LITTLE = "not measurable"
CASES = (
    Case("unchanged", "nothing", ("unchanged",), False, NETWORKS, COUNTS),
    Case("head only", "a last layer that hides them, on the same features", ("suppressed",), False, NETWORKS),
    Case("head and feature noise", "the same; 1 % noise on the features' weights", ("measured",), False),
    Case("light fine-tuning", "two passes over the retained pictures at a small rate", _NOT_YET, False),
    Case("long fine-tuning", "half as many passes as training took", ("measured",), None),
    Case("relabelled", "fitted to wrong labels", ("over-erased", "suppressed"), False),
    Case("logit noise", "random numbers added to the outputs", ("suppressed", *_NOT_YET), False),
    Case("one-hot answers", "only the first choice is told", ("suppressed", *_NOT_YET), False),
    Case("wrong class", "the pictures of another class were erased", ("measured",), False),
    Case("never trained on", "requests that the original never saw", (_LITTLE,), None),
    Case("retrained", "exact retraining", ("deleted",), True, ("overfitted",), (100, 1000)),
    Case("retrained, few", "exact retraining", ("deleted", _LITTLE), True, ("overfitted",), (10, 30)),
    Case("retrained, generalising", "exact retraining", ("deleted", _LITTLE), True, ("generalising",), (100,)),
    Case("retrained, reference", "exact retraining, another one given", ("deleted",), True, reference=True),
    Case("ssd", "SSD", ("measured",), None),
    Case("salun", "SalUn", ("measured",), None),
    Case("l1_sparse", "l1-sparse", ("measured",), None),
)  # fmt: skip
