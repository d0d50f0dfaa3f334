"""Restoring covered pictures from the command line; the pictures are scaled to the network's side and back."""

from __future__ import annotations

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.image_io import format_for, save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.forensics.hcl_restore import HCLRestorer


def restore(work: Work) -> Result:
    """Fill what covers a picture; where that is, is found, or said by ``--mask``.

    Only the region that is filled is taken from the scaled picture: everything else keeps its pixels.
    """
    subject = work.only(1).picture(0, "a picture that is covered in part")
    out = work.out_file()
    format_for(out)
    masks = work.masked(subject) if work.mask is not None else None
    if min(subject.pixels.shape[:2]) < 16:
        raise UsageError("The picture is smaller than 16 pixels on a side; nothing can be filled in it.")
    system = HCLRestorer(weights=work.needed("model", "weights of the restorer") if work.model else None)
    work.settled()
    found, filled = system.restore_whole(subject.image, masks)
    save_image(out, to_uint8(found))
    share = float(np.mean(filled))
    said = f"{share:.0%} of the picture was filled." if share else "Nothing that covers the picture was found."
    return Result({"filled": share}, [out], [said])
