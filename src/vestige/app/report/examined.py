"""One file that was examined, and the account of all that were put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vestige.app.report.items import ReportItem
from vestige.core.findings import LEVELS
from vestige.core.intake import KINDS


@dataclass(frozen=True)
class Examined:
    """A file and what was said about it: one part for a picture, a clip or a model, several for pages and the like.

    kind: of `vestige.core.intake.KINDS`. unit: what the parts are called, "" where the file is one. met: how many parts
    the file holds; ``left_out`` and ``failed`` are (name, reason) of those not examined, and a sample leaves out the
    rest. notes: what else there is to say about the file.
    """

    source: str
    kind: str
    format: str
    sha256: str
    parts: tuple[ReportItem, ...]
    unit: str = ""
    met: int = 1
    left_out: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """The level of the part that asks for most attention."""
        levels = {item.findings.verdict.level for item in self.parts}
        return next((level for level in LEVELS if level in levels), "not examined")

    @property
    def answer(self) -> str:
        """What a scan says of a model: harmless, dangerous, cannot be vouched for; "" for everything else."""
        if self.kind != "model":
            return ""
        return str(self.parts[0].findings.findings[0].details.get("answer") or "cannot be vouched for")

    @property
    def between(self) -> int:
        """How many parts lie between those of a sample."""
        return max(0, self.met - len(self.parts) - len(self.left_out) - len(self.failed))

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "kind": self.kind,
            "format": self.format,
            "sha256": self.sha256,
            "level": self.level,
            "answer": self.answer or None,
            "unit": self.unit or None,
            "met": self.met,
            "left_out": [{"part": name, "why": why} for name, why in self.left_out],
            "failed": [{"part": name, "error": error} for name, error in self.failed],
            "notes": list(self.notes),
            "parts": [item.findings.to_dict() for item in self.parts],
        }


@dataclass(frozen=True)
class Line:
    """What became of a file that was put in: "examined", "skipped" and why, or "failed" and why.

    files: how many files it stands for (a model folder is one line). parts: met, examined, skipped and failed pages,
    pictures of a document and the like; all 0 where the file is one.
    """

    source: str
    state: str
    kind: str = ""
    why: str = ""
    files: int = 1
    parts: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, item: Examined, files: int = 1) -> Line:
        parts = (0, 0, 0, 0)
        if item.unit:
            skipped = item.between + len(item.left_out)
            parts = (item.met, len(item.parts), skipped, len(item.failed))
        return cls(item.source, "examined", item.kind, "", files, parts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "state": self.state,
            "kind": self.kind or None,
            "why": self.why or None,
            "files": self.files,
            "parts": dict(zip(("met", "examined", "skipped", "failed"), self.parts)),
        }


def counts(lines: Iterable[Line]) -> dict[str, Any]:
    """How many files were put in and what became of them; ``put_in`` is the sum of the other three.

    kinds: examined files by kind, which add up to ``examined``. parts: pages, pictures and the like in them.

    >>> counts([Line("a", "examined", "picture"), Line("b", "skipped", why="text")])["put_in"]
    2
    """
    found: dict[str, Any] = {"put_in": 0, "examined": 0, "skipped": 0, "failed": 0}
    kinds = dict.fromkeys(KINDS, 0)
    parts = [0, 0, 0, 0]
    for line in lines:
        found["put_in"] += line.files
        found[line.state] += line.files
        if line.state == "examined":
            kinds[line.kind] += line.files
        parts = [a + b for a, b in zip(parts, line.parts)]
    return {**found, "kinds": kinds, "parts": dict(zip(("met", "examined", "skipped", "failed"), parts))}


def failures(lines: Iterable[Line]) -> int:
    """How many files, and parts of files, could not be examined."""
    return sum((line.state == "failed") + line.parts[3] for line in lines)


def account(lines: Sequence[Line]) -> str:
    """The counts in words, the same in every report.

    >>> account([Line("a", "examined", "picture"), Line("b", "skipped", why="text")])
    '2 files were put in: 1 examined (1 picture), 1 skipped, 0 failed.'
    """
    found = counts(lines)
    named = ", ".join(_counted(found["kinds"][k], k) for k in KINDS if found["kinds"][k])
    folders = sum(line.files > 1 and line.state == "examined" for line in lines)
    named += f"; files of {folders} model folder{'s' * (folders != 1)} among them" if folders else ""
    were = "file was" if found["put_in"] == 1 else "files were"
    said = f"{found['put_in']:,} {were} put in: {found['examined']:,} examined{f' ({named})' if named else ''}, "
    said += f"{found['skipped']:,} skipped, {found['failed']:,} failed."
    parts: Mapping[str, int] = found["parts"]
    if parts["met"]:
        left = ", ".join(f"{parts[name]:,} {name}" for name in ("examined", "skipped", "failed"))
        said += f" They hold {parts['met']:,} pages or pictures: {left}."
    return said


def _counted(number: int, kind: str) -> str:
    return f"{number:,} {kind if number == 1 else KINDS[kind]}"
