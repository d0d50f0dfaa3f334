from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from vestige.core.errors import InputError, KeyFileError, UsageError
from vestige.core.files import folder_atomic, read_json, write_atomic, write_json
from vestige.core.keys import derive, fingerprint, generate_key, load_key
from vestige.core.runtime import device, rng, versions
from vestige.core.subjects import open_subject
from vestige.core.work import Work


def test_a_key_file_is_private_and_round_trips(tmp_path):
    path = tmp_path / "secret.key"
    key = generate_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == key
    assert len(key) == 32
    with pytest.raises(KeyFileError, match="exists"):
        generate_key(path)


def test_a_key_never_shows_itself(tmp_path):
    key = generate_key(tmp_path / "k")
    for text in (repr(key), str(key), f"{key}", fingerprint(key)):
        assert bytes(key).hex() not in text
        assert repr(bytes(key)) not in text


def test_bad_key_files_are_refused(tmp_path):
    path = tmp_path / "k"
    path.write_text("not a key")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a vestige key"):
        load_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="not a vestige key"):  # what it is comes before who may read it
        load_key(path)
    with pytest.raises(KeyFileError, match="does not exist"):
        load_key(tmp_path / "none")
    good = tmp_path / "good"
    generate_key(good)
    good.chmod(0o644)
    if os.name == "posix":
        with pytest.raises(KeyFileError, match="chmod 600"):
            load_key(good)


def test_derived_keys_differ_by_purpose_and_key():
    values = {derive(k, p) for k in (b"a" * 32, b"b" * 32) for p in ("sync", "auth")}
    assert len(values) == 4
    assert {len(v) for v in values} == {32}


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    blocked = tmp_path / "a.json" / "b"
    with pytest.raises(InputError, match="Cannot write"):
        write_atomic(blocked, b"")


def test_damaged_json_is_one_sentence(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="not readable JSON"):
        read_json(path)


def test_rng_depends_on_seed_and_path_only():
    assert rng(0, "a", 1).integers(2**60) == rng(0, "a", 1).integers(2**60)
    values = {int(r.integers(2**60)) for r in (rng(0, "a"), rng(1, "a"), rng(0, "b"), rng(0, "a", 0))}
    assert len(values) == 4
    assert isinstance(rng(0), np.random.Generator)


def test_devices_and_versions():
    assert device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="no device"):
        device("quantum")
    assert {"python", "numpy", "vestige"} <= versions().keys()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "model"
    with folder_atomic(out) as new:
        (new / "a").write_text("1")
        assert not out.exists()

    def fails() -> None:
        with folder_atomic(out) as new:
            (new / "b").write_text("2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [p.name for p in out.iterdir()] == ["a"]
    with folder_atomic(out) as new:
        (new / "c").write_text("3")
    assert [p.name for p in out.iterdir()] == ["c"]
    assert [p.name for p in out.parent.iterdir()] == ["model"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write") as caught, folder_atomic(tmp_path / "file" / "model"):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "much"])
def test_an_option_is_a_finite_number(text):
    with pytest.raises(UsageError, match="--set guidance="):
        Work("make", "any", options={"guidance": text}).option("guidance", 1.5)


def test_content_of_no_known_kind_is_told_in_words(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(7)) * 9)
    with pytest.raises(InputError, match="nothing that vestige knows"):
        open_subject(path)
