"""Marks of generators, scenes and screens from the command line, on files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vestige.app.cli import app
from vestige.app.starter.scenes_3d import write
from vestige.core.image_io import decode, save_image
from vestige.data.scenes import render_pack
from vestige.engines.splatting import read_ply
from vestige.watermark.learned import WEIGHTS


def vestige(*words) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert not isinstance(result.exception, KeyboardInterrupt)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, str(result.exception)
    return result.exit_code, result.output


@pytest.fixture
def kit(tmp_path):
    torch.manual_seed(0)
    write(tmp_path)
    pictures = render_pack(4, 96, 5).images.transpose(0, 2, 3, 1)
    for i, picture in enumerate(pictures):
        save_image(tmp_path / "pictures" / f"{i}.png", np.ascontiguousarray(picture))
    return tmp_path


def test_a_scene_hides_in_a_scene_and_the_key_file_opens_it(kit):
    code, said = vestige(
        "mark", kit / "cover.ply", "--method", "keyss", "--reference", kit / "secret.ply", "-o", kit / "p.ply",
        "--set", "steps=3", "--set", "size=16", "--set", "views=3", "--json",
    )  # fmt: skip
    assert code == 0, said
    assert json.loads(said)["figures"]["gaussians"] == len(read_ply(kit / "cover.ply"))
    words = ("read", kit / "p.ply", "--method", "keyss", "--model", kit / "p.safetensors")
    assert vestige(*words, "-o", kit / "opened.ply")[0] == 0
    assert vestige(*words, "-o", kit / "opened.png")[0] == 0
    assert decode((kit / "opened.png").read_bytes()).pixels.shape == (64, 256, 3)
    code, said = vestige("measure", kit / "cover.ply", kit / "cover.ply", "--method", "keyss", "--json")
    assert json.loads(said)["figures"]["mean"] < 0.01
    for wrong in (kit / "none.ply", kit / "logo.png", kit / "pictures"):
        code, said = vestige("measure", wrong, kit / "cover.ply", "--method", "keyss")
        assert code == 2
    code, _ = vestige("mark", kit / "cover.ply", "--method", "keyss", "-o", kit / "q.ply")
    assert code == 2
    assert not (kit / "q.ply").exists()


def test_an_overlay_is_a_picture_with_transparency(kit):
    words = ("make", "--method", "screenmark", "-m", "hello", "-o", kit / "overlay.png", "--set", "width=300")
    code, said = vestige(*words)
    assert code == 0, said
    from PIL import Image

    with Image.open(kit / "overlay.png") as picture:
        assert picture.mode == "RGBA"
        assert picture.size[0] == 300
    assert vestige("make", "--method", "screenmark", "-o", kit / "no.png")[0] == 2
    assert not (kit / "no.png").exists()


def test_a_mark_is_measured_under_edits_on_a_users_pictures(kit):
    code, said = vestige(
        "measure", kit / "pictures", "--method", "vine", "--set", "side=64", "--set", "count=4", "--json"
    )
    assert code == 0, said
    rows = json.loads(said)["rows"]
    assert [r["edit"] for r in rows][:2] == ["none", "jpeg 50"]
    assert rows[0]["bits read"] > 0.9
    assert vestige("measure", kit / "pictures", "--method", "vine", "--set", "mark=ctrlregen")[0] == 2
    assert vestige("measure", kit / "pictures", "--method", "vine")[0] == 2  # too small for 192 pixels


def test_a_region_and_other_weights_are_chosen_by_mask_and_model(kit):
    mask = np.zeros((96, 96), np.uint8)
    mask[:, :64] = 255
    save_image(kit / "mask.png", mask)
    words = ("mark", kit / "pictures" / "0.png", "--method", "maskmark", "--bits", "a5", "-o", kit / "m.png")
    model = ("--model", WEIGHTS / "maskmark.safetensors")
    code, said = vestige(*words, "--mask", kit / "mask.png", *model)
    assert code == 0, said
    before, after = (decode(p.read_bytes()).pixels for p in (kit / "pictures" / "0.png", kit / "m.png"))
    np.testing.assert_array_equal(before[:, 64:], after[:, 64:])
    assert (before[:, :64] != after[:, :64]).any()
    assert (
        vestige("mark", kit / "pictures" / "0.png", "-m", "hi", "--mask", kit / "mask.png", "-o", kit / "x.png")[0] == 2
    )
    assert vestige("read", kit / "m.png", "--method", "spread_spectrum", "--model", kit / "m.png")[0] == 2


@pytest.mark.skipif(not (WEIGHTS / "wouaf.safetensors").is_file(), reason="the weights of wouaf are not there")
def test_a_users_copy_of_a_generator_and_whose_it_is(kit):
    shutil.copytree(WEIGHTS / "scenes_vae", kit / "vae")
    words = ("mark", kit / "vae", "--method", "wouaf", "--user", "ada", "--registry", kit / "users.json")
    code, said = vestige(*words, "-o", kit / "ada")
    assert code == 0, said
    assert (kit / "ada" / "config.json").is_file()
    assert json.loads((kit / "users.json").read_text())["users"].keys() == {"ada"}
    code, said = vestige(
        "find", kit / "ada-picture.png", "--only", "wouaf", "--reference", kit / "users.json", "--json"
    )
    assert json.loads(said)["rows"][0]["nearest"] == "ada"
    assert vestige("read", kit / "ada-picture.png", "--method", "wouaf")[0] == 0
    assert vestige(*words, "-o", kit / "ada")[0] == 2  # exists
    assert vestige("mark", kit / "logo.png", *words[2:], "-o", kit / "bob")[0] == 2
    assert not (kit / "bob").exists()
    code, said = vestige("mark", kit / "vae", "--method", "stable_signature", "-o", kit / "signed", "--set", "steps=1")
    assert code == 0, said
    drawn = ("make", kit / "pictures" / "0.png", "--method", "stable_signature", "--model", kit / "signed")
    assert vestige(*drawn, "-o", kit / "s.png")[0] == 0
    assert vestige("read", kit / "s.png", "--method", "stable_signature")[0] in (0, 4)


@pytest.mark.skipif(not (WEIGHTS / "safe_sd").is_dir(), reason="the weights of safe_sd are not there")
def test_a_drawn_picture_hides_a_mark_that_the_key_shows(kit):
    prompt = ("--prompt", "a red ball on sand, signed", "--set", "steps=6")
    code, said = vestige("mark", kit / "logo.png", "--method", "safe_sd", *prompt, "-o", kit / "signed.png")
    assert code == 0, said
    words = ("read", kit / "signed.png", "--method", "safe_sd", "--reference", kit / "logo.png")
    code, said = vestige(*words, "-o", kit / "shown.png")
    assert code == 0, said
    assert (kit / "shown.png").is_file()
    plain = ("read", kit / "logo.png", "--method", "safe_sd", "--reference", kit / "logo.png")
    assert vestige(*plain)[0] == 4
    assert vestige("mark", kit / "logo.png", "--method", "safe_sd", "-o", kit / "no.png")[0] == 2
    assert not (kit / "no.png").exists()
