"""One cell of the watermark benchmark: mark pictures, attack them, read them. Everything here runs in any process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import vestige
from vestige.bench.digests import code_digest, digest, file_digest
from vestige.bench.methods import Method
from vestige.core.errors import UsageError, VestigeError
from vestige.core.files import read_json, write_atomic, write_json
from vestige.core.image_io import decode, encode, to_float, to_uint8
from vestige.core.keys import derive
from vestige.core.roles import Reading
from vestige.core.runtime import hardware, rng, versions
from vestige.metrics.quality import psnr, ssim
from vestige.watermark.attacks import Context, Trial

SCHEMA = 1
#: Pictures the attacker has, for collusion and forgery.
POOL = 16
_WEIGHTS = Path(vestige.__file__).parent / "weights"
#: The text-to-image model that comes with vestige; it knows rendered scenes and redraws photographs in small tiles.
SHIPPED_MODEL = _WEIGHTS / "scenes_text2image"
_CONTROLS, _PURIFIER = _WEIGHTS / "ctrlregen.safetensors", _WEIGHTS / "ddsp.safetensors"
#: Needs of attacks whose results are kept, because they cost more than everything else.
_DRAWING = {"model", "autoencoder", "purifier", "controls"}
_MADE_BY = {"purifier": "vestige.watermark.ddsp", "controls": "vestige.watermark.ctrlregen"}
_TINY = 1e-300
_USED: set[Method] = set()


@dataclass(frozen=True)
class Settings:
    """What a benchmark depends on besides its pictures, methods and attacks.

    bits: of the payload. nulls: keys each attacked unmarked picture is read with. side: longest side in pixels that
    larger pictures are reduced to (0: none). model, autoencoder, captioner: folders, as text; `SHIPPED_MODEL` has
    trained controls for CtrlRegen. steps: of diffusion.
    """

    bits: int = 32
    nulls: int = 4
    side: int = 1024
    seed: int = 0
    model: str = ""
    autoencoder: str = ""
    captioner: str = ""
    steps: int = 50

    def __post_init__(self) -> None:
        if self.bits < 1 or self.nulls < 1 or self.side < 0 or self.steps < 1:
            raise UsageError("bits, nulls and steps must be at least 1, and side at least 0.")


@dataclass(frozen=True)
class Cell:
    """One method under one attack; trial None stands for marking alone (quality and time)."""

    method: Method
    trial: Trial | None
    key: str


@dataclass(frozen=True)
class Grid:
    """A prepared benchmark: pictures (name, digest) stored as PNG in ``work``, and settings. See `prepare`."""

    pictures: tuple[tuple[str, str], ...]
    settings: Settings
    work: Path
    records: Path

    def picture(self, index: int) -> np.ndarray:
        """Float32 1×3×H×W of one picture."""
        return to_float(decode((self.work / f"{self.pictures[index][1]}.png").read_bytes()).pixels)

    def cells(self, methods: Sequence[Method], trials: Sequence[Trial]) -> list[Cell]:
        """Every cell with the hash of what it depends on; for each method, first the cell of marking alone."""
        shared = {
            "schema": SCHEMA,
            "pictures": [stored for _, stored in self.pictures],
            "bits": self.settings.bits,
            "nulls": self.settings.nulls,
            "seed": self.settings.seed,
        }
        found = []
        for method in methods:
            made = {**shared, "method": method.slug, "options": dict(method.options), "code": method.digest()}
            found.append(Cell(method, None, digest(made)))
            for trial in trials:
                against = {**made, "attack": [list(s) for s in trial.steps], "attack_code": _attack_code(trial)}
                found.append(Cell(method, trial, digest({**against, **self._models(trial)})))
        return found

    def _models(self, trial: Trial) -> dict[str, str]:
        """Digests of the model files that this trial uses, and its settings."""
        needs = {need for part in trial.parts for need in part.needs}
        used: dict[str, str] = {}
        if needs & _DRAWING:
            used = {"model": file_digest(self.settings.model), "autoencoder": file_digest(self.settings.autoencoder)}
        if needs & {"model", "controls"}:
            used["steps"] = str(self.settings.steps)
        if needs & {"purifier", "controls"}:
            used["shipped"] = digest([file_digest(str(_PURIFIER)), file_digest(str(_CONTROLS))])
        if "caption" in needs:
            used["captioner"] = file_digest(self.settings.captioner)
        return used


def _attack_code(trial: Trial) -> str:
    needs = {need for part in trial.parts for need in part.needs}
    shipped = [module for need, module in _MADE_BY.items() if need in needs]
    return code_digest(*dict.fromkeys([part.run.__module__ for part in trial.parts] + shipped))


def _key(grid: Grid, method: Method, index: int) -> bytes:
    return derive(b"benchmark", f"{grid.settings.seed} {method.slug} {grid.pictures[index][1]}")


def _payload(grid: Grid, index: int) -> np.ndarray:
    generator = rng(grid.settings.seed, "payload", grid.pictures[index][1])
    return generator.integers(0, 2, grid.settings.bits).astype(bool)


def mark_unit(unit: tuple[Grid, Method, int]) -> None:
    """Mark one picture and store it, with fidelity and time, unless that is done."""
    grid, method, index = unit
    name = mark_name(grid, method, index)
    if (grid.work / f"{name}.json").is_file():
        return
    image = grid.picture(index)
    try:
        marker = method.load()
        if method not in _USED:  # the first use loads code and weights, which is not what is timed
            marker.mark(image, _payload(grid, index), _key(grid, method, index))
            _USED.add(method)
        start = time.perf_counter()
        made = marker.mark(image, _payload(grid, index), _key(grid, method, index))
        seconds = time.perf_counter() - start
    except VestigeError as error:
        write_json(grid.work / f"{name}.json", {"error": f"{grid.pictures[index][0]}: {error}"})
        return
    pixels = to_uint8(made)
    write_atomic(grid.work / f"{name}.png", encode(pixels, "PNG"))
    write_json(grid.work / f"{name}.json", {**_fidelity(image, to_float(pixels)), "seconds": seconds})


def mark_name(grid: Grid, method: Method, index: int) -> str:
    """Name, without ending, of the files of one marked picture in ``work``."""
    return "mark-" + digest(
        [method.slug, dict(method.options), method.digest(), grid.pictures[index][1], grid.settings.bits,
         grid.settings.seed]
    )  # fmt: skip


def cell_unit(unit: tuple[Grid, Cell]) -> None:
    """Compute one cell and store its record."""
    grid, cell = unit
    record = _marking(grid, cell) if cell.trial is None else _attacking(grid, cell, cell.trial)
    write_json(grid.records / f"{cell.key}.json", described(cell) | record | _made_with(grid))


def described(cell: Cell) -> dict[str, Any]:
    """The entries of a record that say which cell it is."""
    trial = cell.trial
    return {
        "key": cell.key,
        "method": cell.method.label,
        "attack": None if trial is None else trial.name,
        "strength": None if trial is None else trial.strength,
        "family": None if trial is None else trial.family,
        "forges": trial is not None and trial.forges,
    }


def _made_with(grid: Grid) -> dict[str, Any]:
    described = {**asdict(grid.settings)}
    for name in ("model", "autoencoder", "captioner"):
        described[name] = Path(described[name]).name
    return {
        "schema": SCHEMA, "pictures": len(grid.pictures), "settings": described, "versions": versions(),
        "hardware": hardware(),
    }  # fmt: skip


def _marking(grid: Grid, cell: Cell) -> dict[str, Any]:
    stored = [_mark_record(grid, cell.method, i) for i in range(len(grid.pictures))]
    done = [s for s in stored if "error" not in s]
    return {
        "psnr": [s["psnr"] for s in done],
        "ssim": [s["ssim"] for s in done],
        "mark_seconds": [s["seconds"] for s in done],
        "errors": [s["error"] for s in stored if "error" in s],
    }


def _mark_record(grid: Grid, method: Method, index: int) -> dict[str, Any]:
    path = grid.work / f"{mark_name(grid, method, index)}.json"
    if not path.is_file():
        mark_unit((grid, method, index))
    return read_json(path)


def _attacking(grid: Grid, cell: Cell, trial: Trial) -> dict[str, Any]:
    method, marker = cell.method, cell.method.load()
    rows: dict[str, list[Any]] = {
        name: [] for name in ("scores", "null", "bit_accuracy", "right", "psnr", "ssim", "read_seconds", "errors")
    }
    for index, (name, _) in enumerate(grid.pictures):
        if "error" in _mark_record(grid, method, index):
            continue
        key, payload = _key(grid, method, index), _payload(grid, index)
        clean = grid.picture(index)
        start = clean if trial.forges else _marked_picture(grid, method, index)
        try:
            made = _attacked(grid, trial, index, start, method)
            null = _attacked(grid, trial, index, clean, None)
            started = time.perf_counter()
            (reading,) = marker.read(made, key)
            rows["read_seconds"].append(time.perf_counter() - started)
            nulls = [marker.read(null, derive(key, f"other {k}") if k else key)[0] for k in range(grid.settings.nulls)]
        except VestigeError as error:
            rows["errors"].append(f"{name}: {error}")
            continue
        rows["scores"].append(score(reading))
        rows["null"] += [score(r) for r in nulls]
        accuracy = agreement(reading, payload)
        rows["bit_accuracy"].append(accuracy)
        rows["right"].append(reading.outcome == "read" and accuracy == 1.0)
        if trial.aligned and made.shape == start.shape:
            for measure, value in _fidelity(start, made).items():
                rows[measure].append(value)
    return rows


def pixel_digest(pixels: np.ndarray) -> str:
    """Of shape, type and samples."""
    shape = f"{pixels.dtype} {pixels.shape}".encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:20]


def score(reading: Reading) -> float:
    """-log10 of the reader's p-value: higher is more surely marked."""
    return round(float(-np.log10(max(float(reading.p_value), _TINY))) + 0.0, 4)


def agreement(reading: Reading, payload: np.ndarray) -> float:
    """Share of payload bits that came back, before authentication where the reader tells; ½ where it read nothing."""
    raw = (reading.details or {}).get("raw_bits")
    if isinstance(raw, dict):
        raw = next((raw[n] for n in sorted(raw) if n >= len(payload)), None)
    found = reading.bits if reading.bits is not None else raw
    if found is None or len(found) < len(payload):
        return 0.5
    return float(np.mean(np.asarray(found, bool)[: len(payload)] == payload))


def _fidelity(original: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """PSNR (99 for equal pictures) and SSIM (that of equal pictures below 11 pixels a side)."""
    small = min(original.shape[2:]) < 11
    likeness = 1.0 if small else float(ssim(original, changed)[0])
    return {"psnr": min(99.0, float(psnr(original, changed)[0])), "ssim": likeness}


def _marked_picture(grid: Grid, method: Method, index: int) -> np.ndarray:
    path = grid.work / f"{mark_name(grid, method, index)}.png"
    return to_float(decode(path.read_bytes()).pixels)


def _attacked(grid: Grid, trial: Trial, index: int, image: np.ndarray, method: Method | None) -> np.ndarray:
    """The picture after the trial. What a model drew is kept, because it costs more than everything else."""
    seed = int(rng(grid.settings.seed, "attack", trial.name, grid.pictures[index][1]).integers(2**31))
    if not any(_DRAWING & set(part.needs) for part in trial.parts):
        return trial(image, seed=seed, context=_context(grid, index, method))
    name = digest([pixel_digest(image), list(map(list, trial.steps)), grid._models(trial), _attack_code(trial), seed])
    path = grid.work / f"drawn-{name}.png"
    if not path.is_file():
        made = trial(image, seed=seed, context=_context(grid, index, method))
        write_atomic(path, encode(to_uint8(made), "PNG"))
    return to_float(decode(path.read_bytes()).pixels)


def _context(grid: Grid, index: int, method: Method | None) -> Context:
    """The attacker's means against the mark of one picture; method None: a service that marks nothing."""
    count = len(grid.pictures)
    others = [(index + 1 + i) % count for i in range(min(POOL, count - 1))]

    def service(images: np.ndarray) -> np.ndarray:
        if method is None:
            return images
        return method.load().mark(images, _payload(grid, index), _key(grid, method, index))

    return replace(_models(grid.settings), service=service, pool=_Lazy(grid, others))


class _Lazy(Sequence[np.ndarray]):
    """Pictures of the grid, read when they are asked for."""

    def __init__(self, grid: Grid, indices: Sequence[int]) -> None:
        self.grid, self.indices = grid, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, at: Any) -> Any:
        return self.grid.picture(self.indices[at])


def promised(grid: Grid) -> Context:
    """A context that has what the workers will have, without loading any of it."""
    s = grid.settings
    pool = [np.zeros((1, 3, 1, 1), np.float32)] * (len(grid.pictures) > 1)
    found = _models(s) if s.model else _shipped(s)
    captioned = (lambda images: [""] * len(images)) if s.captioner else None
    autoencoder = object() if s.autoencoder else None
    return replace(found, pool=pool, service=lambda x: x, caption=captioned, autoencoder=autoencoder)


@cache
def _models(settings: Settings) -> Context:
    """The models of this process; loaded once."""
    means = _shipped(settings)
    if not (settings.model or settings.autoencoder or settings.captioner):
        return means
    from vestige.engines.diffusion.autoencoders import load_autoencoder
    from vestige.watermark.attacks.regeneration import load_model

    caption = None
    if settings.captioner:
        from vestige.watermark.visual_paraphrase import load_captioner

        caption = load_captioner(settings.captioner)
    return replace(
        means,
        model=load_model(settings.model) if settings.model else None,
        autoencoder=load_autoencoder(settings.autoencoder, tiny=True) if settings.autoencoder else None,
        caption=caption,
    )


def _shipped(settings: Settings) -> Context:
    """The attacker's means that come with vestige, loaded at their first use."""
    controlled = settings.model == str(SHIPPED_MODEL) and _CONTROLS.is_file()

    def regenerate(images: np.ndarray, strength: float, seed: int) -> np.ndarray:
        return _controls().remove(images, strength, steps=settings.steps, seed=seed)

    return Context(
        purifier=(lambda images: _purifier().purify(images)) if _PURIFIER.is_file() else None,
        controls=regenerate if controlled else None,
        steps=settings.steps,
    )


@cache
def _purifier() -> Any:
    from vestige.watermark.ddsp import DDSP

    return DDSP()


@cache
def _controls() -> Any:
    from vestige.watermark.ctrlregen import CtrlRegen

    return CtrlRegen()
