"""The vector index: exact and coded search agree on near vectors; add, delete, kill and damage."""

import json

import numpy as np
import pytest

from vestige.core.errors import InputError, UsageError
from vestige.engines.vector_index import VectorIndex

WIDTH = 32


def units(count, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def small(folder, **sizes):
    return VectorIndex.create(folder, WIDTH, **{"exact_up_to": 500, "code_bytes": 16, "nlist": 8, **sizes})


def test_exact_search_is_the_inner_product(tmp_path):
    vectors, queries = units(300), units(20, 1)
    index = small(tmp_path)
    index.add(vectors[:100])
    index.add(vectors[100:])
    scores, ids = index.search(queries, 7)
    all_scores = queries @ vectors.T
    assert (ids == np.argsort(-all_scores, axis=1)[:, :7]).all()
    assert np.allclose(scores, -np.sort(-all_scores, axis=1)[:, :7], atol=2e-3)  # kept in half precision


def test_coded_search_finds_the_vector_itself_also_after_reopening(tmp_path):
    vectors = units(1600)
    index = small(tmp_path, shard_rows=900)
    for start in range(0, 1600, 200):
        index.add(vectors[start : start + 200])
    assert not index.exact
    assert len(list(tmp_path.glob("shard-*.faiss"))) == 2
    again = VectorIndex.open(tmp_path)
    again.nprobe = 8
    noisy = vectors + 0.05 * units(1600, 3)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    assert (again.search(noisy, 1)[1][:, 0] == np.arange(1600)).mean() > 0.99


def test_a_coded_vector_takes_its_code_and_its_number(tmp_path):
    index = small(tmp_path)
    index.add(units(600))
    before = index.bytes
    index.add(units(501))
    assert index.bytes - before == pytest.approx(501 * (16 + 8), rel=0.05)


def test_deleted_vectors_are_never_found_in_tail_or_shard(tmp_path):
    vectors = units(700)
    index = small(tmp_path)
    index.add(vectors[:600])  # coded
    index.add(vectors[600:])  # the tail
    assert index.delete([3, 650, 650, 5000, -1]) == 2
    assert index.delete([3]) == 0
    for opened in (index, VectorIndex.open(tmp_path)):
        assert len(opened) == 698
        found = opened.search(vectors[[3, 650]], 5)[1]
        assert not {3, 650} & set(found.ravel().tolist())
    assert index.delete(range(300)) == 299  # so many that the files are written anew
    assert len(VectorIndex.open(tmp_path)) == 399
    assert json.loads((tmp_path / "vectors.json").read_text())["deleted"] == []
    assert (index.ids() == np.setdiff1d(np.arange(300, 700), [650])).all()
    assert index.add(vectors[:1]).tolist() == [700]  # numbers are not used again


def test_a_kill_in_the_middle_of_a_batch_leaves_the_index_as_it_was(tmp_path):
    vectors = units(60)
    index = small(tmp_path)
    index.add(vectors[:50])
    state = (tmp_path / "vectors.json").read_bytes()
    index.add(vectors[50:])
    (tmp_path / "vectors.json").write_bytes(state)  # as if killed between the rows and the state
    again = VectorIndex.open(tmp_path)
    assert len(again) == 50
    again.add(vectors[55:])
    assert len(again) == 55
    assert (again.search(vectors[55:56], 1)[1] == 50).all()


def test_two_writers_do_not_meet(tmp_path):
    index = small(tmp_path)
    with index.writing(), pytest.raises(InputError, match="another command"), VectorIndex.open(tmp_path).writing():
        pass


@pytest.mark.parametrize("harm", ["state", "names", "tail", "shard"])
def test_damage_is_told(tmp_path, harm):
    index = small(tmp_path)
    index.add(units(600))
    index.add(units(10))
    (shard,) = tmp_path.glob("shard-*.faiss")
    (tail,) = tmp_path.glob("tail-*.rows")
    state = tmp_path / "vectors.json"
    if harm == "state":
        state.write_text("{}")
    elif harm == "names":
        state.write_text(state.read_text().replace(shard.name, "../" + shard.name))
    elif harm == "tail":
        tail.write_bytes(tail.read_bytes()[:-1])
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError):
        VectorIndex.open(tmp_path)


def test_vectors_of_another_kind_are_refused(tmp_path):
    index = small(tmp_path)
    for bad in (np.zeros((2, 5)), np.full((1, WIDTH), np.nan), np.zeros(WIDTH)):
        with pytest.raises(UsageError):
            index.add(bad)
    with pytest.raises(UsageError):
        VectorIndex.create(tmp_path, WIDTH)
    with pytest.raises(UsageError):
        VectorIndex.create(tmp_path / "new", 0)
