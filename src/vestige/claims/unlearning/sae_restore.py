"""Claims of SAE restoration on the wing's shared CIFAR-10 original, at the output of its third stage.

Modes "inject_experts" and "self" are judged with the unlearned network's own later layers, as the paper has it; "self,
read" reads the unlearned network's activations with the original's later layers through a map fitted on retained
pictures, which alone can see behind an edit of the last layer. α is chosen on validation pictures among those that call
at most 5 % more of the other pictures the class; restoration is measured on test pictures.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from vestige.bench.unlearning.world import World, world
from vestige.claims import ClaimContext, Evidence, claim
from vestige.claims.unlearning.erased import ERASERS, erased
from vestige.engines.forgetting.samples import Samples, joined
from vestige.unlearning.sae_restore import SaeRestore, verdict

LAYER, LATENTS, K = "layer3", 192, 16
HIDDEN = ("tuned head", "RL", "bad teacher", "SalUn")
MODES = ("self", "inject_experts", "self, read")


@cache
def _world(context: ClaimContext) -> World:
    context.pack("cifar10")
    return world("class", context.seed, data=context.data)


@cache
def _audit(context: ClaimContext) -> SaeRestore:
    p = _world(context).problem
    return SaeRestore(LAYER, LATENTS, K, epochs=8, seed=context.seed).fit(p.model, p.train.sample(800, context.seed))


def _sets(context: ClaimContext) -> tuple[int, Samples, Samples, Samples]:
    """The class, test samples, validation samples and retained training samples for the map."""
    p = _world(context).problem
    assert p.test is not None
    assert p.test_forget is not None
    assert p.val is not None
    label = p.classes[0]
    own, others = p.val.take(p.val.labels == label), p.val.take(p.val.labels != label)
    tuning = joined([own, others.sample(200, 2)])
    return label, joined([p.test_forget, p.test.sample(400, 1)]), tuning, p.retain_sample(1000)


@cache
def rows(context: ClaimContext) -> list[dict[str, Any]]:
    """Restoration of every eraser's model in every mode, with the verdict against the retrained model's."""
    w, audit = _world(context), _audit(context)
    label, test, val, retained = _sets(context)
    experts = audit.expert_latents(w.problem.model, w.problem.train.sample(2000, context.seed), label)
    table: list[dict[str, Any]] = []
    for name in ("retrain", "silenced head", "tuned head", *ERASERS):
        model = erased(w, name)
        row: dict[str, Any] = {"model": name}
        for mode in MODES:
            read = mode == "self, read"
            found = audit.measure(
                w.problem.model, model, label, test, val, experts, mode="self" if read else mode,
                retained=retained if read else None,
            )  # fmt: skip
            row["before"] = found["before"]
            row |= {mode: found["restored"], f"{mode}: α": found["alpha"], f"{mode}: false": found["false_restoration"]}
        row["verdict"] = verdict(row["self, read"], table[0]["self, read"] if table else row["self, read"])
        table.append(row)
    return table


def _named(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {r["model"]: r for r in table}


@claim("head-only erasure and random labels, bad teacher and SalUn show restoration >= 60 %")
def hidden_knowledge_returns(context: ClaimContext) -> Evidence:
    table = rows(context)
    best = {name: _named(table)[name]["self, read"] for name in HIDDEN}
    note = "read by the original's later layers: " + ", ".join(f"{n} {r:.2f}" for n, r in best.items())
    return Evidence(min(best.values()) >= 0.6, table, note)


@claim("retraining from scratch shows restoration lower than those by >= 25 points in the self-contained mode")
def retraining_deletes(context: ClaimContext) -> Evidence:
    table = rows(context)
    at = _named(table)
    gaps = {name: at[name]["self, read"] - at["retrain"]["self, read"] for name in HIDDEN}
    own = at["retrain"]["self"]
    note = f"gaps {', '.join(f'{n} {g:.2f}' for n, g in gaps.items())}; retrain with its own later layers {own:.2f}"
    return Evidence(min(gaps.values()) >= 0.25, table, note)


@claim("expert latents restore >= 20 points more than equally many random active latents")
def experts_matter(context: ClaimContext) -> Evidence:
    """At the strength that validation pictures choose for the experts; 0, which strengthens nothing, is not tried."""
    w, audit = _world(context), _audit(context)
    label, test, val, retained = _sets(context)
    shown = w.problem.train.sample(2000, context.seed)
    experts = audit.expert_latents(w.problem.model, shown, label)
    other = audit.random_active(w.problem.model, shown, len(experts), beside=experts, seed=context.seed)
    table = []
    for name in ("RL", "bad teacher", "SalUn"):
        for mode in MODES:
            how: dict[str, Any] = {"mode": "self", "retained": retained} if mode == "self, read" else {"mode": mode}
            row: dict[str, Any] = {"model": name, "mode": mode}
            alphas: tuple[float, ...] = (1.0, 5.0, 10.0)
            for which, chosen in (("experts", experts), ("random", other)):
                found = audit.measure(
                    w.problem.model, erased(w, name), label, test, val, chosen, alphas=alphas, **how
                )  # fmt: skip
                alphas = (found["alpha"],)
                row |= {"α": found["alpha"], which: found["restored"], f"{which}: false": found["false_restoration"]}
            table.append(row)
    mean = {mode: sum(r["experts"] - r["random"] for r in table if r["mode"] == mode) / 3 for mode in MODES}
    note = f"{len(experts)} latents; mean gap " + ", ".join(f"{m} {g:.2f}" for m, g in mean.items())
    return Evidence(max(mean.values()) >= 0.2, table, note)
