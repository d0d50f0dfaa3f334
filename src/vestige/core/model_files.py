"""Which model a file is, and every file of a model folder accounted for.

Weights, pickles under any name, code, settings and templates that ask for code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vestige.core.bounded import LimitReached, Window, printable, zip_members
from vestige.core.errors import InputError, LimitError, VestigeError
from vestige.core.model_formats import MODEL_ENDINGS, foreign_format, foreign_member, is_compressed_model
from vestige.core.pickle_scan import PickleReport, ScanLimits, scan, scan_anything
from vestige.core.safetensors_header import MAX_HEADER, read_header
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff

#: Data of tokenizers, which has no start of its own.
_KNOWN_DATA = (".model", ".spm", ".bpe", ".tiktoken", ".vocab", ".arrow", ".msgpack.index")
_LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion", "deepfloyd_if", "latent_diffusion", "pixart_alpha")
_MAX_SETTINGS = 8 * 2**20
#: What a chat template needs only to leave the sandbox it is run in.
_ESCAPE = re.compile(r"__\w+__|\|\s*attr\b|\bcycler\b|\bjoiner\b|\blipsum\b|_TemplateReference")


def sniff_model(head: bytes) -> str:
    """As `sniff`, with safetensors first: a header of 640 bytes has a length field that starts like a pickle."""
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors"
    return sniff(head)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(300)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def file_format(path: Path) -> str:
    """The format of a model's file, by content first; raises InputError for what is no model."""
    head = _head(path)
    if not head:
        raise InputError(f"{path} is empty.")
    kind, ending = sniff_model(head), path.suffix.lower()
    if kind == "zip":
        return _archive_format(path)
    if kind in ("safetensors", "pickle", "tar", "npy"):
        return kind
    if is_compressed_model(head, path):
        return "compressed"
    foreign = foreign_format(head, path.name) if kind == "unknown" else None
    if foreign is not None:
        return foreign
    if ending == ".safetensors":
        return "safetensors"
    # the first two pickle protocols have no signature: such a file must read to a STOP or import something
    if head[:1] in b"(cdli]})K\x8c" or ending in MODEL_ENDINGS:
        report = scan(path)
        if report.pickles or report.imports:
            return "pickle"
    raise InputError(f"{path} is no model vestige reads (content looks like {kind}).")


def _archive_format(path: Path) -> str:
    """Which model a zip archive is; raises InputError for an archive of something else."""
    try:
        with path.open("rb") as file:
            window = Window(file, 0, path.stat().st_size, ScanLimits.max_item)
            names = [member.filename for member in zip_members(window, ScanLimits.max_members)]
    except LimitReached as reached:
        raise LimitError(f"{path} is not opened: {reached}.") from None
    except Exception as error:  # zipfile raises many types on damaged directories
        raise InputError(f"{path} is a damaged zip archive ({str(error)[:100]}).") from None
    if any(name.lower().split("/")[-1] == "data.pkl" for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if path.suffix.lower() in MODEL_ENDINGS or any(
        name.lower().endswith((".pkl", ".pickle", ".npy")) or foreign_member(name) == "Keras" for name in names
    ):
        return "zip"
    raise InputError(f"{path} is a zip archive, but no torch checkpoint (it holds no data.pkl).")


def file_report(file: Path) -> PickleReport:
    """What one file of a model folder holds; a report that is clean and counts no pickles has nothing to tell."""
    with file.open("rb") as stream:
        head = stream.read(4096)
    kind, ending, name = sniff_model(head), file.suffix.lower(), printable(file.name)
    compressed = kind != "safetensors" and is_compressed_model(head, file)
    if not head:
        return PickleReport()
    if kind in ("pickle", "zip", "tar", "npy") or compressed:
        return scan(file)
    if kind == "safetensors":
        report = scan_anything(file, weights=True)
        try:
            read_header(file)
        except VestigeError as error:
            report.add_problem(printable(str(error)))
        return report
    foreign = foreign_format(head, file.name)
    if foreign is None and ending in MODEL_ENDINGS:
        return scan(file)
    report = scan_anything(file)
    # bytes that are no pickle say nothing about a file that need not be one
    report.damaged = None if not (report.imports or report.pickles) else report.damaged
    if foreign is not None:
        report.add_problem(f"{name} is {foreign}, which is not examined")
    elif ending == ".json":
        _settings(file, report)
    elif ending in (".jinja", ".j2"):
        _template(file.read_bytes()[:_MAX_SETTINGS].decode("utf-8", "replace"), name, report)
    elif (
        kind not in (*IMAGE_FORMATS, *VIDEO_FORMATS, "PDF", "parquet") and not _text(head) and ending not in _KNOWN_DATA
    ):
        report.add_problem(f"{name} is of no known kind and was not examined")
    return report


def _text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return not re.search(r"[\x00-\x08\x0e-\x1f]", text) and not text.startswith("#!")


def _settings(file: Path, report: PickleReport) -> None:
    """Settings that make a loader run code which comes with the model, or take it from the network."""
    name = printable(file.name)
    if file.stat().st_size > _MAX_SETTINGS:
        if not file.name.startswith(("tokenizer", "vocab")):
            report.add_problem(f"{name} is too large for settings and was not examined")
        return
    try:
        table = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        report.add_problem(f"{name} is no JSON that can be read")
        return
    if not isinstance(table, dict):
        return
    for key in ("auto_map", "custom_pipelines", "custom_pipeline"):
        if table.get(key):
            report.add_problem(f"{name} asks for Python code that comes with the model ({key})")
    if any("/" in str(value) for key, value in table.items() if key.endswith("attn_implementation")):
        report.add_problem(f"{name} asks for attention code from the network")
    if file.name == "model_index.json":
        for key, value in table.items():
            library = value[0] if isinstance(value, list) and value else None
            if not key.startswith("_") and library not in _LIBRARIES:
                shown = printable(f"{key[:60]} from {str(library)[:60]!r}")
                report.add_problem(f"{name} takes {shown}, which is no library of models known here")
    _template(json.dumps(table.get("chat_template")), name, report)


def _template(text: Any, name: str, report: PickleReport) -> None:
    found = _ESCAPE.search(text)
    if found:
        report.add_problem(f"{name} has a chat template that reaches for {printable(found[0])}")
