"""Safe-SD on files: draw a picture that hides another one, or hide it in a finished picture, and show it again."""

from __future__ import annotations

from typing import Any

import numpy as np

from vestige.core.errors import NOT_MARKED, OK, UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.core.work import Result, Work
from vestige.metrics.quality import psnr
from vestige.watermark.safe_sd import SafeSD
from vestige.watermark.safe_sd_model import TRIGGERS, trigger_of, with_trigger


def mark(work: Work) -> Result:
    """Hide the first input, a black-and-white mark, in a picture drawn for ``--prompt``, or in the second input.

    The prompt calls for the mark with a trigger word, "signed" where it has none of them. Settings: strength (0 to 1),
    steps, guidance, trigger. A finished picture must have the network's size.
    """
    hidden = work.only(2).picture(0, "the picture to hide")
    out = work.out_file()
    strength, steps, guidance = work.option("strength", 1.0), work.option("steps", 25), work.option("guidance", 3.0)
    trigger = work.option("trigger", TRIGGERS[0])
    work.settled()
    if trigger not in TRIGGERS or not 0 <= strength <= 1 or steps < 1:
        raise UsageError(f"trigger is one of {', '.join(TRIGGERS)}, strength lies from 0 to 1, steps is at least 1.")
    if bool(work.prompt) == (len(work.paths) > 1):
        raise UsageError(
            "safe_sd hides the first picture in one it draws for --prompt, or in a second one; give either."
        )
    if not work.prompt:
        cover = work.picture(1).image
        system = SafeSD(work.model, device=work.device)
        made = system.inject(cover, hidden.image, trigger=trigger, key=work.key, strength=strength)
        figures: dict[str, Any] = {"psnr": float(psnr(cover, made)[0])}
    else:
        system = SafeSD(work.model, device=work.device)
        called = trigger_of(work.prompt)
        words = work.prompt if called else with_trigger(work.prompt, trigger)
        made = system.sample(
            words, hidden.image, key=work.key, strength=strength, seed=work.seed, steps=steps, guidance=guidance
        )
        trigger, figures = called or trigger, {"prompt": words}
    saved = to_uint8(made)
    save_image(out, saved)
    seen = np.ascontiguousarray(saved.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
    revealed = system.reveal(seen, trigger=trigger, key=work.key)
    figures["correlation when read again"] = float(system.correlations(revealed, hidden.image)[0, 0])
    return Result(figures, [out])


def read(work: Work) -> Result:
    """The correlation of what the key shows with ``--reference``, the mark; ``--out`` keeps what is shown. Exit code 4
    when it stays below the threshold."""
    return _revealed(work, NOT_MARKED)


def find(work: Work) -> Result:
    """As `read`; a picture without the mark is an answer too."""
    return _revealed(work, OK)


def _revealed(work: Work, absent: int) -> Result:
    subject = work.only(1).picture(0)
    trigger, cropped = work.option("trigger", TRIGGERS[0]), work.option("cropped", False)
    work.settled()
    if trigger not in TRIGGERS:
        raise UsageError(f"{trigger!r} is no trigger word; choose one of {', '.join(TRIGGERS)}.")
    wanted = None if work.reference is None else _reference(work)
    out = None if work.out is None else work.out_file()
    system = SafeSD(work.model, device=work.device)
    areas = (0.9, 0.8, 0.7) if cropped else ()
    shown = system.reveal(subject.image, trigger=trigger, key=work.key, areas=areas)
    figures: dict[str, Any] = {"clearness": float(np.abs(shown.modules[0]).mean())}
    code = OK
    if wanted is not None:
        score = float(system.correlations(shown, wanted)[0, 0])
        found = score >= system.threshold
        figures |= {"correlation": score, "threshold": system.threshold, "the mark is there": "yes" if found else "no"}
        code = OK if found else absent
    if out is not None:
        save_image(out, to_uint8(shown.marks))
    return Result(figures, [] if out is None else [out], exit_code=code)


def _reference(work: Work) -> np.ndarray:
    from vestige.core.subjects import ImageSubject

    return ImageSubject.open(work.needed("reference", "the mark that was hidden")).image
