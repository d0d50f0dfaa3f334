"""Texts as sequences of words, and the two exact or learned models that a text's hidden words are drawn from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.models.checkpoint import ModelSubject
from vestige.generation.first_hitting import MarkovModel

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_CLOSING = frozenset(".,;:!?)]}%…")
#: Tables of the chain's powers hold V×V×(L + 1) numbers; beyond this they are refused.
MOST_NUMBERS = 2**27
#: Share of the next word that is drawn from the text's word frequencies, so that every word can follow every other.
SMOOTHING = 0.05


def words_of(text: str) -> list[str]:
    """Lower-cased words and punctuation marks.

    >>> words_of("It's late.")
    ["it's", 'late', '.']
    """
    return _WORD.findall(text.lower())


def joined(words: Sequence[str]) -> str:
    """Words as running text: no blank before closing punctuation.

    >>> joined(["so", ",", "we", "go", "."])
    'so, we go.'
    """
    return "".join(word if not i or word in _CLOSING else f" {word}" for i, word in enumerate(words))


def vocabulary(words: Sequence[str], size: int) -> list[str]:
    """The commonest words, by frequency, then by spelling."""
    counts = Counter(words)
    return sorted(counts, key=lambda w: (-counts[w], w))[:size]


def numbers(words: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """int64 numbers of those words that are in the vocabulary, in order."""
    index = {word: i for i, word in enumerate(known)}
    return np.array([index[w] for w in words if w in index], np.int64)


def chain_of(tokens: np.ndarray, count: int, length: int) -> MarkovModel:
    """The exact denoiser of the chain whose transitions are those of the text, smoothed by its word frequencies.

    Raises UsageError for tables that would not fit into memory.
    """
    if count**2 * (length + 1) > MOST_NUMBERS:
        raise UsageError(f"{count} words and a length of {length} need too much memory; lower words or length.")
    pairs = np.bincount(tokens[:-1] * count + tokens[1:], minlength=count**2).reshape(count, count).astype(float)
    often = np.bincount(tokens, minlength=count) / len(tokens)
    left = pairs.sum(1, keepdims=True)
    follows = np.where(left > 0, pairs / np.maximum(left, 1), often)
    return MarkovModel(torch.from_numpy((1 - SMOOTHING) * follows + SMOOTHING * often), length)


class MaskedLanguageModel:
    """A transformers masked language model (BERT, RoBERTa, ...) as a time-free token model.

    folder: config, safetensors weights and tokenizer. Raises InputError for other models.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give a transformers masked language model.")
        self.network = ModelSubject.open(folder).load()
        try:
            from transformers import AutoTokenizer

            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} has no tokenizer that can be read ({str(error)[:80]}).") from None
        if not type(self.network).__name__.endswith("ForMaskedLM") or self.tokenizer.mask_token_id is None:
            raise InputError(f"{folder} is no masked language model (a class ending in ForMaskedLM with a mask token).")
        self.mask = int(self.tokenizer.mask_token_id)

    @property
    def longest(self) -> int:
        """The longest sequence, special tokens included."""
        return min(int(getattr(self.network.config, "max_position_embeddings", 512)), 4096) - 2

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        logits = self.network(input_ids=x).logits.float()
        for special in self.tokenizer.all_special_ids:
            logits[..., special] = -torch.inf
        if places is not None:
            logits = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
        return torch.log_softmax(logits, -1)
