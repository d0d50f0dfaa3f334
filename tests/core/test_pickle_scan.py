import collections
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError
from vestige.core.models.pickle_imports import classify
from vestige.core.models.pickle_scan import ScanLimits, scan, scan_bytes


class Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def torch_bytes(content, legacy=False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(*members: tuple[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


BOMB = pickle.dumps(Call(os.system, "true"))
WEIGHTS = {"layer.weight": torch.ones(3, 4), "layer.bias": torch.zeros(3, dtype=torch.bfloat16)}


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_the_shell_is_named_in_every_protocol(protocol):
    report = scan_bytes(pickle.dumps([1, {"x": Call(os.system, "true")}], protocol))
    assert report.dangerous == ["posix.system"]
    assert report.calls >= 1
    assert report.damaged is None


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_weights_are_clean(legacy):
    report = scan_bytes(torch_bytes(WEIGHTS, legacy))
    assert report.clean, report
    assert ("torch._utils", "_rebuild_tensor_v2") in report.imports
    assert report.pickles == (5 if legacy else 1)


def test_everything_torch_allows_in_weights_is_on_the_allow_list():
    from torch._weights_only_unpickler import _get_allowed_globals

    refused = [n for n in _get_allowed_globals() if classify(*n.rpartition(".")[::2]) != "safe"]
    assert refused == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("__builtin__", "exec"),
        ("importlib", "import_module"), ("builtins", "getattr"), ("operator", "attrgetter"), ("socket", "socket"),
        ("torch.hub", "load"), ("torch", "load"), ("torch", "serialization.os.system"),
        ("numpy.testing._private.utils", "runstring"),
        ("collections", "OrderedDict.__init__.__globals__"), ("pathlib", "PosixPath.write_text"), ("types", "CodeType"),
        ("dill._dill", "_create_function"), ("cloudpickle.cloudpickle", "_make_function"), ("runpy", "run_path"),
        ("random", "_os.system"), ("codecs", "builtins.exec"), ("_osx_support", "_read_output"),
        ("torch.distributed.run", "main"), ("sympy.parsing.sympy_parser", "eval_expr"), ("numexpr", "evaluate"),
        ("mlflow.projects.backend.local", "_run_entry_point"), ("pandas.io.parsers.readers", "read_csv"),
        ("torch.utils.tensorboard.writer", "SummaryWriter"), ("logging", "FileHandler"), ("zipfile", "ZipFile"),
        ("random", "_sys"), ("pathlib._local", "PosixPath.write_text"),
        ("builtins", "str.__class__"), ("pip._internal", "main"), ("pickle", "loads"), ("ctypes", "CDLL"),
    ],
)  # fmt: skip
def test_known_primitives_are_dangerous(module, name):
    assert classify(module, name) == "dangerous"


@pytest.mark.parametrize(
    ("module", "name"),
    [("mylib.models", "Net"), ("numpy", "sum"), ("sklearn.pipeline", "Parallel"),
     ("torch.nn.modules.linear", "Linear"), ("torch.storage", "_load_from_bytes"), ("builtins", "print")],
)  # fmt: skip
def test_other_imports_are_unknown(module, name):
    assert classify(module, name) == "unknown"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # names put into the memo, dropped from the stack and fetched again
        (b"\x80\x04" + text("os") + b"q\x05" + b"0" + text("system") + b"\x94" + b"0h\x05h\x01\x93.", "os.system"),
        (b"\x80\x04" + text("posix") + b"2" + b"0" + text("system") + b"\x93.", "posix.system"),
        (b"\x80\x04(" + text("a") + text("b") + b"1" + text("nt") + text("popen") + b"\x93.", "nt.popen"),
        # protocol 0 opcodes that call while they import, and Python 2's module names
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"c__builtin__\neval\n.", "builtins.eval"),
        (b"ccommands\ngetoutput\n.", "subprocess.getoutput"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        # a name that only exists once the pickle runs
        (b"\x80\x04" + text("o") + b"\x85" + text("system") + b"\x93.", "<computed at load time>.system"),
        (b"\x80\x04\x93.", "<computed at load time>.<computed at load time>"),
    ],
)
def test_hidden_names_are_seen(stream, expected):
    assert scan_bytes(stream).dangerous == [expected]


def test_names_cannot_steer_a_terminal():
    report = scan_bytes(b"\x80\x04" + text("os\x1b[2J") + text("a\nb") + b"\x93.")
    assert report.imports == [("os\ufffd[2J", "a\ufffdb")]
    assert all(p.isprintable() for p in scan_bytes(zipped(("../\x1b[2J/data.pkl", b"c\n."))).problems)


def test_a_name_that_is_cut_for_display_does_not_hide_another():
    stream = b"cm\n" + b"a" * 300 + b"\ncm\n" + b"a" * 300 + b".os.system\n."
    assert len(scan_bytes(stream).dangerous) == 1


def test_nothing_before_a_break_is_lost():
    report = scan_bytes(BOMB[:-1])
    assert report.dangerous == ["posix.system"]
    assert "breaks off" in report.damaged


def test_pickles_after_the_first_are_read():
    report = scan_bytes(pickle.dumps(1) + pickle.dumps({}) + BOMB)
    assert (report.pickles, report.dangerous) == (3, ["posix.system"])
    assert "after its last pickle" in scan_bytes(pickle.dumps(1) + b"\xff\xff").problems[0]
    assert scan_bytes(torch_bytes(WEIGHTS, legacy=True) + b"\xff").clean


def test_extension_codes_and_nested_bytes():
    assert scan_bytes(b"\x80\x02\x82\x07.").unknown == ["copyreg.extension code 7"]
    assert scan_bytes(pickle.dumps({"blob": BOMB})).dangerous == ["posix.system"]
    assert scan_bytes(pickle.dumps({"blob": zipped(("x/data.pkl", BOMB))})).dangerous == ["posix.system"]
    assert scan_bytes(pickle.dumps(torch.ones(2))).unknown == ["torch.storage._load_from_bytes"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["m/data.pkl", "M/DATA.PKL", "m/data/0", "odd"])
def test_zip_members_are_judged_by_content(name, method):
    report = scan_bytes(zipped(("m/version", b"3"), (name, BOMB), method=method))
    assert report.dangerous == ["posix.system"]
    assert report.places["posix.system"].endswith(name)


def test_flags_and_checksums_hide_nothing():
    data = bytearray(zipped(("m/data.pkl", BOMB)))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1  # marked as encrypted
    data[central + 16 : central + 20] = b"\1\2\3\4"  # wrong checksum
    report = scan_bytes(bytes(data))
    assert report.dangerous == ["posix.system"]
    assert any("encrypted" in p for p in report.problems)


def test_oddities_of_zip_archives_are_reported():
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped(("a/data.pkl", pickle.dumps(1)), ("a/data.pkl", BOMB))
    report = scan_bytes(twice)
    assert report.dangerous == ["posix.system"]
    assert any("more than once" in p for p in report.problems)
    assert any("leaves its folder" in p for p in scan_bytes(zipped(("../../x", b"1"))).problems)
    renamed = zipped(("a/data.pkl", BOMB)).replace(b"a/data.pkl", b"a/data.txt", 1)
    assert any("another name" in p for p in scan_bytes(renamed).problems)
    assert "damaged zip" in scan_bytes(zipped(("a/data.pkl", BOMB))[:-30]).damaged
    unusual = zipped(("a/data.pkl", BOMB), method=zipfile.ZIP_LZMA)
    assert any("compression method" in p for p in scan_bytes(unusual).problems)


def test_zip_bombs_are_not_inflated():
    bomb = zipped(("a/data.pkl", b"\0" * 30_000_000), method=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    report = scan_bytes(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any("zip bomb" in p for p in report.problems)
    assert peak < 5e6
    same = bytearray(zipped(*((f"{i}.pkl", BOMB) for i in range(60))))
    at = 0
    while (at := same.find(b"PK\x01\x02", at + 1)) >= 0:
        same[at + 20 : at + 24] = struct.pack("<L", len(same) // 2)  # every member claims half of the file
    assert "overlap" in scan_bytes(bytes(same)).damaged
    modest = ScanLimits(max_inflated=1000, max_ratio=1e9)
    assert "limit" in scan_bytes(zipped(("a/x.pkl", b"\0" * 5000), method=zipfile.ZIP_DEFLATED), modest).damaged


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (ScanLimits(max_opcodes=100), b"\x80\x02" + b"]0" * 200),
        (ScanLimits(max_stack=100), b"\x80\x02" + b"]" * 200),
        (ScanLimits(max_stack=100), b"\x80\x04]" + b"\x94" * 200),
        (ScanLimits(max_imports=3), b"".join(b"cm\n%d\n" % i for i in range(9)) + b"."),
        (ScanLimits(max_members=2), zipped(*((str(i), b"x") for i in range(5)))),
        (ScanLimits(max_depth=1), pickle.dumps(pickle.dumps(pickle.dumps(b"x" * 10)))),
    ],
)
def test_every_bound_ends_the_scan_with_a_reason(limits, data):
    report = scan_bytes(data, limits)
    assert "limit" in report.damaged
    assert not report.clean


def test_text_beyond_what_is_kept_ends_the_scan():
    stream = b"\x80\x04" + text("collections") + text("OrderedDict") + b"\x93."
    assert scan_bytes(stream).clean
    assert "more text" in (scan_bytes(stream, ScanLimits(max_kept=5)).damaged or "")


def test_claimed_sizes_are_not_allocated():
    tracemalloc.start()
    for data in (b"\x80\x04\x8e" + struct.pack("<Q", 10 << 30), b"\x80\x04\x8d" + struct.pack("<Q", 10 << 30) + b"ab"):
        assert "breaks off" in scan_bytes(data).damaged
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_tar_and_numpy_containers(tmp_path):
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        for name, data in (("pickle", BOMB), ("storages", pickle.dumps(0)), ("../up", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    report = scan(tmp_path / "old.pt")
    assert report.dangerous == ["posix.system"]
    assert any("leaves its folder" in p for p in report.problems)
    np.save(tmp_path / "plain.npy", np.arange(5.0))
    assert scan(tmp_path / "plain.npy").pickles == 0
    np.save(tmp_path / "objects.npy", np.array([Call(os.system, "true")], dtype=object), allow_pickle=True)
    assert scan(tmp_path / "objects.npy").dangerous == ["posix.system"]
    np.savez(tmp_path / "many.npz", a=np.arange(3), b=np.array([PurePosixPath("x")], dtype=object))
    assert ("pathlib", "PurePosixPath") in scan(tmp_path / "many.npz").imports
    assert scan(tmp_path / "many.npz").clean


def test_a_large_file_is_read_through_a_window(tmp_path, monkeypatch):
    monkeypatch.setattr("vestige.core.models.pickle_scan._IN_MEMORY", 10)
    (tmp_path / "m.pt").write_bytes(torch_bytes(WEIGHTS, legacy=True))
    assert scan(tmp_path / "m.pt").clean
    (tmp_path / "m.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert scan(tmp_path / "m.pkl").dangerous == ["os.system"]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(b"x" * 5000))
    assert "limit" in scan(tmp_path / "m.pkl", ScanLimits(max_item=1000)).damaged


def test_missing_files_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        scan(tmp_path / "none.pt")
    with pytest.raises(InputError, match="cannot be read"):
        scan(tmp_path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x) | st.tuples(x, x),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_data_imports_nothing_dangerous(value, protocol):
    report = scan_bytes(pickle.dumps(value, protocol))
    assert report.damaged is None
    assert set(report.imports) <= {("_codecs", "encode"), ("builtins", "bytes"), ("__builtin__", "bytes")}


@settings(max_examples=60, deadline=None)
@given(values=st.lists(plain, max_size=4), protocol=st.integers(0, 5), at=st.integers(0, 4))
def test_a_call_is_seen_wherever_it_hides(values, protocol, at):
    values.insert(min(at, len(values)), collections.OrderedDict(x=[Call(eval, "1")]))
    assert scan_bytes(pickle.dumps(values, protocol)).dangerous == ["builtins.eval"]


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_report(data):
    assert isinstance(scan_bytes(b"\x80\x04" + data).clean, bool)
