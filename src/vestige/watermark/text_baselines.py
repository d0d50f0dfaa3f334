"""Token watermarks that distort, or depend on their context: the references for distortion-free and synonym marks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.roles import Reading
from vestige.core.runtime import rng
from vestige.engines.sequence_tests import KeyedUniforms, proportion_test
from vestige.watermark.distortion_free_text import Generated, sample


class GreenList:
    """Adds δ to the logits of a keyed green share γ of the vocabulary that depends on the previous token.

    p'_v ∝ p_v · exp(δ · [v is green after the previous token]). Detection counts green tokens over distinct pairs
    (previous, token): z = (g - γn) / sqrt(nγ(1-γ)). Raises UsageError for values out of range.
    Source: Kirchenbauer et al., A watermark for large language models, ICML 2023.

    >>> mark = GreenList(delta=4.0)
    >>> text = mark.generate(lambda ids: np.full(64, 1 / 64), [0], 40, b"key", seed=0).ids
    >>> mark.detect(text, b"key").outcome, mark.detect(text, b"other").outcome
    ('read', 'absent')
    """

    slug = "green_list"

    def __init__(self, *, gamma: float = 0.25, delta: float = 2.0, alpha: float = 0.01) -> None:
        if not (0 < gamma < 1 and delta >= 0 and 0 < alpha < 1):
            raise UsageError(f"gamma and alpha lie between 0 and 1, delta is not negative; got {gamma}, {delta}.")
        self.gamma, self.delta, self.alpha = gamma, delta, alpha

    def green(self, key: bytes, previous: Any, tokens: Any) -> np.ndarray:
        """Whether tokens are on the green list after the previous ones, bool."""
        return KeyedUniforms(key, "text green list")(previous, tokens) < self.gamma

    def biased(self, law: np.ndarray, previous: int, key: bytes) -> np.ndarray:
        """The probabilities the next token is drawn from, float (V,)."""
        law = law * np.exp(self.delta * self.green(key, previous, np.arange(len(law))))
        return law / law.sum()

    def generate(
        self, model: Any, prompt: Any, count: int, key: bytes, *, seed: int = 0, temperature: float = 1.0,
        stop: Collection[int] = (),
    ) -> Generated:  # fmt: skip
        """As `distortion_free_text.DistortionFreeText.generate`; the prompt holds a token or more."""
        generator = rng(seed, "green list")
        _needs_context(prompt, 1)

        def choose(ids: np.ndarray, law: np.ndarray, step: int) -> int:
            return int(generator.choice(len(law), p=self.biased(law, int(ids[-1]), key)))

        return sample(model, prompt, count, choose, temperature=temperature, stop=stop)

    def detect(self, ids: Any, key: bytes) -> Reading:
        """outcome "read" where the p-value of the green count is at most ``alpha``; details: z, n."""
        ids = np.asarray(ids, np.int64)
        pairs = np.unique(np.stack([ids[:-1], ids[1:]], axis=1), axis=0)
        green = int(self.green(key, pairs[:, 0], pairs[:, 1]).sum())
        z, p_value = proportion_test(green, len(pairs), self.gamma)
        outcome = "read" if p_value <= self.alpha else "absent"
        return Reading(outcome, p_value, confidence=1 - p_value, details={"z": z, "n": len(pairs)})


class HashGumbel:
    """argmax_v log(ξ_v) / p_v with ξ seeded by the ``width`` previous tokens: exact per token, repeats with context.

    Detection: Σ -log(1 - ξ_y) over distinct (context, token) is Gamma(n, 1) on unmarked text. Raises UsageError.
    Source: Aaronson, lecture on watermarking of large language models, 2023.

    >>> mark = HashGumbel(width=1)
    >>> text = mark.generate(lambda ids: np.full(64, 1 / 64), [0], 30, b"key").ids
    >>> mark.detect(text, b"key").outcome, mark.detect(text, b"other").outcome
    ('read', 'absent')
    """

    slug = "hash_gumbel"

    def __init__(self, *, width: int = 2, alpha: float = 0.01) -> None:
        if width < 1 or not 0 < alpha < 1:
            raise UsageError(f"The width is 1 or more and alpha lies between 0 and 1; got {width} and {alpha}.")
        self.width, self.alpha = width, alpha

    def generate(
        self, model: Any, prompt: Any, count: int, key: bytes, *, temperature: float = 1.0, stop: Collection[int] = ()
    ) -> Generated:
        """As `distortion_free_text.DistortionFreeText.generate`, without chance: equal prompts give equal texts."""
        uniforms = KeyedUniforms(key, "text gumbel")
        _needs_context(prompt, self.width)

        def choose(ids: np.ndarray, law: np.ndarray, step: int) -> int:
            xi = uniforms(_context(ids[-self.width :]), np.arange(len(law)))
            with np.errstate(divide="ignore"):
                return int(np.where(law > 0, np.log(xi) / law, -np.inf).argmax())

        return sample(model, prompt, count, choose, temperature=temperature, stop=stop)

    def detect(self, ids: Any, key: bytes) -> Reading:
        """outcome "read" where the p-value of the summed scores is at most ``alpha``; details: n."""
        from scipy.stats import gamma

        ids = np.asarray(ids, np.int64)
        seen = {(_context(ids[i - self.width : i]), int(ids[i])) for i in range(self.width, len(ids))}
        if not seen:
            return Reading("absent", 1.0, details={"n": 0})
        contexts, tokens = (np.array(part, np.uint64) for part in zip(*sorted(seen)))
        score = -np.log1p(-KeyedUniforms(key, "text gumbel")(contexts, tokens)).sum()
        p_value = float(gamma.sf(score, len(seen)))
        outcome = "read" if p_value <= self.alpha else "absent"
        return Reading(outcome, p_value, confidence=1 - p_value, details={"n": len(seen)})


def _context(ids: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=8).digest(), "little")


def _needs_context(prompt: Any, width: int) -> None:
    if len(prompt) < width:
        raise UsageError(f"This mark depends on {width} previous tokens; give a prompt of at least that many.")
