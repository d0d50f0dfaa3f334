"""Files for marks of other things than photographs: two scenes of 3D Gaussians, and a black-and-white mark to hide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vestige.core.image_io import save_image, to_uint8
from vestige.core.runtime import rng


def write(folder: Path) -> list[str]:
    """Write cover.ply and secret.ply (standard 3DGS files) and logo.png (21×21 modules at 64 pixels)."""
    from vestige.engines.splatting import ellipsoid_scene, from_points, ring, surface_points, write_ply
    from vestige.watermark.safe_sd_marks import free_modules, mark_picture, qr_modules

    for name, seed in (("cover", 0), ("secret", 1)):
        points = surface_points(ellipsoid_scene(seed), ring(12, 32, radius=2.6), 250, seed=seed)
        round_ones = from_points(*points, degree=1, opacity=0.9)
        write_ply(folder / f"{name}.ply", replace(round_ones, scale=round_ones.scale - 1))  # as large as they look
    squares = qr_modules(rng(0, "logo").integers(0, 2, int(free_modules().sum())))
    save_image(folder / "logo.png", to_uint8(mark_picture(np.asarray(squares), 64)[None]))
    return ["cover.ply", "secret.ply", "logo.png"]
