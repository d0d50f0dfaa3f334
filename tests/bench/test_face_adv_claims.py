"""The claims about face recognition run on a few drawn faces and untrained pairs, and can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.bench.watermark import faces as split
from vestige.claims import ClaimContext, MissingRunsError, claims_of
from vestige.claims.watermark import face_adv_watermark as claims
from vestige.core.catalogue import system
from vestige.core.errors import InputError
from vestige.watermark.face_adv_nets import BITS, FaceMark, FacePair, load_pair, save_pair

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
    load = split.load_pack
    monkeypatch.setattr(split, "load_pack", lambda path, size, label: load(path, size))  # folders are labels
    for name, value in {"KNOWN": 4, "TRAINED": 1, "TUNED": 1}.items():
        monkeypatch.setattr(split, name, value)
    torch.manual_seed(0)
    pairs = {v: FacePair(4, width=0.0625, mark_width=8).eval().requires_grad_(False) for v in ("default", "other")}
    monkeypatch.setattr(claims, "_pair", lambda context, variant, seed: pairs.get(variant, pairs["other"]))
    _forget()
    yield ClaimContext(folder, limit=2)
    _forget()


def _forget():
    for cached in (claims._faces, claims.world, claims.attacked, claims.outcomes):
        cached.cache_clear()


def test_every_claim_is_found_and_the_first_is_the_headline():
    found = claims_of(system("face_adv_watermark"))
    assert [c.headline for c in found] == [True, False, False, False]


def test_no_photograph_is_in_two_parts(small, folder):
    data = split.faces(folder / "faces")
    assert data.train.shape == (4, 3, 64, 64)
    assert data.tuning.shape[0] == PEOPLE
    everything = torch.cat([data.train, data.tuning, data.probes]).flatten(1)
    assert len(everything.unique(dim=0)) == len(everything) == 4 + PEOPLE + 2 * PEOPLE
    half = len(data.people) // 2
    assert torch.equal(data.gallery[:half], data.probes[half:])
    assert torch.equal(data.people[:half], data.people[half:])


def test_too_few_people_are_refused(folder, monkeypatch):
    load = split.load_pack
    monkeypatch.setattr(split, "load_pack", lambda path, size, label: load(path, size))
    with pytest.raises(InputError, match="needs 31 people"):
        split.faces(folder / "faces")


def test_missing_runs_are_named(folder, tmp_path, monkeypatch):
    load = split.load_pack
    monkeypatch.setattr(split, "load_pack", lambda path, size, label: load(path, size))
    for name, value in {"KNOWN": 4, "TRAINED": 1, "TUNED": 1}.items():
        monkeypatch.setattr(split, name, value)
    _forget()
    with pytest.raises(MissingRunsError, match="learn face_adv_watermark"):
        claims.the_mark_is_the_trigger.check(ClaimContext(folder, runs=tmp_path))
    _forget()


def test_the_tables_hold_attack_baselines_transfer_and_controls(small):
    evidence = claims.the_mark_is_the_trigger.check(small)
    assert not evidence.holds  # untrained networks and two steps of attack reach nothing
    kinds = {(r["attack"], r["levels"], r["recogniser"], r["mark"]) for r in evidence.table}
    assert len(kinds) == len(evidence.table) == 13
    for row in evidence.table:
        assert 0 <= row["bits of perturbed, marked"] <= 1
        low, high = row["drop, marked: interval"]
        assert low <= row["drop, marked"] <= high
        assert 0 <= row["identified, plain"] <= 1
    for levels, attack in ((4, claims.TRIGGER), (2, claims.TRIGGER), (2, "random signs 0")):
        change = (claims.attacked(small, 0, levels, attack) - claims.world(small, 0).probes).abs().max() * 255
        assert 0 < float(change) <= levels + 1e-3
    for check in (claims.a_small_budget_suffices, claims.the_mark_still_reads):
        assert not check.check(small).holds
    assert len(claims.random_signs_do_nothing.check(small).table) == 2 * claims.SIGNS


def test_the_headline_needs_the_mark():
    key = "drop by both alone: interval"
    trigger, evasion = {key: [0.4, 0.9]}, {key: [-0.1, 0.05]}
    assert claims.is_trigger(trigger, evasion)
    assert not claims.is_trigger(evasion, evasion)  # the method replaced by its baseline
    assert not claims.is_trigger({key: [-0.02, 0.3]}, evasion)  # chance
    assert not claims.is_trigger(trigger, {key: [0.3, 0.8]})  # plain evasion has the gap, too


def test_intervals_are_over_people():
    people = torch.arange(20).repeat(2)
    alike = (people < 10).float()
    low, high = claims.interval(alike, people)
    assert 0.2 < low < 0.5 < high < 0.8
    assert claims.interval(torch.ones(40), people) == (1.0, 1.0)
    # Forty copies of two people are two observations.
    assert claims.interval(torch.tensor([0.0, 1.0]).repeat(40), torch.tensor([0, 1]).repeat(40)) == (0.0, 1.0)


def test_a_pair_is_written_and_read(tmp_path):
    pair = FacePair(3, width=0.0625, mark_width=8).eval()
    save_pair(pair, tmp_path / "pair.safetensors")
    again = load_pair(tmp_path / "pair.safetensors")
    faces = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(pair.recogniser(faces), again.recogniser(faces))
    torch.testing.assert_close(again.recogniser(faces).norm(dim=1), torch.ones(2))
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError):
        load_pair(tmp_path / "other.safetensors")


def test_the_message_reaches_the_picture_and_the_loss_the_message():
    net = FaceMark(width=8)
    images = torch.rand(2, 3, 64, 64)
    ones, zeros = (net.embed(images, torch.full((2, BITS), value)) for value in (1.0, 0.0))
    assert ones.shape == images.shape
    assert float((ones - zeros).detach().abs().max()) > 0
    soft = net.read(ones).soft
    assert soft.shape == (2, BITS)
    soft.sum().backward()
    assert net.message.weight.grad.abs().sum() > 0
