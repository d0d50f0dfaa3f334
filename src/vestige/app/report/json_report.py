"""The JSON report: versioned, described by ``report.schema.json``, and always valid JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from vestige.app.report.examined import Examined, Line, account, counts, failures
from vestige.app.report.items import ReportGroup, group_of, tally
from vestige.core.findings import SCHEMA_VERSION
from vestige.core.runtime import versions


def to_json_report(
    items: Iterable[Examined],
    lines: Sequence[Line] = (),
    groups: Sequence[ReportGroup | Any] = (),
    *,
    calibration: str = "",
    date: datetime | None = None,
) -> dict[str, Any]:
    """The report about everything that was put in, in one shape whether that is one file or a thousand.

    items: what was examined. lines: what became of every file, taken from the items where it is left out. groups:
    related pictures. calibration: the SHA-256 of the calibration behind thresholds and probabilities. date: now.
    Values that JSON cannot hold are replaced: nan and infinities by null, arrays by lists, bytes by hexadecimal,
    undecodable characters of file names by escapes.

    >>> to_json_report([], [Line("a.jpg", "failed", why="It is empty.")])["manifest"]["counts"]["failed"]
    1
    """
    found = list(items)
    lines = lines or [Line.of(item) for item in found]
    return plain(
        {
            "schema": SCHEMA_VERSION,
            "vestige": versions("vestige").get("vestige", ""),
            "date": (date or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "calibration": calibration,
            "items": [item.to_dict() for item in found],
            "manifest": {"counts": counts(lines), "account": account(lines), "files": [n.to_dict() for n in lines]},
            "groups": [
                {"kind": g.kind, "title": g.title, "sources": list(g.sources), "note": g.note}
                for g in map(group_of, groups)
            ],
            "summary": tally([part.findings for item in found for part in item.parts], failures(lines)),
        }
    )


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
    """JSON Schema (draft 2020-12) of the report."""
    content: dict[str, Any] = json.loads(
        files("vestige.app.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return content
