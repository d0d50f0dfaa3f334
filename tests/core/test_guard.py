"""Nothing is written over inputs, keys and foreign files, and nothing half-written stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from vestige.core.errors import UsageError, WriteError
from vestige.core.files import _swept, folder_atomic, scratch_folder, write_atomic
from vestige.core.guard import check_output, is_own, protecting


def test_inputs_are_never_written_over_under_any_name(tmp_path):
    picture, link, hard = (tmp_path / n for n in ("a.png", "link.png", "hard.png"))
    picture.write_bytes(b"evidence")
    link.symlink_to(picture)
    os.link(picture, hard)
    with protecting([picture]):
        for name in (picture, link, hard):
            with pytest.raises(UsageError, match="never overwritten"):
                write_atomic(name, b"report")
        with pytest.raises(UsageError, match="holds one"), folder_atomic(tmp_path):
            pass
        write_atomic(tmp_path / "b", b"report")
    assert picture.read_bytes() == b"evidence"
    write_atomic(picture, b"another command")  # the guard ends with the command


def test_a_file_of_somebody_else_is_kept_and_ones_own_is_renewed(tmp_path):
    foreign, own = tmp_path / "letter.html", tmp_path / "report.html"
    foreign.write_bytes(b"<html>mine</html>")
    with pytest.raises(UsageError, match="not written by vestige"):
        check_output(foreign, [b'content="vestige'])
    own.write_bytes(b'<html><meta name="generator" content="vestige 1">')
    check_output(own, [b'content="vestige'])
    with pytest.raises(UsageError, match="input"):
        check_output(own, [b'content="vestige'], inputs=[own])
    with pytest.raises(UsageError, match="folder"):
        check_output(tmp_path)
    with pytest.raises(UsageError, match="no regular file"):
        check_output("/dev/null")
    check_output(tmp_path / "new")


def test_what_vestige_wrote_is_known_until_somebody_changes_it(tmp_path):
    made = tmp_path / "a.png"
    write_atomic(made, b"picture")
    try:
        os.setxattr(made, "user.try", b"1")
    except (OSError, AttributeError):
        pytest.skip("the file system keeps no notes")
    assert is_own(made)
    check_output(made)
    with made.open("ab") as file:
        file.write(b"my own words")
    assert not is_own(made)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"Cannot write .*a \(No space left on device\)\.$"):
        write_atomic(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


_DIES = """
import os, sys
from pathlib import Path
from vestige.core import files
os.replace = lambda *names: os._exit(9)
with files.scratch_folder(), files.folder_atomic(sys.argv[1] + "/folder") as new:
    (new / "part").write_text("x")
    files.write_atomic(sys.argv[1] + "/file", b"x")
"""


def test_temporary_files_of_a_killed_command_go_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    out = tmp_path / "out"
    out.mkdir()
    assert subprocess.run([sys.executable, "-c", _DIES, str(out)]).returncode == 9
    assert len(list(out.iterdir())) == 2
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    (out / ".vestige-notes.tmp").write_text("a user's own")
    _swept.clear()
    with scratch_folder() as live:
        _swept.clear()
        with scratch_folder():
            assert live.is_dir()  # a running command's is left alone
    write_atomic(out / "file", b"y")
    assert sorted(p.name for p in out.iterdir()) == [".vestige-notes.tmp", "file"]
    assert list((tmp_path / "tmp").iterdir()) == []
