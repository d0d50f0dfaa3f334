import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from vestige.core.errors import InputError, LimitError, UsageError
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.models.safetensors_header import read_header
from vestige.core.subjects import open_subject

WEIGHTS = {
    "layer.weight": torch.arange(12.0).reshape(3, 4),
    "layer.bias": torch.ones(3, dtype=torch.bfloat16),
    "steps": torch.tensor(7),
}
SHAPES = {"layer.weight": ((3, 4), "float32"), "layer.bias": ((3,), "bfloat16"), "steps": ((), "int64")}


class Call:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts[0], self.parts[1:]


def write(path, format, content=WEIGHTS):
    if format == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "torch")
    return path


def raw_safetensors(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize("format", ["safetensors", "torch", "pickle"])
def test_every_format_tells_and_loads_the_same_weights(tmp_path, format):
    subject = open_subject(write(tmp_path / "model.any", format))
    assert isinstance(subject, ModelSubject)
    assert (subject.kind, subject.format) == ("weights", format)
    assert subject.tensors() == SHAPES
    loaded = subject.state_dict()
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[k], v) for k, v in WEIGHTS.items())
    assert len(subject.sha256) == 64
    with pytest.raises(UsageError, match="without an architecture"):
        subject.load()


@pytest.mark.parametrize("format", ["torch", "pickle"])
def test_the_weights_of_a_training_checkpoint(tmp_path, format):
    content = {"epoch": 3, "optimizer": {"lr": 0.1, "state": {0: torch.ones(2)}}, "state_dict": WEIGHTS}
    subject = ModelSubject.open(write(tmp_path / "c.ckpt", format, content))
    assert subject.tensors() == SHAPES
    with pytest.raises(InputError, match="no named tensors"):
        ModelSubject.open(write(tmp_path / "n.ckpt", format, {"epoch": 3})).state_dict()


def test_headers_suffice_to_describe_weights(tmp_path):
    big = torch.zeros(6_000_000)
    for format in ("safetensors", "torch"):
        subject = ModelSubject.open(write(tmp_path / f"big.{format}", format, {"w": big}))
        tracemalloc.start()
        assert subject.tensors() == {"w": ((6_000_000,), "float32")}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6, format


@pytest.mark.parametrize("format", ["torch", "pickle"])
@pytest.mark.parametrize("function", [os.mkdir, eval])
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path, format, function):
    trap = str(tmp_path / "trap")
    argument = trap if function is os.mkdir else f"open({trap!r}, 'w')"
    path = write(tmp_path / "m.pt", format, {"w": torch.ones(2), "x": Call(function, argument)})
    subject = ModelSubject.open(path)
    name = "posix.mkdir" if function is os.mkdir else "builtins.eval"
    for action in (subject.tensors, subject.state_dict):
        with pytest.raises(InputError, match=f"imports {name}"):
            action()
    assert not os.path.exists(trap)
    pickle.loads(pickle.dumps(Call(function, argument)))
    assert os.path.exists(trap), "the trap itself works"


def test_a_whole_module_is_refused_with_advice(tmp_path):
    subject = ModelSubject.open(write(tmp_path / "m.pt", "torch", torch.nn.Linear(2, 2)))
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        subject.state_dict()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": ENTRY | {"data_offsets": [0, 80]}, "b": 1}, 8, "outside the file"),
        ({"a": ENTRY | {"data_offsets": [-8, 0]}}, 8, "outside the file"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, 8, "outside the file"),
        ({"a": ENTRY | {"data_offsets": [0, 8.0]}}, 8, "outside the file"),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, 12, "overlaps"),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, 20, "gap"),
        ({"a": ENTRY}, 12, "belong to none"),
        ({"a": ENTRY | {"shape": [3]}}, 8, "as many bytes"),
        ({"a": ENTRY | {"shape": [2**62, 2**62]}}, 8, "as many bytes"),
        ({"a": ENTRY | {"shape": [2**64, 0]}}, 8, "valid shape"),
        ({"a": ENTRY | {"shape": [True, 2]}}, 8, "valid shape"),
        ({"a": ENTRY | {"dtype": "F33"}}, 8, "dtype"),
        ({"a": ENTRY | {"dtype": ["F32"]}}, 8, "dtype"),
        ({"a": 5}, 8, "table"),
        ([1], 8, "table"),
        (b'{"a":{},"a":{}}', 8, "twice"),
        (b"[" * 100_000, 0, "damaged"),
        (b"{\xff}", 0, "damaged"),
        (b"{", 0, "damaged"),
    ],
)
def test_bad_safetensors_headers_are_refused(tmp_path, header, data, reason):
    path = raw_safetensors(tmp_path / "m.safetensors", header, bytes(data))
    with pytest.raises(InputError, match=reason):
        ModelSubject.open(path)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_length_that_starts_like_a_pickle(tmp_path, length):
    path = raw_safetensors(tmp_path / "m.bin", json.dumps({"a": ENTRY}).ljust(length).encode(), bytes(8))
    subject = ModelSubject.open(path)
    assert (subject.format, subject.pickles()) == ("safetensors", {})
    assert subject.state_dict()["a"].tolist() == [0, 0]


def test_header_lengths_are_checked_before_anything_is_read(tmp_path):
    short = raw_safetensors(tmp_path / "a.safetensors", {"a": ENTRY}, length=10_000)
    with pytest.raises(InputError, match="ends before its header"):
        ModelSubject.open(short)
    bomb = raw_safetensors(tmp_path / "b.safetensors", b"{", length=40 * 2**20)
    os.truncate(bomb, 50 * 2**20)
    with pytest.raises(LimitError, match="limit is 32 MiB"):
        ModelSubject.open(bomb)


def test_ten_gigabytes_of_nothing_are_not_allocated(tmp_path):
    size = 10 * 2**30
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    claimed = raw_safetensors(tmp_path / "claimed.safetensors", header, bytes(8))
    with pytest.raises(InputError, match="outside the file"):
        ModelSubject.open(claimed)
    sparse = raw_safetensors(tmp_path / "sparse.safetensors", header)
    os.truncate(sparse, sparse.stat().st_size + size)
    tracemalloc.start()
    assert ModelSubject.open(sparse).tensors() == {"a": ((size,), "uint8")}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "no model"),
        (b"some text that is no pickle at all", "no model"),
        (b"PK\x03\x04 and no directory", "damaged zip"),
        (b"PK\x05\x06" + bytes(18), "no model"),
    ],
)
def test_other_files_are_refused(tmp_path, content, reason):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        ModelSubject.open(tmp_path / "m.pt")


def test_missing_paths_and_other_archives(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ModelSubject.open(tmp_path / "none")
    with pytest.raises(InputError, match="no model folder"):
        ModelSubject.open(tmp_path)
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"no data\.pkl"):
        ModelSubject.open(tmp_path / "x.zip")


def test_pickles_without_a_signature_are_opened(tmp_path):
    (tmp_path / "old").write_bytes(pickle.dumps({"a": 1}, 0))
    assert ModelSubject.open(tmp_path / "old").format == "pickle"
    (tmp_path / "bad").write_bytes(b"cos\nsystem\n(S'true'\ntR")
    subject = ModelSubject.open(tmp_path / "bad")
    assert subject.pickles()[subject.path].dangerous == ["os.system"]


# folders


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    module = BertModel(BertConfig(vocab_size=11, max_position_embeddings=8, **sizes))
    folder = tmp_path_factory.mktemp("bert")
    module.save_pretrained(folder)
    return module.eval(), folder


def copy(folder, target):
    import shutil

    shutil.copytree(folder, target)
    return target


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_transformers_folder_loads_and_runs(bert):
    module, folder = bert
    subject = open_subject(folder)
    assert (subject.kind, subject.format) == ("transformers", "safetensors")
    assert subject.tensors().keys() == subject.state_dict().keys()
    ids = torch.tensor([[1, 2, 3]])
    loaded = subject.load()
    assert not loaded.training
    assert torch.equal(loaded(ids).last_hidden_state, module(ids).last_hidden_state)


def test_pickled_folders_load_only_when_the_scan_is_clean(bert, tmp_path):
    module, folder = bert
    folder = copy(folder, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    subject = ModelSubject.open(folder)
    assert subject.format == "torch"
    assert torch.equal(subject.load().embeddings.word_embeddings.weight, module.embeddings.word_embeddings.weight)
    torch.save({"n": Call(print, "x")}, folder / "training_args.bin")
    assert ModelSubject.open(folder).load() is not None, "files the library never opens may hold unknown imports"
    torch.save(module.state_dict() | {"x": Call(os.system, "true")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"posix\.system"):
        ModelSubject.open(folder).load()


def test_shards_are_followed_through_their_index(bert, tmp_path):
    module, folder = bert
    folder = copy(folder, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    state = module.state_dict()
    names = sorted(state)
    parts = {"model-1-of-2.safetensors": names[:5], "model-2-of-2.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({n: state[n] for n in part}, folder / file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    weight_map = {n: file for file, part in parts.items() for n in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    subject = ModelSubject.open(folder)
    assert subject.tensors().keys() == state.keys()
    assert torch.equal(subject.load().embeddings.word_embeddings.weight, module.embeddings.word_embeddings.weight)
    for wrong, reason in (("../m.safetensors", "no name"), ("/etc/passwd", "no name"), ("x.safetensors", "missing")):
        edit(index, weight_map={"a": wrong})
        with pytest.raises(InputError, match=reason):
            ModelSubject.open(folder)
    edit(index, weight_map=[])
    with pytest.raises(InputError, match="no name"):
        ModelSubject.open(folder)


def test_folders_that_bring_code_are_refused(bert, tmp_path):
    folder = copy(bert[1], tmp_path / "m")
    config = folder / "config.json"
    (folder / "modeling_x.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')")
    edit(config, architectures=["XModel"], auto_map={"AutoModel": "modeling_x.XModel"}, model_type="x")
    with pytest.raises(InputError, match="XModel needs Python code"):
        ModelSubject.open(folder).load()
    edit(config, architectures=["BertModel"], model_type="bert", _attn_implementation="someone/kernel")
    with pytest.raises(InputError, match="attention code"):
        ModelSubject.open(folder).load()
    edit(config, architectures=["os"], model_type="nothing", _attn_implementation=None, auto_map=None)
    with pytest.raises(InputError, match=r"cannot be loaded|Python code"):
        ModelSubject.open(folder).load()
    assert not (tmp_path / "trap").exists()
    (folder / "model.safetensors").unlink()
    for action in ("tensors", "state_dict"):
        with pytest.raises(InputError, match="holds no weights"):
            getattr(ModelSubject.open(folder), action)()
    config.write_text("[]")
    with pytest.raises(InputError, match="no table"):
        ModelSubject.open(folder)


def test_the_digest_of_a_folder_covers_names_and_content(bert, tmp_path):
    folder = copy(bert[1], tmp_path / "m")
    before = ModelSubject.open(folder).sha256
    assert before == ModelSubject.open(bert[1]).sha256
    (folder / "note.txt").write_text("x")
    assert ModelSubject.open(folder).sha256 != before


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=8, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks)
    folder = tmp_path_factory.mktemp("ddpm")
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=10)).save_pretrained(folder)
    return unet, folder


def test_a_diffusers_folder_loads(pipeline):
    unet, folder = pipeline
    subject = open_subject(folder)
    assert (subject.kind, subject.format) == ("diffusers", "safetensors")
    assert set(subject.tensors()) == {f"unet.{name}" for name in unet.state_dict()}
    loaded = subject.load()
    assert torch.equal(loaded.unet.conv_in.weight, unet.conv_in.weight)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": ["mine", "Pipeline"]},
        {"_class_name": "UNet2DModel"},
        {"_class_name": "No.Such"},
        {"unet": ["os", "system"]},
        {"unet": ["subprocess", "Popen"]},
        {"unet": ["mine", "Unet"]},
        {"unet": [["diffusers"], "Unet"]},
    ],
)
def test_pipelines_with_code_of_their_own_are_refused(pipeline, tmp_path, change):
    folder = copy(pipeline[1], tmp_path / "m")
    edit(folder / "model_index.json", **change)
    with pytest.raises(InputError, match="not loaded"):
        ModelSubject.open(folder).load()


def test_python_files_beside_a_component_are_refused(pipeline, tmp_path):
    folder = copy(pipeline[1], tmp_path / "m")
    (folder / "unet" / "diffusers.py").write_text("raise SystemExit")
    with pytest.raises(InputError, match="Python code"):
        ModelSubject.open(folder).load()


def test_opening_and_scanning_do_not_import_torch(tmp_path):
    write(tmp_path / "m.safetensors", "safetensors")
    write(tmp_path / "m.pt", "torch")
    code = (
        "import sys\nfrom vestige.core.models.checkpoint import ModelSubject\n"
        "for path in sys.argv[1:]: ModelSubject.open(path).pickles()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    paths = [str(tmp_path / "m.safetensors"), str(tmp_path / "m.pt")]
    assert subprocess.run([sys.executable, "-c", code, *paths], check=False).returncode == 0


def test_header_matches_the_library(tmp_path):
    from safetensors import safe_open

    path = write(tmp_path / "m.safetensors", "safetensors")
    with safe_open(path, "pt") as file:
        assert {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()} == {  # noqa: SIM118
            n: shape for n, (shape, _) in read_header(path).items()
        }
