"""Examined files on disk: what was said as JSON, previews and maps as pictures beside it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vestige.app.report.examined import Examined
from vestige.app.report.items import ReportItem
from vestige.app.report.json_report import plain
from vestige.core.errors import InputError, WriteError
from vestige.core.files import read_json, write_atomic, write_json
from vestige.core.findings import Finding, Findings
from vestige.core.image_io import decode, encode
from vestige.core.video import shrink

_MAP_SIDE = 512
_NOTHING = np.zeros((1, 1, 3), np.uint8)


def item_id(path: Path | str) -> str:
    """What the files of an item are called."""
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def store(item: Examined, folder: Path, name: str) -> None:
    """Write previews and maps first and the JSON last, so that an item with JSON is complete.

    Raises WriteError when one cannot be written; then nothing of the item is left.
    """
    try:
        for part, shown in enumerate(item.parts):
            for (stem, findings), preview in zip(_stems(f"{name}.{part}", shown), (shown.preview, *shown.frames)):
                write_atomic(folder / f"{stem}.preview.jpg", encode(preview, "JPEG", quality=88))
                for finding in findings:
                    if finding.map is not None:
                        small = shrink(finding.map, _MAP_SIDE)
                        pixels = (small.clip(0, 1) * 255 + 0.5).astype(np.uint8)
                        write_atomic(folder / f"{stem}.{finding.examiner}.png", encode(pixels, "PNG"))
        write_json(folder / f"{name}.json", plain(item.to_dict()))
    except WriteError:
        for left in folder.glob(f"{name}.*"):
            with contextlib.suppress(OSError):
                left.unlink()
        raise


def _stems(stem: str, item: ReportItem) -> list[tuple[str, tuple[Finding, ...]]]:
    """File name stems and findings of what has a preview and maps: the part itself and a clip's frames."""
    frames = item.findings.clip.frames if item.findings.clip else ()
    return [(stem, item.findings.findings), *((f"{stem}.f{n}", f.findings) for n, f in enumerate(frames))]


def load(folder: Path, name: str, *, pictures: bool = True, only: int | None = None) -> Examined:
    """Read a stored item back; its maps are named as a report beside ``folder`` does.

    pictures: with previews and maps. only: that part alone. Raises InputError where files of it are gone.
    """
    value = read_json(folder / f"{name}.json")
    try:
        return _load(folder, name, value, pictures, only)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / name}.json does not fit its pictures any more ({error}); use --fresh.") from None


def _load(folder: Path, name: str, value: dict[str, Any], pictures: bool, only: int | None) -> Examined:
    chosen = range(len(value["parts"])) if only is None else [only]
    parts = [_part(folder, f"{name}.{n}", value["parts"][n], pictures) for n in chosen]
    return Examined(
        value["source"],
        value["kind"],
        value["format"],
        value["sha256"],
        tuple(parts),
        value["unit"] or "",
        value["met"],
        tuple((p["part"], p["why"]) for p in value["left_out"]),
        tuple((p["part"], p["error"]) for p in value["failed"]),
        tuple(value["notes"]),
    )


def _part(folder: Path, stem: str, value: dict[str, Any], pictures: bool) -> ReportItem:
    frames = value.get("clip", {}).get("frames", [])
    if not pictures:
        found = Findings.from_dict(value)
        return ReportItem(found, _NOTHING, (_NOTHING,) * len(frames))
    stems = [f"{stem}.f{n}" for n in range(len(frames))]
    maps = [_load_maps(folder, s, frame["findings"]) for s, frame in zip(stems, frames)]
    found = Findings.from_dict(value, _load_maps(folder, stem, value["findings"]), maps)
    previews = [decode((folder / f"{s}.preview.jpg").read_bytes()).pixels for s in (stem, *stems)]
    drawn = {f.examiner: f"{folder.name}/{stem}.{f.examiner}.png" for f in found.findings if f.map is not None}
    return ReportItem(found, previews[0], tuple(previews[1:]), drawn)


def _load_maps(folder: Path, stem: str, findings: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    maps = {}
    for finding in findings:
        if finding["map_caption"] is not None:
            picture = decode((folder / f"{stem}.{finding['examiner']}.png").read_bytes())
            maps[finding["examiner"]] = picture.pixels[..., 0].astype(np.float32) / np.float32(255)
    return maps
