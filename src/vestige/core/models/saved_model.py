"""TensorFlow's saved models and frozen graphs, and the description of a Keras model beside them.

A graph of TensorFlow is a program that can read and write files. Every saved model has operators that write its own
weights; where they write is decided when it runs, so such a graph is not called harmless.

Sources: ``saved_model.proto``, ``graph.proto`` and ``function.proto`` of TensorFlow 2.16.
"""

from __future__ import annotations

from vestige.core.bounded import Window, printable
from vestige.core.models import keras_config
from vestige.core.models.known_names import known
from vestige.core.models.pickle_report import PickleReport
from vestige.core.models.wire import Walker

_SCHEMA = {
    "SavedModel": {1: "number", 2: "MetaGraph"},
    "MetaGraph": {1: "data", 2: "Graph", 3: "data", 4: "data", 5: "data", 6: "data", 7: "data"},
    "Graph": {1: "Node", 2: "Library", 3: "data", 4: "data", 5: "data"},
    "Library": {1: "Function", 2: "data", 3: "data"},
    "Function": {1: "data", 3: "Node", 4: "data", 5: "data", 6: "data", 7: "data", 8: "data"},
    "Node": {1: "data", 2: "text", 3: "data", 4: "data", 5: "data", 6: "data", 7: "data"},
    "Metadata": {1: "Object"},
    "Object": {1: "data", 2: "data", 3: "data", 4: "data", 5: "Settings"},
    "Settings": {},
}


class _Graph(Walker):
    def __init__(self, window: Window) -> None:
        super().__init__(window, _SCHEMA)
        self.operators: set[str] = set()
        self.settings: list[tuple[int, int]] = []

    def on_node(self, texts: dict[int, str], _: object) -> None:
        if len(self.operators) < 20_000:
            self.operators.add(texts.get(2, "")[:200])

    def walk(self, message: str, begin: int, end: int, depth: int = 0) -> None:
        if message == "Settings":
            self.settings.append((begin, end))
        else:
            super().walk(message, begin, end, depth)


def check(window: Window, place: str, report: PickleReport) -> None:
    """Put into the report what a graph does beyond computing. Raises ValueError for what is no graph."""
    graph = _Graph(window)
    if place.split("/")[-1] == "keras_metadata.pb":
        graph.walk("Metadata", 0, window.size)
        for begin, end in graph.settings:
            keras_config.check(graph.fields.source.take(begin, end - begin), place, report)
        return
    if place.split("/")[-1] == "fingerprint.pb":  # five numbers and a version
        return
    first = next(iter(graph.fields(0, window.size)), (0, 0))
    graph.walk("SavedModel" if isinstance(first[1], int) else "Graph", 0, window.size)
    if not graph.operators:
        raise ValueError("it holds no graph")
    if graph.unknown:
        report.add_problem(f"{place} has parts that TensorFlow does not know ({', '.join(sorted(graph.unknown)[:3])})")
    for name in sorted(graph.operators - known("tensorflow")):
        shown = printable(name)
        if name in known("tensorflow.files"):
            report.add_hazard(f"{place} uses the operator {shown}, which reaches files, the network or Python")
        elif name in known("tensorflow.checkpoints"):
            report.add_problem(f"{place} uses the operator {shown}, which reads or writes a file named when it runs")
        else:
            report.add_problem(f"{place} uses the operator {shown}, which is not known to be harmless")
