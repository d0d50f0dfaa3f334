"""``vestige mark``, ``read``, ``find`` and ``make`` on texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from typer.testing import CliRunner

from vestige.app.cli import app
from vestige.app.verbs.texts import are_texts, method_for
from vestige.core.errors import NOT_MARKED, OK, InputError, UsageError
from vestige.core.keys import generate_key
from vestige.core.work import Work
from vestige.watermark.tools import text_blackbox

_LOADERS = (load_iris, load_wine, load_diabetes, load_breast_cancer, load_linnerud, load_digits)
TEXT = "\n\n".join(load().DESCR for load in _LOADERS)
ONE, OTHER = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    path.write_text(TEXT)
    return path


def work(verb: str, *paths: Path, **more) -> Work:
    return Work(verb, "text_blackbox", tuple(paths), **{"key": ONE, **more})


def test_a_text_is_marked_read_and_found_with_its_key_alone(letter: Path) -> None:
    out = letter.with_name("marked.txt")
    made = text_blackbox.mark(work("mark", letter, out=out))
    assert "words replaced" in made.said[0]
    assert letter.read_text() == TEXT != out.read_text()
    found = text_blackbox.read(work("read", out))
    assert found.exit_code == OK
    assert found.figures["outcome"] == "read"
    assert float(found.figures["p_value"]) < 0.01
    assert text_blackbox.read(work("read", out, key=OTHER)).exit_code == NOT_MARKED
    assert text_blackbox.read(work("read", letter)).exit_code == NOT_MARKED
    both = text_blackbox.find(work("find", letter, out))
    assert both.exit_code == OK
    assert [row["outcome"] for row in both.rows] == ["absent", "read"]


def test_the_command_line_takes_the_method_of_texts_by_default(letter: Path) -> None:
    key, out = letter.with_name("mine.key"), letter.with_name("marked.txt")
    generate_key(key)
    run = CliRunner()
    assert run.invoke(app, ["mark", str(letter), "-k", str(key), "-o", str(out)]).exit_code == OK
    told = run.invoke(app, ["read", str(out), "-k", str(key), "--json"])
    assert json.loads(told.stdout)["figures"]["outcome"] == "read"
    assert method_for([letter], "distortion_free_text") == "distortion_free_text"
    assert method_for([Path("photo.jpg")], "spread_spectrum") == "spread_spectrum"


def test_short_texts_say_so(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("See you at noon.")
    assert "longer text" in text_blackbox.mark(work("mark", path)).said[0]
    assert (tmp_path / "note-marked.txt").exists()


def test_refusals_write_nothing(letter: Path) -> None:
    with pytest.raises(UsageError, match="overwritten"):
        text_blackbox.mark(work("mark", letter, out=letter))
    with pytest.raises(UsageError, match="--out FOLDER"):
        text_blackbox.mark(work("mark", letter, letter))
    with pytest.raises(UsageError, match="no message"):
        text_blackbox.mark(work("mark", letter, message="hello"))
    bad = letter.with_name("bad.txt")
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        text_blackbox.mark(work("mark", letter, bad, out=letter.parent / "out"))
    with pytest.raises(InputError, match="does not exist"):
        text_blackbox.read(work("read", letter.with_name("absent.txt")))
    with pytest.raises(UsageError, match="no setting"):
        text_blackbox.read(work("read", letter, options={"moed": "fast"}))
    with pytest.raises(UsageError, match="mixed"):
        are_texts([letter, Path("photo.jpg")])
    assert not (letter.parent / "out").exists()


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> Path:
    from vestige.app.starter import lm

    folder = tmp_path_factory.mktemp("kit")
    assert lm.write(folder) == ["lm/"]
    return folder / "lm"


@pytest.mark.parametrize("method", ["distortion_free_text", "green_list", "hash_gumbel"])
def test_a_model_writes_marked_text_and_its_tokenizer_reads_it(method: str, lm: Path, tmp_path: Path) -> None:
    import importlib

    tool = importlib.import_module(f"vestige.watermark.tools.{method}")
    out = tmp_path / "made.txt"
    options = {"tokens": "60", "to_the_end": "true"} | ({"scheme": "exp"} if method == "distortion_free_text" else {})
    given = {"method": method, "model": lm, "key": ONE, "prompt": "The old lighthouse", "options": options}
    made = tool.make(Work("make", out=out, **given))
    assert made.files == [out]
    assert out.read_text().startswith("The old lighthouse")
    assert float(made.figures["p_value"]) < 0.01
    scheme = {k: v for k, v in options.items() if k == "scheme"}
    kept = {"method": method, "model": lm, "options": scheme, "paths": (out,)}
    assert tool.read(Work("read", key=ONE, **kept)).exit_code == OK
    assert tool.read(Work("read", key=OTHER, **kept)).exit_code == NOT_MARKED
    assert tool.find(Work("find", key=OTHER, **kept)).exit_code == OK
    longer = tmp_path / "longer.txt"
    tool.mark(Work("mark", paths=(out,), out=longer, **{**given, "prompt": ""}))
    assert longer.read_text().startswith(out.read_text())


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    from vestige.watermark.tools import distortion_free_text as tool

    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "letter.txt"):
        (tmp_path / "letter.txt").write_text("no model")
        with pytest.raises(InputError, match="causal language model"):
            tool.make(Work("make", "distortion_free_text", model=folder, prompt="a", out=tmp_path / "o.txt"))
    with pytest.raises(UsageError, match="--model"):
        tool.make(Work("make", "distortion_free_text", prompt="a", out=tmp_path / "o.txt"))
    assert not (tmp_path / "o.txt").exists()


def test_the_starter_model_is_the_same_every_time(lm: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from vestige.app.starter import lm as starter

    starter.write(tmp_path)
    first, again = (load_file(p / "model.safetensors") for p in (lm, tmp_path / "lm"))
    assert all(np.allclose(first[name], again[name], atol=1e-4) for name in first)
    assert (lm / "tokenizer.json").read_bytes() == (tmp_path / "lm" / "tokenizer.json").read_bytes()
    assert sum(p.stat().st_size for p in lm.iterdir()) < 3_000_000
