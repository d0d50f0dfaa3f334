"""Payload coding: bits or short text, authenticated with a key and protected by a convolutional code.

A packet is [kind 2 | length 6 | data D | tag 32] bits with D = 32 or 64. The tag is a truncated HMAC-SHA-256 of what
precedes it, so a decoder accepts a random packet with probability 2^-32. The packet goes through a terminated
convolutional code of constraint length 9 (rate 1/3 for D = 32, 1/2 for D = 64), a keyed scrambler and a keyed
permutation over ``slots`` channel positions; positions left over repeat the start of the codeword.

Sources: K. Larsen, Short convolutional codes with maximal free distance for rates 1/2, 1/3 and 1/4, IEEE Trans. Inf.
Theory 1973 (generators); A. Viterbi, IEEE Trans. Inf. Theory 1967 (decoding); RFC 2104 (HMAC).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cache

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.keys import derive
from vestige.core.runtime import rng

MAX_BITS = 64
TAG_BITS = 32
_HEADER_BITS = 8
_MEMORY = 8  # delay elements of the encoder: 256 states
_GENERATORS = {32: (0o557, 0o663, 0o711), 64: (0o561, 0o753)}  # by number of data bits
_SIX_BIT = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"  # 64 characters of packing kind 1
_RAW, _SIX, _ASCII, _UTF8 = range(4)


@dataclass(frozen=True)
class Decoded:
    """One decoding attempt: data bits before authentication, and whether the tag verified.

    agreement: share of channel positions whose sign matches the decoded codeword (0.5 to 1 in practice).
    """

    authentic: bool
    raw_bits: np.ndarray
    agreement: float
    message: str | None = None
    bits: np.ndarray | None = None


def _to_bits(value: int, width: int) -> np.ndarray:
    return np.array([(value >> (width - 1 - i)) & 1 for i in range(width)], dtype=bool)


def _to_int(bits: np.ndarray) -> int:
    return int("".join("1" if b else "0" for b in bits), 2) if len(bits) else 0


def pack(payload: str | np.ndarray) -> np.ndarray:
    """Header and data bits, bool (40,) or (72,), of a text or of 1 to 64 raw bits.

    Text uses the tightest packing that holds it: 6 bits a character for letters, digits, space and hyphen (up to 10),
    7 bits for ASCII (up to 9), UTF-8 otherwise (up to 8 bytes). Raises UsageError when it does not fit.

    >>> pack("photo 7").shape, pack(np.ones(20, bool)).shape
    ((72,), (40,))
    """
    if isinstance(payload, str):
        kind, length, data = _pack_text(payload)
    else:
        bits = np.asarray(payload)
        if bits.ndim != 1 or not 1 <= len(bits) <= MAX_BITS or not np.isin(bits, (0, 1)).all():
            raise UsageError(
                f"A payload of bits is a flat array of 1 to {MAX_BITS} zeros and ones, got shape {bits.shape}."
            )
        kind, length, data = _RAW, len(bits) - 1, bits.astype(bool)
    room = 32 if len(data) <= 32 else 64
    padded = np.zeros(room, bool)
    padded[: len(data)] = data
    return np.concatenate([_to_bits(kind, 2), _to_bits(length, 6), padded])


def _pack_text(text: str) -> tuple[int, int, np.ndarray]:
    if not text:
        raise UsageError("The message is empty; give 1 to 10 characters or a payload of bits.")
    if len(text) <= 10 and all(c in _SIX_BIT for c in text):
        return _SIX, len(text), np.concatenate([_to_bits(_SIX_BIT.index(c), 6) for c in text])
    if len(text) <= 9 and text.isascii():
        return _ASCII, len(text), np.concatenate([_to_bits(ord(c), 7) for c in text])
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The message holds a lone surrogate; use valid Unicode text.") from None
    if len(raw) > MAX_BITS // 8:
        raise UsageError(
            f"The message {text[:20]!r} does not fit into {MAX_BITS} bits; use at most 10 letters, digits, spaces or "
            "hyphens, 9 ASCII characters, or 8 bytes of UTF-8 (longer texts: store them elsewhere and mark an index)."
        )
    return _UTF8, len(raw), np.unpackbits(np.frombuffer(raw, np.uint8)).astype(bool)


def unpack(packet: np.ndarray) -> tuple[str | None, np.ndarray] | None:
    """Text (or None) and payload bits of header and data bits; None when the header contradicts the data.

    The bits of a text are those of its UTF-8 form.
    """
    kind, length, data = _to_int(packet[:2]), _to_int(packet[2:_HEADER_BITS]), packet[_HEADER_BITS:]
    used = length + 1 if kind == _RAW else length * {_SIX: 6, _ASCII: 7, _UTF8: 8}[kind]
    if used > len(data) or data[used:].any():
        return None
    if kind == _RAW:
        return None, data[:used].copy()
    if kind == _SIX:
        text = "".join(_SIX_BIT[_to_int(c)] for c in data[:used].reshape(-1, 6))
    elif kind == _ASCII:
        text = "".join(chr(_to_int(c)) for c in data[:used].reshape(-1, 7))
    else:
        try:
            text = np.packbits(data[:used]).tobytes().decode("utf-8")
        except UnicodeDecodeError:
            return None
    return text, np.unpackbits(np.frombuffer(text.encode(), np.uint8)).astype(bool)


def _tag(packet: np.ndarray, key: bytes) -> np.ndarray:
    digest = hmac.new(derive(key, "mark authentication"), np.packbits(packet).tobytes(), hashlib.sha256).digest()
    return np.unpackbits(np.frombuffer(digest[: TAG_BITS // 8], np.uint8)).astype(bool)


@cache
def _outputs(room: int) -> np.ndarray:
    """±1 outputs (512, n) of every content of the 9-bit register, newest bit lowest."""
    register = np.arange(2 << _MEMORY)
    parity = [[bin(r & g).count("1") & 1 for g in _GENERATORS[room]] for r in register]
    return 1.0 - 2.0 * np.array(parity)


def _convolve(bits: np.ndarray, room: int) -> np.ndarray:
    """±1 codeword of bits followed by a zero tail."""
    register, codeword = 0, []
    for bit in np.concatenate([bits, np.zeros(_MEMORY, bool)]):
        register = ((register << 1) | int(bit)) & (2 * (1 << _MEMORY) - 1)
        codeword.append(_outputs(room)[register])
    return np.concatenate(codeword)


def _viterbi(soft: np.ndarray, room: int) -> np.ndarray:
    """Most likely bits for soft ±1 observations of a terminated codeword (maximum correlation)."""
    outputs = _outputs(room)
    states = 1 << _MEMORY
    gain = soft.reshape(-1, outputs.shape[1]) @ outputs.T
    state = np.arange(states)
    before = np.stack([state >> 1, (state >> 1) | (states >> 1)])  # the two predecessors of each state
    register = (before << 1) | (state & 1)
    metric = np.full(states, -np.inf)
    metric[0] = 0.0
    choice = np.empty((len(gain), states), bool)
    for step, branch in enumerate(gain):
        candidates = metric[before] + branch[register]
        choice[step] = candidates[1] > candidates[0]
        metric = np.maximum(candidates[0], candidates[1])
    at, bits = 0, np.empty(len(gain), bool)
    for step in range(len(gain) - 1, -1, -1):
        bits[step] = at & 1
        at = int(before[int(choice[step, at]), at])
    return bits[:-_MEMORY]


class PayloadCode:
    """Maps payloads to ±1 chips on ``slots`` channel positions and soft chips back to payloads.

    slots: channel positions, at least 240. key: authenticates and scrambles.

    >>> code = PayloadCode(b"k" * 32)
    >>> code.decode(code.encode("hello"))[0].message
    'hello'
    """

    def __init__(self, key: bytes, slots: int = 256) -> None:
        longest = max((_HEADER_BITS + d + TAG_BITS + _MEMORY) * len(g) for d, g in _GENERATORS.items())
        if slots < longest:
            raise UsageError(f"The code needs at least {longest} channel positions, got {slots}.")
        self.slots, self._key = slots, bytes(key)
        keyed = rng(int.from_bytes(derive(key, "mark code")[:8], "little"), "scrambler")
        self._sign = keyed.choice([-1.0, 1.0], slots)
        self._order = keyed.permutation(slots)

    def encode(self, payload: str | np.ndarray) -> np.ndarray:
        """float64 ±1 chips (slots,). Raises UsageError when the payload does not fit."""
        packet = pack(payload)
        codeword = _convolve(np.concatenate([packet, _tag(packet, self._key)]), len(packet) - _HEADER_BITS)
        return self._spread(codeword)

    def _spread(self, codeword: np.ndarray) -> np.ndarray:
        chips = np.empty(self.slots)
        chips[self._order] = np.resize(codeword, self.slots) * self._sign
        return chips

    def groups(self, payload: str | np.ndarray) -> np.ndarray:
        """Code bit that each channel position repeats, int (slots,), for this payload's packet format."""
        room = len(pack(payload)) - _HEADER_BITS
        length = (_HEADER_BITS + room + TAG_BITS + _MEMORY) * len(_GENERATORS[room])
        positions = np.empty(self.slots, int)
        positions[self._order] = np.arange(self.slots) % length
        return positions

    def decode(self, soft: np.ndarray) -> list[Decoded]:
        """Both packet formats decoded from soft chips (slots,), the more plausible one first.

        The sign of a soft chip is the decision, its magnitude the confidence; zero means erased.
        """
        received = np.asarray(soft, float)[self._order] * self._sign
        attempts = []
        for room, generators in _GENERATORS.items():
            length = (_HEADER_BITS + room + TAG_BITS + _MEMORY) * len(generators)
            total = np.zeros(length)
            np.add.at(total, np.arange(self.slots) % length, received)
            bits = _viterbi(total, room)
            packet, tag = bits[:-TAG_BITS], bits[-TAG_BITS:]
            agreement = float(np.mean(np.resize(_convolve(bits, room), self.slots) * received > 0))
            content = unpack(packet) if hmac.compare_digest(
                np.packbits(tag).tobytes(), np.packbits(_tag(packet, self._key)).tobytes()
            ) else None  # fmt: skip
            raw = packet[_HEADER_BITS:]
            if content is None:
                attempts.append(Decoded(False, raw, agreement))
            else:
                attempts.append(Decoded(True, raw, agreement, *content))
        return sorted(attempts, key=lambda a: (not a.authentic, -a.agreement))
