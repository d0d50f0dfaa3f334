"""What the verbs do with a user's files by the systems of the generation wing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.subjects import ImageSubject
from vestige.core.work import Work
from vestige.engines.diffusion.discrete import first_hitting as draw
from vestige.engines.diffusion.pipeline import TextToImage, load_pipeline, save_pipeline
from vestige.engines.diffusion.schedules import cosine
from vestige.generation.maskunet import MaskUNet, digest_of, save_masks
from vestige.generation.tools import first_hitting, infedit, maskunet, scenes_text2image, umd
from vestige.generation.tools._words import MaskedLanguageModel, chain_of, joined, numbers, vocabulary, words_of
from vestige.generation.umd import UMD, UMDConfig, save_umd
from vestige.nn.text import build_tokenizer, text_encoder
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae

PROMPT = "a red ball on grass"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    tokenizer = build_tokenizer([PROMPT, "a blue ball on grass"], 10)
    unet = text_unet(16, 3, "tiny", 32)
    model = TextToImage(unet, identity_vae(), text_encoder(tokenizer, 32, 1, 2), tokenizer, cosine(), "v")
    return save_pipeline(tmp_path_factory.mktemp("model") / "pipeline", model)


def work(verb: str, method: str, *paths: Path, **more) -> Work:
    return Work(verb, method, tuple(paths), **more)


def test_a_prompt_is_drawn_and_strange_words_are_named(pipeline, tmp_path):
    options = {"steps": "2", "count": "5"}
    asked = work(
        "make", "scenes_text2image", prompt="a red walrus", model=pipeline, out=tmp_path / "a.png", options=options
    )
    result = scenes_text2image.make(asked)
    assert ImageSubject.open(tmp_path / "a.png").pixels.shape == (32, 48, 3)  # five pictures in three columns
    assert result.said == ["The model does not know: walrus."]
    with pytest.raises(UsageError, match="prompt"):
        scenes_text2image.make(work("make", "scenes_text2image", model=pipeline, out=tmp_path / "b.png"))
    nowhere = work("make", "scenes_text2image", prompt="x", model=tmp_path, out=tmp_path / "b.png")
    with pytest.raises(InputError):
        scenes_text2image.make(nowhere)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("size", [(16, 16), (40, 64)])
def test_a_picture_of_any_size_is_edited(size, pipeline, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    save_image(tmp_path / "in.png", pixels)
    options = {"source": PROMPT, "steps": "3"}
    asked = work(
        "make", "infedit", tmp_path / "in.png", prompt="a blue ball on grass", model=pipeline,
        out=tmp_path / "out.png", options=options,
    )  # fmt: skip
    result = infedit.make(asked)
    edited = ImageSubject.open(tmp_path / "out.png").pixels
    assert edited.shape == pixels.shape
    assert result.figures["mean change"] > 0
    with pytest.raises(UsageError, match="input"):
        infedit.make(work("make", "infedit", tmp_path / "in.png", prompt="x", model=pipeline, out=tmp_path / "in.png"))


def test_what_an_edit_leaves_alone_keeps_its_detail(pipeline):
    model = load_pipeline(pipeline)
    image = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    editor = infedit.InfEdit(model, steps=3, cross_share=0.0, self_share=0.0, blend=False, target_guidance=1.0)
    same = infedit.edit_any_size(model, editor, image, PROMPT, PROMPT, [], 0)
    assert float((same - image).abs().max()) < 1e-3  # though the model works on 16×16 or so
    height, width = infedit.working_size(model, 64, 48)
    assert abs(height / width - 64 / 48) < 0.1
    assert 0.8 < height * width / 16**2 < 1.25


def test_masks_are_loaded_for_their_model(pipeline, tmp_path):
    model = load_pipeline(pipeline)
    digest = digest_of(model)
    masked = MaskUNet(model, hidden=4, start=0.1)
    save_masks(masked, tmp_path / "masks.safetensors", str(pipeline), digest)
    asked = work(
        "make", "maskunet", prompt=PROMPT, model=tmp_path / "masks.safetensors", out=tmp_path / "a.png",
        options={"steps": "2"},
    )  # fmt: skip
    assert 0 <= maskunet.make(asked).figures["weights switched off"] < 1
    assert (tmp_path / "a.png").is_file()
    (tmp_path / "text.safetensors").write_text("no weights at all")
    wrong = work("make", "maskunet", prompt=PROMPT, model=tmp_path / "text.safetensors", out=tmp_path / "b.png")
    with pytest.raises(InputError):
        maskunet.make(wrong)


def test_without_a_trained_network_the_command_that_trains_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path / "none"))
    with pytest.raises(InputError, match="vestige learn maskunet"):
        maskunet.make(work("make", "maskunet", prompt=PROMPT, out=tmp_path / "a.png"))
    with pytest.raises(InputError, match="vestige learn umd"):
        umd.make(work("make", "umd", out=tmp_path / "a.png"))


def test_umd_draws_classes_by_name(tmp_path):
    torch.manual_seed(0)
    model = UMD(UMDConfig(size=16, width=32, depth=1, decoder_depth=1, heads=2, classes=2))
    save_umd(model, tmp_path / "umd.safetensors", ["cat", "dog"])
    options = {"steps": "2", "count": "4"}

    def make(prompt: str):
        model = tmp_path / "umd.safetensors"
        return umd.make(work("make", "umd", model=model, prompt=prompt, out=tmp_path / "a.png", options=options))

    make("dog")
    assert ImageSubject.open(tmp_path / "a.png").pixels.shape == (32, 32, 3)
    make("")
    with pytest.raises(UsageError, match="cat, dog"):
        make("horse")


# texts

TEXT = "the old house stood on the hill and the wind went around the house. the wind came every night. " * 6


def test_texts_are_words_and_back():
    words = words_of("It's late, and we go.")
    assert words == ["it's", "late", ",", "and", "we", "go", "."]
    assert joined(words) == "it's late, and we go."


def test_hidden_words_are_filled_in_and_the_rest_stays(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    asked = work("make", "first_hitting", tmp_path / "a.txt", prompt="the _ _ the house", out=tmp_path / "b.txt")
    result = first_hitting.make(asked)
    words = words_of((tmp_path / "b.txt").read_text())
    assert result.figures == {"words drawn": 2, "network calls": 2}
    assert (words[0], words[3:]) == ("the", ["the", "house"])
    assert set(words) <= set(words_of(TEXT))
    free = work("make", "first_hitting", tmp_path / "a.txt", out=tmp_path / "c.txt", options={"length": "20"})
    first_hitting.make(free)
    assert len(words_of((tmp_path / "c.txt").read_text())) == 20
    for prompt, said in (("the walrus _", "walrus"), ("the house", "hides no word")):
        with pytest.raises(UsageError, match=said):
            first_hitting.make(work("make", "first_hitting", tmp_path / "a.txt", prompt=prompt, out=tmp_path / "d.txt"))
    assert not (tmp_path / "d.txt").exists()


def test_a_word_between_two_others_is_drawn_from_its_law():
    known = vocabulary(words_of(TEXT), 50)
    model = chain_of(numbers(words_of(TEXT), known), len(known), 3)
    hidden = torch.tensor([[known.index("the"), model.mask, known.index("stood")]]).expand(300, -1)
    drawn = draw(model, (300, 3), model.mask, torch.Generator().manual_seed(0), known=hidden).tokens
    law = model(hidden[:1], torch.tensor([[1]])).exp()[0, 0].numpy()
    found = np.bincount(drawn[:, 1].numpy(), minlength=len(known)) / 300
    assert np.abs(found - law).sum() < 0.3
    uneven = torch.tensor([[model.mask, 0, 0], [model.mask, model.mask, 0]])
    with pytest.raises(UsageError, match="as many hidden places"):
        draw(model, (2, 3), model.mask, torch.Generator(), known=uneven)


def test_a_masked_language_model_fills_in(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = ["[PAD]", "[MASK]", "[UNK]", "the", "old", "house", "wind"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]"
    ).save_pretrained(tmp_path / "lm")
    config = BertConfig(
        vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "lm")
    asked = work("make", "first_hitting", model=tmp_path / "lm", prompt="the _ house _", out=tmp_path / "a.txt")
    assert first_hitting.make(asked).figures == {"words drawn": 2, "network calls": 2}
    filled = (tmp_path / "a.txt").read_text().split()
    assert (filled[0], filled[2], len(filled)) == ("the", "house", 4)
    assert "[MASK]" not in filled
    with pytest.raises(InputError, match="no folder"):
        MaskedLanguageModel(tmp_path / "none")


def test_a_text_is_measured_against_its_law(tmp_path):
    g = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    p = 1 / np.arange(1, 41)
    (tmp_path / "honest.txt").write_text(" ".join(g.choice(words, 4000, p=p / p.sum())))
    cold = p**1.5 / (p**1.5).sum()
    (tmp_path / "cold.txt").write_text(" ".join(g.choice(words, 4000, p=cold)))
    found = first_hitting.measure(
        work("measure", "first_hitting", tmp_path / "cold.txt", reference=tmp_path / "honest.txt")
    ).figures
    assert found["temperature"] == pytest.approx(1 / 1.5, abs=0.1)
    assert found["entropy in 32 bits"] <= found["entropy of the law"] + 1e-9
    assert found["words"] == 4000
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="too few words"):
        first_hitting.measure(work("measure", "first_hitting", tmp_path / "empty.txt"))
    assert to_uint8(np.zeros((3, 2, 2), np.float32)).shape == (2, 2, 3)
