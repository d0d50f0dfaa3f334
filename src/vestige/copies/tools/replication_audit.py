"""Whether a generator's pictures replay its training pictures; a training set without what it holds twice."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from vestige.copies.replication_audit import ReplicationAudit, ReplicationReport, cliques, small_grey, tile_distance
from vestige.core.dataset import DatasetSubject, FolderDataset
from vestige.core.errors import InputError, UsageError
from vestige.core.files import folder_atomic, write_atomic
from vestige.core.work import Result, Work

_MOST = 5000


def measure(work: Work) -> Result:
    """``measure DRAWN --data TRAINING [--reference HELD] --method replication_audit``: how much is replayed and why.

    Without held-out real pictures there is no background, and the answer says so. ``--set cut=0.5`` fixes the score
    from which on a picture counts as replayed.
    """
    report, drawn, _ = _audited(work)
    grey = small_grey(drawn[1][:400])
    alike = cliques(tile_distance(grey, grey) < 0.05, 5)
    figures = {**report.figures, "cut": report.cut, "sets of five or more equal draws": len(alike)}
    return Result(figures, said=[_sentence(report)])


def find(work: Work) -> Result:
    """``find DRAWN --data TRAINING --only replication_audit [-o replayed.csv]``: which pictures replay which."""
    out = work.out_file(".csv") if work.out is not None else None
    report, drawn, training = _audited(work)
    rows: list[dict[str, Any]] = [
        {
            "drawn": drawn[0][i], "training": training[0][report.place[i]], "score": round(float(report.best[i]), 4),
            "replayed": "yes" if report.best[i] >= report.cut else "no",
            "abnormally near": "yes" if report.extracted[i] else "no",
        }
        for i in np.argsort(-report.best, kind="stable").tolist()
    ]  # fmt: skip
    if out is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(out, text.getvalue())
    return Result({}, [out] if out else (), [_sentence(report)], rows[:20])


def erase(work: Work) -> Result:
    """``erase TRAINING --method replication_audit -o KEPT``: the training folder without pictures that are there twice.

    Of pictures whose descriptors agree by ``--set threshold=0.75`` the first is kept. The input stays as it is.
    """
    path = work.only(1).path(0, "the folder of training pictures")
    out = work.out_folder()
    dataset = DatasetSubject.open(path)
    if not isinstance(dataset, FolderDataset):
        raise InputError(f"{path} is no folder of pictures; unpack it first.")
    threshold = work.option("threshold", 0.75)
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold}; choose a value above 0 and up to 1.")
    audit = _made(work)
    names, pictures = _read(path)
    keep = audit.keep(pictures, threshold)
    with folder_atomic(out) as folder:
        for name, kept in zip(names, keep, strict=True):
            if kept:
                write_atomic(folder / name, (path / name).read_bytes())
    gone = int((~keep).sum())
    said = f"{gone} of {len(names)} pictures are left out because another is the same; train on {out}."
    return Result({"pictures": len(names), "left out": gone}, [out], [said])


def _audited(work: Work) -> tuple[ReplicationReport, tuple[list[str], list[np.ndarray]], tuple[list[str], list[Any]]]:
    path = work.only(1).path(0, "a folder of pictures that the generator drew")
    training_path = work.needed("data", "a folder of the pictures that it was trained on")
    held = None if work.reference is None else work.needed("reference", "real pictures that it was not trained on")
    audit = _made(work)
    drawn, training = _read(path), _read(training_path)
    return audit.measure(drawn[1], training[1], [] if held is None else _read(held)[1]), drawn, training


def _made(work: Work) -> ReplicationAudit:
    made = ReplicationAudit(descriptor=work.option("descriptor", "local"), cut=work.option("cut", 0.0), seed=work.seed)
    if work.verb != "erase":
        work.settled()
    return made


def _read(path: Path) -> tuple[list[str], list[np.ndarray]]:
    dataset = DatasetSubject.open(path)
    if len(dataset) > _MOST:
        raise UsageError(f"{path} holds {len(dataset):,} pictures; an audit takes up to {_MOST:,}, take a sample.")
    items = [dataset[i] for i in range(len(dataset))]
    return [item.name for item in items], [item.subject().pixels for item in items]


def _sentence(report: ReplicationReport) -> str:
    figures = report.figures
    hits = int((report.best >= report.cut).sum())
    seen = f"{hits} of {len(report.best)} drawn pictures replay a training picture"
    seen += f" ({figures['low']:.1%} to {figures['high']:.1%})"
    if not len(report.background):
        return f"{seen}. Without held-out real pictures (--reference) it is unknown how many would score so by chance."
    chance = f"{report.background_rate:.1%} of {len(report.background)} held-out real pictures do so by chance"
    return f"{seen}; {chance}."
