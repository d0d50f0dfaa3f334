"""The JSON report: versioned, described by ``report.schema.json``, and always valid JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from vestige.app.report.items import Failure, ReportGroup, failure_of, group_of, tally
from vestige.core.findings import SCHEMA_VERSION, Findings
from vestige.core.runtime import versions


def to_json_report(
    results: Iterable[Findings],
    failures: Sequence[Failure | Mapping[str, str] | tuple[str, str]] = (),
    groups: Sequence[ReportGroup | Any] = (),
) -> dict[str, Any]:
    """The report about a batch: every result, every failure, groups of related pictures, and counts.

    Values that JSON cannot hold are replaced: nan and infinities by null, arrays by lists, bytes by hexadecimal,
    undecodable characters of file names by escapes.

    >>> to_json_report([], [("a.jpg", "It is empty.")])["summary"]["failed"]
    1
    """
    found = list(results)
    failed = [failure_of(f) for f in failures]
    report = {
        "schema": SCHEMA_VERSION,
        "vestige": versions("vestige").get("vestige", ""),
        "results": [f.to_dict() for f in found],
        "failures": [{"source": f.source, "error": f.error} for f in failed],
        "groups": [
            {"kind": g.kind, "title": g.title, "sources": list(g.sources), "note": g.note}
            for g in map(group_of, groups)
        ],
        "summary": tally(found, len(failed)),
    }
    return plain(report)


def to_json_single(findings: Findings) -> dict[str, Any]:
    """The report about one picture: ``findings.to_dict()`` with values that JSON cannot hold replaced."""
    return plain(findings.to_dict())


def plain(value: Any) -> Any:
    r"""The value with only what JSON holds.

    >>> plain({"a": np.float32(0.5), "b": float("nan"), "c": (1, b"\xff"), 3: "\udc80"})
    {'a': 0.5, 'b': None, 'c': [1, 'ff'], '3': '\\udc80'}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {plain(str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return plain(str(value))


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of both forms of the report."""
    content: dict[str, Any] = json.loads(
        files("vestige.app.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return content
