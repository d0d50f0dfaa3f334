"""Copies in a data set: kinds, leakage between splits, labels that disagree; folders and parquet."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from vestige.app.cli import main
from vestige.copies.audit import audit
from vestige.core.dataset import DatasetSubject
from vestige.core.errors import InputError
from vestige.core.image_io import encode, save_image, to_uint8
from vestige.data.scenes import render, sample_scene

CHINA, FLOWER = (load_sample_image(n) for n in ("china.jpg", "flower.jpg"))


def scene(seed: int) -> np.ndarray:
    return to_uint8(render(sample_scene(seed, style="photo"), 128).image)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    save_image(folder / "train/temple/china.png", CHINA)
    save_image(folder / "train/temple/same.png", CHINA)
    save_image(folder / "train/plant/flower.png", FLOWER)
    save_image(folder / "val/plant/flower.jpg", FLOWER, quality=60)
    save_image(folder / "test/house/part.png", np.ascontiguousarray(CHINA[80:330, 150:480][:, ::-1]))
    for i in range(2):
        save_image(folder / f"train/scene/{i}.png", scene(i))
        save_image(folder / f"test/scene/{i}.png", scene(10 + i))
    return folder


def test_copies_leaks_and_conflicts_are_told_apart(data):
    found = audit([("", DatasetSubject.open(data))], descriptor="local")
    names = {(g.kind, frozenset(Path(m.name).name for m in g.members)) for g in found.groups}
    assert ("exact", frozenset({"china.png", "same.png"})) in names
    assert ("near", frozenset({"flower.png", "flower.jpg"})) in names
    cropped = [g for g in found.groups if g.kind == "cropped"]
    assert cropped
    assert all("part.png" in {Path(m.name).name for m in g.members} for g in cropped)
    assert all("mirrored" in g.words for g in cropped)
    assert not [g for g in found.groups if any("scene" in m.name for m in g.members)]  # strangers stay strangers
    assert found.leakage() == {("train", "val"): 1, ("train", "test"): 1}
    assert {m.label for g in found.conflicts() for m in g.members} == {"temple", "house"}
    assert "Labels disagree" in found.sentences()[-1]


def test_without_the_deep_search_only_hashes_speak(data):
    found = audit([("", DatasetSubject.open(data))], deep=False)
    assert {g.kind for g in found.groups} == {"exact", "near"}
    assert found.conflicts() == []


def test_two_parquet_files_are_two_splits(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    small = cv2.resize(FLOWER, (320, 213), interpolation=cv2.INTER_AREA)
    parts = {"train": [(FLOWER, 1), (scene(1), 0)], "test": [(small, 2), (scene(2), 0)]}
    for name, rows in parts.items():
        table = {
            "image": [{"bytes": encode(p, "PNG"), "path": f"{i}.png"} for i, (p, _) in enumerate(rows)],
            "label": [label for _, label in rows],
        }
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    found = audit([(n, DatasetSubject.open(tmp_path / f"{n}.parquet")) for n in parts], deep=False)
    (group,) = found.groups
    assert group.leaks
    assert group.conflicts
    assert found.leakage() == {("train", "test"): 1}


def test_a_set_of_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(encode(FLOWER, "PNG")[:3000])
    with pytest.raises(InputError):
        audit([("", DatasetSubject.open(tmp_path))], deep=False)


def test_the_command_lists_and_writes_a_table(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["find", str(data), "--only", "duplicates", "--set", "deep=false", "-o", "copies.csv"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "Leakage: 1 picture of val has a copy in train." in said
    rows = list(csv.DictReader(Path("copies.csv").read_text().splitlines()))
    assert {r["kind"] for r in rows} == {"exact", "near"}
    with pytest.raises(SystemExit) as stopped:
        main(["find", str(data), "--only", "duplicates", "-o", str(data / "train/plant/flower.png")])
    assert stopped.value.code == 2
