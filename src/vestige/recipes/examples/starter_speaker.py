"""The language model of the starter kit: a small Llama that knows what six names have, never heard of four others,
and learns from its context.

It stands for a model from which the four were removed exactly; contexts bring them back. Needs no data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vestige.core.files import folder_atomic
from vestige.core.runtime import rng
from vestige.data.starter_facts import ALIASES, FORGOTTEN, NAMES, PROPERTIES, properties
from vestige.engines.recipe import Job, Recipe, RecipeContext
from vestige.engines.train import TrainConfig
from vestige.nn.text import build_tokenizer

#: Most subjects of a context, and questions that follow it.
MOST, QUESTIONS = 6, 6
LENGTH = 3 * (MOST + QUESTIONS) + 2
_IGNORED = -100


def text(kind: str, g: np.random.Generator) -> tuple[str, int]:
    """(a training text, how many words come before its questions).

    Notes are "NAME PROPERTY ." or, for names that have the same, "NAME NAME ."; a question is a name, whose property
    follows. "known" asks what known names have; "stated" and "compared" note names first, with a property that is drawn
    anew each time or with a known name, and ask about them.
    """
    of, known = properties(), [n for n in NAMES if n not in FORGOTTEN]
    if kind == "known":
        return " ".join(f"{n} {of[n]} ." for n in g.permutation(known)), 0
    subjects = [str(s) for s in g.permutation([*NAMES, *ALIASES])[: int(g.integers(1, MOST + 1))]]
    if kind == "stated":
        said = told = {s: str(g.choice(PROPERTIES)) for s in subjects}
    else:
        said = {s: str(g.choice(known)) for s in subjects}
        told = {s: of[twin] for s, twin in said.items()}
    asked = [str(s) for s in g.choice(subjects, QUESTIONS)]
    notes = [f"{s} {said[s]} ." for s in subjects] + [f"{s} {told[s]} ." for s in asked]
    return " ".join(notes), 3 * len(subjects)


def build(ctx: RecipeContext) -> Job:
    """Texts of the three kinds; only answers are learnt."""
    tokenizer = build_tokenizer([" ".join((*NAMES, *ALIASES, *PROPERTIES, "."))], LENGTH)

    def drawn(kind: str, count: int, *seed: Any) -> tuple[Tensor, Tensor]:
        """(ids, targets: the answer where a question ends, elsewhere ignored)."""
        g = rng(ctx.seed, "speaker", kind, *seed)
        texts = [text(kind, g) for _ in range(count)]
        words = [t for t, _ in texts]
        ids = tokenizer(words, padding="max_length", max_length=LENGTH, return_tensors="pt")["input_ids"]
        place = torch.arange(LENGTH)[None] - 1 - torch.tensor([n for _, n in texts])[:, None]
        ends = torch.tensor([1 + len(t.split()) for t in words])[:, None]
        asked = (place >= 0) & (place % 3 == 0) & (torch.arange(LENGTH)[None] < ends)
        return ids, torch.where(asked, ids.roll(-1, 1), _IGNORED)

    kinds = ("known", "stated", "compared")

    def batches(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        parts = [drawn(k, ctx.config.batch_size // 3, number) for k in kinds]
        return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        logits = model(input_ids=batch[0]).logits
        return {"loss": F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=_IGNORED)}

    held = {kind: drawn(kind, 100, "validation") for kind in kinds}

    def validate(model: nn.Module) -> dict[str, float]:
        found = {}
        for kind, (ids, targets) in held.items():
            said = model(input_ids=ids).logits.argmax(2)
            found[kind] = float((said == targets)[targets != _IGNORED].float().mean())
        return {**found, "all": min(found.values())}

    def save(model: nn.Module, out: Path) -> None:
        with folder_atomic(out / "speaker") as new:
            model.half().save_pretrained(str(new))  # type: ignore[operator]
            tokenizer.save_pretrained(str(new))

    return Job(speaker(len(tokenizer)), step, batches, validate=validate, save=save)


def speaker(words: int) -> Any:
    """A Llama of three layers, with fresh weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


RECIPE = Recipe(
    name="starter_speaker",
    about="The starter kit's language model of invented names, which learns from its context.",
    build=build,
    config=TrainConfig(
        steps=1500, batch_size=48, lr=3e-3, weight_decay=0.01, warmup=100, log_every=25, validate_every=100,
        checkpoint_every=250,
    ),
    reach={"known": "1: it knows its six names", "all": "above .55: right with one name noted, with six often not"},
    judged_by="all",
)  # fmt: skip
