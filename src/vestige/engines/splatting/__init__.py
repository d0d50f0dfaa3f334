"""Gaussian splatting in plain PyTorch: scenes as Gaussians, cameras, a renderer, fitting, and the standard files.

Made for small scenes on any device: every Gaussian is blended into every pixel, without tiles or custom kernels.
"""

from vestige.engines.splatting.cameras import Cameras, look_at, ring
from vestige.engines.splatting.ellipsoids import Ellipsoids, cast, ellipsoid_scene, surface_points
from vestige.engines.splatting.fit import SHORT, Rates, descend, fit, photometric
from vestige.engines.splatting.gaussians import Gaussians, from_points, join, random_gaussians
from vestige.engines.splatting.ply import read_ply, write_ply
from vestige.engines.splatting.render import render

__all__ = [
    "SHORT",
    "Cameras",
    "Ellipsoids",
    "Gaussians",
    "Rates",
    "cast",
    "descend",
    "ellipsoid_scene",
    "fit",
    "from_points",
    "join",
    "look_at",
    "photometric",
    "random_gaussians",
    "read_ply",
    "render",
    "ring",
    "surface_points",
    "write_ply",
]
