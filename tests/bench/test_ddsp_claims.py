"""The purifier's claims run on a few pictures, can fail, and find files where there are some."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from vestige.claims import ClaimContext, MissingRunsError, claims_of
from vestige.claims.watermark import ddsp as claims
from vestige.claims.watermark.ddsp_files import CARRIERS, LOW, hidden_files, read_file, write_file
from vestige.core.catalogue import system
from vestige.watermark.ddsp import DDSP


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Untrained weights of a small network, and pictures in the place of the scenery."""
    folder = tmp_path / "data" / "scenery"
    folder.mkdir(parents=True)
    source = data.astronaut()
    for i in range(8):
        top, left = 30 * i, 25 * i
        Image.fromarray(source[top : top + 256, left : left + 256]).save(folder / f"{i}.png")
    small = DDSP(width=8, blocks=1)
    for variant in ("default", "autoencoder"):
        for seed in claims.SEEDS:
            run = tmp_path / "runs" / "ddsp" / variant / str(seed)
            run.mkdir(parents=True)
            small.save(run / "ddsp.safetensors", {"embedder": "HILL"})
            (run / "metrics.json").write_text('{"evaluation": {}}')
    monkeypatch.setattr(claims, "DDSP", lambda **settings: DDSP(width=8, blocks=1, **settings))
    monkeypatch.setattr(claims, "SIDE", 96)
    monkeypatch.setattr(claims, "_diffusion", lambda pictures, seed: [])
    _forget()
    yield ClaimContext(tmp_path / "data", limit=2, runs=tmp_path / "runs")
    _forget()


def _forget():
    for cached in (claims.covers, claims.purifier, claims._files):
        cached.cache_clear()


def test_every_claim_is_found():
    assert [c.headline for c in claims_of(system("ddsp"))] == [True, False, False, False]


def test_the_headline_needs_a_lead_beyond_chance():
    ours = np.array([40.0, 41.0, 42.0, 40.5])
    assert claims.ahead(ours, {"jpeg": ours - 3})[0] == []
    assert claims.ahead(ours, {"jpeg": ours})[0] == ["jpeg"]  # the method replaced by its rival
    assert claims.ahead(ours, {"jpeg": ours + np.array([-3, 3, -3, 3])})[0] == ["jpeg"]


def test_the_table_holds_every_purifier(context):
    evidence = claims.destroys_payloads.check(context)
    rows = evidence.table
    assert rows[0]["purifier"] == "DDSP, 3 planes"
    assert min(rows[0][p] for p in claims.PAYLOADS) > 0.45
    assert rows[1]["psnr"] > 50
    assert rows[1]["second plane"] == 0  # one plane redrawn: what is above it stays
    assert rows[0]["psnr"] == pytest.approx(
        next(r for r in rows if r["purifier"] == "planes at their middle, 3")["psnr"], abs=0.1
    )
    named = {row["purifier"].split()[0] for row in rows}
    assert {"dither", "jpeg", "bicubic", "median", "wavelet", "auto-encoder"} <= named
    assert sum("set for" in row for row in rows) == 10


def test_a_purifier_that_does_nothing_fails(context, monkeypatch):
    monkeypatch.setattr(DDSP, "attack", lambda self, images: images)
    assert not claims.destroys_payloads.check(context).holds
    assert not claims.destroys_unseen_embedders.check(context).holds


def test_unseen_embedders(context):
    evidence = claims.destroys_unseen_embedders.check(context)
    assert evidence.holds
    assert {row["embedder"]: row["seen"] for row in evidence.table} == {
        "LSB replacement": False, "LSB matching": False, "HILL": True, "S-UNIWARD": False,
    }  # fmt: skip
    assert all("bit error" not in row for row in evidence.table[-2:])


def test_files_come_back_from_every_carrier_without_a_purifier():
    pixels = data.chelsea()[:256, :256].transpose(2, 0, 1)[None]
    rows = list(hidden_files(lambda x: x, pixels, 0))
    assert [row["byte-exact"] for row in rows] == [1] * len(CARRIERS)
    # Error correction is worth its name: a third of the chips wrong, and the file is there.
    carrier = CARRIERS["LSB replacement, error-corrected"]
    sent = bytes(range(256))
    marked = write_file(carrier, pixels[0], sent, 0)
    noise = np.random.default_rng(0).random(marked.shape) < 0.33
    assert read_file(carrier, marked ^ noise.astype(np.uint8), 256) == sent
    assert read_file(carrier, pixels[0], 256) is None


def test_only_what_is_above_the_planes_comes_back(context):
    assert claims.no_file_comes_back_from_the_lowest_planes.check(context).holds
    evidence = claims.no_file_comes_back.check(context)
    back = {r["carrier"] for r in evidence.table if r["purifier"] == "DDSP, 3 planes" and r["byte-exact"]}
    assert back.isdisjoint(LOW)
    assert evidence.holds == (not back)
    dithered = {r["carrier"]: r["byte-exact"] for r in evidence.table if r["purifier"] == "dither 1"}
    assert dithered["LSB replacement"] == 0
    assert dithered["third plane, error-corrected"] == 2


def test_missing_runs_name_the_command(tmp_path):
    _forget()
    with pytest.raises(MissingRunsError, match="vestige learn ddsp"):
        claims.purifier(ClaimContext(None, runs=tmp_path))


def test_torch_is_deterministic_here(context):
    images = torch.rand(1, 3, 20, 20).numpy()
    np.testing.assert_array_equal(claims.purifier(context).attack(images), claims.purifier(context).attack(images))
