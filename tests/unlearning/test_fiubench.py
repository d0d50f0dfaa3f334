"""FIUBench from end to end on a handful of persons, and on a transformers model with random weights."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.data.fictitious import REFUSALS, every_text, profiles
from vestige.engines.forgetting.loop import Tuning
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.engines.forgetting.train import train
from vestige.nn.vlm import SmallVLM, Words, answers
from vestige.unlearning.fiubench import FiuBench, Quiz, ask

WORDS = Words(every_text())
ABOUT = ("city", "job")
PEOPLE = profiles(8, 0)


def quiz(persons: list[int]) -> Quiz:
    return Quiz(WORDS, persons, [PEOPLE[p] for p in persons], attributes=ABOUT)


@cache
def study() -> tuple[ForgetProblem, Samples]:
    """Six persons told by random visual tokens, two of them to be forgotten; and the refusals."""
    torch.manual_seed(0)
    fresh = SmallVLM(torch.randn(8, 4, 16), len(WORDS), width=48, depth=1, heads=2)
    forget, retain = (Samples(*quiz(p).rows()) for p in ([0, 1], [2, 3, 4, 5]))
    every = joined([forget, retain])
    tuning = Tuning(60, 1e-2, optimizer="adam", weight_decay=0.0, batch_size=6, schedule="onecycle", clip=1.0)
    model = train(fresh, every, tuning)
    refused = Samples(*quiz([0, 1]).rows(0, [REFUSALS[0]] * 4))
    return ForgetProblem(model, every, range(4), range(4, 12), kind="identity"), refused


@pytest.mark.parametrize("objective", ["ga", "gd", "kl", "po"])
def test_every_objective_forgets_and_those_with_retained_facts_keep_them(objective):
    problem, refused = study()
    before = ask(problem.model, quiz([0, 1]))
    assert before.exact == 1
    rate, epochs = (6e-3, 50) if objective == "po" else (3e-3, 20)
    eraser = FiuBench(objective, rate, epochs, batch_size=4, refusals=refused if objective == "po" else None)
    model = eraser.erase(problem)
    row = eraser.measure(model, quiz([0, 1]), quiz([2, 3, 4, 5]), quiz([6, 7]), before.ratio)
    assert row["EM"] <= 0.25
    assert 0 <= row["APE"] <= 1
    assert row["log10 p"] <= 0
    assert all(np.isfinite(v) for v in row.values())
    if objective != "ga":
        assert row["retain EM"] >= 0.75
    if objective == "po":
        said = " ".join(answers(model, quiz([0, 1]).rows()[0], WORDS)).split()
        assert set(said) <= set(REFUSALS[0].split())


def test_refusals_are_needed_for_po_and_the_objective_must_be_known():
    problem, _ = study()
    with pytest.raises(UsageError, match="refusals"):
        FiuBench("po").erase(problem)
    with pytest.raises(UsageError, match="objective"):
        FiuBench("forget")
    with pytest.raises(InputError, match="do not fit"):
        Quiz(WORDS, [1, 2], [PEOPLE[0]])


def test_a_swapped_picture_asks_about_somebody_else():
    problem, _ = study()
    asked = quiz([0, 1, 2])
    said = answers(problem.model, asked.swapped(), WORDS)
    assert said[:2] == [PEOPLE[1][a] for a in ABOUT]
    assert len(asked.wrong()) == 3


# ---------------------------------------------------------------- transformers


@cache
def llava():
    """A LLaVA model and its processor, tiny and untrained, made without a download."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor
    from transformers import LlavaForConditionalGeneration as Llava

    from vestige.nn.text import build_tokenizer

    said = "who is this ? ada frost bram moss i do not know that is private cannot help with"
    tokenizer = build_tokenizer([said], 64)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    number = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    model = Llava(LlavaConfig(vision_config=vision, text_config=text, image_token_index=number)).eval()
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return model, processor


def rows_file(folder, rows):
    for number in range(3):
        shade = np.full((16, 16, 3), 60 * number + 40, np.uint8)
        (folder / f"{number}.png").write_bytes(encode(shade, "PNG"))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


@pytest.mark.parametrize("objective", ["ga", "gd", "kl", "po"])
def test_any_transformers_model_of_pictures_and_text_can_be_made_to_forget(tmp_path, objective):
    from vestige.nn.vlm import IGNORED
    from vestige.unlearning.vlm import REFUSALS, AnsweredPicture, Answering, forget_answers, read_rows

    model, processor = llava()
    for name, rows in (
        ("gone", [{"image": "0.png", "question": "who is this ?", "answer": "ada frost"}]),
        ("kept", [{"image": f"{i}.png", "question": "who is this ?", "answer": "bram"} for i in (1, 2)]),
    ):
        (tmp_path / name).mkdir()
        rows_file(tmp_path / name, rows)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made = forget_answers(
        model, processor, tmp_path / "gone", tmp_path / "kept" / "rows.jsonl", objective=objective, lr=1e-2
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    changed = [k for k, v in made.state_dict().items() if not torch.equal(v, before[k])]
    assert changed
    assert not any("vision_tower" in k for k in changed)
    rows = read_rows(tmp_path / "gone")
    if objective == "po":  # an untrained model has nothing to lose; what it gains is the refusal
        rows = [AnsweredPicture(rows[0].image, rows[0].question, REFUSALS[0])]
    asked = Answering(model, processor, rows)
    y = asked.encoded.targets()
    tokens = y[y != IGNORED]
    wanted = "i do not know" if objective == "po" else "ada frost"
    assert processor.tokenizer.decode(tokens).startswith(wanted)

    def loss(net) -> float:
        with torch.no_grad():
            said = Answering(net, processor, rows)(torch.tensor([0]))
        assert said.shape[:2] == y.shape
        return float(torch.nn.functional.cross_entropy(said[y != IGNORED], tokens))

    assert (loss(made) < loss(model)) == (objective == "po")


def test_bad_rows_are_refused_in_one_sentence(tmp_path):
    from vestige.unlearning.vlm import read_rows

    for rows, what in (
        ([{"image": "0.png", "question": "who ?"}], "Line 1"),
        ([{"image": "9.png", "question": "who ?", "answer": "ada"}], "9.png"),
        ([], "no row"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            read_rows(rows_file(tmp_path, rows))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no file"):
        read_rows(tmp_path / "nothing.jsonl")
