"""WOUAF's test bed and claims: what is compared, and that a planted failure is not held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.watermark import wouaf_bed as bed
from vestige.claims import ClaimContext, MissingRunsError, claims_of
from vestige.claims.watermark import wouaf as claims
from vestige.core.catalogue import system
from vestige.nn.vae import small_vae
from vestige.watermark.users import UserRegistry
from vestige.watermark.wouaf import Wouaf, WouafNet


@pytest.fixture(scope="module")
def net() -> WouafNet:
    torch.manual_seed(0)
    return WouafNet(16, 32, vae=small_vae(32, (8, 16), 4).eval(), depth=18, reader_width=0.125, width=16).eval()


def test_the_claims_are_four_and_name_the_command_that_is_missing(tmp_path):
    found = claims_of(system("wouaf"))
    assert [c.headline for c in found] == [True, False, False, False]
    with pytest.raises(MissingRunsError, match="vestige learn wouaf --for-claims"):
        found[0].check(ClaimContext(None, runs=tmp_path))


def test_the_headline_needs_a_lead_over_seeds():
    ours, theirs = [0.85, 0.86, 0.84], [0.7, 0.71, 0.72]
    assert claims.judged(ours, theirs, 0.5)[0]
    assert not claims.judged(theirs, theirs, 0.5)[0]  # ours replaced by the baseline
    assert not claims.judged([0.5, 0.52, 0.51], [0.4, 0.41, 0.4], 0.5)[0]  # read as well where nothing was written


def test_fingerprints_of_tests_and_training_are_apart():
    new, seen = (bed.fingerprints(16, 200, 0, odd=odd) for odd in (True, False))
    assert (new.sum(1) % 2 == 1).all()
    assert (seen.sum(1) % 2 == 0).all()
    assert 0.3 < new[:, -1].mean() < 0.7


def test_an_untrained_network_reads_nothing_from_any_picture(net):
    images = bed.pictures(None, 32, 4)
    latents = bed.drawn_latents(net.encode, images, 0)
    assert latents.shape == (4, 4, 16, 16)
    new = bed.fingerprints(16, 4, 0)
    row = bed.survival("new users", bed.decoded_for(net, latents, new), new, Wouaf(network=net).read, 0)
    assert len(row) == 5 + len(bed.AFTER)
    assert 0.3 < row["mean"] < 0.7


def test_colluders_are_named_by_what_they_share(net):
    users = UserRegistry(16, b"collusion")
    words = [users.register(str(i)) for i in range(3)]
    wouaf = Wouaf(network=net)
    made = bed.decoded(claims.averaged([wouaf.stamp(w) for w in words[:2]]), torch.randn(3, 4, 16, 16))
    row = claims.accusations(wouaf, users, "average of 2", words[:2], made)
    assert row["pictures"] == 3
    assert 0 <= row["one of them named"] + row["innocent named"] <= 1


def test_averaging_is_the_mean_of_the_weights(net):
    decoders = [Wouaf(network=net).stamp(b) for b in bed.fingerprints(16, 2, 0, "average")]
    made = claims.averaged(decoders).decoder.mid_block.resnets[0].conv1.weight
    a, b = (d.decoder.mid_block.resnets[0].conv1.weight for d in decoders)
    torch.testing.assert_close(made, (a + b) / 2)
    assert not np.allclose(a, b)
