"""InfEdit: identity, attention control, and that an edit moves what its words say."""

from __future__ import annotations

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.schedules import cosine
from vestige.generation.infedit import InfEdit, _Control, align
from vestige.nn.attention_tap import tapped
from vestige.nn.text import build_tokenizer, text_encoder, token_ids
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae

SOURCE, TARGET = "a red ball on grass", "a blue ball on grass"


@pytest.fixture(scope="module")
def model() -> TextToImage:
    torch.manual_seed(0)
    tokenizer = build_tokenizer([SOURCE, TARGET], 10)
    unet = text_unet(16, 3, "tiny", 32)
    return TextToImage(unet, identity_vae(), text_encoder(tokenizer, 32, 1, 2), tokenizer, cosine(), "v").eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def bare(model: TextToImage, **options: object) -> InfEdit:
    return InfEdit(model, **{"steps": 6, "cross_share": 0.0, "self_share": 0.0, "blend": False, **options})


def test_the_same_prompt_returns_the_picture(model, images):
    same = bare(model, target_guidance=1.0).edit(images, SOURCE, SOURCE)
    assert float((same - images).abs().max()) < 1e-3
    controlled = InfEdit(model, steps=6, target_guidance=1.0).edit(images, SOURCE, SOURCE)
    assert float((controlled - images).abs().max()) < 1e-3


def test_another_prompt_changes_it_and_the_result_is_deterministic(model, images):
    edited = bare(model).edit(images, SOURCE, TARGET, seed=1)
    assert edited.shape == images.shape
    assert float((edited - images).abs().mean()) > 1e-3
    assert torch.equal(edited, bare(model).edit(images, SOURCE, TARGET, seed=1))


def test_pictures_are_edited_independently(model, images):
    edit = bare(model, steps=3)
    swapped = edit.edit(images[:1], SOURCE, TARGET)
    assert swapped.shape == (1, 3, 16, 16)
    with pytest.raises(UsageError, match="prompts"):
        edit.edit(images, [SOURCE], TARGET)


def test_the_network_is_called_once_a_step_and_left_as_it_was(model, images):
    calls = []
    handle = model.unet.register_forward_hook(lambda m, a, o: calls.append(1))
    before = {name: type(p) for name, p in model.unet.attn_processors.items()}
    InfEdit(model, steps=5).edit(images, SOURCE, TARGET, keep=["grass"])
    handle.remove()
    assert len(calls) == 5
    assert {name: type(p) for name, p in model.unet.attn_processors.items()} == before


def test_a_tap_that_changes_nothing_changes_nothing(model):
    class Watch:
        names: list[str] = []  # noqa: RUF012

        def qkv(self, q, k, v, cross, name):
            self.names.append(name)
            return q, k, v

        def wants_maps(self, cross, queries):
            return cross

        def maps(self, maps, cross, name):
            assert torch.allclose(maps.sum(-1), torch.ones(1), atol=1e-5)
            return maps

    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 700])
    context = model.embed([SOURCE, TARGET])
    with torch.no_grad():
        plain = model.network(x, t, context)
        with tapped(model.unet, Watch()):
            seen = model.network(x, t, context)
    assert torch.allclose(plain, seen, atol=1e-5)
    assert any("attn2" in name for name in Watch.names)


def test_taps_are_removed_after_an_error(model):
    before = model.unet.attn_processors
    with pytest.raises(RuntimeError, match="stop"), tapped(model.unet, None):  # type: ignore[arg-type]
        raise RuntimeError("stop")
    assert model.unet.attn_processors == before


def test_word_alignment():
    assert align([1, 5, 6, 2], [1, 5, 6, 2]) == [0, 1, 2, 3]
    assert align([1, 5, 6, 2], [1, 9, 5, 6, 2]) == [0, -1, 1, 2, 3]
    assert align([1, 5, 6, 2], [1, 6, 2, 2])[:3] == [0, 2, 3]


def control(model: TextToImage, source: str, target: str, keep: list[str] | None = None) -> _Control:
    ids = [token_ids(model.tokenizer, [p]) for p in (source, target)]
    return _Control(ids[0], ids[1], model.tokenizer, keep or [], (4, 4))


def test_words_that_differ_are_found(model):
    found = control(model, SOURCE, TARGET, ["grass"])
    words = model.tokenizer.convert_ids_to_tokens
    assert words(found.target[found.new_words]) == ["blue"]
    assert words(found.source[found.old_words]) == ["red"]
    assert words(found.source[found.kept_words]) == ["grass"]


def test_cross_maps_of_common_words_come_from_the_source(model):
    found = control(model, SOURCE, TARGET)
    found.begin(True, False, True)
    maps = torch.rand(4, 2, 16, 10, generator=torch.Generator().manual_seed(0))
    changed = found.maps(maps, True, "x")
    new = found.new_words[0]
    assert torch.equal(changed[1][..., ~new], maps[0][..., ~new])
    assert torch.equal(changed[1][..., new], maps[1][..., new])
    assert torch.equal(changed[[0, 2, 3]], maps[[0, 2, 3]])


def test_masks_follow_the_maps_of_the_edited_words(model):
    found = control(model, SOURCE, TARGET, ["grass"])
    found.begin(False, False, True)
    maps = torch.full((3, 1, 16, 10), 0.01)
    maps[1, :, 5, found.new_words[0]] = 0.9
    maps[2, :, 5, found.old_words[0]] = 0.9
    maps[0, :, 12, found.kept_words[0]] = 0.9
    found.maps(maps, True, "x")
    edited, kept = found.masks(0.5, 0.5)
    assert edited.flatten().nonzero().flatten().tolist() == [5]
    assert kept.flatten().nonzero().flatten().tolist() == [12]
    same = control(model, SOURCE, SOURCE)
    same.begin(False, False, True)
    same.maps(maps, True, "x")
    assert same.masks(0.5, 0.5)[0].all()


def test_blending_confines_an_edit(model, images):
    free = InfEdit(model, steps=6, blend=False).edit(images, SOURCE, TARGET)
    blended = InfEdit(model, steps=6, edit_threshold=0.9).edit(images, SOURCE, TARGET)
    assert float((blended - images).abs().mean()) <= float((free - images).abs().mean()) + 1e-4


def test_word_maps_add_up_over_steps_and_the_largest_word_counts(model):
    found = control(model, SOURCE, "a blue cup on grass")  # "cup" is unknown, but a word of its own
    new = found.new_words[0].nonzero().flatten().tolist()
    for place, word in ((3, new[0]), (9, new[-1])):  # each step one of the words acts in another place
        found.begin(False, False, True)
        maps = torch.zeros(3, 1, 16, 10)
        maps[1, :, place, word] = 1.0
        found.maps(maps, True, "x")
    assert found.masks(0.6, 0.5)[0].flatten().nonzero().flatten().tolist() == [3, 9]


def test_maps_of_pictures_that_are_not_square_count(model):
    wide = _Control(*(token_ids(model.tokenizer, [p]) for p in (SOURCE, TARGET)), model.tokenizer, [], (8, 16))
    wide.begin(False, False, True)
    maps = torch.zeros(3, 1, 32, 10)
    maps[1, :, 31, wide.new_words[0]] = 1.0
    wide.maps(maps, True, "x")
    edited = wide.masks(0.9, 0.5)[0]
    assert edited.shape == (1, 1, 8, 16)
    assert edited[0, 0, -1, -1]
    assert not edited[0, 0, :4].any()
