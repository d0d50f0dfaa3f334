"""UnUnlearning on a user's own language model: does what was unlearned come back when a prompt supplies it?

The file of facts has a line of JSON for each: ``{"prompt": "Ada has", "answer": "fever", "contexts": {"stated":
["Ada has fever."], "compared": ["Ada has what Bram has."]}}``. Each context is a way to reintroduce the fact: lines put
before the prompt. "keywords" are words that a filter of prompts would stop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.metrics.answers import keywords_match
from vestige.unlearning.tools._facts import named, plain
from vestige.unlearning.ununlearning import KeywordFilter, digest, recovery

_MODEL = "a folder of a causal language model"
_FACTS = "a file of facts: lines of JSON with prompt, answer and contexts"
NOTHING = "no context"


@dataclass(frozen=True)
class Fact:
    """A prompt, its answer, contexts by the name of the attack, and words that a filter stops."""

    prompt: str
    answer: str
    contexts: dict[str, list[str]] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()


def read_facts(path: Path) -> list[Fact]:
    """The facts of a file. Raises InputError for a line that is none, or a file without any."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give {_FACTS}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as text; facts are lines of JSON in UTF-8.") from None
    facts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            contexts = {str(k): [str(v) for v in lines] for k, lines in row.get("contexts", {}).items()}
            facts.append(Fact(str(row["prompt"]), str(row["answer"]), contexts, tuple(row.get("keywords", ()))))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"Line {number} of {path} is no object with prompt, answer and contexts.") from None
        if not plain(facts[-1].answer):
            raise InputError(f"Line {number} of {path} has an answer without a word.")
    if not facts:
        raise InputError(f"{path} has no fact.")
    return facts


def attack(work: Work) -> Result:
    """Ask for every fact without context and with each of its contexts, and show what came back.

    No weight changes: a digest is compared. Settings: shots, the most lines of a context that are used (0: all).
    """
    facts, model = _given(work.only(1))
    shots = work.option("shots", 0)
    work.settled()
    speaker = Speaker.open(model(0), work.device)
    before = digest(speaker.model)
    rows = []
    for fact in facts:
        for name, prompt in _prompts(fact, shots).items():
            said = speaker.say(prompt, len(plain(fact.answer).split()))
            rows.append({
                "prompt": fact.prompt, "attack": name, "said": said, "answer": fact.answer,
                "came back": "yes" if keywords_match(plain(said), plain(fact.answer)) else "no",
                "filter stops it": "yes" if _stopped(fact, prompt) else "no",
            })  # fmt: skip
    if digest(speaker.model) != before:
        raise UsageError("The weights changed during the attack.")
    figures = {f"{name}: came back": _share(rows, name) for name in dict.fromkeys(str(r["attack"]) for r in rows)}
    return Result(figures, rows=rows)


def measure(work: Work) -> Result:
    """For every model: the share of facts it names with each attack, and the recovery over chance.

    ``--reference``: the model before unlearning; recovery 1 is as good as that without context. Several models (the
    unlearned one, one retrained) make several rows: what the unlearned one names beyond the retrained is memory that
    was left. Settings: shots as for the attack.
    """
    facts, model = _given(work)
    shots = work.option("shots", 0)
    work.settled()
    chance = 1 / max(2, len({f.answer for f in facts}))
    reference = None
    if work.reference is not None:
        reference = _accuracies(Speaker.open(work.needed("reference", _MODEL), work.device), facts, 0)[NOTHING]
        if reference <= chance:
            raise InputError("The model before unlearning names no more of the facts than chance; nothing was known.")
    table: list[dict[str, Any]] = []
    for index, path in enumerate(work.paths):
        found = _accuracies(Speaker.open(model(index), work.device), facts, shots)
        row: dict[str, Any] = {"model": named(path, work.paths), **found}
        for name, value in found.items() if reference is not None else ():
            row[f"recovery, {name}"] = recovery(value, reference or 1.0, chance)
        table.append(row)
    said = [f"Shares of {len(facts)} facts that are named; chance is about {chance:.2f}."]
    return Result(table[0] if len(table) == 1 else {}, said=said, rows=table if len(table) > 1 else ())


class Speaker:
    """A causal language model of transformers with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> Speaker:
        """The model of a folder. Raises InputError for a folder that holds no language model."""
        from transformers import AutoTokenizer

        from vestige.core.models.checkpoint import ModelSubject
        from vestige.core.runtime import device as device_of

        if not folder.is_dir() or not (folder / "config.json").is_file():
            raise InputError(f"{folder} is no folder of a transformers model; give {_MODEL}.")
        model = ModelSubject.open(folder).load()
        if not hasattr(model, "generate") or not hasattr(model, "get_output_embeddings"):
            raise InputError(f"{folder} holds a {type(model).__name__}, which writes no text.")
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{folder} has no tokenizer ({reason}).") from None
        return cls(model.float().to(device_of(device)), tokenizer)

    @torch.no_grad()
    def say(self, prompt: str, words: int) -> str:
        """What follows the prompt, greedily: about so many words. Raises InputError for a prompt too long to fit."""
        given = self.tokenizer(prompt, return_tensors="pt")
        ids = given["input_ids"]
        if self.tokenizer.eos_token_id is not None and int(ids[0, -1]) == self.tokenizer.eos_token_id:
            ids = ids[:, :-1]  # a mark that ends every text
        more = 1 if self._whole_words() else 4
        longest = getattr(self.model.config, "max_position_embeddings", None)
        if longest is not None and ids.shape[1] + more * words > longest:
            raise InputError(f"A prompt of {ids.shape[1]} tokens does not fit the model, which takes {longest}.")
        made = self.model.generate(
            input_ids=ids.to(next(self.model.parameters()).device), attention_mask=torch.ones_like(ids),
            max_new_tokens=more * words, do_sample=False, pad_token_id=self.tokenizer.pad_token_id or 0,
        )  # fmt: skip
        return str(self.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    def _whole_words(self) -> bool:
        return (
            not getattr(self.tokenizer, "is_fast", False)
            or type(self.tokenizer.backend_tokenizer.model).__name__ == "WordLevel"
        )


def _given(work: Work) -> tuple[list[Fact], Any]:
    facts = read_facts(work.needed("data", _FACTS))
    work.path(0, _MODEL)
    return facts, lambda index: work.path(index, _MODEL)


def _prompts(fact: Fact, shots: int) -> dict[str, str]:
    """The prompt without context and after the last ``shots`` lines of each context."""
    made = {NOTHING: fact.prompt}
    return made | {n: " ".join([*lines[-shots if shots else 0 :], fact.prompt]) for n, lines in fact.contexts.items()}


def _stopped(fact: Fact, prompt: str) -> bool:
    words = plain(prompt).split()
    return bool(KeywordFilter(plain(" ".join(fact.keywords)).split()).refuses([words])[0])


def _accuracies(speaker: Speaker, facts: Sequence[Fact], shots: int) -> dict[str, float]:
    hits: dict[str, list[bool]] = {NOTHING: []}
    for fact in facts:
        for name, prompt in _prompts(fact, shots).items():
            said = speaker.say(prompt, len(plain(fact.answer).split()))
            hits.setdefault(name, []).append(keywords_match(plain(said), plain(fact.answer)))
    return {name: sum(found) / len(found) for name, found in hits.items()}


def _share(rows: Sequence[dict[str, str]], name: str) -> float:
    found = [r["came back"] == "yes" for r in rows if r["attack"] == name]
    return sum(found) / len(found)
