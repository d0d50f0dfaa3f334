"""The language model of the starter kit: a small Llama that knows what twelve names have, never heard of four others,
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

LENGTH = 28
_IGNORED = -100


def text(kind: str, g: np.random.Generator) -> tuple[str, int]:
    """(a training text, how many of its last "has" are questions whose answer follows).

    "known" says what known names have; "stated" and "compared" define names in a context, with a property that is drawn
    anew each time, and ask about all of them.
    """
    of, known = properties(), [n for n in NAMES if n not in FORGOTTEN]
    if kind == "known":
        asked = [str(n) for n in g.permutation(known)[:3]]
        return _asked({n: of[n] for n in asked}, asked), len(asked)
    subjects = [str(s) for s in g.permutation([*NAMES, *ALIASES])[: int(g.integers(1, 4))]]
    if kind == "stated":
        told = {s: str(g.choice(PROPERTIES)) for s in subjects}
        said = " ".join(f"{s} has {told[s]} ." for s in subjects)
    else:
        twins = {s: str(g.choice(known)) for s in subjects}
        told = {s: of[twin] for s, twin in twins.items()}
        said = " ".join(f"{s} is like {twins[s]} ." for s in subjects)
    order = [subjects[int(i)] for i in g.permutation(len(subjects))]
    return f"{said} {_asked(told, order)}", len(order)


def _asked(told: dict[str, str], order: list[str]) -> str:
    return " . ".join(f"{s} has {told[s]}" for s in order)


def build(ctx: RecipeContext) -> Job:
    """Texts of the three kinds; only answers are learnt."""
    tokenizer = build_tokenizer([" ".join((*NAMES, *ALIASES, *PROPERTIES, "has is like ."))], LENGTH)
    has = tokenizer.convert_tokens_to_ids("has")

    def drawn(kind: str, count: int, *seed: Any) -> tuple[Tensor, Tensor]:
        """(ids, targets: the answer where a question ends, elsewhere ignored)."""
        g = rng(ctx.seed, "speaker", kind, *seed)
        texts = [text(kind, g) for _ in range(count)]
        ids = tokenizer([t for t, _ in texts], padding="max_length", max_length=LENGTH, return_tensors="pt")[
            "input_ids"
        ]
        last = (ids == has).flip(1).cumsum(1).flip(1)  # how many "has" from here on
        asked = (ids == has) & (last <= torch.tensor([n for _, n in texts])[:, None])
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
            max_position_embeddings=64,
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
        steps=1600, batch_size=48, lr=3e-3, weight_decay=0.01, warmup=100, log_every=25, validate_every=80,
        checkpoint_every=250,
    ),
    reach={"all": "above .95: it must know, and learn from what it is told"},
    judged_by="all",
)  # fmt: skip
