"""Scenes before and after an edit: the exact difference of every pixel, what was touched, how, and a sentence.

A scene is drawn twice from one description and one seed, so that the pictures differ by the edit and its shadows alone.
Generative editors draw the whole frame anew; a round trip through an autoencoder, given as a function, does the same
here and leaves the small changes off the object that object masks miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.runtime import rng
from vestige.data.distortions_real import round8
from vestige.data.scenes import BACKGROUNDS, CLASSES, COLOURS, SIZES, TEXTURES, Rendered, Scene, render, sample_scene

#: (float32 N×3×H×W in [0, 1]) -> the same pictures, drawn anew; `vestige.engines.fakes.autoencoder_source` gives one.
Redraw = Callable[[np.ndarray], np.ndarray]

#: What an edit does, and the least share of the picture that its object covers.
PRIMITIVES: dict[str, str] = {
    "replace": "an object becomes one of another class",
    "remove": "an object is left out, what it hid is drawn",
    "splice": "an object of another picture is pasted in",
    "inpaint": "an object is painted over from its surroundings",
    "attribute": "an object gets another texture or size",
    "colourise": "an object gets another colour",
    "add": "an object appears",
    "background": "the ground and what is behind it change",
}
#: Classes of what was touched.
OBJECTS: tuple[str, ...] = (*CLASSES, "other")
_SMALLEST = 0.01
_ATTEMPTS = 12


@dataclass(frozen=True)
class SceneEdit:
    """An edit.

    before, after: float32 3×H×W, eight-bit values. object_mask: bool 1×H×W, what an annotator would mark: the object
    before or after the edit, or all of the background. difference: float32 1×H×W, mean over the channels of
    |after - before|. touched: one of `OBJECTS`. caption: what was done, in one sentence.
    """

    before: np.ndarray = field(repr=False)
    after: np.ndarray = field(repr=False)
    object_mask: np.ndarray = field(repr=False)
    difference: np.ndarray = field(repr=False)
    primitive: str
    touched: str
    caption: str
    details: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class _Draft:
    after: np.ndarray
    mask: np.ndarray
    touched: str
    caption: str
    details: dict[str, Any] = field(default_factory=dict)


def edit_scene(
    seed: int,
    primitive: str,
    size: int = 64,
    *,
    redraw: Redraw | None = None,
    spread: float = 1.0,
    styles: Sequence[str] = ("photo",),
    **options: Any,
) -> SceneEdit:
    """Draw scene number ``seed`` and edit it.

    redraw: applied to the whole edited picture, which is then rounded to eight bits. spread: the share of redrawing's
    change that is kept off the object, as editors that lay their result over the picture keep some. styles, options: as
    in `sample_scene`; a drawing whose object is nearly hidden is replaced by another of the same seed. Same arguments,
    same bytes. Raises UsageError for an unknown primitive or other options, InputError when no scene of these options
    can be edited so.

    >>> edit = edit_scene(4, "colourise", 64)
    >>> edit.after.shape, bool((edit.difference > 0)[edit.object_mask].mean() > 0.5)
    ((3, 64, 64), True)
    """
    if not 0 <= spread <= 1:
        raise UsageError(f"The spread of redrawing lies in [0, 1]; got {spread}.")
    if primitive not in PRIMITIVES:
        raise UsageError(f"There is no edit {primitive!r}; choose one of {', '.join(PRIMITIVES)}.")
    wanted = {"n_objects": (1, 3), **options, "styles": styles}
    for attempt in range(_ATTEMPTS):
        draw = rng(seed, "scene edit", primitive, attempt)
        scene = sample_scene(int(draw.integers(2**31)), **wanted)
        if not scene.objects:
            continue
        shown = render(scene, size)
        index = int(draw.integers(len(scene.objects)))
        if shown.masks[index].mean() < _SMALLEST:
            continue
        before, draft = _EDITS[primitive](scene, shown, index, size, draw)
        if draft.mask.mean() < _SMALLEST:
            continue
        after = draft.after
        if redraw is not None:
            after = np.asarray(redraw(round8(after)[None]), np.float32)
            if after.shape != (1, *before.shape):
                raise UsageError(
                    f"The redrawn picture must keep its shape; got {after.shape} for {(1, *before.shape)}."
                )
            after = draft.after + _kept(draft.mask, spread) * (after[0] - draft.after)
        before, after = round8(before).astype(np.float32), round8(after).astype(np.float32)
        difference = np.abs(after - before).mean(0, keepdims=True, dtype=np.float32)
        if not (difference > 0).any():
            continue
        details = {**draft.details, "seed": seed, "scene": scene.caption, "redrawn": redraw is not None}
        return SceneEdit(before, after, draft.mask[None], difference, primitive, draft.touched, draft.caption, details)
    raise InputError(f"No scene with these options could be edited by {primitive}; allow other objects or sizes.")


@dataclass(frozen=True)
class SceneEdits:
    """Many edits as arrays.

    before, after: uint8 N×3×S×S. object_masks: bool N×1×S×S. difference: float32 N×1×S×S. touched: int N, places in
    `OBJECTS`. primitives, captions: N words and sentences.
    """

    before: np.ndarray = field(repr=False)
    after: np.ndarray = field(repr=False)
    object_masks: np.ndarray = field(repr=False)
    difference: np.ndarray = field(repr=False)
    touched: np.ndarray = field(repr=False)
    primitives: tuple[str, ...] = field(repr=False)
    captions: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.after)


def edit_scenes(
    count: int,
    size: int = 64,
    seed: int = 0,
    *,
    first: int = 0,
    primitives: Sequence[str] = tuple(PRIMITIVES),
    redraw: Redraw | None = None,
    **options: Any,
) -> SceneEdits:
    """Edits number ``first`` to ``first + count - 1`` of the series ``seed``, the primitives in turn; see `edit_scene`.

    Raises UsageError for a count below 1 or no primitives.

    >>> edit_scenes(2, 32, primitives=["remove", "add"]).primitives
    ('remove', 'add')
    """
    if count < 1 or not primitives:
        raise UsageError(f"Give a count of at least 1 and at least one edit; got {count} and {len(primitives)}.")
    made = [
        edit_scene(seed * 1_000_003 + n, primitives[n % len(primitives)], size, redraw=redraw, **options)
        for n in range(first, first + count)
    ]
    pair = ([e.before for e in made], [e.after for e in made])
    before, after = (np.round(np.stack(pictures) * 255).astype(np.uint8) for pictures in pair)
    return SceneEdits(
        before,
        after,
        np.stack([e.object_mask for e in made]),
        np.stack([e.difference for e in made]),
        np.array([OBJECTS.index(e.touched) for e in made]),
        tuple(e.primitive for e in made),
        tuple(e.caption for e in made),
    )


Result = tuple[np.ndarray, _Draft]


def _kept(mask: np.ndarray, spread: float) -> np.ndarray:
    """Weights H×W: 1 on the object, falling to ``spread`` over a few pixels."""
    import cv2

    if spread == 1:
        return np.ones(mask.shape, np.float32)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    soft = np.maximum(cv2.GaussianBlur(grown, (0, 0), 1.5), mask)
    return spread + (1 - spread) * soft


def _other(draw: np.random.Generator, names: Sequence[str], than: str) -> str:
    rest = [name for name in names if name != than]
    return rest[int(draw.integers(len(rest)))]


def _the(phrase: str) -> str:
    return f"the {phrase}"


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _changed(scene: Scene, shown: Rendered, index: int, side: int, caption: str, **attributes: Any) -> Result:
    """One object with other attributes; the mask is where it was or is."""
    new = scene.change(index, **attributes)
    after = render(new, side)
    mask = shown.masks[index] | after.masks[index]
    return shown.image, _Draft(after.image, mask, new.objects[index].kind, caption, {"attributes": attributes})


def _replace(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    item = scene.objects[index]
    kind = _other(draw, CLASSES, item.kind)
    caption = f"{_the(item.phrase)} was replaced by {_a(replace(item, kind=kind).phrase)}"
    return _changed(scene, shown, index, side, caption, kind=kind)


def _attribute(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    item = scene.objects[index]
    name, values = (("texture", TEXTURES), ("size", tuple(SIZES)))[int(draw.integers(2))]
    value = _other(draw, values, getattr(item, name))
    return _changed(scene, shown, index, side, f"{_the(item.phrase)} was made {value}", **{name: value})


def _colourise(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    item = scene.objects[index]
    colour = _other(draw, tuple(COLOURS), item.colour)
    return _changed(scene, shown, index, side, f"{_the(item.phrase)} was coloured {colour}", colour=colour)


def _remove(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    item = scene.objects[index]
    after = render(scene.without(index), side).image
    return shown.image, _Draft(after, shown.masks[index], item.kind, f"{_the(item.phrase)} was removed")


def _add(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    item = scene.objects[index]
    before = render(scene.without(index), side).image
    return before, _Draft(shown.image, shown.masks[index], item.kind, f"{_a(item.phrase)} was added")


def _inpaint(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    import cv2

    item = scene.objects[index]
    hole = cv2.dilate(shown.masks[index].astype(np.uint8), np.ones((3, 3), np.uint8))
    pixels = np.ascontiguousarray((shown.image.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8))
    method = (cv2.INPAINT_TELEA, cv2.INPAINT_NS)[int(draw.integers(2))]
    filled = cv2.inpaint(pixels, hole, 3, method).transpose(2, 0, 1).astype(np.float32) / 255
    after = np.where(hole.astype(bool), filled, shown.image)
    return shown.image, _Draft(after, hole.astype(bool), item.kind, f"{_the(item.phrase)} was painted over")


def _splice(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    donor = sample_scene(int(draw.integers(2**31)), n_objects=1, style=scene.style)
    item = donor.objects[0]
    cut = render(donor, side)
    mask = cut.masks[0]
    shift = tuple(int(draw.integers(-(side // 6), side // 6 + 1)) for _ in range(2))
    moved, image = (_shifted(x, shift) for x in (mask[None], cut.image))
    after = np.where(moved, image, shown.image)
    caption = f"{_a(item.phrase)} of another picture was pasted in"
    return shown.image, _Draft(after, moved[0], item.kind, caption, {"shift": shift})


def _background(scene: Scene, shown: Rendered, index: int, side: int, draw: np.random.Generator) -> Result:
    name = _other(draw, tuple(BACKGROUNDS), scene.background)
    after = render(replace(scene, background=name), side)
    mask = np.logical_not(shown.masks.any(0) & after.masks.any(0))
    caption = f"the background was changed, the scene is now {BACKGROUNDS[name]}"
    return shown.image, _Draft(after.image, mask, "other", caption, {"background": name})


def _shifted(planes: np.ndarray, shift: tuple[int, ...]) -> np.ndarray:
    """C×H×W moved down and right; what comes in from outside is zero."""
    result = np.zeros_like(planes)
    height, width = planes.shape[1:]
    (down, right) = shift
    rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
    source = planes[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    result[:, rows, columns] = source
    return result


_EDITS: dict[str, Callable[[Scene, Rendered, int, int, np.random.Generator], Result]] = {
    "replace": _replace, "remove": _remove, "splice": _splice, "inpaint": _inpaint, "attribute": _attribute,
    "colourise": _colourise, "add": _add, "background": _background,
}  # fmt: skip
