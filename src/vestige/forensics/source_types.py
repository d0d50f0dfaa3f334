"""What the terms for a picture's origin say, and which of them declare that a generative model made or changed it.

Source: IPTC Digital Source Type NewsCodes (with retired terms); C2PA Technical Specification 2.2, digital source types.
"""

from __future__ import annotations

import re

#: Every term and what it says, to complete "The file says that it was ...".
SOURCE_TYPES = {
    "digitalCapture": "captured by a digital camera",
    "computationalCapture": "captured by a camera that merged several frames",
    "negativeFilm": "digitised from a negative",
    "positiveFilm": "digitised from a transparency",
    "print": "digitised from a print",
    "minorHumanEdits": "captured, with minor edits by a person",
    "humanEdits": "edited by a person with non-generative tools",
    "algorithmicallyEnhanced": "altered by an algorithm without generative tools",
    "softwareImage": "created by software",
    "digitalArt": "drawn by a person with digital tools",
    "digitalCreation": "created by a person with non-generative tools",
    "dataDrivenMedia": "drawn from data",
    "trainedAlgorithmicMedia": "created by a generative model",
    "algorithmicMedia": "created by an algorithm that was not trained on media",
    "screenCapture": "captured from a screen",
    "virtualRecording": "recorded in a virtual scene",
    "composite": "composed of several elements",
    "compositeCapture": "composed of captured elements",
    "compositeSynthetic": "composed of elements of which at least one is synthetic",
    "compositeWithTrainedAlgorithmicMedia": "edited with a generative model",
    "trainedAlgorithmicData": "created by a generative model, as data that is no picture or sound by itself",
    "empty": "created without any content",
}

#: Terms that declare content which no camera saw, without saying that a generative model made it.
SYNTHETIC_TYPES = frozenset({"compositeSynthetic"})
#: Terms that declare the work of a generative model, or leave it open that synthetic parts are one's.
GENERATED_TYPES = SYNTHETIC_TYPES | {
    "trainedAlgorithmicMedia",
    "trainedAlgorithmicData",
    "compositeWithTrainedAlgorithmicMedia",
}
#: Terms people may take for the work of a generative model, which is not what they say: reports tell them apart.
NOT_GENERATED_TYPES = frozenset({"algorithmicMedia", "virtualRecording", "dataDrivenMedia", "algorithmicallyEnhanced"})


def source_type(value: str) -> str:
    """The term an address or code stands for, "" when it is none.

    >>> source_type("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    'trainedAlgorithmicMedia'
    >>> source_type("http://c2pa.org/digitalsourcetype/trainedAlgorithmicData")
    'trainedAlgorithmicData'
    """
    term = re.split(r"[/:#]", value.strip().rstrip("/"))[-1]
    return next((t for t in SOURCE_TYPES if t.lower() == term.lower()), "")
