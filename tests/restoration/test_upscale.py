import numpy as np
import pytest
from skimage import data

from vestige.core.errors import LimitError, UsageError
from vestige.core.image_io import to_float
from vestige.core.roles import Restorer
from vestige.restoration.upscale import Lanczos


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_better_than_repeating_pixels(scale):
    photo = to_float(data.coffee()[:240, :360])
    small = photo.reshape(1, 3, 240 // scale, scale, 360 // scale, scale).mean((3, 5))
    enlarged = Lanczos(scale=scale).restore(small)
    repeated = small.repeat(scale, 2).repeat(scale, 3)
    assert (enlarged.dtype, enlarged.shape) == (np.float32, photo.shape)
    assert psnr(enlarged, photo) > psnr(repeated, photo) + 0.5
    assert enlarged.min() >= 0
    assert enlarged.max() <= 1


def test_flat_stays_flat_and_the_grid_stays_in_place():
    assert np.allclose(Lanczos(scale=3).restore(np.full((2, 3, 5, 4), 0.3, np.float32)), 0.3, atol=1e-6)
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 32, dtype=np.float32), (1, 3, 8, 32))
    inner = Lanczos(scale=2).restore(ramp)[0, 0, 8, 10:-10]
    step = (ramp[0, 0, 0, 1] - ramp[0, 0, 0, 0]) / 2
    # pixel centres: sample k of the result lies at (k + 0.5) / 2 - 0.5 of the source
    expected = 0.2 + step * (np.arange(10, 54) + 0.5 - 1)
    assert np.abs(inner - expected).max() < 2e-3


@pytest.mark.parametrize(
    ("scale", "shape", "expected"),
    [(1, (5, 7), (5, 7)), (1.5, (5, 7), (8, 10)), (4, (1, 1), (4, 4)), (2, (3, 5), (6, 10))],
)
def test_sizes(scale, shape, expected):
    assert Lanczos(scale=scale).restore(np.zeros((1, 3, *shape), np.float32)).shape[2:] == expected


def test_role_and_errors():
    assert isinstance(Lanczos(), Restorer)
    assert Lanczos.slug == "lanczos"
    for scale in (0.5, 0, 100, float("nan")):
        with pytest.raises(UsageError):
            Lanczos(scale=scale)
    with pytest.raises(UsageError):
        Lanczos().restore(np.zeros((3, 4, 4), np.float32))
    with pytest.raises(LimitError):
        Lanczos(scale=8).restore(np.broadcast_to(np.float32(0), (1, 3, 4000, 4000)))
