"""XMP packets, read as far as they can be read.

Programs leave bytes after a packet, NULs inside, prefixes undeclared, and write UTF-16; a reader that demands clean XML
loses all of it. Here the packet is cut out of what surrounds it, what XML forbids is skipped, prefixes are declared,
and what still is no XML is searched for tags and attributes. Each of these is said in ``problems``. No document type,
entity or address is ever followed.

Source: XMP, ISO 16684-1:2019.
"""

from __future__ import annotations

import re
from typing import Any

from vestige.core.records.text import MAX_TEXT, Embedded

MAX_XMP = 8 * 2**20
MAX_XMP_NODES = 20_000
MAX_XMP_DEPTH = 64
#: Packets read from one block: left-over bytes may hold an older one.
_MAX_PACKETS = 4

#: Prefixes reports use for the XMP namespaces they name; others get the last word of their address.
PREFIXES = {
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/mm/": "xmpMM",
    "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#": "stEvt",
    "http://ns.adobe.com/xap/1.0/sType/ResourceRef#": "stRef",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/camera-raw-settings/1.0/": "crs",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://purl.org/dc/terms/": "dcterms",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "Iptc4xmpCore",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "adobe:ns:meta/": "x",
    "http://www.w3.org/XML/1998/namespace": "xml",
}
_SPACES = {prefix: space for space, prefix in PREFIXES.items()}

_START = re.compile(r"<(?:([A-Za-z_][\w.-]{0,40}):)?(xmpmeta|xapmeta|RDF)(?=[\s/>])")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_USED = re.compile(r"(?:</?|\s)([A-Za-z_][\w.-]{0,40}):(?=[A-Za-z_])")
_DECLARED = re.compile(r"xmlns:([A-Za-z_][\w.-]{0,40})\s*=")
_TAG = re.compile(r"<([A-Za-z_][\w.-]{0,60}:[\w.-]{1,80})([^<>]{0,20000})>?([^<]{0,20000})")
_ATTRIBUTE = re.compile(
    r"([A-Za-z_][\w.-]{0,60}:[\w.-]{1,80})\s{0,8}=\s{0,8}(?:\"([^\"<]{0,20000})\"|'([^'<]{0,20000})')"
)
_STRUCTURE = ("rdf:", "xml:", "x:", "xmlns")


def read_xmp(packet: bytes, out: Embedded) -> None:
    """Add what an XMP block says to ``out``; what is odd about the block becomes a problem."""
    text = _decode(packet[:MAX_XMP])
    if not text.strip("\x00 \r\n\t"):
        return
    bare = _FORBIDDEN.sub("", text)
    if len(bare) < len(text.rstrip("\x00 ")):
        out.say("the XMP packet holds characters that XML forbids; they were skipped")
    packets, rest = _cut(bare)
    if rest:
        out.say(f"{rest} left-over bytes follow the XMP packet")
    for one in packets or [bare]:
        if not _parse(one, out):
            found = _search(one, out)
            kept = "; it was searched for records" if found else ""
            out.say(f"the XMP packet is damaged or not allowed XML{kept}")


def _decode(packet: bytes) -> str:
    """The packet as text, from UTF-8, UTF-16 or UTF-32 with or without a byte order mark."""
    marks = ((b"\xff\xfe\x00\x00", "utf-32-le"), (b"\x00\x00\xfe\xff", "utf-32-be"), (b"\xff\xfe", "utf-16-le"),
             (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))  # fmt: skip
    for mark, name in marks:
        if packet.startswith(mark):
            return packet[len(mark) :].decode(name, "replace")
    for name, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        # in the other byte order the same bytes stand one place further on
        for opening in ("<?x", "<x:", "<rdf"):
            at = packet[:4096].find(opening.encode(name))
            if at >= 0 and (at % width == 0 or (width == 2 and packet[at - 1 : at] != b"\x00")):
                return packet[at % width :].decode(name, "replace")
    try:
        return packet.decode("utf-8")
    except UnicodeDecodeError:
        return packet.decode("latin-1")


def _cut(text: str) -> tuple[list[str], int]:
    """The packets in a block, without what surrounds them, and how many characters follow the last one's end."""
    packets: list[str] = []
    position = end = 0
    while len(packets) < _MAX_PACKETS and (match := _START.search(text, position)):
        closing = f"</{match[1]}:{match[2]}>" if match[1] else f"</{match[2]}>"
        found = text.find(closing, match.end())
        end = found + len(closing) if found >= 0 else len(text)
        packets.append(text[match.start() : end])
        position = end
    after = re.sub(r"^\s*<\?xpacket[^<>]{0,80}\?>", "", text[end:]) if packets else ""
    return packets, len(after.strip("\x00 \r\n\t"))


def _parse(packet: str, out: Embedded) -> bool:
    """Read a packet as XML; False where it is none."""
    from defusedxml import ElementTree

    undeclared = set(_USED.findall(packet)) - set(_DECLARED.findall(packet)) - {"xml", "xmlns"}
    if undeclared and (head := re.match(r"<[\w.:-]{1,80}", packet)):
        spaces = "".join(f' xmlns:{p}="{_SPACES.get(p, "undeclared:" + p)}"' for p in sorted(undeclared)[:40])
        declared = packet[: head.end()] + spaces + packet[head.end() :]
    else:
        declared = packet
    try:
        root = ElementTree.fromstring(declared.encode("utf-8"), forbid_dtd=True)
    except Exception:  # expat, defusedxml and codecs raise many types on damaged or hostile packets
        return False
    if undeclared & {u for u in undeclared if f"<{u}:" in packet or f" {u}:" in packet}:
        out.say("the XMP packet uses prefixes that it does not declare")
    _walk(root, out)
    return True


def _walk(root: Any, out: Embedded) -> None:
    stack: list[tuple[Any, str, int]] = [(root, "", 0)]
    nodes = 0
    while stack:
        node, path, depth = stack.pop()
        nodes += 1
        if nodes > MAX_XMP_NODES or depth > MAX_XMP_DEPTH:
            out.say("the XMP packet is too large to be read whole")
            return
        name = _qualified(node.tag)
        if not name.startswith(("rdf:", "x:")) and node.tag != root.tag:
            path = f"{path}/{name}" if path else name
        for key, value in node.attrib.items():
            attribute = _qualified(key)
            if attribute == "rdf:resource" and path:
                out.xmp.append((path, value[:MAX_TEXT]))
            elif not attribute.startswith(_STRUCTURE):
                out.xmp.append((f"{path}/{attribute}" if path else attribute, value[:MAX_TEXT]))
        text = (node.text or "").strip()
        if text and path and len(node) == 0:
            out.xmp.append((path, text[:MAX_TEXT]))
        stack += [(child, path, depth + 1) for child in reversed(node)]


def _qualified(tag: str) -> str:
    if not tag.startswith("{"):
        return tag
    space, _, name = tag[1:].partition("}")
    return f"{PREFIXES.get(space) or re.split('[/#:]', space.strip('/#:'))[-1][:40]}:{name}"


def _search(packet: str, out: Embedded) -> int:
    """Tags and attributes of a packet that is no XML, with their prefixes as written; how many were found."""
    before, name = len(out.xmp), ""
    for number, tag in enumerate(_TAG.finditer(packet)):
        if number >= MAX_XMP_NODES:
            break
        own = "" if tag[1].startswith(_STRUCTURE) else tag[1]
        name = own or name
        for attribute in _ATTRIBUTE.finditer(tag[2]):
            key, value = attribute[1], _plain(attribute[2] or attribute[3] or "")
            if key == "rdf:resource" and name:
                out.xmp.append((name, value))
            elif not key.startswith(_STRUCTURE):
                out.xmp.append((key, value))
        if (value := tag[3].strip()) and name:
            out.xmp.append((name, _plain(value)))
    return len(out.xmp) - before


def _plain(value: str) -> str:
    """The five entities of XML as characters; there are no others."""
    for entity, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        value = value.replace(f"&{entity};", character)
    return value
