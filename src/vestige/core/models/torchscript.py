"""The code inside a TorchScript archive: parsed, never compiled, and held to operators that only compute.

TorchScript has no imports, but some of its operators write files (``torch.save``) or map them (``torch.from_file``),
and libraries add more.

Sources: ``torch/csrc/jit/serialization`` of PyTorch 2; native_functions.yaml.
"""

from __future__ import annotations

import ast
import re

from vestige.core.bounded import LimitReached, printable
from vestige.core.models.known_names import known
from vestige.core.models.pickle_report import PickleReport

MAX_CODE = 2**19
MAX_ALL = 2**21
_OPERATORS = known("torchscript")
#: Operators of TorchScript that write, read or map files, or load code.
_FILES = re.compile(
    r"save|load|from_file|_?import\w*|load_library|read_file|write_file|open|_exec\w*|fork|wait|python\w*"
)
#: Classes that the pickles of an archive build, of TorchScript's own.
_CLASSES = re.compile(r"__torch__(\.\w+)*|torch\.jit\._pickle\.(build_(int|double|bool|tensor)list|restore_type_tag)")
_NAMESPACES = ("torch", "ops")


def own_class(name: str) -> bool:
    """Whether the pickle of an archive may import this: a class whose code is in the archive, or a list of numbers."""
    return _CLASSES.fullmatch(name) is not None


def check(code: bytes, place: str, report: PickleReport) -> None:
    """Put into the report which operators one file of code calls that are not known to be harmless."""
    if len(code) > MAX_CODE:
        raise LimitReached(f"{place} is above the limit of 512 KiB")
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report.add_problem(f"{place} holds code that cannot be read ({type(error).__name__})")
        return
    bases: set[int] = set()
    for node in ast.walk(tree):  # what holds a name comes before the name
        if isinstance(node, ast.Import | ast.ImportFrom):
            # the archive's own files name each other by import
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            for name in names:
                if name.split(".")[0] not in ("__torch__", "typing"):
                    report.add_problem(f"{place} imports {printable(name[:80])}, which TorchScript does not")
        elif isinstance(node, ast.Name) and node.id in _NAMESPACES and id(node) not in bases:
            report.add_problem(f"{place} hands on {node.id} under another name")
        elif isinstance(node, ast.Attribute):
            bases.add(id(node.value))
            _operator(_path(node), place, report)


def _path(node: ast.AST) -> tuple[str, ...]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def _operator(path: tuple[str, ...], place: str, report: PickleReport) -> None:
    if len(path) < 2 or path[0] not in _NAMESPACES or path == ("ops", path[1]):
        return
    shown = printable(".".join(path)[:100])
    if _FILES.fullmatch(path[-1]):
        report.add_hazard(f"{place} calls {shown}, which reaches files or runs code")
    elif path[0] == "torch" and path[1:2] == ("Tensor",):
        return
    elif path[-1] not in _OPERATORS or (
        path[0] == "ops" and path[1] not in ("aten", "prim", "quantized", "torchvision")
    ):
        report.add_problem(f"{place} calls {shown}, which is not known to be harmless")
