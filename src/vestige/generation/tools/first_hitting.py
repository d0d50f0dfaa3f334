"""Draw or fill in texts exactly, and measure what a sampler's rounding does to the words of a text."""

from __future__ import annotations

import re

import numpy as np
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.work import Result, Work
from vestige.generation.first_hitting import FirstHitting, ancestral_law, audit, effective_temperature
from vestige.generation.tools._words import MaskedLanguageModel, chain_of, joined, numbers, vocabulary, words_of

#: What stands for a word to be drawn in a prompt.
_HOLE = re.compile(r"(?<!\w)_+(?!\w)")


def make(work: Work) -> Result:
    """Write a text whose hidden words are drawn one reveal at a time, with one network call and one draw each.

    The model is a masked language model (``--model``, a transformers folder) or the chain of words of the text that is
    the input. ``--prompt "the _ of the _"``: words to keep and, as "_", words to draw; without one, ``--set length=60``
    words are drawn. ``--set``: words (of the chain's vocabulary), parallel (words revealed by one call; above 1 is
    faster and no longer exact).
    """
    work.only(0 if work.model is not None else 1)
    out = work.out_file(".txt")
    length, size, parallel = work.option("length", 60), work.option("words", 400), work.option("parallel", 1)
    work.settled()
    if not (1 <= length <= 4096 and size >= 2 and parallel >= 1):
        raise UsageError("length is from 1 to 4096, words at least 2, parallel at least 1.")
    if work.model is not None:
        text, calls, count = _by_network(work, length, parallel)
    else:
        text, calls, count = _by_chain(work, length, size, parallel)
    write_atomic(out, text + "\n")
    return Result(figures={"words drawn": count, "network calls": calls}, files=[out])


def _by_chain(work: Work, length: int, size: int, parallel: int) -> tuple[str, int, int]:
    words = words_of(work.text(0, "a text to learn the order of words from"))
    known = vocabulary(words, size)
    tokens = numbers(words, known)
    if len(tokens) < 3 or len(known) < 2:
        raise InputError(f"{work.paths[0]} has too few words to learn their order from.")
    wanted = words_of(_HOLE.sub(" _ ", work.prompt)) or ["_"] * length
    index = {word: i for i, word in enumerate(known)}
    strange = sorted({w for w in wanted if w != "_" and w not in index})
    if strange:
        raise UsageError(f"The text does not have {', '.join(strange)}; a prompt is made of its words and _.")
    if "_" not in wanted:
        raise UsageError('The prompt hides no word; write _ for each word to draw, as in "the _ of the _".')
    model = chain_of(tokens, len(known), len(wanted))
    sequence = torch.tensor([[index.get(w, model.mask) for w in wanted]])
    drawn = FirstHitting(model, len(wanted), model.mask, parallel=parallel).fill(sequence, seed=work.seed)
    return joined([known[i] for i in drawn.tokens[0].tolist()]), drawn.calls, wanted.count("_")


def _by_network(work: Work, length: int, parallel: int) -> tuple[str, int, int]:
    model = MaskedLanguageModel(work.model_file(what="a masked language model"))
    tokenizer = model.tokenizer
    text = _HOLE.sub(f" {tokenizer.mask_token} ", work.prompt) or " ".join([tokenizer.mask_token] * length)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    hidden = int((ids == model.mask).sum())
    if not hidden:
        raise UsageError('The prompt hides no word; write _ for each word to draw, as in "the _ of the _".')
    if ids.shape[1] > model.longest:
        raise UsageError(f"The text has {ids.shape[1]} tokens; this model takes {model.longest}.")
    drawn = FirstHitting(model, ids.shape[1], model.mask, parallel=parallel).fill(ids, seed=work.seed)
    return tokenizer.decode(drawn.tokens[0], skip_special_tokens=True).strip(), drawn.calls, hidden


def measure(work: Work) -> Result:
    """How varied the words of a text are, and what 32-bit draws on a fine time grid would do to their frequencies.

    entropy: of the word frequencies within windows of 64 words, in nats. distinct_2: share of different neighbour
    pairs. "entropy in 32 bits": of the frequencies that ancestral sampling in ``--set steps=1024`` steps gives words
    of this text's law; "entropy of the law" is what it should be. With ``--reference TEXT``, a text of the wanted law:
    the temperature at which its frequencies explain this text best, below 1 where common words gained.
    """
    work.only(1)
    steps, window = work.option("steps", 1024), work.option("window", 64)
    work.settled()
    if not (1 <= steps <= 65_536 and window >= 2):
        raise UsageError("steps is from 1 to 65536, window at least 2.")
    words = words_of(work.text(0))
    if len(words) < 2:
        raise InputError(f"{work.paths[0]} has too few words to measure.")
    known = vocabulary(words, 50_000)
    tokens = numbers(words, known)
    width = min(window, len(tokens))
    rows = torch.from_numpy(tokens[: len(tokens) // width * width].reshape(-1, width))
    law = np.bincount(tokens) / len(tokens)
    coarse = ancestral_law(law, steps, bits=24)
    figures: dict[str, float | int | str] = {
        "words": len(tokens), "different words": len(known), **audit(rows), "entropy of the law": _entropy(law),
        "entropy in 32 bits": _entropy(coarse / coarse.sum()),
    }  # fmt: skip
    if work.reference is not None:
        figures["temperature"] = _temperature(work, words)
    return Result(figures=figures)


def _temperature(work: Work, words: list[str]) -> float:
    """Of this text under the frequencies of the reference; words of either text alone count as seen once there."""
    other = words_of(Work("measure", work.method, (work.needed("reference", "a text"),)).text(0))
    if not other:
        raise InputError(f"{work.reference} has no words.")
    known = vocabulary([*other, *words], 50_000)
    wanted = np.bincount(numbers(other, known), minlength=len(known)) + 1.0
    return effective_temperature(np.bincount(numbers(words, known), minlength=len(known)), wanted / wanted.sum())


def _entropy(law: np.ndarray) -> float:
    p = law[law > 0]
    return float(-(p * np.log(p)).sum())
