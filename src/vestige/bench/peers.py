"""Watermarks of other packages behind one interface, for comparison. None of them is a dependency of vestige.

Install what is to be compared with

    pip install --no-deps invisible-watermark==0.2.0 blind-watermark==0.4.4
    pip install onnxruntime

(invisible-watermark imports cv2, pywt and torch, which vestige has; its rivaGan method runs on onnxruntime with weights
that come with the package).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

BITS = 32


class BitMark(Protocol):
    """embed: image float32 1×3×H×W in [0, 1] and bool bits (32,) -> marked image. read: image -> bits, or None."""

    name: str

    def embed(self, image: np.ndarray, bits: np.ndarray) -> np.ndarray: ...

    def read(self, image: np.ndarray) -> np.ndarray | None: ...


class InvisibleWatermark:
    """A method of invisible-watermark, on the 8-bit BGR arrays it expects: dwtDct, dwtDctSvd or rivaGan."""

    def __init__(self, method: str) -> None:
        if method == "rivaGan":
            import onnxruntime  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        from imwatermark import WatermarkDecoder, WatermarkEncoder  # type: ignore[import-not-found, unused-ignore]

        self.name, self._method = f"invisible-watermark {method}", method
        self._encoder, self._decoder = WatermarkEncoder(), WatermarkDecoder("bits", BITS)
        if method == "rivaGan":
            WatermarkEncoder.loadModel()

    def embed(self, image: np.ndarray, bits: np.ndarray) -> np.ndarray:
        self._encoder.set_watermark("bits", bits.astype(int).tolist())
        return _from_bgr(self._encoder.encode(_to_bgr(image), self._method))

    def read(self, image: np.ndarray) -> np.ndarray | None:
        if image.shape[2] * image.shape[3] < 256 * 256:  # the package refuses smaller images
            return None
        return np.asarray(self._decoder.decode(_to_bgr(image), self._method)).astype(bool)[:BITS]


class BlindWatermark:
    """blind-watermark with its default passwords."""

    name = "blind-watermark"

    def __init__(self) -> None:
        from blind_watermark import WaterMark, bw_notes  # type: ignore[import-not-found, unused-ignore]

        bw_notes.close()
        self._make: Callable[[], Any] = lambda: WaterMark(password_img=1, password_wm=1)

    def embed(self, image: np.ndarray, bits: np.ndarray) -> np.ndarray:
        marker = self._make()
        with contextlib.redirect_stdout(io.StringIO()):
            marker.read_img(img=_to_bgr(image))
            marker.read_wm(bits.tolist(), mode="bit")
            return _from_bgr(np.clip(np.rint(marker.embed()), 0, 255))

    def read(self, image: np.ndarray) -> np.ndarray | None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = self._make().extract(embed_img=_to_bgr(image), wm_shape=BITS, mode="bit")
        except (AssertionError, IndexError, ValueError):  # the picture has become too small for it
            return None
        return np.asarray(found) > 0.5


def peers() -> tuple[list[BitMark], list[str]]:
    """The peers this environment can run, and what is missing for the others."""
    found: list[BitMark] = []
    missing: list[str] = []
    for method in ("dwtDct", "dwtDctSvd", "rivaGan"):
        try:
            found.append(InvisibleWatermark(method))
        except ImportError as error:
            missing.append(f"invisible-watermark {method}: {error}")
    try:
        found.append(BlindWatermark())
    except ImportError as error:
        missing.append(f"blind-watermark: {error}")
    return found, missing


def _to_bgr(image: np.ndarray) -> np.ndarray:
    pixels = np.rint(image[0].transpose(1, 2, 0)[..., ::-1] * 255).clip(0, 255)
    return np.ascontiguousarray(pixels.astype(np.uint8))


def _from_bgr(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255
