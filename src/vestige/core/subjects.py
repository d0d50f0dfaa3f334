"""Subjects: what a path holds. `open_subject` looks at the bytes: a picture, a clip, a data set or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vestige.core.errors import InputError
from vestige.core.image_io import DEFAULT_LIMITS, Limits
from vestige.core.model_formats import MODEL_ENDINGS, foreign_format
from vestige.core.picture import ImageSubject
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff

if TYPE_CHECKING:
    from vestige.core.checkpoint import ModelSubject
    from vestige.core.dataset import DatasetSubject
    from vestige.core.video import VideoSubject

__all__ = ["ImageSubject", "open_subject"]

MODEL_FORMATS = ("safetensors", "pickle", "zip", "npy")
#: Old pickles, and models of some other kinds, have no signature; for them alone the ending decides.
MODEL_SUFFIXES = MODEL_ENDINGS


def open_subject(
    path: str | Path, limits: Limits = DEFAULT_LIMITS
) -> ImageSubject | VideoSubject | DatasetSubject | ModelSubject:
    """Open whatever a path holds, judged by content.

    Files: pictures (an animated GIF too: its frames are read by `VideoSubject`); clips; parquet and tar are data sets;
    safetensors, pickles and torch archives are models. Folders: a diffusers or transformers model, otherwise a data
    set. Raises InputError when it is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.is_dir():
        from vestige.core.model_files import is_model_folder

        if is_model_folder(path):
            from vestige.core.checkpoint import ModelSubject

            return ModelSubject.open(path)
        from vestige.core.dataset import DatasetSubject

        return DatasetSubject.open(path)
    try:
        with path.open("rb") as file:
            head = file.read(300)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    kind = sniff(head)
    if kind in IMAGE_FORMATS:
        return ImageSubject.open(path, limits)
    if kind in VIDEO_FORMATS:
        from vestige.core.video import VideoSubject

        return VideoSubject.open(path, limits)
    if kind in ("parquet", "tar"):
        from vestige.core.dataset import DatasetSubject

        return DatasetSubject.open(path)
    if kind in MODEL_FORMATS or path.suffix.lower() in MODEL_SUFFIXES or foreign_format(head, path.name):
        from vestige.core.checkpoint import ModelSubject

        return ModelSubject.open(path)
    raise InputError(f"{path} is neither a picture, a clip, a data set nor a model (content looks like {kind}).")
