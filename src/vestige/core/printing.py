"""Text on its way to a person: names and metadata from files steer no terminal."""

from __future__ import annotations

import sys


def visible(value: str) -> str:
    r"""The string with control, text-direction and undecodable characters shown as escapes.

    Names and metadata are untrusted: such characters steer terminals, reverse what is read, or cannot be encoded.

    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if value.isascii() and value.isprintable():
        return value
    return "".join(_shown(c) for c in value)


def _shown(character: str) -> str:
    if character.isprintable() or character == "\u200d":  # the joiner is part of many emoji
        return character
    if character in "\n\r\t":
        return " "
    code = ord(character)
    if code >= 0xA0 and character.isspace():
        return " "
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: object) -> None:
    """Print one line to standard output, made `visible`, in whatever the output can encode."""
    _line(text, sys.stdout)


def complain(text: object) -> None:
    """Print one line to standard error as the program's own word, made `visible`."""
    _line(f"vestige: {text}", sys.stderr)


def _line(text: object, stream: object) -> None:
    shown = visible(str(text))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)  # type: ignore[call-overload]
