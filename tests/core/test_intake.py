"""Nothing that is put in goes missing: every file is to be examined, or left out with its reason."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.core.intake import Entry, take_in

PNG = encode(np.zeros((4, 6, 3), np.uint8), "PNG")


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {e.path.name: e for e in entries}


def files_below(folder: Path) -> int:
    return sum(len(names) + sum((Path(at) / f).is_symlink() for f in folders) for at, folders, names in os.walk(folder))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for name in ("a.png", ".hidden.png", "deep/deeper/b.bin"):
        (folder / name).write_bytes(PNG)
    (folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2")
    (folder / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\2\0isomiso2")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    (folder / "m.pkl").write_bytes(pickle.dumps({"a": 1}))
    (folder / "old").write_bytes(pickle.dumps([1, "x"], protocol=0))
    (folder / "page.svg").write_text("<?xml version='1.0'?><svg/>")
    (folder / "x.jp2").write_bytes(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(20))
    (folder / "notes.txt").write_text("cat\nfoo\nI was here.")
    (folder / "damaged.jpg").write_bytes(b"no picture")
    (folder / "run.py").write_text("print()")
    (folder / "firmware.bin").write_bytes(bytes(range(256)))
    (folder / "nothing").write_bytes(b"")
    with tarfile.open(folder / "set.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    return folder


def test_every_file_of_a_folder_is_accounted_for(mixed: Path) -> None:
    entries = take_in([mixed])
    assert sum(e.files for e in entries) == files_below(mixed)
    found = by_name(entries)
    assert {name: e.kind for name, e in found.items() if e.kind} == {
        "a.png": "picture", ".hidden.png": "picture", "b.bin": "picture", "damaged.jpg": "picture",
        "clip.mp4": "clip", "paper.pdf": "document", "m.pkl": "model", "old": "model", "set.tar": "data set",
    }  # fmt: skip
    left = {name: e.why for name, e in found.items() if not e.kind}
    assert all(e.state == "skipped" for e in found.values() if not e.kind)
    assert "SVG" in left["page.svg"]
    assert "JPEG 2000" in left["x.jp2"]
    assert "version control" in left[".git"]
    assert (left["song.m4a"] and left["notes.txt"], left["run.py"], left["nothing"]) == (
        "text", "Python code", "an empty file",
    )  # fmt: skip
    assert [e.path for e in entries] == sorted((e.path for e in entries), key=lambda p: p.parts)


def test_links_lead_nowhere_but_into_what_was_given(mixed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(PNG)
    (mixed / "out.png").symlink_to(outside)
    (mixed / "in.png").symlink_to(mixed / "a.png")
    (mixed / "folder").symlink_to(mixed / "deep")
    (mixed / "broken.png").symlink_to("nowhere")
    (mixed / "loop").symlink_to("loop")
    (mixed / "deep" / "up").symlink_to("..")
    os.mkfifo(mixed / "pipe")
    found = by_name(take_in([mixed]))
    assert sum(e.files for e in found.values()) == files_below(mixed)
    assert "leads out" in found["out.png"].why
    assert all("counted there" in found[name].why for name in ("in.png", "folder", "up"))
    assert "does not exist" in found["broken.png"].why
    assert "circle" in found["loop"].why
    assert found["pipe"].why == "no regular file"
    assert take_in([mixed / "out.png"])[0].kind == "picture"  # the user named it
    assert len(take_in([mixed / "a.png", mixed / "in.png", mixed / "a.png"])) == 1
    with pytest.raises(InputError, match="link to something that does not exist"):
        take_in([mixed / "broken.png"])


def test_a_model_folder_is_one_entry_and_hides_no_pictures(tmp_path: Path) -> None:
    model = tmp_path / "in" / "bert"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name in ("README.md", "sub/vocab.txt", ".hidden"):
        (model / name).write_text("x")
    (model / "sub" / "sample.png").write_bytes(PNG)
    entries = take_in([tmp_path / "in"])
    assert [(e.path.name, e.kind, e.files) for e in entries] == [("bert", "model", 4), ("sample.png", "picture", 1)]
    (model / "config.json").write_text(json.dumps({"camera": "x"}))  # photographs beside settings of something else
    assert {e.kind for e in take_in([tmp_path / "in"])} == {"", "picture"}


def test_results_are_no_inputs(mixed: Path) -> None:
    out = mixed / "report"
    (out / "items").mkdir(parents=True)
    (out / "manifest.jsonl").write_text('{"vestige": "1"}\n')
    (out / "items" / "0.preview.jpg").write_bytes(PNG)
    (entry,) = (e for e in take_in([mixed]) if e.path == out)
    assert (entry.state, entry.why, entry.files) == ("skipped", "a report of vestige", 2)
    with pytest.raises(UsageError, match="is what is to be examined"):
        take_in([mixed], out=mixed)


def test_names_in_any_bytes_and_folders_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        take_in([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        take_in([tmp_path / "*.png"])
    with open(os.fsencode(tmp_path) + b"/a\xff\x1b[2J.png", "wb") as file:
        file.write(PNG)
    assert [e.kind for e in take_in([tmp_path])] == ["picture"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.png").chmod(0)
    assert take_in([tmp_path])[0].state == "failed"


def test_a_picture_that_is_named_like_a_model_goes_to_the_scan(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "GIF")
    (tmp_path / "a.gif").write_bytes(buffer.getvalue())
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(eval))
    assert {e.path.name: e.kind for e in take_in([tmp_path])} == {"a.gif": "picture", "b.pkl": "model"}
