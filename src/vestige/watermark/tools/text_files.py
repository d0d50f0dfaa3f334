"""Text files in and out of the marks of texts: all read before anything is written, none overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vestige.core.errors import NOT_MARKED, OK, UsageError
from vestige.core.files import write_atomic
from vestige.core.roles import Reading
from vestige.core.work import Result, Work


def texts_of(work: Work) -> list[tuple[Path, str]]:
    """Every input with its text; raises InputError for the first that is none."""
    work.path(0, "a text file")
    return [(path, work.text(i)) for i, path in enumerate(work.paths)]


def targets(work: Work, suffix: str = "marked") -> list[Path]:
    """Where the result of every input goes: ``--out`` for one text, in the folder ``--out`` for several, else beside
    the input as NAME-suffix. Raises UsageError where an input would be overwritten."""
    several = len(work.paths) > 1
    if several and work.out is None:
        raise UsageError("Several texts need --out FOLDER.")
    found = []
    for path in work.paths:
        target = path.with_name(f"{path.stem}-{suffix}{path.suffix}")
        if work.out is not None:
            target = work.out / path.name if several or work.out.is_dir() else work.out
        if target.exists() and target.resolve() == path.resolve():
            raise UsageError(f"{path} would be overwritten; choose another --out.")
        if target in found:
            raise UsageError(f"Two inputs would be written to {target}; rename one of them.")
        found.append(target)
    return found


def write(path: Path, text: str) -> Path:
    """Write a text in UTF-8, atomically; returns its path."""
    write_atomic(path, text.encode())
    return path


def told(work: Work, read: Callable[[str], Reading], *, found: bool = False) -> Result:
    """Test every input for the mark of the key, a row for each.

    found: the verb is find, which ends with 0 whatever it sees; reading ends with "not marked" where a text has none.
    """
    rows: list[dict[str, int | float | str]] = []
    said = []
    for path, text in texts_of(work):
        reading = read(text)
        marked = reading.outcome == "read"
        why = (reading.details or {}).get("why")
        words = "is marked with this key" if marked else "shows no mark of this key"
        said.append(f"{path}: {words} ({why or f'p = {reading.p_value:.1e}'})")
        plain = {k: v for k, v in (reading.details or {}).items() if isinstance(v, int | float | str)}
        rows.append({"source": str(path), "outcome": reading.outcome, "p_value": reading.p_value, **plain})
    code = OK if found or all(row["outcome"] == "read" for row in rows) else NOT_MARKED
    if len(rows) == 1:
        return Result(said=said, figures=rows[0], exit_code=code)
    return Result(said=said, rows=rows, exit_code=code)
