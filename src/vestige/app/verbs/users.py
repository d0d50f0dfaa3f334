"""``vestige stamp`` and ``vestige whose``: an image generator for every user, and the user behind a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vestige.app import api
from vestige.app.jobs.batch import collect
from vestige.core.errors import BAD_INPUT, NOT_MARKED, OK, PARTIAL, InputError, VestigeError
from vestige.core.printing import complain, say
from vestige.core.subjects import ImageSubject


def stamp(folder: Path, out: Path, user: str, registry: Path, key: Path | None, weights: Path | None) -> int:
    """Copy a diffusers folder with the user's fingerprint in its image decoder; new users enter the registry."""
    from vestige.watermark.users import UserRegistry
    from vestige.watermark.wouaf import Wouaf

    if out.exists():
        raise InputError(f"{out} exists already; choose another name.")
    system, secret = Wouaf(weights), api._key(key)
    users = UserRegistry.load(registry, secret) if registry.is_file() else UserRegistry(system.bits, secret)
    known = user in users
    bits = users[user] if known else users.register(user)
    system.stamp_folder(folder, out, bits)
    if not known:
        users.save(registry)  # after the folder, so that no user is listed whose model does not exist
    say(f"{out}: pictures from this model are {user}'s (users in {registry}: {len(users)})")
    return OK


def whose(paths: Sequence[Path], registry: Path, weights: Path | None, rate: float, as_json: bool, quiet: bool) -> int:
    """Name the user whose model made each picture; exit code 4 when that is nobody in the registry."""
    from vestige.watermark.users import UserRegistry
    from vestige.watermark.wouaf import Wouaf

    system = Wouaf(weights)
    users = UserRegistry.load(registry, b"reading needs no key")
    system = Wouaf(network=system.network, users=users, rate=rate)
    stdin = [str(p) for p in paths] == ["-"]
    files = [Path("-")] if stdin else collect(paths)
    rows: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        try:
            subject = ImageSubject(sys.stdin.buffer.read(), "-") if stdin else ImageSubject.open(file)
            (found,) = system.attribute(subject.image)
        except VestigeError as error:
            if len(files) == 1:
                raise
            failed += 1
            complain(error)
            continue
        named = found.user if found.p_value <= rate else None
        rows.append(
            {
                "source": str(file),
                "user": named,
                "nearest": found.user,
                "matches": found.matches,
                "bits": users.bits,
                "p_value": found.p_value,
            }
        )
        if not as_json and not quiet:
            agreement = f"{found.matches} of {users.bits} bits agree, p = {found.p_value:.1e}"
            doubt = f"nobody in the registry can be named (nearest {found.user}, {agreement})"
            say(f"{file}: made with {named}'s model ({agreement})" if named else f"{file}: {doubt}")
    if as_json:
        print(json.dumps(rows[0] if len(files) == 1 and rows else rows, indent=2))
    if failed:
        return PARTIAL if rows else BAD_INPUT
    return OK if all(row["user"] for row in rows) else NOT_MARKED
