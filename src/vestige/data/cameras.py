"""Simulated cameras: a colour filter array, demosaicing, a tone curve, a noise pattern of the sensor, and JPEG.

Each leaves the traces of its kind on a picture that had none of them, so that what erases such traces can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve

from vestige.core.errors import UsageError
from vestige.core.image_io import decode, encode, to_uint8
from vestige.core.runtime import rng

#: Which colour the four places of a 2×2 block record: red 0, green 1, blue 2.
ARRAYS = {"RGGB": (0, 1, 1, 2), "GRBG": (1, 0, 2, 1), "BGGR": (2, 1, 1, 0)}
_TENT = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]], np.float32)
_CROSS = np.array([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]], np.float32)


@dataclass(frozen=True)
class Camera:
    """array: of `ARRAYS`. smoothing: of the demosaiced chroma, 0 none. gamma: of the tone curve applied before the
    sensor noise. shot, pattern: standard deviations of the noise of every picture and of the sensor's own (relative to
    brightness). sharpen: unsharp masking. quality, chroma: of the JPEG. seed: of the sensor.
    """

    array: str = "RGGB"
    smoothing: int = 0
    gamma: float = 1.0
    shot: float = 0.005
    pattern: float = 0.02
    sharpen: float = 0.0
    quality: int = 92
    chroma: int = 0
    seed: int = 0

    def take(self, picture: np.ndarray, seed: int = 0) -> np.ndarray:
        """uint8 3×H×W as this camera would have stored it: uint8 3×H×W.

        Raises UsageError for other arrays and unknown filter arrays.

        >>> Camera().take(np.full((3, 16, 16), 90, np.uint8)).shape
        (3, 16, 16)
        """
        if picture.ndim != 3 or picture.shape[0] != 3 or picture.dtype != np.uint8 or self.array not in ARRAYS:
            raise UsageError(f"A camera takes uint8 3×H×W pictures with one of the arrays {', '.join(ARRAYS)}.")
        height, width = picture.shape[1:]
        light = (picture.astype(np.float32) / 255) ** self.gamma
        own = rng(self.seed, "sensor").standard_normal((height, width), np.float32)
        noise = rng(seed, "shot", self.seed).standard_normal((height, width), np.float32)
        layout = np.tile(np.array(ARRAYS[self.array]).reshape(2, 2), (-(-height // 2), -(-width // 2)))[:height, :width]
        raw = np.take_along_axis(light, layout[None], 0)[0]
        raw = raw * (1 + self.pattern * own) + self.shot * noise
        full = np.stack([self._filled(raw, layout == colour, colour) for colour in range(3)])
        for _ in range(self.smoothing):
            green = full[1]
            full = np.stack([green + _mean(full[0] - green), green, green + _mean(full[2] - green)])
        full = np.clip(full, 0, 1) ** (1 / self.gamma)
        if self.sharpen:
            full = full + self.sharpen * (full - np.stack([_mean(plane) for plane in full]))
        data = encode(to_uint8(full[None].clip(0, 1)), "JPEG", quality=self.quality, subsampling=self.chroma)
        return np.ascontiguousarray(decode(data).pixels.transpose(2, 0, 1))

    @staticmethod
    def _filled(raw: np.ndarray, here: np.ndarray, colour: int) -> np.ndarray:
        """Bilinear demosaicing of one colour."""
        kernel = _CROSS if colour == 1 else _TENT
        total = convolve(raw * here, kernel, mode="mirror")
        return np.asarray(total / convolve(here.astype(np.float32), kernel, mode="mirror"), np.float32)


def _mean(plane: np.ndarray) -> np.ndarray:
    return np.asarray(convolve(plane, np.full((3, 3), 1 / 9, np.float32), mode="mirror"))


#: Six cameras that differ in everything.
CAMERAS = {
    "a": Camera("RGGB", 0, 1.0, 0.004, 0.02, 0.0, 95, 0, 1),
    "b": Camera("GRBG", 1, 1.2, 0.008, 0.03, 0.5, 90, 2, 2),
    "c": Camera("BGGR", 2, 0.9, 0.006, 0.02, 0.0, 85, 2, 3),
    "d": Camera("RGGB", 1, 1.4, 0.012, 0.03, 1.0, 92, 0, 4),
    "e": Camera("GRBG", 0, 1.0, 0.002, 0.01, 0.3, 80, 2, 5),
    "f": Camera("BGGR", 1, 1.1, 0.010, 0.04, 0.0, 97, 0, 6),
}
