"""Descriptions of Keras models: every object that loading would build is known, or it is named.

Keras builds a model from JSON that names classes and functions. Layers of its own only compute; a Lambda layer carries
byte code, registered objects and other modules are code that is elsewhere, and some layers read files.

Sources: ``keras/src/saving/serialization_lib.py`` (Keras 3) and ``legacy``; CVE-2024-3660, CVE-2025-1550,
CVE-2025-8747, CVE-2025-9905, CVE-2025-9906, CVE-2025-12058.
"""

from __future__ import annotations

import re
from typing import Any

from vestige.core.bounded import LimitReached, parse_json, printable
from vestige.core.models.known_names import known
from vestige.core.models.pickle_imports import classify
from vestige.core.models.pickle_report import PickleReport

MAX_CONFIG = 8 * 2**20
_CLASSES = known("keras.classes")
_FUNCTIONS = known("keras.functions")
_BELONGS_TO_KERAS = re.compile(r"(tf_|tensorflow\.(python\.)?)?keras(\..*)?")
#: Parts of Keras that load, fetch or unlock, which no model needs.
_REACHING = re.compile(
    r"(^|\.)(utils|config|saving|export|callbacks|datasets|distribution|wrappers|legacy\.saving|tree)\b"
)
_LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup")
#: Classes that run code, or read files, that the description names.
_RUNS = {
    "Lambda": "is a Lambda layer, which runs Python code from the file",
    "__lambda__": "is Python byte code, which loading runs",
    "TorchModuleWrapper": "is a torch module, which loading unpickles",
    "TFSMLayer": "loads another TensorFlow model from a path",
}


def check(data: bytes, place: str, report: PickleReport) -> None:
    """Put into the report what a description in JSON builds. Raises ValueError for what is no description."""
    if len(data) > MAX_CONFIG:
        raise LimitReached(f"its description is above the limit of {MAX_CONFIG / 2**20:.0f} MiB")
    check_table(parse_json(data), place, report)


def check_table(table: Any, place: str, report: PickleReport) -> None:
    """As `check`, for JSON that was read."""
    stack, built = [table], 0
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        if not isinstance(node, dict):
            continue
        stack.extend(node.values())
        if isinstance(node.get("class_name"), str):
            built += 1
            _object(node, place, report)
        elif "class_name" in node:
            report.add_problem(f"{place} names a class that is no text")
        if node.get("function_type") in ("lambda", "raw") or node.get("output_shape_type") == "lambda":
            report.add_hazard(f"{place} holds a function that {_RUNS['__lambda__']}")
    if not built:
        raise ValueError("it describes no model")


def _object(node: dict[str, Any], place: str, report: PickleReport) -> None:
    name, module, config = node["class_name"], node.get("module"), node.get("config")
    registered = node.get("registered_name")
    if name in _RUNS:
        report.add_hazard(f"{place} holds an object that {_RUNS[name]}")
        return
    if module is not None and not isinstance(module, str):
        report.add_problem(f"{place} names a module that is no text")
        return
    function = name == "function"
    if function:
        name = config if isinstance(config, str) else str(registered)
    elif name in _LOOKUPS or (isinstance(config, dict) and "vocabulary" in config):
        _vocabulary(config, place, report)
    bare = name.split(">")[-1]
    shown = printable(f"{module}.{name}" if module else name)[:120]
    verdict = "unknown" if module in (None, "builtins") and function else classify(module or "", name)
    keras = module in (None, "builtins") or _BELONGS_TO_KERAS.fullmatch(module) is not None
    if not keras:
        if verdict == "dangerous":
            report.add_hazard(f"{place} builds {shown}, which can run code or reach files")
        else:
            report.add_problem(f"{place} builds {shown}, from a module other than Keras")
    elif module and _REACHING.search(module) and not module.endswith("trainers.compile_utils"):
        report.add_hazard(f"{place} builds {shown}, which loads or fetches what the file names")
    elif bare != name and name not in (f"Keras>{bare}", f"keras>{bare}"):
        report.add_problem(f"{place} builds {shown}, an object registered by code of its own")
    elif bare not in (_FUNCTIONS if function else _CLASSES):
        report.add_problem(f"{place} builds {shown}, which is not known to be harmless")
    elif isinstance(registered, str) and registered not in (name, bare, f"Keras>{bare}", f"keras>{bare}"):
        report.add_problem(f"{place} builds {printable(registered)[:120]}, an object registered by code of its own")


def _vocabulary(config: Any, place: str, report: PickleReport) -> None:
    for key in ("vocabulary", "vocab_file"):
        if isinstance(config, dict) and isinstance(path := config.get(key), str) and path:
            report.add_hazard(f"{place} reads the file {printable(path[:100])!r} as a vocabulary")
