"""Say a picture in words and redraw it from them, and measure what is left of a mark afterwards.

The words are ``--prompt``, or those of ``--set captioner=PATH``: a folder of an image-to-text model of transformers, or
the file that ``vestige learn visual_paraphrase`` wrote. Without either a finished run of that recipe is taken. Larger
``--set strength`` and ``guidance`` remove more and keep less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import InputError, UsageError
from vestige.core.work import Result, Work
from vestige.engines.runs import finished
from vestige.watermark.tools.redrawing import changed, model_of, stack, targets
from vestige.watermark.visual_paraphrase import Captioner, VisualParaphrase, load_captioner, load_scene_captioner


def attack(work: Work) -> Result:
    """Write the paraphrase, of the size of the input."""
    side, caption = work.option("side", 0), captioner(work)
    options = _options(work)
    work.settled()
    where = targets(work)
    system = VisualParaphrase(model_of(work), caption, seed=work.seed, **options)
    return changed(work, lambda image: system.paraphrase(image)[0], side, where)


def measure(work: Work) -> Result:
    """Detection of a mark after the paraphrase, at a ladder of strengths, from a folder of marked pictures and one of
    unmarked ones. The mark is the default one of ``vestige mark`` under ``--key``, or that of ``--set mark=METHOD``."""
    from vestige.core.catalogue import system

    work.only(2)
    side = work.option("side", 256)
    ladder = [float(s) for s in work.option("strengths", "0.2,0.4,0.6").split(",")]
    slug, caption = work.option("mark", "spread_spectrum"), captioner(work)
    options = _options(work)
    work.settled()
    marked = stack(work, 0, side, "a folder of marked pictures")
    unmarked = stack(work, 1, side, "a folder of unmarked pictures")
    entry = system(slug)
    if "mark" not in entry.roles or entry.subject != "image":
        raise UsageError(f"--set mark={slug} marks no pictures; 'vestige systems --role mark' lists what does.")
    reader = entry.load()()

    def score(pictures: np.ndarray) -> np.ndarray:
        found = [reader.read(p[None], work.key)[0] for p in pictures]
        return np.array([-np.log10(max(r.p_value, 1e-300)) for r in found])

    paraphrase = VisualParaphrase(model_of(work), caption, seed=work.seed, **options)
    rows: list[dict[str, Any]] = [
        {"strength": 0.0, "guidance": 0.0, **_detected(score(marked), score(unmarked)), "psnr": 99.0}
    ]
    rows += paraphrase.audit(marked, unmarked, score, strengths=ladder, guidances=[paraphrase.guidance])
    said = [
        f"{len(marked)} marked and {len(unmarked)} unmarked pictures at {side}×{side} pixels; strength 0: untouched"
    ]
    return Result(rows=rows, figures={"auroc before": rows[0]["auroc"], "auroc after": rows[-1]["auroc"]}, said=said)


def _detected(marked: np.ndarray, unmarked: np.ndarray) -> dict[str, float]:
    from vestige.metrics.detection import auroc, tpr_at_fpr

    labels, scores = np.repeat([True, False], [len(marked), len(unmarked)]), np.concatenate([marked, unmarked])
    return {"auroc": auroc(labels, scores), "tpr@1fpr": tpr_at_fpr(labels, scores, 0.01).tpr}


def _options(work: Work) -> dict[str, Any]:
    return {
        "strength": work.option("strength", 0.6),
        "guidance": work.option("guidance", 3.0),
        "steps": work.option("steps", 50),
    }


def captioner(work: Work) -> Captioner:
    """Pictures -> sentences; see the module. Raises InputError with what to do where there is none."""
    named = work.option("captioner", "")
    if work.prompt:
        return lambda images: [work.prompt] * len(images)
    if not named:
        run = finished("visual_paraphrase", "captioner", 0)
        if run is None:
            raise InputError(
                "A paraphrase needs words: give --prompt CAPTION or --set captioner=FOLDER, or train a captioner of "
                "drawn scenes with: vestige learn visual_paraphrase"
            )
        return load_scene_captioner(run.weights)
    path = Path(named)
    if not path.exists():
        raise InputError(f"{path} does not exist; --set captioner=PATH names a folder or a file.")
    return load_captioner(path) if path.is_dir() else load_scene_captioner(path)
