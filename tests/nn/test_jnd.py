import math

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.nn.jnd import jnd, luminance


def level(value: float, side: int = 9) -> torch.Tensor:
    return torch.full((1, 3, side, side), value / 255)


def test_luminance_is_rec_601():
    image = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    assert luminance(image).item() == pytest.approx(255 * (0.299 + 0.587 * 0.5 + 0.114 * 0.25), rel=1e-5)


@pytest.mark.parametrize(
    ("grey", "expected"),
    [
        (0.0, 17.0),
        (63.5, 17 * (1 - math.sqrt(0.5))),
        (126.0, 17 * (1 - math.sqrt(126 / 127))),
        (191.0, 3 * 64 / 128 + 3),
        (255.0, 6.0),
    ],
)
def test_flat_pictures_follow_the_brightness_curve_everywhere(grey, expected):
    found = jnd(level(grey)) * 255
    assert found.shape == (1, 1, 9, 9)
    torch.testing.assert_close(found, torch.full_like(found, expected), atol=2e-3, rtol=1e-4)


def test_an_edge_by_hand():
    # Columns 0 … 3 are black, 4 … 8 have grey 100: at column 4 the Sobel response is 4 · 100, and of the 24 weighted
    # neighbours those at or right of column 4 count. The kernel's columns sum to 5, 8, 6, 8, 5.
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4:] = 100 / 255
    background = 100 * (6 + 8 + 5) / 32
    gradient = 400.0
    adaptation = 17 * (1 - math.sqrt(background / 127))
    contrast = 0.117 * 16 * gradient**2.4 / (gradient**2 + 26**2)
    expected = adaptation + contrast - 0.3 * min(adaptation, contrast)
    assert jnd(image)[0, 0, 4, 4].item() * 255 == pytest.approx(expected, rel=1e-4)


def test_gradients_are_finite_on_black_flat_and_textured_pictures():
    torch.manual_seed(0)
    for image in (torch.zeros(1, 3, 8, 8), level(127, 8), torch.rand(1, 3, 8, 8)):
        x = image.clone().requires_grad_()
        jnd(x).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_gradcheck_on_a_textured_picture():
    torch.manual_seed(1)
    # Away from 127, where the brightness curve jumps.
    x = (0.05 + 0.3 * torch.rand(1, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(jnd, (x,), eps=1e-6, atol=1e-5)


def test_a_crop_with_context_agrees():
    torch.manual_seed(2)
    image = torch.rand(1, 3, 20, 16)
    torch.testing.assert_close(jnd(image)[..., 6:12, :], jnd(image[..., 4:14, :])[..., 2:8, :])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(UsageError, match="N×3×H×W"):
        jnd(torch.zeros(shape))


def test_integers_are_refused():
    with pytest.raises(UsageError, match="float"):
        jnd(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
