"""``vestige version``."""

from __future__ import annotations

from vestige.app.cli.options import Json


def version(json_: Json = False) -> None:
    """Print the version of vestige and of what it stands on."""
    import json

    from vestige import __version__
    from vestige.core.runtime import versions

    if json_:
        print(json.dumps(versions()))
    else:
        print(f"vestige {__version__}")
        for name, number in versions().items():
            if name != "vestige":
                print(f"  {name} {number}")
