"""Kinds of models and of attacks on their readers: never called harmless unless all of the file is known."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from vestige.app.verbs import finding as verb
from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.errors import OK, TRACE_FOUND, UNVOUCHED, InputError
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.models.pickle_scan import scan, scan_anything, scan_bytes

VOUCH = "cannot be vouched for"


class Call:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts[0], self.parts[1:]


EVIL = pickle.dumps(Call(os.system, "true"))
OLD = b"cos\nsystem\n(S'true'\ntR."


def answer(path) -> str:
    return PickleScan().find(ModelSubject.open(path)).details["answer"]


def written(path, data: bytes):
    path.write_bytes(data)
    return path


def archive(*members: tuple[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


# what either reader of pickles takes


@pytest.mark.parametrize("first", [b"I0x1\n0", b"L0x1L\n0", b"I010\n0", b"L1\x00junk\n0", b"S'\xe9'\n0", b"V\xe9\n0"])
def test_numbers_and_strings_that_only_the_c_reader_takes_hide_nothing(first, tmp_path):
    assert scan_bytes(first + OLD).dangerous == ["os.system"]
    assert answer(written(tmp_path / "m.pt", archive(("a/data.pkl", first + OLD)))) == "dangerous"
    assert scan_bytes(b"\x80\x04}." + first + OLD).dangerous == ["os.system"], "as a second pickle"


def test_escapes_in_names_are_read_as_the_readers_read_them():
    assert scan_bytes(b"\x80\x04S'o\\x73'\nS'system'\n\x93.").dangerous == ["os.system"]
    assert scan_bytes(b"co\\x73\nsystem\n.").imports == [("o\\x73", "system")], "GLOBAL has no escapes"
    assert not scan_bytes("cmodül\nf\n.".encode()).clean


def test_the_python_reader_goes_on_behind_a_frame_that_is_too_long():
    assert scan_bytes(b"\x80\x04\x95" + struct.pack("<Q", 10_000) + OLD).dangerous == ["os.system"]


def test_a_class_that_is_changed_is_not_vouched_for():
    report = scan_bytes(b"ccollections\nOrderedDict\n}S'x'\nI1\nsb.")
    assert report.answer == VOUCH
    assert "itself" in report.problems[0]


def test_the_pickle_of_a_checkpoint_is_inflated_whatever_its_ratio(tmp_path):
    padded = b"\x80\x04" + b"N0" * 2_000_000 + b"cos\nsystem\n(\x8c\x04truetR."
    data = archive(("a/data.pkl", padded), method=zipfile.ZIP_DEFLATED)
    report = scan_bytes(data)
    assert report.answer != "harmless", report
    bomb = archive(("a/data.pkl", bytes(30_000_000)), method=zipfile.ZIP_DEFLATED)
    found = PickleScan().find(ModelSubject.open(written(tmp_path / "m.pt", bomb)))
    assert found.details["answer"] == VOUCH
    assert "no pickle" not in found.summary


def test_what_cannot_be_read_is_never_called_free_of_pickles(tmp_path):
    for name, data in (("cut.pt", archive(("a/data.pkl", b"Q"))), ("odd.pt", archive(("a/data.pkl", b"?" * 9)))):
        assert answer(written(tmp_path / name, data)) == VOUCH


def test_a_picture_that_is_also_a_pickle(tmp_path):
    gif = b"GIF89a" + bytes(3) + b"0" + OLD  # G reads eight bytes as a number
    assert answer(written(tmp_path / "m.pt", gif)) == "dangerous"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").write_text("{}")
    written(tmp_path / "f" / "logo.gif", gif)
    assert answer(tmp_path / "f") == "dangerous"


def test_the_bytes_of_raw_weights_are_tried_as_a_pickle(tmp_path):
    # U reads eight characters, among them the beginning of a header
    path = written(tmp_path / "m.safetensors", b"U\x08" + bytes(6) + b'{"0' + OLD)
    assert scan_anything(path, weights=True).dangerous == ["os.system"]
    for first in range(256):  # whatever the length of the header is, it says nothing
        header = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'.ljust(256 + first)
        data = struct.pack("<Q", len(header)) + header + bytes(4)
        assert answer(written(tmp_path / "w.safetensors", data)) == "harmless"


# ordinary models


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_dumps_are_read_to_their_end(tmp_path, compress):
    arrays = {
        "a": np.arange(1000.0), "b": np.zeros((0, 3)), "c": np.array(["x", "yz"]), "d": np.array(5),
        "e": np.ones((3, 4), np.float16, order="F"), "f": np.zeros(2, "datetime64[s]"), "g": np.ones(4, bool),
    }  # fmt: skip
    joblib.dump(arrays, tmp_path / "m.joblib", compress=compress)
    assert answer(tmp_path / "m.joblib") == "harmless"
    joblib.dump({**arrays, "o": np.array([1, "x", None], object)}, tmp_path / "o.joblib", compress=compress)
    assert answer(tmp_path / "o.joblib") == "harmless"
    for trap in (
        {**arrays, "z": Call(os.system, "true")},
        {"o": np.array([Call(os.system, "true")], object), **arrays},
    ):
        joblib.dump(trap, tmp_path / "t.joblib", compress=compress)
        assert answer(tmp_path / "t.joblib") == "dangerous"


def test_bytes_of_an_array_that_a_plain_reader_would_run():
    buffer = io.BytesIO()
    joblib.dump(np.frombuffer(OLD.ljust(64), np.uint8), buffer)
    plain = bytearray(buffer.getvalue())
    begin, at = plain.index(b"K\x10ub"), plain.index(OLD)
    plain[3] -= 1  # the frame is shorter by the byte that is left out
    plain[begin:at] = b"Nub"
    assert scan_bytes(bytes(plain)).dangerous == ["os.system"]


def test_arrays_of_joblib_used_in_another_way_are_not_vouched_for():
    name = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n"
    for stream in (
        b"\x80\x02ccopyreg\n_reconstructor\n(" + name + b"c__builtin__\nobject\nNtR}b0N.",
        b"\x80\x02" + name + b".",
        b"\x80\x02" + name + b")\x81}b.",
        b"\x80\x02" + name + b")\x81}(X\x05\x00\x00\x00shapeK\x05\x85ub.",
    ):
        assert scan_bytes(stream).answer == VOUCH


def test_random_states_and_paths_are_harmless(tmp_path):
    import pathlib

    content = [
        np.random.RandomState(0), np.random.default_rng(1), np.random.Generator(np.random.Philox(2)),
        pathlib.PurePosixPath("x"), np.ma.masked_array([1.0], [True]), np.float32(1), np.zeros(2, [("n", "<i4")]),
    ]  # fmt: skip
    torch.save({"w": torch.ones(2), "rng": content[1]}, tmp_path / "m.pt")
    assert answer(tmp_path / "m.pt") == "harmless"
    for protocol in range(6):
        for item in content:
            report = scan_bytes(pickle.dumps(item, protocol))
            assert report.answer == "harmless", (protocol, report)
    assert scan_bytes(b"cpathlib._local\nWindowsPath\n(X\x01\x00\x00\x00xtR.").answer == "harmless"


def test_estimators_of_scikit_learn_are_not_called_dangerous(tmp_path):
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    for model in (
        LogisticRegression(), make_pipeline(StandardScaler(), SVC()), KNeighborsClassifier(algorithm="kd_tree"),
        RandomForestClassifier(3), GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
    ):  # fmt: skip
        joblib.dump(model.fit(features, labels), tmp_path / "m.joblib")
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
        for name in ("m.joblib", "m.pkl"):
            found = PickleScan().find(ModelSubject.open(tmp_path / name))
            assert found.details["answer"] == "harmless", found.evidence


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pkl.gz"])
def test_compressed_pickles_are_inflated(tmp_path, pack, name):
    assert answer(written(tmp_path / name, pack(EVIL))) == "dangerous"
    assert answer(written(tmp_path / name, pack(pickle.dumps([1, 2])))) == "harmless"
    assert answer(written(tmp_path / name, pack(EVIL)[:-5])) == VOUCH
    assert answer(written(tmp_path / name, pack(pickle.dumps(1)) + pack(EVIL))) == VOUCH


def test_files_of_numpy(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.arange(3), b=np.ones(2))
    np.savez_compressed(tmp_path / "c.npz", a=np.zeros(100_000))
    np.save(tmp_path / "w.npy", np.zeros(3, [("Open", "<i4"), ("b", "U3")]))
    for name in ("w.npz", "c.npz", "w.npy"):
        assert answer(tmp_path / name) == "harmless"
    np.save(tmp_path / "o.npy", np.array([Call(os.system, "true")], object))
    np.savez(tmp_path / "o.npz", a=np.array([Call(os.system, "true")], object))
    assert answer(tmp_path / "o.npy") == answer(tmp_path / "o.npz") == "dangerous"
    for descr in ("'|O'", "'|' 'O'", "'\\x7cO'", "[('a', '<i4'), ('b', [('c', '|O8')])]", "('O', (2,))"):
        table = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}".rjust(70_000).encode()
        data = b"\x93NUMPY\x02\x00" + struct.pack("<L", len(table)) + table + EVIL
        assert scan_bytes(data).dangerous == ["posix.system"], descr


# other formats


FOREIGN = [
    ("m.7z", b"7z\xbc\xaf\x27\x1c" + bytes(20), "7z"), ("m.pkl", b"\x28\xb5\x2f\xfd" + bytes(9), "Zstandard"),
    ("m.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(9), "TensorFlow Lite"), ("m.ggml", b"lmgg" + bytes(9), "GGML"),
    ("m.mlmodel", b"\x08\x04", "Core ML"), ("m.mar", archive(("a.pt", archive(("b.so", b"x")))), "a program"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "format"), FOREIGN)
def test_other_formats_are_said_to_be_not_examined(tmp_path, name, data, format):
    found = PickleScan().find(ModelSubject.open(written(tmp_path / name, data)))
    assert found.details["answer"] == VOUCH
    assert any(f"{format}, which is not examined" in line for line in found.evidence)
    with pytest.raises(InputError):
        ModelSubject.open(tmp_path / name).tensors()


def test_names_decide_nothing_and_new_dtypes_are_known(tmp_path):
    assert answer(written(tmp_path / "p.safetensors", EVIL)) == "dangerous"
    header = json.dumps({"w": {"dtype": "F8_E4M3FNUZ", "shape": [4], "data_offsets": [0, 4]}}).encode()
    assert answer(written(tmp_path / "w.safetensors", struct.pack("<Q", len(header)) + header + bytes(4))) == "harmless"


# folders


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "bert"}')
    (place / "README.md").write_text("# A model\n")
    save_file({"w": torch.ones(2)}, place / "model.safetensors")
    return place


def test_an_ordinary_folder_is_harmless(folder):
    template = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "vocab.txt").write_text("[PAD]\n")
    torch.save({"w": torch.ones(2)}, folder / "optimizer.pt")
    assert answer(folder) == "harmless"


@pytest.mark.parametrize("name", [".hidden", ".cache/x", "notes.txt", "sub/deep.dat", "README.md"])
@pytest.mark.parametrize("data", [EVIL, OLD])
def test_a_pickle_under_any_name_is_found(folder, name, data):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    assert answer(folder) == "dangerous"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "modeling.Net"}}'),
        ("config.json", '{"auto_map": {"AutoModel": "someone/else--modeling.Net"}}'),
        ("config.json", '{"_attn_implementation": "someone/kernel"}'),
        ("modeling.py", "import os"), ("model.h5", "x"), ("run.sh", "x"), ("libx.so", "x"), ("model.onnx", "x"),
        ("blob", "\x00\x01\x02"), ("start", "#!/bin/sh\n"), ("extra.json", "{"),
        ("model_index.json", '{"unet": ["os", "system"]}'),
    ],
)  # fmt: skip
def test_code_and_unknown_files_are_not_vouched_for(folder, name, text):
    (folder / name).write_text(text)
    assert answer(folder) == VOUCH


# on the command line


def test_each_answer_has_its_exit_code_and_nothing_steers_the_terminal(tmp_path, capsys):
    good = written(tmp_path / "good.safetensors", save({"w": torch.ones(2)}))
    odd = written(tmp_path / "odd\x1b[2J.pkl", b"\x80\x04\x8c\x06m\x1b[2Jo\x8c\x01n\x93.")
    bad = written(tmp_path / "bad.pkl", EVIL)
    options = {
        "out": None, "html": None, "keys": (), "only": (), "jobs": 1, "timeout": 9, "max_megapixels": 9.0,
        "fresh": False, "verbose": False, "quiet": False,
    }  # fmt: skip
    codes = [verb.run([p], as_json=False, **options) for p in (good, odd, bad)]
    assert codes == [OK, UNVOUCHED, TRACE_FOUND]
    assert verb.run([good, odd], as_json=False, **options) == UNVOUCHED
    assert verb.run([odd, good, bad], as_json=False, **options) == TRACE_FOUND
    assert "\x1b" not in capsys.readouterr().out
    assert verb.run([good, bad], as_json=True, **options) == TRACE_FOUND
    assert len(json.loads(capsys.readouterr().out)["items"]) == 2


def test_scan_reports_the_answer(tmp_path):
    assert scan(written(tmp_path / "a.pkl", EVIL)).answer == "dangerous"
    assert scan_bytes(pickle.dumps(print)).answer == VOUCH
    assert scan_bytes(pickle.dumps([1.5, "x", {"a": (1, 2)}])).answer == "harmless"


@pytest.mark.parametrize(
    "name",
    [
        "_thread.start_new_thread", "jinja2.Template", "huggingface_hub.hf_hub_download", "test.support.run",
        "tensorflow.python.framework.load_library.load_op_library", "unittest.main", "py_compile.main", "glob.glob",
    ],
)  # fmt: skip
def test_modules_that_are_dangerous_as_a_whole(name):
    module, _, last = name.rpartition(".")
    assert scan_bytes(f"c{module}\n{last}\n.".encode()).dangerous == [name]
