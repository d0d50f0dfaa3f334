"""What a file is, from its first bytes. File names are hints for people, never for the reader."""

from __future__ import annotations

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")
VIDEO_FORMATS = ("MP4", "MOV", "AVI", "WEBM", "MKV")

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
#: With what QuickTime files start that are older than file-type atoms.
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"pnot")


def told(kind: str) -> str:
    """A kind of content, in words that follow "content looks like".

    >>> told("unknown")
    'nothing that vestige knows'
    """
    return "nothing that vestige knows" if kind == "unknown" else kind


def sniff(head: bytes) -> str:
    """Name of the format that starts with these bytes (64 are enough, tar needs 263), "unknown" otherwise.

    >>> sniff(b"\\x89PNG\\r\\n\\x1a\\n")
    'PNG'
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[:4] == b"\x1a\x45\xdf\xa3":  # EBML; the document type follows within the header
        return "WEBM" if b"webm" in head[4:64] else "MKV"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:2] == b"BM" and len(head) >= 26:
        return "BMP"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        compatible = head[16 : min(size, 64)]
        brands = {head[8:12], *(compatible[i : i + 4] for i in range(0, len(compatible), 4))}
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
        return "MOV" if head[8:12] == b"qt  " else "MP4"
    if head[4:8] in _QUICKTIME_ATOMS:
        return "MOV"
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return "safetensors"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in (2, 3, 4, 5):
        return "pickle"
    if head[:6] == b"\x93NUMPY":
        return "npy"
    if head[:5] == b"%PDF-":
        return "PDF"
    return "unknown"


def is_image(head: bytes) -> bool:
    """Whether the bytes start a picture that vestige reads."""
    return sniff(head) in IMAGE_FORMATS


def is_video(head: bytes) -> bool:
    """Whether the bytes start a clip that vestige reads (animated GIFs are pictures of several frames).

    >>> is_video(b"RIFF\\x00\\x00\\x00\\x00AVI LIST")
    True
    """
    return sniff(head) in VIDEO_FORMATS
