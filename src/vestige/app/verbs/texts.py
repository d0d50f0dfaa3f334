"""``vestige mark`` and ``vestige read`` on text files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vestige.app import api
from vestige.core.errors import NOT_MARKED, OK, InputError, UsageError
from vestige.core.files import write_atomic

SUFFIXES = {".txt", ".md", ".text"}
_LARGEST = 10_000_000
#: Share of unmarked texts that may be called marked; the library's own default is the paper's 5 %.
ALPHA = 0.01


def are_texts(paths: Sequence[Path]) -> bool:
    """Whether all paths are text files; raises UsageError for a mixture of texts and pictures."""
    kinds = {path.suffix.lower() in SUFFIXES for path in paths}
    if len(kinds) > 1:
        raise UsageError("Texts and pictures cannot be mixed in one command; give one kind at a time.")
    return kinds == {True}


def mark_texts(paths: Sequence[Path], out: Path | None, message: str | None, key: Path | None, quiet: bool) -> int:
    """Rewrite each text by synonyms that carry the mark of the key."""
    from vestige.watermark.text_blackbox import TextBlackbox

    if message is not None:
        raise UsageError("The mark of a text carries no message, only its key; leave --message and --bits out.")
    folder = out is not None and (out.is_dir() or len(paths) > 1)
    if out is None and len(paths) > 1:
        raise UsageError("Several texts need --out FOLDER.")
    marker, secret = TextBlackbox(alpha=ALPHA), api._key(key)
    texts = [_open(path) for path in paths]  # all of them before anything is written
    for path, text in zip(paths, texts, strict=True):
        if out is None:
            target = path.with_name(f"{path.stem}-marked{path.suffix}")
        else:
            target = out / path.name if folder else out
        if target.exists() and target.resolve() == path.resolve():
            raise UsageError(f"{path} would be overwritten; choose another --out.")
        marked = marker.mark_text(text, secret)
        seen = marker.read_text(marked, secret)
        write_atomic(target, marked.encode())
        if not quiet:
            enough = "" if seen.outcome == "read" else "; too few words to be recognised again, give a longer text"
            print(f"{path} -> {target}: {_changes(text, marked)} words replaced (p = {seen.p_value:.1e}{enough})")
    return OK


def read_texts(paths: Sequence[Path], key: Path | None, as_json: bool, quiet: bool) -> int:
    """Test each text for the mark of the key; exit code 4 when one has none."""
    from vestige.watermark.text_blackbox import TextBlackbox

    marker, secret = TextBlackbox(alpha=ALPHA), api._key(key)
    rows = []
    for path in paths:
        reading = marker.read_text(_open(path), secret)
        rows.append(
            {"source": str(path), "outcome": reading.outcome, "p_value": reading.p_value, **(reading.details or {})}
        )
        if not as_json and not quiet:
            said = "is marked with this key" if reading.outcome == "read" else "shows no mark of this key"
            print(f"{path}: {said} (p = {reading.p_value:.1e})")
    if as_json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
    return OK if all(row["outcome"] == "read" for row in rows) else NOT_MARKED


def _open(path: Path) -> str:
    """A text file in UTF-8; raises InputError with what is wrong."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is larger than {_LARGEST // 1_000_000} MB; split it.")
        return path.read_bytes().decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; convert it first.") from None


def _changes(before: str, after: str) -> int:
    return sum(a != b for a, b in zip(before.split(), after.split(), strict=False))
