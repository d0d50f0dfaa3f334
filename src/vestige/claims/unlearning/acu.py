"""Claims of analytic continual unlearning: a stream of requests served exactly, where gradient methods fall apart."""

from __future__ import annotations

from typing import Any

from vestige.bench.controls import Interval
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.unlearning.cells import SEEDS, Rows, apart, figures, means, values
from vestige.engines.runs import Need

NEEDS = (Need("acu", ("stream",)),)


def keeps_more(rows: Rows, ours: str = "ACU") -> tuple[bool, str]:
    """Whether ours keeps more retained accuracy than every gradient method, and loses nothing to the joint solution."""
    at = {m: values(rows, "retained accuracy", method=m) for m in (ours, "joint solution", "FT", "GA", "RL", "SSD")}
    differences: dict[str, Interval] = {m: apart(at[ours], at[m]) for m in ("FT", "GA", "RL", "SSD")}
    lost = max(abs(a - b) for a, b in zip(at[ours], at["joint solution"], strict=True))
    note = "retained accuracy above " + ", above ".join(f"{m} {d}" for m, d in differences.items())
    ahead = all(d.low > 0 for d in differences.values())
    return ahead and lost <= 1e-6, f"{note}; off the joint solution by {lost:.1e}"


@headline(
    "after ten requests it equals the joint solution over what remains and keeps more retained accuracy than gradient "
    "unlearners under the same stream (FT without history, GA, RL, SSD), each at its best rate"
)
def gradient_methods_forget_too_much(context: ClaimContext) -> Evidence:
    rows = figures(context, "acu", "stream")
    holds, note = keeps_more(rows)
    return Evidence(holds, means(rows, ("method",), ("retained accuracy",)), f"{note} (card: .10)")


def _part(context: ClaimContext, name: str) -> list[dict[str, Any]]:
    return [{"seed": s, **row} for s in SEEDS for row in context.run("acu", "stream", s).figures[name]]


@claim("after any random sequence of >= 50 requests max |W − W_joint| / max |W_joint| <= 1e-6 in float64")
def equals_the_joint_solution(context: ClaimContext) -> Evidence:
    table = _part(context, "exactness")
    worst = max(r["difference float64"] for r in table)
    last = min(max(r["request"] for r in table if r["seed"] == s) for s in SEEDS)
    single = [r["difference float32"] for r in table if r["difference float32"] is not None]
    note = f"{last} requests, three sequences, at most {worst:.1e}; in float32 up to {max(single, default=0):.1e}"
    return Evidence(worst <= 1e-6 and last >= 50, table, note)


@claim("predictions on test pictures are identical to those of the joint solution")
def predicts_the_same(context: ClaimContext) -> Evidence:
    table = _part(context, "exactness")
    others, count = (sum(r[name] for r in table) for name in ("other predictions", "predictions"))
    return Evidence(others == 0, table, f"{others} of {count} predictions differ")


@claim("a request of 500 rows costs >= 20 times less than solving anew from raw pictures")
def is_cheap(context: ClaimContext) -> Evidence:
    table = _part(context, "costs")
    ratios = [r["times less"] for r in table if r["what"] == "forgetting pictures"]
    rest = max(r["rows"] for r in table)
    note = f"against {rest} remaining pictures: {', '.join(f'{r:.1f}' for r in ratios)} times less; the ratio grows"
    return Evidence(min(ratios) >= 20, table, f"{note} with what is held")
