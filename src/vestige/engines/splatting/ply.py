"""Scenes on disk in the layout that Gaussian splatting programs share: a binary .ply with one vertex per Gaussian.

Properties, all 32-bit floats: x y z, nx ny nz (unused), f_dc_0…2, f_rest_0…(3(K−1)−1) with all of red first, opacity,
scale_0…2, rot_0…3. Files come from strangers: header, counts and values are checked before they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vestige.core.errors import InputError, LimitError
from vestige.core.files import write_atomic
from vestige.engines.splatting.gaussians import SH_COUNTS, Gaussians

MAX_GAUSSIANS = 20_000_000
_MAX_HEADER = 2**16
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
#: Beyond these a renderer overflows: positions and coefficients, logarithms of sizes, logits.
_LARGEST = {"xyz": 1e6, "scale": 30.0, "rotation": 1e6, "opacity": 1e6, "sh": 1e6}


def _names(coefficients: int) -> list[str]:
    rest = [f"f_rest_{i}" for i in range(3 * (coefficients - 1))]
    own = ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    return ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *rest, *own]


def write_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write a scene, atomically; raises InputError when the folder cannot be written."""
    n, coefficients = gaussians.sh.shape[:2]
    sh = gaussians.sh.transpose(1, 2)  # N×3×K: the file has all of red, then green, then blue
    columns = [
        gaussians.xyz, torch.zeros_like(gaussians.xyz), sh[:, :, 0], sh[:, :, 1:].flatten(1), gaussians.opacity,
        gaussians.scale, gaussians.rotation,
    ]  # fmt: skip
    values = torch.cat([c.detach().cpu().float() for c in columns], 1).numpy().astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _names(coefficients))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\n{properties}end_header\n"
    write_atomic(path, header.encode() + values.tobytes())


def read_ply(path: str | Path, *, limit: int = MAX_GAUSSIANS) -> Gaussians:
    """Read a scene of degree 0 to 3; other properties, and elements after the vertices, are left out.

    limit: most Gaussians that are accepted. Raises InputError when the file is missing, no binary .ply, cut off,
    without the properties of Gaussians, or holds values no scene has; LimitError for more Gaussians than the limit.
    """
    try:
        with Path(path).open("rb") as file:
            dtype, count = _header(file, path)
            if count > limit:
                raise LimitError(f"{path} holds {count:,} Gaussians, more than the limit of {limit:,}; raise limit.")
            start = file.tell()
            if file.seek(0, 2) - start < count * dtype.itemsize:
                raise InputError(f"{path} ends before its {count:,} Gaussians do; get the file again.")
            file.seek(start)
            table = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
    return _scene(table, path)


def _header(file: BinaryIO, path: Any) -> tuple[np.dtype[Any], int]:
    """Layout and number of the vertices; leaves the file at the first of them."""
    bad = InputError(f"{path} is no binary .ply of Gaussians; give one that a splatting program wrote.")
    lines: list[list[str]] = []
    while not lines or lines[-1] != ["end_header"]:
        line = file.readline(1024)
        if not line.endswith(b"\n") or file.tell() > _MAX_HEADER or (not lines and line.strip() != b"ply"):
            raise bad
        lines.append(line.decode("ascii", "replace").split())
    formats = [words[1] for words in lines if words[:1] == ["format"] and len(words) == 3]
    elements = [i for i, words in enumerate(lines) if words[:1] == ["element"]]
    if len(formats) != 1 or formats[0] not in _ORDERS or not elements:
        raise bad
    first, last = elements[0], elements[1] if len(elements) > 1 else len(lines) - 1
    head = lines[first]
    if len(head) != 3 or head[1] != "vertex" or not (head[2].isascii() and head[2].isdigit() and len(head[2]) < 16):
        raise bad
    properties = [words for words in lines[first + 1 : last] if words[:1] == ["property"]]
    if not properties or any(len(words) != 3 or words[1] not in _TYPES for words in properties):
        raise bad
    names = [words[2] for words in properties]
    if len(set(names)) != len(names):
        raise bad
    return np.dtype([(name, _ORDERS[formats[0]] + _TYPES[words[1]]) for name, words in zip(names, properties)]), int(
        head[2]
    )


def _scene(table: np.ndarray, path: Any) -> Gaussians:
    names = set(table.dtype.names or ())
    rest = sum(name.startswith("f_rest_") for name in names)
    missing = sorted({n for n in _names(1 + rest // 3) if not n.startswith("n")} - names)
    if missing or rest % 3 or 1 + rest // 3 not in SH_COUNTS:
        lack = f"no property {missing[0]}" if missing else f"{rest} f_rest properties"
        raise InputError(f"{path} is a .ply without Gaussians of degree 0 to 3: it has {lack}.")
    if len(table) == 0:
        raise InputError(f"{path} holds no Gaussians.")

    def columns(*wanted: str) -> torch.Tensor:
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in wanted], 1))

    sh = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, :, None]
    if rest:
        sh = torch.cat([sh, columns(*(f"f_rest_{i}" for i in range(rest))).view(len(table), 3, -1)], 2)
    found = Gaussians(
        columns("x", "y", "z"), columns(*(f"scale_{i}" for i in range(3))), columns(*(f"rot_{i}" for i in range(4))),
        columns("opacity"), sh.transpose(1, 2).contiguous(),
    )  # fmt: skip
    for name, tensor in found.tensors().items():
        usable = tensor.abs() <= _LARGEST[name]
        if not bool(usable.all()):
            row = int((~usable).flatten(1).any(1).nonzero()[0])
            raise InputError(f"{path} has values of {name} that no scene has (first in Gaussian {row}).")
    if bool((found.rotation.norm(dim=1) == 0).any()):
        raise InputError(f"{path} has a rotation of length 0, which is no rotation.")
    return found
