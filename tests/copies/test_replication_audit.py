"""Replication: a generator that returns its training pictures, one that does not; cliques, tiles, dedup, commands."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from vestige.app.cli import main
from vestige.copies.replication_audit import ReplicationAudit, abnormally_near, cliques, difference, tile_distance
from vestige.core.errors import UsageError
from vestige.core.image_io import save_image, to_uint8
from vestige.data.scenes import render, sample_scene


def scenes(start, count, size=40):
    return [to_uint8(render(sample_scene(i, style="photo"), size).image) for i in range(start, start + count)]


TRAINING, HELD = scenes(0, 8), scenes(100, 8)


@pytest.fixture(scope="module")
def audit():
    return ReplicationAudit()


def test_a_generator_that_returns_its_training_pictures_replays_all(audit):
    report = audit.measure(TRAINING[:6], TRAINING, HELD)
    assert report.rate == 1.0
    assert report.place.tolist() == list(range(6))
    assert report.extracted.all()
    assert report.background_rate <= 1 / 8


def test_a_generator_of_new_pictures_has_the_background_s_rate(audit):
    report = audit.measure(scenes(200, 6), TRAINING, HELD)
    assert report.rate <= 0.2
    assert not report.extracted.any()
    gap, low, high = difference(audit.measure(TRAINING, TRAINING, HELD), report)
    assert low <= gap <= high
    assert low > 0.5


def test_replication_goes_with_copies_in_training(audit):
    often = [*TRAINING, *([TRAINING[0]] * 4), *([TRAINING[1]] * 4)]
    report = audit.measure([TRAINING[0], TRAINING[1], TRAINING[0]], often, HELD)
    assert report.causes["goes with copies in training"] > 0.5


def test_dedup_keeps_one_of_each(audit):
    keep = audit.keep([*TRAINING, TRAINING[3], TRAINING[5]])
    assert keep[:8].all()
    assert not keep[8:].any()


def test_the_clique_finder_finds_what_trying_all_sets_finds():
    random = np.random.default_rng(0)
    near = random.random((14, 14)) < 0.55
    near = near | near.T
    found = {tuple(c) for c in cliques(near, 3)}

    def whole(nodes):
        return all(near[i, j] for i, j in combinations(nodes, 2))

    every = [c for k in range(3, 15) for c in combinations(range(14), k) if whole(c)]
    maximal = {c for c in every if not any(set(c) < set(d) for d in every)}
    assert found == maximal


def test_the_distance_is_that_of_the_worst_tile():
    a = np.zeros((1, 32, 32), np.float32)
    b = a.copy()
    b[0, :8, :8] = 0.5
    assert tile_distance(a, b)[0, 0] == pytest.approx(0.5)
    assert not abnormally_near(a, np.stack([b[0], b[0] + 0.01])).any()


def test_nothing_to_compare_is_refused(audit):
    with pytest.raises(UsageError):
        audit.measure([], TRAINING)
    with pytest.raises(UsageError):
        ReplicationAudit(cut=1.5)


def test_erase_writes_a_new_folder_and_leaves_the_old(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i, picture in enumerate([*TRAINING[:3], TRAINING[0]]):
        save_image(f"training/a/{i}.png", picture)
    with pytest.raises(SystemExit) as stopped:
        main(["erase", "training", "--method", "replication_audit", "-o", "kept"])
    assert stopped.value.code == 0
    assert sorted(p.name for p in Path("kept/a").iterdir()) == ["0.png", "1.png", "2.png"]
    assert len(list(Path("training/a").iterdir())) == 4
    with pytest.raises(SystemExit) as stopped:
        main(["erase", "training", "--method", "replication_audit", "-o", "kept"])
    assert stopped.value.code == 2
