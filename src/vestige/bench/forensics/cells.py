"""One cell of the forensics benchmark: process pictures, examine them, measure. All of it runs in any process."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vestige.bench.digests import code_digest, digest
from vestige.bench.forensics.data import Picture
from vestige.bench.forensics.methods import calibration_of, load, method_digest
from vestige.bench.methods import Method
from vestige.core.calibration import Calibration
from vestige.core.errors import UsageError
from vestige.core.files import write_json
from vestige.core.findings import Finding
from vestige.core.image_io import decode, encode, to_float, to_uint8
from vestige.core.runtime import hardware, rng, versions
from vestige.core.subjects import ImageSubject
from vestige.data.distortions import DISTORTIONS, compose
from vestige.metrics.detection import auroc
from vestige.metrics.segmentation import f1_at_threshold, f1_curve, iou_at_threshold

SCHEMA = 1
#: Pictures in one unit of work, so that an interrupted cell loses little.
CHUNK = 8
#: A place is called edited from here on, unless the examiner has a ``map_threshold`` of its own.
MAP_THRESHOLD = 0.5
#: Thresholds among which the best one is stated. 0 is left out: it marks every pixel, which is a floor of its own.
THRESHOLDS = (0.001, 0.002, 0.005, 0.01, *(round(0.02 * k, 2) for k in range(1, 51)))
#: Like what platforms do to a picture: smaller, a little sharper, compressed.
PLATFORM = (("resize", 0.8), ("sharpen", 0.3), ("jpeg", 75.0))
#: Systems that hide what examiners look for, with the weights that come with vestige.
ATTACKS = ("sear", "laundering")
LADDER = "none,jpeg:90,jpeg:80,jpeg:60,resize:0.75,resize:0.75+jpeg:80,blur:1,noise:0.02,platform,sear"


@cache
def _attacker(slug: str) -> Any:
    return Method(slug).load()


def attacked(slug: str, image: np.ndarray) -> np.ndarray:
    """float32 1×3×H×W in [0, 1] after an attack on examiners; `laundering` may cut a few rows and columns away."""
    return np.asarray(_attacker(slug).attack(image), np.float32)


@dataclass(frozen=True)
class Step:
    """A step of the ladder: what is done to a picture before it is examined. "none" leaves the file as it is.

    attack: one of `ATTACKS`, which goes over the whole picture before the ``steps``.
    """

    name: str
    steps: tuple[tuple[str, float], ...] = ()
    attack: str = ""

    def apply(self, data: bytes, mask: np.ndarray | None, seed: int) -> tuple[bytes, np.ndarray | None]:
        """(file, bool mask of the upright picture) after the step; a JPEG where JPEG comes last, else a PNG."""
        if not self.steps and not self.attack:
            return data, mask
        image = to_float(decode(data).pixels)
        if self.attack:
            image = attacked(self.attack, image)
            mask = mask[: image.shape[2], : image.shape[3]] if mask is not None else None
        saves = bool(self.steps) and self.steps[-1][0] == "jpeg"
        chain = compose(self.steps[:-1] if saves else self.steps)
        before = np.zeros((1, 1, *image.shape[2:]), bool) if mask is None else mask[None, None]
        image, after = chain.with_mask(image, before, seed=seed)
        pixels = to_uint8(image)
        if saves:
            made = encode(pixels, "JPEG", quality=round(self.steps[-1][1]), subsampling=2)
        else:
            made = encode(pixels, "PNG")
        return made, after[0, 0] if mask is not None and after.any() else None


def ladder(selection: str) -> list[Step]:
    """Steps separated by commas: none, platform, ``distortion:strength``, or several of these joined by ``+``; one of
    `ATTACKS` may come first.

    Raises UsageError for unknown names and strengths that are no numbers or out of range.

    >>> [s.name for s in ladder("none,resize:0.75+jpeg:80")]
    ['none', 'resize:0.75+jpeg:80']
    """
    found: dict[str, Step] = {}
    for word in filter(None, (w.strip() for w in selection.split(","))):
        steps: list[tuple[str, float]] = []
        first, _, rest = word.partition("+")
        attack = first if first in ATTACKS else ""
        for part in filter(None, (rest if attack else word).split("+")):
            name, _, text = part.partition(":")
            if part in ("none", "platform"):
                steps += PLATFORM if part == "platform" else ()
                continue
            try:
                steps.append((name, float(text)))
            except ValueError:
                known = f"{', '.join(ATTACKS)} (first), or NAME:NUMBER with {', '.join(DISTORTIONS)}"
                raise UsageError(f"{part!r} is no step; write none, platform, {known}.") from None
        compose(steps)
        found[word] = Step(word, tuple(steps), attack)
    if not found:
        raise UsageError("Give at least one step, such as none or jpeg:80.")
    return list(found.values())


@dataclass(frozen=True)
class Cell:
    """One method after one step."""

    method: Method
    step: Step
    key: str


@dataclass(frozen=True)
class Grid:
    """A prepared set: its name, its pictures, the seed, where parts of cells (``work``) and records are kept."""

    name: str
    pictures: tuple[Picture, ...]
    seed: int
    work: Path
    records: Path

    def cells(self, methods: list[Method], steps: list[Step]) -> list[Cell]:
        """Every cell with the hash of what it depends on."""
        shared = {
            "schema": SCHEMA, "pictures": [p.digest for p in self.pictures], "seed": self.seed,
            "measures": [MAP_THRESHOLD, THRESHOLDS], "steps": code_digest("vestige.data.distortions_real"),
        }  # fmt: skip
        found = []
        for step in steps:
            first = {"attack": Method(step.attack).digest()} if step.attack else {}
            for m in methods:
                parts = {**shared, **first, "method": m.label, "code": method_digest(m), "step": step.steps}
                found.append(Cell(m, step, digest(parts)))
        return found

    def starts(self) -> range:
        """Where the parts of a cell begin."""
        return range(0, len(self.pictures), CHUNK)

    def part_path(self, cell: Cell, start: int) -> Path:
        return self.work / f"part-{cell.key}-{start}.json"


def part_unit(unit: tuple[Grid, Cell, int]) -> str:
    """Examine some pictures of a cell, store what came out unless that is done, and return the cell's key."""
    grid, cell, start = unit
    path = grid.part_path(cell, start)
    if not path.is_file():
        finder, calibration = load(cell.method), calibration_of(cell.method)
        rows = []
        for picture in grid.pictures[start : start + CHUNK]:
            try:
                data, mask = _processed(picture, cell.step, grid.seed)
                rows.append(examined(finder, ImageSubject(data, picture.name), mask, calibration))
            except Exception as error:  # one picture that an examiner fails on must not end the run
                rows.append({"error": f"{picture.name}: {type(error).__name__}: {error}"[:300]})
        write_json(path, {"key": cell.key, "pictures": rows})
    return cell.key


@lru_cache(CHUNK)
def _processed(picture: Picture, step: Step, seed: int) -> tuple[bytes, np.ndarray | None]:
    """A picture after a step, kept for the examiners that come next."""
    return step.apply(*picture.read(), int(rng(seed, "ladder", step.name, picture.digest).integers(2**31)))


def examined(
    finder: Any, subject: ImageSubject, mask: np.ndarray | None, calibration: Calibration | None
) -> dict[str, Any]:
    """What one examiner says of one picture, measured against its mask.

    Where an examiner gives no map, none of the picture is marked. "clean": share of a picture without a mask that is.
    """
    started = time.perf_counter()
    finding: Finding = finder.find(subject)
    seconds = time.perf_counter() - started
    finding = finding if calibration is None else calibration.apply(finding)
    row: dict[str, Any] = {
        "kind": finding.kind,
        "applies": finding.applies,
        "why": finding.why_not or None,
        "score": round(float(finding.score), 6) if math.isfinite(finding.score) else None,
        "flagged": bool(finding.flagged and finding.applies),
        "threshold": finding.threshold,
        "stated": finding.false_positive_rate,
        "map": finding.map is not None,
        "seconds": round(seconds, 4),
    }
    threshold = float(getattr(finder, "map_threshold", MAP_THRESHOLD))
    if mask is None:
        return row | {"clean": 0.0 if finding.map is None else round(float((finding.map >= threshold).mean()), 5)}
    values = _at(finding.map, mask.shape)
    row["f1"] = round(float(f1_at_threshold([mask], [values], threshold)[0]), 5)
    row["iou"] = round(float(iou_at_threshold([mask], [values], threshold)[0]), 5)
    row["auc"] = None if mask.all() else round(auroc(mask.ravel(), values.ravel()), 5)
    row["curve"] = f1_curve(mask, values, THRESHOLDS).round(4).tolist()
    return row


def _at(map_: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """The map at the mask's size, within [0, 1]."""
    import cv2

    if map_ is None:
        return np.zeros(shape, np.float32)
    full = cv2.resize(map_, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.nan_to_num(full, nan=0.0).clip(0, 1)


def record_of(grid: Grid, cell: Cell, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is stored of a finished cell; its pictures are in the grid's order."""
    return {
        "key": cell.key, "set": grid.name, "method": cell.method.label, "step": cell.step.name, "pictures": rows,
        "schema": SCHEMA, "seed": grid.seed, "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
