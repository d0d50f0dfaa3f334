"""Secret keys: made by the system's random source, stored readable by their owner only, never printed or logged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from vestige.core.errors import KeyFileError
from vestige.core.files import write_atomic

_HEADER = "vestige-key-1 "

#: Key of marks made without ``--key``: anybody can read and forge them, and ``find`` looks for them.
PUBLIC_KEY = hashlib.sha256(b"vestige public marking key").digest()


class Key(bytes):
    """32 secret bytes whose ``repr`` and ``str`` never show them."""

    def __repr__(self) -> str:
        return f"Key({fingerprint(self)})"

    __str__ = __repr__


def fingerprint(key: bytes) -> str:
    """Eight hexadecimal digits that name a key without revealing it."""
    return hashlib.sha256(b"fingerprint" + bytes(key)).hexdigest()[:8]


def generate_key(path: str | Path, *, force: bool = False) -> Key:
    """Write a new 256-bit key to ``path`` with permission 0600.

    Raises KeyFileError when the file exists, unless ``force``.
    """
    if Path(path).exists() and not force:
        raise KeyFileError(f"{path} exists already; choose another name (overwriting it would orphan its marks).")
    key = Key(secrets.token_bytes(32))
    write_atomic(path, _HEADER + base64.b64encode(bytes(key)).decode() + "\n", mode=0o600)
    return key


def load_key(path: str | Path) -> Key:
    """Read a key file.

    Raises KeyFileError when it is missing, malformed, or readable by group or others.
    """
    path = Path(path)
    try:
        if path.stat().st_size > 4096:
            raise ValueError
        text = path.read_text(encoding="ascii").strip()
        if not text.startswith(_HEADER):
            raise ValueError
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(f"{path} can be read by other users; run: chmod 600 {path}")
        key = base64.b64decode(text[len(_HEADER) :], validate=True)
        if len(key) != 32:
            raise ValueError
    except FileNotFoundError:
        raise KeyFileError(f"{path} does not exist; make a key with: vestige key {path}") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror or error}).") from None
    except ValueError:
        raise KeyFileError(f"{path} is not a vestige key file; make one with: vestige key FILE") from None
    return Key(key)


def derive(key: bytes, purpose: str) -> bytes:
    """An independent 256-bit value for one purpose (permutation, authentication, ...), as bytes."""
    return hmac.new(bytes(key), purpose.encode(), hashlib.sha256).digest()
