"""Claims of SAE restoration on the bed, at the output of the third stage.

Restoration is judged in the paper's mode alone: the original's codes of the expert latents, the unlearned network's own
later layers. What the original's later layers read from the activations with nothing strengthened is a claim of its
own and is not called restoration.
"""

from __future__ import annotations

from vestige.bench.controls import Interval
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import BED_NEEDS, Rows, apart, figures, means, values
from vestige.engines.runs import Need

NEEDS = (*BED_NEEDS, Need("sae_restore"))
#: Erasers that start from the original and train it against the class.
FROM_ORIGINAL = ("random_labels", "bad_teacher", "salun", "boundary_shrink", "grad_ascent", "neggrad_plus", "scrub")
SHOWN = (
    "before", "inject_experts", "inject_experts, random", "inject_experts: false", "self", "self, random",
    "self: false", "read", "read, strengthened", "read, strengthened: false",
)  # fmt: skip


def gained(rows: Rows, methods: tuple[str, ...], mode: str = "inject_experts") -> list[float]:
    """What restoration adds to what the networks say anyway: mean over the methods, one figure a seed."""
    each = []
    for method in methods:
        after, before = (values(rows, column, method=method) for column in (mode, "before"))
        each.append([a - b for a, b in zip(after, before, strict=True)])
    return [sum(v) / len(v) for v in zip(*each, strict=True)]


def suppressed(rows: Rows, methods: tuple[str, ...] = FROM_ORIGINAL) -> tuple[bool, str]:
    """Whether injection brings back more of the class in those models than in a retrained one, and more than random
    latents do."""
    ours = gained(rows, methods)
    beyond = apart(ours, gained(rows, ("retrain",)))
    random = apart(ours, gained(rows, methods, "inject_experts, random"))
    restored = [sum(v) / len(v) for v in zip(*(values(rows, "inject_experts", method=m) for m in methods), strict=True)]
    note = f"gain above the retrained model's {beyond}, above random latents' {random}; restored on average "
    return beyond.low > 0 and random.low > 0, f"{note}{sum(restored) / max(len(restored), 1):.2f} (card: .6)"


@headline(
    "injecting the original's expert codes brings back more of the class in erasers that start from the original than "
    "in a network retrained without it, and more than random active latents bring"
)
def hidden_knowledge_returns(context: ClaimContext) -> Evidence:
    rows = figures(context, "sae_restore", "default")
    holds, note = suppressed(rows)
    return Evidence(holds, means(rows, ("method",), SHOWN), note)


@claim("in the self-contained mode, too, more of the class comes back than in a retrained network")
def self_contained(context: ClaimContext) -> Evidence:
    rows = figures(context, "sae_restore", "default")
    beyond = apart(gained(rows, FROM_ORIGINAL, "self"), gained(rows, ("retrain",), "self"))
    note = f"gain above the retrained model's {beyond} (card: .25)"
    return Evidence(beyond.low > 0, means(rows, ("method",), SHOWN), note)


@claim(
    "behind an edit of the last layer the original's later layers read more of the class, with nothing strengthened, "
    "than from a retrained network"
)
def still_readable(context: ClaimContext) -> Evidence:
    rows = figures(context, "sae_restore", "default")
    read = {m: values(rows, "read", method=m) for m in ("tuned head", "retrain", "untrained")}
    found: Interval = apart(read["tuned head"], read["retrain"])
    untrained = ", ".join(f"{v:.2f}" for v in read["untrained"])
    note = f"read, tuned head less retrained {found}; from an untrained network {untrained}"
    return Evidence(found.low > 0, means(rows, ("method",), SHOWN), note)
