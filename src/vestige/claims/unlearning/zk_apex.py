"""Claims of ZK-APEX: a client's private model forgets a class of the provider's, keeps its own task, and proves it.

The runs are those of the recipe ``zk_apex``: a small vision transformer of nine CIFAR-10 classes, a client with five of
them in its own style. Forget accuracy: the provider's training pictures of the class. Personal accuracy: test pictures
of the client's classes in its style.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vestige.bench.controls import over_seeds, paired
from vestige.bench.unlearning.personal import FORGOTTEN, METHOD, scene_of
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.errors import NotVerifiedError
from vestige.core.runtime import rng
from vestige.engines.runs import Need
from vestige.unlearning.proofs.commit import Block
from vestige.unlearning.proofs.spotcheck import Proof, Prover, Verifier, openings
from vestige.unlearning.zk_apex import Update, explain

SEEDS = (0, 1, 2)
NEEDS = (Need("zk_apex", ("default",), SEEDS),)
CHEATS, TRIALS = 1000, 300


def recovers(runs: Sequence[Mapping[str, Any]]) -> Evidence:
    """ZK-APEX over the mask alone on the client's pictures, at forget accuracies that are alike, and its fall."""
    table = []
    for name in (r["model"] for r in runs[0]["rows"]):
        each = [next(r for r in run["rows"] if r["model"] == name) for run in runs]
        table.append({"model": name, **{k: float(np.mean([r[k] for r in each])) for k in each[0] if k != "model"},
                      "seeds": len(runs)})  # fmt: skip

    def of(model: str, name: str) -> list[float]:
        return [float(next(r for r in run["rows"] if r["model"] == model)[name]) for run in runs]

    before, masked, ours = "original (personalised)", "mask only", "ZK-APEX"
    gain = over_seeds(of(ours, "personal"), of(masked, "personal"))
    fell = over_seeds(of(before, "forget"), of(ours, "forget"))
    beyond = over_seeds(of(ours, "forget"), of(masked, "forget"))
    random = over_seeds(of("random mask, made up for", "forget"), of(ours, "forget"))
    pictures = paired(
        np.concatenate([run["hits"][ours] for run in runs]), np.concatenate([run["hits"][masked] for run in runs])
    )
    lost = float(np.mean(of(before, "personal"))) - float(np.mean(of(masked, "personal")))
    part = gain.value / lost if lost > 0 else float("nan")
    # Making up for the mask must not bring the class back: alike within 5 points.
    holds = min(gain.low, pictures.low, fell.low, random.low) > 0 and beyond.value <= 0.05
    note = (
        f"personal accuracy over the mask alone {gain} over seeds, {pictures} over pictures: {100 * part:.0f} % of "
        f"{100 * lost:.1f} lost points; forget accuracy falls by {fell}, is {beyond} above the mask alone, and "
        f"{random} below a random mask of the same size; growth {max(run['growth'] for run in runs):.2f}"
    )
    return Evidence(holds, table, note)


@headline(
    "making up for the masked weights keeps the client's task: personal accuracy above the mask at zero alone, over "
    "seeds and over pictures, while forget accuracy falls as far (within 5 points) and further than with a random mask"
)
def compensation_recovers(context: ClaimContext) -> Evidence:
    return recovers([context.run("zk_apex", "default", seed).figures for seed in SEEDS])


@claim("an honest proof is accepted always; 1000 random cheats are all rejected by full opening, and caught at the "
       "predicted rate within 3 sigma under spot checks")  # fmt: skip
def cheats_are_caught(context: ClaimContext) -> Evidence:
    s = scene_of(context.run("zk_apex", "default", SEEDS[0]))
    small = replace(METHOD, block=128, personal=8, layers=METHOD.layers[-1:] if METHOD.layers else None)
    mask = small.mask(s.problem.model, s.problem.forget, s.problem.retain_sample(small.gradients))
    made = small.compensate(s.model, s.own, mask, request=f"class {FORGOTTEN}")
    g, total = rng(context.seed, "cheats"), len(made.blocks)
    wrong = [small.compensate(s.model, s.own, {n: _shuffled(m, seed) for n, m in mask.items()}) for seed in range(4)]
    zeroed = [replace_block(b, np.where(made.masked[b.number], 0, b.theta)) for b in made.blocks]
    skipped = [replace_block(b, b.theta) for b in made.blocks]

    def replayed(old: Prover, verifier: Verifier) -> Proof:
        """Take the root of an earlier session to a verifier that has seen it."""
        verifier.receive(old.root)
        return old.open(verifier.receive(old.root), total)

    def swapped(prover: Prover, verifier: Verifier) -> Proof:
        """Commit honestly, then open a block that was changed afterwards."""
        proof = prover.open(verifier.receive(prover.root), total)
        at = int(g.integers(total))
        fresh = proof.openings[at].block.theta_new + 1
        opening = replace(proof.openings[at], block=replace_block(proof.openings[at].block, fresh))
        return replace(proof, openings=(*proof.openings[:at], opening, *proof.openings[at + 1 :]))

    kinds: dict[str, Callable[[], list[Block]]] = {
        "no update": lambda: skipped,
        "no compensation": lambda: zeroed,
        "a masked weight kept": lambda: _tampered(made, 1, g),
        "another mask": lambda: wrong[int(g.integers(len(wrong)))].blocks,
    }
    table: list[dict[str, Any]] = []
    rejected = 0
    for kind in (*kinds, "old root", "altered after commitment"):
        caught, runs = 0, CHEATS // 6 + (len(table) < CHEATS % 6)
        for _ in range(runs):
            verifier = Verifier(made.statement, made.masked, total)
            prover = Prover(kinds[kind]() if kind in kinds else made.blocks, made.statement)
            act = {"old root": replayed, "altered after commitment": swapped}.get(kind, _answered)
            caught += _rejects(verifier, lambda p=prover, v=verifier, a=act: a(p, v))  # type: ignore[misc]
        rejected += caught
        table.append({"cheat": kind, "openings": total, "runs": runs, "caught": caught, "predicted": runs})
    fits = []
    for bad, count in ((1, total // 2), (total // 50, total // 20), (total // 20, total // 10), (total // 10, 10)):
        bad, p = max(1, bad), _caught_probability(total, max(1, bad), count)
        caught = sum(_spot(made, _tampered(made, bad, g), count) for _ in range(TRIALS))
        sigma = math.sqrt(TRIALS * p * (1 - p))
        fits.append(abs(caught - TRIALS * p) <= 3 * sigma + 1e-9)
        table.append({"cheat": f"{bad} of {total} blocks", "openings": count, "runs": TRIALS, "caught": caught,
                      "predicted": round(TRIALS * p, 1)})  # fmt: skip
    honest = sum(not _spot(made, made.blocks, n) for n in (*[10] * 50, *[total] * 5))
    table.append({"cheat": "none (honest)", "openings": "10 or all", "runs": 55, "caught": 55 - honest, "predicted": 0})
    holds = honest == 55 and rejected == CHEATS and all(fits)
    return Evidence(holds, table, f"{rejected} of {CHEATS} cheats rejected, {honest} of 55 honest proofs accepted")


@claim("verification is at least 100 times cheaper than recomputation by retraining, in seconds of this machine")
def verification_is_cheap(context: ClaimContext) -> Evidence:
    run = context.run("zk_apex", "default", SEEDS[0])
    s = scene_of(run)
    mask = METHOD.mask(s.problem.model, s.problem.forget, s.problem.retain_sample(METHOD.gradients))
    made = METHOD.compensate(s.model, s.own, mask, request=f"class {FORGOTTEN}")
    prover, verifier = Prover(made.blocks, made.statement), Verifier(made.statement, made.masked)
    proof = prover.open(verifier.receive(prover.root))
    start = time.process_time()
    verifier.verify(proof)
    seconds = {"retraining": float(run.figures["retraining"]["seconds"]), "verification": time.process_time() - start}
    return cheaper(seconds, proof.size, made)


def cheaper(seconds: Mapping[str, float], size: int, made: Update) -> Evidence:
    """Retraining's seconds over those of a verification."""
    table = [{"what": name, "seconds": round(value, 3)} for name, value in seconds.items()]
    shown = f"proof: {size / 1e6:.2f} MB, {min(openings(), len(made.blocks))} of {len(made.blocks)} blocks opened"
    ratio = seconds["retraining"] / max(seconds["verification"], 1e-9)
    note = f"{ratio:.0f} times; {shown}; what passes is as prescribed up to {made.statement.slack:.1e}. {explain()}"
    return Evidence(ratio >= 100, table, note)


def replace_block(block: Block, theta_new: np.ndarray) -> Block:
    return Block(block.number, block.theta, theta_new, block.gradients)


def _shuffled(mask: torch.Tensor, seed: int) -> torch.Tensor:
    order = torch.randperm(mask.numel(), generator=torch.Generator().manual_seed(seed))
    return mask.flatten()[order].view_as(mask)


def _tampered(made: Update, count: int, g: np.random.Generator) -> list[Block]:
    """Blocks of which ``count`` keep a little of one weight that must be zero (or change one that must not)."""
    blocks = list(made.blocks)
    for i in g.permutation(len(blocks))[:count]:
        places = np.flatnonzero(made.masked[i])
        fresh = blocks[i].theta_new.copy()
        fresh[g.choice(places) if len(places) else 0] += 1 + int(g.integers(1000))
        blocks[i] = replace_block(blocks[i], fresh)
    return blocks


def _answered(prover: Prover, verifier: Verifier) -> Proof:
    return prover.open(verifier.receive(prover.root), verifier.count)


def _rejects(verifier: Verifier, act: Callable[[], Proof]) -> bool:
    try:
        verifier.verify(act())
    except NotVerifiedError:
        return True
    return False


def _spot(made: Update, blocks: list[Block], count: int) -> bool:
    """Whether a spot check rejects those blocks."""
    verifier, prover = Verifier(made.statement, made.masked, count), Prover(blocks, made.statement)
    return _rejects(verifier, lambda: _answered(prover, verifier))


def _caught_probability(total: int, bad: int, count: int) -> float:
    """Of meeting one of the bad blocks in a draw without repetition."""
    return 1 - math.comb(total - bad, count) / math.comb(total, count)
