"""What a system can do, as small protocols. A method is a plain class whose constructor takes keyword
hyper-parameters with the paper's defaults; contract tests hold every catalogue entry to its roles.

Array conventions at every public edge: images are float32 N×3×H×W, sRGB in [0, 1]; masks are bool N×1×H×W; bits
are bool N×B; scores are higher for more of what is sought. Training-free systems work on numpy arrays, learned
ones on torch tensors, in the same layout. Sizes are never silently changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from vestige.core.findings import Finding
    from vestige.core.subjects import ImageSubject


@runtime_checkable
class Finder(Protocol):
    """Looks for one kind of trace in a subject and reports it as a `Finding`; ``slug`` names it."""

    slug: str

    def find(self, subject: ImageSubject) -> Finding: ...


@dataclass(frozen=True)
class Reading:
    """What a reader saw in one image.

    outcome: "read" (authenticated payload), "unreadable" (a mark is there, its payload is not recoverable) or
    "absent". p_value: probability of evidence this strong in an unmarked image. message: text payload, if any.
    bits: bool (B,), the decoded payload (None unless read). confidence: share of channel bits that agree.
    """

    outcome: str
    p_value: float
    bits: np.ndarray | None = None
    message: str | None = None
    confidence: float = 0.0
    details: dict[str, Any] | None = None


@runtime_checkable
class Marker(Protocol):
    """Hides a keyed payload in images and reads it back blindly.

    mark: images float32 N×3×H×W, payload str or bool bits (B,), key bytes -> images of the same shape.
    read: images, key -> one `Reading` per image.
    """

    slug: str

    def mark(self, images: np.ndarray, payload: str | np.ndarray, key: bytes) -> np.ndarray: ...

    def read(self, images: np.ndarray, key: bytes) -> list[Reading]: ...


@runtime_checkable
class TextMark(Protocol):
    """Hides a keyed mark without payload in finished text and tests for it."""

    slug: str

    def mark_text(self, text: str, key: bytes) -> str: ...

    def read_text(self, text: str, key: bytes) -> Reading: ...


@runtime_checkable
class Eraser(Protocol):
    """Removes something from images: returns the images and the bool mask N×1×H×W of what changed."""

    slug: str

    def erase(self, images: np.ndarray, masks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]: ...


#: What an `Unlearner` may need beyond the model and the samples to forget.
UNLEARNING_NEEDS = frozenset({"labels", "retain", "statistics", "classes", "training"})


@runtime_checkable
class Unlearner(Protocol):
    """Makes a model forget: erase(problem: ForgetProblem) -> a new module; the problem's model is left as it was.

    needs: what it uses besides the model and the samples to forget, so that like is compared with like: "labels"
    (targets), "retain" (retained samples), "statistics" (importance of all data, stored before), "training" (the recipe
    of the original), "classes" (a classifier: its outputs are scores of classes).
    """

    @property
    def slug(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def erase(self, problem: Any) -> Any: ...


@runtime_checkable
class Restorer(Protocol):
    """Brings back what was lost: images N×3×H×W (and masks N×1×H×W of the missing part) -> images."""

    slug: str

    def restore(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray: ...


@runtime_checkable
class Learner(Protocol):
    """A trainable method: ``loss(batch)`` is what its paper minimises."""

    def loss(self, batch: Any) -> Any: ...


@runtime_checkable
class Generator(Protocol):
    """Draws samples."""

    def sample(self, n: int, *, seed: int = 0) -> Any: ...


@runtime_checkable
class Attack(Protocol):
    """Changes inputs so that a system fails."""

    def attack(self, images: Any) -> Any: ...


@runtime_checkable
class Measure(Protocol):
    """Quantifies a property; returns a mapping of metric names to values."""

    def measure(self, *args: Any, **kwargs: Any) -> dict[str, float]: ...
