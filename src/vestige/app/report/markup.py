"""HTML that cannot be broken by what is put into it: every string is escaped unless it is `Markup` already."""

from __future__ import annotations

import html

from vestige.core.printing import visible

__all__ = ["Markup", "element", "join", "text", "visible"]

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
