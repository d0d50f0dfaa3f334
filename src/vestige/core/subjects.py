"""Subjects: what a path holds. `open_subject` looks at the bytes: a picture, a clip, a data set or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vestige.core.errors import InputError
from vestige.core.image_io import DEFAULT_LIMITS, Limits
from vestige.core.intake import kind_of
from vestige.core.picture import ImageSubject
from vestige.core.sniff import sniff, told

if TYPE_CHECKING:
    from vestige.core.dataset import DatasetSubject
    from vestige.core.models.checkpoint import ModelSubject
    from vestige.core.video import VideoSubject

__all__ = ["ImageSubject", "open_subject"]


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
        from vestige.core.models.files import is_model_folder

        if is_model_folder(path):
            from vestige.core.models.checkpoint import ModelSubject

            return ModelSubject.open(path)
        from vestige.core.dataset import DatasetSubject

        return DatasetSubject.open(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    kind = kind_of(path, head, named=True)
    if kind == "picture":
        return ImageSubject.open(path, limits)
    if kind == "clip":
        from vestige.core.video import VideoSubject

        return VideoSubject.open(path, limits)
    if kind == "data set":
        from vestige.core.dataset import DatasetSubject

        return DatasetSubject.open(path)
    if kind == "model":
        from vestige.core.models.checkpoint import ModelSubject

        return ModelSubject.open(path)
    raise InputError(
        f"{path} is neither a picture, a clip, a data set nor a model (content looks like {told(sniff(head[:300]))})."
    )
