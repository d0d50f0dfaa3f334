"""UnLOK-VQA on a user's own vision-language model: delete one fact, look for it inside and from outside.

The file of facts is that of FIUBench; ``--set fact=N`` names a row of it (from 1), by default the first to forget.
Other rows with the same question and answer are other pictures of the same fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.data.fictitious import REFUSALS
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples
from vestige.metrics.answers import keywords_match
from vestige.unlearning.answerers import Answerer, LargeAnswerer, open_answerer
from vestige.unlearning.tools._facts import facts, named, plain
from vestige.unlearning.unlok_vqa import (
    WHITE_BOX,
    UnlokVqa,
    black_box,
    edited_matrix,
    first_words,
    forgotten,
    top_words,
    white_box,
)
from vestige.unlearning.vlm import AnsweredPicture

_MODEL = "a folder of a vision-language model"


def erase(work: Work) -> Result:
    """A copy of the model with one matrix edited so that one answer is gone.

    Settings: fact, defence, clamp (bound on every entry of the change), lr, steps, goal (largest p of the answer).
    """
    rows, parts = facts(work.only(1))
    row = _fact(work, rows, parts["forget"])
    answerer = open_answerer(work.path(0, _MODEL), rows, work.device)
    large = isinstance(answerer, LargeAnswerer)
    eraser = UnlokVqa(
        work.option("defence", "head_projection"), work.option("clamp", 1e-3 if large else 0.1),
        work.option("lr", 1e-4 if large else 5e-3), work.option("steps", 60), work.option("goal", 1e-3),
    )  # fmt: skip
    work.settled()
    out = work.out_folder()
    if not parts["retain"]:
        raise InputError('The file of facts has no row whose part is "retain", so damage could not be seen.')
    if eraser.defence in ("empty_response", "error_injection"):
        other = REFUSALS[0] if eraser.defence == "empty_response" else next(iter(row.wrong), "")
        if not other:
            raise InputError('Error injection gives a wrong answer instead; the row has none under "wrong".')
        eraser = replace(eraser, instead=answerer.samples([replace(row, answer=other)])[1])
    asked = [row, *(replace(row, question=q) for q in row.paraphrases if eraser.defence == "input_rephrasing")]
    module, every = answerer.samples([*asked, *parts["retain"]])
    eraser = replace(eraser, rephrased=every.take(range(1, len(asked))) if len(asked) > 1 else None)
    n = len(asked)
    problem = ForgetProblem(module, every, [0], range(n, len(every)), kind="identity", seed=work.seed)
    edited = eraser.erase(problem)
    before, after = (forgotten(m, every.inputs[:1], every.labels[:1])[0] for m in (module, edited))
    changed = answerer.with_module(edited)
    kept = [_share(a, parts["retain"]) for a in (answerer, changed)]
    changed.save(out)
    met = "is met" if after < eraser.goal else "is NOT met; raise clamp or steps"
    return Result(
        {"p of the answer before": float(before), "after": float(after), "retained facts answered before": kept[0],
         "retained after": kept[1]},
        [out],
        [f"{row.question} {row.answer!r} on {row.image.name}: {eraser.defence} on {edited_matrix(module)}; the goal "
         f"p < {eraser.goal:g} {met}."],
    )  # fmt: skip


def attack(work: Work) -> Result:
    """Try to bring one answer out with at most ``budget`` candidates: inside by the logit lens, outside by asking in
    other words and with other pictures."""
    rows, parts = facts(work.only(1))
    row, budget = _fact(work, rows, parts["forget"]), _budget(work)
    work.settled()
    answerer = open_answerer(work.path(0, _MODEL), rows, work.device)
    module, samples = answerer.samples([row])
    word = answerer.word(int(first_words(samples.labels)[0]))
    table = []
    for name, found in _candidates(answerer, module, samples, row, rows, budget).items():
        table.append({"attack": name, "extracted": "yes" if found[0] else "no", "candidates": ", ".join(found[1])})
    hits = sum(r["extracted"] == "yes" for r in table)
    p = float(forgotten(module, samples.inputs, samples.labels)[0])
    return Result(
        {"p of the answer": p, "attacks that found it": hits, "attacks": len(table), "budget": budget},
        said=[f"{row.question} on {row.image.name}; the deleted answer begins with {word!r}."],
        rows=table,
    )


def measure(work: Work) -> Result:
    """For every model: p of each answer to forget, how often attacks inside and outside find it at the budget, and how
    many retained facts it still answers. The first model is the one that others are compared with."""
    rows, parts = facts(work)
    budget = _budget(work)
    work.settled()
    work.path(0, _MODEL)
    table: list[dict[str, Any]] = []
    for index, path in enumerate(work.paths):
        answerer = open_answerer(work.path(index, _MODEL), rows, work.device)
        found: dict[str, list[bool]] = {}
        p = []
        for row in parts["forget"]:
            module, samples = answerer.samples([row])
            p.append(float(forgotten(module, samples.inputs, samples.labels)[0]))
            for name, hit in _candidates(answerer, module, samples, row, rows, budget).items():
                found.setdefault(name, []).append(hit[0])
        made = {"model": named(path, work.paths), "p of the answers": sum(p) / len(p)}
        made |= {name: sum(hits) / len(hits) for name, hits in found.items()}
        if parts["retain"]:
            made["retained facts answered"] = _share(answerer, parts["retain"])
        if table:
            made["rewrite"] = 1 - made["p of the answers"] / max(table[0]["p of the answers"], 1e-12)
        table.append(made)
    lines = [f"Shares of {len(parts['forget'])} facts that each attack brings out with {budget} candidates."]
    return Result(table[0] if len(table) == 1 else {}, said=lines, rows=table if len(table) > 1 else ())


def _fact(work: Work, rows: Sequence[AnsweredPicture], forget: Sequence[AnsweredPicture]) -> AnsweredPicture:
    number = work.option("fact", 0)
    if not 0 <= number <= len(rows):
        raise UsageError(f"fact is {number}; the file has rows 1 to {len(rows)}.")
    return rows[number - 1] if number else forget[0]


def _budget(work: Work) -> int:
    budget = work.option("budget", 5)
    if budget < 1:
        raise UsageError(f"budget is {budget}; it must be at least 1.")
    return budget


def _share(answerer: Answerer, rows: Sequence[AnsweredPicture]) -> float:
    said = answerer.answers(rows)
    return sum(keywords_match(plain(s), plain(r.answer)) for s, r in zip(said, rows, strict=True)) / len(rows)


def _candidates(
    answerer: Answerer, module: nn.Module, samples: Samples, row: AnsweredPicture, rows: Sequence[AnsweredPicture],
    budget: int,
) -> dict[str, tuple[bool, list[str]]]:  # fmt: skip
    """{attack: (whether the answer is among the candidates, the candidates)}."""
    word = int(first_words(samples.labels)[0])
    inside = {"output": top_words(module, samples.inputs, samples.labels, budget)[0]}
    inside |= {f"{a} (inside)": white_box(module, samples.inputs, samples.labels, a, budget)[0] for a in WHITE_BOX}
    found = {name: (word in numbers, [answerer.word(n) for n in sorted(numbers)]) for name, numbers in inside.items()}
    others = [r for r in rows if r.image != row.image and (r.question, r.answer) == (row.question, row.answer)]
    asked = {
        "other words": [replace(row, question=q) for q in row.paraphrases],
        "other pictures": others,
        "both": [replace(r, question=q) for r in others for q in row.paraphrases],
    }
    for name, some in asked.items():
        if some:
            said = sorted(black_box([plain(s) for s in answerer.answers(some)], budget))
            found[name] = (any(keywords_match(s, plain(row.answer)) for s in said), said)
    return found
