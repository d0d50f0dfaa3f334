"""Which model a file is, and every file of a model folder accounted for.

Weights, pickles under any name, code, settings and templates that ask for code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vestige.core.bounded import LimitReached, Window, parse_json, printable, zip_members
from vestige.core.errors import InputError, LimitError, VestigeError
from vestige.core.models import keras_config, rules, templates, texts
from vestige.core.models.formats import MODEL_ENDINGS, foreign_format, foreign_member, is_compressed_model
from vestige.core.models.pickle_scan import PickleReport, ScanLimits, scan, scan_anything
from vestige.core.models.safetensors_header import MAX_HEADER, read_header
from vestige.core.sniff import IMAGE_FORMATS, VIDEO_FORMATS, sniff, told

#: Data of tokenizers, which has no start of its own.
_KNOWN_DATA = (".model", ".spm", ".bpe", ".tiktoken", ".vocab", ".arrow", ".msgpack.index", ".onnx_data")
#: Raw weights of TensorFlow beside a graph.
_VARIABLES = re.compile(r"variables\.(index|data-\d{5}-of-\d{5})")
_LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion", "deepfloyd_if", "latent_diffusion", "pixart_alpha")
_MAX_SETTINGS = 8 * 2**20
#: Files that make a folder a model's.
_MARKS = ("model_index.json", "config.json", "saved_model.pb", "adapter_config.json", "modules.json")
_PEFT_LIBRARIES = (None, "transformers", "diffusers", "torch")
#: Requirements that are more than names and versions of packages.
_FETCHED = re.compile(r"^\s*(-\S|[\w.-]*\s*@|\w+\+|https?:|file:|\.{0,2}/)", re.MULTILINE)


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model of transformers, diffusers, peft, sentence-transformers or TensorFlow."""
    return any((path / name).is_file() for name in _MARKS)


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
    raise InputError(f"{path} is no model vestige reads (content looks like {told(kind)}).")


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
    if (
        path.suffix.lower() in MODEL_ENDINGS
        or rules.archive_kind(names) is not None
        or any(name.lower().endswith((".pkl", ".pickle", ".npy")) or foreign_member(name) == "Keras" for name in names)
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
    if (foreign is not None and ending != ".json") or ending in MODEL_ENDINGS:
        return scan(file)
    report = scan_anything(file)
    # bytes that are no pickle say nothing about a file that need not be one
    report.damaged = None if not (report.imports or report.pickles) else report.damaged
    if ending == ".json":
        _settings(file, report)
    elif ending in (".jinja", ".jinja2", ".j2", ".yaml", ".yml") or name.lower().startswith("requirements"):
        with file.open("rb") as stream:
            text = stream.read(_MAX_SETTINGS + 1).decode("utf-8", "replace")
        if len(text) > _MAX_SETTINGS:
            report.add_problem(f"{name} is too large for settings and was not examined")
        elif ending in (".yaml", ".yml"):
            texts.check_yaml(text, name, report)
        elif ending.startswith(".j"):
            templates.check(text, name, report)
        elif found := _FETCHED.search(text):
            report.add_problem(f"{name} asks for a package from elsewhere ({printable(found[0].strip()[:60])})")
    elif (
        kind not in (*IMAGE_FORMATS, *VIDEO_FORMATS, "PDF", "parquet")
        and not _text(head)
        and ending not in _KNOWN_DATA
        and not _VARIABLES.fullmatch(file.name)
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
        table = parse_json(file.read_bytes())
    except LimitReached as reached:
        report.add_problem(f"{name} was not examined: {reached}")
        return
    except ValueError:
        report.add_problem(f"{name} is no JSON that can be read")
        return
    texts.check_targets(texts.targets(table), name, report)
    if file.name == "modules.json":
        _modules(table, name, report)
    if not isinstance(table, dict):
        return
    if isinstance(table.get("class_name"), str) and "config" in table:
        keras_config.check_table(table, name, report)
    for key in ("auto_map", "custom_pipelines", "custom_pipeline", "custom_generate", "custom_fn"):
        if table.get(key):
            report.add_problem(f"{name} asks for Python code that comes with the model ({key})")
    if table.get("trust_remote_code"):
        report.add_problem(f"{name} asks to trust Python code that comes with the model")
    if any("/" in str(value) for key, value in table.items() if key.endswith("attn_implementation")):
        report.add_problem(f"{name} asks for attention code from the network")
    mapping = table.get("auto_mapping")
    if isinstance(mapping, dict) and (library := mapping.get("parent_library")) is not None:
        root = str(library).split(".")[0]
        if root not in _PEFT_LIBRARIES:
            report.add_problem(f"{name} takes a class from {printable(str(library)[:60])!r}, no library known here")
    if file.name == "model_index.json":
        for key, value in table.items():
            library = value[0] if isinstance(value, list) and value else None
            if not key.startswith("_") and library not in _LIBRARIES:
                shown = printable(f"{key[:60]} from {str(library)[:60]!r}")
                report.add_problem(f"{name} takes {shown}, which is no library of models known here")
    found = _texts(table.get("chat_template"))
    if sum(map(len, found)) > templates.MAX_TEMPLATE:
        report.add_problem(f"{name} has chat templates above 1 MiB, which were not examined")
        return
    for template in found:
        templates.check(template, name, report)


def _modules(table: Any, name: str, report: PickleReport) -> None:
    """The classes that sentence-transformers imports, in their order."""
    for entry in table if isinstance(table, list) else []:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not re.fullmatch(r"sentence_transformers\.([\w.]+\.)?[A-Z]\w*", kind):
            report.add_problem(f"{name} takes the class {printable(str(kind)[:80])}, which is none of its library")


def _texts(value: Any) -> list[str]:
    """The templates of a tokenizer: one, or several with names."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item.get("template") if isinstance(item, dict) else item)]
    return [text for item in value.values() for text in _texts(item)] if isinstance(value, dict) else []
