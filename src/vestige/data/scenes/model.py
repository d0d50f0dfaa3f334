"""What a scene is made of, how one is drawn at random, and how it is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.data.scenes.shapes import RGB, SHAPES, extent

CLASSES: tuple[str, ...] = tuple(SHAPES)
COLOURS: dict[str, RGB] = {
    "red": (0.84, 0.13, 0.13), "orange": (0.96, 0.52, 0.10), "yellow": (0.97, 0.84, 0.16), "green": (0.16, 0.60, 0.24),
    "blue": (0.14, 0.34, 0.82), "purple": (0.52, 0.22, 0.70), "pink": (0.96, 0.50, 0.70), "brown": (0.48, 0.28, 0.14),
    "white": (0.95, 0.95, 0.95), "black": (0.15, 0.15, 0.17), "turquoise": (0.10, 0.70, 0.68),
}  # fmt: skip
FONTS = ("sans", "serif", "mono")
TEXTURES = ("solid", "striped", "dotted", "checked")
#: Height of an object of each size at depth 1, as a fraction of the picture.
SIZES: dict[str, float] = {"small": 0.31, "medium": 0.46, "large": 0.66}
STYLES = (
    "photo", "cartoon", "sketch", "watercolour", "oil painting", "mosaic", "stained glass", "pixel art",
    "halftone", "neon", "woodcut", "chalk",
)  # fmt: skip
#: Background -> how a caption says where the objects are.
BACKGROUNDS: dict[str, str] = {
    "grass": "on grass", "sand": "on sand", "snow": "on snow", "road": "on a road", "water": "on water",
    "wood": "on a wooden floor", "tiles": "on a tiled floor", "studio": "in a studio",
}  # fmt: skip
#: Where the light comes from -> unit vector towards it (x right, y up, z to the camera).
LIGHTS: dict[str, tuple[float, float, float]] = {
    "left": (-0.66, 0.60, 0.45), "right": (0.66, 0.60, 0.45), "above": (0.10, 0.88, 0.46), "front": (0.12, 0.40, 0.91),
}  # fmt: skip
WORDS = (
    "OPEN", "SALE", "HELLO", "STOP", "NEWS", "PHOTO", "SAMPLE", "DRAFT", "MARKET", "GARDEN", "SUMMER", "MUSIC",
    "COFFEE", "TAXI", "PARK", "2024", "NORTH", "EXIT", "RADIO", "FRESH",
)  # fmt: skip


@dataclass(frozen=True)
class SceneObject:
    """One object. x: its middle as a fraction of the width, seen from the scene's own camera position; depth: its
    distance (1 is the front of the stage); lift: height above the ground in object heights; angle: turn in the
    picture plane, degrees anticlockwise; velocity: change of (x, depth) over a video."""

    kind: str
    colour: str = "red"
    texture: str = "solid"
    size: str = "medium"
    x: float = 0.5
    depth: float = 1.2
    lift: float = 0.0
    angle: float = 0.0
    mirrored: bool = False
    velocity: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _known("object", self.kind, CLASSES)
        _known("colour", self.colour, COLOURS)
        _known("texture", self.texture, TEXTURES)
        _known("size", self.size, SIZES)

    @property
    def phrase(self) -> str:
        """ "small striped red ball": medium size and a solid texture go without saying."""
        words = [self.size if self.size != "medium" else "", self.texture if self.texture != "solid" else ""]
        return " ".join([*(w for w in words if w), self.colour, self.kind])


@dataclass(frozen=True)
class TextOverlay:
    """A word laid over the finished picture. x, y: its middle; height: of a capital, all as fractions of the side."""

    word: str
    x: float = 0.5
    y: float = 0.15
    height: float = 0.1
    colour: RGB = (1.0, 1.0, 1.0)
    outline: bool = True
    font: str = "sans"
    angle: float = 0.0
    opacity: float = 1.0

    def __post_init__(self) -> None:
        _known("font", self.font, FONTS)


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. ``seed`` decides what is left open: grain, clouds, strokes."""

    objects: tuple[SceneObject, ...]
    style: str = "photo"
    background: str = "grass"
    light: str = "left"
    texts: tuple[TextOverlay, ...] = ()
    seed: int = 0
    horizon: float = field(default=0.40)

    def __post_init__(self) -> None:
        _known("style", self.style, STYLES)
        _known("background", self.background, BACKGROUNDS)
        _known("light", self.light, LIGHTS)

    def without(self, index: int) -> Scene:
        """The same scene with one object removed: the ground truth of an erasure."""
        return replace(self, objects=self.objects[:index] + self.objects[index + 1 :])

    def change(self, index: int, **attributes: Any) -> Scene:
        """The same scene with some attributes of one object changed: the ground truth of an edit."""
        changed = replace(self.objects[index], **attributes)
        return replace(self, objects=(*self.objects[:index], changed, *self.objects[index + 1 :]))

    @property
    def caption(self) -> str:
        """ "a red ball and a small blue cube in watercolour style on sand"."""
        named = [f"{_article(o.phrase)} {o.phrase}" for o in self.objects] or ["an empty scene"]
        what = " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]
        words = " and ".join(f'"{t.word}"' for t in self.texts)
        noun = "word" if len(self.texts) == 1 else "words"
        written = f" with the {noun} {words}" if words else ""
        where = BACKGROUNDS[self.background]
        if self.style == "photo":
            return f"a photo of {what} {where}{written}"
        return f"{what} in {self.style} style {where}{written}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Everything a question could be asked about, as plain values."""
        return {
            "style": self.style,
            "background": self.background,
            "light": self.light,
            "count": len(self.objects),
            "objects": [
                {"class": o.kind, "colour": o.colour, "texture": o.texture, "size": o.size, "x": o.x, "depth": o.depth}
                for o in self.objects
            ],
            "words": [t.word for t in self.texts],
        }


def sample_scene(
    seed: int,
    *,
    object: str | Sequence[str] | None = None,
    colour: str | Sequence[str] | None = None,
    texture: str | None = None,
    object_size: str | None = None,
    style: str | None = None,
    background: str | None = None,
    light: str | None = None,
    n_objects: int | tuple[int, int] = (1, 3),
    text: bool | str = False,
    classes: Sequence[str] = CLASSES,
    colours: Sequence[str] = tuple(COLOURS),
    styles: Sequence[str] = STYLES,
    backgrounds: Sequence[str] = tuple(BACKGROUNDS),
) -> Scene:
    """Draw a scene; what is given is kept, the rest is random.

    object, colour: of the first objects, in order. texture, object_size: of every object. n_objects: a number or an
    inclusive range. text: True for a random word, or the word. classes, colours, styles, backgrounds: what to draw
    from.
    Every attribute has its own random stream: with the same seed, giving a style leaves the layout as it was.
    Objects of one scene differ in class as far as the classes reach, and cover each other little.

    Raises UsageError for unknown names or an impossible number of objects.

    >>> sample_scene(3, object="ball", colour="red", style="sketch", background="sand", n_objects=1).caption[-28:]
    'ball in sketch style on sand'
    """
    low, high = (n_objects, n_objects) if isinstance(n_objects, int) else n_objects
    if not 0 <= low <= high <= 8:
        raise UsageError(f"n_objects is {n_objects}; give 0 to 8, or a range of that.")
    for name, pool in (("classes", classes), ("colours", colours), ("styles", styles), ("backgrounds", backgrounds)):
        if not pool:
            raise UsageError(f"{name} is empty; name at least one.")
    g = rng(seed, "scene")
    count = int(g.integers(low, high + 1))
    kinds = [classes[i] for i in g.permutation(len(classes))]
    kinds = (kinds * (1 + 8 // len(kinds)))[:8]
    given_kinds = [object] if isinstance(object, str) else list(object or ())
    given_colours = [colour] if isinstance(colour, str) else list(colour or ())
    rest = [k for k in kinds if k not in given_kinds] or kinds
    drawn = g.random((8, 5))
    picked = [pool[int(u * len(pool))] for u, pool in zip(g.random(3), (styles, backgrounds, tuple(LIGHTS)))]
    chosen: list[SceneObject] = []
    for i in range(max(count, min(len(given_kinds), high))):
        u = drawn[i]
        kind = given_kinds[i] if i < len(given_kinds) else rest[(i - len(given_kinds)) % len(rest)]
        sizes = tuple(SIZES)[: 3 if count < 3 else 2]
        chosen.append(
            SceneObject(
                kind,
                given_colours[i] if i < len(given_colours) else colours[int(u[0] * len(colours))],
                texture or (TEXTURES[1 + int(u[1] * 6)] if u[1] < 0.5 else "solid"),
                object_size or sizes[int(u[2] * len(sizes))],
                mirrored=bool(u[3] < 0.5),
                velocity=(float(u[4] - 0.5) * 0.8, 0.0),
            )
        )
    return Scene(
        tuple(_place(chosen, rng(seed, "layout"))),
        style or picked[0],
        background or picked[1],
        light or picked[2],
        _sample_text(text, rng(seed, "text")) if text else (),
        seed,
        round(float(g.uniform(0.36, 0.46)), 3),
    )


def object_box(item: SceneObject, horizon: float = 0.40) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of an object in the picture, as fractions, before anything covers it."""
    x0, y0, x1, y1 = _extents()[item.kind]
    scale = SIZES[item.size] / item.depth
    base = horizon + 0.5 / item.depth - item.lift * scale
    return item.x + x0 * scale, base - y1 * scale, item.x + x1 * scale, base - y0 * scale


@cache
def _extents() -> dict[str, tuple[float, float, float, float]]:
    return {kind: extent(kind) for kind in CLASSES}


def _place(items: list[SceneObject], g: np.random.Generator) -> list[SceneObject]:
    """Positions with little overlap: the best of some random places for each object, one after the other."""
    placed: list[SceneObject] = []
    for item in items:
        height = SIZES[item.size]
        x0, _, x1, _ = _extents()[item.kind]
        reach = max(-x0, x1)
        deepest = max(1.05, min(1.9, height / 0.25))
        if len(items) == 1:
            deepest = min(deepest, 1.35)
        best, least = item, np.inf
        for u, v in g.random((24, 2)):
            depth = 1.0 + (deepest - 1.0) * v
            half = min(reach * height / depth, 0.5)
            candidate = replace(item, x=round(half + u * (1 - 2 * half), 4), depth=round(float(depth), 4))
            overlap = sum(_overlap(object_box(candidate), object_box(other)) for other in placed)
            if overlap < least:
                best, least = candidate, overlap
            if least < 0.05:
                break
        placed.append(best)
    return placed


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection as a fraction of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0.0, width) * max(0.0, height) / smaller


def _sample_text(text: bool | str, g: np.random.Generator) -> tuple[TextOverlay, ...]:
    word = text if isinstance(text, str) else WORDS[int(g.integers(len(WORDS)))]
    height = min(float(g.uniform(0.09, 0.14)), 0.75 / max(len(word), 1))
    angle = float(g.uniform(-8, 8))
    wide = 0.62 * height * len(word)  # half the width of the widest font
    margin = 0.7 * height + wide * abs(np.sin(np.radians(angle))) + 0.02
    below = g.random() < 0.25  # the objects stand in the lower half
    y = margin + float(g.uniform(0, 0.12))
    return (
        TextOverlay(
            word,
            x=round(float(g.uniform(wide + 0.02, 0.98 - wide)), 4),
            y=round(1 - y if below else y, 4),
            height=round(height, 4),
            colour=((1.0, 1.0, 1.0), (0.05, 0.05, 0.05), (1.0, 0.9, 0.2), (0.85, 0.1, 0.1))[int(g.integers(4))],
            outline=bool(g.random() < 0.7),
            font=FONTS[int(g.integers(3))],
            angle=round(angle, 2),
        ),
    )


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _known(what: str, name: str, names: Any) -> None:
    if name not in names:
        raise UsageError(f"There is no {what} {name!r}; choose one of {', '.join(names)}.")
