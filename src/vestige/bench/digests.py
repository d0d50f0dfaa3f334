"""Digests of values, files and code: what a stored result of a benchmark depends on."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from vestige.core.catalogue import WINGS

#: Layers whose code can change what a method or an attack does; core changes are covered by their own tests.
_PARTS = (*WINGS, "data", "nn", "engines", "bench.claims")


def digest(value: Any) -> str:
    """Twenty hexadecimal digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


@cache
def file_digest(path: str) -> str:
    """Of a file's bytes, or of all files of a folder; empty for no path or nothing there."""
    root = Path(path)
    if not path or not root.exists():
        return ""
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:20]


@cache
def code_digest(*modules: str) -> str:
    """Of the source of these modules and of every vestige module they import, directly or not, in functions too."""
    seen: dict[str, bytes] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        seen[name] = Path(spec.origin).read_bytes()
        waiting += [n for n in _imports(seen[name]) if n.startswith(tuple(f"vestige.{p}." for p in _PARTS))]
    return digest([[name, hashlib.sha256(seen[name]).hexdigest()] for name in sorted(seen)])


def _imports(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
