"""Files made to exhaust a scanner: each ends within seconds and within memory, and none is called harmless by it."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from benchmarks.model_makers import DENSE, archive, field, gguf, hdf5, keras, onnx_node, sequential

SECONDS, MEGABYTES = 10, 300
MANY = 520_000


def _deep_onnx() -> bytes:
    graph = field(1, onnx_node("Relu"))
    for _ in range(300):
        graph = field(1, onnx_node("If", attributes=[field(6, graph)]))
    return field(1, 8) + field(7, graph)


def _long_tar_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 30_000_000
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size)


def _safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def _gguf_array(inner: int, count: int, content: bytes = b"") -> bytes:
    head = struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, inner, count)
    return b"GGUF\x03\0\0\0" + head + content


def _scripted(*code: bytes) -> bytes:
    return archive(
        ("m/data.pkl", b"N."), ("m/constants.pkl", b"N."), *((f"m/code/{n}.py", c) for n, c in enumerate(code))
    )


HOSTILE = {
    "memo.pkl": lambda: b"\x80\x02]r" + struct.pack("<I", 2**31) + b".",
    "put.pkl": lambda: b"\x80\x02]p" + b"9" * 4000 + b"\n.",
    "memos.pkl": lambda: b"\x80\x02]" + b"".join(b"r" + struct.pack("<I", i * 977) for i in range(MANY)) + b".",
    "marks.pkl": lambda: b"\x80\x02" + b"(" * MANY + b".",
    "lists.pkl": lambda: b"\x80\x02" + b"]" * MANY + b".",
    "tables.pkl": lambda: b"\x80\x04\x8c\x01a\x94" + b"}h\x00Ns" * 150_000 + b".",
    "tuples.pkl": lambda: b"\x80\x04)" + b"\x85\x94" * 150_000 + b".",
    "calls.pkl": lambda: b"\x80\x04ccollections\nOrderedDict\n\x94" + b"h\x00)R\x94" * MANY + b".",
    "text.pkl": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"aaa.",
    "bytes.pkl": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"aaa.",
    "line.pkl": lambda: b"\x80\x02V" + b"a" * 3_000_000 + b"\n.",
    "texts.pkl": lambda: b"\x80\x04" + (b"X\xa0\x0f\0\0" + b"a" * 3996 + b"\xf0\x9f\x98\x80q\x00") * 12_000 + b".",
    "names.pkl": lambda: b"\x80\x02" + b"".join(b"cm%d\nn\n0" % n for n in range(20_000)) + b".",
    "bomb.pt": lambda: archive(("a/data.pkl", bytes(100_000_000)), method=zipfile.ZIP_DEFLATED),
    "members.pt": lambda: b"PK\x03\x04" + bytes(400) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2**31, 30, 0),
    "bomb.pkl": lambda: gzip.compress(bytes(50_000_000), 1) * 11,
    "header.pt": _long_tar_header,
    "header.npy": lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 100,
    "nested.npy": lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 60_000) + b"(" * 60_000,
    "tables.safetensors": lambda: _safetensors(b"{" + b",".join(b'"%d":{}' % n for n in range(MANY)) + b"}"),
    "lists.safetensors": lambda: _safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"),
    "deep.keras": lambda: archive(("metadata.json", b"{}"), ("config.json", b"[" * 400_000)),
    "wide.keras": lambda: archive(("metadata.json", b"{}"), ("config.json", b"[" + b"[]," * 2_000_000 + b"1]")),
    "long.gguf": lambda: _gguf_array(9, 2**60, bytes(90)),
    "templates.gguf": lambda: gguf({f"tokenizer.chat_template.{n}": "a" * 600_000 for n in range(30)}),
    "blocks.gguf": lambda: gguf({"tokenizer.chat_template": "{% if a %}" * 50_000}),
    "deep.onnx": _deep_onnx,
    "deep.pmml": lambda: b"<PMML>" + b"<A>" * 500_000,
    "long.pmml": lambda: b'<PMML a="' + b"a" * 30_000_000,
    "code.pt": lambda: _scripted(b"x = 1\n" * 100_000),
    "signs.pt": lambda: _scripted(b"a = " + b"-" * 300_000 + b"1", b"a = " + b"[" * 300_000),
}  # fmt: skip

CHILD = """
import json, resource, sys, time
import jinja2.ext
from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.errors import VestigeError
base, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        answer = PickleScan().find(ModelSubject.open(path)).details["answer"]
    except VestigeError:
        answer = "refused"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    told[path] = answer, time.process_time() - start, peak / 1024
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """{name: (answer, seconds, megabytes above the start)}, all in one process."""
    place = tmp_path_factory.mktemp("hostile")
    for name, make in HOSTILE.items():
        (place / name).write_bytes(make())
    with (place / "long.pkl").open("wb") as file:  # a hole on the disk
        file.write(b"\x80\x04X" + struct.pack("<I", 2**31))
        file.truncate(2**31 + 100)
    paths = [str(place / name) for name in (*HOSTILE, "long.pkl")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, env=environment)
    for path in paths:
        Path(path).unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    return {Path(path).name: told for path, told in json.loads(done.stdout).items()}


def test_each_file_ends_in_time_and_in_memory(measured):
    for name, (_, seconds, megabytes) in measured.items():
        assert seconds < SECONDS, (name, seconds)
        assert megabytes < MEGABYTES, (name, megabytes)


def test_none_is_called_harmless(measured):
    within = ("tables.pkl", "tuples.pkl")  # not that large, and of nothing but tables and tuples
    called = [name for name, (answer, *_) in measured.items() if answer not in ("cannot be vouched for", "refused")]
    assert set(called) <= set(within)


def test_ordinary_files_of_the_same_kinds_are_not_caught_by_the_bounds(tmp_path):
    from vestige.core.models.pickle_scan import scan

    (tmp_path / "m.keras").write_bytes(keras(sequential(*[DENSE] * 500)))
    (tmp_path / "m.h5").write_bytes(hdf5({f"a{n}": b"x" for n in range(300)}))
    (tmp_path / "m.gguf").write_bytes(gguf({"tokens": [f"token{n}" for n in range(30_000)]}))
    words = io.BytesIO()
    words.write(b"\x80\x04]\x94(" + b"".join(b"\x8c\x07word%03d\x94" % (n % 1000) for n in range(60_000)) + b"e.")
    (tmp_path / "m.pkl").write_bytes(words.getvalue())
    for path in tmp_path.iterdir():
        assert scan(path).answer == "harmless", path


def test_a_compressed_stream_is_inflated_up_to_the_bound():
    from vestige.core.models.pickle_scan import ScanLimits, scan_bytes

    report = scan_bytes(gzip.compress(b"N." * 1_000_000), ScanLimits(max_inflated=2**20))
    assert "inflates above the limit" in (report.damaged or "")
