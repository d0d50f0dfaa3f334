"""A small text encoder for captions: a word tokenizer and a CLIP text transformer, both saved as transformers files.

The tokenizer knows whole words only; its vocabulary is built from the captions in hand. It is a plain
``tokenizer.json``, so that transformers and diffusers load it without vestige.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from vestige.core.errors import UsageError

SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
_WORD = re.compile(r"\w+|[^\w\s]")


def build_tokenizer(captions: Iterable[str], length: int = 32, *, max_words: int = 20_000) -> Any:
    """A ``PreTrainedTokenizerFast`` over the words of ``captions``, lower-cased; punctuation marks are words.

    A caption becomes ``<start> words <end>`` and is padded to ``length`` on request. Words are numbered by how often
    they occur, then by spelling, so that equal captions give an equal vocabulary. Raises UsageError when there is no
    word or when the length leaves no room for one.

    >>> tokenizer = build_tokenizer(["a red ball", "a blue cup"], 8)
    >>> tokenizer.decode(tokenizer("a blue ball").input_ids, skip_special_tokens=True)
    'a blue ball'
    """
    from collections import Counter

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if length < 3:
        raise UsageError(f"length is {length}; it must be at least 3 to hold a word between start and end.")
    counts = Counter(word for caption in captions for word in _WORD.findall(caption.lower()))
    if not counts:
        raise UsageError("The captions hold no word; give at least one.")
    words = sorted(counts, key=lambda w: (-counts[w], w))[:max_words]
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
        model_max_length=length,
        padding_side="right",
    )


def text_encoder(tokenizer: Any, width: int = 128, depth: int = 2, heads: int = 4) -> Any:
    """A ``CLIPTextModel`` for the vocabulary and length of ``tokenizer``: causal, ``depth`` layers of ``width``.

    Its ``last_hidden_state`` (N×L×width) is the condition of a denoiser.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            max_position_embeddings=tokenizer.model_max_length,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def token_ids(tokenizer: Any, captions: Iterable[str]) -> torch.Tensor:
    """int64 N×L, padded or cut to the length of the tokenizer."""
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return encoded.input_ids


def unknown_words(tokenizer: Any, caption: str) -> list[str]:
    """The words of a caption that are outside a word vocabulary.

    >>> unknown_words(build_tokenizer(["a red ball"]), "a green ball")
    ['green']
    """
    known = tokenizer.get_vocab()
    return [word for word in _WORD.findall(caption.lower()) if word not in known]
