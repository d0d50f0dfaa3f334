"""The public Python interface: the verbs of the command line as functions on files and arrays."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vestige.app.carried import DEEP, losses, metadata
from vestige.core.calibration import PRIOR
from vestige.core.catalogue import system
from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.guard import check_output
from vestige.core.image_io import DEFAULT_LIMITS, EXAMINE_LIMITS, Limits, encode, format_for, to_uint8
from vestige.core.keys import PUBLIC_KEY, load_key
from vestige.core.models.files import is_model_folder
from vestige.core.pictures.samples import to_eight
from vestige.core.subjects import ImageSubject
from vestige.core.video import VideoSubject, is_clip

if TYPE_CHECKING:
    from vestige.app.jobs.survey import Survey
    from vestige.core.findings import Findings
    from vestige.core.roles import Reading
    from vestige.core.work import Result

Picture = str | Path | bytes | np.ndarray | ImageSubject


def subject_of(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> ImageSubject:
    """An `ImageSubject` from a path, encoded bytes or an array (uint8 H×W×3, or float 3×H×W / 1×3×H×W in [0, 1]).

    Arrays become PNG bytes, so examiners see a picture without any file history.
    Raises InputError for anything else.
    """
    if isinstance(picture, ImageSubject):
        return picture
    if isinstance(picture, bytes | bytearray):
        return ImageSubject(bytes(picture), limits=limits)
    if isinstance(picture, np.ndarray):
        shape = picture.shape
        if picture.dtype == np.uint8 and picture.ndim == 3 and shape[2] == 3:
            return ImageSubject(encode(picture, "PNG"), "array")
        if picture.dtype.kind == "f" and shape[-3:-2] == (3,) and shape[:-3] in ((), (1,)):
            return ImageSubject(encode(to_uint8(picture), "PNG"), "array")
        raise InputError(f"An array picture is uint8 H×W×3 or float (1×)3×H×W in [0, 1], got {picture.dtype} {shape}.")
    return ImageSubject.open(picture, limits)


def load_image(path: str | Path) -> np.ndarray:
    """Read a picture as float32 1×3×H×W, upright sRGB in [0, 1].

    Raises InputError for missing or damaged files, LimitError beyond the safety limits.
    """
    return ImageSubject.open(path).image


def _key(key: bytes | str | Path | None) -> bytes:
    if key is None:
        return PUBLIC_KEY
    return bytes(key) if isinstance(key, bytes) else load_key(key)


def find(
    picture: Picture,
    *,
    keys: Sequence[bytes | str | Path] = (),
    only: Sequence[str] = (),
    every: float | None = None,
    prior: float = PRIOR,
    fast: bool = False,
) -> Findings:
    """Examine a picture, or the frames of a clip's file, with the default panel; scan a model's file or folder.

    Of a file with several pages the first is examined, and documents are refused: `find_all` takes everything.

    keys: watermark keys (or key files) to try besides the public one. only: examiners to use. every: seconds between
    the frames of a clip. prior: share of pictures with the trace that probabilities assume. fast: do not try a verdict
    near its threshold again on the picture saved again. Raises InputError for unreadable files, UsageError for unknown
    examiners and for what may hold several pictures.

    >>> import vestige, numpy as np
    >>> vestige.find(np.full((64, 64, 3), 128, np.uint8), only=["container"]).verdict.level
    'nothing found'
    """
    from vestige.core.panel import shared_panel

    if isinstance(picture, str | Path) and (scanned := _scanned(Path(picture))) is not None:
        return scanned
    panel = shared_panel(tuple(_key(k) for k in keys), tuple(only), "", prior, fast)
    if isinstance(picture, str | Path) and is_clip(picture):
        from vestige.core.clips import examine_clip

        return examine_clip(VideoSubject.open(picture), panel, every)[0]
    subject = subject_of(picture, EXAMINE_LIMITS)
    found = panel.examine(subject)
    if subject.decoded.frames == 1:
        return found
    said = f"The first of {subject.decoded.frames} frames or pages was examined; find_all takes all of them."
    verdict = replace(found.verdict, sentences=(said, *found.verdict.sentences))
    return replace(found, verdict=verdict, reading=(said, *found.reading))


def _scanned(path: Path) -> Findings | None:
    """What a scan says of a model; None for one picture or clip. Raises UsageError for what holds several."""
    from vestige.core.intake import take_in

    if not path.exists():
        return None
    if path.is_dir() and not is_model_folder(path):
        raise UsageError(f"{path} is a folder; vestige.find_all examines everything in it.")
    entry = next(e for e in take_in([path]) if e.named)
    if entry.kind in ("document", "data set"):
        raise UsageError(f"{path} is a {entry.kind}, which may hold several pictures; vestige.find_all examines them.")
    if entry.kind != "model":
        return None
    from vestige.app.jobs.examine import FindOptions, examine_here

    return examine_here(entry, FindOptions()).parts[0].findings


def find_all(
    *paths: str | Path,
    keys: Sequence[bytes | str | Path] = (),
    only: Sequence[str] = (),
    every: float | None = None,
    prior: float = PRIOR,
    fast: bool = False,
) -> Survey:
    """Examine everything behind files, folders and globs, models among pictures too; every file is accounted for.

    ``items`` of the answer holds what was examined, ``lines`` what became of each file, ``to_dict()`` is the report of
    ``vestige find --json``. Arguments as for `find`. Raises InputError for a path that is not there; a file that cannot
    be examined is a line.
    """
    from vestige.app.jobs.examine import FindOptions
    from vestige.app.jobs.survey import survey

    secrets = tuple(_key(k) for k in keys)
    return survey(paths, FindOptions(secrets, tuple(only), EXAMINE_LIMITS, every=every, prior=prior, fast=fast))


def mark(
    picture: Picture,
    out: str | Path | None = None,
    *,
    message: str | None = None,
    bits: np.ndarray | None = None,
    key: bytes | str | Path | None = None,
    method: str = "spread_spectrum",
    quality: int = 95,
    keep_metadata: bool = False,
    mask: Picture | None = None,
    **options: Any,
) -> np.ndarray:
    """Hide a short text or bits in a picture; returns uint8 (or uint16) H×W×3 and writes ``out`` when given.

    key: 32 bytes or a key file; without one the mark is public. mask: a picture of the same size, white where the mark
    may go, for methods that keep to a region. options: the method's hyper-parameters.
    Transparency and sixteen bits are kept where the output format can hold them.
    Raises UsageError when the payload does not fit or the picture is too small.

    >>> import vestige, numpy as np
    >>> picture = np.random.default_rng(0).integers(40, 200, (256, 256, 3), dtype=np.uint8)
    >>> vestige.read(vestige.mark(picture, message="hi")).message
    'hi'
    """
    if (message is None) == (bits is None):
        raise UsageError("Give either a message or bits to hide.")
    subject = subject_of(picture).whole()
    marker = _method(method, "mark", options)
    payload = message if message is not None else np.asarray(bits, bool)
    where = _mask(mask, subject)
    if where is not None and "masks" not in inspect.signature(marker.mark).parameters:
        raise UsageError(f"{method} marks whole pictures; leave the mask out, or take --method maskmark.")
    images = marker.mark(subject.image, payload, _key(key), **({} if where is None else {"masks": where}))
    pixels = _samples(images, subject, out)
    if out is not None:
        write_picture(out, pixels, subject, quality=quality, keep_metadata=keep_metadata)
    return pixels


def read(
    picture: Picture, *, key: bytes | str | Path | None = None, method: str = "spread_spectrum", **options: Any
) -> Reading:
    """Read a mark: outcome "read", "unreadable" or "absent", with a p-value. options: the method's hyper-parameters.

    Raises InputError for unreadable pictures.
    """
    (reading,) = _method(method, "mark", options).read(subject_of(picture).image, _key(key))
    return reading


def erase(
    picture: Picture, out: str | Path | None = None, *, method: str = "face_obscure", mask: Picture | None = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Remove something from a picture; returns uint8 (or uint16) H×W×3 and the bool mask H×W of what changed.

    mask: a picture of the same size, white where to erase, for methods that need one.
    Raises UsageError when the mask is missing or has another size.
    """
    subject = subject_of(picture).whole()
    images, changed = _method(method, "erase", options).erase(subject.image, _mask(mask, subject))
    pixels = _samples(images, subject, out)
    if out is not None:
        write_picture(out, pixels, subject)
    return pixels, changed[0, 0]


def restore(
    picture: Picture, out: str | Path | None = None, *, method: str = "nlm", mask: Picture | None = None, **options: Any
) -> np.ndarray:
    """Bring back what was lost (noise, holes, resolution); returns uint8 (or uint16) H×W×3.

    mask: a picture of the same size, white where something is missing, for inpainting.
    Raises UsageError when the mask is missing or has another size.
    """
    subject = subject_of(picture).whole()
    images = _method(method, "restore", options).restore(subject.image, _mask(mask, subject))
    pixels = _samples(images, subject, out)
    if out is not None:
        write_picture(out, pixels, subject)
    return pixels


def attack(*inputs: str | Path, method: str, out: str | Path | None = None, **options: Any) -> Result:
    """Attack what protects or examines something; `vestige.core.work.Result` says what was made and measured.

    options: ``mask``, ``prompt``, ``model``, ``data``, ``reference``, ``key``, ``message``, ``build``, ``seed`` and
    ``device`` as on the command line; any others are settings of the method. Raises UsageError for a system that does
    not attack, InputError for files that do not fit.
    """
    return _use("attack", "attack", inputs, method, out, options)


def measure(*inputs: str | Path, method: str, out: str | Path | None = None, **options: Any) -> Result:
    """Measure pictures, data sets or models: ``Result.figures`` and ``Result.rows``. Arguments as for `attack`."""
    return _use("measure", "measure", inputs, method, out, options)


def make(*inputs: str | Path, method: str, out: str | Path | None = None, **options: Any) -> Result:
    """Draw or edit pictures or write texts with a generative model. Arguments as for `attack`."""
    return _use("make", "generate", inputs, method, out, options)


def _use(
    verb: str, role: str, inputs: Sequence[str | Path], method: str, out: str | Path | None, options: dict[str, Any]
) -> Result:
    """Carry out a verb by the system's own function, or by its method on one picture."""
    from dataclasses import fields

    from vestige.core.work import Result, Work

    entry = system(method)
    if role not in entry.roles:
        raise UsageError(f"{method} does not {verb}; 'vestige systems --role {role}' lists what does.")
    entry.load()  # says that it is planned where it is
    named = {f.name for f in fields(Work)} - {"verb", "method", "paths", "out", "key", "options"}
    given: dict[str, Any] = {name: value for name, value in options.items() if name in named}
    for name in ("mask", "model", "data", "reference"):
        if given.get(name) is not None:
            given[name] = Path(given[name])
    rest = {name: str(value) for name, value in options.items() if name not in named and name != "key"}
    work = Work(
        verb=verb, method=method, paths=tuple(Path(p) for p in inputs), out=None if out is None else Path(out),
        key=_key(options.get("key")), options=rest, **given,
    )  # fmt: skip
    tool = entry.tool(verb)
    result = None if tool is None else tool(work)
    if result is not None:
        work.settled()
        return result
    if len(inputs) != 1 or out is None:
        raise UsageError(f"{method} takes one picture here, and out= says where to write.")
    settings = {name: value for name, value in options.items() if name not in named and name != "key"}
    subject = subject_of(inputs[0]).whole()
    images = getattr(_method(method, role, settings), verb)(subject.image)
    images = images[0] if isinstance(images, tuple) else images
    pixels = to_uint8(np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, np.float32))
    write_picture(out, pixels, subject)
    return Result(files=(Path(out),))


def write_picture(
    out: str | Path, pixels: np.ndarray, subject: ImageSubject, *, quality: int = 95, keep_metadata: bool = False
) -> None:
    """Write the changed picture with the original's transparency and, on request, its metadata.

    EXIF orientation is reset, because pixels are written upright; the thumbnail is dropped, because it would show
    the old picture. Raises UsageError for an unknown ending, and where the original, or a file that vestige did not
    write, would be overwritten.
    """
    check_output(out, inputs=[subject.source])
    format = format_for(out)
    for lost in losses(pixels, subject, format, keep_metadata):
        warnings.warn(f"{out}: {lost}.", stacklevel=3)
    write_atomic(out, encode_like(pixels, subject, format, quality=quality, keep_metadata=keep_metadata))


def encode_like(
    pixels: np.ndarray, subject: ImageSubject, format: str, *, quality: int = 95, keep_metadata: bool = False
) -> bytes:
    """The changed picture's file content; see `write_picture`."""
    deep = pixels.dtype == np.uint16
    if deep and format not in DEEP:
        pixels, deep = to_eight(pixels), False
    alpha = subject.decoded.deep_alpha if deep else subject.alpha
    if alpha is None and deep and subject.alpha is not None:
        alpha = subject.alpha.astype(np.uint16) * 257
    if alpha is not None and alpha.shape != pixels.shape[:2]:
        alpha = None
    exif, xmp, _ = metadata(subject) if keep_metadata else (None, None, ())
    return encode(pixels, format, quality=quality, alpha=alpha, exif=exif, xmp=xmp)


def _samples(images: Any, subject: ImageSubject, out: str | Path | None) -> np.ndarray:
    """A method's float images as uint8, or as uint16 where the original has sixteen bits and the output may."""
    if subject.decoded.deep is None or (out is not None and format_for(out) not in DEEP):
        return to_uint8(images)
    return np.asarray((np.asarray(images)[0].transpose(1, 2, 0).clip(0, 1) * 65535 + 0.5).astype(np.uint16))


def _method(slug: str, role: str, options: dict[str, Any]) -> Any:
    entry = system(slug)
    if role not in entry.roles:
        raise UsageError(f"{slug} does not {role}; 'vestige systems --role {role}' lists what does.")
    made = entry.load()
    if not hasattr(made, role):  # it marks models or scenes, or erases from weights
        raise UsageError(f"{slug} does not {role} pictures; it is used from Python, see '{made.__module__}'.")
    try:
        return made(**options)
    except TypeError as error:
        raise UsageError(f"{slug} does not take these options ({error}).") from None


def _mask(mask: Picture | None, subject: ImageSubject) -> np.ndarray | None:
    if mask is None:
        return None
    pixels = subject_of(mask).pixels
    if pixels.shape[:2] != (subject.height, subject.width):
        raise UsageError(
            f"The mask is {pixels.shape[1]}×{pixels.shape[0]} and the picture {subject.width}×{subject.height}; "
            "they must have the same size."
        )
    return (pixels.max(axis=2) > 127)[None, None]
