"""Take pictures out of an analytic head exactly, without the pictures it keeps."""

from __future__ import annotations

import torch

from vestige.core.errors import UsageError
from vestige.core.work import Result, Work
from vestige.data.labelled import read_pictures
from vestige.engines.forgetting.samples import Samples
from vestige.unlearning.acu_file import HeadFile, is_head, load_head, numbered, save_head


def erase(work: Work) -> Result | None:
    """``erase head.safetensors --forget FOLDER [--test FOLDER] --out NEW``: the head as if the pictures had never been
    learned. Other models are left to the ordinary way, which needs the pictures to be kept too."""
    path = work.path(0, "an analytic head that 'vestige learn acu' made, or a classifier")
    if not is_head(path):
        return None
    work.only(1)
    work.settled()
    made, out = load_head(path), work.out_file(".safetensors")
    if out.exists():
        raise UsageError(f"{out} exists already; choose another name.")
    asked = samples_of(made, work, "data", learn=False)
    tested = None if work.test is None else samples_of(made, work, "test", learn=False)
    before = None if tested is None else accuracy(made, tested)
    made.head.forget(asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_head(made, out)
    figures = {"forgotten": len(asked), "held": made.head.ridge.count, "classes": len(made.head.classes)}
    if tested is not None and before is not None:
        figures |= {"test accuracy before": before, "test accuracy": accuracy(made, tested)}  # type: ignore[dict-item]
    said = (
        f"{len(asked)} pictures were taken out; the head equals the one over the {made.head.ridge.count} that remain. "
        "What the frozen network learned of them before, it still knows."
    )
    return Result(figures=figures, files=[out], said=[said])


def samples_of(made: HeadFile, work: Work, option: str, *, learn: bool) -> Samples:
    """The pictures of ``--forget`` or ``--test`` with the head's numbers for their classes."""
    pictures = read_pictures(work.needed(option, "a folder of pictures, class/*.png"), made.side)
    labels = numbered(made, [str(label) for label in pictures.labels], learn=learn)
    return Samples(torch.from_numpy(pictures.images), labels)


def accuracy(made: HeadFile, samples: Samples) -> float:
    """Share of the pictures whose class the head names; one it holds no more counts as wrong."""
    if not made.head.classes:
        return 0.0
    return float((made.head.predict(samples) == samples.labels).double().mean())
