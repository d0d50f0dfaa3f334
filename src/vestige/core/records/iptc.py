"""Photoshop resource blocks and the IPTC records (IIM) in them; damage is stepped over and said.

Source: IPTC-NAA Information Interchange Model 4.2; Photoshop file formats specification, image resources.
"""

from __future__ import annotations

import struct

from vestige.core.records.text import MAX_TEXTS, Embedded, decode_text

IPTC_NAMES = {
    5: "ObjectName", 25: "Keywords", 26: "LocationCode", 27: "LocationName", 40: "SpecialInstructions",
    55: "DateCreated", 60: "TimeCreated", 62: "DigitalCreationDate", 65: "OriginatingProgram", 70: "ProgramVersion",
    80: "By-line", 90: "City", 92: "Sub-location", 101: "Country", 105: "Headline", 110: "Credit", 115: "Source",
    116: "CopyrightNotice", 120: "Caption", 122: "Writer-Editor", 103: "Transmission",
}  # fmt: skip
_SIGNS = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
_IPTC, _THUMBNAIL = 0x0404, 0x040C


def read_resources(block: bytes, out: Embedded) -> list[bytes]:
    """Add the resources of a Photoshop block to ``out``; returns the IPTC blocks among them."""
    position, seen, iptc = 0, 0, []
    while position + 12 <= len(block) and seen < MAX_TEXTS:
        if block[position : position + 4] not in _SIGNS:
            if block[position:].strip(b"\x00"):
                out.say("the Photoshop resource block is damaged")
            position = block.find(b"8BIM", position + 1)
            if position < 0:
                break
            continue
        seen += 1
        number, name = struct.unpack_from(">HB", block, position + 4)
        size_at = position + 6 + (name + 2) // 2 * 2
        if size_at + 4 > len(block):
            break
        (size,) = struct.unpack_from(">I", block, size_at)
        content = block[size_at + 4 : size_at + 4 + size]
        if len(content) < size:
            out.say("a Photoshop resource is cut short")
        out.resources.setdefault(number, content)
        if number == _IPTC:
            iptc.append(content)
        if number == _THUMBNAIL and content[28:30] == b"\xff\xd8":
            out.thumbnails.append(("Photoshop", content[28:]))
        position = size_at + 4 + size + size % 2
    return iptc


def read_iptc(block: bytes, out: Embedded) -> None:
    """Add the application records of an IPTC block to ``out``; fields of any length are read."""
    position = 0
    while position + 5 <= len(block) and len(out.iptc) < MAX_TEXTS:
        if block[position] != 0x1C:
            if block[position:].strip(b"\x00"):
                out.say("bytes between the IPTC fields belong to none")
            position = block.find(b"\x1c\x02", position + 1)
            if position < 0:
                return
            continue
        record, number, size = struct.unpack_from(">BBH", block, position + 1)
        position += 5
        if size & 0x8000:  # an extended field: the length of its length, then its length
            width = size & 0x7FFF
            if not 1 <= width <= 8 or position + width > len(block):
                out.say("an IPTC field has an impossible length")
                continue
            size = int.from_bytes(block[position : position + width], "big")
            position += width
        if position + size > len(block):
            out.say("an IPTC field is cut short")
        if record == 2 and number in IPTC_NAMES:
            out.iptc.append((IPTC_NAMES[number], decode_text(block[position : position + size])))
        position += size
