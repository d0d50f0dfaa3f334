"""What is said about a subject as a whole: a `Verdict`, how steady it is, what sort of picture it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Levels of a verdict, the one that asks for most attention first.
LEVELS = ("found", "a place to look at", "nothing found", "not examined")


@dataclass(frozen=True)
class Stability:
    """Whether a verdict near its threshold stays when the picture is saved again or scaled.

    tried: the versions examined, in words. flipped: those of them about which the verdict is another one.
    """

    tried: tuple[str, ...]
    flipped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"tried": list(self.tried), "flipped": list(self.flipped)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Stability:
        return cls(tuple(value["tried"]), tuple(value["flipped"]))


@dataclass(frozen=True)
class Generation:
    """Which examiners looked for generation: in the pixels, and in what the file says of itself.

    sentence: what that means for the reader.
    """

    pixels: tuple[str, ...]
    records: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {"pixels": list(self.pixels), "records": list(self.records), "sentence": self.sentence}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Generation:
        return cls(tuple(value["pixels"]), tuple(value["records"]), value["sentence"])


@dataclass(frozen=True)
class Domain:
    """What sort of picture it is, as far as that decides whom to believe.

    names: of what lies outside photographs in daylight, such as "flat graphics" or "tiny"; empty where nothing does.
    sentences: what follows from it, one for each. measured: the numbers behind it.
    """

    names: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"names": list(self.names), "sentences": list(self.sentences), "measured": dict(self.measured)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Domain:
        return cls(tuple(value["names"]), tuple(value["sentences"]), dict(value["measured"]))


@dataclass(frozen=True)
class Verdict:
    """The combined answer for one subject.

    level: "nothing found" (nothing, or only what ordinary processing leaves: then ``kinds`` is "history" alone), "a
    place to look at" (unsure), "found" or "not examined".
    probability: combined calibrated probability that pixels were edited after the picture was made, for a collection in
    which the share ``prior`` was; None where no calibrated examiner of edits applies.
    facts, signs: what was read from the file, and what scores show, in words; ``sentences`` has both, with everything
    else there is to say.
    """

    level: str
    probability: float | None
    sentences: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    prior: float = 0.1
    stability: Stability | None = None
    generation: Generation | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"unknown level {self.level!r}; known: {', '.join(LEVELS)}")

    @property
    def flagged(self) -> bool:
        return self.level == "found"

    def to_dict(self) -> dict[str, Any]:
        known = self.probability is not None and np.isfinite(self.probability)
        return {
            "level": self.level,
            "probability": round(float(self.probability), 4) if known and self.probability is not None else None,
            "prior": self.prior,
            "kinds": list(self.kinds),
            "facts": list(self.facts),
            "signs": list(self.signs),
            "sentences": list(self.sentences),
            "stability": None if self.stability is None else self.stability.to_dict(),
            "generation": None if self.generation is None else self.generation.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        return cls(
            value["level"],
            value["probability"],
            tuple(value["sentences"]),
            tuple(value["kinds"]),
            tuple(value["facts"]),
            tuple(value["signs"]),
            float(value["prior"]),
            None if value["stability"] is None else Stability.from_dict(value["stability"]),
            None if value["generation"] is None else Generation.from_dict(value["generation"]),
        )
