"""A verb on files by the system that is named: the system's own function for it, or its method on pictures.

A system whose role is about single pictures has a method (``attack(images)``); the others have a function of the
verb's name in ``vestige.<wing>.tools.<slug>``, see `vestige.core.work`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vestige.app import api
from vestige.core.catalogue import ROLES, VERBS, System, system, systems
from vestige.core.errors import OK, Interrupted, UsageError
from vestige.core.printing import say, visible
from vestige.core.work import Result, Work

_ROLE = {verb: role for role, verb in VERBS.items()} | {"read": "mark"}


def pairs(set_: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE words as a dictionary; raises UsageError for a word without "="."""
    found = {}
    for word in set_:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {word!r} has no value; write NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


def chosen(verb: str, method: str | None) -> System:
    """The built system of that slug which has the role; raises UsageError, naming some that do."""
    role = _ROLE[verb]
    if method is None:
        able = [s.slug for s in systems() if role in s.roles and s.target and (verb in {c.verb for c in s.commands})]
        some = f"one of {', '.join(able[:12])}{' ...' if len(able) > 12 else ''}" if able else "a system"
        raise UsageError(f"Name what does it with --method: {some}; 'vestige systems --role {role}' lists them.")
    entry = system(method)
    if entry.target is None:
        entry.load()  # says that it is planned
    if role not in entry.roles:
        raise UsageError(f"{method} does not {verb}; 'vestige systems --role {role}' lists what does.")
    assert role in ROLES
    return entry


def has_tool(verb: str, method: str | None) -> bool:
    """Whether the system carries out the verb by a function of its own."""
    entry = next((s for s in systems() if s.slug == method), None)
    return entry is not None and entry.target is not None and entry.tool(verb) is not None


def run(verb: str, work: Mapping[str, Any], key: Path | None, set_: Sequence[str], as_json: bool) -> int:
    """Carry out a verb and print what came of it. work: fields of `Work` besides verb, key and options."""
    code = offered(verb, work, key, set_, as_json)
    if code is not None:
        return code
    return _on_pictures(chosen(verb, work["method"]), _work(verb, work, key, set_))


def _work(verb: str, work: Mapping[str, Any], key: Path | None, set_: Sequence[str]) -> Work:
    return Work(verb=verb, key=api._key(key), options=pairs(set_), **work)


def offered(verb: str, work: Mapping[str, Any], key: Path | None, set_: Sequence[str], as_json: bool) -> int | None:
    """Offer the work to the system's own function; the exit code, or None where it has none or leaves these inputs to
    the verb's ordinary way."""
    entry = chosen(verb, work["method"])
    made = _work(verb, work, key, set_)
    tool = entry.tool(verb)
    if tool is None:
        return None
    try:
        result = tool(made)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; the same command does {entry.slug} again.") from None
    if result is None:
        return None
    if not isinstance(result, Result):
        raise TypeError(f"{entry.slug}: {verb} returned {type(result).__name__}, not a Result")
    made.settled()
    tell(made, result, as_json)
    return result.exit_code


def tell(work: Work, result: Result, as_json: bool) -> None:
    """Print a result as text or JSON."""
    if as_json:
        content = {
            "verb": work.verb, "method": work.method, "inputs": [str(p) for p in work.paths],
            "figures": dict(result.figures), "rows": [dict(r) for r in result.rows],
            "files": [str(f) for f in result.files], "said": list(result.said),
        }  # fmt: skip
        print(json.dumps(_plain(content), indent=2))
        return
    if work.quiet:
        return
    for sentence in result.said:
        say(sentence)
    if result.rows:
        _table(result.rows)
    for name, value in result.figures.items():
        say(f"  {name}: {f'{value:.4g}' if isinstance(value, float) else value}")
    for file in result.files:
        say(f"Written: {file}")


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width to fit
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for column in columns:
        table.add_column(Text(visible(str(column))))
    for row in rows:
        cells = (row.get(c, "") for c in columns)
        table.add_row(*(Text(f"{c:.4g}" if isinstance(c, float) else visible(str(c))) for c in cells))
    console.print(table)


def _plain(value: Any) -> Any:
    """The same value with numpy's and torch's numbers as Python's, and no number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _on_pictures(entry: System, work: Work) -> int:
    """The system's method on every picture in turn; each result beside its input or in ``--out``."""
    import numpy as np

    from vestige.app.jobs.files_loop import process
    from vestige.core.image_io import to_uint8
    from vestige.core.subjects import ImageSubject

    cls = entry.load()
    if not hasattr(cls, work.verb):
        raise UsageError(f"{entry.slug} does not {work.verb} files; 'vestige systems {entry.slug}' shows what it does.")
    options = constructor_options(cls, work)
    made = cls(**options)
    method = getattr(made, work.verb)
    takes = inspect.signature(method).parameters
    extra = {"seed": work.seed} if "seed" in takes else {}

    def change(subject: ImageSubject) -> tuple[np.ndarray, str]:
        with_mask = {"masks": work.masked(subject)} if work.mask is not None and "masks" in takes else {}
        found = method(subject.image, **extra, **with_mask)
        images = found[0] if isinstance(found, tuple) else found
        images = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, np.float32)
        if images.shape != subject.image.shape:
            return to_uint8(images), f"{work.verb} by {entry.slug}"
        error = float(np.mean((images - subject.image) ** 2))
        return to_uint8(images), f"{work.verb} by {entry.slug} (PSNR {-10 * np.log10(max(error, 1e-12)):.1f} dB)"

    if not work.paths:
        work.path(0, "a picture")
    code = process(
        work.paths, work.out, entry.slug, change, quality=95, keep_metadata=False, quiet=work.quiet, label=entry.slug
    )
    return code or OK


def constructor_options(cls: Any, work: Work) -> dict[str, Any]:
    """``--set`` words as arguments of a constructor, in the types of its defaults.

    Raises UsageError for a name that it does not have or that has no plain default.
    """
    found: dict[str, Any] = {}
    parameters = parameters_of(cls)
    plain = {n: p.default for n, p in parameters.items() if isinstance(p.default, bool | int | float | str)}
    for name in work.rest():
        if name not in plain:
            known = ", ".join(plain) or "none"
            raise UsageError(f"{work.method} has no setting {name!r}; it has {known}.")
        found[name] = work.option(name, plain[name])
    if work.model is not None:
        if "weights" not in parameters:
            raise UsageError(f"{work.method} takes no --model.")
        found["weights"] = work.needed("model", "a file of weights")
    if "device" in parameters:
        found.setdefault("device", work.device)
    return found


def parameters_of(cls: Any) -> dict[str, inspect.Parameter]:
    """The constructor's arguments by name, with those that it hands on to the classes it derives from."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        if "__init__" not in vars(one):
            continue
        given = list(inspect.signature(one.__init__).parameters.values())[1:]
        for parameter in given:
            found.setdefault(parameter.name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in given):
            break
    return found
