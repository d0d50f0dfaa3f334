"""RIGID: closed forms with simple encoders, noise that follows the picture, thresholds and signs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.subjects import ImageSubject
from vestige.forensics.rigid import RIGID
from vestige.nn.features import FeatureNet


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((12, 3, 16, 16), np.float32)


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return FeatureNet(seed=3).eval()


def test_without_noise_nothing_moves(images, net):
    for encoder in (flat, net):
        assert RIGID(encoder, lambda_=0.0).score(images).tolist() == [0.0] * 12


def test_scores_do_not_depend_on_the_batch(images, net):
    rigid = RIGID(net, draws=2)
    scores = rigid.score(images)
    assert (scores > 0).all()
    np.testing.assert_allclose(rigid.score(images[::-1])[::-1], scores, rtol=1e-3)
    np.testing.assert_allclose(rigid.score(images, batch_size=5), scores, rtol=1e-3)
    np.testing.assert_array_equal(rigid.score(images), scores)
    assert (RIGID(net, draws=2, seed=1).score(images) != scores).all()
    eight_bit = (images * 255).round().astype(np.uint8)
    np.testing.assert_allclose(rigid.score(eight_bit), rigid.score(eight_bit / np.float32(255)), rtol=1e-3)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_a_linear_encoder_has_the_closed_form(images, level):
    flat_images = torch.from_numpy(images).flatten(1)
    unit = (flat_images / flat_images.norm(dim=1, keepdim=True)).view(12, 3, 16, 16)
    scores = RIGID(flat, lambda_=level / np.sqrt(768), space="pixel", draws=20).score(unit)
    # cos(x, x + λδ) with |x| = 1: about 1 / sqrt(1 + λ² d) in d dimensions
    assert abs(scores.mean() - (1 - 1 / np.sqrt(1 + level**2))) < 0.01


def test_both_ways_to_state_the_noise(images):
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("std", torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1))

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    rigid = RIGID(Encoder(), lambda_=0.05)
    assert rigid.scale().flatten().tolist() == pytest.approx([0.005, 0.01, 0.02])
    assert rigid.scale("normalised").flatten().tolist() == pytest.approx([0.05] * 3)
    assert RIGID(flat, lambda_=0.05, space="pixel").scale().flatten().tolist() == pytest.approx([0.05] * 3)
    assert RIGID(flat, lambda_=0.05).scale().flatten().tolist() == pytest.approx([0.01125] * 3)
    assert RIGID(FeatureNet(), lambda_=0.05).scale().flatten().tolist() == pytest.approx([0.0125] * 3)


def test_modes_and_quantisation(images):
    noise, blur = (RIGID(flat, mode=mode).score(images) for mode in ("noise", "blur"))
    assert (blur > noise).all()  # these pictures are noise themselves
    np.testing.assert_allclose(RIGID(flat, mode="both").score(images), np.minimum(noise, blur))
    smooth = np.full((2, 3, 16, 16), 0.4, np.float32)
    assert np.abs(RIGID(flat, mode="blur").score(smooth)).max() < 1e-9
    faint = 0.0005  # far below half a grey level, so that rounding takes nearly all of it
    kept, rounded = (RIGID(flat, faint, "pixel", quantise=q).score(np.round(images * 255) / 255) for q in (False, True))
    assert (rounded < 0.5 * kept).all()
    assert RIGID(flat, size=8).score(images).shape == (12,)


def test_the_calibrated_rate_holds_on_fresh_photographs(net):
    fresh = np.random.default_rng(1).random((500, 3, 8, 8), np.float32)
    rigid = RIGID(net, draws=1)
    threshold = rigid.calibrate(fresh[:250], fpr=0.1)
    assert threshold == rigid.threshold
    share = float((rigid.score(fresh[250:]) >= threshold).mean())
    assert abs(share - 0.1) < 3 * np.sqrt(2 * 0.1 * 0.9 / 250)


def test_sweeps_show_the_sign_and_leave_the_settings(images):
    bright, dark = images * 0.2 + 0.8, images * 0.1
    rigid = RIGID(flat, lambda_=0.3, draws=1, sign=-1)
    rows = rigid.sweep([0.05, 0.5], images, {"bright": bright, "dark": dark})
    assert [(r["generator"], r["lambda (normalised)"], r["sign"]) for r in rows] == [
        ("bright", 0.05, -1), ("dark", 0.05, 1), ("bright", 0.5, -1), ("dark", 0.5, 1),
    ]  # fmt: skip
    assert all((row["auroc"] >= 0.5) == (row["sign"] == 1) for row in rows)
    assert (rigid.lambda_, rigid.sign) == (0.3, -1)
    np.testing.assert_array_equal(rigid.score(images), -RIGID(flat, lambda_=0.3, draws=1).score(images))


def test_any_backbone_serves(images):
    assert RIGID("vit_nano_4_32", draws=1, size=32).score(images[:2]).shape == (2,)


def test_refusals(images):
    with pytest.raises(UsageError, match="space is one of"):
        RIGID(space="latent")
    with pytest.raises(UsageError, match="lambda_"):
        RIGID(lambda_=-1)
    with pytest.raises(UsageError, match="N×3×H×W"):
        RIGID(flat).score(images[:, :1])
    with pytest.raises(InputError, match="not finite"):
        RIGID(flat).score(np.full((1, 3, 8, 8), np.nan, np.float32))
    with pytest.raises(InputError, match="features that are not finite"):
        RIGID(lambda x: x.flatten(1) / 0).score(images)
    with pytest.raises(UsageError, match="callable"):
        RIGID(3.0).score(images)


def test_examiner_answers_about_files(photo):
    examiner = RIGID(draws=1, count=2)
    found = examiner.find(ImageSubject(encode(photo[:128, :128], "PNG")))
    assert found.applies
    assert found.kind == "generated"
    assert np.isfinite(found.score)
    json.dumps(found.to_dict(), allow_nan=False)
    for pixels in (np.zeros((1, 1, 3), np.uint8), np.full((80, 80, 3), 9, np.uint8)):
        assert not examiner.find(ImageSubject(encode(pixels, "PNG"))).applies
