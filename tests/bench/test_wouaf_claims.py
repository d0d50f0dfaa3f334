"""The claims of WOUAF run on any weights and say which are missing; an untrained network names nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.claims import ClaimContext, claims_of
from vestige.claims.watermark import wouaf as claims
from vestige.core.catalogue import system
from vestige.core.errors import InputError
from vestige.engines.marking.model import save_marker
from vestige.nn.vae import small_vae
from vestige.watermark.wouaf import WouafNet

CONTEXT = ClaimContext(None, limit=4)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Untrained weights at 32 pixels in place of the shipped ones."""
    monkeypatch.setattr(claims, "WEIGHTS", tmp_path)
    for cached in (claims.system, claims.original, claims._signed):
        cached.cache_clear()
    torch.manual_seed(0)
    vae = small_vae(32, (8, 16), 4).eval()
    vae.save_pretrained(tmp_path / "scenes_vae")
    for name in ("wouaf", "wouaf_shadow"):
        net = WouafNet(16, 32, vae=vae, depth=18, reader_width=0.125, width=16).eval()
        save_marker(tmp_path / f"{name}.safetensors", net, "wouaf", {})
    yield tmp_path
    for cached in (claims.system, claims.original, claims._signed):
        cached.cache_clear()


def test_every_claim_is_found():
    assert len(claims_of(system("wouaf"))) == 6


def test_an_untrained_network_names_nobody(weights):
    evidence = claims.names_new_users.check(CONTEXT)
    assert not evidence.holds
    rows = {row["method"]: row for row in evidence.table}
    assert {"no modulation", "Stable Signature, user 1"} <= rows.keys()
    assert 0.3 < rows["WOUAF, drawn latents, new users"]["identity 0"] < 0.7
    assert len(rows["no modulation"]) == 4 + len(claims.AFTER)
    assert "16 bits" in evidence.note


def test_baking_and_false_alarms_need_no_training(weights):
    assert claims.bakes_exactly.check(CONTEXT).holds
    seldom = claims.accuses_as_seldom_as_stated.check(CONTEXT)
    assert seldom.holds
    assert seldom.table[-1]["users, 0 wrong bits"] == 65


def test_the_other_claims_report_their_figures(weights):
    assert not claims.keeps_the_pictures.check(CONTEXT).holds  # too few pictures for a Fréchet distance
    secret = claims.is_not_noticed.check(CONTEXT)
    assert [0 <= row["accuracy"] <= 1 for row in secret.table] == [True, True]
    caught = claims.names_no_innocents.check(CONTEXT)
    assert [row["attack"] for row in caught.table][:4] == [f"average of {n}" for n in (1, 2, 3, 5)]
    assert "psnr" in caught.table[-1]


def test_fingerprints_of_tests_and_training_are_apart(weights):
    new, seen = (claims.fingerprints(CONTEXT, 200, odd=odd) for odd in (True, False))
    assert (new.sum(1) % 2 == 1).all()
    assert (seen.sum(1) % 2 == 0).all()
    assert 0.3 < new[:, -1].mean() < 0.7


def test_averaging_is_the_mean_of_the_weights(weights):
    decoders = [claims.system().stamp(b) for b in claims.fingerprints(CONTEXT, 2, "average")]
    made = claims._averaged(decoders).decoder.mid_block.resnets[0].conv1.weight
    a, b = (d.decoder.mid_block.resnets[0].conv1.weight for d in decoders)
    torch.testing.assert_close(made, (a + b) / 2)
    assert not np.allclose(a, b)


def test_missing_weights_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "WEIGHTS", tmp_path)
    claims.system.cache_clear()
    claims.original.cache_clear()
    with pytest.raises(InputError, match="vestige learn wouaf"):
        claims.names_new_users.check(CONTEXT)
    with pytest.raises(InputError, match="vestige learn scenes_vae"):
        claims.original()
