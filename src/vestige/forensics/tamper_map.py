"""The default examiner of edits: where the local traces of a picture contradict the rest of it.

A small U-Net reads `trace_maps`, each also relative to the picture it is from, and the copy-move examiner's map. It was
trained on eleven kinds of edits; because it compares regions with their own picture, it also answers to others.

Sources: as of `vestige.forensics.tamper_net` and `vestige.forensics.traces`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vestige.core.calibration import sigmoid
from vestige.core.findings import Finding
from vestige.core.subjects import ImageSubject
from vestige.forensics.jpeg_parse import parse_jpeg
from vestige.forensics.jpeg_quality import nearest_quality
from vestige.forensics.learned import load_network
from vestige.forensics.tamper_inputs import maps_of

if TYPE_CHECKING:
    from vestige.forensics.tamper_net import TraceNet

#: Smallest side in pixels, and lowest JPEG quality, at which there is something to compare.
SMALLEST, LOWEST_QUALITY = 64, 30
#: Share of the picture from which on a map that is above one half is worth a word.
SHARE = 0.005
#: Probability of a place, given an edit somewhere, from which on it counts for `focus_of`.
MARKED = 0.7


class TamperMap:
    """Where a picture was edited, and how likely it was at all.

    score: the network's log-odds of an edit anywhere. The map holds the probability of every place. weights: a file
    that the recipe wrote, by default the shipped one. network: one to use instead. Applies to pictures of 64 pixels a
    side or more that are neither flat nor compressed so heavily that no local trace is left.

    >>> from vestige.core.image_io import encode
    >>> TamperMap().find(ImageSubject(encode(np.zeros((8, 8, 3), np.uint8), "PNG"))).applies
    False
    """

    slug = "tamper_map"
    photographs = True
    kind = "edit"

    def __init__(self, weights: str | Path | None = None, *, network: TraceNet | None = None) -> None:
        self._weights, self._network = weights, network

    @property
    def network(self) -> TraceNet:
        """Loaded when it is first needed; raises InputError, with the command that trains it, when it is missing."""
        if self._network is None:
            from vestige.forensics.tamper_net import TraceNet

            self._network, _ = load_network(self.slug, TraceNet, self._weights)
        return self._network

    def localise(self, subject: ImageSubject) -> tuple[np.ndarray, float]:
        """A picture of 64 pixels or more -> (float32 probabilities h×w, log-odds of an edit anywhere).

        The network answers for each place as if there were an edit; its answers are multiplied with the probability
        that there is one, so that the map of an unedited picture stays dark.
        """
        import torch

        with torch.inference_mode():
            pixel, whole = self.network.at_two_scales(torch.from_numpy(maps_of(subject))[None])
            chances = torch.sigmoid(pixel[0, 0]) * torch.sigmoid(whole[0])
        return chances.numpy(), float(whole[0])

    def find(self, subject: ImageSubject) -> Finding:
        """Score and map; does not apply to tiny, to flat and to heavily compressed pictures."""
        why = _outside(subject)
        if why:
            return Finding.not_applicable(self.slug, self.kind, why)
        chances, odds = self.localise(subject)
        share = float((chances > 0.5).mean())
        focus = focus_of(chances / max(sigmoid(odds), 1e-6))
        return Finding(
            self.slug,
            self.kind,
            odds,
            "Noise, compression or colour traces of a region differ from the rest of the picture, as they do after a "
            "local edit; the map shows where. Shallow depth of field and local retouching leave similar traces.",
            "The traces of noise, compression and colour do not set a region apart from the rest of the picture."
            if share < SHARE
            else "The map marks something, but neither that nor the picture as a whole stands out from untouched "
            "photographs.",
            evidence=(
                f"the map is above one half on {share:.0%} of the picture",
                f"the largest region that the network would mark if there were an edit covers {focus:.0%} of it",
            ),
            map=chances,
            map_caption="where a network that learned from edits of its own sees one",
            details={"share": round(share, 4)},
            focus=focus,
            when_look="The map sets one region apart, as a local edit does, but as a whole the picture does not stand "
            "out from untouched photographs. Shallow depth of field and local retouching leave similar traces.",
        )


def focus_of(places: np.ndarray) -> float:
    """Share of a picture, float32 h×w of probabilities, that the largest connected region above `MARKED` covers.

    >>> round(focus_of(np.pad(np.ones((4, 5), np.float32), 10)), 3)
    0.033
    """
    import cv2

    count, _, stats, _ = cv2.connectedComponentsWithStats((places > MARKED).astype(np.uint8))
    return float(stats[1:, cv2.CC_STAT_AREA].max() / places.size) if count > 1 else 0.0


def _outside(subject: ImageSubject) -> str:
    """Why there is nothing to compare in a picture; empty where there is."""
    if min(subject.height, subject.width) < SMALLEST:
        return f"the picture is smaller than {SMALLEST} pixels a side."
    if float(subject.luma.std()) < 2:
        return "the picture is flat and holds no traces to compare."
    if subject.format == "JPEG":
        table = parse_jpeg(subject.data).luma_table
        if table is not None and nearest_quality(table)[0] < LOWEST_QUALITY:
            return f"the file is compressed below JPEG quality {LOWEST_QUALITY}, which leaves no local traces."
    return ""
