"""The synthetic picture world of the project: objects × attributes × styles, with exact masks, depth and captions.

>>> scene = sample_scene(0, object="ball", colour="red", style="watercolour", background="sand", n_objects=1)
>>> render(scene, 64).image.shape
(3, 64, 64)
"""

from vestige.data.scenes.batch import render_pack
from vestige.data.scenes.model import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    LIGHTS,
    SIZES,
    STYLES,
    TEXTURES,
    Scene,
    SceneObject,
    TextOverlay,
    object_box,
    sample_scene,
)
from vestige.data.scenes.raster import Camera
from vestige.data.scenes.render import Rendered, Video, Views, contact_sheet, render, render_video, render_views

__all__ = [
    "BACKGROUNDS", "CLASSES", "COLOURS", "LIGHTS", "SIZES", "STYLES", "TEXTURES", "Camera", "Rendered", "Scene",
    "SceneObject", "TextOverlay", "Video", "Views", "contact_sheet", "object_box", "render", "render_pack", "render_video", "render_views",
    "sample_scene",
]  # fmt: skip
