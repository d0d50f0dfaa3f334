"""Claims of the distortion-free token watermarks, on a synthetic language whose entropy is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.engines.sequence_tests import KeyedUniforms
from vestige.watermark.distortion_free_text import SCHEMES, DistortionFreeText, delete, substitute
from vestige.watermark.text_baselines import GreenList, HashGumbel

DRAWS, TEXTS, UNMARKED = 100_000, 100, 400
NULL_TEXTS, KEYS_EACH = 37, 27  # 999 null statistics
LENGTHS = (10, 20, 35, 50, 80)
DELTAS = (1.0, 1.5, 2.0)
GAP = 1.0


class Language:
    """A language of one-token memory: after every token, the same Zipf law over its own order of the vocabulary.

    The exponent of the law is solved for, so that every step has exactly ``bits`` of entropy.
    """

    def __init__(self, bits: float, vocabulary: int = 1000, seed: int = 0) -> None:
        from scipy.optimize import brentq

        logs = np.log(np.arange(1, vocabulary + 1))

        def law(exponent: float) -> np.ndarray:
            weights = np.exp(-exponent * logs)
            return weights / weights.sum()

        def excess(exponent: float) -> float:
            p = law(exponent)
            return float(-(p * np.log2(p)).sum() - bits)

        self.law, self.vocabulary = law(brentq(excess, 0.0, 8.0)), vocabulary
        self.order = lru_cache(vocabulary)(lambda token: rng(seed, "language", token).permutation(vocabulary))

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        probabilities = np.empty(self.vocabulary)
        probabilities[self.order(int(ids[-1]))] = self.law
        return probabilities

    def text(self, length: int, generator: np.random.Generator) -> np.ndarray:
        """Unmarked tokens, int64 (length,)."""
        ranks = generator.choice(self.vocabulary, length + 1, p=self.law)
        ids = [int(ranks[0])]
        for rank in ranks[1:]:
            ids.append(int(self.order(ids[-1])[rank]))
        return np.array(ids[1:])


@claim("token counts of 1e5 draws fit the model's law for ITS and EXP (chi-square p > 0.01), not for a logit bias")
def leaves_the_law_of_the_model_alone(context: ClaimContext) -> Evidence:
    from scipy.stats import chisquare

    generator = rng(context.seed, "exactness")
    law = generator.dirichlet(np.full(20, 0.7))
    joint = np.outer(law, law).ravel()
    positions = np.arange(DRAWS)
    rows: list[dict[str, Any]] = []

    def add(mark: str, tokens: np.ndarray, exact: bool) -> None:
        pairs = tokens[:-1:2] * len(law) + tokens[1::2]
        single = chisquare(np.bincount(tokens, minlength=len(law)), law * len(tokens)).pvalue
        double = chisquare(np.bincount(pairs, minlength=len(joint)), joint * len(pairs)).pvalue
        fits = bool(single > 0.01 and double > 0.01) if exact else bool(single > 0.01)
        rows.append({"mark": mark, "draws": len(tokens), "p of tokens": float(single), "p of pairs": float(double),
                     "fits": fits, "should fit": exact})  # fmt: skip

    add("none", generator.choice(len(law), DRAWS, p=law), True)
    for scheme in ("its", "exp"):
        system = DistortionFreeText(scheme, key_length=DRAWS)
        key = derive(b"exactness", f"{scheme} {context.seed}")
        parts = [system.choose(np.broadcast_to(law, (5000, len(law))), positions[i : i + 5000], key)
                 for i in range(0, DRAWS, 5000)]  # fmt: skip
        add(scheme, np.concatenate(parts), True)
    # A new context for every draw: its green lists are fresh, so that only the bias of the method remains.
    for delta in DELTAS:
        mark = GreenList(delta=delta)
        green = mark.green(derive(b"exactness", "green"), positions[:, None], np.arange(len(law)))
        biased = law * np.exp(delta * green)
        cumulative = np.cumsum(biased / biased.sum(1, keepdims=True), axis=1)
        add(f"green list, delta {delta:g}", (cumulative < generator.random((DRAWS, 1))).sum(1), False)
    xi = KeyedUniforms(derive(b"exactness", "gumbel"), "text gumbel")
    repeated = np.log(xi(positions[:, None] % 500, np.arange(len(law)))) / law
    add("hash-seeded Gumbel, 500 contexts", repeated.argmax(1), False)
    holds = all(row["fits"] == row["should fit"] for row in rows)
    return Evidence(holds, rows, "The Gumbel mark is exact for one draw but repeats itself wherever its context does.")


@claim("p-values of unmarked texts are uniform (Kolmogorov-Smirnov p > 0.01) for all four schemes")
def is_calibrated_on_unmarked_text(context: ClaimContext) -> Evidence:
    from scipy.stats import kstest

    rows: list[dict[str, Any]] = []
    language = Language(3.0)
    count = context.limit or UNMARKED
    generator = rng(context.seed, "unmarked")
    for scheme in SCHEMES:
        system = DistortionFreeText(scheme, resamples=99, stop_after=0)
        values = []
        for i in range(count):
            ids = language.text(35, generator)
            values.append(system.detect(ids, derive(b"unmarked", f"{context.seed} {i}"), 1000).p_value)
        spread = np.array(values) - generator.random(count) / 100  # the grid of 100 p-values made continuous
        rows.append({"scheme": scheme, "texts": count, "Kolmogorov-Smirnov p": float(kstest(spread, "uniform").pvalue),
                     "p <= 0.01": float(np.mean(np.array(values) <= 0.01)),
                     "p <= 0.1": float(np.mean(np.array(values) <= 0.1))})  # fmt: skip
    return Evidence(all(row["Kolmogorov-Smirnov p"] > 0.01 for row in rows), rows)


@lru_cache(8)
def _language(bits: float) -> Language:
    return Language(bits)


@lru_cache(64)
def _null(seed: int, scheme: str, gap: float | None, bits: float, length: int) -> np.ndarray:
    """Statistics of unmarked texts of the language under fresh keys."""
    generator, system = rng(seed, "null", scheme, bits, length), DistortionFreeText(scheme, gap=gap)
    texts = (_language(bits).text(length, generator) for _ in range(NULL_TEXTS))
    return np.concatenate([system.null(ids, 1000, KEYS_EACH, generator) for ids in texts])


Edit = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _measure(
    context: ClaimContext, scheme: str, bits: float, length: int, attack: Edit, gap: float | None = None
) -> dict[str, Any]:
    """Detection of marked texts after an attack, against statistics of unmarked ones of the attacked length."""
    language, generator = _language(bits), rng(context.seed, scheme, bits, length)
    system, p_values, potential = DistortionFreeText(scheme, gap=gap), [], []
    for i in range(context.limit or TEXTS):
        key = derive(b"marked", f"{context.seed} {i}")
        made = system.generate(language, [i], length, key, seed=context.seed + i)
        potential.append(made.potential)
        ids = attack(made.ids, generator)
        null = _null(context.seed, scheme, gap, bits, len(ids))
        p_values.append(system.detect(ids, key, 1000, null=null).p_value)
    return {
        "scheme": scheme, "gap": system.gap, "bits": bits, "tokens": length, "median p": float(np.median(p_values)),
        "TPR at p <= 0.01": float(np.mean(np.array(p_values) <= 0.01)), "potential": float(np.mean(potential)),
    }  # fmt: skip


def _baselines(context: ClaimContext, bits: float, length: int, rate: float) -> list[dict[str, Any]]:
    language, rows = _language(bits), list[dict[str, Any]]()
    marks: list[tuple[str, Any]] = [(f"green list, delta {d:g}", GreenList(delta=d)) for d in DELTAS]
    marks += [("hash-seeded Gumbel", HashGumbel(width=1)), ("unmarked (EXP-edit's test)", None)]
    for name, mark in marks:
        p_values = []
        generator = rng(context.seed, name, bits, rate)
        for i in range(context.limit or TEXTS):
            key = derive(b"marked", f"{context.seed} {i}")
            if mark is None:
                reader = DistortionFreeText("exp-edit", resamples=99)
                p_values.append(reader.detect(language.text(length, generator), key, 1000).p_value)
                continue
            seed = {"seed": context.seed + i} if isinstance(mark, GreenList) else {}
            ids = mark.generate(language, [i], length, key, **seed).ids
            p_values.append(mark.detect(substitute(ids, rate, 1000, generator), key).p_value)
        rows.append({"scheme": name, "bits": bits, "tokens": length, "substituted": rate,
                     "median p": float(np.median(p_values)),
                     "TPR at p <= 0.01": float(np.mean(np.array(p_values) <= 0.01))})  # fmt: skip
    return rows


def _substituting(rate: float) -> Edit:
    return lambda ids, generator: substitute(ids, rate, 1000, generator)


def _deleting(ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return delete(ids, 0.1, generator)


def _every_tenth(ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.delete(ids, np.arange(4, len(ids), 10))


def _untouched(ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return ids


@headline("EXP-edit (gap 1): median p <= 0.01 from 35 tokens of 3 bits and more each, after 40 % random substitutions")
def survives_substitutions(context: ClaimContext) -> Evidence:
    rows = []

    def add(scheme: str, bits: float, length: int, rate: float, gap: float | None = None) -> None:
        rows.append({**_measure(context, scheme, bits, length, _substituting(rate), gap), "substituted": rate})

    for rate in (0.0, 0.2, 0.4, 0.5):
        for length in LENGTHS:
            add("exp-edit", 3.0, length, rate, GAP)
    for bits in (4.0, 5.0):
        add("exp-edit", bits, 35, 0.4, GAP)
    for bits in (3.0, 4.0, 5.0):
        add("exp-edit", bits, 35, 0.4)
    for scheme in ("its", "its-edit", "exp"):
        add(scheme, 3.0, 35, 0.4)
    judged = [r for r in rows if r["gap"] == GAP and r["substituted"] == 0.4 and r["tokens"] >= 35]
    for rate in (0.0, 0.4):
        rows += _baselines(context, 3.0, 35, rate)
    note = (
        "Judged on gap 1, chosen on another language of 3 bits, at 40 % for all lengths from 35 and all entropies; the "
        "rows of gap 0 are the paper's setting. Null statistics: unmarked texts of the same language under other keys."
    )
    return Evidence(all(row["median p"] <= 0.01 for row in judged), rows, note)


@claim("one deletion per 10 tokens destroys detection by EXP (median p > 0.05), EXP-edit keeps it (median p <= 0.01)")
def survives_deletions(context: ClaimContext) -> Evidence:
    rows = []
    systems = [(scheme, None) for scheme in SCHEMES] + [("exp-edit", GAP)]
    for scheme, gap in systems:
        for length in (50, 80):
            for name, attack in (("1 in 10", _deleting), ("every tenth", _every_tenth), ("none", _untouched)):
                rows.append({**_measure(context, scheme, 3.0, length, attack, gap), "deleted": name})
    cut = [r for r in rows if r["deleted"] == "1 in 10"]
    holds = all(r["median p"] > 0.05 for r in cut if r["scheme"] == "exp")
    holds = holds and all(r["median p"] <= 0.01 for r in cut if r["scheme"] == "exp-edit")
    note = "Judged on a tenth of the tokens deleted at random places, by EXP and by EXP-edit with either gap."
    return Evidence(holds, rows, note)
