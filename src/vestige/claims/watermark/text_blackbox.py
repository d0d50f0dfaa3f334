"""Claims of the synonym mark, on the documentation that ships with the package's dependencies.

The texts are split by a hash of the paragraph: word vectors are fitted on one half, every figure comes from the other.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.claims.watermark.distortion_free_text import Language
from vestige.core.keys import derive
from vestige.core.runtime import rng
from vestige.engines.sequence_tests import proportion_test
from vestige.watermark.text_baselines import GreenList
from vestige.watermark.text_blackbox import TableCandidates, TextBlackbox
from vestige.watermark.text_words import SynonymTable, replace_words, split_words

MARKED, UNMARKED, ALPHA = 200, 1000, 0.05
LENGTHS = (50, 100, 200, 400)
PACKAGES = (
    "numpy", "scipy.stats", "scipy.signal", "scipy.optimize", "scipy.special", "scipy.ndimage", "scipy.linalg",
    "sklearn.cluster", "sklearn.linear_model", "sklearn.ensemble", "sklearn.metrics", "sklearn.preprocessing",
    "sklearn.decomposition", "sklearn.svm", "sklearn.model_selection", "torch.nn", "torch.optim",
)  # fmt: skip


_table = lru_cache(1)(SynonymTable)


@lru_cache(2)
def paragraphs(half: str) -> tuple[str, ...]:
    """Prose paragraphs of Python's help topics, data set descriptions and docstrings; half: "fit" or "test"."""
    import importlib
    from importlib.resources import files
    from pydoc_data.topics import topics

    sources = list(topics.values())
    sources += [f.read_text("utf-8") for f in files("sklearn.datasets.descr").iterdir() if f.name.endswith(".rst")]
    for package in PACKAGES:
        members = vars(importlib.import_module(package))
        documented = (members[name] for name in sorted(members) if not inspect.ismodule(members[name]))
        sources += [
            inspect.cleandoc(d) for d in (getattr(m, "__doc__", None) for m in documented) if isinstance(d, str)
        ]
    found = sorted({p for source in sources for p in _prose(source)})
    return tuple(p for p in found if (hashlib.sha256(p.encode()).digest()[0] % 2 == 0) == (half == "fit"))


def _prose(source: str) -> list[str]:
    kept = []
    for block in re.split(r"\n\s*\n", source):
        text = " ".join(line.strip() for line in block.split("\n")).strip()
        words = re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)
        if len(words) < 12 or not text[0].isupper() or text[-1] not in ".:":
            continue
        symbols = len(re.findall(r"[^A-Za-z\s.,;:'\"()\-]", text))
        code = any(mark in text for mark in (">>>", "::=", " : ", "---"))
        if not code and symbols <= 0.03 * len(text) and sum(map(len, words)) >= 0.7 * len(text):
            kept.append(text)
    return kept


def _split(paragraph: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", paragraph) if s.count(" ") >= 5]


@lru_cache(2)
def _sentences(rich: bool) -> tuple[str, ...]:
    """Sentences of the test half; rich: those where a fifth of the words or more have synonyms."""
    found = sorted(
        {s for p in paragraphs("test") for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", p) if s.count(" ") >= 5}
    )
    return tuple(s for s in found if not rich or coverage(s) >= 0.2)


def coverage(text: str) -> float:
    """Share of the words that have a synonym."""
    words, table = split_words(text), _table()
    return sum(bool(table.candidates(words, i)) for i in range(len(words))) / max(1, len(words))


def texts(count: int, length: int, rich: bool, *seed: object) -> list[str]:
    """Texts of ``length`` words made of whole sentences in random order, the last one cut short."""
    pool, made = _sentences(rich), []
    for i in range(count):
        words: list[str] = []
        for at in rng(0, "texts", length, rich, i, *seed).permutation(len(pool)):
            words += pool[at].split()
            if len(words) >= length:
                break
        made.append(" ".join(words[:length]))
    return made


def _key(context: ClaimContext, i: int) -> bytes:
    return derive(b"text claim", f"{context.seed} {i}")


def _delete(text: str, rate: float, generator: np.random.Generator) -> str:
    words = text.split()
    gone = set(generator.choice(len(words), round(rate * len(words)), replace=False).tolist())
    return " ".join(word for i, word in enumerate(words) if i not in gone)


def random_synonyms(text: str, changes: int, generator: np.random.Generator) -> str:
    """As many words as the mark changed, at random places, each replaced by a random candidate."""
    words, table, changed = split_words(text), _table(), dict[int, str]()
    for index in generator.permutation(len(words)):
        if len(changed) == changes:
            break
        choices = table.candidates(words, int(index))
        if choices:
            changed[int(index)] = choices[int(generator.integers(len(choices)))]
    return replace_words(text, words, changed)


class SequentialSynonyms:
    """As ContextLS: the j-th word with synonyms carries message bit j as the parity of its place in the sorted set."""

    def _places(self, text: str) -> list[tuple[int, list[str], int]]:
        words, table, places = split_words(text), _table(), []
        for index in range(len(words)):
            choices = table.candidates(words, index)
            if choices:
                ranked = sorted([*choices, words[index].lower])
                places.append((index, ranked, ranked.index(words[index].lower)))
        return places

    def _message(self, key: bytes, length: int) -> np.ndarray:
        return np.random.default_rng(list(derive(key, "message"))).integers(0, 2, length)

    def mark_text(self, text: str, key: bytes) -> str:
        places = self._places(text)
        bits = self._message(key, len(places))
        changed = {i: ranked[at ^ 1 if at ^ 1 < len(ranked) else at - 1]
                   for (i, ranked, at), bit in zip(places, bits) if at % 2 != bit}  # fmt: skip
        return replace_words(text, split_words(text), changed)

    def z(self, text: str, key: bytes) -> tuple[float, float]:
        places = self._places(text)
        agree = [at % 2 == bit for (_, _, at), bit in zip(places, self._message(key, len(places)))]
        return proportion_test(sum(agree), len(agree))


def _row(mark: str, kind: str, length: int, tests: list[tuple[float, float]], **more: Any) -> dict[str, Any]:
    z, called = [z for z, _ in tests], [p <= ALPHA for _, p in tests]
    return {
        "mark": mark, "texts": kind, "words": length, "count": len(tests), "mean z": float(np.mean(z)),
        "called marked": float(np.mean(called)), **more,
    }  # fmt: skip


def _tests(pairs: list[tuple[str, bytes]], mode: str) -> list[tuple[float, float]]:
    system = TextBlackbox()
    found = [system.detect(text, key, mode) for text, key in pairs]
    return [(d.z, d.p_value) for d in found]


def _marked(context: ClaimContext, length: int, rich: bool) -> list[tuple[str, bytes]]:
    system, count = TextBlackbox(), context.limit or MARKED
    made = texts(count, length, rich, context.seed)
    return [(system.mark_text(text, _key(context, i)), _key(context, i)) for i, text in enumerate(made)]


def _kind(rich: bool) -> str:
    return "coverage 20 % or more" if rich else "any coverage"


@headline(
    "200 words with synonyms for a fifth of them: TPR >= 0.95 at alpha = 0.05 in precise mode, false-positive rate of "
    "1,000 unmarked texts 0.05 ± 0.015"
)
def tells_marked_from_unmarked(context: ClaimContext) -> Evidence:
    rows, holds = [], True
    for rich in (True, False):
        plain = texts(UNMARKED if not context.limit else context.limit, 200, rich, "unmarked", context.seed)
        unmarked = [(text, _key(context, -1 - i)) for i, text in enumerate(plain)]
        marked = _marked(context, 200, rich)
        share = float(np.mean([coverage(text) for text in plain[:50]]))
        for mode in ("precise", "fast"):
            hits, alarms = _tests(marked, mode), _tests(unmarked, mode)
            rows.append(_row(f"synonyms, {mode}", _kind(rich), 200, hits, coverage=share))
            rows.append(_row(f"unmarked, {mode}", _kind(rich), 200, alarms, coverage=share))
            if rich and mode == "precise":
                holds = rows[-2]["called marked"] >= 0.95 and abs(rows[-1]["called marked"] - 0.05) <= 0.015
    rows += _baselines(context)
    note = f"The texts are drawn from {len(_sentences(True))} and {len(_sentences(False))} sentences; keys are fresh."
    return Evidence(holds, rows, note)


def _baselines(context: ClaimContext) -> list[dict[str, Any]]:
    system, sequential = TextBlackbox(), SequentialSynonyms()
    generator = rng(context.seed, "baselines")
    originals = texts(context.limit or MARKED, 200, True, context.seed)
    random, ordered, cut = [], [], []
    for i, text in enumerate(originals):
        key = _key(context, i)
        changes = len(system.replacements(text, split_words(text), key))
        random.append((random_synonyms(text, changes, generator), key))
        marked = sequential.mark_text(text, key)
        ordered.append(sequential.z(marked, key))
        cut.append(sequential.z(_delete(marked, 0.1, generator), key))
    rows = [
        _row("random synonyms, precise", _kind(True), 200, _tests(random, "precise")),
        _row("sequential synonyms (as ContextLS)", _kind(True), 200, ordered),
        _row("the same, 10 % of words deleted", _kind(True), 200, cut),
    ]
    language, green = Language(3.0), []
    for i in range(min(50, context.limit or MARKED)):
        ids = GreenList(delta=2.0).generate(language, [i], 200, _key(context, i), seed=i).ids
        found = GreenList(delta=2.0).detect(ids, _key(context, i))
        green.append((float((found.details or {})["z"]), found.p_value))
    return [*rows, _row("green list (needs the model's logits)", "language of 3 bits a token", 200, green)]


@claim("precise detection has a higher mean z than fast detection at every length from 50 to 400 words")
def precise_beats_fast(context: ClaimContext) -> Evidence:
    rows, holds = [], True
    for rich in (True, False):
        for length in LENGTHS:
            marked = _marked(context, length, rich)
            precise, fast = (
                _row(f"synonyms, {m}", _kind(rich), length, _tests(marked, m)) for m in ("precise", "fast")
            )
            rows += [precise, fast]
            holds = holds and precise["mean z"] > fast["mean z"]
    return Evidence(holds, rows)


@claim("after 10 % of the words were deleted at random, 200 words with synonyms for a fifth of them keep TPR >= 0.8")
def survives_word_deletion(context: ClaimContext) -> Evidence:
    rows = []
    for rich in (True, False):
        for rate in (0.0, 0.1, 0.2, 0.3):
            generator = rng(context.seed, "deletion", rate)
            cut = [(_delete(text, rate, generator), key) for text, key in _marked(context, 200, rich)]
            rows.append(_row("synonyms, precise", _kind(rich), 200, _tests(cut, "precise"), deleted=rate))
    judged = next(r for r in rows if r["texts"] == _kind(True) and r["deleted"] == 0.1)
    return Evidence(judged["called marked"] >= 0.8, rows)


@lru_cache(1)
def _word_vectors() -> dict[str, np.ndarray]:
    """Words of the fitting half as left singular vectors of their positive pointwise mutual information (window 4)."""
    from scipy.sparse import coo_matrix
    from sklearn.decomposition import TruncatedSVD

    index: dict[str, int] = {}
    rows, columns = [], []
    for paragraph in paragraphs("fit"):
        ids = [index.setdefault(w.lower, len(index)) for w in split_words(paragraph)]
        for i, a in enumerate(ids):
            for b in ids[max(0, i - 4) : i]:
                rows += [a, b]
                columns += [b, a]
    counts = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(index),) * 2).tocsr()
    counts.sum_duplicates()
    totals, pairs = np.asarray(counts.sum(1)).ravel(), counts.tocoo()
    pairs.data = np.maximum(np.log(pairs.data * totals.sum() / (totals[pairs.row] * totals[pairs.col])), 0.0)
    vectors = TruncatedSVD(100, random_state=0).fit_transform(pairs.tocsr())
    return dict(zip(index, vectors))


@lru_cache(2)
def _sentence_similarity(half: str) -> Callable[[str, str], float]:
    """Cosine of latent semantic sentence vectors, fitted on the sentences of one half of the texts."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), TruncatedSVD(200, random_state=0))
    model.fit(sorted({s for p in paragraphs(half) for s in _split(p)}))

    def similarity(a: str, b: str) -> float:
        x, y = model.transform([a, b])
        return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-12))

    return similarity


@claim(
    "sentence similarity of marked and original text >= 0.9 and above random synonyms with as many changes "
    "(paired p < 0.05)"
)
def keeps_the_meaning(context: ClaimContext) -> Evidence:
    from scipy.stats import ttest_rel

    judge, rows = _sentence_similarity("test"), list[dict[str, Any]]()
    originals = texts(context.limit or MARKED, 200, True, context.seed)
    ranked = TableCandidates(_table(), _word_vectors())
    systems = {
        "ranked by word vectors, sentences scored": TextBlackbox(
            candidates=ranked, sentence_scorer=_sentence_similarity("fit"), sentence_threshold=0.8
        ),
        "ranked by word vectors": TextBlackbox(candidates=ranked),
        "in the table's order": TextBlackbox(),
    }
    for name, system in systems.items():
        marked, random, changes, called = list[float](), list[float](), list[int](), list[bool]()
        generator = rng(context.seed, "random synonyms")
        for i, text in enumerate(originals):
            words, key = split_words(text), _key(context, i)
            changed = system.replacements(text, words, key)
            made = replace_words(text, words, changed)
            changes.append(len(changed))
            called.append(system.detect(made, key).p_value <= ALPHA)
            bounds = [*(w.start for w in words if w.first), len(text)]
            marked.append(_mean_similarity(judge, text, made, bounds))
            random.append(_mean_similarity(judge, text, random_synonyms(text, len(changed), generator), bounds))
        better = float(ttest_rel(marked, random, alternative="greater").pvalue)
        shared = {"count": len(originals), "changes": float(np.mean(changes)), "paired p": better}
        for mark, values in ((f"synonyms {name}", marked), ("random synonyms, as many", random)):
            rows.append({"mark": mark, **shared, "sentence similarity": float(np.mean(values)),
                         "lowest": float(np.min(values))})  # fmt: skip
        rows[-2]["called marked"] = float(np.mean(called))
    holds = rows[0]["sentence similarity"] >= 0.9 and rows[0]["paired p"] < 0.05
    note = (
        "Judged on the system with word vectors (S ranks) and sentence scores (R >= 0.8), both fitted on one half of "
        "the texts; similarity is measured by sentence vectors fitted on the other half."
    )
    return Evidence(holds, rows, note)


def _mean_similarity(similarity: Callable[[str, str], float], original: str, made: str, bounds: list[int]) -> float:
    """Mean over sentences. A replacement keeps the number of words, which is how sentences find each other."""
    counts = [len(original[a:b].split()) for a, b in pairwise(bounds)]
    before, after, at, values = original.split(), made.split(), 0, []
    for count in counts:
        values.append(similarity(" ".join(before[at : at + count]), " ".join(after[at : at + count])))
        at += count
    return float(np.mean(values))
