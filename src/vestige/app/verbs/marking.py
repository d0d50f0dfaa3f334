"""``vestige mark`` and ``vestige read``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vestige.app import api
from vestige.app.jobs.batch import collect
from vestige.app.jobs.files_loop import process
from vestige.core.errors import BAD_INPUT, NOT_MARKED, OK, PARTIAL, UNREADABLE_MARK, UsageError, VestigeError
from vestige.core.printing import complain, say
from vestige.core.subjects import ImageSubject


def options_of(
    method: str, set_: Sequence[str], strength: float | None, model: Path | None, device: str
) -> dict[str, Any]:
    """The constructor's arguments of a marker from --set, --strength, --model and --device.

    Raises UsageError for settings that the marker does not have.
    """
    if not (set_ or model) and device == "auto":
        return {} if strength is None else {"strength": strength}
    from vestige.app.verbs.working import chosen, constructor_options, pairs, parameters_of
    from vestige.core.work import Work

    cls = chosen("mark", method).load()
    found = constructor_options(cls, Work(verb="mark", method=method, options=pairs(set_), device=device))
    if strength is not None:
        found["strength"] = strength
    if model is not None:
        if "weights" not in parameters_of(cls):
            raise UsageError(f"{method} has no network; leave --model out.")
        found["weights"] = model
    return found


_CODES = {"read": OK, "unreadable": UNREADABLE_MARK, "absent": NOT_MARKED}


def mark_files(
    paths: Sequence[Path], out: Path | None, message: str | None, bits: str | None, key: Path | None, method: str,
    options: dict[str, Any], quality: int, keep_metadata: bool, quiet: bool, mask: Path | None = None,
) -> int:  # fmt: skip
    """Mark every picture with the same payload; mask: where, for markers that take one."""
    if (message is None) == (bits is None):
        raise UsageError("Give the payload with either --message or --bits.")
    payload = None if bits is None else _from_hex(bits)
    secret = api._key(key)
    carried = repr(message) if message is not None else f"{len(payload if payload is not None else [])} bits"

    def change(subject: ImageSubject) -> tuple[np.ndarray, str]:
        pixels = api.mark(subject, message=message, bits=payload, key=secret, method=method, mask=mask, **options)
        before = subject.pixels.astype(np.float32)
        scale = 257 if pixels.dtype == np.uint16 else 1
        error = float(np.mean((pixels.astype(np.float32) / scale - before) ** 2))
        psnr = 10 * np.log10(255**2 / max(error, 1e-9))
        return pixels, f"carries {carried} (PSNR {psnr:.1f} dB)"

    return process(
        paths, out, "marked", change, quality=quality, keep_metadata=keep_metadata, quiet=quiet, label="marking"
    )


def _from_hex(digits: str) -> np.ndarray:
    text = digits.removeprefix("0x")
    try:
        data = bytes.fromhex(text if len(text) % 2 == 0 else "0" + text)
    except ValueError:
        raise UsageError(f"--bits takes hexadecimal digits like 0f3a, got {digits!r}.") from None
    if not data:
        raise UsageError("--bits is empty; give up to 16 hexadecimal digits.")
    return np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)


def read_files(
    paths: Sequence[Path], key: Path | None, method: str, as_json: bool, quiet: bool,
    options: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Read every picture; the exit code is the highest of the outcomes' codes."""
    secret = api._key(key)
    stdin = [str(p) for p in paths] == ["-"]
    files = [Path("-")] if stdin else collect(paths)
    rows, codes, failed = [], [], 0
    for file in files:
        try:
            picture: api.Picture = sys.stdin.buffer.read() if stdin else file
            reading = api.read(picture, key=secret, method=method, **(options or {}))
        except VestigeError as error:
            if len(files) == 1:
                raise
            failed += 1
            complain(error)
            continue
        codes.append(_CODES[reading.outcome])
        bits = None if reading.bits is None else np.packbits(reading.bits).tobytes().hex()
        rows.append(
            {
                "source": str(file),
                "outcome": reading.outcome,
                "message": reading.message,
                "bits": bits,
                "p_value": reading.p_value,
                "confidence": round(reading.confidence, 4),
                **({"bound": bound} if (bound := (reading.details or {}).get("bound")) is not None else {}),
            }
        )
        if not as_json and not quiet:
            said = {
                "read": f"reads {reading.message!r}" if reading.message is not None else f"reads bits {bits}",
                "unreadable": "is marked, but the payload cannot be read",
                "absent": "is not marked with this key",
            }[reading.outcome]
            if reading.outcome == "read" and (reading.details or {}).get("bound"):
                said += ", bound to this picture"
            why = (reading.details or {}).get("why") or f"p = {reading.p_value:.1e}"
            say(f"{file}: {said} ({why})")
    if as_json:
        print(json.dumps(rows[0] if len(files) == 1 and rows else rows, indent=2))
    if failed:
        return PARTIAL if rows else BAD_INPUT
    return max(codes)
