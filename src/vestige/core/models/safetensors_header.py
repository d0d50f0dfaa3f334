"""The header of a safetensors file, checked in full before any library sees it.

The format: eight bytes little-endian header length n, n bytes of JSON that maps each tensor's name to its dtype, shape
and byte range, then the tensors' bytes without gaps. Source: the safetensors format description, Hugging Face 2022.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

from vestige.core.bounded import LimitReached, parse_json
from vestige.core.errors import InputError, LimitError

#: Bits of one element, and the name torch gives the dtype.
DTYPES = {
    "BOOL": (8, "bool"), "U8": (8, "uint8"), "I8": (8, "int8"), "U16": (16, "uint16"), "I16": (16, "int16"),
    "U32": (32, "uint32"), "I32": (32, "int32"), "U64": (64, "uint64"), "I64": (64, "int64"),
    "F16": (16, "float16"), "BF16": (16, "bfloat16"), "F32": (32, "float32"), "F64": (64, "float64"),
    "C64": (64, "complex64"), "F8_E4M3": (8, "float8_e4m3fn"), "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"), "F8_E8M0": (8, "float8_e8m0fnu"),
    "F4": (4, "float4_e2m1fn_x2"), "F6_E2M3": (6, "float6_e2m3"),
    "F6_E3M2": (6, "float6_e3m2"),
}  # fmt: skip
MAX_HEADER = 32 * 2**20


def read_header(path: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """{name: (shape, dtype)} of a safetensors file, without reading its tensors.

    Raises InputError for a truncated file, malformed header, or byte ranges that overlap, leave gaps, disagree with
    the shape or leave the file; LimitError for a header above 32 MiB.

    >>> import numpy as np, tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"w": np.ones((2, 3), np.float32)}, f"{folder}/w.safetensors")
    ...     read_header(f"{folder}/w.safetensors")
    {'w': ((2, 3), 'float32')}
    """
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or length > size - 8:
                raise InputError(f"{path} is a damaged safetensors file (it ends before its header does).")
            if length > MAX_HEADER:
                raise LimitError(f"{path} has a header of {length / 2**20:.0f} MiB; the limit is 32 MiB.")
            text = file.read(length)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        header = parse_json(text, unique=True)
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
        return _checked(header, size - 8 - length)
    except LimitReached as reached:
        raise LimitError(f"{path} has a header that is not read: {reached}.") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} is a damaged safetensors file ({reason}).") from None


def _checked(header: dict[str, Any], data_size: int) -> dict[str, tuple[tuple[int, ...], str]]:
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    ranges: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shown = repr(name[:60])
        if not isinstance(entry, dict):
            raise ValueError(f"the entry of tensor {shown} is no table")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise ValueError(f"tensor {shown} has an unknown dtype")
        if not _naturals(shape) or len(shape) > 64:
            raise ValueError(f"tensor {shown} has no valid shape")
        if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_size:
            raise ValueError(f"the bytes of tensor {shown} lie outside the file")
        if math.prod(shape) * DTYPES[dtype][0] != 8 * (offsets[1] - offsets[0]):
            raise ValueError(f"tensor {shown} does not have as many bytes as its shape needs")
        tensors[name] = (tuple(shape), DTYPES[dtype][1])
        ranges.append((offsets[0], offsets[1], shown))
    end = 0
    for begin, stop, shown in sorted(ranges):
        if begin != end:
            raise ValueError(f"tensor {shown} {'overlaps another one' if begin < end else 'follows a gap'}")
        end = stop
    if end != data_size:
        raise ValueError(f"{data_size - end} bytes after the last tensor belong to none")
    return tensors


def _naturals(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)
