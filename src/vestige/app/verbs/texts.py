"""Which method marks text files: the default one for pictures does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vestige.core.errors import UsageError

SUFFIXES = {".txt", ".md", ".text"}
#: The methods that are taken where none is named.
PICTURES, TEXTS = "spread_spectrum", "text_blackbox"


def are_texts(paths: Sequence[Path]) -> bool:
    """Whether all paths are text files; raises UsageError for a mixture of texts and pictures."""
    kinds = {path.suffix.lower() in SUFFIXES for path in paths}
    if len(kinds) > 1:
        raise UsageError("Texts and pictures cannot be mixed in one command; give one kind at a time.")
    return kinds == {True}


def method_for(paths: Sequence[Path], method: str) -> str:
    """The method named, but for text files that of texts instead of the default one of pictures.

    >>> method_for([Path("letter.txt")], PICTURES), method_for([Path("letter.txt")], "exp")
    ('text_blackbox', 'exp')
    """
    return TEXTS if method == PICTURES and are_texts(paths) else method
