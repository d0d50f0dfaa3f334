"""ONNX files: operators that are known, and data that stays in the model's folder.

Sources: ``onnx.proto`` (ONNX 1.18); Operators.md of ONNX; ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import re
from pathlib import Path

from vestige.core.bounded import Window, printable
from vestige.core.models.known_names import known
from vestige.core.models.pickle_report import PickleReport
from vestige.core.models.wire import Walker

_NODE = {1: "data", 2: "data", 3: "data", 4: "text", 5: "Attribute", 6: "data", 7: "text", 8: "data", 9: "data",
         10: "data"}  # fmt: skip
_SCHEMA = {
    "Model": {1: "number", 2: "data", 3: "data", 4: "data", 5: "data", 6: "data", 7: "Graph", 8: "Opset", 14: "data",
              20: "Training", 25: "Function", 26: "data"},
    "Opset": {1: "text", 2: "number"},
    "Training": {1: "Graph", 2: "Graph", 3: "data", 4: "data"},
    "Graph": {1: "Node", 2: "data", 5: "Tensor", 10: "data", 11: "data", 12: "data", 13: "data", 14: "data",
              15: "Sparse", 16: "data"},
    "Node": _NODE,
    "Attribute": {1: "data", 2: "data", 3: "data", 4: "data", 5: "Tensor", 6: "Graph", 7: "data", 8: "data", 9: "data",
                  10: "Tensor", 11: "Graph", 13: "data", 14: "data", 15: "data", 20: "data", 21: "data", 22: "Sparse",
                  23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor", 3: "data"},
    "Tensor": {1: "data", 2: "data", 3: "data", 4: "data", 5: "data", 6: "data", 7: "data", 8: "data", 9: "data",
               10: "data", 11: "data", 12: "data", 13: "External", 14: "data", 16: "data"},
    "External": {1: "text", 2: "text"},
    "Function": {1: "text", 4: "data", 5: "data", 6: "data", 7: "Node", 8: "data", 9: "Opset", 10: "text",
                 11: "Attribute", 12: "data", 13: "data", 14: "data"},
}  # fmt: skip
_DOMAINS = {"": "onnx", "ai.onnx": "onnx", "ai.onnx.ml": "onnx.ml", "com.microsoft": "onnx.contrib"}
#: Operators that run code of their own, or take a compiled program from a path.
_RUNS = {"PyOp", "PyCustomOp", "PythonOp", "PythonOpGrad", "ATen", "EPContext"}
_MAX_PLACES = 2000


class _Graph(Walker):
    def __init__(self, window: Window) -> None:
        super().__init__(window, _SCHEMA)
        self.operators: set[tuple[str, str]] = set()
        self.functions: set[tuple[str, str]] = set()
        self.domains: set[str] = set()
        self.places: set[str] = set()
        self.graphs = self.version = 0

    def on_model(self, _: dict[int, str], numbers: dict[int, int]) -> None:
        self.version = numbers.get(1, 0)

    def on_graph(self, *_: object) -> None:
        self.graphs += 1

    def on_node(self, texts: dict[int, str], _: object) -> None:
        self.operators.add((texts.get(7, "")[:200], texts.get(4, "")[:200]))

    def on_function(self, texts: dict[int, str], _: object) -> None:
        self.functions.add((texts.get(10, "")[:200], texts.get(1, "")[:200]))

    def on_opset(self, texts: dict[int, str], _: object) -> None:
        self.domains.add(texts.get(1, "")[:200])

    def on_external(self, texts: dict[int, str], _: object) -> None:
        if texts.get(1) == "location" and len(self.places) < _MAX_PLACES:
            self.places.add(texts.get(2, ""))


def check(window: Window, place: str, report: PickleReport, folder: Path | None) -> None:
    """Put into the report what an ONNX file takes that is not known to be harmless.

    folder: where its external data lies, if it is known. Raises ValueError for what is no ONNX file.
    """
    graph = _Graph(window)
    graph.walk("Model", 0, window.size)
    if not graph.graphs or not graph.version:
        raise ValueError("it holds no graph")
    if graph.unknown:
        report.add_problem(f"{place} has parts that ONNX does not know ({', '.join(sorted(graph.unknown)[:3])})")
    for domain, name in sorted(graph.operators):
        shown = printable(f"{domain}.{name}" if domain else name)
        if name in _RUNS or (domain.startswith("ai.onnx.contrib") and "Py" in name):
            report.add_hazard(f"{place} uses the operator {shown}, which runs code that the file names")
        elif (domain, name) not in graph.functions and (domain not in _DOMAINS or name not in known(_DOMAINS[domain])):
            report.add_problem(f"{place} uses the operator {shown}, which is not known to be harmless")
    for location in sorted(graph.places):
        _external(location, place, report, folder)


def _external(location: str, place: str, report: PickleReport, folder: Path | None) -> None:
    shown = printable(location[:100])
    parts = re.split(r"[/\\]", location)
    if location.startswith(("/", "\\", "~")) or ".." in parts or location[1:2] == ":" or "://" in location:
        report.add_hazard(f"{place} reads the file {shown!r}, outside of the model's folder")
    elif "\0" in location or not location:
        report.add_problem(f"{place} names data in a file without a proper name: {shown!r}")
    elif folder is None:
        report.add_problem(f"{place} takes data from the file {shown!r}, which cannot be looked up here")
    else:
        file = folder / location
        if not file.resolve().is_relative_to(folder.resolve()):
            report.add_hazard(f"{place} reads the file {shown!r}, a link that leaves the model's folder")
        elif not file.is_file():
            report.add_problem(f"{place} takes data from the file {shown!r}, which is missing")
