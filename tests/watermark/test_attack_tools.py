"""Attacks and audits on a user's own pictures: any size in, the same size out, plain words for what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import decode, save_image
from vestige.core.work import Work
from vestige.watermark.face_adv_nets import FacePair, save_pair
from vestige.watermark.tools import copyrightmeter, ctrlregen, ddsp, face_adv_watermark, redrawing, robust_limits
from vestige.watermark.tools import visual_paraphrase as paraphrase


def picture(path: Path, height: int = 40, width: int = 56, seed: int = 0) -> Path:
    save_image(path, np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))
    return path


def pixels(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).pixels


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A tiny pixel-space model with random weights."""
    from vestige.bench.generation.runs import random_pipeline
    from vestige.engines.diffusion.pipeline import save_pipeline

    return Path(save_pipeline(tmp_path_factory.mktemp("model") / "pipeline", random_pipeline(size=16)))


def test_a_picture_of_any_size_is_redrawn_at_its_size(pipeline: Path, tmp_path: Path) -> None:
    source, out = picture(tmp_path / "a.png"), tmp_path / "out" / "a.png"
    options = {"steps": "2", "strength": "0.5"}
    for tool, method in ((robust_limits, "robust_limits"), (paraphrase, "visual_paraphrase")):
        given = Work("attack", method, (source,), out, model=pipeline, prompt="a large red ball", options=options)
        assert tool.attack(given).files == [out]
        assert pixels(out).shape == (40, 56, 3)
        assert not np.array_equal(pixels(out), pixels(source))
    small = Work("attack", "robust_limits", (source,), out, model=pipeline, options={**options, "side": "20"})
    robust_limits.attack(small)
    assert pixels(out).shape == (40, 56, 3)


def test_several_pictures_go_to_a_folder(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / "in" / f"{i}.png", 16, 20 + i, i)
    result = redrawing.changed(Work("attack", "x", (tmp_path / "in",), tmp_path / "out"), lambda image: 1 - image)
    assert [f.name for f in result.files] == ["0.png", "1.png"]
    assert pixels(tmp_path / "out" / "1.png").shape == (16, 21, 3)
    with pytest.raises(UsageError, match="--out FOLDER"):
        redrawing.targets(Work("attack", "x", (tmp_path / "in",)))
    with pytest.raises(UsageError, match="input"):
        redrawing.targets(Work("attack", "x", (tmp_path / "in",), tmp_path / "in"))


def test_refusals_write_nothing(tmp_path: Path) -> None:
    source, out = picture(tmp_path / "a.png"), tmp_path / "b.png"
    (tmp_path / "note.txt").write_text("no picture")
    for method, tool in (("ddsp", ddsp), ("ctrlregen", ctrlregen), ("robust_limits", robust_limits)):
        with pytest.raises(InputError):
            tool.attack(Work("attack", method, (tmp_path / "absent.png",), out))
        with pytest.raises(InputError):
            tool.attack(Work("attack", method, (tmp_path / "note.txt",), out))
        with pytest.raises(UsageError, match="no setting"):
            tool.attack(Work("attack", method, (source,), out, options={"plans": "2"}))
    with pytest.raises(UsageError, match="one of purify"):
        robust_limits.attack(Work("attack", "robust_limits", (source,), out, options={"how": "hope"}))
    with pytest.raises(InputError, match="learn face_adv_watermark"):
        face_adv_watermark.attack(Work("attack", "face_adv_watermark", (source,), out))
    with pytest.raises(InputError, match="learn visual_paraphrase"):
        paraphrase.attack(Work("attack", "visual_paraphrase", (source,), out))
    assert not out.exists()


@pytest.fixture(autouse=True)
def _no_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VESTIGE_RUNS", str(tmp_path / "runs"))


def test_the_purifier_attacks_and_erases_inside_a_mask(tmp_path: Path) -> None:
    source, out = picture(tmp_path / "a.png"), tmp_path / "b.png"
    assert ddsp.attack(Work("attack", "ddsp", (source,), out)).files == [out]
    assert pixels(out).shape == (40, 56, 3)
    mask = np.zeros((40, 56, 3), np.uint8)
    mask[:20] = 255
    save_image(tmp_path / "mask.png", mask)
    ddsp.erase(Work("erase", "ddsp", (source,), out, mask=tmp_path / "mask.png"))
    changed = (pixels(out) != pixels(source)).any(2)
    assert changed[:20].any()
    assert not changed[20:].any()


def test_limits_of_two_folders(tmp_path: Path) -> None:
    for i in range(13):
        plain = np.full((20, 20, 3), 100 + i, np.uint8)
        save_image(tmp_path / "unmarked" / f"{i}.png", plain)
        save_image(tmp_path / "marked" / f"{i}.png", plain + np.uint8(40))
    given = {"method": "robust_limits", "paths": (tmp_path / "marked", tmp_path / "unmarked")}
    found = robust_limits.measure(Work("measure", options={"side": "16", "epochs": "2"}, **given)).figures
    assert found["distance of"] == "pairs of the same name"
    assert found["distance"] == pytest.approx(40 / 255 * (3 * 16 * 16) ** 0.5, rel=0.01)
    assert 0.5 < float(found["auroc at most"]) <= 1
    assert 0 <= float(found["errors at least after purification"]) <= 1
    same = {**given, "paths": (tmp_path / "marked", tmp_path / "marked")}
    assert robust_limits.measure(Work("measure", options={"epochs": "1"}, **same)).figures["auroc at most"] == 0.5
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        robust_limits.measure(Work("measure", "robust_limits", (tmp_path / "empty", tmp_path / "marked")))


def test_a_spoofed_picture_reads_as_marked(tmp_path: Path) -> None:
    from vestige.watermark.dwt_dct_svd import DwtDctSvd

    source, out, key = tmp_path / "a.png", tmp_path / "b.png", bytes(range(32))
    save_image(source, load_sample_image("china.jpg")[120:376, 220:476].copy())
    robust_limits.attack(Work("attack", "robust_limits", (source,), out, key=key, options={"how": "spoof"}))
    read = DwtDctSvd().read(pixels(out).transpose(2, 0, 1)[None].astype(np.float32) / 255, key)[0]
    assert read.p_value < 1e-6


def test_faces_are_attacked_and_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = FacePair(3, width=0.0625, mark_width=8).eval()
    save_pair(pair, tmp_path / "pair.safetensors")
    for person in range(3):
        for view in range(2):
            picture(tmp_path / "faces" / f"p{person}" / f"{view}.png", 70, 60, 10 * person + view)
    source, out = tmp_path / "faces" / "p0" / "0.png", tmp_path / "b.png"
    given = {"method": "face_adv_watermark", "model": tmp_path / "pair.safetensors", "options": {"steps": "2"}}
    result = face_adv_watermark.attack(Work("attack", paths=(source,), out=out, **given))
    change = np.abs(pixels(out).astype(int) - pixels(source))
    assert pixels(out).shape == (70, 60, 3)
    assert 0 < change.max() <= 4
    assert "cosine to the untouched face, changed and marked" in result.figures
    rows = face_adv_watermark.measure(Work("measure", paths=(tmp_path / "faces",), **given)).rows
    assert [row["change"] for row in rows] == ["adversarial", "random signs"]
    with pytest.raises(InputError, match="PERSON/VIEW"):
        face_adv_watermark.measure(Work("measure", paths=(tmp_path / "faces" / "p0",), **given))


def test_a_cloak_needs_the_same_pictures_twice(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / "cloaked" / f"{i}.png", 16, 16, i)
        picture(tmp_path / "other" / f"{i + 5}.png", 16, 16, i)
    with pytest.raises(InputError, match="same names"):
        copyrightmeter.measure(Work("measure", "copyrightmeter", (tmp_path / "cloaked", tmp_path / "other")))
    given = Work("measure", "copyrightmeter", (tmp_path / "cloaked", tmp_path / "cloaked"), options={"seeds": "1"})
    with pytest.raises(UsageError, match="at least 2"):
        copyrightmeter.measure(given)
