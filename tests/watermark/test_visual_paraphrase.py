"""Saying a picture in words and redrawing it: captions matter, strength matters, wrong input is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.data.scenes import render_pack
from vestige.watermark.visual_paraphrase import ATTRIBUTES, SceneCaptioner, VisualParaphrase, load_captioner


@pytest.fixture(scope="module")
def scenes():
    return render_pack(12, 32, seed=4, n_objects=1)


def test_the_captioner_learns_to_say_what_is_there(scenes):
    images = scenes.images.astype(np.float32) / 255
    labels = SceneCaptioner.labels(scenes.fields["scene"])
    captioner = SceneCaptioner(seed=1)
    optimiser = torch.optim.Adam(captioner.parameters(), 3e-3)
    before = float(captioner.loss((torch.from_numpy(images), labels)).detach())
    captioner.train()
    for _ in range(30):
        optimiser.zero_grad()
        loss = captioner.loss((torch.from_numpy(images), labels))
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3 * before
    captioner.train()
    with torch.no_grad():  # batch statistics: twelve pictures are too few for running ones
        logits = captioner(torch.from_numpy(images))
    right = [(logits[name].argmax(1) == labels[:, i]).float().mean() for i, name in enumerate(ATTRIBUTES)]
    assert min(right) > 0.8
    sentences = captioner.caption(images[:2])
    assert captioner.training is False
    assert all(s.split()[0] in ("a", "an") for s in sentences)


def test_labels_and_captions_are_inverse(scenes):
    captioner = SceneCaptioner()
    captioner.attributes = lambda images: SceneCaptioner.labels(scenes.fields["scene"]).numpy()
    assert captioner.caption(scenes.images) == scenes.fields["caption"]


def test_paraphrases(tiny_model, scenes):
    images = scenes.images[:2].astype(np.float32)[:, :, ::2, ::2] / 255
    attack = VisualParaphrase(tiny_model, lambda x: ["a red ball on sand"] * len(x), strength=0.5, steps=8)
    made = attack.paraphrase(images, variants=2)
    assert made.shape == (2, *images.shape)
    assert not np.array_equal(made[0], made[1])
    np.testing.assert_array_equal(attack.attack(images), made[0])
    other = attack.paraphrase(images, ["a blue cup in neon style"] * 2)[0]
    assert not np.array_equal(other, made[0])
    assert np.abs(attack.paraphrase(images, strength=0.13)[0] - images).mean() < np.abs(made[0] - images).mean()
    with pytest.raises(UsageError, match="captions, or a captioner"):
        VisualParaphrase(tiny_model).attack(images)
    with pytest.raises(UsageError, match="variants"):
        attack.paraphrase(images, variants=0)
    with pytest.raises(UsageError, match="strength"):
        VisualParaphrase(tiny_model, strength=0)


def test_the_audit_takes_its_threshold_from_paraphrased_unmarked_pictures(tiny_model, scenes):
    clean = scenes.images[:4].astype(np.float32)[:, :, ::2, ::2] / 255
    attack = VisualParaphrase(tiny_model, lambda x: ["a red ball on sand"] * len(x), steps=8)
    rows = attack.audit(
        clean, clean, lambda x: x.mean((1, 2, 3)), strengths=[0.1, 0.5], guidances=[1.0],
        drift=lambda a, b: float(np.abs(a - b).mean()),
    )  # fmt: skip
    assert [r["strength"] for r in rows] == [0.1, 0.5]
    assert all(r["auroc"] == pytest.approx(0.5) for r in rows)  # nothing distinguishes the same pictures
    assert rows[0]["drift"] < rows[1]["drift"]
    assert rows[0]["psnr"] > rows[1]["psnr"]


def test_a_folder_without_a_captioner_is_refused(tmp_path):
    with pytest.raises(InputError, match="image-to-text"):
        load_captioner(tmp_path)
