"""The bed of detectors of generated pictures tells a perfect detector from a blind one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.forensics.published_bed import Bed, Squares, batches, by_family, report, scored
from vestige.core.image_io import encode
from vestige.data.published import Published


def pictures(count: int) -> Published:
    """Half of them bright, which are the generated ones."""
    draw, generated = np.random.default_rng(0), np.arange(count) % 2 == 1
    files = tuple(
        encode(draw.integers(128 * g, 128 + 127 * g, (150, 150, 3), dtype=np.uint8), "PNG")
        for g in generated.astype(int)
    )
    family = np.where(generated, np.where(np.arange(count) % 4 == 1, "one", "two"), "photograph")
    source = np.array([f"source {i % 6}" for i in range(count)])
    return Published(files, generated, family, source, np.full(count, "png"), np.full(count, "train"))


@pytest.fixture(scope="module")
def made() -> Bed:
    found = pictures(40)
    draw = np.random.default_rng(1)
    images = np.stack([draw.integers(128 * g, 128 + 127 * g, (2, 3, 128, 128), dtype=np.uint8)
                       for g in found.generated.astype(int)])  # fmt: skip
    squares = Squares(images, found, found.generated.copy())
    return Bed(squares, squares, found, 0)


def brightness(images: np.ndarray) -> np.ndarray:
    return images.mean((1, 2, 3)) / 255 - 0.5


def test_a_detector_that_knows_reaches_one(made):
    found = report(made, brightness)
    assert found["levelled, mean"] == found["JPEG 70, mean"] == found["half size, mean"] == 1.0
    assert found["families"] == {"one": 1.0, "two": 1.0}
    assert found["kinds"]["photograph"][0] == 20
    assert found["flagged"] < 0.5  # the threshold is that of twenty other pictures
    assert found["flagged low"] <= found["flagged"] <= found["flagged high"]


def test_a_blind_detector_stays_at_one_half(made):
    found = report(made, lambda images: np.zeros(len(images)))
    assert found["levelled, mean"] == 0.5


def test_batches_are_cut_and_labelled(made):
    batch = batches(made.train, 16, crop=40)(0, torch.Generator().manual_seed(0))
    assert batch["images"].shape == (16, 3, 40, 40)
    bright = batch["images"].mean((1, 2, 3)) > 0.5
    assert (bright == (batch["labels"] > 0.5)).all()
    assert set(batch["generators"].tolist()) <= {-1, 0, 1}
    assert (batch["generators"][batch["labels"] < 0.5] == -1).all()


def test_small_families_are_judged_together(made):
    few = made.train.made.family.copy()
    few[1] = "rare"
    other = Squares(made.train.images, Published(made.rest.files, made.rest.generated, few, *([made.rest.source] * 3)),
                    made.train.labels)  # fmt: skip
    assert set(by_family(other, scored(other, brightness))) == {"one", "two", "other families"}
