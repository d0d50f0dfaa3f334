"""Draw the lowest bit planes of pictures anew, so that nothing hidden in them is left.

``--set planes`` is how many (1 to 4). ``--model`` is a file that ``vestige learn ddsp`` wrote instead of the shipped
weights. A mask limits where.
"""

from __future__ import annotations

import numpy as np

from vestige.core.work import Result, Work
from vestige.watermark.ddsp import DDSP
from vestige.watermark.tools.redrawing import changed, targets


def attack(work: Work) -> Result:
    """Write the purified pictures."""
    purifier, where = _purifier(work), targets(work)
    return changed(work, purifier.attack, 0, where)


def erase(work: Work) -> Result:
    """The same, inside ``--mask`` where one is given."""
    purifier, where = _purifier(work), targets(work)
    masks = None
    if work.mask is not None:
        masks = work.masked(work.only(1).picture())

    def change(image: np.ndarray) -> np.ndarray:
        return purifier.erase(image, masks)[0]

    return changed(work, change, 0, where)


def _purifier(work: Work) -> DDSP:
    planes = work.option("planes", 3)
    work.settled()
    model = None if work.model is None else work.needed("model", "a file that 'vestige learn ddsp' wrote")
    purifier = DDSP(planes=planes, weights=model)
    purifier.attack(np.zeros((1, 3, 8, 8), np.float32))  # says how to train it where it is not trained
    return purifier
