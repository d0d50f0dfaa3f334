"""What the network behind the default examiner of edits reads: the traces of a picture and where it repeats itself."""

from __future__ import annotations

import math

import cv2
import numpy as np

from vestige.core.subjects import ImageSubject
from vestige.forensics.copy_move import CopyMove
from vestige.forensics.traces import trace_maps

#: Places of a map; larger pictures are measured in full and the measurements averaged.
MOST = 200_000


def maps_of(subject: ImageSubject) -> np.ndarray:
    """float32 (CHANNELS + 1)×h×w: the traces, and where the picture repeats itself.

    A measurement every four pixels; of pictures beyond some three megapixels, means of several, so that a map has
    `MOST` places at most.
    """
    traces = trace_maps(subject.pixels)
    factor = math.ceil(math.sqrt(traces[0].size / MOST))
    if factor > 1:
        traces = _averaged(traces, factor)
    finding = CopyMove().find(subject)
    height, width = traces.shape[1:]
    copied = np.zeros((height, width), np.float32)
    if finding.applies and finding.map is not None:
        copied[:] = cv2.resize(finding.map, (width, height), interpolation=cv2.INTER_AREA)
    return np.concatenate([traces, copied[None]])


def _averaged(maps: np.ndarray, factor: int) -> np.ndarray:
    """C×h×w -> C×⌈h/factor⌉×⌈w/factor⌉, means of squares; the border is repeated to complete the last ones."""
    _, height, width = maps.shape
    means = []
    for one in maps:  # one by one: together they take as much memory again as the picture
        padded = np.pad(one, ((0, -height % factor), (0, -width % factor)), "edge")
        size = (padded.shape[1] // factor, padded.shape[0] // factor)
        means.append(cv2.resize(padded, size, interpolation=cv2.INTER_AREA))
    return np.stack(means)
