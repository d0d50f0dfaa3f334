"""The page of an erasure's audit: verdict, pictures, figures beside the original's, each with what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vestige.app.forgetting.plots import plots
from vestige.bench.pages import Section, page
from vestige.unlearning.audit_features import OWN, READ

if TYPE_CHECKING:
    from vestige.unlearning.audit import Audit

_MODELS = {
    "original": "the model before",
    "unlearned": "the model that was written",
    "retrained": "a model trained without the forgotten pictures: the aim",
}
#: What each figure says, in words for a reader who audits no models.
_MEANINGS = {
    "forget accuracy": "share of the pictures to forget that is named right",
    "retain accuracy": "the same of the other training pictures",
    "test accuracy": "the same of pictures never trained on",
    "test accuracy, forgotten classes": "the same of never seen pictures of what was to be forgotten",
    "membership by loss (AUC)": "attack by how surprised the model is; 0.5 is guessing",
    "membership by entropy (AUC)": "attack by how sure the model is; 0.5 is guessing",
    "membership by LiRA (AUC)": "attack with shadow models, picture by picture; 0.5 is guessing",
    "membership by RMIA (AUC)": "attack with reference models; 0.5 is guessing",
    "worst tenth: accuracy": "share named right of the tenth of the pictures to forget that is remembered best",
    "worst tenth of never seen: accuracy": "the same of the tenth of never seen pictures chosen alike",
    "worst tenth: membership (AUC)": "how well these two tenths are told apart; 0.5 is guessing",
    "worst tenth: copies among the others": "share of that tenth with an identical picture among the retained",
    "epochs to relearn": "passes over the pictures until they are known as before; few: it was still there",
    "similarity of features, forgotten (CKA)": "inner view of forgotten pictures beside the original's; 1 is alike",
    "similarity of features, retained (CKA)": "the same of retained pictures",
    "a new head finds (accuracy)": "what a last layer taught anew finds of the forgotten pictures in the features",
    "neighbours find (accuracy)": "what the five most similar pictures say about the forgotten ones",
    OWN: "accuracy on the forgotten class after its inner directions are set back, over the original's",
    READ: "the same, read by the original's last layer; far above a retrained model: only hidden",
    "change of the features' weights": "relative; 0 when only the last layer was edited",
}  # fmt: skip


def audit_page(report: Mapping[str, Any], result: Audit) -> str:
    """One self-contained HTML page. report: what is written as JSON."""
    figures, captions = plots(result)
    sections = [*_tests(result), _figures(result), *_worst(result), *_costs(result), *_tried(report)]
    sentences = [
        *result.findings[1:],
        _done(report),
        f"SHA-256 before {report['sha256']['before']}, after {report['sha256']['after']}.",
    ]
    return page("Audit of a forgetting", sentences, figures, sections, captions=captions, lead=result.findings[0])


def _done(report: Mapping[str, Any]) -> str:
    asked = f"{report['forgotten']} pictures were to be forgotten from {report['model']}"
    if "method" not in report:
        return f"{asked}; {report['after']} was audited, however it was made."
    cost = report["cost"]
    steps = f" {cost['steps']} steps," if cost["steps"] else ""
    return (
        f"{asked}; method {report['method']} "
        f"({', '.join(f'{k} {v}' for k, v in report['parameters'].items()) or 'without parameters'}),{steps} "
        f"{cost['seconds']:.1f} seconds."
    )


def _tests(result: Audit) -> list[Section]:
    rows = [
        {"test": t.name, "effect": f"{t.effect:.3f}", "interval": f"{t.low:.3f} to {t.high:.3f}", "method": t.method,
         "original": f"{t.before:.3f}", "seen": f"{t.smallest:.3f}", "power": f"{t.power:.2f}",
         "note": "something left" if t.left else "stands out" if t.over else "nothing found" if t.measurable
         else "too little to say"}
        for t in result.tests.all
    ]  # fmt: skip
    about = {
        "test": "asked of the answers or the features", "effect": "0 for a model that never saw the pictures",
        "interval": "at the audit's level", "method": "of the interval", "original": "the effect before",
        "seen": "smallest effect seen four times in five", "power": "against half of the original's effect",
        "note": "what it says",
    }  # fmt: skip
    return [Section("Tests", about, rows)] if rows else []


def _figures(result: Audit) -> Section:
    models = list(result.rows)
    names = list(dict.fromkeys(name for row in result.rows.values() for name in row))
    rows = [{"figure": n, **{m: result.rows[m].get(n) for m in models}, "note": _meaning(n)} for n in names]
    about = {"figure": "what was measured", **{m: _MODELS[m] for m in models}, "note": "what it says"}
    return Section("Figures", about, rows)


def _meaning(name: str) -> str:
    if name.endswith("(TPR at 1 % FPR)"):
        return "share found while one in a hundred never seen pictures is wrongly accused"
    return _MEANINGS.get(name, "")


def _worst(result: Audit) -> list[Section]:
    pictures = [one for one in result.worst.get("pictures", ()) if "name" in one]
    if not pictures:
        return []
    by, log = result.worst["calibrated by"], "the log of the probability of the right class"
    by = f"{log}, for want of models to compare with" if by == "nothing" else f"{log}, less what it is by {by}"
    about = {"name": "file", "remembered": by}
    return [Section("Pictures to forget that are remembered best", about, pictures)]


def _costs(result: Audit) -> list[Section]:
    if not result.costs:
        return []
    rows = [
        {"what": name, "seconds": cost["seconds"], "steps": cost["steps"], "MB": cost["peak_mb"]}
        for name, cost in result.costs.items()
    ]
    about = {
        "what": "erasing, and retraining without the pictures instead", "seconds": "of wall time",
        "steps": "of training", "MB": "most memory that the process held",
    }  # fmt: skip
    return [Section("Time and memory", about, rows)]


def _tried(report: Mapping[str, Any]) -> list[Section]:
    if len(report.get("tried", ())) < 2:
        return []
    tried = [
        {"method": t["method"], "distance": t["distance"], "seconds": t["cost"]["seconds"], "note": t["why"]}
        for t in report["tried"]
    ]
    about = {
        "method": "eraser", "distance": "from the aim, 0 at best", "seconds": "of the erasure",
        "note": "what it did, on the half of the test pictures that chose the method",
    }  # fmt: skip
    return [Section("Methods tried", about, tried)]
