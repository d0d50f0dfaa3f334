"""Distortion-free token watermarks: text whose law is exactly the model's, yet a key holder can prove its origin.

Source: Kuditipudi, Thickstun, Hashimoto and Liang, Robust Distortion-free Watermarks for Language Models, TMLR 2024.
Detection needs the key and the tokenizer, not the model. One text of up to ``key_length`` tokens has exactly the law of
the model; many texts under one key repeat its numbers, so that together they are no longer independent.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.core.runtime import rng
from vestige.engines.sequence_tests import KeyedUniforms, alignment_cost, edit_alignment_cost, permutation_p_value

#: scheme: the cost γ of a skipped token or key position, None where alignment has no gaps.
SCHEMES: dict[str, float | None] = {"its": None, "exp": None, "its-edit": 0.4, "exp-edit": 0.0}
#: ids so far -> float (V,), the law of the next token.
NextToken = Callable[[np.ndarray], np.ndarray]
#: Cells of the edit alignment that one detection may take (about 1 ns each) before it draws fewer fresh keys.
_CELLS = 5e9


@dataclass(frozen=True)
class Generated:
    """Token ids int64 (m,) without the prompt, and their watermark potential α = mean(1 - p(chosen)).

    A potential near 0 means that the model left nothing to choose: such text cannot be detected, honestly.
    """

    ids: np.ndarray
    potential: float


class DistortionFreeText:
    """Samples tokens by the numbers of a secret key, and recognises them by how well they line up with the key.

    Token i uses entry (s + i) mod n of the key, s random for every text, n = ``key_length``.
    ITS: entry u ~ U(0, 1), one permutation π of the vocabulary; the first token in π order whose cumulative
    probability reaches u. Cost |u - rank_π(y)/V|.
    EXP: entry ξ ~ U(0, 1)^V; the token argmax_v log(ξ_v) / p_v. Cost log(1 - ξ_y).
    Statistic: the least cost of aligning ``block`` tokens with a stretch of the key ("-edit": Levenshtein alignment
    with gaps at cost γ), p-value (1 + #{statistic under fresh keys ≤ statistic}) / (1 + resamples).

    scheme: one of `SCHEMES`. gap: γ (None: the paper's; 1.0 lets "exp-edit" find more after substitutions). block:
    tokens aligned together (None: the whole text, at most 100). alpha: p-value up to which a text counts as marked.
    stop_after: end the test of an unmarked text early (0: never), see `sequence_tests.permutation_p_value`. Raises
    UsageError for values out of range.

    >>> system = DistortionFreeText("exp", resamples=99)
    >>> flat = lambda ids: np.full(50, 1 / 50)
    >>> text = system.generate(flat, [0], 20, b"key", seed=0).ids
    >>> system.detect(text, b"key", 50).outcome, system.detect(text, b"other", 50).outcome
    ('read', 'absent')
    """

    slug = "distortion_free_text"

    def __init__(
        self, scheme: str = "exp-edit", *, gap: float | None = None, key_length: int = 256, block: int | None = None,
        resamples: int = 999, alpha: float = 0.01, stop_after: int = 20,
    ) -> None:  # fmt: skip
        if scheme not in SCHEMES:
            raise UsageError(f"There is no scheme {scheme!r}; choose one of {', '.join(SCHEMES)}.")
        if gap is not None and (SCHEMES[scheme] is None or not gap >= 0):
            raise UsageError("A gap is 0 or more and needs one of the schemes that allow gaps, its-edit and exp-edit.")
        if key_length < 1 or (block is not None and block < 1) or resamples < 1 or not 0 < alpha < 1:
            raise UsageError("Key length, block and resamples are 1 or more, and alpha lies between 0 and 1.")
        self.scheme, self.gap, self.exponential = scheme, SCHEMES[scheme] if gap is None else gap, scheme[:3] == "exp"
        self.key_length, self.block, self.resamples = key_length, block, resamples
        self.alpha, self.stop_after = alpha, stop_after

    # generation -------------------------------------------------------------------------------------------------------

    def choose(self, probabilities: np.ndarray, positions: np.ndarray | int, key: bytes) -> np.ndarray:
        """The tokens the key picks, int64 (B,): probabilities B×V (each row sums to 1), key positions int (B,) or one.

        Computed in float64 whatever the model runs in, so that ties do not depend on its precision.
        """
        law = np.atleast_2d(np.asarray(probabilities, np.float64))
        positions = np.broadcast_to(np.asarray(positions), len(law))
        tokens = np.arange(law.shape[1])
        if self.exponential:
            xi = KeyedUniforms(key, "text exp")(positions[:, None], tokens)
            with np.errstate(divide="ignore"):
                return np.where(law > 0, np.log(xi) / law, -np.inf).argmax(1)  # ξ^(1/p) itself underflows
        order = np.argsort(_order(key, tokens))
        cumulative = np.cumsum(law[:, order], axis=1)
        u = KeyedUniforms(key, "text its")(positions, 0)[:, None] * cumulative[:, -1:]
        return order[(cumulative < u).sum(1)]

    def generate(
        self, model: Any, prompt: Any, count: int, key: bytes, *, seed: int | None = None, temperature: float = 1.0,
        stop: Collection[int] = (),
    ) -> Generated:  # fmt: skip
        """``count`` marked tokens that continue the prompt's ids.

        model: a transformers causal language model, or a function from ids to the probabilities of the next token.
        seed: fixes the random shift (None: a new one every time, without which equal prompts give equal answers).
        temperature: of a transformers model. stop: token ids that end the text. Raises UsageError.
        """
        shift = self._shift(seed)

        def choose(ids: np.ndarray, law: np.ndarray, step: int) -> int:
            return int(self.choose(law, (shift + step) % self.key_length, key)[0])

        return sample(model, prompt, count, choose, temperature=temperature, stop=stop)

    def hook(self, key: bytes, *, seed: int | None = None, temperature: float = 1.0) -> Callable[[Any, Any], Any]:
        """A logits processor for ``model.generate(..., logits_processor=[hook])``, one shift for every row.

        It leaves the chosen token alone with a finite score, so that greedy search and sampling both take it; put it
        last in the list. One hook serves one or more calls of ``generate`` one after another, without beams.
        """
        return _Hook(self, key, seed, temperature)

    def generate_text(
        self, model: Any, tokenizer: Any, prompt: str, count: int, key: bytes, *, seed: int | None = None,
        temperature: float = 1.0,
    ) -> str:  # fmt: skip
        """As `generate`, from text to text; ends early at the tokenizer's end token."""
        ids = tokenizer(prompt).input_ids
        if tokenizer.eos_token_id is not None and ids[-1:] == [tokenizer.eos_token_id]:
            ids = ids[:-1]
        if not ids:
            start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
            if start is None:
                raise UsageError(
                    "The prompt holds no token and the tokenizer has no start token; give a longer prompt."
                )
            ids = [start]
        stop = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        made = self.generate(model, ids, count, key, seed=seed, temperature=temperature, stop=stop)
        return tokenizer.decode(made.ids.tolist(), skip_special_tokens=True)

    def _shift(self, seed: int | None) -> int:
        if seed is None:
            return secrets.randbelow(self.key_length)
        return int(rng(seed, "text shift").integers(self.key_length))

    # detection --------------------------------------------------------------------------------------------------------

    def statistic(self, ids: Any, key: bytes, vocabulary: int) -> float:
        """The least alignment cost of the text with the key, lower for marked text."""
        ids = _ids(ids, vocabulary)
        unique, inverse = np.unique(ids, return_inverse=True)
        positions = np.arange(self.key_length)
        if self.exponential:
            table = np.log1p(-KeyedUniforms(key, "text exp")(positions, unique[:, None]))
        else:
            ranks = np.empty(vocabulary)
            ranks[np.argsort(_order(key, np.arange(vocabulary)))] = np.arange(vocabulary)
            table = self._its_cost(KeyedUniforms(key, "text its")(positions, 0)[None], ranks[None, unique], vocabulary)[
                0
            ]
        return float(self._align(table[inverse][None])[0])

    def null(self, ids: Any, vocabulary: int, count: int, generator: np.random.Generator) -> np.ndarray:
        """The statistic of this text under ``count`` fresh keys, float (count,): what unmarked text shows.

        Only the text's own distinct tokens need numbers. ITS draws a new permutation with every key.
        """
        ids = _ids(ids, vocabulary)
        unique, inverse = np.unique(ids, return_inverse=True)
        if self.exponential:  # -log(1 - ξ) is exponentially distributed
            table = -generator.standard_exponential((count, len(unique), self.key_length), np.float32)
        else:
            draws = [generator.choice(vocabulary, len(unique), replace=False) for _ in range(count)]
            table = self._its_cost(generator.random((count, self.key_length)), np.array(draws), vocabulary)
        return self._align(table[:, inverse])

    def detect(self, ids: Any, key: bytes, vocabulary: int, *, null: np.ndarray | None = None) -> Reading:
        """Whether the ids were sampled with this key: outcome "read" (p-value at most ``alpha``) or "absent".

        null: statistics of unmarked texts of the same length under other keys, computed once for many texts (the
        p-value then rests on those texts being like this one); by default fresh keys on this very text. details:
        statistic, tokens, block, resamples. The test draws the same fresh keys every time. Raises UsageError.
        """
        ids = _ids(ids, vocabulary)
        if not len(ids):
            return Reading("absent", 1.0, details={"why": "the text holds no token", "tokens": 0})
        statistic = self.statistic(ids, key, vocabulary)
        if null is None:
            generator = rng(0, "text null", self.scheme, ids.tobytes())
            p_value, used = permutation_p_value(
                statistic, lambda n: self.null(ids, vocabulary, n, generator), self._affordable(len(ids)),
                stop_after=self.stop_after, batch=32,
            )  # fmt: skip
        else:
            used = len(null)
            p_value = (1 + int((np.asarray(null) <= statistic).sum())) / (1 + used)
        details = {"statistic": statistic, "tokens": len(ids), "block": self._blocks(len(ids))[0], "resamples": used}
        outcome = "read" if p_value <= self.alpha else "absent"
        return Reading(outcome, p_value, confidence=1.0 - p_value, details=details)

    def read_text(self, text: str, key: bytes, tokenizer: Any) -> Reading:
        """As `detect`, on text. The tokenizer is the one of the model that wrote it."""
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return self.detect(ids, key, len(tokenizer))

    def _affordable(self, tokens: int) -> int:
        """Fresh keys for a text of that length: fewer for long ones, never so few that ``alpha`` is out of reach."""
        block, stride = self._blocks(tokens)
        cells = self.key_length * block * ((tokens - block) // stride + 1) * (1 if self.gap is None else block)
        return min(self.resamples, max(math.ceil(1 / self.alpha) - 1, int(_CELLS / cells)))

    def _its_cost(self, u: np.ndarray, ranks: np.ndarray, vocabulary: int) -> np.ndarray:
        return np.abs(u[:, None, :] - ((ranks + 0.5) / vocabulary)[:, :, None]).astype(np.float32)

    def _blocks(self, tokens: int) -> tuple[int, int]:
        block = min(tokens, self.block or 100)
        # Half-overlapping blocks: any marked stretch of 1.5 blocks holds one, and long texts stay affordable.
        return block, 1 if tokens == block else max(1, block // 2)

    def _align(self, cost: np.ndarray) -> np.ndarray:
        block, stride = self._blocks(cost.shape[1])
        if self.gap is None:
            return alignment_cost(cost, block, stride=stride)
        return edit_alignment_cost(cost, block, gap=self.gap, stride=stride)


class _Hook:
    def __init__(self, system: DistortionFreeText, key: bytes, seed: int | None, temperature: float) -> None:
        self.system, self.key, self.seed, self.temperature = system, key, seed, temperature
        self.start = 0
        self.previous: Any = None
        self.shifts = np.zeros(0, np.int64)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        rows, length = input_ids.shape
        if self.previous is None or not torch.equal(input_ids[:, :-1], self.previous):  # a new text begins
            self.start = length
            seeds = [None if self.seed is None else self.seed + i for i in range(rows)]
            self.shifts = np.array([self.system._shift(seed) for seed in seeds])
        self.previous = input_ids
        law = torch.softmax(scores.double() / self.temperature, dim=-1).cpu().numpy()
        tokens = self.system.choose(law, (self.shifts + length - self.start) % self.system.key_length, self.key)
        chosen = torch.full_like(scores, -math.inf)
        chosen[torch.arange(rows), torch.as_tensor(tokens, device=scores.device)] = 0.0
        return chosen


def _order(key: bytes, tokens: np.ndarray) -> np.ndarray:
    """Numbers whose order is the permutation of the vocabulary."""
    return KeyedUniforms(key, "text order")(0, tokens)


def _ids(ids: Any, vocabulary: int | None = None) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.size == 0:
        return np.zeros(0, np.int64)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise UsageError(f"Token ids are a flat list of integers, got {ids.dtype} of shape {ids.shape}.")
    if ids.min() < 0 or (vocabulary is not None and ids.max() >= vocabulary):
        raise UsageError(f"Token ids lie between 0 and the size of the vocabulary, {vocabulary}; check the tokenizer.")
    return ids.astype(np.int64)


class _CausalModel:
    """Next-token probabilities of a transformers causal model; keeps its cache while the text only grows."""

    def __init__(self, model: Any, temperature: float) -> None:
        self.model, self.temperature = model, temperature
        self.seen: list[int] = []
        self.cache: Any = None

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        import torch

        tokens = ids.tolist()
        fresh = tokens[len(self.seen) :] if self.cache is not None and tokens[: len(self.seen)] == self.seen else tokens
        past = self.cache if len(fresh) < len(tokens) else None
        device = next(self.model.parameters()).device
        with torch.no_grad():
            out = self.model(torch.tensor([fresh], device=device), past_key_values=past, use_cache=True)
        self.seen, self.cache = tokens, out.past_key_values
        return torch.softmax(out.logits[0, -1].double() / self.temperature, dim=-1).cpu().numpy()


def sample(
    model: Any, prompt: Any, count: int, choose: Callable[[np.ndarray, np.ndarray, int], int], *,
    temperature: float = 1.0, stop: Collection[int] = (),
) -> Generated:  # fmt: skip
    """Continue a prompt by ``count`` tokens; ``choose(ids, probabilities, step)`` picks each. Raises UsageError."""
    ids = _ids(prompt)
    if not temperature > 0 or count < 0:
        raise UsageError(f"The temperature is positive and the count not negative; got {temperature} and {count}.")
    is_network = hasattr(model, "config") and hasattr(model, "parameters")
    if is_network and not len(ids):
        raise UsageError("A language model needs a prompt of at least one token.")
    if is_network:
        was_training = model.training
        model.eval()
    law_of = _CausalModel(model, temperature) if is_network else model
    start, potential = len(ids), []
    for step in range(count):
        law = np.asarray(law_of(ids), np.float64)
        if law.ndim != 1 or not np.isfinite(law).all() or law.min() < 0 or not np.isclose(law.sum(), 1, atol=1e-4):
            raise UsageError("The model did not return probabilities that sum to 1, one for each token.")
        token = choose(ids, law, step)
        potential.append(1 - law[token])
        ids = np.append(ids, token)
        if token in stop:
            break
    if is_network:
        model.train(was_training)
    return Generated(ids[start:], float(np.mean(potential)) if potential else 0.0)


# attacks --------------------------------------------------------------------------------------------------------------


def substitute(ids: Any, rate: float, vocabulary: int, generator: np.random.Generator) -> np.ndarray:
    """Replace the share ``rate`` of the tokens, at random places, by random tokens. Raises UsageError."""
    ids, places = _places(ids, rate, generator)
    ids[places] = generator.integers(vocabulary, size=len(places))
    return ids


def insert(ids: Any, rate: float, vocabulary: int, generator: np.random.Generator) -> np.ndarray:
    """Insert random tokens at random places, ``rate`` for every token of the text. Raises UsageError."""
    ids, places = _places(ids, rate, generator)
    return np.insert(ids, places, generator.integers(vocabulary, size=len(places)))


def delete(ids: Any, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Delete the share ``rate`` of the tokens at random places. Raises UsageError."""
    ids, places = _places(ids, rate, generator)
    return np.delete(ids, places)


def round_trip(text: str, there: Callable[[str], str], back: Callable[[str], str]) -> str:
    """Paraphrase by translation into another language and back, with the caller's models."""
    return back(there(text))


def _places(ids: Any, rate: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ids = _ids(ids).copy()
    if not 0 <= rate <= 1:
        raise UsageError(f"The rate of an attack lies between 0 and 1; got {rate}.")
    return ids, generator.choice(len(ids), round(rate * len(ids)), replace=False) if len(ids) else np.zeros(0, int)
