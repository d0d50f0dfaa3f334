"""Arrays for training: sizes, labels, stable splits, batches, and the research packs where they are present."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.data.packs import (
    CIFAR10,
    as_torch,
    find_data_root,
    iter_batches,
    load_pack,
    named_pack,
    resize,
    split,
)


def write_images(folder, sizes: dict[str, tuple[int, int]]) -> None:
    for value, (name, (height, width)) in enumerate(sizes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(np.full((height, width, 3), value * 10, np.uint8)))


def write_parquet(path, count: int, first: int = 0) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [
        {"bytes": encode(np.full((6, 6, 3), first + i, np.uint8)), "path": f"{first + i}.png"} for i in range(count)
    ]
    table = {"image": images, "label": [i % 3 for i in range(count)], "kind": [f"k{i % 2}" for i in range(count)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def test_load_folder(tmp_path):
    write_images(tmp_path, {"b/1.png": (8, 8), "a/1.png": (8, 8), "a/2.png": (8, 8)})
    pack = load_pack(tmp_path)
    assert pack.images.shape == (3, 3, 8, 8)
    assert pack.images.dtype == np.uint8
    assert pack.names == ("a/1.png", "a/2.png", "b/1.png")
    assert pack.class_names == ("a", "b")
    assert pack.labels.tolist() == [0, 0, 1]
    assert pack.images[:, 0, 0, 0].tolist() == [10, 20, 0]
    part = pack.take([2, 0])
    assert part.names == ("b/1.png", "a/1.png")
    assert part.labels.tolist() == [1, 0]


def test_sizes_are_never_changed_silently(tmp_path):
    write_images(tmp_path, {"1.png": (8, 8), "2.png": (8, 12)})
    with pytest.raises(InputError, match="give a size"):
        load_pack(tmp_path)
    assert load_pack(tmp_path, size=(4, 6)).images.shape == (2, 3, 4, 6)
    assert load_pack(tmp_path, size=(4, 6)).labels.tolist() == [-1, -1]
    for bad in ({"size": 0}, {"size": 4, "fit": "squash"}, {"limit": 0}):
        with pytest.raises(UsageError):
            load_pack(tmp_path, **bad)


def test_fit():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert (resize(wide, (10, 10), "crop") == 255).all()
    padded = resize(wide, (30, 30), "pad")
    assert (padded[0] == 128).all()
    assert (padded[15, 15] == 255).all()
    stretched = resize(wide, (6, 6), "stretch")
    assert (stretched[:, 0] == 0).all()
    assert (stretched[:, 3] == 255).all()


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["crop", "stretch", "pad"]),
)
def test_resize_gives_the_size_asked_for(source, target, fit):
    assert resize(np.zeros((*source, 3), np.uint8), target, fit).shape == (*target, 3)


def test_labels_fields_and_limit_from_parquet(tmp_path):
    write_parquet(tmp_path / "t.parquet", 9)
    pack = load_pack(tmp_path, limit=3)
    assert pack.names == ("0.png", "3.png", "6.png")
    assert load_pack(tmp_path, class_names=["x", "y", "z", "unused"]).class_names[3] == "unused"
    by_kind = load_pack(tmp_path, label="kind")
    assert by_kind.class_names == ("k0", "k1")
    assert by_kind.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert by_kind.fields["kind"][1] == "k1"
    with pytest.raises(InputError, match="class names"):
        load_pack(tmp_path, class_names=["only"])
    with pytest.raises(UsageError, match="no column"):
        load_pack(tmp_path, label="nothing")


# ---------------------------------------------------------------- splits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=40, unique=True), st.text(max_size=3), st.integers(0, 39))
def test_split_is_a_partition_that_survives_additions(names, salt, dropped):
    parts = split(names, salt=salt)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(names)))
    fewer = [n for i, n in enumerate(names) if i != dropped]
    for part, chosen in split(fewer, salt=salt).items():
        assert {fewer[i] for i in chosen} <= {names[i] for i in parts[part]}


def test_split_has_the_fractions_asked_for_and_depends_on_salt():
    names = [f"picture {i}" for i in range(4000)]
    parts = split(names, {"a": 0.7, "b": 0.3})
    assert abs(len(parts["a"]) / 4000 - 0.7) < 0.03
    assert not np.array_equal(parts["a"], split(names, {"a": 0.7, "b": 0.3}, salt="other")["a"])
    assert len(split(names, {"a": 1.0})["a"]) == 4000
    assert len(split(names, {"a": 0.0, "b": 1.0})["a"]) == 0
    for bad in ({"a": 0.5}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(UsageError):
            split(names, bad)


def test_split_never_changes_between_releases():
    assert split(["0.png", "1.png", "2.png", "3.png"], {"a": 0.5, "b": 0.5})["a"].tolist() == [0, 1, 2]


# ---------------------------------------------------------------- batches


def test_batches_cover_the_pack_once(tmp_path):
    write_parquet(tmp_path / "t.parquet", 10)
    pack = load_pack(tmp_path)
    plain = list(iter_batches(pack, 4))
    assert [len(images) for images, _ in plain] == [4, 4, 2]
    assert plain[0][0].dtype == np.float32
    assert plain[0][0].max() <= 1
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in plain]), pack.labels)

    def order(**options):
        return [round(v * 255) for images, _ in iter_batches(pack, 4, **options) for v in images[:, 0, 0, 0]]

    assert order(seed=1) == order(seed=1)
    assert sorted(order(seed=1)) == list(range(10))
    assert order(seed=1) != order(seed=1, epoch=1)
    assert len(order(drop_last=True)) == 8
    with pytest.raises(UsageError):
        next(iter_batches(pack, 0))


def test_torch_view(tmp_path):
    torch = pytest.importorskip("torch")
    write_parquet(tmp_path / "t.parquet", 5)
    view = as_torch(load_pack(tmp_path))
    assert isinstance(view, torch.utils.data.Dataset)
    image, label = pickle.loads(pickle.dumps(view))[4]
    assert image.dtype == torch.float32
    assert image.shape == (3, 6, 6)
    assert label == 1
    images, labels = next(iter(torch.utils.data.DataLoader(view, batch_size=5)))
    assert images.shape == (5, 3, 6, 6)
    assert labels.tolist() == [0, 1, 2, 0, 1]


# ---------------------------------------------------------------- named packs


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VESTIGE_DATA", raising=False)
    if not (tmp_path / "../shared/data").is_dir():
        assert find_data_root() is None
        with pytest.raises(InputError, match="VESTIGE_DATA"):
            named_pack("photos")
    (tmp_path / "data").mkdir()
    assert find_data_root() is not None
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="not a folder"):
        find_data_root()


def test_named_packs_keep_their_own_test_file(tmp_path, monkeypatch):
    write_parquet(tmp_path / "cifar10" / "train.parquet", 60)
    write_parquet(tmp_path / "cifar10" / "test.parquet", 20, first=100)
    write_parquet(tmp_path / "photos" / "train.parquet", 60)
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    test = named_pack("cifar10", "test")
    assert test.names == tuple(f"{100 + i}.png" for i in range(20))
    assert test.class_names == CIFAR10
    train, val = named_pack("cifar10", "train"), named_pack("cifar10", "val")
    assert sorted(train.names + val.names) == sorted(f"{i}.png" for i in range(60))
    assert len(named_pack("cifar10")) == 80
    parts = [named_pack("photos", part) for part in ("train", "val", "test")]
    assert sum(len(p) for p in parts) == 60
    assert len(set().union(*(p.names for p in parts))) == 60
    with pytest.raises(InputError, match="no data pack"):
        named_pack("nothing")
    with pytest.raises(UsageError):
        named_pack("photos", "dev")


@pytest.mark.data
@pytest.mark.skipif(
    find_data_root() is None or not (find_data_root() / "photos").is_dir(),
    reason="the research data packs are not here (VESTIGE_DATA or ../shared/data)",
)
def test_the_research_packs():
    photos = named_pack("photos", size=32, limit=20)
    assert photos.images.shape == (20, 3, 32, 32)
    assert photos.fields["caption"][0].startswith("a photo of")
    cifar = named_pack("cifar10", "test", limit=50)
    assert cifar.images.shape == (50, 3, 32, 32)
    for name, label in zip(cifar.names, cifar.labels):
        assert name.split("/")[1] == cifar.class_names[label]
    assert len(named_pack("faces", limit=30, label="person").class_names) > 5
