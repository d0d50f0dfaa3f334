import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import UsageError
from vestige.watermark.payload import PayloadCode, pack, unpack

KEY = b"k" * 32


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_bits_survive_packing(bits):
    text, back = unpack(pack(np.array(bits)))
    assert text is None
    assert back.tolist() == bits


@given(st.text(min_size=1, max_size=11))
def test_text_survives_packing_or_is_refused(text):
    raw = text.encode("utf-8", "surrogatepass")
    try:
        packet = pack(text)
    except UsageError:
        assert len(raw) > 8
        return
    message, bits = unpack(packet)
    assert message == text
    assert np.packbits(bits).tobytes() == raw


@pytest.mark.parametrize(("payload", "length"), [("abcde", 40), ("abcdef", 72), ("photo 2026", 72), ("a,b:c<d>e", 72)])
def test_tight_packings(payload, length):
    assert len(pack(payload)) == length


@pytest.mark.parametrize(
    "payload", ["", "a" * 11, "ééééé", "\ud800", np.zeros(0, bool), np.zeros(65, bool), np.zeros((2, 2)), np.full(4, 3)]
)
def test_payloads_that_do_not_fit(payload):
    with pytest.raises(UsageError):
        pack(payload)


def test_unpack_refuses_contradictory_headers():
    packet = pack("abc")
    packet[-1] = True  # beyond the stated length
    assert unpack(packet) is None


@pytest.mark.parametrize("payload", ["hi", "photo 2026", np.arange(64) % 3 == 0])
def test_code_corrects_noise_and_erasures(payload):
    code = PayloadCode(KEY)
    generator = np.random.default_rng(0)
    soft = code.encode(payload) + generator.normal(0, 0.7, 256)
    soft[generator.choice(256, 40, replace=False)] = 0.0
    best = code.decode(soft)[0]
    assert best.authentic
    assert best.message == payload if isinstance(payload, str) else (best.bits == payload).all()
    assert best.agreement < 1.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_noise_and_other_keys_are_not_authentic(seed):
    generator = np.random.default_rng(seed)
    assert not any(a.authentic for a in PayloadCode(KEY).decode(generator.normal(size=256)))
    assert not any(a.authentic for a in PayloadCode(b"other").decode(PayloadCode(KEY).encode("hello")))


def test_raw_bits_degrade_gracefully():
    """Bits before authentication stay mostly right where the tag no longer verifies."""
    payload = np.arange(32) % 2 == 0
    code, accuracy, authentic = PayloadCode(KEY), [], 0
    for seed in range(20):
        attempts = code.decode(code.encode(payload) + np.random.default_rng(seed).normal(0, 1.35, 256))
        authentic += attempts[0].authentic
        accuracy.append(np.mean(next(a.raw_bits for a in attempts if len(a.raw_bits) == 32) == payload))
    assert 0 < authentic < 20
    assert np.mean(accuracy) > 0.75


def test_too_few_slots():
    with pytest.raises(UsageError, match="240"):
        PayloadCode(KEY, 128)
