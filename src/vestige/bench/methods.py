"""Systems of the catalogue as columns of a benchmark: slug and options, and a digest of the code and weights behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vestige.bench.digests import code_digest, digest, file_digest
from vestige.core.catalogue import System, system
from vestige.core.errors import UsageError


@dataclass(frozen=True)
class Method:
    """A system of the catalogue with options: ``dwt_dct_svd``, or ``dwt_dct_svd:strength=20``."""

    slug: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        return ":".join([self.slug, *(f"{name}={value:g}" for name, value in self.options)])

    def load(self) -> Any:
        """The instance, one per process. Raises UsageError for options it does not take."""
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


def select(
    selection: str, fits: Callable[[System], bool], refusal: str, groups: Mapping[str, Callable[[], Sequence[Method]]]
) -> list[Method]:
    """Methods separated by commas, options by colons, each once; a word of ``groups`` stands for what it returns.

    Raises UsageError for unknown slugs, systems that do not fit ("SLUG refusal"), options that are no numbers, and an
    empty selection.
    """
    found: list[Method] = []
    for word in filter(None, (w.strip() for w in selection.split(","))):
        if word in groups:
            found += groups[word]()
            continue
        slug, *options = word.split(":")
        if not fits(system(slug)):
            raise UsageError(f"{slug} {refusal}")
        found.append(Method(slug, tuple(_option(slug, text) for text in options)))
    if not found:
        raise UsageError(f"Give at least one method, or {' or '.join(repr(g) for g in groups)}.")
    return list(dict.fromkeys(found))


def _option(slug: str, text: str) -> tuple[str, float | int]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        raise UsageError(f"The option {text!r} of {slug} is not NAME=NUMBER.") from None
    return name, int(number) if number.is_integer() and "." not in value else number
