"""Layouts of sets of generated pictures and forged faces: GenImage, FaceForensics++, DFDC.

Sources: GenImage: A Million-Scale Benchmark for Detecting AI-Generated Image, NeurIPS 2023; FaceForensics++: Learning
to Detect Manipulated Facial Images, ICCV 2019; The DeepFake Detection Challenge (DFDC) Dataset, arXiv 2006.07397
(2020).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from vestige.core.errors import InputError
from vestige.core.files import read_json
from vestige.data.forensic_sets.items import REAL, ForensicItem, Listing

_PARTS = ("train", "val", "test")


def genimage(listing: Listing) -> list[ForensicItem] | None:
    """GENERATOR/train|val/ai: generated, GENERATOR/train|val/nature: photographs; groups: generator and part."""
    items = []
    for file in listing.pictures:
        kind, part, generator = file.parent.name, file.parent.parent.name, file.parent.parent.parent.name
        if kind in ("ai", "nature") and part in _PARTS:
            name = generator or listing.root.resolve().name
            approach = name if kind == "ai" else REAL
            items.append(listing.item(file, kind == "ai", approach=approach, groups={"generator": name, "part": part}))
    return items if len({item.label for item in items}) == 2 else None


def faceforensics(listing: Listing) -> list[ForensicItem] | None:
    """original_sequences/SOURCE/COMPRESSION and manipulated_sequences/METHOD/COMPRESSION, each with videos/CLIP.mp4 or
    images/CLIP/FRAME.png; masks of a method, bright where edited, in METHOD/masks/videos. Groups: compression."""
    frames: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for file in listing.pictures:
        if file.parent.parent.name == "images":
            frames[file.parent].append(file)
    masks = {(f.parts[-4], f.stem): f for f in listing.clips if len(f.parts) > 3 and f.parts[-3] == "masks"}
    drawn = {(f.parts[-5], f.parts[-2], f.stem): f for f in listing.pictures if f.parts[-4:-2] == ("masks", "images")}
    items: list[ForensicItem] = []
    for clip in listing.clips:
        options = _sequence(clip.parts[:-2]) if clip.parent.name == "videos" else None
        if options is not None:
            label, method, groups = options
            mask = masks.get((method, clip.stem))
            items += listing.of_clip(clip, label, mask=mask, approach=method, groups=groups)
    for folder, files in sorted(frames.items()):
        options = _sequence(folder.parts[:-2])
        if options is not None:
            label, method, groups = options
            for file in listing.spread(files):
                mask = drawn.get((method, folder.name, file.stem))
                items.append(listing.item(file, label, mask=mask, approach=method, groups=groups))
    return items if any(item.label for item in items) else None


def _sequence(parts: tuple[str, ...]) -> tuple[bool, str, dict[str, str]] | None:
    """(label, approach, groups) of …/original_sequences|manipulated_sequences/NAME/COMPRESSION."""
    if len(parts) < 3 or parts[-1] == "masks" or parts[-3] not in ("original_sequences", "manipulated_sequences"):
        return None
    forged = parts[-3] == "manipulated_sequences"
    return forged, parts[-2] if forged else REAL, {"compression": parts[-1]}


def dfdc(listing: Listing) -> list[ForensicItem] | None:
    """metadata.json names clips FAKE or REAL, in its folder as CLIP.mp4 or as a folder CLIP of frames; groups: part."""
    clips = set(listing.clips)
    frames: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for file in listing.pictures:
        frames[file.parent].append(file)
    items: list[ForensicItem] = []
    tables = [f for f in listing.files if f.name == "metadata.json"]
    named = 0
    for table in tables:
        content = read_json(listing.root / table)
        labels = {
            name: entry["label"] for name, entry in (content.items() if isinstance(content, dict) else ())
            if isinstance(entry, dict) and entry.get("label") in ("FAKE", "REAL")
        }  # fmt: skip
        named += len(labels)
        part = (listing.root / table).resolve().parent.name
        for name, said in sorted(labels.items()):
            forged = said == "FAKE"
            options = {"approach": "fake" if forged else REAL, "groups": {"part": part}}
            clip = table.parent / name
            if clip in clips:
                items += listing.of_clip(clip, forged, **options)
            elif clip.with_suffix("") in frames:
                files = listing.spread(frames[clip.with_suffix("")])
                items += [listing.item(file, forged, **options) for file in files]
    if named and not items:
        raise InputError(f"None of the {named} clips that metadata.json names is in {listing.root}; unpack them there.")
    return items or None
