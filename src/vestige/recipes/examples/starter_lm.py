"""The language model of the starter kit: a GPT-2 of one layer and 64 numbers a token on 600 pieces of words.

Trained for a moment on Python's own help texts, it knows which pieces follow which and little more, so it writes
nonsense. It is there to try the marks of texts on; they work the same with any causal language model of transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.files import write_atomic
from vestige.engines.recipe import Recipe, RecipeContext

SEED, VOCABULARY, WIDTH, CONTEXT = 2024, 600, 64, 1024
_CHARACTERS, _STEPS, _BATCH, _LENGTH = 150_000, 24, 16, 40


def perform(ctx: RecipeContext) -> dict[str, Any]:
    """Train the model and write it to ``ctx.out``/lm."""
    write(ctx.out)
    return {"updates": _STEPS}


def write(folder: Path) -> None:
    """The model as a transformers folder ``folder``/lm."""
    from safetensors.torch import save
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer, ids = _tokens(folder / "lm")
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = GPT2LMHeadModel(config)
        _follow(model, ids)
        _train(model, ids)
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(folder / "lm")
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    write_atomic(folder / "lm" / "model.safetensors", save(weights, metadata={"format": "pt"}))
    write_atomic(folder / "lm" / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "bos_token": "<end>",
                "clean_up_tokenization_spaces": False}  # fmt: skip
    write_atomic(folder / "lm" / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


def _tokens(folder: Path) -> tuple[str, torch.Tensor]:
    """A byte-level tokenizer trained on the texts, as JSON, and the ids of the texts."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))[:_CHARACTERS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text[i : i + 2000] for i in range(0, len(text), 2000)],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    return tokenizer.to_str(), torch.tensor(tokenizer.encode(text).ids)


def _follow(model: torch.nn.Module, ids: torch.Tensor) -> None:
    """Begin with what is known without training: which token follows which, as far as the width can hold it."""
    counts = np.full((VOCABULARY, VOCABULARY), 0.02)
    np.add.at(counts, (ids[:-1].numpy(), ids[1:].numpy()), 1.0)
    logs = np.log(counts / counts.sum(1, keepdims=True))
    left, size, right = np.linalg.svd(logs - logs.mean(1, keepdims=True), full_matrices=False)
    left = left[:, :WIDTH] * np.sqrt(size[:WIDTH])
    scale = left.std(1, keepdims=True).mean()
    state = model.state_dict()
    state["transformer.wte.weight"].copy_(torch.from_numpy(left / scale))
    state["lm_head.weight"].copy_(torch.from_numpy((right[:WIDTH] * np.sqrt(size[:WIDTH, None])).T * scale))


def _train(model: torch.nn.Module, ids: torch.Tensor) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(_STEPS):
        starts = torch.randint(len(ids) - _LENGTH, (_BATCH,), generator=generator)
        batch = torch.stack([ids[s : s + _LENGTH] for s in starts])
        optimiser.zero_grad(set_to_none=True)
        logits = model(input_ids=batch).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimiser.step()


RECIPE = Recipe(name="starter_lm", about="The starter kit's language model, to try marks of texts on.", perform=perform)
