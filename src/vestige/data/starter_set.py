"""The labelled data set of the starter kit: rendered scenes of six kinds of objects, the same on every machine."""

from __future__ import annotations

from vestige.core.errors import UsageError
from vestige.data.packs import Pack
from vestige.data.scenes import render_pack

CLASSES = ("ball", "car", "cup", "star", "tree", "umbrella")
SIDE = 32
#: Pictures in each part: what the kit's classifier learnt and is asked to forget, what it keeps, what it never saw.
PARTS = {"requests": 24, "retain": 216, "test": 96}


def starter_set(part: str) -> Pack:
    """Pictures 32×32 with their kinds as labels. part: "requests", "retain" or "test".

    >>> starter_set("requests").images.shape
    (24, 3, 32, 32)
    """
    if part not in PARTS:
        raise UsageError(f"part is {part!r}; choose {', '.join(PARTS)}.")
    seed = 11 + list(PARTS).index(part)
    return render_pack(PARTS[part], SIDE, seed, classes=CLASSES, n_objects=1, object_size="large", styles=("cartoon",))
