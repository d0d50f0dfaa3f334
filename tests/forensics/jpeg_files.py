"""Files with a known JPEG history, made in code from photographs that ship with scikit-image."""

from functools import cache

import numpy as np
from PIL import Image
from skimage import data

from vestige.core.image_io import decode, encode
from vestige.core.subjects import ImageSubject


@cache
def photo(name="astronaut", scale=0.75):
    """uint8 H×W×3 without a compression history: downscaling removes what the source had."""
    image = Image.fromarray(getattr(data, name)())
    return np.asarray(image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS))


def saved(pixels, quality):
    """The pixels after one JPEG compression."""
    return decode(encode(pixels, "JPEG", quality=quality)).stored


def jpeg(pixels, quality):
    return ImageSubject(encode(np.ascontiguousarray(pixels), "JPEG", quality=quality))


def png(pixels):
    return ImageSubject(encode(np.ascontiguousarray(pixels), "PNG"))


REGION = (slice(96, 208), slice(120, 248))


def pasted(host, source, rows=0, columns=0):
    """The host with REGION taken from a source shifted by so many pixels."""
    result = host.copy()
    result[REGION] = np.roll(source, (rows, columns), (0, 1))[REGION]
    return result


def contrast(map, shape):
    """Mean of a map inside REGION less its mean outside, at the picture's resolution."""
    full = np.asarray(Image.fromarray(map).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
    inside = np.zeros(shape[:2], bool)
    inside[REGION] = True
    return float(full[inside].mean() - full[~inside].mean())
