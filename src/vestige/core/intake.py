"""What was put in: every file behind paths, folders and globs, each with what it is or why it is left out.

Nothing met goes missing: pictures, clips, documents, models, data sets are to be examined; everything else, hidden
files, links and what cannot be read included, is an entry with its reason. The counts are of files, so that they add up
to what a folder holds.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vestige.core import video
from vestige.core.errors import InputError, UsageError, VestigeError
from vestige.core.image_io import SUFFIXES
from vestige.core.left_out import is_text_name, why_left_out
from vestige.core.models.files import file_format, is_model_folder
from vestige.core.models.formats import MODEL_ENDINGS, foreign_format, is_compressed_model
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff

#: What is examined, with its plural; every file that is left out has the kind "".
KINDS = {
    "picture": "pictures",
    "clip": "clips",
    "document": "documents",
    "model": "models",
    "data set": "data sets",
}
#: The first words of a journal in a folder that `vestige find --out` filled.
JOURNAL, JOURNAL_SIGNS = "manifest.jsonl", (b'{"vestige": ', b'{"source": ')
_VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr")
#: Endings of models that other files have too; what is called so and is none is no damaged model.
_LOOSE = (".bin", ".p", ".pb", ".model", ".plan", ".engine", ".rds", ".msgpack", ".7z", ".rar", ".mar", ".t7", ".json")
_MODEL_WORDS = ("architectures", "model_type", "_class_name", "auto_map", "_diffusers_version", "class_name")


@dataclass(frozen=True)
class Entry:
    """A file that was met, or the files of a model folder together.

    kind: of `KINDS`, "" for what is left out. state: "" for what is to be examined, else "skipped" or "failed", and
    ``why``. files: how many files it stands for. named: the user named it, instead of a folder around it.
    """

    path: Path
    kind: str = ""
    state: str = ""
    why: str = ""
    files: int = 1
    named: bool = False

    @property
    def source(self) -> str:
        return str(self.path)


def take_in(paths: Sequence[str | Path], out: Path | None = None) -> list[Entry]:
    """Every file behind files, folders and globs, sorted within each, each once.

    Links are followed where the user names them; in folders only as far as what was given reaches, which counts a file
    once. out: the folder of results, which is no input. Raises InputError for a path that is not there, and where
    there is no file at all, UsageError where ``out`` is one of the inputs.
    """
    given = [match for path in paths for match in _expand(Path(path))]
    roots = [os.path.realpath(path) for path in given]
    own = None if out is None else os.path.realpath(out)
    if own in roots:
        raise UsageError(f"--out {out} is what is to be examined; choose another folder.")
    found: dict[str, Entry] = {}
    for path in given:
        entries = [_classify(path, named=True)] if not path.is_dir() else _folder(path, roots, own)
        for entry in entries:
            key = os.path.realpath(entry.path) if entry.state != "skipped" else os.path.abspath(entry.path)
            key += "\0model folder" * (entry.kind == "model" and entry.path.is_dir())
            found.setdefault(key, entry)
    if not found:
        raise InputError(f"There is no file in {', '.join(map(str, paths))}.")
    return list(found.values())


def _expand(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    if path.is_symlink():
        raise InputError(f"{path} is a link to something that does not exist.")
    matches = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else []
    if not matches:
        raise InputError(f"{path} does not exist; check the path.")
    return matches


def _folder(root: Path, roots: Sequence[str], own: str | None) -> list[Entry]:
    """The entries of a folder and all below it."""
    found: list[Entry] = []
    waiting = [(root, _is_model(root))]
    while waiting:
        folder, is_model = waiting.pop()
        entries: list[Entry] = []
        try:
            with os.scandir(folder) as scan:
                children = sorted(scan, key=lambda e: e.name)
        except OSError as error:
            entries = [Entry(folder, "", "failed", f"{folder} cannot be read ({error.strerror or error}).")]
            children = []
        for child in children:
            path = Path(child.path)
            try:
                if child.is_symlink() and not is_model:
                    entries.append(_link(path, roots))
                elif child.is_dir(follow_symlinks=is_model):
                    if child.is_symlink():
                        entries.append(_link(path, roots))
                    elif (left := _whole_folder(path, own)) is not None:
                        entries += [left] if left.files else []
                    else:
                        waiting.append((path, is_model or _is_model(path)))
                else:
                    entries.append(_classify(path))
            except OSError as error:
                entries.append(Entry(path, "", "failed", f"{path} cannot be read ({error.strerror or error})."))
        if is_model:
            apart = [e for e in entries if e.kind in ("picture", "clip", "document") or e.state == "failed"]
            rest = len(entries) - len(apart)
            top = next(
                (n for n, e in enumerate(found) if e.kind == "model" and e.path in (folder, *folder.parents)), None
            )
            if top is None:
                found.append(Entry(folder, "model", files=rest, named=folder == root))
            else:
                before = found[top]
                found[top] = Entry(before.path, "model", files=before.files + rest, named=before.named)
            entries = apart
        found += entries
    return sorted(found, key=lambda e: e.path.parts)


def _whole_folder(path: Path, own: str | None) -> Entry | None:
    """The entry of a folder that is left out as a whole, with as many files as it has; None for others."""
    if path.name in _VERSION_CONTROL:
        why = "kept by a version control system; name it to have it examined"
    elif os.path.realpath(path) == own or is_report_folder(path):
        why = "a report of vestige"
    else:
        return None
    return Entry(path, "", "skipped", why, files=sum(1 for _ in _files_below(path)))


def is_report_folder(path: Path) -> bool:
    """Whether `vestige find --out` filled a folder."""
    try:
        with (path / JOURNAL).open("rb") as file:
            return file.read(64).startswith(JOURNAL_SIGNS)
    except OSError:
        return False


def _files_below(path: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(path):
        yield from (Path(folder, name) for name in names)
        yield from (Path(folder, name) for name in folders if os.path.islink(os.path.join(folder, name)))


def _link(path: Path, roots: Sequence[str]) -> Entry:
    target = os.path.realpath(path)
    try:
        os.stat(path)
    except FileNotFoundError:
        return Entry(path, "", "skipped", "a link to something that does not exist")
    except OSError:
        return Entry(path, "", "skipped", "a link that leads in a circle or cannot be followed")
    if any(target == root or target.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
        return Entry(path, "", "skipped", f"a link to {target}, which is counted there")
    return Entry(path, "", "skipped", "a link that leads out of what was given; name its target to have it examined")


def _classify(path: Path, named: bool = False) -> Entry:
    """What one file is. Raises OSError for one that is not there."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        return Entry(path, "", "skipped", "no regular file", named=named)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        return Entry(path, "", "failed", f"{path} cannot be read ({error.strerror or error}).", named=named)
    kind = kind_of(path, head, named)
    if kind:
        return Entry(path, kind, named=named)
    return Entry(path, "", "skipped", why_left_out(head, path), named=named)


def kind_of(path: Path, head: bytes, named: bool = False) -> str:
    """Which of `KINDS` a file is, by its content first and its ending where content has no signature; "" for none.

    named: the user named the file, so that what cannot be vouched for (a program, an archive) is scanned as a model.
    """
    kind, ending = sniff(head[:300]), path.suffix.lower()
    if kind in IMAGE_FORMATS or kind in VIDEO_FORMATS:
        # a picture's bytes can be a pickle too, and its name decides who reads it
        if (ending in MODEL_ENDINGS or is_compressed_model(head, path)) and _opens(path):
            return "model"
        if kind in IMAGE_FORMATS:
            return "picture"
        return "" if head[8:11] == b"M4A" else "clip"
    if kind == "PDF":
        return "document"
    if _is_model_file(path, head, kind, named):
        return "model"
    if kind in ("parquet", "tar"):
        return "data set"
    if ending in SUFFIXES:
        return "picture"
    return "clip" if ending in video.SUFFIXES else "document" if ending == ".pdf" else ""


def _is_model_file(path: Path, head: bytes, kind: str, named: bool) -> bool:
    ending = path.suffix.lower()
    called = ending in MODEL_ENDINGS or is_compressed_model(head, path)
    if kind in ("safetensors", "pickle", "npy"):
        return True
    if called and not (ending in _LOOSE and not named):
        return True
    if ending in SUFFIXES or ending in video.SUFFIXES or not head:
        return False
    foreign = foreign_format(head, path.name)
    if foreign is not None and kind == "unknown" and not called:
        return named or (foreign not in ("7z", "RAR", "LZ4", "Zstandard") and foreign[:2] not in ("a ", "co", "Py"))
    # pickles of the first two protocols, archives with a model in them: known only when they are read
    plausible = kind in ("zip", "unknown") and not is_text_name(path) and (called or head[:1] in b"P(cdli]})K\x8c")
    return plausible and _opens(path)


def _opens(path: Path) -> bool:
    try:
        file_format(path)
    except VestigeError:
        return False
    return True


def _is_model(folder: Path) -> bool:
    """Whether a folder is a model's; a config.json alone does not make it one."""
    try:
        if not is_model_folder(folder):
            return False
        config = folder / "config.json"
        others = ("model_index.json", "saved_model.pb", "adapter_config.json", "modules.json")
        if not config.is_file() or any((folder / name).is_file() for name in others):
            return True
        if any(f.suffix.lower() in MODEL_ENDINGS for f in folder.iterdir()):
            return True
        with config.open("rb") as file:
            table = json.loads(file.read(2**23))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and any(word in table for word in _MODEL_WORDS)
