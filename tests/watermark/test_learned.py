import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.learned_toys import Chessboard, learn_bits
from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY
from vestige.core.roles import Marker
from vestige.engines.marking.model import save_marker
from vestige.watermark.hidden import Hidden, HiddenNet
from vestige.watermark.learned import BitCode, LearnedMark, reading_of

OTHER = b"another key that is long enough!"
BITS = np.random.default_rng(5).random(32) < 0.5


class Board(LearnedMark):
    """A learned mark whose network needs no training; for tests."""

    slug = "board"

    @staticmethod
    def build(**options):
        return Chessboard(**options)


# payload --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [16, 32, 64, 100, 144, 256])
def test_payloads_come_back_and_wrong_keys_see_nothing(length):
    code, wrong = BitCode(PUBLIC_KEY, length), BitCode(OTHER, length)
    payload = BITS[: code.capacity] if length < 64 else BITS
    raw = code.encode(payload)
    assert raw.shape == (length,)
    assert set(np.unique(raw)) <= {0.0, 1.0}
    found = code.decode(raw - 0.5)
    np.testing.assert_array_equal(found.bits, payload)
    if length >= 32:
        assert found.p_value < 1e-3
        assert wrong.decode(raw - 0.5) is None


@given(st.text(alphabet="abcXYZ019 -", min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_short_texts_come_back(text):
    code = BitCode(PUBLIC_KEY, 64)
    assert code.decode(code.encode(text) - 0.5).message == text


def test_uncertain_bits_are_tried_both_ways():
    code = BitCode(PUBLIC_KEY, 64)
    soft = code.encode(BITS) - 0.5
    soft[[3, 40]] *= -0.01  # wrong, and known to be uncertain
    found = code.decode(soft)
    np.testing.assert_array_equal(found.bits, BITS)
    assert found.agreement == 1 - 2 / 64
    soft[3] *= 100  # wrong and certain
    assert code.decode(soft) is None


def test_random_words_are_refused():
    code = BitCode(PUBLIC_KEY, 64)
    words = np.random.default_rng(0).standard_normal((300, 64))
    assert not any(code.decode(word) for word in words)


def test_the_pad_hides_the_payload():
    words = [BitCode(bytes([k]) * 32, 64).encode(np.zeros(32, bool)) for k in range(40)]
    assert abs(np.mean(words) - 0.5) < 0.06


@pytest.mark.parametrize(
    ("length", "payload", "words"),
    [
        (8, BITS[:4], "at least 16"),
        (32, "text", "no text"),
        (32, BITS, "exactly 16"),
        (64, "far too long", "up to 32 bits"),
        (64, np.ones(40, bool), "up to 32 bits"),
    ],
)
def test_payloads_that_do_not_fit_are_refused(length, payload, words):
    with pytest.raises(UsageError, match=words):
        BitCode(PUBLIC_KEY, length).encode(payload)


def test_several_attempts_cost_p_value():
    code = BitCode(PUBLIC_KEY, 64)
    right, noise = code.encode(BITS) - 0.5, np.random.default_rng(0).standard_normal(64)
    one, two = reading_of(code, [right]), reading_of(code, [noise, right])
    assert two.outcome == "read"
    assert two.details["attempt"] == 1
    assert two.p_value == 2 * one.p_value
    assert reading_of(code, []).outcome == "absent"


# the marker -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board():
    return Board(network=Chessboard())


@pytest.mark.parametrize("shape", [(64, 64), (150, 230), (401, 77)])
def test_marks_read_at_any_size_and_keep_to_their_key(board, shape):
    assert isinstance(board, Marker)
    images = np.full((2, 3, *shape), 0.5, np.float32)
    marked = board.mark(images, BITS, PUBLIC_KEY)
    assert marked.shape == images.shape
    assert marked.dtype == np.float32
    saved = np.round(marked * 255).astype(np.float32) / 255
    for reading in board.read(saved, PUBLIC_KEY):
        assert reading.outcome == "read"
        assert reading.p_value < 1e-4
        np.testing.assert_array_equal(reading.bits, BITS)
    assert [r.outcome for r in board.read(saved, OTHER)] == ["absent", "absent"]
    assert board.read(images, PUBLIC_KEY)[0].outcome == "absent"


@pytest.mark.parametrize(("bits", "grid"), [(16, (2, 2)), (36, (1, 2)), (64, (1, 1))])
def test_short_words_are_spread_over_parts_of_the_picture(bits, grid):
    board = Board(network=Chessboard(bits))
    assert (board.grid, board.capacity) == (grid, 32)
    images = np.full((2, 3, 131, 202), 0.5, np.float32)
    marked = board.mark(images, BITS, PUBLIC_KEY)
    for reading in board.read(marked, PUBLIC_KEY):
        np.testing.assert_array_equal(reading.bits, BITS)
    assert board.read(marked, OTHER)[0].outcome == "absent"
    assert board.read(marked[..., :1], PUBLIC_KEY)[0].outcome == "absent"
    if grid != (1, 1):
        with pytest.raises(UsageError, match="at least 2×"):
            board.mark(images[..., :1], BITS, PUBLIC_KEY)


def test_a_mask_confines_the_change(board):
    images = np.full((1, 3, 80, 90), 0.5, np.float32)
    mask = np.zeros((1, 1, 80, 90), bool)
    mask[..., 20:50] = True
    changed = np.any(board.mark(images, BITS, PUBLIC_KEY, mask) != images, axis=1, keepdims=True)
    assert changed[mask].mean() > 0.5
    assert not changed[~mask].any()


def test_the_limit_bounds_the_change(board):
    images = np.full((1, 3, 64, 64), 0.8, np.float32)
    free = np.abs(board.mark(images, BITS, PUBLIC_KEY) - images).max()
    bound = np.abs(Board(network=Chessboard(), limit=1.0).mark(images, BITS, PUBLIC_KEY) - images).max()
    assert bound < 0.5 * free


def test_four_pixels_and_odd_arrays(board):
    assert board.read(np.zeros((1, 3, 2, 2), np.float32), PUBLIC_KEY)[0].outcome == "absent"
    with pytest.raises(UsageError, match="float"):
        board.read(np.zeros((1, 3, 8, 8), np.uint8), PUBLIC_KEY)
    with pytest.raises(UsageError, match="N×3×H×W"):
        board.mark(np.zeros((1, 1, 8, 8), np.float32), BITS, PUBLIC_KEY)
    with pytest.raises(InputError, match="finite"):
        board.read(np.full((1, 3, 8, 8), np.nan, np.float32), PUBLIC_KEY)
    with pytest.raises(UsageError, match="strength"):
        Board(network=Chessboard(), strength=0.0)


def test_weights_are_found_and_missing_ones_name_the_recipe(tmp_path, monkeypatch):
    save_marker(tmp_path / "board.safetensors", Chessboard(gain=0.1), "board", {"note": 1})
    marker = Board(tmp_path / "board.safetensors")
    assert marker.facts == {"note": 1}
    assert float(marker.network.gain) == pytest.approx(0.1)
    monkeypatch.setattr("vestige.watermark.learned.WEIGHTS", tmp_path)
    assert Board().bits == 64
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path / "runs"))
    with pytest.raises(InputError, match="vestige learn hidden") as caught:
        Hidden()
    assert "\n" not in str(caught.value)
    net = HiddenNet(16, 32, width=8)
    save_marker(tmp_path / "runs" / "hidden" / "default" / "0" / "hidden.safetensors", net, "hidden", {})
    assert Hidden().bits == 16  # that of the finished run


# HiDDeN ---------------------------------------------------------------------------------------------------------------


def test_hidden_learns_bits():
    torch.manual_seed(0)
    net = HiddenNet(8, 32, width=12, encoder_blocks=2, decoder_blocks=2)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    assert learn_bits(net, image, 120, 5e-3) == 1.0


def test_hidden_objective_weighs_its_parts():
    torch.manual_seed(0)
    net = HiddenNet(4, 16, width=8)
    from vestige.engines.marking.model import BitReading, Trial

    images, masks = torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16, dtype=torch.bool)
    soft = torch.full((2, 4), 0.5)
    trial = Trial(images, torch.zeros(2, 4), masks, images + 0.1, images, masks, BitReading(soft), torch.tensor(3.0))
    assert float(net.objective(trial, lambda name: 0.0)["loss"]) == pytest.approx(1.0)
    assert float(net.objective(trial, lambda name: 1.0)["loss"]) == pytest.approx(1 + 0.7 * 0.04 + 3e-3, rel=1e-4)


def test_the_revisited_form_bounds_the_residual():
    net = HiddenNet(4, 16, width=8, scale=0.02).eval()
    with torch.no_grad():
        net.residual.weight.mul_(1e4)
    images = torch.rand(2, 3, 16, 16)
    assert (net.embed(images, torch.ones(2, 4)) - images).abs().max() <= 0.0101


def test_hidden_has_no_shipped_weights_or_reads_them():
    from vestige.watermark.learned import WEIGHTS

    if (WEIGHTS / "hidden.safetensors").is_file():
        assert Hidden().bits >= 16
    else:
        with pytest.raises(InputError, match="vestige learn hidden"):
            Hidden()
