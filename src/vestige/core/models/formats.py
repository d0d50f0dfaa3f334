"""Formats of models that are no pickles: which are known by sight, and which are not examined."""

from __future__ import annotations

import bz2
import lzma
import re
import tempfile
import zlib
from pathlib import PurePath
from typing import Any, cast

from vestige.core.bounded import LimitReached, Window

_BLOCK = 2**18
_IN_MEMORY = 16 * 2**20
_MAX_DICTIONARY = 96 * 2**20

#: Starts of compressed streams that joblib reads.
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00\x00": "lzma",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}
_STARTS = {
    b"GGUF": "GGUF",
    b"ggml": "GGML",
    b"lmgg": "GGML",
    b"fmgg": "GGML",
    b"tjgg": "GGML",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\x04\x22\x4d\x18": "LZ4",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
#: What files without a start of their own are called by; a reader chooses by the ending too.
_ENDINGS = {
    ".onnx": "ONNX",
    ".ort": "ONNX Runtime",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".keras": "Keras",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".gguf": "GGUF",
    ".ggml": "GGML",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".pdmodel": "PaddlePaddle",
    ".pdparams": "PaddlePaddle",
    ".engine": "TensorRT",
    ".plan": "TensorRT",
    ".llamafile": "a program",
    ".msgpack": "Flax",
    ".t7": "Lua Torch",
    ".mar": "TorchServe",
    ".nemo": "NeMo",
    ".skops": "skops",
    ".7z": "7z",
    ".rar": "RAR",
    ".pmml": "PMML",
    ".cbm": "CatBoost",
    ".ubj": "XGBoost",
    ".pte": "ExecuTorch",
    ".pt2": "torch.export",
    ".ptl": "TorchScript",
    ".rds": "R",
    ".so": "a program",
    ".dll": "a program",
    ".exe": "a program",
    ".dylib": "a program",
    ".pyd": "a program",
    ".pyc": "compiled Python code",
    ".py": "Python code",
    ".ipynb": "a notebook",
    ".sh": "a shell script",
    ".bat": "a shell script",
}
_NO_MODEL = re.compile("program|code|notebook|script")
MODEL_ENDINGS = (
    *(ending for ending, kind in _ENDINGS.items() if not _NO_MODEL.search(kind)),
    *(".npy", ".npz", ".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".p"),
)


def foreign_format(head: bytes, name: str) -> str | None:
    """The format of a file that is known and not examined, from its first bytes, else from its ending.

    >>> foreign_format(b"GGUF", "x.bin"), foreign_format(b"\\x08\\x07", "m.onnx"), foreign_format(b"\\x80", "m.pt")
    ('GGUF', 'ONNX', None)
    """
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"TFL3":
        return "TensorFlow Lite"
    ending = PurePath(name).suffix.lower()
    if ending == ".json" and head[:1] == b"{":
        return "Keras JSON" if b'"class_name"' in head else "XGBoost JSON" if b'{"learner"' in head[:200] else None
    known = head[:1] == b"\x80" or head[:6] == b"\x93NUMPY" or head[:2] == b"PK" or head[257:262] == b"ustar"
    return None if known else _ENDINGS.get(ending)


def foreign_member(name: str) -> str | None:
    """What a member of an archive is that no rule covers: code, or a model of another kind."""
    if re.search(r"(^|/)code/.*\.py(\.debug_pkl)?$|(^|/)constants\.pkl$", name):
        return "TorchScript"
    if name.lower().endswith(("model.weights.h5", ".weights.h5")):
        return "Keras"
    return _ENDINGS.get(PurePath(name).suffix.lower())


def inflate(window: Window, packing: str, limit: int) -> Window:
    """The content of a compressed stream, up to ``limit`` bytes; what is long is kept in a temporary file.

    packing: a name from `COMPRESSED`, or "deflate" for a stream without a head. Raises LimitReached where there is
    more, and what the library raises when it is damaged.
    """
    reader: Any
    if packing in ("zlib", "gzip", "deflate"):
        reader = zlib.decompressobj({"gzip": 31, "zlib": 15, "deflate": -15}[packing])
    elif packing == "bzip2":
        reader = bz2.BZ2Decompressor()
    else:
        reader = lzma.LZMADecompressor(memlimit=_MAX_DICTIONARY)
    content = cast(Any, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the window keeps it open
    size, window = 0, window.part(0, window.size)
    block = window.read(_BLOCK)
    while not reader.eof:
        data = reader.decompress(block, _BLOCK)
        size += content.write(data)
        if size > limit:
            raise LimitReached(f"it inflates above the limit of {limit / 2**20:.0f} MiB")
        block = getattr(reader, "unconsumed_tail", b"")
        if not block and (len(data) < _BLOCK or getattr(reader, "needs_input", False)):
            block = window.read(_BLOCK)
            if not block and not data:
                raise ValueError("it is cut short")
    if reader.unused_data or window.tell() < window.size:
        raise ValueError("it goes on after its end")
    return Window(content, 0, size, window.max_item)


def is_compressed_model(head: bytes, path: PurePath) -> bool:
    """Whether a file is a compressed stream that is called like a model (``net.joblib``, ``net.pkl.gz``)."""
    named = any(suffix.lower() in MODEL_ENDINGS for suffix in path.suffixes[-2:])
    return named and head.startswith(tuple(COMPRESSED))
