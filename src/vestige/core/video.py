"""Clips: short films and animations as subjects, decoded within bounds and sampled evenly.

Files are told apart by their content. OpenCV's FFmpeg reads films from local files alone, with the one reader that fits
the content, so that a play list or a link in disguise is never followed; Pillow reads animations.
"""

from __future__ import annotations

import hashlib
import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.image_io import DEFAULT_LIMITS, Limits, open_image, read_bytes
from vestige.core.parts import spread
from vestige.core.picture import ImageSubject
from vestige.core.pictures.animation import BrokenFrameError, frames_of
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff, told

#: Formats of pictures that may hold an animation, which is examined as a clip.
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")
SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv")
#: Bounds of a clip: bytes, pixels of a frame (8K is 33 million), seconds, frames examined and frames of a GIF.
MAX_BYTES, MAX_FRAME_PIXELS, MAX_SECONDS, MAX_FRAMES, MAX_GIF_FRAMES = 32 * 2**30, 40_000_000, 6 * 3600.0, 120, 5000
#: Frames examined where the user asks for no spacing: one a second, but no more and no fewer than these.
_MOST, _FEWEST = 30, 5
#: Frames further away than this many seconds are sought in the file, nearer ones decoded on the way.
_SEEK = 8.0
_READERS = {
    "MP4": "mov,mp4,m4a,3gp,3g2,mj2", "MOV": "mov,mp4,m4a,3gp,3g2,mj2", "AVI": "avi", "WEBM": "matroska,webm",
    "MKV": "matroska,webm",
}  # fmt: skip


def is_clip(path: str | Path) -> bool:
    """Whether a file holds a clip by its content, or is named like one and is no picture (so that it is refused)."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            kind = sniff(file.read(300))
    except OSError:
        return False
    if kind in ANIMATIONS:
        return is_animated(path, kind)
    return kind in VIDEO_FORMATS or (kind not in IMAGE_FORMATS and path.suffix.lower() in SUFFIXES)


def is_animated(path: Path, kind: str) -> bool:
    """Whether a picture's file of one of the `ANIMATIONS` has several frames; damage is left to its reader."""
    try:
        if path.stat().st_size > DEFAULT_LIMITS.max_bytes or not _may_be_animated(path, kind):
            return False
        return bool(getattr(open_image(path.read_bytes(), str(path))[0], "is_animated", False))
    except (OSError, InputError):
        return False  # the reader of pictures says what is wrong with it


def _may_be_animated(path: Path, kind: str) -> bool:
    """Looks at headers alone, so that ordinary pictures are not read twice."""
    with path.open("rb") as file:
        head = file.read(64)
        if kind == "WEBP":
            return head[12:16] == b"VP8X" and bool(head[20] & 2)
        if kind == "AVIF":
            return b"avis" in head
        if kind != "PNG":
            return True
        at = 8
        for _ in range(1000):
            file.seek(at)
            chunk = file.read(8)
            if chunk[4:] == b"acTL":
                return True
            if len(chunk) < 8 or chunk[4:] in (b"IDAT", b"IEND"):
                return False
            at += 12 + int.from_bytes(chunk[:4], "big")
    return False


@dataclass
class VideoSubject:
    """A clip: what its header states and, on demand, frames spread evenly over it.

    seconds and rate are as stated in the file and 0 where it states none; `notes` says what decoding came upon.

    >>> VideoSubject.open("missing.mp4")
    Traceback (most recent call last):
    vestige.core.errors.InputError: missing.mp4 does not exist; check the path.
    """

    path: Path
    format: str
    codec: str
    width: int
    height: int
    rate: float
    seconds: float
    limits: Limits = DEFAULT_LIMITS
    notes: list[str] = field(default_factory=list)
    #: Step of the last sampling, in seconds.
    every: float = 0.0
    #: When each frame of an animation starts, in seconds; empty for films.
    starts: tuple[float, ...] = ()

    @classmethod
    def open(cls, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> VideoSubject:
        """Check a file's content and header; raises InputError or LimitError with one sentence."""
        path = Path(path)
        try:
            if path.is_dir():
                raise InputError(f"{path} is a folder; name a file in it.")
            size = path.stat().st_size
            with path.open("rb") as file:
                kind = sniff(file.read(300))
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; check the path.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
        if not size:
            raise InputError(f"{path} is empty.")
        if size > MAX_BYTES:
            raise LimitError(f"{path} is {size / 2**30:.0f} GiB; the limit for clips is {MAX_BYTES / 2**30:.0f} GiB.")
        if kind in ANIMATIONS:
            return _open_animation(cls, path, limits)
        if kind not in VIDEO_FORMATS:
            known = ", ".join(VIDEO_FORMATS)
            raise InputError(
                f"{path} is not a clip vestige reads (content looks like {told(kind)}); it reads {known}, GIF."
            )
        return _open_film(cls, path, kind, limits)

    @property
    def source(self) -> str:
        return str(self.path)

    @cached_property
    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def picture(self) -> ImageSubject | None:
        """The file as a picture, for what can be read from the file of an animation; None for films."""
        return ImageSubject.open(self.path, self.limits) if self.format in ANIMATIONS else None

    def frames(self, every: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """(time in seconds, uint8 H×W×3 RGB) of frames spread evenly; ``every`` is their distance in seconds.

        Raises InputError when not one frame can be decoded, UsageError when ``every`` is not above 0.
        """
        times, self.every = sample_times(self.seconds, every)
        if self.starts and every is None:  # an animation's frames are known: all of them, or an even sample
            times = [self.starts[n] for n in spread(len(self.starts), _MOST)]
            self.every = self.seconds / len(times)
        if every and self.every > every * 1.001:
            self.notes.append(f"One frame every {every:g} s is more than the {MAX_FRAMES} frames that are examined.")
        walk = _walk_animation(self, times) if self.format in ANIMATIONS else _walk_film(self, times)
        last = -1.0
        for last, pixels in walk:
            _check_size(self.source, pixels.shape[1], pixels.shape[0], self.limits)
            yield last, pixels
        if last < 0:
            raise InputError(f"{self.path} is a damaged {self.format} file (no frame can be decoded).")
        if not self.seconds:
            self.notes.append(f"The file does not state how long it is; frames were taken up to {clock(last)}.")


def sample_times(seconds: float, every: float | None = None) -> tuple[list[float], float]:
    """When to take frames of a clip of that length (0: unknown, then as many as may be), and their distance.

    By default one a second, 5 to 30 in all; with ``every`` up to 120. Raises UsageError when it is not above 0.

    >>> sample_times(2.0)[0], sample_times(300.0)[1], sample_times(300.0, 1.0)[1]
    ([0.0, 0.4, 0.8, 1.2000000000000002, 1.6], 10.0, 2.5)
    """
    if every is not None and not 0 < every < math.inf:
        raise UsageError(f"--every is a number of seconds above 0, got {every:g}.")
    if not seconds:
        step = every or 1.0
        return [step * k for k in range(MAX_FRAMES)], step
    step = max(seconds / _MOST, min(1.0, seconds / _FEWEST)) if every is None else max(every, seconds / MAX_FRAMES)
    return [step * k for k in range(max(1, math.ceil(seconds / step - 1e-9)))], step


def clock(seconds: float) -> str:
    """A time for people.

    >>> clock(3.04), clock(75), clock(3723)
    ('0:03.0', '1:15.0', '1:02:03')
    """
    minutes, rest = divmod(round(seconds, 1), 60)
    if minutes >= 60:
        return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{int(rest):02d}"
    return f"{int(minutes)}:{rest:04.1f}"


def shrink(array: np.ndarray, side: int) -> np.ndarray:
    """The array h×w(×c) with its longer side at most ``side``, area-averaged."""
    import cv2

    scale = side / max(array.shape[:2])
    if scale >= 1:
        return array
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA)


def _check_size(name: str, width: int, height: int, limits: Limits) -> None:
    limit = min(limits.max_pixels, MAX_FRAME_PIXELS)
    if width * height > limit or max(width, height) > limits.max_side:
        raise LimitError(
            f"{name} has frames of {width}×{height} ({width * height / 1e6:.0f} megapixels); the limit for clips is "
            f"{limit / 1e6:.3g} megapixels."
        )


def _check_length(path: Path, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise LimitError(
            f"{path} states a length of {seconds / 3600:.1f} hours; the limit is {MAX_SECONDS / 3600:.0f} hours, "
            "so examine a part of it."
        )


@cache
def _cv2() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is said in one sentence
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextmanager
def _capture(path: Path, kind: str) -> Iterator[Any]:
    """An open OpenCV capture on a local file, read by the one FFmpeg reader that fits its content."""
    cv2 = _cv2()
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(name)
    os.environ[name] = f"protocol_whitelist;file|format_whitelist;{_READERS[kind]}"
    bounds = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 20_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 20_000, cv2.CAP_PROP_N_THREADS, 1]
    try:
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, bounds)
    except cv2.error:
        raise InputError(f"{path} is a damaged {kind} file (it cannot be opened).") from None
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
    try:
        if not capture.isOpened():
            raise InputError(f"{path} is a damaged {kind} file, or one without a film in it (it cannot be opened).")
        yield capture
    finally:
        capture.release()


def _number(value: float) -> float:
    return float(value) if math.isfinite(value) and value > 0 else 0.0


def _open_film(cls: type[VideoSubject], path: Path, kind: str, limits: Limits) -> VideoSubject:
    cv2 = _cv2()
    with _capture(path, kind) as capture:
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        rate, count = (_number(capture.get(p)) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        tag = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if width < 1 or height < 1:
        raise InputError(f"{path} is a damaged {kind} file (it states frames of {width}×{height} pixels).")
    _check_size(str(path), width, height, limits)
    seconds = count / rate if rate else 0.0
    _check_length(path, seconds)
    codec = "".join(c for c in tag.to_bytes(4, "little").decode("latin-1") if c.isascii() and c.isalnum())
    return cls(path, kind, codec, width, height, rate, seconds, limits)


def _walk_film(subject: VideoSubject, times: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """The first frame at or after each of the times, with the time that the file gives it."""
    cv2 = _cv2()
    step = 1.0 / subject.rate if subject.rate else 0.04
    with _capture(subject.path, subject.format) as capture:
        now = -step
        for time in times:
            if now >= time - step / 2 and now >= 0:
                continue  # the last frame is past it already: frames lie further apart than the times
            if now >= 0 and time - now > _SEEK:
                capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * time)
                now = max(now, time - _SEEK)  # where a seek ends is known only from the next frame's stamp
            while now < time - step / 2:
                if not capture.grab():
                    if subject.seconds - now > max(0.5, 2.5 * step, 0.05 * subject.seconds):
                        subject.notes.append(
                            f"The clip breaks off after {clock(max(now, 0.0))} of {clock(subject.seconds)}; "
                            "the rest cannot be decoded."
                        )
                    return
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                now = stamp if math.isfinite(stamp) and stamp > now else now + step
            ok, frame = capture.retrieve()
            if ok and frame is not None and frame.ndim == 3:
                yield max(now, 0.0), np.ascontiguousarray(frame[..., ::-1])


def _animation_times(path: Path, image: Any, data: bytes) -> tuple[tuple[float, ...], float]:
    """When each frame of an animation starts, and when the last one ends."""
    starts: list[float] = []
    now = 0.0
    stated = _webp_durations(data) if image.format == "WEBP" else []
    for number in range(MAX_GIF_FRAMES + 1):
        try:
            image.seek(number)
            if image.format == "AVIF":
                image.load()  # states how long a frame lasts only then
        except Exception:  # the end, or damage: Pillow raises many types
            return tuple(starts), now
        starts.append(now)
        lasts = stated[number] if number < len(stated) else image.info.get("duration")
        now += max(float(lasts or 100.0), 20.0) / 1000
    raise LimitError(f"{path} has more than {MAX_GIF_FRAMES} frames, the limit for animations.")


def _webp_durations(data: bytes) -> list[int]:
    """Milliseconds of each frame, which Pillow knows only after decoding."""
    found, at = [], 12
    while at + 24 <= len(data):
        if data[at : at + 4] == b"ANMF":
            found.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return found


def _open_animation(cls: type[VideoSubject], path: Path, limits: Limits) -> VideoSubject:
    data = read_bytes(path, limits)
    image, kind = open_image(data, str(path), limits)
    width, height = image.size
    _check_size(str(path), width, height, limits)
    starts, seconds = _animation_times(path, image, data)
    _check_length(path, seconds)
    rate = len(starts) / seconds if seconds else 0.0
    return cls(path, kind, "", width, height, rate, seconds, limits, starts=starts)


def _walk_animation(subject: VideoSubject, times: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    starts = subject.starts
    numbers = sorted({bisect_right(starts, time + 1e-9) - 1 for time in times}) if starts else []
    data = read_bytes(subject.path, subject.limits)
    try:
        for number, pixels in frames_of(data, subject.source, numbers, subject.limits):
            yield starts[number], pixels
    except BrokenFrameError as error:
        subject.notes.append(f"The animation breaks off at {clock(starts[error.args[0]])}; the rest is damaged.")
