"""Perceptual hashes: unchanged by brightness and size, changed by mirroring; agreement counts bits."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from vestige.copies.hashes import HASHES, agreement

CHINA, FLOWER = (load_sample_image(n) for n in ("china.jpg", "flower.jpg"))


@pytest.mark.parametrize("name", HASHES)
def test_a_hash_keeps_through_size_and_tells_pictures_apart(name):
    made = HASHES[name]
    first, half = made(CHINA), made(cv2.resize(CHINA, (320, 214), interpolation=cv2.INTER_AREA))
    assert first.dtype == bool
    assert len(first) == (256 if name == "PDQ" else 64)
    assert (first == half).mean() > 0.93
    assert (first == made(FLOWER)).mean() < 0.75
    assert (first == made(np.ascontiguousarray(CHINA[:, ::-1]))).mean() < 0.9


def test_half_of_the_bits_of_pdq_are_set():
    assert HASHES["PDQ"](CHINA).sum() == pytest.approx(128, abs=1)


def test_agreement_is_one_less_the_share_of_differing_bits():
    random = np.random.default_rng(0)
    a, b = random.random((5, 64)) < 0.5, random.random((7, 64)) < 0.5
    expected = 1 - (a[:, None] != b[None]).mean(2)
    assert np.allclose(agreement(a, b), expected)
