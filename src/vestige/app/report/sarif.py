"""Model scans as SARIF 2.1.0, the form in which code hosts and scanners exchange results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from vestige.app.report.examined import Examined, Line
from vestige.app.report.json_report import plain
from vestige.core.printing import visible
from vestige.core.runtime import versions

SIGN = b'"$schema": "https://json.schemastore.org/sarif-2.1.0.json"'
_RULES = {
    "dangerous": ("vestige/model-runs-code", "error", "Loading the model runs code or reaches out of it."),
    "cannot be vouched for": (
        "vestige/model-unvouched",
        "warning",
        "The model holds what is not known to be harmless.",
    ),
    "harmless": ("vestige/model-harmless", "none", "Everything in the model is known to run nothing."),
}


def to_sarif(items: Iterable[Examined], lines: Sequence[Line] = ()) -> dict[str, Any]:
    """One result for every model: an error for dangerous ones, a warning for what cannot be vouched for, a pass.

    lines: models that could not be examined become notifications of the run.
    """
    results = []
    order = list(_RULES)
    for item in items:
        if item.kind != "model":
            continue
        finding = item.parts[0].findings.findings[0]
        rule, level, _ = _RULES[item.answer]
        said = visible(" ".join([finding.summary, *(f"{text}." for text in finding.evidence)]))
        results.append(
            {
                "ruleId": rule,
                "ruleIndex": order.index(item.answer),
                "kind": "pass" if level == "none" else "fail",
                "level": level,
                "message": {"text": said},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(item.source)}}}],
                "partialFingerprints": {"sha256/v1": item.sha256} if item.sha256 else {},
            }
        )
    failed = [line for line in lines if line.state == "failed" and line.kind == "model"]
    notes = [
        {
            "level": "error",
            "message": {"text": visible(line.why)},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(line.source)}}}],
        }
        for line in failed
    ]
    rules = [
        {"id": rule, "shortDescription": {"text": text}, "defaultConfiguration": {"level": level}}
        for rule, level, text in _RULES.values()
    ]
    return plain(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {
                        "driver": {
                            "name": "vestige",
                            "version": versions("vestige").get("vestige", ""),
                            "rules": rules,
                        }
                    },
                    "invocations": [{"executionSuccessful": not failed, "toolExecutionNotifications": notes}],
                    "results": results,
                }
            ],
        }
    )


def _uri(source: str) -> str:
    path = PurePath(source).as_posix()
    uri = quote(path.encode("utf-8", "surrogateescape"))
    return f"file://{uri}" if path.startswith("/") else uri
