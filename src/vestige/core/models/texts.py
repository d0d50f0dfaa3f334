"""Models written as text: PMML, the description of a skops archive, and settings that name Python classes.

Sources: PMML 4.4, Data Mining Group; skops persistence format, ``skops/io``.
"""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat

from vestige.core.bounded import LimitReached, Window, parse_json, printable
from vestige.core.models.known_names import known
from vestige.core.models.pickle_imports import classify
from vestige.core.models.pickle_report import PickleReport

_MAX_SCHEMA = 16 * 2**20
_MAX_ELEMENTS = 3_000_000
_MAX_DEPTH = 2000
_MAX_TOKEN = 2**22
_PMML = re.compile(r"(http://www\.dmg\.org/PMML-\d+[_.]\d+(_\d+)? )?[A-Z][A-Za-z0-9]*|[a-z]+")
_NODES = known("skops")


class _Elements:
    def __init__(self, place: str, report: PickleReport) -> None:
        self.place, self.report = place, report
        self.count = self.depth = 0
        self.root = ""

    def start(self, name: str, _: Any) -> None:
        self.count, self.depth, self.root = self.count + 1, self.depth + 1, self.root or name
        if self.count > _MAX_ELEMENTS or self.depth > _MAX_DEPTH:
            raise LimitReached("it has more elements than the limit")
        short = name.split(" ")[-1]
        if not _PMML.fullmatch(name):
            self.report.add_problem(f"{self.place} holds the element {printable(short[:60])}, which PMML does not know")
        elif short == "Extension":
            self.report.add_problem(f"{self.place} holds an extension of PMML, which was not examined")

    def end(self, _: str) -> None:
        self.depth -= 1

    def doctype(self, name: str, system: str | None, public: str | None, _: Any) -> None:
        self.report.add_problem(f"{self.place} declares a document type, which PMML has no need of")

    def entity(self, name: str, *rest: Any) -> None:
        system = rest[3] if len(rest) > 3 else None
        if system:
            shown = printable(str(system)[:100])
            self.report.add_hazard(f"{self.place} takes the text of the entity {printable(name[:40])!r} from {shown!r}")
        raise ValueError("it declares entities")

    def instruction(self, target: str, _: str) -> None:
        self.report.add_problem(f"{self.place} holds an instruction for {printable(target[:40])}")


def check_pmml(window: Window, place: str, report: PickleReport) -> None:
    """Put into the report what a PMML file holds beyond a model. Raises ValueError for what is no PMML."""
    elements = _Elements(place, report)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = elements.start, elements.end
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = elements.doctype, elements.entity
    parser.ProcessingInstructionHandler = elements.instruction
    window.seek(0)
    try:
        while block := window.read(2**20):
            parser.Parse(block, False)
            if window.tell() - parser.CurrentByteIndex > _MAX_TOKEN:
                raise LimitReached(f"one of its parts is longer than the limit of {_MAX_TOKEN / 2**20:.0f} MiB")
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise ValueError(f"no XML: {error}") from None
    if elements.root.split(" ")[-1] != "PMML":
        raise ValueError("its outermost element is not PMML")


def check_skops(data: bytes, place: str, report: PickleReport) -> None:
    """Put into the report the classes and functions that a skops archive builds, as imports."""
    if len(data) > _MAX_SCHEMA:
        raise LimitReached("its schema is above the limit of 16 MiB")
    stack = [parse_json(data)]
    while stack:
        node = stack.pop()
        stack.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        if not isinstance(node, dict) or "__loader__" not in node:
            continue
        loader, content = str(node["__loader__"]), node.get("content")
        if loader not in _NODES:
            report.add_problem(f"{place} uses {printable(loader[:60])}, which is not known to be harmless")
        report.add_import(str(node.get("__module__")), str(node.get("__class__")), place)
        if loader in ("FunctionNode", "TypeNode", "MethodNode") and isinstance(content, dict):
            report.add_import(str(content.get("module_path")), str(content.get("function")), place)


def targets(table: Any) -> list[str]:
    """Names under ``_target_``, which hydra and NeMo import and call."""
    found: list[str] = []
    stack = [table]
    while stack:
        node = stack.pop()
        stack.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            found.append(node["_target_"])
    return found


def check_targets(names: list[str], place: str, report: PickleReport) -> None:
    """Put into the report the classes and functions that settings ask a loader to import and call."""
    for name in dict.fromkeys(names):
        module, _, last = name.rpartition(".")
        shown = printable(name[:100])
        verdict = classify(module, last)
        if verdict == "dangerous":
            report.add_hazard(f"{place} has {shown} imported and called, which runs code or reaches files")
        elif verdict != "safe":
            report.add_problem(f"{place} has {shown} imported and called, which is not known to be harmless")


def check_yaml(text: str, place: str, report: PickleReport) -> None:
    """Settings in YAML: tags that build Python objects, and names that a loader imports. No parser is needed."""
    for tag in re.findall(r"!!?(?:<tag:yaml\.org,2002:)?(python/[\w/]+[:\w.]*)", text)[:50]:
        kind, _, _ = tag.partition(":")
        if kind.startswith(("python/object", "python/module", "python/name")):
            report.add_hazard(f"{place} has the YAML tag {printable(tag[:100])}, which builds Python objects")
        elif kind.split("/")[-1] not in (
            "tuple",
            "none",
            "bool",
            "str",
            "int",
            "float",
            "list",
            "dict",
            "long",
            "complex",
        ):
            report.add_problem(f"{place} has the YAML tag {printable(tag[:100])}, which is not known to be harmless")
    if re.search(r"^%TAG|!\S*%[0-9a-fA-F]{2}", text, re.MULTILINE):
        report.add_problem(f"{place} writes YAML tags in a way that hides them")
    check_targets(re.findall(r"_target_['\"]?\s*:\s*['\"]?([\w.]+)", text)[:1000], place, report)
