"""Bytes of small models in formats whose own libraries are not needed here: ONNX, GGUF, HDF5, Keras, TensorFlow."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


# protocol buffers


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a message: an integer, or text and bytes behind their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_tensor(name: str, shape: Sequence[int] = (2,), location: str | None = None) -> bytes:
    """A TensorProto of floats, inside the file or at ``location``."""
    head = b"".join(field(1, n) for n in shape) + field(2, 1) + field(8, name)
    if location is not None:
        entries = [("location", location), ("offset", "0"), ("length", "8")]
        return head + b"".join(field(13, field(1, k) + field(2, v)) for k, v in entries) + field(14, 1)
    count = 1
    for n in shape:
        count *= n
    return head + field(9, struct.pack(f"<{count}f", *range(count)))


def onnx_node(operator: str, domain: str = "", attributes: Sequence[bytes] = ()) -> bytes:
    node = field(1, "x") + field(2, "y") + field(4, operator) + b"".join(field(5, a) for a in attributes)
    return node + (field(7, domain) if domain else b"")


def onnx(nodes: Sequence[bytes], tensors: Sequence[bytes] = (), extra: bytes = b"") -> bytes:
    """A ModelProto with one graph."""
    graph = b"".join(field(1, n) for n in nodes) + field(2, "graph") + b"".join(field(5, t) for t in tensors)
    graph += field(11, field(1, "x")) + field(12, field(1, "y"))
    return field(1, 8) + field(2, "maker") + field(7, graph) + field(8, field(1, "") + field(2, 17)) + extra


def graph_def(operators: Sequence[str], functions: Mapping[str, Sequence[str]] | None = None) -> bytes:
    """A GraphDef of TensorFlow with nodes of these operators, and functions with theirs."""

    def node(operator: str) -> bytes:
        attribute = field(1, "T") + field(2, field(6, 1))
        return field(1, f"a_{operator}") + field(2, operator) + field(3, "x") + field(5, attribute)

    library = b"".join(
        field(1, field(1, field(1, name)) + b"".join(field(3, node(op)) for op in ops))
        for name, ops in (functions or {}).items()
    )
    return b"".join(field(1, node(op)) for op in operators) + (field(2, library) if library else b"")


def saved_model(operators: Sequence[str], functions: Mapping[str, Sequence[str]] | None = None) -> bytes:
    return field(1, 1) + field(2, field(1, field(4, "serve")) + field(2, graph_def(operators, functions)))


# GGUF


def gguf(entries: Mapping[str, Any], tensors: Mapping[str, Sequence[int]] | None = None, version: int = 3) -> bytes:
    """A GGUF file; values are text, integers, or lists of text; tensors are float32."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(item: Any) -> bytes:
        if isinstance(item, str):
            return struct.pack("<I", 8) + text(item)
        if isinstance(item, list):
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(text(x) for x in item)
        return struct.pack("<II", 4, item)

    tensors = tensors or {}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    head += b"".join(text(key) + value(item) for key, item in entries.items())
    offset, data = 0, b""
    for name, shape in tensors.items():
        count = 1
        for n in shape:
            count *= n
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        data += bytes(4 * count) + bytes(-4 * count % 32)
        offset = len(data)
    return head + bytes(-len(head) % 32) + data


# HDF5 and Keras


def _message(kind: int, data: bytes) -> bytes:
    data += bytes(-len(data) % 8)
    return struct.pack("<HHBxxx", kind, len(data), 0) + data


def _header(messages: Sequence[bytes]) -> bytes:
    body = b"".join(messages)
    return struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body


def _text_attribute(name: str, value: bytes) -> bytes:
    label = name.encode() + b"\0"
    kind, space = struct.pack("<B3xI", 0x13, len(value)), struct.pack("<BBB5x", 1, 0, 0)
    sizes = struct.pack("<BxHHH", 1, len(label), len(kind), len(space))
    return _message(0x0C, sizes + label + bytes(-len(label) % 8) + kind + space + value)


def hdf5(
    attributes: Mapping[str, bytes] | None = None, outside: str | None = None, elsewhere: bool = False,
    filters: Sequence[int] = (),
) -> bytes:  # fmt: skip
    """An HDF5 file with text attributes on its root and one array of 16 bytes.

    outside: a file that an external link names. elsewhere: the array's bytes lie in another file. filters: numbers of
    the filters of the array.
    """
    layout = _message(0x08, struct.pack("<BBQQ", 3, 1, 2**64 - 1 if elsewhere else 96, 16))
    messages = [
        _message(0x01, struct.pack("<BBB5xQ", 1, 1, 0, 4)),
        _message(0x03, struct.pack("<B3xIHH", 0x10, 4, 0, 32)),
        layout,
    ]
    if elsewhere:
        messages.append(_message(0x07, struct.pack("<BxxxHHQQQQ", 1, 1, 1, 0, 0, 0, 16)))
    if filters:
        pipeline = b"".join(struct.pack("<HHHH", number, 0, 0, 0) for number in filters)
        messages.append(_message(0x0B, struct.pack("<BB6x", 1, len(filters)) + pipeline))
    data = _header(messages)
    links = [_message(0x06, struct.pack("<BBB", 1, 0, 5) + b"array" + struct.pack("<Q", 112))]
    if outside is not None:
        target = b"\0" + outside.encode() + b"\0/x\0"
        links.append(
            _message(0x06, struct.pack("<BBBB", 1, 8, 64, 4) + b"link" + struct.pack("<H", len(target)) + target)
        )
    group = [_message(0x02, struct.pack("<BBQQ", 0, 0, 2**64 - 1, 2**64 - 1)), _message(0x0A, b"\0\0")]
    root = _header([*group, *links, *(_text_attribute(name, value) for name, value in (attributes or {}).items())])
    at = 112 + len(data)
    head = b"\x89HDF\r\n\x1a\n" + struct.pack("<BBBxBBBxHHI", 0, 0, 0, 0, 8, 8, 4, 16, 0)
    head += struct.pack("<QQQQ", 0, 2**64 - 1, at + len(root), 2**64 - 1) + struct.pack("<QQII16x", 0, at, 0, 0)
    return head + bytes(16) + data + root


def layer(name: str, config: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A layer as Keras 3 describes it."""
    return {"module": "keras.layers", "class_name": name, "config": {"name": name.lower(), **(config or {})},
            "registered_name": None, **more}  # fmt: skip


def sequential(*layers: Mapping[str, Any]) -> dict[str, Any]:
    first = layer("InputLayer", {"batch_shape": [None, 4], "dtype": "float32"})
    return {"module": "keras", "class_name": "Sequential", "registered_name": "Sequential",
            "config": {"name": "sequential", "layers": [first, *layers]}}  # fmt: skip


DENSE = layer("Dense", {
    "units": 2, "activation": "relu",
    "kernel_initializer": {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": None},
                           "registered_name": None},
})  # fmt: skip


def keras(config: Mapping[str, Any], weights: bytes | None = None, *extra: tuple[str, bytes]) -> bytes:
    """A model in the format of Keras 3."""
    return archive(
        ("metadata.json", b'{"keras_version": "3.8.0", "date_saved": "2025-01-01@00:00:00"}'),
        ("config.json", json.dumps(config).encode()),
        ("model.weights.h5", hdf5() if weights is None else weights),
        *extra,
    )
