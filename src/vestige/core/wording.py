"""From findings to a verdict in words: facts as facts, signs as signs with their rate, and what was not looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vestige.core.findings import KINDS, NEUTRAL, Domain, Finding, Generation, Stability, Verdict
from vestige.core.rates import rate_words, share

#: Examiners that look for generation only in what the file says of itself, or in a mark.
RECORD_READERS = ("generator_tags", "c2pa", "find_mark")
_NO_PROOF = "This does not prove that the {} is untouched: careful edits and heavy compression leave little to see."
_ORDINARY = "Saving, scaling and adjusting a {} are ordinary and say nothing about its content."
_STATISTICAL = (
    "Signs are wrong on a share of untouched pictures, and on more of them where pictures are unlike the photographs "
    "behind the thresholds; look at the maps before drawing a conclusion."
)


def verdict_of(
    findings: Sequence[Finding],
    thing: str,
    combined: str,
    combination: Mapping[str, Any],
    domain: Domain | None = None,
    stability: Stability | None = None,
) -> Verdict:
    """The verdict on a ``thing``, but for its probability.

    combined: "found", "look" or "", what the edit examiners say together. combination: the rates at which they do.
    domain: in a picture that is no ordinary photograph, what they say together is a place to look at. stability: so is
    an answer that changes once the picture is saved again or scaled.
    """
    applied = [f for f in findings if f.applies]
    generation, said = generation_of(findings), list(domain.sentences) if domain else []
    if not applied:
        return Verdict("not examined", None, (f"No examiner applies to this {thing}.", *said), generation=generation)
    flagged = [f for f in applied if f.flagged]
    signs = [f for f in flagged if f.basis == "sign"]
    facts = tuple(f.summary for f in flagged if f.basis == "fact")
    outside, flips = bool(domain and domain.names), bool(stability and stability.flipped)
    if combined == "found" and outside:
        combined = "look"
    edited = [f for f in signs if f.kind == "edit"]
    sure = (
        any(f.basis == "fact" and f.kind != "history" for f in flagged)
        or any(f.kind not in ("edit", "history") for f in signs)
        or (bool(combined == "found" or edited) and not flips)
    )
    places = [f for f in applied if f.level == "a place to look at"]
    unsure = bool(combined) or flips or bool(edited) or any(f.kind not in NEUTRAL for f in places)
    level = "found" if sure else "a place to look at" if unsure else "nothing found"
    named = {f.kind for f in (*flagged, *places)} | ({"edit"} if combined or flips else set())
    kinds = tuple(k for k in KINDS if k in named)

    shown = [f"{f.summary} {_rate(f, thing)}".rstrip() for f in signs]
    if combined == "found" and not edited:
        alike = rate_words(combination.get("false_positive_rate"), combination.get("n_clean"))
        shown.append(f"Several weak signs together suggest that part of the {thing} was changed. {alike}".rstrip())
    lines = [*(f"Fact: {fact}" for fact in facts), *(f"Sign: {sign}" for sign in shown)]
    lines += [f"Place to look at: {f.summary}" for f in places]
    if combined == "look" and not edited:
        alike = rate_words(combination.get("look_rate"), combination.get("n_clean"))
        weak = "Several weak signs come together, though not as many as count as found."
        lines.append(f"Place to look at: {weak} {alike.replace('the threshold', 'this level')}".rstrip())
    lines += [*_steadiness(stability), *said]
    if level == "nothing found":
        lines += [_ORDINARY.format(thing)] if kinds else [_nothing(applied)]
        lines.append(_NO_PROOF.format(thing))
    elif "edit" in kinds:
        lines.append(_STATISTICAL)
    elif any(f.kind == "edit" for f in applied):
        lines.append(f"No examiner found a sign that the pixels of this {thing} were edited.")
    lines += [generation.sentence] * bool(generation.sentence)
    return Verdict(level, None, tuple(lines), kinds, facts, tuple(shown), generation=generation, stability=stability)


def _nothing(applied: Sequence[Finding]) -> str:
    if len(applied) == 1:
        return f"No trace found by the one examiner that applies ({applied[0].examiner})."
    return f"No trace found by the {len(applied)} examiners that apply."


def generation_of(findings: Sequence[Finding]) -> Generation:
    """Who looked for generation, and what that is worth.

    >>> generation_of([]).sentence
    'Whether it was generated was not looked for.'
    """
    seeks = [f for f in findings if f.kind == "generated" or f.examiner in RECORD_READERS]
    pixels = [f for f in seeks if f.examiner not in RECORD_READERS]
    judged = tuple(f.examiner for f in pixels if f.applies)
    records = tuple(f.examiner for f in seeks if f.examiner in RECORD_READERS and f.applies)
    if any(f.kind == "generated" and f.flagged and f.applies for f in seeks):
        sentence = ""
    elif judged:
        sentence = (
            f"{', '.join(judged)} judged the pixels for generation without reaching the threshold; generators that it "
            "does not know may leave nothing it sees, so this clears nothing."
        )
    elif records:
        why = (
            f"{', '.join(f.examiner for f in pixels)} does not apply, so the pixels were not judged for generation"
            if pixels
            else "No examiner of this panel judges pixels for generation"
        )
        sentence = (
            f"{why}: only records and marks that tell of it were looked for ({', '.join(records)}), and most generated "
            "pictures have none."
        )
    else:
        sentence = "Whether it was generated was not looked for."
    return Generation(judged, records, sentence)


def _rate(finding: Finding, thing: str) -> str:
    if thing == "clip" and finding.false_positive_rate is not None:
        return f"At most {share(finding.false_positive_rate)} of untouched clips have as many such frames."
    return rate_words(finding.false_positive_rate, finding.n_clean)


def _steadiness(stability: Stability | None) -> list[str]:
    if stability is None:
        return []
    if stability.flipped:
        return [
            "Unsure: the answer on edits lies near its threshold, and is another one once the picture is "
            f"{' or '.join(stability.flipped)}."
        ]
    tried = " and when it is ".join(stability.tried)
    return [f"The answer on edits lies near its threshold, but stays when the picture is {tried}."]
