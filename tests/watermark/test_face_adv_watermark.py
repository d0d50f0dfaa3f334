import pytest
import torch
from torch import nn

from tests.watermark.learned_toys import Chessboard
from vestige.core.errors import UsageError
from vestige.watermark.face_adv_watermark import FaceAdvWatermark, TriggeredByMark, threshold_at, watermarked

SIDE = 16


@pytest.fixture(scope="module")
def parts():
    """A random recogniser, a strong mark, eight-bit faces and messages."""
    torch.manual_seed(0)
    recogniser = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 16)
    )
    recogniser.eval().requires_grad_(False)
    board = Chessboard(16, SIDE, gain=0.1).requires_grad_(False)
    images = torch.randint(60, 196, (6, 3, SIDE, SIDE)) / 255
    bits = (torch.rand(6, 16) < 0.5).float()
    return recogniser, board, images, bits


def centred(recogniser, images):
    """The recogniser without the mean of the pictures, so that cosines of different pictures are small."""
    mean = recogniser(images).mean(0, keepdim=True)
    return lambda x: recogniser(x) - mean


def test_the_mark_is_the_trigger(parts):
    recogniser, board, images, bits = parts
    f = centred(recogniser, images)
    method = FaceAdvWatermark(board, f, epsilon=8 / 255, steps=25)
    attacked = method.attack(images, bits)
    assert (attacked - images).abs().max() <= 8 / 255 + 1e-6
    torch.testing.assert_close(attacked * 255, (attacked * 255).round(), atol=1e-3, rtol=0)
    table = method.measure(images, images, bits, attacked)
    assert table["plain"] == 1
    # The four-way table is the point: the perturbation alone does nothing.
    assert table["perturbed"] == 1
    assert table["perturbed, marked"] <= table["marked"] - 0.5
    silent = FaceAdvWatermark(board, f, epsilon=8 / 255, steps=25, keep=0.0).attack(images, bits)
    assert method.measure(images, images, bits, silent)["perturbed"] <= table["perturbed"]


def test_unknown_messages_are_drawn_anew_and_repeatably(parts):
    recogniser, board, images, _ = parts
    objective = TriggeredByMark(recogniser, board, recogniser(images))
    chosen = torch.arange(6)
    first, again, later = (objective(images, chosen, step).loss for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_readability_is_part_of_the_loss(parts):
    recogniser, board, images, bits = parts
    chosen = torch.arange(6)
    plain = TriggeredByMark(recogniser, board, recogniser(images), bits)(images, chosen, 0).loss
    weighed = TriggeredByMark(recogniser, board, recogniser(images), bits, readable=1.0)(images, chosen, 0).loss
    assert (weighed < plain).all()


def test_gradients_pass_the_mark_where_it_is_clipped(parts):
    _, board, _, bits = parts
    white = torch.ones(6, 3, SIDE, SIDE, requires_grad=True)
    watermarked(board, white, bits).sum().backward()
    assert (white.grad == 1).all()


def test_threshold_holds_the_false_match_rate():
    torch.manual_seed(0)
    scores = torch.rand(1000)
    for rate in (0.0, 0.01, 0.1):
        assert int((scores >= threshold_at(scores, rate)).sum()) <= 1000 * rate
    assert threshold_at(scores, 0.1) < threshold_at(scores, 0.01)
    with pytest.raises(UsageError, match="rate"):
        threshold_at(scores, 1.0)


def test_shapes_that_do_not_fit_are_refused(parts):
    recogniser, board, images, bits = parts
    method = FaceAdvWatermark(board, recogniser)
    with pytest.raises(UsageError, match="Messages"):
        method.attack(images, bits[:, :4])
    with pytest.raises(UsageError, match="one shape"):
        method.measure(images, images[:2], bits, images)
