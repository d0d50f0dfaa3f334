"""Label-Agnostic Forgetting: its losses, its autoencoders, and that it needs no label."""

from __future__ import annotations

import math

import pytest
import torch

from tests.unlearning.toys import toy_problem
from vestige.core.errors import InputError, UsageError
from vestige.engines.forgetting.evaluate import represent
from vestige.unlearning.laf import LAF, alignment, squashed, train_vae


def test_the_squash_counts_each_sample_from_one_to_e():
    values = squashed(torch.tensor([0.0])), squashed(torch.tensor([1e9]))
    assert values[0] == 1
    assert float(values[1]) == pytest.approx(math.e)


def test_alignment_is_least_when_kept_features_stay_and_others_move():
    torch.manual_seed(0)
    e = torch.randn(4, 6)
    kept, moved = alignment(e, e, -e, e, 1.0), alignment(-e, e, e, e, 1.0)
    assert kept < moved
    c_r, c_f = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 0.0])
    by_hand = sum(torch.log(torch.exp(c) / torch.exp(c_f / 5).sum()) for c in c_r)
    angle = lambda c: torch.stack([1 - c, (1 - (1 - c) ** 2).sqrt()], 1)  # noqa: E731 - unit vectors at 1 − cos = c
    axis = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    torch.testing.assert_close(alignment(angle(c_r), axis, angle(c_f), axis, 5.0), by_hand)


def test_an_autoencoder_tells_its_own_features_from_others():
    torch.manual_seed(0)
    mine = torch.randn(300, 2) @ torch.randn(2, 12) + 1
    vae = train_vae(mine, latent=4, epochs=30, seed=0)
    assert vae.error(mine).mean() < vae.error(torch.randn(300, 12) * mine.std() + 1).mean() / 2
    assert not any(p.requires_grad for p in vae.parameters())
    bounded = train_vae(mine.sigmoid(), latent=4, epochs=1, seed=0, sigmoid=True)
    assert bounded.error(mine.sigmoid()).shape == (300,)


def test_forgotten_features_leave_their_place_without_any_label():
    problem = toy_problem("class").without_labels()
    method = LAF(loops=15, lr_ue=2e-3, lr_ra=2e-3, vae_epochs=20, latent=4)
    assert method.needs == {"retain"}
    model = method.erase(problem)
    vae = train_vae(torch.from_numpy(represent(problem.model, problem.forget)).float(), latent=4, epochs=20, seed=1)

    def error(net, samples):
        return float(vae.error(torch.from_numpy(represent(net, samples)).float()).mean())

    assert error(model, problem.forget) > 1.5 * error(problem.model, problem.forget)
    assert torch.equal(model.head.weight, problem.model.head.weight)
    assert torch.equal(model.body[1].running_mean, problem.model.body[1].running_mean)


def test_repair_uses_labels_and_says_so():
    method = LAF(loops=1, vae_epochs=1, repair=40, repair_epochs=1)
    assert method.needs == {"retain", "labels"}
    problem = toy_problem("class")
    model = method.erase(problem)
    assert not torch.equal(model.head.weight, problem.model.head.weight)
    with pytest.raises(InputError, match="label"):
        method.erase(problem.without_labels())


def test_which_data_the_first_autoencoder_sees_is_a_choice():
    problem = toy_problem("class")
    everything, retained = (LAF(loops=1, vae_epochs=2, lr_ue=1e-3, h_data=d).erase(problem) for d in ("all", "retain"))
    assert not torch.equal(everything.body[0].weight, retained.body[0].weight)
    with pytest.raises(UsageError, match="h_data"):
        LAF(h_data="some")
