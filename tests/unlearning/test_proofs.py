"""Proofs of an update: honest ones pass, every kind of cheat is refused with its reason."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.core.errors import MissingDependencyError, NotVerifiedError, UsageError
from vestige.core.merkle import MerkleTree, root_of
from vestige.unlearning.proofs import ezkl_backend
from vestige.unlearning.proofs.commit import Block, fixed
from vestige.unlearning.proofs.kkt import Statement, fault, mask_digest
from vestige.unlearning.proofs.spotcheck import Opening, Prover, Verifier, challenge, openings

SIZE, SAMPLES, BLOCKS = 8, 4, 40


def solution(theta, gradients, masked, damping=1.0):
    """The prescribed new weights, solved on the free ones: F_RR δ_R = F_RS θ_S."""
    f = gradients.T @ gradients / len(gradients) + damping * np.eye(len(theta))
    delta = np.where(masked, -theta, 0.0)
    if masked.any() and not masked.all():
        delta[~masked] = np.linalg.solve(f[np.ix_(~masked, ~masked)], f[np.ix_(~masked, masked)] @ theta[masked])
    return delta


def honest(seed: int = 0, blocks: int = BLOCKS):
    g = np.random.default_rng(seed)
    masked = g.random((blocks, SIZE)) < 0.2
    statement = Statement("request", mask_digest(masked), blocks, SIZE, SAMPLES)
    made = []
    for i in range(blocks):
        theta = fixed(g.normal(0, 0.1, SIZE), 24)
        gradients = fixed(g.normal(size=(SAMPLES, SIZE)), 13)
        delta = solution(theta / 2**24, gradients / 2**13, masked[i])
        made.append(Block(i, theta, theta + fixed(delta, 24), gradients))
    return made, masked, statement


def changed(block: Block, place: int, by: int = 1) -> Block:
    fresh = block.theta_new.copy()
    fresh[place] += by
    return Block(block.number, block.theta, fresh, block.gradients)


def run(blocks, masked, statement, count=BLOCKS):
    verifier, prover = Verifier(statement, masked, count), Prover(blocks, statement)
    verifier.verify(prover.open(verifier.receive(prover.root), count))


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=33), st.data())
@settings(max_examples=60, deadline=None)
def test_every_leaf_leads_to_the_root_and_no_other_place_does(leaves, data):
    tree = MerkleTree(leaves)
    place = data.draw(st.integers(0, len(leaves) - 1))
    path = tree.path(place)
    assert root_of(leaves[place], place, len(leaves), path) == tree.root
    assert root_of(leaves[place] + b"x", place, len(leaves), path) != tree.root
    assert root_of(leaves[place], place, len(leaves), (*path, b"x")) == b""
    if path:
        assert root_of(leaves[place], place, len(leaves), path[:-1]) == b""


def test_fixed_point_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="too large"):
        fixed(np.array([300.0]), 24)
    with pytest.raises(UsageError, match="too large"):
        fixed(np.array([np.nan]), 4)


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_proof_is_accepted_opened_in_part_or_in_full(seed):
    made = honest(seed)
    run(*made)
    run(*made, count=7)


def test_weights_that_pass_lie_as_near_the_prescribed_ones_as_stated():
    (block, *_), masked, statement = honest(3)
    place = int(np.flatnonzero(~masked[0])[0])
    low, high = 0, 2**30
    while high - low > 1:  # the largest change of one free weight that is still let through
        middle = (low + high) // 2
        low, high = (low, middle) if fault(changed(block, place, middle), masked[0], statement) else (middle, high)
    assert 0 < low / 2**24 <= 2 * statement.slack


def cheats():
    def kept(blocks, masked):
        i, place = np.argwhere(masked)[3]
        blocks[i] = changed(blocks[i], place)

    def uncompensated(blocks, masked):
        blocks[:] = [Block(b.number, b.theta, np.where(masked[b.number], 0, b.theta), b.gradients) for b in blocks]

    def skipped(blocks, masked):
        blocks[:] = [Block(b.number, b.theta, b.theta, b.gradients) for b in blocks]

    def elsewhere(blocks, masked):
        i = int(np.flatnonzero(~masked.any(1))[0])
        blocks[i] = changed(blocks[i], 0)

    def formless(blocks, masked):
        b = blocks[5]
        blocks[5] = Block(5, b.theta, b.theta_new, b.gradients[:2])

    def huge(blocks, masked):
        blocks[5] = changed(blocks[5], 0, 2**40)

    def fractional(blocks, masked):
        b = blocks[5]
        blocks[5] = Block(5, b.theta, b.theta_new + 0.4, b.gradients)

    return [
        (kept, "masked weight is not zero"), (uncompensated, "make up"), (skipped, "masked weight is not zero"),
        (elsewhere, "without a masked one"), (formless, "another form"), (huge, "out of range"),
        (fractional, "another form"),
    ]  # fmt: skip


@pytest.mark.parametrize(("cheat", "words"), cheats(), ids=lambda c: getattr(c, "__name__", ""))
def test_a_cheat_is_refused_with_its_reason(cheat, words):
    blocks, masked, statement = honest()
    cheat(blocks, masked)
    with pytest.raises(NotVerifiedError, match=words) as caught:
        run(blocks, masked, statement)
    assert "\n" not in str(caught.value)


def test_another_mask_is_refused():
    blocks, masked, statement = honest()
    other = np.roll(masked, 1, 0)
    with pytest.raises(UsageError, match="not the one of the statement"):
        Verifier(statement, other)
    with pytest.raises(NotVerifiedError):
        run(blocks, other, replace(statement, mask=mask_digest(other)))


def test_a_block_changed_after_the_commitment_is_refused():
    blocks, masked, statement = honest()
    verifier, prover = Verifier(statement, masked, BLOCKS), Prover(blocks, statement)
    proof = prover.open(verifier.receive(prover.root), BLOCKS)
    first = proof.openings[0]
    other = Opening(changed(first.block, 0), first.salt, first.path)
    with pytest.raises(NotVerifiedError, match="Block 0 is not what was committed to"):
        verifier.verify(replace(proof, openings=(other, *proof.openings[1:])))


def test_old_roots_old_answers_and_other_blocks_are_refused():
    blocks, masked, statement = honest()
    verifier, prover = Verifier(statement, masked, 5), Prover(blocks, statement)
    proof = prover.open(verifier.receive(prover.root), 5)
    verifier.verify(proof)
    with pytest.raises(NotVerifiedError, match="an old one"):
        verifier.verify(proof)
    with pytest.raises(NotVerifiedError, match="used before"):
        verifier.receive(prover.root)
    with pytest.raises(UsageError, match="opened already"):
        prover.open(b"another nonce")
    again = Prover(blocks, statement)
    short = again.open(verifier.receive(again.root), 4)
    with pytest.raises(NotVerifiedError, match="Other blocks"):
        verifier.verify(short)


def test_salts_hide_equal_blocks_and_follow_the_secret():
    blocks, _, statement = honest()
    assert Prover(blocks, statement).root != Prover(blocks, statement).root
    assert Prover(blocks, statement, b"s").root == Prover(blocks, statement, b"s").root
    assert "secret" not in repr(Prover(blocks[:1], statement, b"s"))


def test_the_challenge_depends_on_everything_and_is_even():
    _, _, statement = honest()
    base = challenge(b"root", statement, b"nonce", 10)
    assert base == challenge(b"root", statement, b"nonce", 10)
    others = [
        challenge(b"r", statement, b"nonce", 10), challenge(b"root", statement, b"n", 10),
        challenge(b"root", replace(statement, request="other"), b"nonce", 10),
    ]  # fmt: skip
    assert all(o != base for o in others)
    assert len(set(base)) == 10
    drawn = np.bincount(np.concatenate([challenge(b"", statement, b"%d" % i, 4) for i in range(500)]), minlength=BLOCKS)
    assert abs(drawn - 50).max() < 5 * math.sqrt(50)


def test_openings_are_as_many_as_the_bound_needs():
    assert openings(0.05, 20) == 271
    assert (1 - 0.05) ** 271 <= 2**-20 < (1 - 0.05) ** 270
    assert openings(1.0) == 1
    with pytest.raises(UsageError, match="share"):
        openings(0)


def test_a_share_of_wrong_blocks_is_caught_at_the_predicted_rate():
    blocks, masked, statement = honest()
    for i in (4, 20, 33):
        blocks[i] = changed(blocks[i], int(np.argmax(masked[i])) if masked[i].any() else 0)
    caught = 0
    for _ in range(200):
        try:
            run(blocks, masked, statement, 8)
        except NotVerifiedError:
            caught += 1
    p = 1 - math.comb(37, 8) / math.comb(40, 8)
    assert abs(caught - 200 * p) <= 4 * math.sqrt(200 * p * (1 - p))


def test_the_snark_backend_says_what_it_needs(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "ezkl", None)
    with pytest.raises(MissingDependencyError, match=r"vestige\[proofs\]"):
        ezkl_backend.setup(ezkl_backend.Group((True, False), 1), tmp_path)
    with pytest.raises(UsageError, match="masked weight"):
        ezkl_backend.Group((False, False), 1)


def test_a_group_is_proved_by_snark(tmp_path):
    pytest.importorskip("ezkl")
    pytest.importorskip("onnx")
    g, masked = np.random.default_rng(0), np.array([True, False, False, False])
    theta, gradients = g.normal(0, 0.3, 4), g.normal(size=(2, 4))
    new = np.where(masked, 0, theta + solution(theta, gradients, masked))
    group = ezkl_backend.Group(tuple(masked.tolist()), 2)
    ezkl_backend.setup(group, tmp_path)
    proof = ezkl_backend.prove(group, theta, new, gradients, tmp_path)
    assert len(set(ezkl_backend.verify(group, tmp_path, proof))) == 3
    assert not (tmp_path / "witness.json").exists()
    lazy = ezkl_backend.prove(group, theta, theta, gradients, tmp_path)
    with pytest.raises(NotVerifiedError, match="not zero"):
        ezkl_backend.verify(group, tmp_path, lazy)
    proof["instances"][0][0] = proof["instances"][0][1]
    with pytest.raises(NotVerifiedError, match="does not hold"):
        ezkl_backend.verify(group, tmp_path, proof)
