"""Identity tasks, folders in the published layouts, and the score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unlearning.toys import TRAINING, ToyNet
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode
from vestige.data.identity_task import IdentityTask, lit_faces, load_mucac, load_mufac, parted, styled_scenes
from vestige.data.packs import Pack
from vestige.engines.forgetting.train import train
from vestige.metrics.unlearning import nomus
from vestige.unlearning.mufac import PUBLISHED, Mufac, identity_problem


def people(persons: int = 8, each: int = 3) -> Pack:
    g = np.random.default_rng(0)
    labels = np.arange(persons).repeat(each)
    images = g.integers(60, 190, (persons, 3, 8, 8)).repeat(each, 0).astype(np.uint8)
    return Pack(images, labels, tuple(str(i) for i in range(len(labels))), tuple(f"p{i}" for i in range(persons)))


COUNTS = {"forget": 2, "retain": 3, "test": 1, "unseen": 2}


def test_nobody_is_in_two_parts_and_labels_do_not_follow_persons():
    task = lit_faces(people(), counts=COUNTS, views=4, seed=1)
    assert {p: len(task.where(p)) for p in COUNTS} == {p: n * 12 for p, n in COUNTS.items()}
    owners = {p: set(task.persons[task.where(p)]) for p in COUNTS}
    assert len(set.union(*owners.values())) == 8
    assert len(set(task.labels[task.persons == "p0"])) > 2
    same = lit_faces(people(), counts=COUNTS, views=4, seed=1)
    np.testing.assert_array_equal(task.images, same.images)
    with pytest.raises(UsageError, match="part is"):
        task.where("nobody")


def test_the_light_comes_from_the_side_its_label_says():
    pack = people()
    flat = Pack(np.full_like(pack.images, 128), pack.labels, pack.names, pack.class_names)
    task = lit_faces(flat, counts=COUNTS, views=6)
    right = task.images[task.labels == 0].astype(int)
    assert (right[..., -1] > right[..., 0]).all()


def test_scenes_stand_for_persons():
    task = styled_scenes({"forget": 2, "retain": 2, "test": 1, "unseen": 2})
    assert task.images.shape == (14, 3, 32, 32)
    assert len(set(task.persons.tolist())) == 7
    counts = {"forget": 2, "retain": 2, "test": 1, "unseen": 2}
    plain, faint = (styled_scenes(counts, strength=s).images.astype(int) for s in (0.0, 0.2))
    full = task.images.astype(int)
    assert (plain[0] == plain[1]).all()  # two styles of one scene
    np.testing.assert_allclose(faint, plain + 0.2 * (full - plain), atol=1)
    np.testing.assert_array_equal(styled_scenes(counts, strength=0.2).labels, task.labels)


def test_a_person_in_two_parts_is_refused():
    task = lit_faces(people(), counts=COUNTS)
    part = task.part.copy()
    part[task.where("unseen")[0]] = "forget"
    with pytest.raises(InputError, match="in the parts"):
        IdentityTask(task.images, task.labels, task.persons, part)
    with pytest.raises(InputError, match="asked for"):
        parted(["a", "b"], {"forget": 3})


def _mufac(root, age="b"):
    for name, families in (("train", ("F0001", "F0002", "F0003")), ("val", ("F0801",)), ("test", ("F0851",))):
        (root / f"{name}_images").mkdir(parents=True)
        lines = ["family_id,person_id,age_class,image_path"]
        for family in families:
            for i in range(2):
                file = f"{family}_{i}.jpg"
                (root / f"{name}_images" / file).write_bytes(encode(np.full((9, 9, 3), 90, np.uint8), "JPEG"))
                lines.append(f"{family},a1,{age},{file}")
        (root / f"custom_{name}_dataset.csv").write_text("\n".join(lines))
    return root


def test_the_published_mufac_folder_is_read(tmp_path):
    task = load_mufac(_mufac(tmp_path / "m"), 8, forget=3)
    assert task.images.shape == (10, 3, 8, 8)
    assert (task.labels == 1).all()
    # Three pictures would cut the second household, so it goes as a whole.
    assert set(task.persons[task.where("forget")]) == {"F0001", "F0002"}
    assert set(task.persons[task.where("unseen")]) == {"F0851"}


def test_broken_mufac_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="custom_train"):
        load_mufac(tmp_path)
    with pytest.raises(InputError, match="age class"):
        load_mufac(_mufac(tmp_path / "a", age="z"))
    root = _mufac(tmp_path / "b")
    (root / "val_images" / "F0801_0.jpg").unlink()
    with pytest.raises(InputError, match="F0801_0"):
        load_mufac(root, 8, forget=2)
    (root / "custom_train_dataset.csv").write_text("family_id,image_path\nF0001,a.jpg\n")
    with pytest.raises(InputError, match="age_class"):
        load_mufac(root)


def test_the_mucac_folder_is_read(tmp_path):
    (tmp_path / "CelebA-HQ-img").mkdir()
    rows, who = [], []
    for i in range(12):
        (tmp_path / "CelebA-HQ-img" / f"{i}.jpg").write_bytes(encode(np.full((9, 9, 3), 10 * i, np.uint8), "JPEG"))
        rows.append(f"{i}.jpg {-1 if i % 2 else 1} 1")
        who.append(f"{i}.jpg {i // 2}")
    (tmp_path / "CelebA-HQ-attribute.txt").write_text("\n".join(["12", "Smiling Young", *rows]))
    with pytest.raises(InputError, match="identity"):
        load_mucac(tmp_path)
    (tmp_path / "CelebA-HQ-identity.txt").write_text("\n".join(who))
    shares = {"forget": 0.2, "retain": 0.4, "test": 0.2, "unseen": 0.2}
    task = load_mucac(tmp_path, size=8, shares=shares)
    assert task.class_names == ("not Smiling", "Smiling")
    assert sorted(set(task.part.tolist())) == ["forget", "retain", "test", "unseen"]
    with pytest.raises(InputError, match="attribute"):
        load_mucac(tmp_path, "Hat")


def test_the_score_follows_the_published_arithmetic():
    for utility, m, score in PUBLISHED.values():
        assert nomus(utility, 0.5 + m) == pytest.approx(score, abs=1e-4)


def test_a_model_that_memorised_is_told_from_one_that_did_not():
    task = lit_faces(people(12, 4), counts={"forget": 4, "retain": 4, "test": 2, "unseen": 2}, views=3, strength=8)
    make = lambda: ToyNet(8)  # noqa: E731
    torch.manual_seed(0)
    problem, unseen = identity_problem(make(), task, training=TRAINING, build=make)
    assert len(problem.forget) == 48
    assert problem.kind == "identity"
    row = Mufac(draws=4).measure(train(problem.fresh(0), problem.train, TRAINING), problem, unseen)
    assert row["M"] == pytest.approx(abs(row["attack"] - 0.5))
    assert row["NoMUS"] == pytest.approx(0.5 * row["A"] + 0.5 * (1 - 2 * row["M"]))
    assert row["M low"] <= row["M high"]
    problem.test = None
    with pytest.raises(UsageError, match="test persons"):
        Mufac().measure(problem.model, problem, unseen)
