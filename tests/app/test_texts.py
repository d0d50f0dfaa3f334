"""``vestige mark`` and ``vestige read`` on text files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine

from vestige.app.verbs.texts import are_texts, mark_texts, read_texts
from vestige.core.errors import NOT_MARKED, OK, InputError, UsageError
from vestige.core.keys import generate_key

_LOADERS = (load_iris, load_wine, load_diabetes, load_breast_cancer, load_linnerud, load_digits)
TEXT = "\n\n".join(load().DESCR for load in _LOADERS)


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    path.write_text(TEXT)
    return path


def test_a_text_is_marked_and_read_with_its_key_alone(letter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = letter.with_name("mine.key"), letter.with_name("other.key")
    generate_key(mine)
    generate_key(other)
    out = letter.with_name("marked.txt")
    assert mark_texts([letter], out, None, mine, quiet=False) == OK
    assert "words replaced" in capsys.readouterr().out
    assert letter.read_text() == TEXT != out.read_text()
    assert read_texts([out], mine, as_json=True, quiet=False) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == "read"
    assert found["p_value"] < 0.01
    assert read_texts([out], other, as_json=False, quiet=False) == NOT_MARKED
    assert read_texts([letter], mine, as_json=False, quiet=True) == NOT_MARKED


def test_short_texts_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "note.txt"
    path.write_text("See you at noon.")
    assert mark_texts([path], None, None, None, quiet=False) == OK
    assert "longer text" in capsys.readouterr().out
    assert (tmp_path / "note-marked.txt").exists()


def test_refusals_write_nothing(letter: Path) -> None:
    with pytest.raises(UsageError, match="overwritten"):
        mark_texts([letter], letter, None, None, quiet=True)
    with pytest.raises(UsageError, match="--out FOLDER"):
        mark_texts([letter, letter], None, None, None, quiet=True)
    with pytest.raises(UsageError, match="no message"):
        mark_texts([letter], None, "hello", None, quiet=True)
    bad = letter.with_name("bad.txt")
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        mark_texts([letter, bad], letter.parent / "out", None, None, quiet=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_texts([letter.with_name("absent.txt")], None, as_json=False, quiet=True)
    with pytest.raises(UsageError, match="mixed"):
        are_texts([letter, Path("photo.jpg")])
    assert not (letter.parent / "out").exists()
    assert are_texts([letter])
    assert not are_texts([Path("photo.jpg")])
