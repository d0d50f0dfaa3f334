"""JPEG arithmetic against the codec and against definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import JpegImagePlugin
from scipy.fft import dctn, idctn

from vestige.core.errors import UsageError
from vestige.core.image_io import encode, open_image
from vestige.core.subjects import ImageSubject
from vestige.data.jpeg_dct import (
    ZIGZAG,
    block_dct,
    blocks,
    clipped_blocks,
    control_phases,
    grid_votes,
    quantised,
    sample_rows,
    standard_table,
)

NOISE = np.random.default_rng(0).integers(30, 220, (72, 104), dtype=np.uint8)


def test_zigzag_is_the_file_order():
    assert ZIGZAG[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert sorted(ZIGZAG.tolist()) == list(range(64))
    assert JpegImagePlugin.zigzag_index is not None
    assert np.argsort(ZIGZAG).tolist() == list(JpegImagePlugin.zigzag_index)


@pytest.mark.parametrize("quality", [1, 20, 49, 50, 75, 98, 100])
def test_standard_tables_are_the_codecs(quality):
    image, _ = open_image(encode(np.dstack([NOISE] * 3), "JPEG", quality=quality))
    for index, kind in enumerate(("luma", "chroma")):
        assert standard_table(quality, kind).ravel().tolist() == list(image.quantization[index])


@pytest.mark.parametrize("arguments", [(0,), (101,), (50, "alpha")])
def test_unknown_tables_are_refused(arguments):
    with pytest.raises(UsageError):
        standard_table(*arguments)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5)])
def test_block_dct_is_the_orthonormal_dct(row, column):
    plane = NOISE.astype(np.float32)
    ours = block_dct(plane, row, column)
    assert ours.dtype == np.float32
    assert ours.shape == ((72 - row) // 8, (104 - column) // 8, 64)
    one = plane[row + 8 : row + 16, column + 16 : column + 24]
    assert np.allclose(ours[1, 2].reshape(8, 8), dctn(one, norm="ortho"), atol=1e-3)


def test_quantised_recovers_what_was_encoded():
    table = standard_table(70)
    subject = ImageSubject(encode(NOISE, "JPEG", quality=70))
    recovered = quantised(subject.luma, table)
    direct = np.rint(block_dct(NOISE.astype(np.float32) - 128) / table.reshape(64))
    clean = ~clipped_blocks(subject.luma)
    assert clean.any()
    assert (recovered[clean] == direct[clean]).mean() > 0.99


def test_small_planes_have_no_blocks():
    assert blocks(NOISE[:5, :40]).shape == (0, 5, 64)
    assert clipped_blocks(NOISE[:5]).shape == (0, 13)
    assert grid_votes(NOISE[:12, :12], np.full(64, 0.5)).shape == (0, 0)


def test_clipped_blocks():
    plane = NOISE.copy()
    plane[9, 17] = 255
    assert np.argwhere(clipped_blocks(plane)).tolist() == [[1, 2]]


@given(st.integers(8, 3000), st.integers(8, 40), st.integers(0, 7))
def test_sampled_rows_stay_on_the_grid(limit, width, row):
    plane = np.repeat(np.arange(200, dtype=np.float32)[:, None], width, axis=1)
    cut = sample_rows(plane, limit, row)
    whole = cut[: len(cut) // 8 * 8, 0].reshape(-1, 8)
    assert ((whole[:, 0] - row) % 8 == 0).all()
    assert (np.diff(whole, axis=1) == 1).all()
    assert cut.size <= max(limit, 8 * width) or len(cut) == 200 - row


@given(st.integers(0, 63))
def test_controls_hold_the_mirrors_of_a_phase(phase):
    row, column = divmod(phase, 8)
    found = control_phases(phase)
    assert phase not in found
    assert found == sorted(set(found))
    if phase:
        mirrored = {8 * r + c for r in (row, -row % 8) for c in (column, -column % 8)} - {phase}
        assert mirrored <= set(found)
        assert len(found) >= 1


def test_votes_find_the_grid_and_agree_when_rows_are_skipped():
    rng = np.random.default_rng(1)
    coefficients = rng.normal(0, 40, (12, 12, 64)) * (rng.random((12, 12, 64)) < 0.15)
    plane = np.empty((96, 96), np.float32)
    for i in range(12):
        for j in range(12):
            plane[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = idctn(coefficients[i, j].reshape(8, 8), norm="ortho")
    zone = np.full(64, 0.5)
    votes = grid_votes(plane[2:, 3:], zone)
    assert votes.dtype == np.int8
    assert (votes == 8 * 6 + 5).mean() > 0.95
    skipped = grid_votes(plane[2:, 3:], zone, row_step=3)
    assert np.array_equal(skipped, votes[::3])
    assert not (grid_votes(plane[2:, 3:], zone, exclude=53) == 53).any()
    assert (grid_votes(np.zeros((40, 40), np.float32), zone) == -1).all()
