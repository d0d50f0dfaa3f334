"""Headlines that rest on runs are not held where the baseline stands in our place, or labels were shuffled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vestige.claims import ClaimContext, claims_of, runs_needed
from vestige.claims.forensics import clipmasterprints, generated_image, laundering, pixar, rigid
from vestige.claims.forensics.clipmasterprints import NATURAL, NOISE, PGD
from vestige.core.catalogue import system
from vestige.forensics.generated_evidence import group_sizes

LEARNED = (
    "patchcraft",
    "imaginet",
    "generated_image",
    "laundering",
    "recolor",
    "pixar",
    "clipmasterprints",
    "tamper_map",
)


def plant(root: Path, needs, value) -> None:
    """Finished runs with the figures of published pictures; value: (recipe, variant, seed) -> mean AUROC."""
    for recipe, variant, seed in runs_needed(needs):
        mean = value(recipe, variant, seed)
        evaluation = {
            "levelled, mean": mean, "JPEG 70, mean": mean - 0.02, "half size, mean": mean - 0.03, "flagged": 0.04,
            "families": {"one": mean}, "kinds": {"photograph": [100, 4]}, "generator named": mean, "chance": 0.2,
            "alone": {name: mean - 0.1 for name in (*group_sizes(), "one linear judge")},
        }  # fmt: skip
        seen = {f"{h}, {f}": mean for h in ("levelled", "JPEG 70", "half size") for f in ("mean", "seen")}
        evaluation["whole"] = {**evaluation, **seen}
        folder = root / recipe / variant / str(seed)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"step": 1, "seconds": 1.0, "evaluation": evaluation}))


@pytest.mark.parametrize("slug", LEARNED)
def test_one_headline_and_at_most_four_claims(slug):
    claims = claims_of(system(slug))
    assert sum(c.headline for c in claims) == 1
    assert len(claims) <= 4


@pytest.mark.parametrize(("slug", "ours"), [("patchcraft", {"held"}), ("imaginet", {"held", "default"})])
def test_it_holds_when_we_are_ahead_and_not_when_we_are_the_baseline(tmp_path, slug, ours):
    import importlib

    module = importlib.import_module(f"vestige.claims.forensics.{slug}")
    claim = next(c for c in claims_of(system(slug)) if c.headline)
    plant(tmp_path / "ahead", module.NEEDS, lambda r, v, s: (0.8 if v in ours else 0.52) + 0.01 * s)
    plant(tmp_path / "level", module.NEEDS, lambda r, v, s: 0.8 + 0.01 * (s if v in ours else 2 - s))
    plant(
        tmp_path / "noise", module.NEEDS, lambda r, v, s: (0.8 if v in ours else 0.7) + (0.25 if v[:3] == "shu" else 0)
    )
    assert claim.run(ClaimContext(None, runs=tmp_path / "ahead")).outcome == "shown"
    assert claim.run(ClaimContext(None, runs=tmp_path / "level")).outcome == "not shown"
    assert claim.run(ClaimContext(None, runs=tmp_path / "noise")).outcome == "test bed too weak"


@pytest.mark.parametrize("rival", [("npr", "held"), ("patchcraft", "held"), ("generated_image", "judges"),
                                   ("generated_image", "frozen")])  # fmt: skip
def test_generated_image_is_ahead_of_every_rival_or_not_at_all(tmp_path, rival):
    claim, other = claims_of(system("generated_image"))[:2]
    ours = {("generated_image", "held"), ("generated_image", "sources")}
    for name, best in (("ahead", ours), ("level", {*ours, rival})):
        plant(
            tmp_path / name,
            generated_image.NEEDS,
            lambda r, v, s, best=best: (0.83 if (r, v) in best else 0.52) + 0.01 * (s if (r, v) in ours else 2 - s),
        )
    plant(tmp_path / "noise", generated_image.NEEDS, lambda r, v, s: 0.9 if v[:3] == "shu" or (r, v) in ours else 0.6)
    assert claim.run(ClaimContext(None, runs=tmp_path / "ahead")).outcome == "shown"
    assert claim.run(ClaimContext(None, runs=tmp_path / "level")).outcome == "not shown"
    assert claim.run(ClaimContext(None, runs=tmp_path / "noise")).outcome == "test bed too weak"
    plant(tmp_path / "reached", generated_image.NEEDS, lambda r, v, s: 0.94 if v == "sources" else 0.81)
    outcomes = [other.run(ClaimContext(None, runs=tmp_path / name)).outcome for name in ("reached", "ahead")]
    assert outcomes == ["shown", "not shown"]


def test_laundering():
    assert laundering.judged([0.9, 0.91, 0.92], [0.6, 0.62, 0.61], 0.35)[::2] == (True, "")
    assert not laundering.judged([0.6, 0.62, 0.61], [0.6, 0.62, 0.61], 0.35)[0]
    assert laundering.judged([0.9, 0.91, 0.92], [0.6, 0.62, 0.61], 0.8)[2]


def test_pixar():
    ours, masks = {"pixels": [0.5, 0.52, 0.51], "objects": [0.3, 0.31, 0.3]}, {"pixels": [0.4, 0.39, 0.4],
                                                                              "objects": [0.6, 0.6, 0.61]}  # fmt: skip
    assert pixar.judged(ours, masks, 0.1)[::3] == (True, "")
    assert not pixar.judged(masks, masks, 0.1)[0]
    assert pixar.judged(ours, masks, 0.6)[3]


def test_masters():
    rates = {PGD: [0.6, 0.62, 0.61], NATURAL: [0.01, 0.02, 0.0], NOISE: [0.0, 0.0, 0.01]}
    assert clipmasterprints.judged(rates, [0.05, 0.04, 0.06], 0.01)[::2] == (True, "")
    assert not clipmasterprints.judged({**rates, PGD: rates[NATURAL]}, [0.05, 0.04, 0.06], 0.01)[0]
    assert clipmasterprints.judged(rates, [0.05, 0.04, 0.06], 0.9)[2]


def test_rigid_is_not_ahead_of_itself():
    from vestige.bench.forensics.published_bed import Squares
    from vestige.data.published import Published

    generated = np.arange(80) % 2 == 1
    words = np.where(generated, np.where(np.arange(80) % 4 == 1, "one", "two"), "photograph")
    made = Published((b"",) * 80, generated, words, words, words, words)
    squares = Squares(np.zeros((80, 1, 3, 1, 1), np.uint8), made, generated)
    draw = np.random.default_rng(0)
    good, blind = generated + draw.normal(0, 0.3, 80), draw.normal(0, 1, 80)
    assert rigid.ahead(squares, good, blind, draws=60).low > 0
    assert rigid.ahead(squares, good, good, draws=20).low == 0
