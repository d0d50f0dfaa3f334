"""Labelled pictures are read strictly, and their classes are matched to a model's outputs or refused."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.core.errors import InputError, LimitError
from vestige.core.image_io import encode
from vestige.data import labelled
from vestige.data.labelled import Pictures, class_numbers, overlap, read_pictures, usual_side


def some(labels, seed=0) -> Pictures:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    names = tuple(f"{i}.png" for i in range(len(labels)))
    return Pictures(images, tuple(labels), names, tuple(f"{seed}-{i}" for i in range(len(labels))))


def test_a_folder_is_read_with_labels_and_digests(tmp_path):
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encode(np.full((20, 30, 3), 50 * i, np.uint8), "PNG"))
    found = read_pictures(tmp_path, 8)
    assert found.images.shape == (2, 3, 8, 8)
    assert found.labels == ("cat", "dog")
    assert found.images[1].min() == found.images[1].max() == 50
    assert all(len(digest) == 64 for digest in found.digests)
    assert usual_side(tmp_path) == 20
    (tmp_path / "cat" / "readme.txt").write_text("hello")
    with pytest.raises(InputError, match=r"readme\.txt is no picture"):
        read_pictures(tmp_path, 8)


def test_a_set_that_would_not_fit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(np.zeros((4, 4, 3), np.uint8), "PNG"))
    monkeypatch.setattr(labelled, "MOST_BYTES", 10)
    with pytest.raises(LimitError, match="--size"):
        read_pictures(tmp_path, 8)


def test_the_same_pixels_are_found_in_another_file():
    one, other = some("ab"), some("abc", 1)
    assert overlap(one, other) == []
    twin = Pictures(np.concatenate([other.images, one.images[1:]]), ("a",) * 4, tuple("wxyz"), tuple("1234"))
    assert overlap(one, twin) == [("1.png", "z")]


def test_labels_become_the_numbers_of_outputs():
    sets = {"forget": some(["dog", "dog"]), "retain": some(["ant", "cat"])}
    numbers, names = class_numbers(sets, 3)
    assert numbers["forget"].tolist() == [2, 2]
    assert names == ("ant", "cat", "dog")
    numbers, _ = class_numbers(sets, 3, ("dog", "cat", "ant"))
    assert numbers["retain"].tolist() == [2, 1]
    assert class_numbers({"forget": some(["7", "0"])}, 9)[0]["forget"].tolist() == [7, 0]
    assert class_numbers({"forget": some([3, 1])}, 9)[0]["forget"].tolist() == [3, 1]


@pytest.mark.parametrize(
    ("labels", "outputs", "classes", "words"),
    [(["a", None], 2, (), "has no label"), (["a", "b", "c"], 2, (), "--classes"), (["9"], 3, (), "no class"),
     (["emu"], 2, ("ant", "bee"), "no class 'emu'"), (["ant"], 3, ("ant", "bee"), "names for 2 classes")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(labels, outputs, classes, words):
    with pytest.raises(InputError, match=words):
        class_numbers({"forget": some(labels)}, outputs, classes)
