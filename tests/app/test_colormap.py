"""Map colours: order of values, transparency, size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vestige.app.report.colormap import colorize, css_ramp, overlay_png, palette


def _lightness(rgb: np.ndarray) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_ramp_is_perceptually_ordered_and_close_to_magma() -> None:
    from matplotlib import colormaps

    table = palette()[:, :3] / 255
    steps = np.diff(_lightness(table)[::15])
    assert (steps > 0).all()
    assert steps.max() < 2 * np.median(steps)
    reference = colormaps["magma"](np.arange(256))[:, :3]
    assert np.abs(table - reference).max() < 4 / 255


def test_low_values_are_transparent_and_alpha_rises() -> None:
    alpha = palette()[:, 3].astype(int)
    assert alpha[0] == 0
    assert (np.diff(alpha) >= 0).all()
    assert 180 < alpha[-1] < 255


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_map_can_be_coloured(values: np.ndarray) -> None:
    coloured = colorize(values)
    assert coloured.shape == (*values.shape, 4)
    assert coloured.dtype == np.uint8
    assert (coloured[np.nan_to_num(values, nan=0.0) <= 0][:, 3] == 0).all()
    decoded = Image.open(io.BytesIO(overlay_png(values)))
    assert decoded.size == values.shape[::-1]


def test_overlay_keeps_colours_and_is_bounded() -> None:
    ramp = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (200, 1))
    decoded = np.asarray(Image.open(io.BytesIO(overlay_png(ramp))).convert("RGBA"))
    assert np.abs(decoded.astype(int) - colorize(ramp)).max() <= 8
    large = np.random.default_rng(0).random((1500, 3000), np.float32)
    content = overlay_png(large, side=256)
    assert Image.open(io.BytesIO(content)).size == (256, 128)
    assert len(content) < 40_000
    assert Image.open(io.BytesIO(overlay_png(np.ones((1, 4000), np.float32), side=64))).size == (64, 1)


@pytest.mark.parametrize("shape", [(0, 4), (4, 4, 3), (4,)])
def test_what_is_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a map is h×w"):
        colorize(np.zeros(shape, np.float32))


def test_gradient_has_no_external_reference() -> None:
    assert css_ramp().startswith("linear-gradient(90deg, #000004")
