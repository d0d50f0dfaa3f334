"""Public forensic sets by their layouts, on tiny folders made up for each."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vestige.core.errors import InputError
from vestige.core.image_io import decode, encode
from vestige.data.forensic_sets import LAYOUTS, ForensicSet, open_set

HEIGHT, WIDTH = 24, 40


def picture(path: Path, pixels: np.ndarray | None = None, format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(len(str(path))).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path.write_bytes(encode(pixels, format))


def region(inside: int = 255, outside: int = 0) -> np.ndarray:
    mask = np.full((HEIGHT, WIDTH, 3), outside, np.uint8)
    mask[4:12, 10:30] = inside
    return mask


def clip(path: Path, values: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for value in values:
        frame = np.full((48, 64, 3), 20, np.uint8)
        frame[8:40, 16:48] = value
        writer.write(frame)
    writer.release()


def casia1(root: Path) -> None:
    picture(root / "Au/Au_ani_0001.jpg", format="JPEG")
    picture(root / "Sp/Sp_D_CND_A_pla0005_pla0023_0281.jpg", format="JPEG")
    picture(root / "CASIA 1.0 groundtruth/Sp/Sp_D_CND_A_pla0005_pla0023_0281_gt.png", region())


def casia2(root: Path) -> None:
    picture(root / "Au/Au_ani_00001.jpg", format="JPEG")
    picture(root / "Tp/Tp_D_CRN_M_N_nat10156_ani00006_11619.jpg", format="JPEG")
    picture(root / "Tp/Tp_S_NRN_S_N_pla20080_pla20080_01980.tif", format="TIFF")
    for name in ("Tp_D_CRN_M_N_nat10156_ani00006_11619", "Tp_S_NRN_S_N_pla20080_pla20080_01980"):
        picture(root / f"CASIA 2 Groundtruth/{name}_gt.png", region())


def columbia(root: Path) -> None:
    picture(root / "4cam_auth/canong3_02_sub_01.tif", format="TIFF")
    picture(root / "4cam_auth/edgemask/canong3_02_sub_01_edgemask.jpg", format="JPEG")
    picture(root / "4cam_splc/canong3_canonxt_sub_01.tif", format="TIFF")
    mask = region(0, 0)
    mask[..., 0] = 200
    mask[4:12, 10:30] = (0, 255, 0)
    picture(root / "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg", mask, "PNG")


def coverage(root: Path) -> None:
    picture(root / "image/1.tif", format="TIFF")
    picture(root / "image/1t.tif", format="TIFF")
    for name in ("copy", "forged", "paste"):
        picture(root / f"mask/1{name}.tif", region(), "TIFF")


def nist16(root: Path) -> None:
    picture(root / "probe/NC2016_0001.jpg", format="JPEG")
    picture(root / "probe/NC2016_0002.jpg", format="JPEG")
    picture(root / "reference/manipulation/mask/NC2016_0001_mask.png", region(0, 255))
    (root / "reference/manipulation/NC2016-manipulation-ref.csv").write_text(
        "TaskID|ProbeFileID|ProbeFileName|IsTarget|ProbeMaskFileName|IsManipulationTypeSplice\n"
        "manipulation|a|probe/NC2016_0001.jpg|Y|reference/manipulation/mask/NC2016_0001_mask.png|Y\n"
        "manipulation|b|probe/NC2016_0002.jpg|N||\n"
        "manipulation|c|probe/NC2016_0003.jpg|N||\n"
    )


def imd2020(root: Path) -> None:
    picture(root / "1a1ogs/1a1ogs_orig.jpg", format="JPEG")
    picture(root / "1a1ogs/c8tf5mq_0.png")
    picture(root / "1a1ogs/c8tf5mq_0_mask.png", region())
    picture(root / "1a1ogs/without_its_mask.png")


def genimage(root: Path) -> None:
    for generator in ("imagenet_ai_0419_biggan", "imagenet_ai_0508_adm"):
        picture(root / generator / "val/ai/1.png")
        picture(root / generator / "val/nature/1.jpg", format="JPEG")


def faceforensics(root: Path) -> None:
    clip(root / "original_sequences/youtube/c23/videos/000.mp4", [60] * 8)
    clip(root / "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4", [120] * 8)
    clip(root / "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4", [250] * 8)
    for number in range(6):
        picture(root / f"manipulated_sequences/FaceSwap/c23/images/001_002/{number:04d}.png")


def dfdc(root: Path) -> None:
    part = root / "dfdc_train_part_0"
    clip(part / "aagfhgtpmv.mp4", [90] * 5)
    for number in range(3):
        picture(part / f"vudstovrck/{number}.png")
    labels = {
        "aagfhgtpmv.mp4": {"label": "FAKE", "split": "train", "original": "vudstovrck.mp4"},
        "vudstovrck.mp4": {"label": "REAL", "split": "train"},
        "elsewhere.mp4": {"label": "REAL", "split": "train"},
    }
    (part / "metadata.json").write_text(json.dumps(labels))


MAKERS = {
    "casia": casia2, "columbia": columbia, "coverage": coverage, "nist16": nist16, "imd2020": imd2020,
    "genimage": genimage, "faceforensics": faceforensics, "dfdc": dfdc,
}  # fmt: skip


def made(name: str, root: Path) -> ForensicSet:
    MAKERS[name](root)
    found = open_set(root)
    assert found.layout == name
    return found


def table(found: ForensicSet) -> dict[str, tuple[bool, str, bool]]:
    return {item.name: (item.label, item.approach, item.mask is not None) for item in found.items}


def test_every_layout_has_a_made_up_folder():
    assert MAKERS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", ["casia", "columbia", "coverage", "nist16", "imd2020"])
def test_masks_are_true_where_the_picture_was_edited(name, tmp_path):
    found = made(name, tmp_path)
    edited = [item for item in found.items if item.label]
    assert edited
    for item in edited:
        mask = item.edited(decode(item.data()))
        assert mask is not None
        assert mask.dtype == bool
        rows, columns = np.nonzero(mask)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 10, 29)
    for item in found.items:
        if not item.label:
            assert item.approach == "real"
            assert item.edited(decode(item.data())) is None


def test_casia(tmp_path):
    assert set(table(made("casia", tmp_path)).values()) == {
        (False, "real", False), (True, "splice", True), (True, "copy_move", True),
    }  # fmt: skip
    casia1(tmp_path / "first")
    first = open_set(tmp_path / "first")
    assert (first.layout, sorted(i.approach for i in first.items)) == ("casia", ["real", "splice"])


def test_nist16_lists_what_its_table_names_and_is_there(tmp_path):
    assert table(made("nist16", tmp_path)) == {
        "probe/NC2016_0001.jpg": (True, "splice", True),
        "probe/NC2016_0002.jpg": (False, "real", False),
    }


def test_imd2020_leaves_out_what_has_no_mask(tmp_path):
    assert table(made("imd2020", tmp_path)) == {
        "1a1ogs/1a1ogs_orig.jpg": (False, "real", False),
        "1a1ogs/c8tf5mq_0.png": (True, "edit", True),
    }


def test_genimage_keeps_the_generator(tmp_path):
    found = made("genimage", tmp_path)
    assert {i.approach for i in found.items} == {"real", "imagenet_ai_0419_biggan", "imagenet_ai_0508_adm"}
    assert {i.groups["generator"] for i in found.items if not i.label} == {
        "imagenet_ai_0419_biggan", "imagenet_ai_0508_adm",
    }  # fmt: skip


def test_faceforensics_samples_clips_and_their_masks(tmp_path):
    found = made("faceforensics", tmp_path)
    by_approach = {a: [i for i in found.items if i.approach == a] for a in ("real", "Deepfakes", "FaceSwap")}
    assert {a: len(items) for a, items in by_approach.items()} == {"real": 4, "Deepfakes": 4, "FaceSwap": 4}
    assert {i.groups["compression"] for i in found.items} == {"c23"}
    frame = by_approach["Deepfakes"][0]
    assert frame.name.endswith("000_003.mp4#1")
    seen = decode(frame.data())
    assert seen.pixels.shape == (48, 64, 3)
    mask = frame.edited(seen)
    assert mask is not None
    assert 0.25 < mask.mean() < 0.45
    assert all(i.mask is None for i in by_approach["FaceSwap"])


def test_dfdc_takes_clips_and_folders_of_frames(tmp_path):
    found = made("dfdc", tmp_path)
    assert sorted({(i.label, i.approach, i.groups["part"]) for i in found.items}) == [
        (False, "real", "dfdc_train_part_0"), (True, "fake", "dfdc_train_part_0"),
    ]  # fmt: skip
    assert sum(not i.label for i in found.items) == 3
    (tmp_path / "dfdc_train_part_0/aagfhgtpmv.mp4").write_bytes(b"no clip")
    with pytest.raises(InputError, match="not a clip"):
        next(i for i in found.items if i.label).data()


def test_a_table_of_ones_own(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    picture(tmp_path / "masks/b.png", region())
    (tmp_path / "labels.csv").write_text(
        "file,label,mask,approach,group\na.png,real,,,east\nb.png,fake,masks/b.png,swap,west\n"
    )
    found = open_set(tmp_path)
    assert found.layout == "labels.csv"
    assert table(found) == {"a.png": (False, "real", False), "b.png": (True, "swap", True)}
    assert [i.groups for i in found.items] == [{"group": "east"}, {"group": "west"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,kind\na.png,1\n", "columns file and label"),
        ("file,label\na.png,maybe\n", "line 2: the label"),
        ("file,label\nelsewhere.png,1\n", "no file 'elsewhere.png'"),
        ("file,label\n", "at least one row"),
    ],
)
def test_a_broken_table_is_refused(content, said, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        open_set(tmp_path)


def test_other_folders_are_refused_in_one_sentence(tmp_path):
    picture(tmp_path / "holiday/1.png")
    with pytest.raises(InputError, match=r"layout of no set that is known here .*labels\.csv"):
        open_set(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        open_set(tmp_path / "nowhere")
    casia2(tmp_path / "both")
    imd2020(tmp_path / "both")
    with pytest.raises(InputError, match=r"more than one set \(casia, imd2020\)"):
        open_set(tmp_path / "both")


def test_what_is_missing_from_a_set_is_named(tmp_path):
    nist16(tmp_path / "nist")
    for probe in (tmp_path / "nist/probe").iterdir():
        probe.unlink()
    with pytest.raises(InputError, match="None of the pictures"):
        open_set(tmp_path / "nist")
    dfdc(tmp_path / "dfdc")
    for file in (tmp_path / "dfdc").rglob("*.*"):
        if file.name != "metadata.json":
            file.unlink()
    with pytest.raises(InputError, match="None of the 3 clips"):
        open_set(tmp_path / "dfdc")


def test_masks_that_do_not_fit_are_refused(tmp_path):
    found = made("coverage", tmp_path)
    item = next(i for i in found.items if i.label)
    picture(tmp_path / "mask/1forged.tif", region()[:, :-2], "TIFF")
    with pytest.raises(InputError, match="mask is 38×24 and the picture 40×24"):
        item.edited(decode(item.data()))
    picture(tmp_path / "mask/1forged.tif", region(0), "TIFF")
    with pytest.raises(InputError, match="marks no pixel"):
        item.edited(decode(item.data()))


def test_a_part_of_a_set_is_balanced_and_repeatable(tmp_path):
    for i in range(12):
        picture(tmp_path / f"Au/Au_ani_{i:05d}.png")
        if i < 5:
            picture(tmp_path / f"Tp/Tp_D_CRN_M_N_{i}.png")
    found = open_set(tmp_path)
    part = found.take(6, seed=1)
    assert sum(i.label for i in part.items) == 3
    assert part.items == found.take(6, seed=1).items
    assert part.items != found.take(6, seed=2).items
    assert sum(i.label for i in found.take(14).items) == 5
    assert found.take(0) is found
