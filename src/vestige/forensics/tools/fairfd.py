"""Fairness of a detector by group from the command line, and pruning of what treats groups differently.

Tables: CSV with the columns score, approach ("real" or the name of a forgery) and group. Folders: GROUP/real/*.png and
GROUP/FORGERY/*.png for a measurement by a detector of ours; GROUP/*.png of real pictures for pruning.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vestige.core.catalogue import system, systems
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError, UsageError
from vestige.core.files import write_atomic
from vestige.core.work import Result, Work
from vestige.forensics.fairfd import FairFD, Importance, bpfa_prune
from vestige.forensics.learned import examiner_of, save_network
from vestige.forensics.network_examiner import NetworkExaminer
from vestige.metrics.detection import equal_error
from vestige.metrics.fairness import REAL, GroupTable, approach_averaged, fairness_interval

COLUMNS = ("score", "approach", "group")
_MOST, _MOST_DRAWN = 1_000_000, 4_000


def measure(work: Work) -> Result:
    """The spreads of accuracy over groups, of a table of scores or of a detector (``--model``) on a folder by group.

    ``--set threshold=0.5`` is at or above which a score means fake; ``equal`` takes the one of equal errors on these
    very pictures. ``-o`` writes the accuracy of every approach in every group as CSV.
    """
    path = work.only(1).path(0, "a CSV of scores, or a folder of pictures by group")
    said = work.option("threshold", "")
    out = work.out_file(".csv") if work.out is not None else None
    if path.is_dir():
        scores, approach, group = _examined(path, work)
    else:
        if work.model is not None:
            raise UsageError("A table holds scores already; --model belongs to a folder of pictures.")
        scores, approach, group = _table(path)
    threshold = _threshold(said, scores, approach, from_logits=path.is_dir())
    work.settled()
    judge = FairFD(threshold=threshold)
    table, figures = judge.table(scores, approach, group), judge.measure(scores, approach, group)
    worst, least = table.worst
    sentences = [
        f"{len(scores)} pictures, {len(table.approaches) - 1} kinds of forgery, {len(table.groups)} groups; a picture "
        f"counts as fake from {threshold:.4g} on.",
        f"Least accuracy: {least:.1%}, group {worst}. {_interval(scores, approach, group, threshold, work.seed)}",
        "A spread says nothing without the accuracy: a detector that always gives the same answer has none.",
    ]
    if out is not None:
        write_atomic(out, _csv(table))
    rows = [
        {"approach": a, **{g: float(v) for g, v in zip(table.groups, row, strict=True)}}
        for a, row in zip(table.approaches, table.accuracy, strict=True)
    ]
    return Result(figures, [out] if out else [], sentences, rows)


def erase(work: Work) -> Result:
    """Prune a detector's weights where groups differ most (BPFA): a detector, then a folder GROUP/*.png of real faces.

    ``--set fraction=0.001`` of the weights of every convolution are set to zero; ``--set by=fair`` (also weight,
    activation) says by which importance.
    """
    source = work.only(2).model_file(0, "the weights of a detector")
    groups = _groups(work.path(1, "a folder of real pictures by group"))
    out = work.out_file(".safetensors")
    fraction, named = work.option("fraction", 1e-3), work.option("by", "fair")
    ways: dict[str, Importance] = {"fair": "fair", "weight": "weight", "activation": "activation"}
    if named not in ways:
        raise UsageError(f"--set by={named} is none of {', '.join(ways)}.")
    by = ways[named]
    work.settled()
    slug, judge = _detector(source)
    network = judge.needed()
    pictures = {name: [_scaled(x, judge.side)[None] for x in images] for name, images in groups.items()}
    zeroed = bpfa_prune(network, pictures, fraction=fraction, by=by, run=judge.examine)
    save_network(
        out, network, slug, {**judge.facts, "pruned": {"fraction": fraction, "by": by, "groups": sorted(groups)}}
    )
    total = sum(zeroed.values())
    said = f"{total} weights of {len(zeroed)} convolutions set to zero; measure before and after on other pictures."
    return Result({"weights set to zero": total, "groups": len(groups)}, [out], [said])


def _interval(scores: np.ndarray, approach: list[str], group: list[str], threshold: float, seed: int) -> str:
    """AA-DPD with its interval over pictures, in words."""
    if len(scores) > _MOST_DRAWN:
        return ""
    if FairFD(threshold=threshold).table(scores, approach, group).counts.min() < 10:
        return "Some groups have fewer than ten pictures of a kind; their figures are chance."
    try:
        found = fairness_interval(
            lambda table: approach_averaged(table)["dpd"], scores, approach, group, range(len(scores)),
            threshold=threshold, seed=seed,
        )  # fmt: skip
    except UsageError:
        return "There are too few pictures for an interval."
    return f"AA-DPD {found.value:.3f}, 95 % from {found.low:.3f} to {found.high:.3f} over pictures."


def _table(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """(scores N, approaches, groups) of a CSV."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is no table of text; give a CSV with the columns {', '.join(COLUMNS)}.") from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise InputError(f"{path} needs the columns {', '.join(COLUMNS)}, and a row for each picture.")
    if len(rows) > _MOST:
        raise InputError(f"{path} has more than {_MOST:,} rows.")
    try:
        scores = np.array([float(row["score"]) for row in rows])
    except (TypeError, ValueError):
        raise InputError(f"{path} has a score that is no number.") from None
    return scores, [str(row["approach"]) for row in rows], [str(row["group"]) for row in rows]


def _examined(folder: Path, work: Work) -> tuple[np.ndarray, list[str], list[str]]:
    """Scores of a detector of ours for GROUP/APPROACH/*.png."""
    _, judge = _detector(work.needed("model", "the weights of a detector, as 'vestige learn ucf' writes them"))
    approach, group, images = [], [], []
    for item in work.track(list(DatasetSubject.open(folder)), "faces"):
        parts = Path(item.name).parts
        if len(parts) < 3:
            raise InputError(f"{item.name} does not lie in GROUP/real or GROUP/FORGERY below {folder}.")
        images.append(_scaled(item.subject().pixels, judge.side))
        group.append(parts[-3])
        approach.append(parts[-2])
    return judge.score(torch.stack(images)).numpy(), approach, group


def _groups(folder: Path) -> dict[str, list[np.ndarray]]:
    """{group: pictures uint8 H×W×3}; of GROUP/real/ only the real ones."""
    found: dict[str, list[np.ndarray]] = {}
    for item in DatasetSubject.open(folder):
        parts = Path(item.name).parts
        if len(parts) < 2 or (len(parts) > 2 and parts[-2] != REAL):
            continue
        found.setdefault(parts[-3] if len(parts) > 2 else parts[-2], []).append(item.subject().pixels)
    if len(found) < 2 or REAL in found:
        raise InputError(f"{folder} needs two folders of real pictures at least, one for each group.")
    return found


def _detector(path: Path) -> tuple[str, NetworkExaminer]:
    """(slug, examiner) that a file of weights belongs to, one that gives a single score for pictures."""
    slug = examiner_of(path)
    if slug not in {s.slug for s in systems()}:
        raise InputError(f"{path} holds the weights of {slug!r}, which is no system of this version.")
    cls: Any = system(slug).load()
    if not (isinstance(cls, type) and issubclass(cls, NetworkExaminer)):
        raise InputError(f"{path} holds the weights of {slug}, which is no detector that gives a score to a picture.")
    return slug, cls(weights=path)


def _threshold(text: str, scores: np.ndarray, approach: list[str], *, from_logits: bool) -> float:
    if text == "equal":
        return float(equal_error(np.array(approach) != REAL, scores).threshold)
    if not text:
        return 0.0 if from_logits else 0.5  # networks give log-odds, tables probabilities as a rule
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--set threshold={text} is neither a number nor 'equal'.") from None


def _scaled(pixels: np.ndarray, side: int) -> Tensor:
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.transpose(2, 0, 1).copy()).float() / 255


def _csv(table: GroupTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["approach", *table.groups])
    for name, row in zip(table.approaches, table.accuracy, strict=True):
        writer.writerow([name, *(f"{v:.6f}" for v in row)])
    return text.getvalue()
