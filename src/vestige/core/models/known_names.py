"""The lists in ``known_names.txt``: operators, classes and functions that files of models may use."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


def known(section: str) -> frozenset[str]:
    """The names of one section.

    >>> "Conv" in known("onnx"), "Lambda" in known("keras.classes")
    (True, False)
    """
    return frozenset(_sections()[section])


@cache
def _sections() -> dict[str, list[str]]:
    text = Path(__file__).with_name("known_names.txt").read_text("utf-8")
    parts = re.split(r"^\[([\w.]+)\].*$", text, flags=re.MULTILINE)[1:]
    return {name: names.split() for name, names in zip(parts[::2], parts[1::2])}
