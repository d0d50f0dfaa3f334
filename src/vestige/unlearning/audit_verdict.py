"""From an audit's figures to sentences: forgotten, suppressed, incomplete, and what it cost the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vestige.engines.forgetting.cost import Cost
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.unlearning.audit_attacks import ATTACKS, Shadows
from vestige.unlearning.audit_features import READ
from vestige.unlearning.sae_restore import verdict

#: A change of the features' weights, relative to their size, below which only the head was edited.
UNTOUCHED = 1e-6
#: A new head that finds this share of what the original's features gave has nothing missing.
KEPT = 0.95
#: Falls of accuracy that are not worth a word.
SLIGHT = 0.02
PROBE = "a new head finds (accuracy)"

Rows = Mapping[str, Mapping[str, float]]


def said_of(
    rows: Rows, moved: float, problem: ForgetProblem, chance: float, shadows: Shadows | None,
    worst: Mapping[str, Any], spent: Mapping[str, Cost], missing: Sequence[str],
) -> tuple[list[str], bool]:  # fmt: skip
    """The findings, the verdict first, and whether knowledge is suppressed only.

    Suppressed: only the last layer was edited; or, of a forgotten class, a new last layer or sparse restoration finds
    in the features clearly more than in a retrained model's (without one: nearly all that they find in the original's).
    """
    before, after = rows["original"], rows["unlearned"]
    gone = before["forget accuracy"] - after["forget accuracy"]
    # What a new head finds in a retrained model's features; without one, nearly all that it finds in the original's.
    usual = rows["retrained"][PROBE] + 0.1 if "retrained" in rows else KEPT * before.get(PROBE, 1.0)
    found = bool(problem.classes) and after.get(PROBE, 0.0) > usual
    head_only, brought_back = moved < UNTOUCHED, restored(rows) == "suppressed"
    suppressed = gone > 0.05 and (head_only or found or brought_back)
    attacks = {name: after[key] for name in ATTACKS if (key := f"membership by {name} (AUC)") in after}
    strongest, weakest = max(attacks, key=attacks.__getitem__), min(attacks, key=attacks.__getitem__)
    # Two shares of that many pictures differ by less than three standard deviations by luck.
    slack = max(0.05, 3 * math.sqrt(0.5 / len(problem.forget_idx)))
    if gone <= 0.05:
        first = "The model says the same about the forgotten pictures as before: by its answers it forgot nothing."
    elif head_only:
        first = "Suppressed, not deleted: only the last layer was changed, and the features are the original's."
    elif found:
        first = (
            f"Suppressed, not deleted: a new last layer on the features names {after[PROBE]:.0%} of the forgotten "
            f"pictures (on the original's {before[PROBE]:.0%})."
        )
    elif brought_back:
        first = (
            f"Suppressed, not deleted: read by the original's last layer, the features give {after[READ]:.0%} of the "
            "accuracy on the forgotten class back."
        )
    elif attacks[strongest] > chance:
        first = (
            "Forgetting is incomplete: an attacker still tells forgotten pictures from ones never seen (by "
            f"{strongest}, AUC {attacks[strongest]:.2f})."
        )
    elif "retrained" in rows and after["forget accuracy"] - rows["retrained"]["forget accuracy"] > slack:
        first = (
            f"Forgetting is incomplete: it names {after['forget accuracy']:.0%} of the forgotten pictures right, a "
            f"model trained without them {rows['retrained']['forget accuracy']:.0%}."
        )
    elif worst and after["worst tenth: membership (AUC)"] > worst["chance"]:
        first = (
            "Forgetting is incomplete for some: an attacker tells the forgotten pictures that are remembered best from "
            f"the like among pictures never seen (AUC {after['worst tenth: membership (AUC)']:.2f})."
        )
    elif attacks[weakest] < 1 - chance:
        first = (
            "The forgotten pictures stand out: the model is less sure or more often wrong about them than about "
            f"pictures it never saw (by {weakest}, AUC {attacks[weakest]:.2f}), which shows that they were treated."
        )
    else:
        first = "By every test made here the model behaves as if it had not been trained on the forgotten pictures."
    findings = [
        first,
        "Membership (AUC before, after): "
        + ", ".join(f"{name} {before[f'membership by {name} (AUC)']:.2f}, {auc:.2f}" for name, auc in attacks.items())
        + f"; 0.50 is what pictures never seen give, {1 - chance:.2f} to {chance:.2f} can be luck; above, pictures are "
        "still remembered, below, they were visibly treated.",
    ]
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
    return [*findings, *_spent(spent), *missing], suppressed


def restored(rows: Rows) -> str:
    """What sparse restoration says: "suppressed", "deleted", "unclear", or nothing where it was not run.

    Against a retrained model as `sae_restore.verdict` has it. Without one only `KEPT` of the original's accuracy
    counts as suppressed, for classes that resemble others come back to some degree in every model.
    """
    after = rows["unlearned"].get(READ)
    if after is None:
        return ""
    if "retrained" in rows and READ in rows["retrained"]:
        return verdict(after, rows["retrained"][READ])
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
