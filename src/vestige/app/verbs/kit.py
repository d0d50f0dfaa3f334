"""``vestige starter``: the kit of small files that every command can be tried on."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from vestige.core.errors import OK, InputError, Interrupted
from vestige.core.files import folder_atomic, write_atomic
from vestige.core.printing import say


def parts() -> dict[str, Callable[[Path], list[str]]]:
    """The ``write`` of every module of `vestige.app.starter`, the core first."""
    import vestige.app.starter

    names = sorted((m.name for m in pkgutil.iter_modules(vestige.app.starter.__path__)), key=lambda n: (n != "core", n))
    return {name: importlib.import_module(f"vestige.app.starter.{name}").write for name in names}


def write(out: Path, quiet: bool = False) -> int:
    """Write the kit to a new folder; it appears whole or not at all.

    Raises InputError when the folder exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; choose another name for the kit.")
    try:
        with folder_atomic(out) as folder:
            for make in parts().values():
                make(folder)
            write_atomic(folder / "README.md", (files("vestige.app.starter") / "README.md").read_bytes())
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was written.") from None
    if not quiet:
        count = sum(1 for p in out.rglob("*") if p.is_file())
        say(f"{out}: {count} files to try vestige on.")
        say(f"Next: cd {out}, then read README.md; its ten commands are worth trying first.")
    return OK
