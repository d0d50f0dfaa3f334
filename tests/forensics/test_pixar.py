"""The small PIXAR network: its prompts, losses and sentences, and that it learns to mark what changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.data.scene_edits import PRIMITIVES, edit_scenes
from vestige.forensics import learned
from vestige.forensics.learned import save_network
from vestige.forensics.pixar import (
    REDRAWN,
    UNCHANGED,
    WORDS,
    Answer,
    Pixar,
    PixarModel,
    answers,
    pixar_loss,
    sentence_ids,
)
from vestige.metrics.pixel_labels import CLASSES
from vestige.nn.text import unknown_words


def small(**options) -> PixarModel:
    torch.manual_seed(0)
    return PixarModel(**{"size": 32, "width": 32, "heads": 2, "depth": 2, "prompt": 8, **options})


@pytest.mark.parametrize(("bias", "other"), [(1e4, "seg_only"), (-1e4, "text_only")])
def test_a_saturated_gate_is_one_of_the_prompts(bias: float, other: str) -> None:
    fused, single = small().eval(), small(fusion=other).eval()
    single.load_state_dict(fused.state_dict())
    with torch.no_grad():
        fused.gate.weight.zero_()
        fused.gate.bias.fill_(bias)
        x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        ids = sentence_ids(fused, [UNCHANGED, REDRAWN])
        torch.testing.assert_close(fused(x, ids).masks, single(x, ids).masks)
        fused.gate.bias.zero_()
        assert not torch.allclose(fused(x, ids).masks, single(x, ids).masks)


def test_every_sentence_of_the_edits_can_be_written() -> None:
    model = small()
    captions = edit_scenes(3 * len(PRIMITIVES), 32).captions
    for caption in (*captions, UNCHANGED, REDRAWN):
        assert not unknown_words(model.tokenizer, caption)
        assert model.sentences(sentence_ids(model, [caption])) == [caption.replace(",", " ,")]
    assert len(WORDS) < 120


def test_no_word_sees_those_after_it() -> None:
    model = small().eval()
    x = torch.rand(1, 3, 32, 32)
    one, other = sentence_ids(model, ["the red ball was removed", "the red ball was added"])
    with torch.no_grad():
        words = [model(x, ids[None]).words[0] for ids in (one, other)]
    torch.testing.assert_close(words[0][:5], words[1][:5])
    assert not torch.allclose(words[0][5], words[1][5])


def test_masks_and_objects_are_learnt_from_tampered_pictures_alone() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 4, generator=g).requires_grad_()
    objects = torch.randn(2, 5, generator=g).requires_grad_()
    answer = Answer(torch.zeros(2, 3), objects, logits, torch.zeros(2, 3, 7), torch.zeros(2, 4, dtype=torch.long))
    target = {
        "classes": torch.tensor([CLASSES.index("tampered"), CLASSES.index("real")]), "masks": torch.ones(2, 1, 4, 4),
        "objects": torch.eye(2, 5), "ids": torch.ones(2, 4, dtype=torch.long),
    }  # fmt: skip
    found = pixar_loss(answer, target)
    found["loss"].backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0
    assert objects.grad[1].abs().sum() == 0
    weighed = found["class"] + 0.5 * found["semantic"] + found["bce"] + found["dice"] + 3 * found["text"]
    torch.testing.assert_close(found["loss"].detach(), weighed)
    none = pixar_loss(answer, {**target, "classes": torch.zeros(2, dtype=torch.long)}, text=0)
    assert set(none) == {"loss", "class"}


def test_it_learns_to_mark_and_name_what_changed() -> None:
    """Edits that leave noise, light in one place and dark in another, with one of two names."""
    g = np.random.default_rng(0)
    count, side = 64, 32
    images = np.repeat(np.repeat(g.random((count, 3, 8, 8), np.float32), 4, 2), 4, 3) * 0.4 + 0.3
    masks = np.zeros((count, 1, side, side), bool)
    left = np.arange(count) % 2 == 0
    for i in range(count):
        column = 2 if left[i] else 18
        masks[i, :, 8:24, column : column + 12] = True
    tint = np.where(left, 0.2, -0.2)[:, None, None, None]
    images = (images + masks * (tint + g.normal(0, 0.15, images.shape))).clip(0, 1).astype(np.float32)
    model = small(objects=2)
    texts = ["the red ball was removed" if flag else "the blue cup was added" for flag in left]
    objects = np.stack([left, ~left], 1)
    classes = np.full(count, 2)
    target = {"classes": torch.from_numpy(classes), "objects": torch.from_numpy(objects).float(),
              "masks": torch.from_numpy(masks), "ids": sentence_ids(model, texts)}  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x = torch.from_numpy(images)
    for step in range(40):
        rows = torch.arange(step % 3, 48, 3)
        loss = pixar_loss(model(x[rows], target["ids"][rows]), {k: v[rows] for k, v in target.items()})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held = slice(48, None)
    truth = {"classes": classes[held], "masks": masks[held], "objects": objects[held], "texts": texts[held]}
    report = Pixar(network=model).measure(answers(model, images[held]), truth)
    assert report["c_iou"] > 0.6
    assert report["top1"] > 0.9
    assert report["text_cosine"] > 0.8


def test_examining_keeps_to_its_domain(tmp_path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    monkeypatch.setattr(learned, "WEIGHTS", tmp_path)
    assert "vestige learn pixar" in Pixar().find(ImageSubject(encode(photo, "PNG"))).why_not
    save_network(tmp_path / "pixar.safetensors", small(), "pixar", {})
    found = Pixar().find(ImageSubject(encode(photo[:32, :32], "PNG")))
    assert found.applies
    assert np.isfinite(found.score)
    assert found.map.shape == (32, 32)
    assert 0 <= found.map.min() <= found.map.max() <= 1
    assert not Pixar().find(ImageSubject(encode(photo, "PNG"))).applies
    assert "flat" in Pixar().find(ImageSubject(encode(np.full((32, 32, 3), 9, np.uint8), "PNG"))).why_not
    with pytest.raises(UsageError, match="joined by"):
        small(fusion="sum")
    (tmp_path / "pixar.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="no weights of an examiner"):
        _ = Pixar().network
