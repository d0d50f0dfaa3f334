"""What the file's own records say about its history: camera, dates, programs, and where they contradict each other.

Source: Exif 3.0 (CIPA DC-008, 2023), XMP (ISO 16684-1:2019), IPTC Photo Metadata Standard 2023.1.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.records.clip import read_clip
from vestige.core.records.embedded import Embedded, clean, read_embedded
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject
from vestige.forensics.source_types import source_type

#: Programs people change pictures with, by how they sign.
EDITORS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "Adobe Photoshop Lightroom": r"\blightroom\b",
        "Adobe Camera Raw": r"adobe (photoshop )?camera raw|\bcamera raw \d",
        "Adobe Photoshop": r"adobe photoshop(?!.*(lightroom|camera raw))|adobe imageready|^photoshop \d",
        "Adobe Express": r"adobe (express|spark)",
        "GIMP": r"\bgimp\b",
        "Affinity Photo": r"\baffinity (photo|designer|publisher)",
        "Capture One": r"capture ?one",
        "darktable": r"\bdarktable\b",
        "RawTherapee": r"\brawtherapee\b|^art \d",
        "Luminar": r"\bluminar\b",
        "DxO": r"\bdxo (photolab|opticspro|nik)|\bnik collection",
        "Snapseed": r"\bsnapseed\b",
        "PicsArt": r"\bpicsart\b",
        "Pixelmator": r"\bpixelmator\b",
        "Photopea": r"\bphotopea\b",
        "Paint.NET": r"\bpaint\.net\b",
        "Microsoft Paint": r"^(microsoft )?paint( \d|$)",
        "Microsoft Photos": r"^microsoft windows photo|^windows photo editor|^microsoft photos",
        "PaintShop Pro": r"paint ?shop ?pro",
        "Corel": r"^corel (photo|draw|painter)",
        "Krita": r"\bkrita\b",
        "Clip Studio Paint": r"clip studio",
        "Canva": r"^canva\b",
        "VSCO": r"^vsco\b",
        "Facetune": r"\bfacetune",
        "FaceApp": r"\bfaceapp\b",
        "Meitu": r"\bmeitu\b|^beautyplus",
        "PhotoScape": r"\bphotoscape\b",
        "Polarr": r"\bpolarr\b",
        "Topaz": r"\btopaz (photo|gigapixel|denoise|sharpen|labs)",
        "ON1": r"^on1 ",
        "ACDSee": r"\bacdsee\b",
        "Picasa": r"^picasa\b",
        "Samsung photo editor": r"^(samsung )?photo ?editor\b",
        "Inkscape": r"\binkscape\b",
        "SumoPaint": r"\bsumopaint\b",
        "PhotoDirector": r"\bphotodirector\b",
    }.items()
}

#: Programs that store, shrink or convert pictures: stated, but no sign of editing by themselves.
CONVERTERS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "GD (a web server's resizer)": r"creator: gd-jpeg",
        "ImageMagick": r"\bimagemagick\b|\bgraphicsmagick\b",
        "FFmpeg": r"\blavc\d|\blavf\d|\bffmpeg\b",
        "libvips": r"\blibvips\b|^vips",
        "JPEGmini": r"\bjpegmini\b",
        "Pillow": r"^pillow\b|python imaging library",
        "XnView": r"\bxnview",
        "IrfanView": r"\birfanview",
        "LEADTOOLS": r"lead technologies",
        "Matplotlib": r"\bmatplotlib\b",
        "a social network's upload (FBMD)": r"^FBMD[0-9a-f]{8}",
        "a screenshot tool": r"gnome-screenshot|^screenshot$|\bflameshot\b|\bshutter\b",
    }.items()
}

_SIGNED_IN = re.compile(
    r"(^|/)(Software|ProcessingSoftware|RAWDevelopingSoftware|ImageEditingSoftware|OriginatingProgram|comment|"
    r"SpecialInstructions|Creator|xmp:CreatorTool|tiff:Software|stEvt:softwareAgent|pdf:Producer|crs:Version)$",
    re.IGNORECASE,
)
_CHANGES = ("saved", "converted", "derived", "edited", "cropped", "filtered", "resized", "color_adjustments", "drawing")
_DATE = re.compile(r"^(\d{4})[:-](\d{2})[:-](\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2}))?)?|^(\d{4})(\d{2})(\d{2})$")


def parse_date(text: str) -> datetime | None:
    """A date as EXIF, XMP or IPTC write it, without its time zone; None when it is none.

    >>> parse_date("2024:02:03 04:05:06")
    datetime.datetime(2024, 2, 3, 4, 5, 6)
    """
    match = _DATE.match(text.strip())
    if match is None:
        return None
    numbers = [int(g) for g in match.groups() if g is not None]
    try:
        return datetime(*numbers)  # type: ignore[arg-type]
    except ValueError:
        return None


class Metadata:
    """Reads EXIF, XMP, IPTC and comments; flags editing programs and records that contradict each other.

    tolerance_hours: how far two dates may lie apart before they contradict: local times without a time zone may
    differ by 26 hours for the same moment.

    >>> import numpy as np
    >>> from vestige.core.image_io import encode
    >>> Metadata().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).flagged
    False
    """

    slug = "metadata"
    kind = "history"

    def __init__(self, *, tolerance_hours: float = 26.0) -> None:
        self.tolerance = timedelta(hours=tolerance_hours)

    def find(self, subject: ImageSubject) -> Finding:
        """The history the file documents; the score counts the facts found."""
        try:
            embedded = read_embedded(subject)
            size = subject.size
        except VestigeError as error:
            return Finding.not_applicable(self.slug, self.kind, str(error))
        return self._finding(embedded, size)

    def find_clip(self, clip: VideoSubject) -> Finding:
        """The same for the file of a clip: XMP, user data, tags."""
        return self._finding(read_clip(clip.path, clip.format).embedded, (clip.width, clip.height))

    def _finding(self, embedded: Embedded, size: tuple[int, int]) -> Finding:
        editors, converters = _programs(embedded)
        history = _history(embedded)
        contradictions, notes = self._compare(embedded, size)
        camera = clean(" ".join(str(embedded.exif[k]) for k in ("Make", "Model") if k in embedded.exif), 80)
        dates = _dates(embedded)
        evidence = [
            *(f"{name} signed the file: “{clean(text)}”" for name, text in editors.items()),
            *history,
            *contradictions,
            *(f"stored or converted by {name}: “{clean(text)}”" for name, text in converters.items()),
        ]
        if camera:
            evidence.append(f"camera named: {camera}")
        if "DateTimeOriginal" in dates:
            evidence.append(f"taken according to EXIF: {dates['DateTimeOriginal']}")
        evidence += notes
        if embedded.has_gps:
            evidence.append("privacy: the file tells the position where the picture was taken")
        if embedded.places:
            evidence.append(f"privacy: the file names the place: {clean(', '.join(dict.fromkeys(embedded.places)))}")
        evidence += embedded.problems[:8]
        facts = len(editors) + len(history) + len(contradictions)
        named = ", ".join(editors)
        return Finding(
            self.slug,
            "history",
            float(facts),
            when_flagged="The file's records "
            + " and ".join(
                [f"name editing software ({named})"] * bool(editors)
                + ["document later processing"] * bool(history and not editors)
                + ["contradict each other or the picture"] * bool(contradictions)
            )
            + ".",
            when_clear="The file's records name no editing software and do not contradict each other."
            if embedded.raw or embedded.texts
            else "The file carries no camera or editing records.",
            flagged=facts > 0,
            evidence=tuple(evidence),
            details={
                "camera": camera,
                "editors": {k: clean(v) for k, v in editors.items()},
                "converters": {k: clean(v) for k, v in converters.items()},
                "dates": dates,
                "contradictions": contradictions,
                "gps": list(embedded.gps) if embedded.gps else None,
                "tells_position": embedded.has_gps,
                "blocks": dict(embedded.raw),
                "fields": {k: clean(v) for k, v in list(embedded.exif.items())[:40]},
                "problems": [clean(p) for p in embedded.problems[:20]],
            },
        )

    def _compare(self, embedded: Embedded, size: tuple[int, int]) -> tuple[list[str], list[str]]:
        """Records that contradict each other or the picture, and differences that have an ordinary reason."""
        found, notes = [], []
        exif = embedded.exif
        claimed = (exif.get("PixelXDimension"), exif.get("PixelYDimension"))
        if all(isinstance(c, int) and c > 0 for c in claimed) and claimed not in (size, size[::-1]):
            found.append(
                f"EXIF says {claimed[0]}×{claimed[1]} pixels, the picture has {size[0]}×{size[1]}: it was cropped or "
                "resized after the record was written"
            )
        original, modified = (parse_date(str(exif.get(k, ""))) for k in ("DateTimeOriginal", "DateTime"))
        if original and modified and modified < original - self.tolerance:
            found.append(f"EXIF says it was changed on {modified} but taken later, on {original}")
        taken = {
            "EXIF": original,
            "XMP": _first_date(embedded.xmp, ("exif:DateTimeOriginal",)),
            "GPS clock": parse_date(embedded.gps_date),
        }
        known = {k: d for k, d in taken.items() if d is not None}
        slack = self.tolerance + timedelta(days=1)
        clock = known.get("GPS clock")
        others = [d for k, d in known.items() if k != "GPS clock"]
        if clock and others and (weeks := _rollover(others[0] - clock, slack)):
            notes.append(
                f"the GPS clock says {clock.date()}, {weeks} weeks before the camera's: the count of weeks in a GPS "
                "receiver starts again after 1,024 weeks, and old receivers do not notice"
            )
            del known["GPS clock"]
        for name in [k for k, d in known.items() if d.year < _DIGITAL]:
            notes.append(f"{name} dates the picture to {known[name].date()}: an old photograph, or a clock never set")
            del known[name]
        for name, date, exact in _content_dates(embedded):
            if not known:
                known |= {} if date.year < _DIGITAL else {name: date}
            elif min(known.values()) - date > slack and (not exact or _digitised(embedded) or date.year < _DIGITAL):
                notes.append(f"{name} dates the content to {date.date()}, before the file was made: a scan or a copy")
            else:
                known[name] = date
        if known and max(known.values()) - min(known.values()) > slack:
            listed = ", ".join(f"{k} {d.date()}" for k, d in known.items())
            found.append(f"the creation dates differ: {listed}")
        return found, notes


#: Photographs of earlier years were not taken by the digital camera or scanner that made the file.
_DIGITAL = 1990
_WEEKS = 1024
_SCANNER = re.compile(
    r"scan|epson|perfection|coolscan|plustek|reflecta|pacific image|microtek|umax|hasselblad flextight|imacon|"
    r"silverfast|vuescan|twain|pakon|noritsu|frontier|opticfilm",
    re.IGNORECASE,
)


def _rollover(difference: timedelta, slack: timedelta) -> int:
    """How many weeks late a GPS clock is that lost whole rounds of 1,024, 0 where it did not."""
    rounds = round(difference / timedelta(weeks=_WEEKS))
    return _WEEKS * rounds if rounds > 0 and abs(difference - timedelta(weeks=_WEEKS * rounds)) <= slack else 0


def _content_dates(embedded: Embedded) -> list[tuple[str, datetime, bool]]:
    """Dates of what the picture shows, as archives write them, and whether they name the time of day."""
    found = []
    for name, pairs, key in (("XMP", embedded.xmp, "photoshop:DateCreated"), ("IPTC", embedded.iptc, "DateCreated")):
        for path, value in pairs:
            if path == key and (date := parse_date(value)):
                found.append((name, date, len(value.strip()) > 10))
                break
    return found


def _digitised(embedded: Embedded) -> bool:
    """Whether the records name a scanner, or say that the file was made from film or paper."""
    names = " ".join(str(embedded.exif.get(k, "")) for k in ("Make", "Model", "Software"))
    if _SCANNER.search(names):
        return True
    terms = {source_type(v) for k, v in embedded.xmp if k.lower().endswith("digitalsourcetype")}
    return bool(terms & {"negativeFilm", "positiveFilm", "print"})


def _first_date(pairs: list[tuple[str, str]], names: tuple[str, ...]) -> datetime | None:
    for name, value in pairs:
        if name in names and (date := parse_date(value)):
            return date
    return None


def _dates(embedded: Embedded) -> dict[str, str]:
    dates = {k: clean(v, 40) for k, v in embedded.exif.items() if k.startswith("DateTime")}
    named = ("xmp:CreateDate", "xmp:ModifyDate", "photoshop:DateCreated", "xmp:MetadataDate")
    dates |= {k: clean(v, 40) for k, v in embedded.xmp if k in named}
    return dates | {f"IPTC {k}": clean(v, 40) for k, v in embedded.iptc if "Date" in k}


def _programs(embedded: Embedded) -> tuple[dict[str, str], dict[str, str]]:
    """Editing and converting programs that signed, with the words they signed with."""
    editors: dict[str, str] = {}
    converters: dict[str, str] = {}
    for text in embedded.every_text():
        if text.key == "APP12" and text.value == "Ducky":
            editors.setdefault("Adobe Photoshop", "a Save-for-Web segment (Ducky)")
        if not _SIGNED_IN.search(text.key):
            continue
        signature = clean(text.value, 300)
        for table, found in ((EDITORS, editors), (CONVERTERS, converters)):
            for name, pattern in table.items():
                if pattern.search(signature):
                    found.setdefault(name, signature)
    if any(k.startswith("crs:") and not k.startswith("crs:Version") for k, _ in embedded.xmp):
        editors.setdefault("Adobe Camera Raw", "develop settings in the XMP packet")
    version = embedded.resources.get(0x0421, b"")
    if version or 0x040C in embedded.resources:
        signed = version.decode("utf-16-be", "ignore") if b"P\x00h\x00o\x00t\x00o" in version else ""
        editors.setdefault("Adobe Photoshop", clean(signed) or f"{len(embedded.resources)} Photoshop resource blocks")
    return editors, converters


def _history(embedded: Embedded) -> list[str]:
    """Steps the XMP packet documents."""
    steps: dict[str, int] = {}
    sources: list[str] = []
    for path, value in embedded.xmp:
        if path.endswith("stEvt:action") and value in _CHANGES:
            steps[value] = steps.get(value, 0) + 1
        if path.startswith(("xmpMM:DerivedFrom/stRef:documentID", "xmpMM:DerivedFrom/stRef:originalDocumentID")):
            sources.append(value)
    found = []
    if steps:
        listed = ", ".join(f"{k} {n}×" if n > 1 else k for k, n in steps.items())
        found.append(f"the XMP history lists steps: {listed}")
    if sources:
        found.append(f"the XMP packet says it was made from another document ({clean(sources[0], 60)})")
    return found
