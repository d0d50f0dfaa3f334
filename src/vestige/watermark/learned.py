"""From a trained embedder and reader to a keyed mark: payload coding, pictures of any size, readings with p-values.

A network carries L raw bits that anybody with its weights can read. The key decides what they mean: a keyed
permutation and a keyed pad make them noise to others, and an authentication tag tells the right key from a wrong one.

    L >= 240:       `payload.PayloadCode`, a convolutional code with a 32-bit tag
    64 <= L < 240:  header and 32 data bits, then a tag of L - 40 bits
    L < 64:         L // 2 data bits, then a tag of the rest; no header, so the payload has exactly that length

A picture is divided into a grid of parts where the network carries fewer than 64 bits, one part of the raw word in
each; four parts of 16 bits carry the 32 data bits.

Without a convolutional code the reader also tries the flips of its least certain bits (Chase decoding); the p-value is
the number of tries times 2^-tag.

Source: D. Chase, A class of algorithms for decoding block codes with channel measurement information, IEEE Trans. Inf.
Theory 1972.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vestige.core.errors import InputError, UsageError
from vestige.core.keys import PUBLIC_KEY, derive
from vestige.core.roles import Reading
from vestige.core.runtime import device as device_of
from vestige.core.runtime import rng
from vestige.engines.marking.model import EmbedderReader, load_marker
from vestige.engines.marking.residual import embed_at_native, read_at_native
from vestige.engines.runs import run_folder
from vestige.watermark.payload import TAG_BITS, PayloadCode, pack, unpack
from vestige.watermark.pictures import checked

#: Where shipped weights are.
WEIGHTS = Path(__file__).parent.parent / "weights"
_KEYED = 64  # raw bits of a payload of 32
_PACKED = 40  # header and data bits of a packed payload of up to 32 bits
_CODED = 240  # from here on a convolutional code fits


@dataclass(frozen=True)
class Word:
    """A decoded word that its tag confirms. p_value: of a random word doing so. agreement: share of raw bits kept."""

    bits: np.ndarray
    message: str | None
    p_value: float
    agreement: float


class BitCode:
    """Payloads to ``length`` raw bits of a network and back, under a key.

    Raises UsageError for fewer than 16 bits.

    >>> code = BitCode(b"k" * 32, 64)
    >>> code.decode(code.encode("hello") - 0.5).message
    'hello'
    """

    def __init__(self, key: bytes, length: int) -> None:
        if length < 16:
            raise UsageError(f"A keyed payload needs a mark of at least 16 bits, got {length}.")
        self.length, self._key = length, bytes(key)
        self.room = _PACKED if length >= _KEYED else length // 2
        self.tag = length - self.room
        keyed = rng(int.from_bytes(derive(key, "learned mark")[:8], "little"), "raw bits")
        self._order, self._pad = keyed.permutation(length), keyed.integers(0, 2, length).astype(bool)
        # So many flips of uncertain bits that a wrong word passes with at most 2^-18, or 2^-tag where that is more.
        self._flips = min(8, max(0, self.tag - 18))

    @property
    def capacity(self) -> int:
        """Most payload bits."""
        return 64 if self.length >= _CODED else min(32, self.room)

    def encode(self, payload: str | np.ndarray) -> np.ndarray:
        """float32 0/1 raw bits (L,). Raises UsageError when the payload does not fit."""
        if self.length >= _CODED:
            return (PayloadCode(self._key, self.length).encode(payload) > 0).astype(np.float32)
        if self.length >= _KEYED:
            fits = "This mark carries up to 32 bits: 5 letters or digits, 4 bytes of other text, or bits."
            try:
                data = pack(payload)
            except UsageError:  # its words are about marks of 64 bits
                raise UsageError(fits) from None
            if len(data) != _PACKED:
                raise UsageError(fits)
        elif isinstance(payload, str):
            raise UsageError(f"This mark carries {self.room} bits and no text; give the payload as bits.")
        else:
            data = np.asarray(payload)
            if data.shape != (self.room,) or not np.isin(data, (0, 1)).all():
                raise UsageError(f"This mark carries exactly {self.room} bits, got shape {data.shape}.")
            data = data.astype(bool)
        word = np.concatenate([data, self._tag(data)])
        return (word[self._order] ^ self._pad).astype(np.float32)

    def _tag(self, data: np.ndarray) -> np.ndarray:
        key, wanted, block = derive(self._key, "learned mark authentication"), b"", 0
        while 8 * len(wanted) < self.tag:
            wanted += hmac.new(key, bytes([block]) + np.packbits(data).tobytes(), hashlib.sha256).digest()
            block += 1
        return np.unpackbits(np.frombuffer(wanted, np.uint8))[: self.tag].astype(bool)

    def decode(self, soft: np.ndarray) -> Word | None:
        """The confirmed word nearest to soft raw bits (L,), whose sign is the decision; None when no tag agrees."""
        soft = np.asarray(soft, float)
        if self.length >= _CODED:
            found = PayloadCode(self._key, self.length).decode(soft)
            best = found[0]
            if not best.authentic or best.bits is None:
                return None
            return Word(best.bits, best.message, len(found) * 2.0**-TAG_BITS, best.agreement)
        word, certainty = np.empty(self.length, bool), np.empty(self.length)
        word[self._order], certainty[self._order] = (soft > 0) ^ self._pad, np.abs(soft)
        doubtful = np.argsort(certainty, kind="stable")[: self._flips]
        patterns = itertools.chain.from_iterable(itertools.combinations(doubtful, k) for k in range(len(doubtful) + 1))
        for pattern in patterns:
            tried = word.copy()
            tried[list(pattern)] ^= True
            data, tag = tried[: self.room], tried[self.room :]
            if not np.array_equal(tag, self._tag(data)):
                continue
            content = unpack(data) if self.length >= _KEYED else (None, data.copy())
            if content is not None:
                p_value = min(1.0, 2.0 ** (len(doubtful) - self.tag))
                return Word(content[1], content[0], p_value, 1 - len(pattern) / self.length)
        return None


class LearnedMark:
    """A `Marker` around an embedder and reader; base of the learned marks.

    weights: a file that the system's recipe wrote, by default the shipped one. network: an embedder and reader to use
    instead. strength: factor on the change. limit: largest change in just-noticeable differences of the full-size
    picture, None without. device: as in ``--device``. Raises InputError when there are no weights.
    """

    slug = ""
    #: Factor on the change that the system is meant to be used with.
    natural_strength = 1.0

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        network: EmbedderReader | None = None,
        strength: float | None = None,
        limit: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.strength = self.natural_strength if strength is None else strength
        if not 0 < self.strength <= 20 or (limit is not None and not limit > 0):
            raise UsageError(f"The strength of {self.slug} lies above 0 and up to 20, its limit above 0.")
        self.limit = limit
        self.facts: dict[str, Any] = {}
        if network is None:
            network, self.facts = load_weights(self.slug, self.build, weights)
        self.network = network.eval().requires_grad_(False).to(device_of(device))

    @staticmethod
    def build(**settings: Any) -> EmbedderReader:
        """The network for these settings."""
        raise NotImplementedError

    @property
    def bits(self) -> int:
        """Raw bits of the network."""
        return self.network.bits

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the parts of a picture that carry one payload together."""
        parts = -(-_KEYED // self.bits)
        rows = int(parts**0.5)
        return rows, -(-parts // rows)

    @property
    def capacity(self) -> int:
        """Most payload bits of a picture."""
        return BitCode(PUBLIC_KEY, math.prod(self.grid) * self.bits).capacity

    def mark(
        self, images: np.ndarray, payload: str | np.ndarray, key: bytes, masks: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 N×3×H×W of any size -> marked images of the same shape, in [0, 1].

        masks: bool N×1×H×W, where the mark may go; outside them the pictures stay as they are. Raises UsageError when
        the payload does not fit (see `BitCode`) or shapes do not, InputError for samples that are not finite.
        """
        return self._mark(images, payload, key, masks, self.grid)

    def _mark(
        self,
        images: np.ndarray,
        payload: str | np.ndarray,
        key: bytes,
        masks: np.ndarray | None,
        grid: tuple[int, int],
    ) -> np.ndarray:
        x = as_tensor(images)
        words = torch.from_numpy(BitCode(key, math.prod(grid) * self.bits).encode(payload)).view(-1, 1, self.bits)
        where = None if masks is None else torch.from_numpy(np.ascontiguousarray(masks))
        if where is not None and (where.dtype != torch.bool or where.shape != (len(x), 1, *x.shape[2:])):
            raise UsageError(f"Masks must be bool {(len(x), 1, *x.shape[2:])}; got {tuple(where.shape)}.")
        marked = torch.empty_like(x)
        for (rows, columns), word in zip(_parts(x.shape[2:], grid), words, strict=True):
            marked[..., rows, columns] = embed_at_native(
                self.network,
                x[..., rows, columns],
                word.expand(len(x), -1),
                masks=None if where is None else where[..., rows, columns],
                strength=self.strength,
                limit=self.limit,
            )
        return marked.numpy()

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]:
        """One `Reading` a picture.

        "read": the tag verifies. Otherwise "absent": the raw bits say nothing without the key, so a damaged payload
        cannot be told from one made with another key; ``details`` has the raw bits.
        """
        x, grid = as_tensor(images), self.grid
        if x.shape[2] < grid[0] or x.shape[3] < grid[1]:
            why = f"the picture is smaller than {grid[1]}×{grid[0]} pixels"
            return [Reading("absent", 1.0, details={"why": why}) for _ in x]
        code = BitCode(key, math.prod(grid) * self.bits)
        soft = [read_at_native(self.network, x[..., rows, columns]).soft for rows, columns in _parts(x.shape[2:], grid)]
        return [reading_of(code, [word.numpy()]) for word in torch.cat(soft, 1)]


def _parts(size: Sequence[int], grid: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the grid's parts, row by row; raises UsageError where a part would be empty."""
    height, width = size
    if height < grid[0] or width < grid[1]:
        raise UsageError(f"The image is {width}×{height} pixels; this mark needs at least {grid[1]}×{grid[0]}.")
    down, across = ([round(i * n / k) for i in range(k + 1)] for n, k in zip(size, grid, strict=True))
    return [(slice(*rows), slice(*columns)) for rows in pairwise(down) for columns in pairwise(across)]


def reading_of(code: BitCode, attempts: list[np.ndarray], details: dict[str, Any] | None = None) -> Reading:
    """The first of several soft words that verifies, its p-value corrected for their number."""
    details = dict(details or {})
    for index, soft in enumerate(attempts):
        word = code.decode(soft)
        if word is not None:
            p_value = min(1.0, word.p_value * len(attempts))
            details |= {"raw_bits": soft > 0, "attempt": index}
            return Reading("read", p_value, word.bits, word.message, word.agreement, details)
    details["raw_bits"] = attempts[0] > 0 if attempts else np.zeros(code.length, bool)
    return Reading("absent", 1.0, details=details)


def load_weights(
    slug: str, build: Callable[..., EmbedderReader], path: str | Path | None = None
) -> tuple[EmbedderReader, dict[str, Any]]:
    """The network of a weights file and the facts recorded with it; by default the shipped one, else that of the
    finished run in the folder of runs.

    Raises InputError with the command that trains it when it is missing, or when it is damaged or of another system.
    """
    return load_marker(weights_file(slug) if path is None else Path(path), slug, build)


def weights_file(slug: str) -> Path:
    """Where the trained network of a mark is: in the package, else in the finished run of its recipe.

    Raises InputError, naming the command that trains it, when it is in neither.
    """
    file = WEIGHTS / f"{slug}.safetensors"
    if not file.is_file():
        from vestige.engines.recipe import load_recipe

        file = run_folder(slug, load_recipe(slug).default, 0) / f"{slug}.safetensors"
    if not file.is_file():
        raise InputError(
            f"The network of {slug} is not installed; train it with 'vestige learn {slug}', or name its file with "
            "--model."
        )
    return file


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """A checked float32 tensor of pictures, clipped to [0, 1]; UsageError for other arrays, InputError for NaN."""
    images = checked(images)
    if images.size == 0:
        raise UsageError(f"There is no picture in an array of shape {images.shape}.")
    return torch.from_numpy(np.ascontiguousarray(images)).clamp(0, 1)
