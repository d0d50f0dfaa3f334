"""Formats that are no pickles: harmless where all is known, dangerous where a danger is named, else not vouched for."""

import ast
import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from benchmarks.model_makers import (
    DENSE,
    archive,
    field,
    gguf,
    graph_def,
    hdf5,
    keras,
    layer,
    onnx,
    onnx_node,
    onnx_tensor,
    saved_model,
    sequential,
)

from vestige.app.verbs import finding as verb
from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.bounded import LimitReached, parse_json
from vestige.core.errors import OK, TRACE_FOUND, UNVOUCHED, UsageError, VestigeError
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.subjects import open_subject

HARMLESS, DANGEROUS, VOUCH = "harmless", "dangerous", "cannot be vouched for"
LAMBDA = layer("Lambda", {"function": {"class_name": "__lambda__", "config": {"code": "4wAA"}}})


def answer(path) -> str:
    return PickleScan().find(ModelSubject.open(path)).details["answer"]


@pytest.fixture
def judged(tmp_path):
    def judge(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        return answer(tmp_path / name)

    return judge


# ONNX


def test_onnx_of_known_operators_is_harmless(judged):
    data = onnx(
        [onnx_node("Conv"), onnx_node("Relu"), onnx_node("TreeEnsembleRegressor", "ai.onnx.ml")], [onnx_tensor("w")]
    )
    assert judged("m.onnx", data) == HARMLESS
    assert judged("m.onnx", onnx([onnx_node("FusedMatMul", "com.microsoft")])) == HARMLESS
    assert judged("m.onnx", data[:-3]) == VOUCH
    assert judged("m.onnx", data + field(77, 1)) == VOUCH, "a part that the format lacks"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("w.bin", HARMLESS), ("sub/w.bin", VOUCH), ("", VOUCH), ("../w.bin", DANGEROUS), ("/etc/passwd", DANGEROUS),
        ("a/../../w.bin", DANGEROUS), ("a\\..\\..\\w.bin", DANGEROUS), ("C:\\w.bin", DANGEROUS), ("link", DANGEROUS),
        ("file:///etc/passwd", DANGEROUS), ("~/w.bin", DANGEROUS),
    ],
)  # fmt: skip
def test_onnx_takes_data_from_its_folder_alone(judged, tmp_path, location, expected):
    (tmp_path / "w.bin").write_bytes(bytes(8))
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert judged("m.onnx", onnx([onnx_node("Relu")], [onnx_tensor("w", location=location)])) == expected


def test_external_data_of_onnx_is_found_in_attributes_and_subgraphs(judged):
    tensor = onnx_tensor("w", location="/etc/passwd")
    constant = onnx_node("Constant", attributes=[field(1, "value") + field(5, tensor)])
    inner = field(1, constant) + field(2, "then")
    nested = onnx_node("If", attributes=[field(1, "then_branch") + field(6, inner)])
    for node in (constant, nested):
        assert judged("m.onnx", onnx([node])) == DANGEROUS


def test_operators_of_onnx_that_are_not_known(judged):
    assert judged("m.onnx", onnx([onnx_node("Gelu", "someone")])) == VOUCH
    assert judged("m.onnx", onnx([onnx_node("NoSuchOperator")])) == VOUCH
    assert judged("m.onnx", onnx([onnx_node("PyOp", "ai.onnx.contrib")])) == DANGEROUS
    assert judged("m.onnx", onnx([onnx_node("EPContext", "com.microsoft")])) == DANGEROUS
    function = field(1, "Mine") + field(10, "own") + field(7, onnx_node("Relu"))
    assert judged("m.onnx", onnx([onnx_node("Mine", "own")], extra=field(25, function))) == HARMLESS
    function = field(1, "Mine") + field(10, "own") + field(7, onnx_node("Relu", "other"))
    assert judged("m.onnx", onnx([onnx_node("Mine", "own")], extra=field(25, function))) == VOUCH


# GGUF and templates

PLAIN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}{% endfor %}"


def test_gguf_is_read_to_its_end(judged):
    data = gguf({"general.name": "x", "tokenizer.ggml.tokens": ["a", "b"], "n": 5}, {"w": (4, 8), "v": (3,)})
    assert judged("m.gguf", data) == judged("m.bin", data) == HARMLESS
    assert judged("m.gguf", data[:-40]) == VOUCH, "a tensor outside of the file"
    assert judged("m.gguf", gguf({"a": 1}, version=9)) == VOUCH
    assert judged("m.gguf", data[:60]) == VOUCH
    huge = b"GGUF\x03\0\0\0" + bytes(8) + (1).to_bytes(8, "little") + (2**60).to_bytes(8, "little") + b"key"
    assert judged("m.gguf", huge) == VOUCH


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PLAIN, HARMLESS),
        (
            "{%- set ns = namespace(a=0) -%}{% for m in xs[1:] %}{% set ns.a = ns.a + 1 %}{% break %}{% endfor %}",
            HARMLESS,
        ),
        ("{% macro f(x) %}{{ x|tojson(indent=4) }}{% endmacro %}{{ f(tools) }}{{ raise_exception('no') }}", HARMLESS),
        (
            "{% if m.content is string and m.content.startswith('a') %}{{ m.content.split('</t>')[-1] }}{% endif %}",
            HARMLESS,
        ),
        ("{% generation %}{{ message.content }}{% endgeneration %}{{ strftime_now('%d %b %Y') }}", HARMLESS),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}", HARMLESS),
        ("{{ '{}: {}'.format(a, b) }} {{ '%s' | format(a) }}", HARMLESS),
        ("{{ x.__class__.__mro__ }}", DANGEROUS),
        ("{{ x['__class__'] }}", DANGEROUS),
        ("{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}", DANGEROUS),
        ("{{ x|attr('__class__') }}", DANGEROUS),
        ("{{ '{0.__class__}'.format(x) }}", DANGEROUS),
        ("{{ x._private }}", DANGEROUS),
        ("{{ xs|map(attribute='a.__init__')|list }}", DANGEROUS),
        ("{{ x|attr('cl' ~ 'ass') }}", VOUCH),
        ("{{ xs|map(name)|list }}", VOUCH),
        ("{{ xs|map('attr', y)|list }}", VOUCH),
        ("{{ xs|map(attribute=y)|list }}", VOUCH),
        ("{{ (a ~ b).format(x) }}", VOUCH),
        ("{{ lipsum() }}{{ cycler('a') }}", VOUCH),
        ("{% include 'other' %}", VOUCH),
        ("{{ x['_' ~ '_class_' ~ '_'] }}", VOUCH),
        ("{% set k = '_' %}{{ x[k + k + y + k + k] }}", VOUCH),
        ("{{ x['a' + y] }}", VOUCH),
        ("{{ messages[loop.index0 - 1]['role'] }}{{ xs[i + 1] }}", HARMLESS),
        ("{{ x.popen('id') }}", VOUCH),
        ("{% for x in %}", VOUCH),
        ("{{ " + "(" * 5000, VOUCH),
    ],
)
def test_templates_do_nothing_but_format(judged, tmp_path, template, expected):
    assert judged("m.gguf", gguf({"tokenizer.chat_template": template})) == expected
    assert judged("m.gguf", gguf({"tokenizer.chat_template.tool_use": template})) == expected
    place = tmp_path / "folder"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "tokenizer_config.json").write_text(json.dumps({"chat_template": [{"name": "a", "template": template}]}))
    assert answer(place) == expected
    (place / "tokenizer_config.json").write_text("{}")
    (place / "chat_template.jinja").write_text(template)
    assert answer(place) == expected


# Keras


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (DENSE, HARMLESS),
        (layer("BatchNormalization"), HARMLESS),
        (layer("StringLookup", {"vocabulary": ["a", "b"]}), HARMLESS),
        (LAMBDA, DANGEROUS),
        (layer("Lambda", {"function": "relu"}), DANGEROUS),
        (layer("TFSMLayer", {"filepath": "/tmp/x"}), DANGEROUS),
        (layer("TorchModuleWrapper", {"module": "gAJ"}), DANGEROUS),
        (layer("StringLookup", {"vocabulary": "/etc/passwd"}), DANGEROUS),
        (layer("Dense", {"activation": {"module": "os", "class_name": "function", "config": "system"}}), DANGEROUS),
        (layer("Dense", {"activation": {"module": "keras.utils", "class_name": "function",
                                        "config": "get_file"}}), DANGEROUS),
        (layer("Dense", {"activation": {"module": "keras.config", "class_name": "function",
                                        "config": "enable_unsafe_deserialization"}}), DANGEROUS),
        (layer("Dense", {"activation": {"module": "builtins", "class_name": "function", "config": "eval"}}), VOUCH),
        (layer("Net", module="mine"), VOUCH),
        (layer("Net"), VOUCH),
        (layer("Dense", registered_name="mine>Dense"), VOUCH),
        ({"class_name": "mine>Net", "config": {}}, VOUCH),
        ({"class_name": "keras_mine>Dense", "config": {}}, VOUCH),
        (layer("Dense", registered_name="keras_mine>Dense"), VOUCH),
        ({"class_name": ["Lambda"], "config": {}}, VOUCH),
    ],
)  # fmt: skip
def test_keras_builds_known_objects_only(judged, part, expected):
    config = sequential(part)
    assert judged("m.keras", keras(config)) == expected
    assert judged("m.h5", hdf5({"model_config": json.dumps(config).encode()})) == expected
    assert judged("m.json", json.dumps(config).encode()) == expected


def test_the_rest_of_a_keras_archive(judged):
    good = sequential(DENSE)
    assert judged("m.keras", keras(good, b"broken")) == VOUCH
    assert judged("m.keras", keras(good, None, ("run.py", b"import os"))) == VOUCH
    assert judged("m.keras", keras(good, None, ("x.pkl", b"cos\nsystem\n(S'true'\ntR."))) == DANGEROUS
    assert judged("m.keras", keras(good, hdf5(outside="/etc/passwd"))) == DANGEROUS
    assert judged("m.keras", archive(("metadata.json", b"{}"), ("config.json", b"{"))) == VOUCH
    packed = archive(("metadata.json", b"{}"), ("config.json", json.dumps(sequential(LAMBDA)).encode()),
                     method=zipfile.ZIP_DEFLATED)  # fmt: skip
    assert judged("m.keras", packed) == DANGEROUS
    assert judged("m.zip", keras(sequential(LAMBDA))) == DANGEROUS


def test_hdf5_keeps_to_itself(judged):
    assert judged("m.h5", hdf5()) == HARMLESS
    assert judged("m.h5", hdf5(outside="/etc/passwd")) == DANGEROUS
    assert judged("m.h5", hdf5(elsewhere=True)) == DANGEROUS
    assert judged("m.h5", hdf5(filters=[1, 2])) == HARMLESS
    assert judged("m.h5", hdf5(filters=[1, 32015])) == VOUCH
    data = hdf5({"model_config": json.dumps(sequential(LAMBDA)).encode()})
    assert judged("m.h5", data[:-5]) == DANGEROUS, "the layer is named in what is left"
    whole = hdf5()
    for cut in (9, 60, 97, 130, 200, len(whole) - 1):
        assert judged("m.h5", whole[:cut]) == VOUCH


# TensorFlow


def test_graphs_of_tensorflow(judged):
    assert judged("saved_model.pb", saved_model(["MatMul", "Relu"])) == HARMLESS
    assert judged("frozen.pb", graph_def(["Placeholder", "Conv2D"])) == HARMLESS
    assert judged("saved_model.pb", saved_model(["MatMul"], {"save": ["SaveV2"]})) == VOUCH
    assert judged("saved_model.pb", saved_model(["Unheard"])) == VOUCH
    assert judged("saved_model.pb", saved_model(["InitializeTableFromTextFileV2"])) == VOUCH, "its own words"
    for name in ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "MatchingFiles"):
        assert judged("saved_model.pb", saved_model([name])) == DANGEROUS
        assert judged("saved_model.pb", saved_model(["MatMul"], {"f": [name]})) == DANGEROUS
        assert judged("frozen.pb", graph_def([name])) == DANGEROUS
    assert judged("saved_model.pb", saved_model(["MatMul"])[:-2]) == VOUCH


def test_a_folder_of_tensorflow(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(saved_model(["MatMul"]))
    subject = open_subject(tmp_path)
    assert answer(tmp_path) == HARMLESS
    with pytest.raises(UsageError):
        subject.load()
    metadata = field(1, field(2, 0) + field(3, "root") + field(4, "_tf_keras_layer") + field(5, json.dumps(LAMBDA)))
    (tmp_path / "keras_metadata.pb").write_bytes(metadata)
    assert answer(tmp_path) == DANGEROUS


# TorchScript, skops, PMML and settings


def scripted(module) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_calls_known_operators_only(judged):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten())
    assert judged("m.pt", scripted(net)) == HARMLESS

    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor):
            torch.save(x, "/tmp/vestige-marker")
            return x

    assert judged("m.pt", scripted(Writes())) == DANGEROUS
    code = b"def f(x):\n  return ops.mine.thing(x)\n"
    made = archive(("m/data.pkl", b"N."), ("m/constants.pkl", b"N."), ("m/code/__torch__.py", code))
    assert judged("m.pt", made) == VOUCH
    made = archive(
        ("m/data.pkl", b"c__torch__\nNet\n."), ("m/constants.pkl", b"N."), ("m/code/__torch__.py", b"import os\n")
    )
    assert judged("m.pt", made) == VOUCH
    assert judged("m.pt", archive(("m/data.pkl", b"c__torch__\nNet\n."))) == VOUCH, "without its code"
    assert ast.parse(code)


def test_skops(judged):
    def schema(module: str, name: str, loader: str = "ObjectNode") -> bytes:
        node = {"__class__": name, "__module__": module, "__loader__": loader, "content": {}}
        return archive(("schema.json", json.dumps({**node, "protocol": 2}).encode()))

    assert judged("m.skops", schema("sklearn.linear_model._logistic", "LogisticRegression")) == HARMLESS
    assert judged("m.skops", schema("mine", "Net")) == VOUCH
    assert judged("m.skops", schema("os", "system")) == DANGEROUS
    assert judged("m.skops", schema("sklearn.svm._classes", "SVC", "MethodNode")) == VOUCH


def test_pmml(judged):
    good = '<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><RegressionModel/></PMML>'
    assert judged("m.pmml", good.encode()) == HARMLESS
    for bad in (
        good[:-3],
        good.replace("PMML", "XML"),
        good.replace("<Header/>", "<Extension/>"),
        "<!DOCTYPE a>" + good,
    ):
        assert judged("m.pmml", bad.encode()) == VOUCH
    evil = '<!DOCTYPE p [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + good.replace("<Header/>", "<Header>&e;</Header>")
    assert judged("m.pmml", evil.encode()) == DANGEROUS
    bomb = '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + good.replace("<Header/>", "<Header>&b;</Header>")
    assert judged("m.pmml", bomb.encode()) == VOUCH


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hparams.yaml", "lr: 0.1\nbetas: !!python/tuple [0.9, 0.99]\n", HARMLESS),
        ("hparams.yaml", "x: !!python/object/apply:os.system ['true']\n", DANGEROUS),
        ("hparams.yaml", "model:\n  _target_: mine.Net\n", VOUCH),
        ("hparams.yaml", "%TAG !p! tag:yaml.org,2002:python/\n---\nx: !p!object/apply:os.system ['true']\n", VOUCH),
        ("hparams.yaml", "x: !!python%2Fobject/apply:os.system ['true']\n", VOUCH),
        ("hparams.yaml", "model:\n  _target_: subprocess.run\n", DANGEROUS),
        ("settings.json", '{"a": {"_target_": "os.system"}}', DANGEROUS),
        ("modules.json", '[{"type": "sentence_transformers.models.Transformer"}]', HARMLESS),
        ("modules.json", '[{"type": "mine.Net"}]', VOUCH),
        ("requirements.txt", "torch>=2.0\ntransformers==4.40\n", HARMLESS),
        ("requirements.txt", "--index-url https://x.example/simple\ntorch\n", VOUCH),
        ("requirements.txt", "git+https://x.example/y.git\n", VOUCH),
        ("adapter_config.json", '{"peft_type": "LORA", "auto_mapping": null}', HARMLESS),
        ("adapter_config.json", '{"auto_mapping": {"parent_library": "transformers.models.bert"}}', HARMLESS),
        ("adapter_config.json", '{"auto_mapping": {"parent_library": "mine"}}', VOUCH),
        ("generation_config.json", '{"custom_generate": "someone/code"}', VOUCH),
        ("model.onnx", None, VOUCH),
    ],
)  # fmt: skip
def test_files_of_a_model_folder(tmp_path, name, text, expected):
    (tmp_path / "config.json").write_text("{}")
    if text is None:
        (tmp_path / name).write_bytes(onnx([onnx_node("Odd")]))
    else:
        (tmp_path / name).write_text(text)
    assert answer(tmp_path) == expected


def test_archives_of_other_things_are_not_vouched_for(judged, tmp_path):
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        info = tarfile.TarInfo("weights.dat")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    assert judged("m.pt", buffer.getvalue()) == VOUCH
    assert judged("m.7z", b"7z\xbc\xaf\x27\x1c" + bytes(30)) == VOUCH
    assert judged("m.rar", b"Rar!\x1a\x07\x00" + bytes(30)) == VOUCH


def test_a_pickle_behind_the_start_of_another_format(judged):
    stream = b"cos\nsystem\n(S'true'\ntR."
    data = b"GGUF\x03\0\0\0" + bytes(1) + b"0" + stream  # G reads eight bytes as a number
    assert judged("m.gguf", data) == DANGEROUS


def test_json_that_takes_much_more_memory_than_its_text_is_refused():
    assert parse_json(b'{"a": [1, 2]}') == {"a": [1, 2]}
    for data in (b"[" * 100_000, b"{" + b'"a":{},' * 10):
        with pytest.raises(ValueError):
            parse_json(data)
    with pytest.raises(LimitReached):
        parse_json(b"[" + b"[]," * 600_000 + b"[]]")


def test_damaged_files_of_every_kind_are_never_harmless_by_a_crash(judged):
    rng = np.random.default_rng(0)
    samples = {
        "m.onnx": onnx([onnx_node("Relu")], [onnx_tensor("w")]), "m.gguf": gguf({"tokenizer.chat_template": PLAIN}),
        "m.h5": hdf5({"model_config": json.dumps(sequential(DENSE)).encode()}), "m.keras": keras(sequential(DENSE)),
        "saved_model.pb": saved_model(["MatMul"], {"f": ["Relu"]}), "m.pmml": b"<PMML><Header/></PMML>",
    }  # fmt: skip
    for name, data in samples.items():
        for _ in range(40):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 3):
                broken[at] = rng.integers(256)
            with contextlib.suppress(VestigeError):  # what is no model any more is refused in a sentence
                assert judged(name, bytes(broken)) in (HARMLESS, DANGEROUS, VOUCH)


@pytest.mark.parametrize(("operator", "code"), [("MatMul", OK), ("SaveV2", UNVOUCHED), ("ReadFile", TRACE_FOUND)])
def test_a_folder_of_tensorflow_on_the_command_line(tmp_path, capsys, operator, code):
    (tmp_path / "saved_model.pb").write_bytes(saved_model([operator]))
    options = {
        "out": None, "html": None, "keys": (), "only": (), "jobs": 1, "timeout": 9, "max_megapixels": 9.0,
        "fresh": False, "verbose": False, "quiet": False,
    }  # fmt: skip
    assert verb.run([tmp_path], as_json=False, **options) == code
    assert "saved_model.pb" in capsys.readouterr().out or code == OK
