"""vestige: find, mark, erase and restore the traces hidden in images and in the models that read and make them.

>>> import vestige
>>> findings = vestige.find("photo.jpg")          # doctest: +SKIP
>>> vestige.mark("photo.jpg", "marked.png", message="Ada 2026")   # doctest: +SKIP
>>> vestige.read("marked.png").message            # doctest: +SKIP
'Ada 2026'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public names and the modules they live in; imported on first use, so that ``import vestige`` is instant.
_API = {
    "find": "vestige.app.api",
    "find_all": "vestige.app.api",
    "mark": "vestige.app.api",
    "read": "vestige.app.api",
    "erase": "vestige.app.api",
    "restore": "vestige.app.api",
    "attack": "vestige.app.api",
    "measure": "vestige.app.api",
    "make": "vestige.app.api",
    "load_image": "vestige.app.api",
    "open_subject": "vestige.core.subjects",
    "systems": "vestige.core.catalogue",
    "system": "vestige.core.catalogue",
}
__all__ = ["__version__", *sorted(_API)]

if TYPE_CHECKING:
    from vestige.app.api import attack as attack
    from vestige.app.api import erase as erase
    from vestige.app.api import find as find
    from vestige.app.api import find_all as find_all
    from vestige.app.api import load_image as load_image
    from vestige.app.api import make as make
    from vestige.app.api import mark as mark
    from vestige.app.api import measure as measure
    from vestige.app.api import read as read
    from vestige.app.api import restore as restore
    from vestige.core.catalogue import system as system
    from vestige.core.catalogue import systems as systems
    from vestige.core.subjects import open_subject as open_subject


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'vestige' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
