"""Named attacks on marks, each with one strength scale and a ladder of strengths from mild to severe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError

Pictures = np.ndarray


@dataclass
class Context:
    """What an attacker has besides the picture. Nothing here is needed by attacks on the signal or the geometry.

    model: a text-to-image model (`vestige.engines.diffusion.pipeline.TextToImage`), a loaded diffusers pipeline of an
    unconditional UNet, or None. autoencoder: a diffusers AutoencoderKL or AutoencoderTiny; by default the model's own.
    service: marks any pictures N×3×H×W with the mark under attack (black-box access). pool: pictures 1×3×H×W of the
    attacker's own, of any size. caption: pictures -> one sentence each, for attacks that redraw from words.
    purifier: pictures -> pictures, a trained purifier. controls: (pictures, strength, seed) -> pictures, regeneration
    held to the picture by trained controls (`vestige.watermark.ctrlregen.CtrlRegen`). substitute: a
    `vestige.watermark.robust_limits.Substitute`, trained on pictures with and without the mark. steps: of a whole
    sampling chain. batch: tiles computed at once.
    """

    model: Any = None
    autoencoder: Any = None
    service: Callable[[Pictures], Pictures] | None = None
    pool: Sequence[Pictures] = ()
    caption: Callable[[Pictures], list[str]] | None = None
    purifier: Callable[[Pictures], Pictures] | None = None
    controls: Callable[[Pictures, float, int], Pictures] | None = None
    substitute: Any = None
    steps: int = 50
    batch: int = 64


#: What an attack may need from the context, and how to say that it is not there.
NEEDS: dict[str, str] = {
    "model": "a diffusion model (--model FOLDER)",
    "autoencoder": "an autoencoder (--autoencoder FOLDER, or a latent --model)",
    "service": "a service that marks pictures with the same mark",
    "pool": "other pictures to combine with",
    "caption": "a captioner (--captioner FOLDER)",
    "purifier": "a trained purifier",
    "controls": "a model with trained controls (--model shipped has them)",
    "substitute": "a classifier trained on marked and unmarked pictures",
}

Run = Callable[[Pictures, float, int, Context], Pictures]


@dataclass(frozen=True)
class ImageAttack:
    """A named attack.

    family: the suite it belongs to. meaning: what its strength stands for. ladder: strengths from mild to severe.
    quick: the strengths of a short benchmark. low, high: the allowed range. needs: keys of `NEEDS`. aligned: pixels
    stay where they are, so that the result can be compared with the original. forges: it turns an unmarked picture
    into one that is read as marked, instead of the reverse.
    """

    name: str
    family: str
    meaning: str
    ladder: tuple[float, ...]
    quick: tuple[float, ...]
    low: float
    high: float
    needs: tuple[str, ...] = ()
    aligned: bool = True
    forges: bool = False
    run: Run = field(repr=False, default=lambda images, strength, seed, context: images)

    def __call__(self, images: Pictures, strength: float, *, seed: int = 0, context: Context | None = None) -> Pictures:
        """As `attack` with this name."""
        check(images)
        self.check_strength(strength)
        context = context or Context()
        lacking = missing(self, context)
        if lacking:
            raise UsageError(f"The attack {self.name} needs {lacking}.")
        return eight_bit(self.run(images.astype(np.float32, copy=False), float(strength), seed, context))

    def check_strength(self, strength: float) -> None:
        """Raises UsageError for a strength outside the range."""
        if not self.low <= strength <= self.high:
            raise UsageError(
                f"The strength of {self.name} is the {self.meaning}, from {self.low:g} to {self.high:g}; "
                f"got {strength:g}."
            )


ATTACKS: dict[str, ImageAttack] = {}


def register(
    family: str,
    meaning: str,
    ladder: tuple[float, ...],
    quick: tuple[float, ...],
    low: float,
    high: float,
    *,
    needs: tuple[str, ...] = (),
    aligned: bool = True,
    forges: bool = False,
) -> Callable[[Run], Run]:
    """Decorator that enters a function (named as the attack, with a leading underscore) into the registry."""

    def add(run: Run) -> Run:
        name = run.__name__.removeprefix("_")
        ATTACKS[name] = ImageAttack(name, family, meaning, ladder, quick, low, high, needs, aligned, forges, run)
        return run

    return add


def attack(images: Pictures, name: str, strength: float, *, seed: int = 0, context: Context | None = None) -> Pictures:
    """Apply one attack: float N×3×H×W in [0, 1] -> float32 with eight-bit values, of another size where it says so.

    Same input, seed and context, same result. Raises UsageError for an unknown name, a strength out of range, a wrong
    shape or something missing from the context; InputError for samples that are not finite.

    >>> attack(np.zeros((1, 3, 32, 48), np.float32), "resize", 0.5).shape
    (1, 3, 16, 24)
    """
    return lookup(name)(images, strength, seed=seed, context=context)


def lookup(name: str) -> ImageAttack:
    """The attack of that name; raises UsageError, with the nearest names, when there is none."""
    if name not in ATTACKS:
        import difflib

        near = difflib.get_close_matches(name, [*ATTACKS], 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ATTACKS)}."
        raise UsageError(f"There is no attack {name!r}; {hint}")
    return ATTACKS[name]


def missing(found: ImageAttack, context: Context) -> str:
    """What the context lacks for this attack, in words; empty when nothing is."""
    return " and ".join(NEEDS[need] for need in found.needs if not _has(context, need))


def _has(context: Context, need: str) -> bool:
    if need == "autoencoder":
        return own_autoencoder(context) is not None
    return bool(getattr(context, need)) if need == "pool" else getattr(context, need) is not None


def own_autoencoder(context: Context) -> Any:
    """The autoencoder of the context; that of its model unless it is the identity; None when there is none."""
    if context.autoencoder is not None:
        return context.autoencoder
    vae = getattr(context.model, "vae", None)
    return vae if vae is not None and len(vae.config.block_out_channels) > 1 else None


def check(images: Pictures) -> None:
    """Raises UsageError unless images are a float array N×3×H×W with pixels, InputError for samples not finite."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise UsageError(f"Pictures must be an array N×3×H×W with at least one pixel; got {np.shape(images)}.")
    if images.dtype.kind != "f":
        raise UsageError(f"Pictures must be floating point in [0, 1]; got {images.dtype}, so divide by 255 first.")
    if not np.isfinite(images).all():
        raise InputError("The picture holds samples that are not finite (NaN or infinity); repair it first.")


def eight_bit(images: Pictures) -> Pictures:
    """float32 with the nearest eight-bit values, as a saved file has."""
    return np.floor(images.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.float32) / np.float32(255)
