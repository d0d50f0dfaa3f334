"""Markers as columns of a benchmark: slug and options, and a digest of the code and weights they stand for."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vestige.core.catalogue import system, systems
from vestige.core.errors import UsageError

#: Layers whose code can change what a marker or an attack does; core changes are covered by their own tests.
_PARTS = ("watermark", "data", "nn", "engines", "bench.claims")


@dataclass(frozen=True)
class Method:
    """A marker of the catalogue with options: ``dwt_dct_svd``, or ``dwt_dct_svd:strength=20``."""

    slug: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        return ":".join([self.slug, *(f"{name}={value:g}" for name, value in self.options)])

    def load(self) -> Any:
        """The marker, one per process. Raises UsageError for options it does not take."""
        return _loaded(self)

    def digest(self) -> str:
        """Changes with the code of the method, the vestige modules it imports, or its shipped weights."""
        return _method_digest(self.slug)


@cache
def _loaded(method: Method) -> Any:
    entry = system(method.slug)
    try:
        return entry.load()(**dict(method.options))
    except TypeError as error:
        raise UsageError(f"{method.slug} cannot be made with these options ({error}).") from None


@cache
def _method_digest(slug: str) -> str:
    import vestige

    target = system(slug).target or ""
    weights = sorted((Path(vestige.__file__).parent / "weights").glob(f"{slug}*"))
    return digest([code_digest(target.partition(":")[0]), [file_digest(str(w)) for w in weights]])


def methods(selection: str) -> list[Method]:
    """Methods separated by commas, options by colons; "all" is every built marker of pictures.

    Raises UsageError for unknown slugs, systems that do not mark pictures, and options that are no numbers.

    >>> methods("dwt_dct_svd:strength=20")[0].label
    'dwt_dct_svd:strength=20'
    """
    if selection.strip() == "all":
        built = [s for s in systems() if "mark" in s.roles and s.target is not None and s.subject == "image"]
        return [Method(s.slug) for s in built if hasattr(s.load(), "mark") and hasattr(s.load(), "read")]
    found = []
    for word in filter(None, (w.strip() for w in selection.split(","))):
        slug, *options = word.split(":")
        entry = system(slug)
        if "mark" not in entry.roles or not (hasattr(entry.load(), "mark") and hasattr(entry.load(), "read")):
            raise UsageError(f"{slug} does not mark pictures; 'vestige systems --role mark' lists what does.")
        found.append(Method(slug, tuple(_option(slug, text) for text in options)))
    if not found:
        raise UsageError("Give at least one method, or 'all'.")
    return list(dict.fromkeys(found))


def _option(slug: str, text: str) -> tuple[str, float | int]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        raise UsageError(f"The option {text!r} of {slug} is not NAME=NUMBER.") from None
    return name, int(number) if number.is_integer() and "." not in value else number


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
