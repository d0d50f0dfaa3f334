"""Claims of inversion-free editing, on renders whose edited versions are known: the renderer draws the ground truth.

An edit changes one word of the caption: the colour or the kind of the object, or the style. Objects and styles are read
by the judge of `vestige.bench.generation.runs`. Colours are read against the renderer: the mean colour of the object's
place is compared with that of the same scene rendered in each of the colours. The background is what neither the
object, before or after, nor any other change of the true edit touches. Settings of every method are chosen on
validation scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch

from vestige.bench.controls import Interval, paired, share
from vestige.bench.generation import runs
from vestige.claims import ClaimContext, Evidence, claim, headline
from vestige.core.runtime import rng
from vestige.data.scenes import CLASSES, COLOURS, STYLES, Scene, render
from vestige.engines.diffusion.editing import sdedit
from vestige.engines.diffusion.inversion import invert
from vestige.engines.diffusion.pipeline import TextToImage
from vestige.engines.diffusion.samplers import sample
from vestige.engines.diffusion.schedules import grid
from vestige.generation.infedit import InfEdit

STEPS, BASELINE_STEPS = 12, 20
#: Edits of each kind on test scenes and on validation scenes.
TEST = {"colour": 48, "object": 48, "style": 24}
VALIDATION = 10
TEST_SERIES, VALIDATION_SERIES = 121, 122
#: Styles that keep the colour of objects; a sketch or a woodcut has none to change.
COLOURED = ("photo", "cartoon", "watercolour", "oil painting", "mosaic", "stained glass", "pixel art")
SETTINGS: tuple[dict[str, Any], ...] = (
    {"target_guidance": 2.0, "cross_share": 0.7, "self_share": 0.7, "edit_threshold": 0.55},
    {"target_guidance": 3.0, "cross_share": 0.7, "self_share": 0.7, "edit_threshold": 0.4},
    {"target_guidance": 3.0, "cross_share": 0.4, "self_share": 0.7, "edit_threshold": 0.3},
    {"target_guidance": 4.0, "cross_share": 0.7, "self_share": 0.3, "edit_threshold": 0.4},
    {"target_guidance": 6.0, "cross_share": 0.4, "self_share": 0.0, "edit_threshold": 0.3},
)
STRENGTHS: tuple[dict[str, Any], ...] = tuple({"strength": s} for s in (0.4, 0.55, 0.7, 0.85))
GUIDANCES: tuple[dict[str, Any], ...] = tuple({"guidance": w} for w in (1.0, 2.0, 4.0))
BARE = {"cross_share": 0.0, "self_share": 0.0, "blend": False}
SDEDIT_GUIDANCE = 3.0


@dataclass(frozen=True, eq=False)
class Edits:
    """Edits of one kind. images, truth: float32 N×3×S×S; place, background: bool N×S×S; palette: float64 N×colours×3,
    the mean colour of the place in each colour (colour edits alone). A style edit has no background."""

    kind: str
    sources: list[Scene]
    targets: list[Scene]
    images: torch.Tensor
    truth: torch.Tensor
    place: np.ndarray
    background: np.ndarray
    palette: np.ndarray

    @property
    def prompts(self) -> tuple[list[str], list[str]]:
        return [s.caption for s in self.sources], [t.caption for t in self.targets]

    def right(self, images: torch.Tensor) -> np.ndarray:
        """bool N: whether the picture has the wanted attribute."""
        if self.kind == "colour":
            found = _means(images.numpy(), self.place)
            nearest = np.square(self.palette - found[:, None]).sum(-1).argmin(1)
            wanted = [list(COLOURS).index(t.objects[0].colour) for t in self.targets]
        else:
            nearest = runs.read(runs.judge(), images)[self.kind].numpy()
            names = [t.objects[0].kind if self.kind == "object" else t.style for t in self.targets]
            wanted = [(CLASSES if self.kind == "object" else STYLES).index(name) for name in names]
        return nearest == np.array(wanted)

    def background_psnr(self, images: torch.Tensor) -> np.ndarray:
        """Decibels of the background against the source, N; at most 60, NaN without background."""
        error = (images - self.images).square().mean(1).double().numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (error * self.background).sum((1, 2)) / self.background.sum((1, 2))
            return np.minimum(-10 * np.log10(mean), 60)


def _means(images: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Mean colour of a place in each picture, N×3."""
    weights = place[:, None] / np.maximum(place.sum((1, 2)), 1)[:, None, None, None]
    return (images * weights).sum((2, 3))


@lru_cache(maxsize=8)
def edits(kind: str, count: int, series: int, size: int) -> Edits:
    """``count`` edits of unseen scenes."""
    g = rng(series, "edits", kind)
    source_of = runs.unseen(series, **({"styles": COLOURED} if kind == "colour" else {}))
    sources = [next(source_of) for _ in range(count)]
    targets = []
    for scene in sources:
        thing = scene.objects[0]
        if kind == "style":
            targets.append(replace(scene, style=_other(STYLES, scene.style, g)))
        elif kind == "colour":
            targets.append(scene.change(0, colour=_other(tuple(COLOURS), thing.colour, g)))
        else:
            targets.append(scene.change(0, kind=_other(CLASSES, thing.kind, g)))
    before, after = ([render(scene, size) for scene in part] for part in (sources, targets))
    images, truth = (np.stack([r.image for r in part]) for part in (before, after))
    places = [np.stack([r.masks[0] for r in part]) for part in (before, after)]
    touched = places[0] | places[1] | (np.abs(images - truth).max(1) > 0.1)
    wide = np.stack([cv2.dilate(t.astype(np.uint8), np.ones((3, 3), np.uint8)) for t in touched]).astype(bool)
    palette = np.zeros((count, len(COLOURS), 3))
    if kind == "colour":
        for i, scene in enumerate(sources):
            drawn = np.stack([render(scene.change(0, colour=c), size).image for c in COLOURS])
            palette[i] = _means(drawn, np.repeat(places[1][i : i + 1], len(COLOURS), 0))
    background = ~wide if kind != "style" else np.zeros_like(wide)  # a style changes everything
    pictures, known = torch.from_numpy(images), torch.from_numpy(truth)
    return Edits(kind, sources, targets, pictures, known, places[1], background, palette)


def _other(names: Sequence[str], present: str, g: np.random.Generator) -> str:
    rest = [name for name in names if name != present]
    return rest[int(g.integers(len(rest)))]


Method = Callable[[TextToImage, Edits, int, bool], torch.Tensor]


def by_infedit(model: TextToImage, work: Edits, seed: int, trial: bool, **setting: Any) -> torch.Tensor:
    return InfEdit(model, steps=2 if trial else STEPS, **setting).edit(work.images, *work.prompts, seed=seed)


@torch.no_grad()
def by_inversion(model: TextToImage, work: Edits, seed: int, trial: bool, *, guidance: float) -> torch.Tensor:
    """DDIM inversion under the source prompt, sampling under the target prompt."""
    source, target = work.prompts
    levels = grid(model.table, 2 if trial else BASELINE_STEPS)
    noise = invert(model.denoiser(source), model.encode(work.images), levels)
    return model.decode(sample(model.denoiser(target, guidance=guidance), noise, levels))


@torch.no_grad()
def by_sdedit(model: TextToImage, work: Edits, seed: int, trial: bool, *, strength: float) -> torch.Tensor:
    denoiser = model.denoiser(work.prompts[1], guidance=SDEDIT_GUIDANCE)
    levels = grid(model.table, 2 if trial else BASELINE_STEPS)
    generator = torch.Generator().manual_seed(seed)
    return model.decode(sdedit(denoiser, model.encode(work.images), levels, strength, generator))


def by_drawing_anew(model: TextToImage, work: Edits, seed: int, trial: bool) -> torch.Tensor:
    """The target prompt alone: as accurate as the model can be, with no background kept."""
    return model.sample(work.prompts[1], seed=seed, steps=2 if trial else STEPS, guidance=SDEDIT_GUIDANCE)


METHODS: dict[str, tuple[Callable[..., torch.Tensor], tuple[dict[str, Any], ...]]] = {
    "InfEdit": (by_infedit, SETTINGS),
    "DDIM inversion": (by_inversion, GUIDANCES),
    "SDEdit": (by_sdedit, STRENGTHS),
    "drawn anew": (by_drawing_anew, ({},)),
}


@dataclass(frozen=True)
class Score:
    """Per edit: right, background (dB). calls: of the network for a batch; rows: pictures put through it per edit."""

    right: np.ndarray
    background: np.ndarray
    truth: float
    calls: float
    rows: float

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def kept(self) -> float:
        return float(np.nanmean(self.background))


def score(
    method: Callable[..., torch.Tensor], setting: dict[str, Any], work: Edits, context: ClaimContext, batch: int = 24
) -> Score:
    """Run a method on all edits, ``batch`` at a time."""
    model, count = runs.pipeline(), len(work.sources)
    images = []
    with runs.counted(model) as counter:
        for at in range(0, count, batch):
            part = _part(work, at, at + batch)
            images.append(method(model, part, context.seed + at, bool(context.limit), **setting))
    made = torch.cat(images)
    error = (made - work.truth).square().mean((1, 2, 3)).clamp(min=1e-6).double().numpy()
    batches = len(images)
    return Score(
        work.right(made), work.background_psnr(made), float((-10 * np.log10(error)).mean()),
        counter.calls / batches, counter.rows / count,
    )  # fmt: skip


def _part(work: Edits, begin: int, end: int) -> Edits:
    part = slice(begin, end)
    return Edits(
        work.kind, work.sources[part], work.targets[part], work.images[part], work.truth[part], work.place[part],
        work.background[part], work.palette[part],
    )  # fmt: skip


def _edits(kind: str, part: str, context: ClaimContext) -> Edits:
    size = int(runs.pipeline().latent_shape()[1]) * 2 ** (len(runs.pipeline().vae.config.block_out_channels) - 1)
    if part == "test":
        return edits(kind, context.limit or TEST[kind], TEST_SERIES, size)
    return edits(kind, 1 if context.limit else VALIDATION, VALIDATION_SERIES, size)


@lru_cache(maxsize=8)
def chosen_settings(kind: str, context: ClaimContext) -> dict[str, dict[str, Any]]:
    """The setting of every method for edits of this kind, chosen on validation scenes.

    InfEdit: the one that keeps the background best among those right in 80 %, else the one most often right. Baselines:
    the one whose accuracy is nearest to InfEdit's there; the one that keeps the background better of two equals.
    """
    work = _edits(kind, "validation", context)
    found = {
        name: [(score(method, setting, work, context), setting) for setting in settings]
        for name, (method, settings) in METHODS.items()
        if len(settings) > 1
    }
    ours, setting = max(found.pop("InfEdit"), key=lambda s: (min(s[0].accuracy, 0.8), _kept(s[0]), s[0].accuracy))
    best = {"InfEdit": setting, "drawn anew": {}}
    for name, tried in found.items():
        best[name] = min(tried, key=lambda s: (abs(s[0].accuracy - ours.accuracy), -_kept(s[0])))[1]
    return best


def _kept(found: Score) -> float:
    """Background in decibels; 0 for styles, whose edits leave no background."""
    return found.kept if np.isfinite(found.background).any() else 0.0


@lru_cache(maxsize=32)
def tested(name: str, kind: str, context: ClaimContext) -> Score:
    """A method with its chosen setting on the test edits; "DDCM alone" is InfEdit's without attention control."""
    setting = chosen_settings(kind, context)["InfEdit" if name == "DDCM alone" else name]
    method = METHODS["InfEdit" if name == "DDCM alone" else name][0]
    return score(method, {**setting, **(BARE if name == "DDCM alone" else {})}, _edits(kind, "test", context), context)


def _row(name: str, kind: str, context: ClaimContext) -> dict[str, Any]:
    found = tested(name, kind, context)
    setting = chosen_settings(kind, context)["InfEdit" if name == "DDCM alone" else name]
    row = {
        "edit": kind, "method": name, "edits": len(found.right), "right": found.accuracy,
        "PSNR to the true edit": found.truth, "calls": found.calls, "pictures through the network": found.rows,
        "setting": ", ".join(f"{k} {v:g}" for k, v in setting.items()),
    }  # fmt: skip
    if np.isfinite(found.background).any():
        row["background PSNR"] = found.kept
    return row


def _references(kind: str, context: ClaimContext) -> list[dict[str, Any]]:
    """What the readers say of the source and of the true edit, drawn again with other grain."""
    work = _edits(kind, "test", context)
    size = work.images.shape[-1]
    again = np.stack([render(replace(t, seed=t.seed + 1), size).image for t in work.targets])
    return [
        {"edit": kind, "method": name, "edits": len(work.sources), "right": float(work.right(images).mean())}
        for name, images in (("unedited", work.images), ("the true edit, drawn again", torch.from_numpy(again)))
    ]


class _Latents(TextToImage):
    """The same model with its latents as its pictures, so that equality is seen before decoding and clamping."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


@claim("with the source prompt as target and no attention control the latents come back at >= 60 dB")
def equal_prompts_change_nothing(context: ClaimContext) -> Evidence:
    model = runs.pipeline()
    bare = _Latents(model.unet, model.vae, model.text_encoder, model.tokenizer, model.table, model.prediction).eval()
    work = _edits("colour", "test", context)
    count = min(16, len(work.sources))
    images, prompts = work.images[:count], work.prompts[0][:count]
    latents = model.encode(images)
    peak = float(latents.max() - latents.min())
    rows, lowest = [], np.inf
    variants: dict[str, dict[str, Any]] = {
        "DDCM": BARE, "DDCM, strength 0.6": {**BARE, "strength": 0.6}, "with attention control": {},
        "DDCM, target guidance 3": {**BARE, "target_guidance": 3.0},
    }  # fmt: skip
    steps = 2 if context.limit else STEPS
    for name, options in variants.items():
        equal = InfEdit(bare, steps=steps, **{"target_guidance": 1.0, **options})
        error = (equal.edit(images, prompts, prompts, seed=context.seed) - latents).square().mean((1, 2, 3))
        each = 10 * np.log10(peak**2 / error.double().clamp(min=1e-20).numpy())
        if name.startswith("DDCM") and "guidance" not in name:
            lowest = min(lowest, float(each.min()))
        rows.append({"method": name, "latent PSNR": float(each.mean()), "lowest": float(each.min()), "pictures": count})
    levels = grid(model.table, BASELINE_STEPS if not context.limit else 2)
    denoiser = model.denoiser(prompts)
    back = sample(denoiser, invert(denoiser, latents, levels), levels)
    each = 10 * np.log10(peak**2 / (back - latents).square().mean((1, 2, 3)).double().clamp(min=1e-20).numpy())
    rows.append({"method": "DDIM inversion", "latent PSNR": float(each.mean()), "lowest": float(each.min())})
    return Evidence(lowest >= 60, rows)


KINDS = ("colour", "object")
#: Edits that two methods must both get right before their backgrounds are compared.
ENOUGH = 20


@dataclass(frozen=True)
class Pooled:
    """A method over all colour and object edits. right: bool N. background: dB, N. calls: most of the kinds."""

    right: np.ndarray
    background: np.ndarray
    calls: float

    @classmethod
    def of(cls, name: str, context: ClaimContext) -> Pooled:
        found = [tested(name, kind, context) for kind in KINDS]
        right, background = (np.concatenate([getattr(s, part) for s in found]) for part in ("right", "background"))
        return cls(right, background, max(s.calls for s in found))

    def row(self, name: str) -> dict[str, Any]:
        sure = share(int(self.right.sum()), len(self.right))
        kept = {"background PSNR": float(np.nanmean(self.background)), "calls": self.calls}
        return {"edit": "colour and object", "method": name, "edits": len(self.right), **sure.row("right"), **kept}


def keeps_more(ours: Pooled, theirs: Pooled) -> Interval | None:
    """Decibels of background that we keep and they do not, edit by edit, on those that both get right; None where
    these are too few to tell. A method that edits nothing has no edit that is right."""
    both = ours.right & theirs.right & np.isfinite(ours.background) & np.isfinite(theirs.background)
    return paired(ours.background[both], theirs.background[both]) if both.sum() >= ENOUGH else None


def edits_and_keeps(ours: Pooled, theirs: Pooled) -> tuple[bool, str]:
    """Whether most edits are right and, where both are, the background is kept better; and by how much, in words."""
    gain = keeps_more(ours, theirs)
    if gain is None:
        return False, f"fewer than {ENOUGH} edits that both get right"
    sure = share(int(ours.right.sum()), len(ours.right))
    return gain.low > 0 and sure.low > 0.5, f"{gain} dB"


@headline(
    "most colour and object edits are right, and where DDIM-inversion editing is right too the background is kept "
    "better, in at most half of its network calls"
)
def edits_keep_the_background(context: ClaimContext) -> Evidence:
    rows = [row for kind in TEST for row in [*(_row(m, kind, context) for m in METHODS), *_references(kind, context)]]
    pooled = {m: Pooled.of(m, context) for m in METHODS}
    rows += [found.row(m) for m, found in pooled.items()]
    ours = pooled["InfEdit"]
    holds, gain = edits_and_keeps(ours, pooled["DDIM inversion"])
    _, other = edits_and_keeps(ours, pooled["SDEdit"])
    half = ours.calls <= pooled["DDIM inversion"].calls / 2
    note = f"background: {gain} more than DDIM inversion keeps (the card hopes for 3), {other} more than SDEdit"
    return Evidence(holds and half, rows, note)


@claim("where edits are right with and without attention control, the control keeps the background better")
def attention_control_keeps_the_background(context: ClaimContext) -> Evidence:
    methods = ("InfEdit", "DDCM alone")
    rows = [_row(m, kind, context) for kind in KINDS for m in methods]
    pooled = {m: Pooled.of(m, context) for m in methods}
    rows += [found.row(m) for m, found in pooled.items()]
    holds, gain = edits_and_keeps(pooled["InfEdit"], pooled["DDCM alone"])
    return Evidence(holds, rows, f"{gain} more than DDCM alone (the card hopes for 2)")
