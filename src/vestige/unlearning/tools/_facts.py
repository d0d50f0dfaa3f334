"""Facts about pictures in a file of the user's, and what a vision-language model says to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Work
from vestige.metrics import answers as metric
from vestige.nn.vlm import token_log_probs
from vestige.unlearning.answerers import Answerer
from vestige.unlearning.fiubench import Answers
from vestige.unlearning.vlm import PARTS, AnsweredPicture, read_rows

WHAT = "a file of facts: lines of JSON with image, question, answer and part (forget, retain, unseen)"


def facts(work: Work) -> tuple[list[AnsweredPicture], dict[str, list[AnsweredPicture]]]:
    """All rows of ``--data`` (or ``--forget``), and those of each part. Raises InputError when nothing is to be
    forgotten."""
    if work.data is None and work.verb == "erase":
        raise UsageError(f"{work.method} needs --forget: {WHAT}.")
    path = work.needed("data", WHAT)
    rows = read_rows(path)
    parts = {part: [r for r in rows if r.part == part] for part in PARTS}
    if not parts["forget"]:
        raise InputError(f'{path} has no row whose part is "forget"; mark what is to be forgotten.')
    return rows, parts


def said(answerer: Answerer, rows: Sequence[AnsweredPicture], variants: bool = False) -> Answers:
    """What a model says to those rows: answers, their probabilities, truth ratios where every row has wrong answers,
    and with ``variants`` the answers to the paraphrases of the questions."""
    spoken, wanted = answerer.answers(rows), [plain(r.answer) for r in rows]
    module, samples = answerer.samples(rows)
    log_probs, standard = token_log_probs(module, samples.inputs, samples.labels)
    count = min(len(r.wrong) for r in rows)
    wrong = [_losses(answerer, [replace(r, answer=r.wrong[k]) for r in rows]) for k in range(count)]
    right = np.array([-float(v.mean()) for v in log_probs])
    return Answers(
        metric.exact_match([plain(s) for s in spoken], wanted),
        float(np.mean([metric.rouge_l(plain(s), w) for s, w in zip(spoken, wanted, strict=True)])),
        float(np.mean([metric.normalised_probability(v.numpy()) for v in log_probs])),
        metric.truth_ratio(right, np.stack(wrong, 1)) if wrong else np.empty(0),
        reworded(answerer, rows) if variants else [],
        [v.numpy() for v in log_probs],
        [v.numpy() for v in standard],
    )


def reworded(answerer: Answerer, rows: Sequence[AnsweredPicture]) -> list[list[str]]:
    """The answers to the first paraphrase of every question, to the second, and so on; a question with fewer is asked
    as it stands."""
    most = max(len(r.paraphrases) for r in rows)
    asked = [
        [replace(r, question=r.paraphrases[k] if k < len(r.paraphrases) else r.question) for r in rows]
        for k in range(most)
    ]
    return [[plain(s) for s in answerer.answers(some)] for some in asked]


def _losses(answerer: Answerer, rows: Sequence[AnsweredPicture]) -> np.ndarray:
    module, samples = answerer.samples(rows)
    return np.array([-float(v.mean()) for v in token_log_probs(module, samples.inputs, samples.labels)[0]])


def plain(text: str) -> str:
    """Words in lower case without marks, so that "Ada Frost." is "ada frost"."""
    return " ".join("".join(c if c.isalnum() or c.isspace() else " " for c in text.lower()).split())


def named(path: Path, model_paths: Sequence[Path]) -> str:
    """A model's name in a table: its folder's, or the whole path where two are called alike."""
    alike = [p for p in model_paths if p.name == path.name]
    return path.name if len(alike) == 1 else str(path)
