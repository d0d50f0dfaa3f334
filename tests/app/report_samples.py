"""Hand-made findings for the report tests: many examiners, hostile strings, odd sizes."""

from __future__ import annotations

import dataclasses

import numpy as np

from vestige.app.report.items import ReportItem
from vestige.core.findings import Finding, Findings, Verdict

HOSTILE = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp; [bold red]\x1b[2J\u202egpj.exe\udc80"


def blob(height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """A map that is 1 inside the box (top, left, bottom, right as shares) and low elsewhere."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    top, left, bottom, right = box
    noise = np.random.default_rng(1).random((height, width), np.float32) * 0.25
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return np.where(inside, np.float32(1), noise).astype(np.float32)


def findings(source: str = "desk/harbour at dusk.jpg", box: tuple = (0.25, 0.5, 0.5, 0.75)) -> Findings:
    """A picture with traces: two flagged maps, one clear map, a file fact, and examiners that do not apply."""
    panel = (
        Finding(
            "jpeg_ghost",
            "edit",
            0.83,
            "A region was saved at another JPEG quality before it was put here.",
            "All regions share one compression history.",
            flagged=True,
            probability=0.94,
            threshold=0.52,
            false_positive_rate=0.005,
            evidence=(
                "The region right of the centre fits quality 71; the rest of the picture fits quality 92.",
                "The difference is 6.2 times what untouched photographs show.",
            ),
            map=blob(96, 128, box),
            map_caption="Light where the region fits an earlier quality of 71.",
            details={"quality": 71, "ratio": 6.2178, "grid": (0, 0)},
        ),
        Finding(
            "noise_level",
            "edit",
            2.31,
            "Sensor noise is weaker in one region than its brightness explains.",
            "Noise follows brightness everywhere.",
            flagged=True,
            probability=0.71,
            threshold=1.9,
            false_positive_rate=0.013,
            evidence=("Noise in the marked region is 2.3 standard deviations below its surroundings.",),
            map=blob(48, 64, (0.2, 0.4, 0.6, 0.8)),
            map_caption="Light where noise departs from what brightness predicts.",
        ),
        Finding(
            "metadata",
            "container",
            1.0,
            "The embedded thumbnail shows a different picture.",
            "Metadata agrees with the picture.",
            flagged=True,
            evidence=("EXIF names “Photo Editor 5” as the last software.", "Thumbnail and picture differ."),
            details={"software": "Photo Editor 5", "modified": "2024:03:02 18:44:10"},
        ),
        Finding(
            "double_jpeg",
            "history",
            0.12,
            "The picture was compressed twice.",
            "Coefficient histograms show a single compression.",
            probability=0.08,
            threshold=0.6,
            false_positive_rate=0.01,
            map=blob(24, 32, (0, 0, 0.1, 0.1)),
            map_caption="Light where histograms show gaps.",
        ),
        Finding(
            "lsb_payload",
            "payload",
            -0.4,
            "Data is hidden in the lowest bits.",
            "The lowest bits look like sensor noise.",
            probability=0.02,
            threshold=1.1,
            false_positive_rate=0.0,
        ),
        Finding.not_applicable("cfa_traces", "edit", "the picture was scaled down, which removes the pattern."),
        Finding.not_applicable("c2pa_claims", "provenance", "the file carries no content credentials."),
    )
    sentences = (
        "Part of the picture was changed after it was taken: two independent examiners point to the same region, "
        "right of the centre.",
        "The file contradicts the picture: its thumbnail shows something else.",
    )
    verdict = Verdict("found", 0.96, sentences, ("edit", "container"))
    return Findings(source, "9f2c4e17" * 8, "JPEG", 4000, 3000, panel, verdict)


def clear(source: str = "desk/market.png") -> Findings:
    """A picture without a trace."""
    panel = tuple(
        dataclasses.replace(f, flagged=False, probability=0.03, score=0.1) if f.applies else f
        for f in findings().findings
        if f.examiner != "metadata"
    )
    verdict = Verdict("nothing found", 0.04, ("None of the four examiners that apply found a trace.",))
    return Findings(source, "00ab" * 16, "PNG", 1600, 1200, panel, verdict)


def unexamined(source: str = "desk/dot.gif") -> Findings:
    """A picture no examiner applies to."""
    panel = (Finding.not_applicable("jpeg_ghost", "edit", "the picture is 1×1 pixels."),)
    verdict = Verdict("not examined", float("nan"), ("The picture is too small to be examined.",))
    return Findings(source, "ff" * 32, "GIF", 1, 1, panel, verdict)


def hostile() -> Findings:
    """Untrusted strings wherever a file's author can put one."""
    base = findings(HOSTILE)
    finding = dataclasses.replace(
        base.findings[0],
        when_flagged=HOSTILE,
        evidence=(HOSTILE,),
        map_caption=HOSTILE,
        details={HOSTILE: HOSTILE, "nested": [HOSTILE], "raw": b"\x00\xff"},
    )
    away = Finding.not_applicable("cfa_traces", "edit", HOSTILE)
    verdict = Verdict("found", 0.9, (HOSTILE,), ("edit",))
    return dataclasses.replace(base, format=HOSTILE, findings=(finding, away), verdict=verdict)


def photo(height: int = 300, width: int = 400) -> np.ndarray:
    """A picture that ships with scikit-image, uint8 H×W×3."""
    from skimage import data, transform

    image = transform.resize(data.coffee(), (height, width), anti_aliasing=True)
    return (image * 255 + 0.5).astype(np.uint8)


def batch(count: int = 6) -> list[ReportItem]:
    """Pictures with traces, without, and unexamined, in turn."""
    makers = (findings, clear, unexamined)
    picture = photo(150, 200)
    return [
        ReportItem(makers[n % 3](f"folder/photo_{n:03d}.jpg"), np.roll(picture, n * 9, axis=1)) for n in range(count)
    ]
