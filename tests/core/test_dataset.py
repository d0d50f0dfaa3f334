"""Data sets as a user finds them on disk, and the damaged and hostile ones."""

import io
import os
import pickle
import sys
import tarfile

import numpy as np
import pytest

from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import Limits, encode
from vestige.core.subjects import ImageSubject, open_subject


def picture(value: int, format: str = "PNG") -> bytes:
    return encode(np.full((4, 5, 3), value, np.uint8), format)


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_parquet(path, columns: dict, row_group_size: int = 3) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def hf_column(values: list[int], prefix: str = "p") -> list[dict]:
    return [{"bytes": picture(v), "path": f"{prefix}/{v}.png"} for v in values]


# ---------------------------------------------------------------- folders


def test_folder_is_sorted_labelled_and_judged_by_content(tmp_path):
    for name, value in (("dog/b.png", 2), ("cat/a.txt", 1), ("cat/deep/c.jpg", 3), ("cat/.hidden.png", 9)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(value))
    (tmp_path / "cat" / "notes.png").write_text("not a picture")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_bytes(picture(8))
    ds = DatasetSubject.open(tmp_path)
    assert ds.kind == "folder"
    assert ds.path == tmp_path
    assert [(i.name, i.label) for i in ds] == [("cat/a.txt", "cat"), ("cat/deep/c.jpg", "cat"), ("dog/b.png", "dog")]
    assert ds[-1].name == "dog/b.png"
    assert len(ds) == 3
    subject = ds[2].subject()
    assert isinstance(subject, ImageSubject)
    assert (subject.pixels == 2).all()
    with pytest.raises(IndexError):
        ds[3]


def test_flat_folder_has_no_labels(tmp_path):
    (tmp_path / "x.png").write_bytes(picture(1))
    assert open_subject(tmp_path)[0].label is None


def test_links_are_followed_only_inside_the_folder(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.png").write_bytes(picture(1))
    (inside / "real.png").write_bytes(picture(2))
    try:
        (inside / "alias.png").symlink_to(inside / "real.png")
        (inside / "escape.png").symlink_to(outside / "secret.png")
        (inside / "escape").symlink_to(outside, target_is_directory=True)
        (inside / "loop").symlink_to(inside, target_is_directory=True)
        (inside / "dangling.png").symlink_to(inside / "gone.png")
    except OSError:
        pytest.skip("this file system has no symbolic links")
    assert [i.name for i in DatasetSubject.open(inside)] == ["alias.png", "real.png"]


def test_a_picture_that_vanished_is_reported_and_the_rest_stays_readable(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture(1))
    ds = DatasetSubject.open(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png"):
        ds[0]
    assert ds[1].name == "b.png"


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "fsencode"), reason="needs POSIX file names")
def test_undecodable_file_names_become_printable(tmp_path):
    try:
        with open(os.path.join(os.fsencode(tmp_path), b"bad\xff.png"), "wb") as file:
            file.write(picture(1))
    except OSError:
        pytest.skip("this file system refuses such names")
    item = DatasetSubject.open(tmp_path)[0]
    assert item.name.encode("utf-8")
    assert item.data == picture(1)


def test_empty_folder_missing_path_and_other_files(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        DatasetSubject.open(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        DatasetSubject.open(tmp_path / "nowhere")
    (tmp_path / "x.bin").write_bytes(b"hello")
    with pytest.raises(InputError, match="not a data set"):
        DatasetSubject.open(tmp_path / "x.bin")


# ---------------------------------------------------------------- parquet


def test_parquet_struct_column(tmp_path):
    write_parquet(
        tmp_path / "t.parquet",
        {
            "mask": [{"bytes": b"m%d" % v, "path": None} for v in range(7)],
            "image": hf_column(list(range(7))),
            "label": [v % 2 for v in range(7)],
            "caption": [f"number {v}" for v in range(7)],
        },
    )
    ds = open_subject(tmp_path / "t.parquet")
    assert ds.kind == "parquet"
    assert len(ds) == 7
    items = list(ds)
    assert [i.name for i in items] == [f"p/{v}.png" for v in range(7)]
    assert [i.label for i in items] == [0, 1, 0, 1, 0, 1, 0]
    assert items[4].fields == {"caption": "number 4", "mask": b"m4"}
    for index in (6, 0, 4, 5, -1):
        assert ds[index] == items[index]
    assert pickle.loads(pickle.dumps(ds))[5] == items[5]


def test_parquet_random_access_into_a_group_too_large_to_keep(tmp_path, monkeypatch):
    write_parquet(tmp_path / "t.parquet", {"image": hf_column(list(range(40)))}, row_group_size=40)
    monkeypatch.setattr("vestige.core.dataset._KEEP_BYTES", 0)
    ds = DatasetSubject.open(tmp_path / "t.parquet")
    assert ds[33].data == picture(33)


def test_parquet_shards_in_a_folder_and_plain_binary_column(tmp_path):
    write_parquet(tmp_path / "b.parquet", {"blob": [b"x", b"y"], "pic": [picture(3), picture(4)], "label": ["u", "v"]})
    write_parquet(tmp_path / "a.parquet", {"jpg": [picture(1, "JPEG")], "__key__": ["first"]})
    (tmp_path / "README.md").write_text("about")
    ds = DatasetSubject.open(tmp_path)
    assert [(i.name, i.label) for i in ds] == [("first", None), ("b/000001", "u"), ("b/000002", "v")]
    assert ds[1].fields == {"blob": b"x"}


def test_parquet_without_pictures(tmp_path):
    write_parquet(tmp_path / "t.parquet", {"text": ["a"], "raw": [b"zz"]})
    with pytest.raises(InputError, match="no image column"):
        DatasetSubject.open(tmp_path / "t.parquet")
    (tmp_path / "a.png").write_bytes(picture(1))
    assert DatasetSubject.open(tmp_path).kind == "folder"


def test_parquet_beside_its_own_illustration_stays_a_table(tmp_path):
    write_parquet(tmp_path / "t.parquet", {"image": hf_column([1, 2])})
    (tmp_path / "banner.png").write_bytes(picture(9))
    assert len(DatasetSubject.open(tmp_path)) == 2


def test_truncated_and_corrupt_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    noise = [encode(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(4)]
    write_parquet(path, {"image": [{"bytes": b, "path": "x"} for b in noise]})
    whole = path.read_bytes()
    for keep in (8, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match="truncated or damaged parquet"):
            DatasetSubject.open(path)
    path.write_bytes(whole)
    ds = DatasetSubject.open(path)
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    with pytest.raises(InputError, match="damaged parquet"):
        list(ds)
    with pytest.raises(InputError, match="damaged parquet"):
        ds[0]


def test_rows_that_only_name_a_file_are_not_followed(tmp_path):
    write_parquet(tmp_path / "t.parquet", {"image": [{"bytes": None, "path": "/etc/passwd"}, *hf_column([1])]})
    ds = DatasetSubject.open(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no picture bytes"):
        ds[0]
    assert ds[1].data == picture(1)


# ---------------------------------------------------------------- tar


def test_tar_groups_members_by_stem(tmp_path):
    write_tar(
        tmp_path / "s.tar",
        {
            "000.jpg": picture(1, "JPEG"),
            "000.cls": b"7",
            "000.txt": b" a cat \n",
            "000.json": b'{"w": 5}',
            "001.mask.png": picture(9),
            "001.png": picture(2),
            "002.json": b"{}",
            "dog/003.png": picture(3),
            "._000.jpg": b"junk",
        },
    )
    ds = open_subject(tmp_path / "s.tar")
    assert ds.kind == "tar"
    items = list(ds)
    assert [(i.name, i.label) for i in items] == [("000.jpg", 7), ("001.png", None), ("dog/003.png", "dog")]
    assert items[0].fields == {"txt": "a cat", "json": {"w": 5}}
    assert items[1].data == picture(2)
    assert items[1].fields == {"mask.png": picture(9)}
    assert ds[-1].data == picture(3)


def test_tar_shards_in_a_folder_come_in_order(tmp_path):
    write_tar(tmp_path / "s-1.tar", {"b.png": picture(2)})
    write_tar(tmp_path / "s-0.tar", {"a.png": picture(1)})
    assert [i.name for i in DatasetSubject.open(tmp_path)] == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\b.png"])
def test_tar_with_escaping_names_is_refused(tmp_path, name):
    write_tar(tmp_path / "s.tar", {"ok.png": picture(1), name: picture(2)})
    with pytest.raises(InputError, match="unsafe name"):
        DatasetSubject.open(tmp_path / "s.tar")


def test_tar_links_and_devices_are_ignored(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.CHRTYPE, "dev.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("real.png")
        info.size = len(picture(1))
        archive.addfile(info, io.BytesIO(picture(1)))
    assert [i.name for i in DatasetSubject.open(tmp_path / "s.tar")] == ["real.png"]


def test_tar_limits_and_damage(tmp_path):
    path = tmp_path / "s.tar"
    write_tar(path, {"big.png": picture(1) + bytes(5000), "small.png": picture(2)})
    with pytest.raises(LimitError, match=r"big\.png"):
        DatasetSubject.open(path, Limits(max_bytes=4000))
    whole = path.read_bytes()
    for keep in (1024, 3000, 3072):
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match="truncated"):
            DatasetSubject.open(path)
    write_tar(path, {"x.json": b"{}"})
    with pytest.raises(InputError, match="without pictures"):
        DatasetSubject.open(path)
    write_tar(path, {"x.png": picture(1), "x.json": b"{broken"})
    with pytest.raises(InputError, match="not JSON"):
        DatasetSubject.open(path)[0]
