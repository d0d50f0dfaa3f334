"""Parts of the forensics benchmark: the ladder, the choice of examiners, and the sets made for those who have none."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.bench.forensics import made as forensics_made
from vestige.bench.forensics.cells import LADDER, ladder
from vestige.bench.forensics.made import made_edits, made_fakes
from vestige.bench.forensics.methods import methods
from vestige.core.errors import UsageError
from vestige.core.image_io import decode, encode

HEIGHT, WIDTH = 64, 96


def grey(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(90, 130, (HEIGHT, WIDTH, 1), np.uint8).repeat(3, 2)


def test_the_ladder_moves_masks_and_saves_as_files_do():
    steps = {step.name: step for step in ladder(LADDER)}
    assert list(steps) == LADDER.split(",")
    data = encode(grey(0), "PNG")
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, :48] = True
    assert steps["none"].apply(data, mask, 0) == (data, mask)
    posted, moved = steps["resize:0.75+jpeg:80"].apply(data, mask, 0)
    assert posted[:2] == b"\xff\xd8"
    assert moved is not None
    assert (decode(posted).pixels.shape, moved.shape) == ((48, 72, 3), (48, 72))
    assert moved[:, :35].all()
    assert not moved[:, 37:].any()
    assert steps["blur:1"].apply(data, None, 0)[0][:4] == b"\x89PNG"
    assert steps["noise:0.02"].apply(data, None, 1)[0] != steps["noise:0.02"].apply(data, None, 2)[0]
    for wrong, said in (("jpeg", "no step"), ("jpeg:300", "strength"), ("sepia:1", "no distortion"), ("", "at least")):
        with pytest.raises(UsageError, match=said):
            ladder(wrong)


def test_attacks_come_first_and_keep_masks_in_place(photo):
    steps = {step.name: step for step in ladder("sear,laundering+jpeg:80")}
    image = np.ascontiguousarray(photo[100:165, 100:198])
    mask = np.zeros((65, 98), bool)
    mask[:, :48] = True
    hidden, kept = steps["sear"].apply(encode(image, "PNG"), mask, 0)
    pixels = decode(hidden).pixels
    assert pixels.shape == image.shape
    assert 0 < np.abs(pixels.astype(int) - image).mean() < 16
    np.testing.assert_array_equal(kept, mask)
    washed, cut = steps["laundering+jpeg:80"].apply(encode(image, "PNG"), mask, 0)
    assert washed[:2] == b"\xff\xd8"
    assert decode(washed).pixels.shape[:2] == cut.shape == (64, 96)
    with pytest.raises(UsageError, match="first"):
        ladder("jpeg:80+sear")


def test_methods_come_from_the_catalogue():
    assert [m.label for m in methods("ela,noise_level,panel")] == ["ela", "noise_level", "panel"]
    edit = [m.slug for m in methods("edit")]
    assert {"ela", "noise_level", "copy_move", "jpeg_dq"} <= set(edit)
    assert not {"metadata", "rigid", "panel", "steganalysis"} & set(edit)
    assert "rigid" in [m.slug for m in methods("generated")]
    assert {"ela", "rigid", "metadata", "panel"} <= {m.slug for m in methods("all")}
    for wrong, said in (
        ("dwt_dct_svd", "does not examine"),
        ("nothing_like_it", "no system"),
        ("ela:a=b", "NAME=NUMBER"),
    ):
        with pytest.raises(UsageError, match=said):
            methods(wrong)


def test_edits_are_made_where_no_folder_is_given(monkeypatch, tmp_path):
    monkeypatch.setattr(forensics_made, "find_data_root", lambda: None)
    made = made_edits(tmp_path / "a", limit=6, seed=3)
    assert made.layout == "made-up edits of rendered scenes"
    assert [item.label for item in made.items].count(True) == 3
    for item in made.items:
        assert (item.edited(decode(item.data())) is not None) == item.label
    again = made_edits(tmp_path / "b", limit=6, seed=3)
    assert [i.data() for i in again.items] == [i.data() for i in made.items]
    assert [i.data() for i in made_edits(tmp_path / "c", limit=6, seed=4).items] != [i.data() for i in made.items]


def test_fakes_are_made_of_the_same_pictures(monkeypatch, tmp_path):
    from vestige.data.fakes import SOURCES, FakeSource
    from vestige.engines import fakes

    learnt = []
    monkeypatch.setattr(forensics_made, "find_data_root", lambda: None)
    monkeypatch.setattr(fakes, "zoo", lambda images, **_: (learnt.append(images), list(SOURCES.values())[:2])[1])
    made = made_fakes(tmp_path, limit=8, seed=3)
    assert made.layout == "fakes made of rendered scenes"
    assert [item.label for item in made.items].count(True) == 4
    assert {item.approach for item in made.items} == {"real", *list(SOURCES)[:2]}
    pairs: dict[str, list[np.ndarray]] = {}
    for item in made.items:
        assert item.mask is None
        pairs.setdefault(item.name.split("-")[0], []).append(decode(item.data()).pixels.astype(float))
    for one, other in pairs.values():
        assert one.shape == (64, 64, 3)
        assert 0 < np.abs(one - other).mean() < 30
    (images,) = learnt
    mixed = forensics_made._mixed([*SOURCES.values(), FakeSource("gan", "gan", lambda images, _: images)])
    assert [source.name for source in mixed[:2]] == [next(iter(SOURCES)), "gan"]
    held = np.stack([decode(i.data()).pixels.transpose(2, 0, 1) for i in made.items if not i.label]) / 255
    assert np.abs(images[:, None] - held[None]).mean((2, 3, 4)).min() > 0.01  # of other pictures
