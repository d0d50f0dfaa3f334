"""``vestige erase`` and ``vestige restore`` on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vestige.app import api
from vestige.app.jobs.files_loop import process
from vestige.core.errors import UsageError
from vestige.core.subjects import ImageSubject

_ERASERS = {"faces": "face_obscure", "region": "inpaint_classic"}
_RESTORERS = {"noise": "nlm", "holes": "inpaint_classic", "size": "lanczos"}


def erase_files(
    paths: Sequence[Path], out: Path | None, what: str, mode: str, mask: Path | None, method: str | None, quality: int,
    keep_metadata: bool, quiet: bool,
) -> int:  # fmt: skip
    """Erase faces or a masked region from every picture."""
    chosen = method or _choice("--what", what, _ERASERS)
    if chosen == "inpaint_classic" and mask is None:
        raise UsageError("--what region needs --mask, a picture of the same size that is white where to erase.")
    options: dict[str, Any] = {"mode": mode} if chosen == "face_obscure" else {}
    hole = None if mask is None else ImageSubject.open(mask)

    def change(subject: ImageSubject) -> tuple[np.ndarray, str]:
        if chosen == "inpaint_classic":
            pixels = api.restore(subject, method=chosen, mask=hole)
            return pixels, "region erased"
        pixels, changed = api.erase(subject, method=chosen, mask=hole, **options)
        share = float(changed.mean())
        return pixels, f"{share:.1%} of the picture erased" if share else "nothing to erase was found; copied unchanged"

    return process(
        paths, out, "erased", change, quality=quality, keep_metadata=keep_metadata, quiet=quiet, label="erasing"
    )


def restore_files(
    paths: Sequence[Path], out: Path | None, what: str, mask: Path | None, scale: float, method: str | None,
    quality: int, keep_metadata: bool, quiet: bool,
) -> int:  # fmt: skip
    """Denoise, fill or enlarge every picture."""
    chosen = method or _choice("--what", what, _RESTORERS)
    if chosen == "inpaint_classic" and mask is None:
        raise UsageError("--what holes needs --mask, a picture of the same size that is white where it is missing.")
    options: dict[str, Any] = {"scale": scale} if chosen == "lanczos" else {}
    hole = None if mask is None else ImageSubject.open(mask)

    def change(subject: ImageSubject) -> tuple[np.ndarray, str]:
        pixels = api.restore(subject, method=chosen, mask=hole, **options)
        return pixels, f"restored with {chosen}"

    return process(
        paths, out, "restored", change, quality=quality, keep_metadata=keep_metadata, quiet=quiet, label="restoring"
    )


def _choice(option: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise UsageError(f"{option} takes {' or '.join(known)}, got {value!r}.")
    return known[value]
