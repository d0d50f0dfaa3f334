"""FIUBench on a user's own vision-language model and facts: make it forget, see what that was worth, ask again.

The file of facts has a line of JSON for each: ``{"image": "faces/3.png", "question": "...", "answer": "...",
"part": "forget"}``, with "paraphrases" of the question and "wrong" answers where the measures are to use them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.data.fictitious import REFUSALS
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import joined
from vestige.metrics.answers import keywords_match
from vestige.unlearning.answerers import LargeAnswerer, open_answerer
from vestige.unlearning.fiubench import OBJECTIVES, FiuBench, figures
from vestige.unlearning.tools._facts import facts, named, plain, said
from vestige.unlearning.vlm import AnsweredPicture, forget_answers

_MODEL = "a folder of a vision-language model"


def erase(work: Work) -> Result:
    """A copy of the model that was tuned to forget the rows of part "forget" and to keep those of part "retain".

    Settings: objective (ga, gd, kl, po), lr, epochs, batch_size. Models of transformers take the paper's rate, small
    ones of this project a larger one.
    """
    rows, parts = facts(work.only(1))
    objective = work.option("objective", "gd")
    if objective not in OBJECTIVES:
        raise UsageError(f"objective is {objective!r}; choose one of {', '.join(OBJECTIVES)}.")
    if not parts["retain"]:
        raise InputError('The file of facts has no row whose part is "retain"; without any the model breaks.')
    answerer = open_answerer(work.path(0, _MODEL), rows, work.device)
    large = isinstance(answerer, LargeAnswerer)
    lr = work.option("lr", 2e-5 if large else 1e-3)
    epochs, size = work.option("epochs", 5 if large else 30), work.option("batch_size", 4 if large else 8)
    work.settled()
    out = work.out_folder()
    before = said(answerer, parts["forget"]).exact, said(answerer, parts["retain"]).exact
    if isinstance(answerer, LargeAnswerer):
        module = forget_answers(
            answerer.module, answerer.processor, parts["forget"], parts["retain"], objective=objective, lr=lr,
            epochs=epochs, batch_size=size, seed=work.seed,
        )  # fmt: skip
    else:
        model, gone = answerer.samples(parts["forget"])
        kept = answerer.samples(parts["retain"])[1]
        refused = [_refused(row, n) for n, row in enumerate(parts["forget"])]
        n = len(gone)
        problem = ForgetProblem(
            model, joined([gone, kept]), range(n), range(n, n + len(kept)), kind="identity", seed=work.seed
        )
        refusals = answerer.samples(refused)[1] if objective == "po" else None
        module = FiuBench(objective, lr, epochs, size, refusals=refusals).erase(problem)
    changed = answerer.with_module(module)
    after = said(changed, parts["forget"]).exact, said(changed, parts["retain"]).exact
    changed.save(out)
    return Result(
        {"forgotten facts answered before": before[0], "after": after[0], "retained facts answered before": before[1],
         "retained after": after[1]},
        [out],
        [f"{len(parts['forget'])} facts forgotten with objective {objective}; 'vestige measure' and 'vestige attack' "
         "with the same file say whether they are only hidden."],
    )  # fmt: skip


def _refused(row: AnsweredPicture, number: int) -> AnsweredPicture:
    return replace(row, answer=REFUSALS[number % len(REFUSALS)])


def measure(work: Work) -> Result:
    """The benchmark's row for every model given: match, ROUGE, probability, truth, extraction, Min-K and utility.

    ``--reference``: a model that was never told the facts; forget quality compares with it.
    """
    rows, parts = facts(work)
    work.settled()
    work.path(0, _MODEL)
    ratio = None
    if work.reference is not None:
        untold = open_answerer(work.needed("reference", _MODEL), rows, work.device)
        ratio = said(untold, parts["forget"]).ratio
        ratio = ratio if len(ratio) else None
    table: list[dict[str, Any]] = []
    for index, path in enumerate(work.paths):
        answerer = open_answerer(work.path(index, _MODEL), rows, work.device)
        gone = said(answerer, parts["forget"], variants=True)
        kept, others = (said(answerer, parts[p]) if parts[p] else None for p in ("retain", "unseen"))
        wanted = [plain(r.answer) for r in parts["forget"]]
        table.append({"model": named(path, work.paths), **figures(gone, kept, others, wanted, ratio)})
    lines = ["EM, p, APE: of the facts to forget, less is better; Min-K of 0.5 tells nothing; utility: more is better."]
    return Result(table[0] if len(table) == 1 else {}, said=lines, rows=table if len(table) > 1 else ())


def attack(work: Work) -> Result:
    """Ask for the forgotten facts in every wording of the file and list what comes out: adversarial extraction."""
    rows, parts = facts(work.only(1))
    work.settled()
    answerer = open_answerer(work.path(0, _MODEL), rows, work.device)
    table, found, plainly = [], 0, 0
    for row in parts["forget"]:
        asked = [row.question, *row.paraphrases]
        spoken = answerer.answers([_asked(row, question) for question in asked])
        hits = [keywords_match(plain(s), plain(row.answer)) for s in spoken]
        plainly += hits[0]
        found += any(hits)
        best = hits.index(True) if any(hits) else 0
        table.append({"picture": row.image.name, "fact": row.answer, "extracted": "yes" if any(hits) else "no",
                      "by asking": asked[best], "said": spoken[best]})  # fmt: skip
    count = len(table)
    return Result(
        {"facts": count, "answered plainly": plainly / count, "extracted by some wording (APE)": found / count},
        rows=table,
    )


def _asked(row: AnsweredPicture, question: str) -> AnsweredPicture:
    return replace(row, question=question)
