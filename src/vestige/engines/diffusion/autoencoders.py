"""Autoencoders of diffusers folders: of the autoencoder itself, or of a pipeline that has one in "vae"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vestige.core.errors import InputError
from vestige.core.files import read_json


def autoencoder_folder(folder: str | Path) -> Path:
    """Where the configuration and weights of the autoencoder are; raises InputError when there are none."""
    folder = Path(folder)
    place = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    if not (place / "config.json").is_file():
        raise InputError(f"{folder} is no diffusers folder with an autoencoder.")
    return place


def load_autoencoder(folder: str | Path, *, tiny: bool = False) -> Any:
    """The frozen ``AutoencoderKL`` of a diffusers folder in float32, offline and from safetensors alone.

    tiny: an ``AutoencoderTiny`` will do as well. Raises InputError when there is none or it is damaged.
    """
    import diffusers

    place = autoencoder_folder(folder)
    kinds = ("AutoencoderKL", *(("AutoencoderTiny",) if tiny else ()))
    settings = read_json(place / "config.json")
    kind = str(settings.get("_class_name")) if isinstance(settings, dict) else "no settings"
    if kind not in kinds:
        raise InputError(f"{place} holds {kind[:60]!r}; give the folder of an {' or '.join(kinds)}.")
    try:
        vae, info = getattr(diffusers, kind).from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # the library raises every type on damaged folders
        raise InputError(f"{folder} has no readable autoencoder ({' '.join(str(error).split())[:120]}).") from None
    if info["missing_keys"]:
        raise InputError(f"{folder} lacks weights its configuration asks for ({min(info['missing_keys'])}).")
    return vae.float().requires_grad_(False).eval()  # files may hold half precision
