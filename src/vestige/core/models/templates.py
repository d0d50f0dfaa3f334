"""Chat templates: parsed with Jinja, never rendered, and held to an allow-list of what formatting messages needs.

A loader renders the template in a sandbox. Text that reaches for attributes with underscores is made to leave it and is
named as dangerous; anything else off the list is not vouched for.

Sources: Jinja 3.1, template designer documentation and ``jinja2.sandbox``; chat templates of transformers.
"""

from __future__ import annotations

import re
from typing import Any

from vestige.core.bounded import printable
from vestige.core.models.known_names import known
from vestige.core.models.pickle_report import PickleReport

MAX_TEMPLATE = 2**20
_MAX_NODES = 200_000
_DUNDER = re.compile(r"__\w+__|__(class|mro|globals|subclasses|builtins|import)|\bfunc_globals\b|\bgi_frame\b")
#: A part of a name with underscores, which a template can put together.
_PART = re.compile(r"_+[a-z]*|[a-z]*__")
_STATEMENTS = known("jinja.statements")
_FILTERS = known("jinja.filters")
_FUNCTIONS = known("jinja.functions")
_METHODS = known("jinja.methods")
_TESTS = known("jinja.tests")


def check(text: str, place: str, report: PickleReport) -> None:
    """Put into the report what a template reaches for beyond messages and text."""
    if len(text) > MAX_TEMPLATE:
        report.add_problem(f"{place} has a chat template above 1 MiB, which was not examined")
        return
    if "{" not in text:
        return
    try:
        from jinja2 import Environment, TemplateError, nodes
        from jinja2.ext import Extension
    except ImportError:
        report.add_problem(f"{place} has a chat template, which is not examined without jinja2")
        return

    class Generation(Extension):
        """The block that transformers uses to mark what the assistant says."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    environment = Environment(extensions=["jinja2.ext.loopcontrols", Generation])
    try:
        tree = environment.parse(text)
        found = _reached(tree)
    except (TemplateError, RecursionError, ValueError) as error:
        reason = printable(" ".join(str(error).split())[:80])
        report.add_problem(f"{place} has a chat template that cannot be read ({reason})")
        if (dunder := _DUNDER.search(text)) is not None:
            report.add_hazard(_hazard(place, dunder[0]))
        return
    for severity, what in found:
        if severity:
            report.add_hazard(_hazard(place, what))
        else:
            report.add_problem(f"{place} has a chat template that uses {printable(what[:80])}, beyond formatting text")


def _hazard(place: str, what: str) -> str:
    return f"{place} has a chat template that reaches for {printable(what[:80])}, to leave its sandbox"


def _reached(tree: Any) -> list[tuple[bool, str]]:
    """(dangerous, what) for all that is not on the lists."""
    from jinja2 import nodes

    macros = {node.name for node in tree.find_all(nodes.Macro)}
    found: dict[tuple[bool, str], None] = {}
    stack, count = [tree], 0
    while stack:
        node = stack.pop()
        count += 1
        if count > _MAX_NODES:
            raise ValueError("it has too many parts")
        kind = type(node).__name__
        for entry in _about(node, kind, macros):
            found[entry] = None
        stack.extend(node.iter_child_nodes())
    return list(found)[:50]


def _about(node: Any, kind: str, macros: set[str]) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    if kind not in _STATEMENTS:
        found.append((False, f"the statement {kind}"))
    name = getattr(node, "attr" if kind == "Getattr" else "name", None)
    if isinstance(name, str) and (_DUNDER.search(name) or name.startswith("_" if kind == "Getattr" else "__")):
        found.append((True, name))
    if kind == "Const" and isinstance(node.value, str) and (dunder := _DUNDER.search(node.value)):
        found.append((True, dunder[0]))
    elif kind == "Const" and isinstance(node.value, str) and _PART.fullmatch(node.value):
        found.append((False, f"the text {node.value!r}, a part of such names"))
    if kind == "Getitem" and _put_together(node.arg):
        found.append((False, "a key that is put together"))
    if kind == "Filter":
        found += _filter(node)
    if kind == "Test" and node.name not in _TESTS:
        found.append((False, f"the test {node.name}"))
    if kind == "Call":
        found += _call(node.node, macros)
    return found


def _put_together(key: Any) -> bool:
    """Whether a key is made of text by the template: ``x['a' ~ 'b']``."""
    if type(key).__name__ in ("Concat", "Filter"):
        return True
    return type(key).__name__ in ("Add", "Mod", "Mul") and any(
        type(side).__name__ in ("Add", "Concat", "Filter") or isinstance(getattr(side, "value", None), str)
        for side in (key.left, key.right)
    )


def _filter(node: Any) -> list[tuple[bool, str]]:
    if node.name not in _FILTERS:
        return [(False, f"the filter {node.name}")]
    constants = [argument.value if type(argument).__name__ == "Const" else None for argument in node.args]
    keywords = {pair.key: pair.value.value if type(pair.value).__name__ == "Const" else None for pair in node.kwargs}
    if node.name == "map":
        named = constants[:1] or [keywords.get("attribute")]
        if constants and named[0] not in _FILTERS - {"map"}:
            return [(False, "a filter that is looked up by a name")]
    if node.name == "format" and not isinstance(getattr(node.node, "value", None), str):
        return [(False, "a format that is put together")]
    paths = constants[:1] if node.name in ("selectattr", "rejectattr", "groupby") else []
    if node.name in ("map", "sort", "unique", "sum", "min", "max", "join"):
        paths += [keywords["attribute"]] if "attribute" in keywords else []
    if node.name in ("select", "reject", "selectattr", "rejectattr"):
        tests = constants[1:2] if node.name.endswith("attr") else constants[:1]
        if any(test not in _TESTS for test in tests):
            return [(False, "a test that is looked up by a name")]
    for path in paths:
        if not isinstance(path, str | int):
            return [(False, "an attribute that is looked up by a name")]
        if "_" in re.findall(r"(?:^|\.)(_)", str(path)):
            return [(True, str(path))]
    return []


def _call(target: Any, macros: set[str]) -> list[tuple[bool, str]]:
    kind = type(target).__name__
    if kind == "Name" and target.name not in _FUNCTIONS | macros:
        return [(False, f"the function {target.name}")]
    if kind == "Getattr" and target.attr not in _METHODS:
        if target.attr in ("format", "format_map") and isinstance(getattr(target.node, "value", None), str):
            return []
        return [(False, f"the method {target.attr}")]
    if kind not in ("Name", "Getattr"):
        return [(False, "a call of something that is looked up")]
    return []
