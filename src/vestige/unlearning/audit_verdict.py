"""From an audit's tests to its verdict and sentences, and what the erasure cost the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vestige.core.errors import INCOMPLETE, NOT_MEASURABLE, OK, OVER_ERASED, SUPPRESSED, UNCHANGED
from vestige.engines.forgetting.cost import Cost
from vestige.unlearning.audit_attacks import Shadows
from vestige.unlearning.audit_features import READ
from vestige.unlearning.audit_stats import Test
from vestige.unlearning.audit_tests import Requests, Tests
from vestige.unlearning.sae_restore import verdict as of_restoration

#: A change of the features' weights, relative to their size, below which only the head was edited.
UNTOUCHED = 1e-6
#: Share of the original's accuracy that restoration has to bring back, without a reference, to count as hidden only.
KEPT = 0.95
#: Falls of accuracy that are not worth a word.
SLIGHT = 0.02

Rows = Mapping[str, Mapping[str, float]]

#: The verdicts, each with the exit code of `vestige audit` and `vestige erase`.
VERDICTS = {
    "deleted": OK, "unchanged": UNCHANGED, "suppressed": SUPPRESSED, "incomplete": INCOMPLETE,
    "over-erased": OVER_ERASED, "not measurable": NOT_MEASURABLE,
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """word: one of `VERDICTS`. sentence: what it rests on. power: the smallest of the tests it rests on, 0 where none
    could have seen enough."""

    word: str
    sentence: str
    power: float

    @property
    def exit_code(self) -> int:
        return VERDICTS[self.word]


def decide(found: Tests, requests: Requests, moved: float | None, rows: Rows, forgotten: int) -> Verdict:
    """The verdict, by the first of these that holds.

    The answers are the original's: unchanged. The requests were never trained on: not measurable. Only the last layer
    was changed: suppressed. Then the tests: the features know more than those of a model that never saw the pictures,
    while the answers do not (suppressed); less than nothing is found (over-erased); something is left (unchanged,
    incomplete). Nothing found counts as deleted only where a test of the answers and one of the features had the power
    to see half of what the original shows, and each of these excludes it on both sides (TOST).
    """
    strong = [t for t in found.all if t.measurable]
    power = min((t.power for t in strong), default=0.0)
    left, over = [t for t in found.all if t.left], [t for t in found.all if t.over and t.of == "answers"]
    answers, inner = [t for t in left if t.of == "answers"], [t for t in left if t.of == "features"]
    head_only = moved is not None and moved < UNTOUCHED
    if requests.none:
        return Verdict(
            "not measurable",
            "Not measurable: the requests do not look trained on. The original tells them from pictures it never saw "
            f"with AUC {requests.members:.2f}, its retained training pictures with {requests.usual:.2f}.", 0.0,
        )  # fmt: skip
    if found.same and (head_only or moved is None):
        return Verdict("unchanged", "Unchanged: every answer is the original's; nothing was forgotten.", 1.0)
    if head_only:
        return Verdict(
            "suppressed",
            "Suppressed, not deleted: only the last layer was changed, and the features are the original's.", 1.0,
        )  # fmt: skip
    if inner and (over or not answers):
        return Verdict("suppressed", f"Suppressed, not deleted: {_left(inner)} in the features.", power)
    if over:
        worst = min(over, key=lambda t: t.effect)
        return Verdict(
            "over-erased",
            "Over-erased: the forgotten pictures stand out, which shows that they were treated. The model is less "
            f"sure or more often wrong about them than about pictures it never saw ({_told(worst)}).", power,
        )  # fmt: skip
    if answers and not found.fell:
        return Verdict(
            "unchanged",
            f"Unchanged: by its answers the model forgot nothing that these tests can tell ({_told(_most(answers))}).",
            power,
        )
    if answers:
        return Verdict("incomplete", f"Forgetting is incomplete: {_left(answers)} in the answers.", power)
    if restored(rows) == "suppressed":
        return Verdict(
            "suppressed",
            f"Suppressed, not deleted: read by the original's last layer, the features give "
            f"{rows['unlearned'][READ]:.0%} of the accuracy on the forgotten class back.", power,
        )  # fmt: skip
    if found.remembered:
        return Verdict(
            "incomplete",
            f"Forgetting is incomplete for some: {len(found.remembered)} of {forgotten} pictures are remembered better "
            "than new ones ever are (false discoveries below 1 %).", power,
        )  # fmt: skip
    return _nothing_found(strong, found)


def _nothing_found(strong: Sequence[Test], found: Tests) -> Verdict:
    """Of the answers and of the features the test that sees most has to exclude half of what the original shows."""
    best_of = {}
    for of in ("answers", "features"):
        if some := [t for t in strong if t.of == of]:
            best_of[of] = max(some, key=lambda t: t.margin / t.smallest)
    lacking = [of for of in ("answers", "features") if of not in best_of]
    open_ = [t for t in best_of.values() if not t.equivalent]
    if not lacking and not open_:
        shown = list(best_of.values())
        seen = "; ".join(f"{t.name}: an effect of {t.smallest:.2f}, the original's is {t.before:.2f}" for t in shown)
        return Verdict(
            "deleted",
            f"Deleted as far as these tests can see. They would have seen, four times in five: {seen}.",
            min(t.power for t in shown),
        )
    if not strong:
        why = (
            "no test would have seen half of what the original shows: there are too few pictures, or the original "
            "itself treats them as it treats new ones"
        )
    elif open_:
        why = f"{open_[0].name} ({_told(open_[0])}) neither shows a rest nor excludes one of {open_[0].margin:.2f}"
    else:
        why = f"no test of the {' or of the '.join(lacking)} would have seen half of what the original shows"
    best = max(found.all, key=lambda t: t.power, default=None)
    words = "" if best is None else f" The best, {best.name}, had power {best.power:.2f}."
    more = "" if any("reference" in t.method for t in found.all) else " A retrained model (--reference) tells more."
    return Verdict("not measurable", f"Not measurable with this little: {why}.{words}{more}", 0.0)


def _line(test: Test) -> str:
    """A test's effect, interval and power in one sentence."""
    return (
        f"{test.name[0].upper()}{test.name[1:]}: effect {test.effect:.2f} ({test.low:.2f} to {test.high:.2f}, "
        f"{test.method}), the original's {test.before:.2f}; would see {test.smallest:.2f}; power against half of the "
        f"original's {test.power:.2f}{'' if test.measurable else ', too little to count'}."
    )


def _most(tests: Sequence[Test]) -> Test:
    return max(tests, key=lambda t: t.effect)


def _left(tests: Sequence[Test]) -> str:
    one = _most(tests)
    share = f", {min(one.effect / one.before, 9.99):.0%} of the original's" if one.before > 0 else ""
    return f"{one.name} finds more than in a model that never saw the pictures ({_told(one)}{share})"


def _told(test: Test) -> str:
    if test.name.startswith("membership") and "reference" not in test.method:
        return f"AUC {0.5 + test.effect:.2f}, {0.5 + test.low:.2f} to {0.5 + test.high:.2f}"
    return f"effect {test.effect:.2f}, {test.low:.2f} to {test.high:.2f}"


def said_of(
    verdict: Verdict, found: Tests, requests: Requests, rows: Rows, forgotten: int, shadows: Shadows | None,
    worst: Mapping[str, Any], spent: Mapping[str, Cost], missing: Sequence[str],
) -> list[str]:  # fmt: skip
    """The findings, the verdict first, then every test with its interval and power."""
    findings = [verdict.sentence]
    if requests.unlike and not requests.none:
        findings.append(f"{len(requests.unlike)} of {forgotten} requests do not look trained on.")
    findings += [_line(test) for test in found.all]
    before, after = rows["original"], rows["unlearned"]
    if worst:
        findings.append(_worst(after, worst))
    if (words := restored(rows)) and READ in after:
        control = f" (in a retrained model {rows['retrained'][READ]:.0%})" if "retrained" in rows else ""
        findings.append(
            f"Sparse restoration at the features gives {after[READ]:.0%} of the original's accuracy on the forgotten "
            f"class back{control}: {words}."
        )
    findings += _rest(rows)
    if shadows is not None:
        own = before.get("test accuracy, forgotten classes", before["test accuracy"])
        findings.append(
            f"{len(shadows)} shadow models were trained; on pictures they never saw they are right in "
            f"{shadows.accuracy:.0%}, the original in {own:.0%}. The further apart, the less LiRA and RMIA say."
        )
    return [*findings, *_spent(spent), *found.missing, *missing]


def restored(rows: Rows) -> str:
    """What sparse restoration says: "suppressed", "deleted", "unclear", or nothing where it was not run.

    Against a retrained model as `sae_restore.verdict` has it. Without one only `KEPT` of the original's accuracy
    counts as suppressed, for classes that resemble others come back to some degree in every model.
    """
    after = rows["unlearned"].get(READ)
    if after is None:
        return ""
    if "retrained" in rows and READ in rows["retrained"]:
        return of_restoration(after, rows["retrained"][READ])
    return "suppressed" if after >= KEPT else "unclear"


def _worst(after: Mapping[str, float], worst: Mapping[str, Any]) -> str:
    by = worst["calibrated by"]
    against = "easy pictures come first, for want of models to compare with" if by == "nothing" else f"against {by}"
    return (
        f"Worst case: of the tenth it remembers best ({against}) it names {after['worst tenth: accuracy']:.0%} "
        f"right, of the same tenth of pictures never seen {after['worst tenth of never seen: accuracy']:.0%}; "
        f"an attacker tells the two apart with AUC {after['worst tenth: membership (AUC)']:.2f} (up to "
        f"{worst['chance']:.2f} can be luck)."
    )


def in_words(seconds: float) -> str:
    """A rough time.

    >>> in_words(2.34), in_words(20), in_words(200), in_words(20_000)
    ('2.3 seconds', '20 seconds', '3.3 minutes', '5.6 hours')
    """
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds" if seconds < 9.95 else f"{round(seconds)} seconds"


def retraining(spent: Mapping[str, Cost]) -> Cost:
    """What retraining takes, measured or expected."""
    return spent.get("retraining") or spent["retraining, expected"]


def _spent(spent: Mapping[str, Cost]) -> list[str]:
    if "erasure" not in spent or len(spent) < 2:
        return []
    own, again = spent["erasure"], retraining(spent)
    how = "takes" if "retraining" in spent else "is expected to take"
    peaks = [f"{cost.peak_mb:.0f} MB" if not math.isnan(cost.peak_mb) else "unknown" for cost in (own, again)]
    return [
        f"Forgetting took {in_words(own.seconds)}, {own.seconds / max(again.seconds, 1e-9):.0%} of the "
        f"{in_words(again.seconds)} that retraining {how}; peak memory of the process {peaks[0]}, when retraining "
        f"{peaks[1]}."
    ]


def _rest(rows: Rows) -> list[str]:
    before, after = rows["original"], rows["unlearned"]
    lost = before["test accuracy"] - after["test accuracy"]
    said = [f"Accuracy on test pictures: {before['test accuracy']:.1%} before, {after['test accuracy']:.1%} after."]
    if lost > SLIGHT:
        said.append(f"The rest suffered: {100 * lost:.1f} points of test accuracy were lost.")
    own = rows.get("retrained", before)["test accuracy"]
    if abs(own - before["test accuracy"]) > 0.05:
        said.append(
            f"The retrained model is right on {own:.1%} of the test pictures, the original on "
            f"{before['test accuracy']:.1%}: it was trained otherwise, so compare with care."
        )
    return said
