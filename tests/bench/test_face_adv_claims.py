"""The claims about face recognition run on a few drawn faces, train their parts once, and can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.bench.generation import runs
from vestige.claims import ClaimContext, claims_of
from vestige.claims.watermark import face_adv_parts as parts
from vestige.claims.watermark import face_adv_watermark as claims
from vestige.core.catalogue import system
from vestige.core.errors import InputError

PEOPLE, EACH = 5, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Blurred noise of its own for every person, with a little more for every photograph."""
    import cv2

    top = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        (top / "faces" / f"person {person}").mkdir(parents=True)
        face = cv2.GaussianBlur(rng.normal(size=(112, 92)), (0, 0), 6) * 600 + 128
        for i in range(EACH):
            picture = (face + rng.normal(0, 6, face.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(top / "faces" / f"person {person}" / f"{i}.png")
    return top


@pytest.fixture
def small(folder, monkeypatch):
    load = parts.load_pack
    monkeypatch.setattr(parts, "load_pack", lambda path, size, label: load(path, size))  # folders are labels
    for name, value in {"KNOWN": 4, "TRAINED": 1, "TUNED": 1}.items():
        monkeypatch.setattr(parts, name, value)
    _forget()
    yield ClaimContext(folder, limit=2)
    _forget()


def _forget():
    for cached in (claims.world, claims.attacked, claims.outcome):
        cached.cache_clear()


def test_every_claim_is_found():
    assert len(claims_of(system("face_adv_watermark"))) == 4


def test_no_photograph_is_in_two_parts(small, folder):
    data = parts.faces(folder / "faces")
    assert data.train.shape == (4, 3, 64, 64)
    assert data.tuning.shape[0] == PEOPLE
    everything = torch.cat([data.train, data.tuning, data.probes]).flatten(1)
    assert len(everything.unique(dim=0)) == len(everything) == 4 + PEOPLE + 2 * PEOPLE
    half = len(data.people) // 2
    assert torch.equal(data.gallery[:half], data.probes[half:])
    assert torch.equal(data.people[:half], data.people[half:])


def test_too_few_people_are_refused(folder, monkeypatch):
    load = parts.load_pack
    monkeypatch.setattr(parts, "load_pack", lambda path, size, label: load(path, size))
    with pytest.raises(InputError, match="needs 31 people"):
        parts.faces(folder / "faces")


def test_the_tables_hold_attack_baselines_and_transfer(small):
    evidence = claims.the_mark_is_the_trigger.check(small)
    assert not evidence.holds  # two steps of training and attack reach nothing
    kinds = {(r["attack"], r["levels"], r["recogniser"], r["mark"]) for r in evidence.table}
    assert len(kinds) == len(evidence.table) == 11
    for row in evidence.table:
        assert 0 <= row["bits of perturbed, marked"] <= 1
        low, high = row["drop, marked: interval"]
        assert low <= row["drop, marked"] <= high
        assert 0 <= row["identified, plain"] <= 1
    for levels, attack in ((4, claims.TRIGGER), (2, claims.TRIGGER), (2, "random signs 0")):
        change = (claims.attacked(small, levels, attack) - claims.world(small).probes).abs().max() * 255
        assert 0 < float(change) <= levels + 1e-3
    for check in (claims.a_small_budget_suffices, claims.the_mark_still_reads):
        assert not check.check(small).holds
    assert len(claims.random_signs_do_nothing.check(small).table) == 2 * claims.SIGNS


def test_intervals_are_over_people():
    people = torch.arange(20).repeat(2)
    alike = (people < 10).float()
    low, high = claims.interval(alike, people)
    assert 0.2 < low < 0.5 < high < 0.8
    assert claims.interval(torch.ones(40), people) == (1.0, 1.0)
    # Forty copies of two people are two observations.
    assert claims.interval(torch.tensor([0.0, 1.0]).repeat(40), torch.tensor([0, 1]).repeat(40)) == (0.0, 1.0)


def test_trained_parts_are_read_again(small, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    data = parts.faces(folder / "faces")
    first = parts.recogniser(data, 0, width=0.0625, steps=3)
    monkeypatch.setattr(runs, "Trainer", None)
    again = parts.recogniser(data, 0, width=0.0625, steps=3)
    torch.testing.assert_close(first(data.probes), again(data.probes))
    torch.testing.assert_close(first(data.probes).norm(dim=1), torch.ones(len(data.probes)))


def test_the_message_reaches_the_picture_and_the_loss_the_message():
    net = parts.FaceMark(width=8)
    images = torch.rand(2, 3, 64, 64)
    ones, zeros = (net.embed(images, torch.full((2, parts.BITS), value)) for value in (1.0, 0.0))
    assert ones.shape == images.shape
    assert float((ones - zeros).detach().abs().max()) > 0
    soft = net.read(ones).soft
    assert soft.shape == (2, parts.BITS)
    soft.sum().backward()
    assert net.message.weight.grad.abs().sum() > 0
