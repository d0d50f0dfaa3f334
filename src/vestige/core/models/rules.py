"""Rules of the formats that are no pickles: which there are, and how one is applied to a file or an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from vestige.core.bounded import LimitReached, Window, parse_json, printable
from vestige.core.models import (
    gguf_header,
    hdf5,
    keras_config,
    onnx_graph,
    saved_model,
    texts,
    torchscript,
)
from vestige.core.models.pickle_report import PickleReport

#: Reads the member of an archive; None where it cannot be read, which is then in the report.
Read = Callable[[str], Window | None]
_RULES: dict[str, Callable[[Window, str, PickleReport], None]] = {
    "GGUF": gguf_header.check,
    "HDF5": hdf5.check,
    "TensorFlow": saved_model.check,
    "PMML": texts.check_pmml,
    "Keras JSON": lambda window, place, report: keras_config.check(window.read(), place, report),
    "XGBoost JSON": lambda window, place, report: _xgboost(window, place, report),
}


def apply(kind: str, window: Window, place: str, report: PickleReport, folder: Path | None) -> bool:
    """Whether there are rules for a format; what they find is in the report, damage included."""
    window.seek(0)
    if kind == "ONNX":
        _guarded(lambda: onnx_graph.check(window, place, report, folder), kind, place, report)
    elif kind in _RULES:
        _guarded(lambda: _RULES[kind](window, place, report), kind, place, report)
    else:
        return False
    return True


def _guarded(check: Callable[[], None], kind: str, place: str, report: PickleReport) -> None:
    try:
        check()
    except LimitReached as reached:
        report.add_damage(f"{place} was not read to its end: {reached}")
    except (ValueError, RecursionError, OverflowError) as error:
        report.add_problem(f"{place} is no {kind} file that can be read ({printable(str(error)[:100])})")
    else:
        if kind not in report.examined:
            report.examined.append(kind)


def archive_kind(names: Iterable[str]) -> str | None:
    """Which kind of model with rules of its own a zip archive is, from the names in it."""
    names = set(names)
    if "schema.json" in names:
        return "skops"
    if "config.json" in names and ("metadata.json" in names or any(name.endswith(".weights.h5") for name in names)):
        return "Keras"
    if any(name.endswith(".py") and "/code/" in f"/{name}" for name in names) and any(
        name.split("/")[-1] == "constants.pkl" for name in names
    ):
        return "TorchScript"
    return None


def apply_archive(kind: str, names: Iterable[str], read: Read, place: str, report: PickleReport) -> set[str]:
    """Apply the rules of an archive; the members that are accounted for."""
    done: set[str] = set()
    read_code = 0
    for name in dict.fromkeys(names):
        inside = f"{place}/{printable(name[:200])}"
        code = kind == "TorchScript" and name.endswith(".py") and "/code/" in f"/{name}"
        weights = kind == "Keras" and name.endswith(".h5")
        text = name == {"skops": "schema.json", "Keras": "config.json"}.get(kind)
        if not (code or weights or text):
            continue
        done.add(name)
        window = read(name)
        if window is None:
            continue
        if code:
            read_code += window.size
            if read_code > torchscript.MAX_ALL:
                raise LimitReached(f"{place} holds more code than the limit of {torchscript.MAX_ALL / 2**20:.0f} MiB")
            _guarded(lambda w=window, p=inside: torchscript.check(w.read(), p, report), kind, inside, report)  # type: ignore[misc]
        elif weights:
            apply("HDF5", window, inside, report, None)
        elif kind == "skops":
            _guarded(lambda w=window, p=inside: texts.check_skops(w.read(), p, report), kind, inside, report)  # type: ignore[misc]
        else:
            _guarded(lambda w=window, p=inside: keras_config.check(w.read(), p, report), kind, inside, report)  # type: ignore[misc]
    if kind == "TorchScript":
        done |= {name for name in names if name.endswith((".debug_pkl", "constants.pkl"))}
    return done


def expected(kind: str, name: str) -> bool:
    """Whether a member belongs into an archive of this kind without rules of its own."""
    if kind == "Keras":
        return name in ("metadata.json", "config.json") or name.endswith(".weights.h5") or name.startswith("assets/")
    return kind == "TorchScript" or name == "schema.json" or name.endswith((".npy", ".npz"))


def _xgboost(window: Window, place: str, report: PickleReport) -> None:
    table = parse_json(window.read())
    if not isinstance(table, dict) or not isinstance(table.get("learner"), dict):
        raise ValueError("it holds no learner")
    for key in set(table) - {"learner", "version", "Config"}:
        report.add_problem(f"{place} holds {printable(key[:60])}, which XGBoost does not know")
