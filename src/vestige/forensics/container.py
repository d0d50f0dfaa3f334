"""What a picture file holds besides its picture: appended data, second file types, odd chunks, a wrong name.

Source: the file formats' own structures (ITU-T T.81, PNG 3rd edition, WebP container, GIF89a, TIFF 6.0, ISO/IEC
14496-12) and the polyglot techniques catalogued in Albertini, "Abusing file formats", PoC||GTFO 0x07 (2015).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vestige.core.containers import KNOWN_BOXES, Layout
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.image_io import SUFFIXES
from vestige.core.records.clip import read_clip
from vestige.core.records.embedded import clean, picture_layout
from vestige.core.records.trailers import PADDING, peel
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject

_MAGIC = (
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b\x08", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"\xca\xfe\xba\xbe", "a Java class or macOS program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"#!", "a script"),
    (b"<?php", "a PHP script"),
    (b"<?xml", "XML"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"OggS", "Ogg media"),
    (b"ID3", "MP3 audio"),
    (b"fLaC", "FLAC audio"),
    (b"\x1aE\xdf\xa3", "Matroska media"),
    (b"LUKS\xba\xbe", "an encrypted volume"),
    (b"-----BEGIN PGP", "a PGP message"),
)

_OTHER_SUFFIXES = frozenset(
    {".exe", ".js", ".html", ".htm", ".php", ".zip", ".jar", ".pdf", ".txt", ".doc", ".docx", ".svg", ".mp4", ".sh"}
)

_MARKUP = re.compile(rb"<\s*(script|html|iframe|svg|body)[\s>]|<\?php|javascript:", re.IGNORECASE)
_SCRIPT_WORDS = re.compile(rb"\b(function|eval|import|require|powershell|cmd\.exe|/bin/(ba)?sh)\b")

_PNG_KNOWN = frozenset(
    "IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV mDCv cLLI cLLi tEXt zTXt iTXt bKGD hIST "  # noqa: SIM905
    "pHYs sPLT eXIf tIME acTL fcTL fdAT oFFs pCAL sCAL sTER gIFg gIFx gIFt dSIG caBX vpAg caNv orNT iDOT "
    "mkBF mkBS mkBT mkTS prVW npOl npTc npLb CgBI exIf zxIf meTa fRAc skMf skRf cpIp tXMP".split()
)
_WEBP_KNOWN = frozenset(["VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP", "EXIF", "XMP ", "C2PA"])
_JPEG_APPS = (
    b"JFIF\x00", b"JFXX\x00", b"Exif\x00", b"http://ns.adobe.com/", b"ICC_PROFILE\x00", b"Photoshop 3.0\x00", b"Adobe",
    b"MPF\x00", b"JP", b"FPXR\x00", b"Ducky", b"AROT", b"HDR_RI", b"urn:iso:std:iso:ts:21496", b"QVCI", b"SPIFF",
    b"PIC\x00", b"AVI1", b"CIFF", b"[picture info]", b"EPPIM", b"GoPro", b"FLIR\x00", b"Meta", b"SSNEGATIVE", b"HPQ",
)  # fmt: skip


def identify(blob: bytes) -> str:
    """What a stretch of bytes looks like, in words.

    >>> identify(b"PK\\x03\\x04" + bytes(40))
    'a ZIP archive'
    """
    if blob and not blob.strip(b"\x00"):
        return "zero bytes"
    kind = sniff(blob[:300])
    if kind in IMAGE_FORMATS and kind != "BMP":
        return f"another picture ({kind})"
    for magic, words in _MAGIC:
        if blob.startswith(magic):
            return words
    if kind in VIDEO_FORMATS:
        return f"a video ({kind})"
    if kind not in ("unknown", "BMP", "safetensors", "pickle"):
        return f"{kind} data"
    head = blob[:4096]
    if _MARKUP.search(head):
        return "HTML or script code"
    printable = sum(32 <= b < 127 or b in (9, 10, 13) for b in head) / max(len(head), 1)
    if printable > 0.9:
        return "a script" if _SCRIPT_WORDS.search(head) else "text"
    return "random-looking data (encrypted or compressed)" if entropy(blob) > 0.97 else "unknown data"


def _padded(blob: bytes) -> str:
    """`identify`, not misled by up to 64 fill bytes in front."""
    found = identify(blob)
    bare = blob[:64].lstrip(b"\x00\r\n ") + blob[64:]
    return identify(bare) if found.startswith(("unknown", "random")) and len(bare) < len(blob) else found


def entropy(blob: bytes) -> float:
    """Shannon entropy of the byte values, as a share of what random bytes of this length would have.

    H / log2(min(256, n)); 0 for a constant, near 1 for encrypted data. Source: Shannon, BSTJ 1948.
    """
    sample = np.frombuffer(blob[: 1 << 20], np.uint8)
    if sample.size < 2:
        return 0.0
    share = np.bincount(sample, minlength=256) / sample.size
    share = share[share > 0]
    # for short samples the plug-in estimate is low by about (distinct - 1) / (2 n ln 2) bits (Miller, 1955)
    bits = -float((share * np.log2(share)).sum()) + (share.size - 1) / (2 * sample.size * np.log(2))
    return min(bits / min(8.0, float(np.log2(sample.size))), 1.0)


class Container:
    """Flags files that hold more than the picture: appended data, polyglots, odd chunks, a wrong ending.

    What cameras and programs are known to add is named and no finding, as far as its lengths add up
    (`vestige.core.records.trailers`). chunk_limit: an unknown chunk or segment above this size is flagged.

    >>> from vestige.core.image_io import encode
    >>> png = encode(np.zeros((8, 8, 3), np.uint8), "PNG")
    >>> Container().find(ImageSubject(png + b"PK\\x03\\x04 and so on")).flagged
    True
    """

    slug = "container"
    kind = "container"

    def __init__(self, *, chunk_limit: int = 256 * 1024) -> None:
        self.chunk_limit = chunk_limit

    def find(self, subject: ImageSubject) -> Finding:
        """Everything beside the picture; the score counts the facts that are flagged."""
        try:
            format = subject.format
        except VestigeError as error:
            return Finding.not_applicable(self.slug, "container", str(error))
        data = subject.data
        parts = picture_layout(subject)
        odd: list[str] = []
        benign: list[str] = []
        self._tail(data, parts, format, odd, benign)
        self._gaps(data, parts, odd)
        self._chunks(data, parts, format, odd, benign)
        self._polyglots(data, parts, odd)
        name = _wrong_name(subject.source, format)
        odd += [name] * bool(name)
        return self._finding(odd, benign, parts.problems, parts.end, len(data), len(parts.parts))

    def find_clip(self, clip: VideoSubject) -> Finding:
        """The same for the file of a clip, which is read box by box and not as a whole."""
        found = read_clip(clip.path, clip.format)
        odd: list[str] = []
        benign: list[str] = []
        left = found.size - found.end
        if left > 0:
            with open(clip.path, "rb") as file:
                file.seek(found.end)
                rest = file.read(min(left, 1 << 20))
                file.seek(max(0, found.size - 65_557))
                tail = file.read()
            if left <= PADDING and not rest.strip(b"\x00\xff\r\n "):
                benign.append(f"{left:,} bytes of padding follow the clip")
            else:
                odd.append(f"{left:,} bytes follow the end of the clip; they look like {_padded(rest)}")
            at = tail.rfind(b"PK\x05\x06")
            if at >= 0 and _is_zip_end(tail, at):
                odd.append("the file is also a ZIP archive (as used to smuggle Java archives and office files)")
        benign += [f"a file is attached inside the clip: “{clean(name, 60)}”" for name in found.attached[:4]]
        name = _wrong_clip_name(clip.source, clip.format)
        odd += [name] * bool(name)
        return self._finding(odd, benign, found.problems, found.end, found.size, len(found.parts), "clip")

    def _finding(
        self, odd: list[str], benign: list[str], faults: list[str], end: int | None, size: int, count: int,
        thing: str = "picture",
    ) -> Finding:  # fmt: skip
        problems = [clean(p) for p in dict.fromkeys(faults)][:8]
        return Finding(
            self.slug,
            "container",
            float(len(odd)),
            when_flagged=f"The file holds more than its {thing}, or contradicts it: " + "; ".join(odd[:2]) + ".",
            when_clear=f"The file holds its {thing} and nothing unexpected beside it.",
            flagged=bool(odd),
            evidence=tuple([*odd[:12], *benign[:8], *problems]),
            details={
                "picture_bytes": end,
                "appended_bytes": 0 if end is None else max(0, size - end),
                "odd": odd[:20],
                "benign": benign[:20],
                "problems": problems,
                "parts": count,
            },
        )

    def _tail(self, data: bytes, parts: Layout, format: str, odd: list[str], benign: list[str]) -> None:
        if parts.end is None or parts.end >= len(data):
            return
        pieces, unknown = peel(data, parts, format)
        benign += [f"after the picture: {piece.words}" for piece in pieces]
        for start, end in unknown:
            odd.append(
                f"{end - start:,} bytes follow the end of the picture; they look like {_padded(data[start:end])}"
            )
            marks = [m for m in (b"SEFT", b"cbipcbbl", b"AXS!", b"LIVE_", b"CANON OPTIONAL DATA", b"vivo{")
                     if m in data[max(start, end - 128) : end]]  # fmt: skip
            if marks:
                odd.append(f"they end with the mark of a camera's trailer ({marks[0].decode()}), whose lengths do not "
                           "account for them")  # fmt: skip

    def _gaps(self, data: bytes, parts: Layout, odd: list[str]) -> None:
        for start, end in parts.gaps[:8]:
            if data[start:end].strip(b"\x00\xff"):
                odd.append(
                    f"{end - start:,} bytes lie between two segments; they look like {identify(data[start:end])}"
                )

    def _chunks(self, data: bytes, parts: Layout, format: str, odd: list[str], benign: list[str]) -> None:
        names: dict[str, tuple[int, int, int]] = {}
        for part in parts.parts:
            if not _expected(data, part.name, part.body, format):
                count, size, body = names.get(part.name, (0, 0, part.body))
                names[part.name] = (count + 1, size + len(part), body)
        for name, (count, size, body) in list(names.items())[:20]:
            words = f"{size:,} bytes in {count} {'segments' if format == 'JPEG' else 'chunks'} called {clean(name, 12)}"
            if size > self.chunk_limit:
                odd.append(
                    f"{words}, which is not part of the format; they look like {identify(data[body : body + size])}"
                )
            else:
                benign.append(f"{words}, not part of the format")

    def _polyglots(self, data: bytes, parts: Layout, odd: list[str]) -> None:
        tail = data[-65_557:]
        at = tail.rfind(b"PK\x05\x06")
        if at >= 0 and _is_zip_end(data, len(data) - len(tail) + at):
            odd.append("the file is also a ZIP archive (as used to smuggle Java archives and office files)")
        if re.search(rb"%PDF-\d\.\d", data[:1024]):
            odd.append("the file is also a PDF document")
        for part in parts.parts:
            if part.name in ("COM", "comment", "tEXt", "iTXt"):
                match = _MARKUP.search(data[part.body : min(part.end, part.body + (1 << 20))])
                if match and not (part.name == "iTXt" and data[part.body :].startswith(b"XML:com.adobe.xmp")):
                    odd.append(f"a comment holds code: “{clean(match.group(0).decode('latin-1'), 30)}…”")
                    break
        if data[:2] == b"BM" and re.match(rb"BM(/\*|=)", data[:4]):
            odd.append("the header doubles as script code")
        if data[:6] in (b"GIF89a", b"GIF87a") and data[6:8] in (b"/*", b"=1"):
            odd.append("the header doubles as script code")


def _is_zip_end(data: bytes, at: int) -> bool:
    """Whether a ZIP end record there points to a central directory in this file."""
    if at + 22 > len(data):
        return False
    entries = int.from_bytes(data[at + 10 : at + 12], "little")
    size = int.from_bytes(data[at + 12 : at + 16], "little")
    comment = int.from_bytes(data[at + 20 : at + 22], "little")
    directory = at - size
    if directory < 0 or at + 22 + comment > len(data):
        return False
    return entries == 0 or data[directory : directory + 4] == b"PK\x01\x02"


def _expected(data: bytes, name: str, body: int, format: str) -> bool:
    if format == "PNG":
        return name in _PNG_KNOWN
    if format == "WEBP":
        return name in _WEBP_KNOWN
    if format in ("AVIF", "HEIF"):
        return name in KNOWN_BOXES
    if format == "JPEG" and name.startswith("APP"):
        return any(data.startswith(prefix, body) for prefix in _JPEG_APPS)
    return True


def _wrong_name(source: str, format: str) -> str:
    suffix = Path(source).suffix.lower()
    if not re.fullmatch(r"\.[a-z0-9]{1,5}", suffix):
        return ""
    named = SUFFIXES.get(suffix)
    if named == format or {named, format} == {"AVIF", "HEIF"}:
        return ""
    if named is not None:
        return f"the name ends in {suffix}, but the content is {format}"
    return f"the name ends in {suffix}, but the content is a {format} picture" if suffix in _OTHER_SUFFIXES else ""


def _wrong_clip_name(source: str, format: str) -> str:
    suffix = Path(source).suffix.lower()
    named = SUFFIXES.get(suffix)
    if named is not None or suffix in _OTHER_SUFFIXES - {".mp4"}:
        return f"the name ends in {suffix}, but the content is a clip ({format})"
    return ""
