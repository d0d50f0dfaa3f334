"""HTML that cannot be broken by what is put into it: every string is escaped unless it is `Markup` already."""

from __future__ import annotations

import html

_VOID = frozenset({"img", "input", "meta", "link", "br", "hr"})


class Markup(str):
    """Text that is HTML already; only `element` and `join` make it from untrusted strings."""

    __slots__ = ()


def text(value: object) -> Markup:
    """HTML of a value: markup as it is, anything else as escaped text.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value)), quote=True))


def join(*parts: object) -> Markup:
    """The parts one after the other, None and empty ones left out."""
    return Markup("".join(text(p) for p in parts if p is not None))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """One HTML element; a trailing underscore is dropped from attribute names and the others become dashes.

    Attributes that are None or False are left out; True gives a bare attribute.

    >>> element("a", "x < y", href="#p1", class_="name")
    '<a href="#p1" class="name">x &lt; y</a>'
    """
    written = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        written += f" {name.rstrip('_').replace('_', '-')}"
        if value is not True:
            written += f'="{text(value)}"'
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


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
