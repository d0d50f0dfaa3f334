"""The JSON report keeps to its schema, whatever the findings hold."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tests.app.report_samples import batch, findings, hostile, unexamined
from vestige.app.report.examined import Examined, Line, account
from vestige.app.report.items import ReportGroup, ReportItem
from vestige.app.report.json_report import plain, schema, to_json_report
from vestige.core.findings import Findings

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def _report() -> dict[str, Any]:
    items = [_item(i.findings) for i in batch(4)] + [_item(hostile())]
    lines = [*map(Line.of, items), Line("x\udc80", "failed", why="It is empty."), Line("n.txt", "skipped", why="text")]
    return to_json_report(items, lines, [ReportGroup("Copies", ("a", "b"))], calibration="0" * 64)


def _item(found: Findings) -> Examined:
    part = ReportItem(found, np.zeros((2, 2, 3), np.uint8))
    return Examined(found.source, "picture", found.format, found.sha256, (part,))


def test_reports_are_valid(validator: Any) -> None:
    for report in (
        _report(),
        to_json_report([]),
        *(to_json_report([_item(f())]) for f in (findings, hostile, unexamined)),
    ):
        written = json.dumps(report, ensure_ascii=False, allow_nan=False)
        validator.validate(json.loads(written.encode("utf-8")))


def test_summary_counts() -> None:
    summary = _report()["summary"]
    assert summary == {
        "pictures": 5,
        "clips": 0,
        "models": 0,
        "found": 3,
        "a_place_to_look_at": 0,
        "nothing_found": 1,
        "processed": 0,
        "not_examined": 1,
        "failed": 1,
        "kinds": {"edit": 3, "container": 2},
    }


def test_the_manifest_adds_up() -> None:
    report = _report()
    counts = report["manifest"]["counts"]
    assert (counts["put_in"], counts["examined"], counts["skipped"], counts["failed"]) == (7, 5, 1, 1)
    assert len(report["items"]) == counts["kinds"]["picture"] == 5
    assert report["manifest"]["account"] == "7 files were put in: 5 examined (5 pictures), 1 skipped, 1 failed."
    assert account([]) == "0 files were put in: 0 examined, 0 skipped, 0 failed."


def test_unusual_values_become_json() -> None:
    finding = dataclasses.replace(
        findings()["jpeg_ghost"],
        score=float("inf"),
        threshold=float("inf"),
        details={
            "a": np.float64("nan"),
            "b": np.arange(3),
            "c": {1: b"\x00\xff"},
            "d": {2},
            "e": np.bool_(True),
            "f": 1j,
        },
    )
    item = _item(dataclasses.replace(findings(), findings=(finding,)))
    single = to_json_report([item])["items"][0]["parts"][0]["findings"][0]
    assert single["score"] is None
    assert single["threshold"] is None
    assert single["details"] == {"a": None, "b": [0, 1, 2], "c": {"1": "00ff"}, "d": [2], "e": True, "f": "1j"}
    assert plain("\udc80") == "\\udc80"


def _mutations(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    made = {}
    for name, path, value in (
        ("version", ["schema"], 1),
        ("extra field", ["items", 0, "note"], "x"),
        ("kind", ["items", 0, "parts", 0, "findings", 0, "kind"], "other"),
        ("probability", ["items", 0, "parts", 0, "findings", 0, "probability"], 1.5),
        ("level", ["items", 0, "parts", 0, "verdict", "level"], "fake"),
        ("hash", ["items", 0, "sha256"], "XYZ"),
        ("flagged outside the domain", ["items", 0, "parts", 0, "findings", 5, "flagged"], True),
        ("count", ["summary", "failed"], -1),
        ("state", ["manifest", "files", 0, "state"], "forgotten"),
        ("date", ["date"], None),
    ):
        changed = copy.deepcopy(report)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        made[name] = changed
    return made


def test_the_schema_refuses_what_is_wrong(validator: Any) -> None:
    report = _report()
    assert validator.is_valid(report)
    accepted = [name for name, changed in _mutations(report).items() if validator.is_valid(changed)]
    assert accepted == []


def test_every_field_is_described(validator: Any) -> None:
    described = schema()["$defs"]
    assert set(described["finding"]["properties"]) == set(findings().findings[0].to_dict())
    assert set(described["picture"]["properties"]) - {"clip"} == set(findings().to_dict())
    assert set(described["verdict"]["properties"]) == set(findings().verdict.to_dict())
