"""Words of a text in their places, their parts of speech by rule, and a table of synonyms that keeps the grammar.

Nothing here needs a model. A part of speech is read from the word and the function words beside it, which are never
replaced, so that a replaced word is tagged as the original was.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CHUNK = re.compile(r"\S+")
_CORE = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*\Z")
_OPENING, _CLOSING = "([{\"'“‘«¿¡*", ".,;:!?)]}\"'”’»…*"
#: Spelled with a vowel but spoken with a consonant, and the other way round.
_SPOKEN_CONSONANT = re.compile(r"(?:u(?:n(?:i|a(?!n|c))|s[aeiu]|t[ei]|bi)|eu|one|once)")
_SPOKEN_VOWEL = re.compile(r"(?:hour|honest|honou?r|heir)")
_SUFFIXES = (
    ("adverb", ("ly",)), ("ing", ("ing",)), ("past", ("ed",)),
    ("noun", ("tion", "sion", "ness", "ment", "ity", "ance", "ence", "ship", "ism", "ist", "er", "or")),
    ("adjective", ("ous", "ful", "able", "ible", "al", "ive", "ic", "less", "ary")),
    ("plural", ("tions", "nesses", "ments", "ities", "ers", "ors")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Word:
    """A word without the punctuation around it: ``text[start:end]``.

    lower: in small letters and composed form, which is what hashes and tables see. plain: nothing but letters, written
    small or with a capital at the start of a sentence (other capitals mark names). first: starts a sentence.
    closed: punctuation follows.
    """

    text: str
    lower: str
    start: int
    end: int
    plain: bool
    first: bool
    closed: bool


def split_words(text: str) -> list[Word]:
    """The words of a text in order, whatever its script; everything between white space counts as one word.

    >>> [w.text for w in split_words("However, it works (twice).")]
    ['However', 'it', 'works', 'twice']
    """
    words = []
    sentence = True
    for chunk in _CHUNK.finditer(text):
        raw = chunk.group()
        left = len(raw) - len(raw.lstrip(_OPENING))
        core = raw[left:].rstrip(_CLOSING)
        start = chunk.start() + left
        if core:
            letters = bool(_CORE.match(core))
            case = core.islower() or (sentence and core[0].isupper() and core[1:].islower())
            lower = unicodedata.normalize("NFC", core).lower()
            closed = start + len(core) < chunk.end()
            words.append(Word(core, lower, start, start + len(core), letters and case, sentence, closed))
            sentence = False
        sentence = (
            sentence or bool(re.search(r"[.!?:][^\w\s]*\Z", raw)) or text[chunk.end() : chunk.end() + 2] == "\n\n"
        )
    return words


def replace_words(text: str, words: Sequence[Word], changed: dict[int, str]) -> str:
    """The text with some words replaced, in the capitals of the original; all other characters stay as they are."""
    pieces, at = [], 0
    for index in sorted(changed):
        word, new = words[index], changed[index]
        pieces += [text[at : word.start], new[:1].upper() + new[1:] if word.text[0].isupper() else new]
        at = word.end
    return "".join([*pieces, text[at:]])


@dataclass(frozen=True)
class _Entry:
    """A form of the table: the set it belongs to (-1: none) and its inflection."""

    group: int
    tag: str


class SynonymTable:
    """Synonym sets with inflection, agreement and a tagger; by default the one that comes with the package.

    Candidates share the part of speech, the inflection and the article ("a" or "an") of the word they replace, and are
    tagged as it is in the same place: acceptability is symmetric, so reader and writer see the same choices.

    >>> table = SynonymTable()
    >>> table.candidates(split_words("The method of choice."), 1)
    ['approach', 'technique']
    """

    def __init__(self, path: str | Path | None = None) -> None:
        source = Path(path) if path else Path(__file__).with_name("synonyms.json")
        data = json.loads(source.read_text(encoding="utf-8"))
        self.stop = frozenset(data["stop"].split())
        self.classes = {
            side: {word: name for name, listed in data[side].items() for word in listed.split()}
            for side in ("left", "right")
        }
        self.fixed = _phrases(tuple(data["fixed"]))
        self.members: list[dict[str, list[str]]] = []
        self.entries: dict[str, list[_Entry]] = {}
        for part in ("verb", "noun", "adjective", "adverb", "modal"):
            for line in data[part]:
                self._add(part, line.split())
        for part, lemmas in data["also"].items():
            for lemma in lemmas:
                for tag, form in _inflect(part, lemma).items():
                    self._enter(form, _Entry(-1, tag))

    def _add(self, part: str, lemmas: list[str]) -> None:
        forms: dict[str, list[str]] = {}
        for lemma in lemmas:
            for tag, form in _inflect(part, lemma).items():
                # A form belongs to the first set that lists it, so that the sets are disjoint.
                if not any(e.tag == tag and e.group >= 0 for e in self.entries.get(form, ())):
                    forms.setdefault(tag, []).append(form)
        for tag, same in forms.items():
            for form in same:
                self._enter(form, _Entry(len(self.members), tag))
        self.members.append(forms)

    def _enter(self, form: str, entry: _Entry) -> None:
        known = self.entries.setdefault(form, [])
        if not any(e.tag == entry.tag for e in known):
            known.append(entry)

    def tag(self, words: Sequence[Word], index: int, form: str | None = None) -> str | None:
        """The part of speech of a word, or of ``form`` in its place; None where it cannot be told.

        One of "stop", "noun", "plural", "base", "third", "ing", "past", "adjective", "adverb", "modal".
        """
        form = words[index].lower if form is None else form
        if form in self.stop:
            return "stop"
        options = {e.tag for e in self.entries.get(form, ())}
        if not options:
            return next((tag for tag, ends in _SUFFIXES if form.endswith(ends) and len(form) > 4), "noun")
        first = index == 0 or words[index].first or words[index - 1].closed
        left = "." if first else self.classes["left"].get(words[index - 1].lower, "")
        last = index + 1 == len(words) or words[index].closed
        return _decide(options, left, "." if last else self.classes["right"].get(words[index + 1].lower, ""))

    def content(self, words: Sequence[Word], index: int) -> bool:
        """Whether a word carries content: plain, in Latin letters, no stop word."""
        word = words[index]
        return word.plain and word.lower.isascii() and len(word.lower) > 1 and word.lower not in self.stop

    def candidates(self, words: Sequence[Word], index: int) -> list[str]:
        """Words that may stand in the place of this one, without itself, in small letters; empty where none may."""
        word = words[index]
        if not self.content(words, index) or word.lower not in self.entries or self._is_fixed(words, index, word.lower):
            return []
        group, tag = self._place(words, index, word.lower)
        if group < 0:
            return []
        beside = {words[i].lower for i in (index - 1, index + 1) if 0 <= i < len(words)}
        article = index > 0 and words[index - 1].lower in ("a", "an")
        return [
            form
            for form in self.members[group][tag]
            if form != word.lower
            and form not in beside
            and not (article and _vowel(form) != _vowel(word.lower))
            and self._place(words, index, form) == (group, tag)
            and not self._is_fixed(words, index, form)
        ]

    def _place(self, words: Sequence[Word], index: int, form: str) -> tuple[int, str]:
        tag = self.tag(words, index, form)
        for entry in self.entries.get(form, ()):
            if entry.tag == tag:
                return entry.group, entry.tag
        return -1, ""

    def _is_fixed(self, words: Sequence[Word], index: int, form: str) -> bool:
        for phrase, at in self.fixed.get(form, ()):
            first = index - at
            if first >= 0 and first + len(phrase) <= len(words):
                there = [words[first + i].lower if i != at else form for i in range(len(phrase))]
                if there == list(phrase):
                    return True
        return False


_VERBS = {"base", "third"}
_NOUNS = {"noun", "plural"}


def _decide(options: set[str], left: str, right: str) -> str | None:
    """The part of speech that the function words beside call for, None if they do not say.

    left, right: the class of the word beside (see ``left`` and ``right`` of the table), "." at a break, "" for content.
    """
    if options <= {"past"} | {"ing"} | {"adverb"} | {"modal"}:
        if "ing" in options and left == "the":
            return None
        return next(iter(options)) if len(options) == 1 else None
    if left in ("to", "can", "not", "they") and options & _VERBS:
        wanted = {"base"} if left in ("to", "can", "not") else _VERBS
        return _only(options & wanted)
    if left in ("be", "have") and options & {"past", "ing", "adjective", "adverb"}:
        return _only(
            options & {"past", "ing", "adjective", "adverb"} - ({"adjective", "ing"} if left == "have" else set())
        )
    if left in ("the", "of"):
        named = options & _NOUNS
        if right == "" and "adjective" in options:
            return "adjective"
        if named:
            return _only(named)
        return _only(options - _VERBS)
    if len(options) == 1:
        return next(iter(options))
    if right in ("the", "it") and options & _VERBS:
        return _only(options & _VERBS)
    if right in ("of", "be", "have", "can", "and", ".") and options & _NOUNS and left != ".":
        return _only(options & _NOUNS)
    return None


def _only(options: set[str]) -> str | None:
    return next(iter(options)) if len(options) == 1 else None


def _vowel(word: str) -> bool:
    """Whether the article before the word is "an"."""
    return bool(_SPOKEN_VOWEL.match(word)) or (word[0] in "aeiou" and not _SPOKEN_CONSONANT.match(word))


def _inflect(part: str, lemma: str) -> dict[str, str]:
    base, *forms = lemma.split(":")
    tags: tuple[str, ...]
    if part == "verb":
        tags, made = ("base", "third", "ing", "past"), [base, _s(base), _ing(base), _past(base)]
    elif part == "noun":
        tags, made = ("noun", "plural"), [base, _s(base)]
    else:
        tags, made = (part,), [base]
    made[1 : 1 + len(forms)] = forms
    return {tag: form for tag, form in zip(tags, made) if form != "-"}


def _s(word: str) -> str:
    if re.search(r"[^aeiou]y\Z", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(?:s|x|z|ch|sh)\Z", word) else "s")


def _ing(word: str) -> str:
    if re.search(r"[^aeiou][aeiou][bdgmnprt]\Z", word) and len(word) <= 4:
        return word + word[-1] + "ing"
    return (word[:-1] if word.endswith("e") and not word.endswith("ee") else word) + "ing"


def _past(word: str) -> str:
    if re.search(r"[^aeiou]y\Z", word):
        return word[:-1] + "ied"
    if word.endswith("e"):
        return word + "d"
    if re.search(r"[^aeiou][aeiou][bdgmnprt]\Z", word) and len(word) <= 4:
        return word + word[-1] + "ed"
    return word + "ed"


@cache
def _phrases(fixed: tuple[str, ...]) -> dict[str, list[tuple[tuple[str, ...], int]]]:
    """Fixed phrases by each of their words, with the place of the word."""
    found: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for line in fixed:
        phrase = tuple(line.split())
        for at, word in enumerate(phrase):
            found.setdefault(word, []).append((phrase, at))
    return found
