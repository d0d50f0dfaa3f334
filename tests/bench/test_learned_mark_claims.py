"""Headlines of the learned marks: held by a lead over seeds, not by their baseline in their place."""

from __future__ import annotations

import pytest

from vestige.claims import ClaimContext, MissingRunsError, claims_of, runs_needed
from vestige.claims.watermark import maskmark, screenmark, vine
from vestige.core.catalogue import system

AHEAD, BEHIND = [0.82, 0.84, 0.83], [0.7, 0.72, 0.69]


@pytest.mark.parametrize("judged", [maskmark.judged, screenmark.judged, lambda a, b: vine.judged(a, b, [0.1, -0.2, 0])])
def test_a_headline_is_held_by_a_lead_over_seeds_alone(judged):
    assert judged(AHEAD, BEHIND)[0]
    assert not judged(BEHIND, BEHIND)[0]
    assert not judged(BEHIND, AHEAD)[0]
    assert not judged([0.9, 0.5, 0.7], BEHIND)[0]  # a lead in one seed


def test_fidelity_must_be_equal_for_vine():
    assert not vine.judged(AHEAD, BEHIND, [0.0, 0.0, 1.0])[0]


@pytest.mark.parametrize("slug", ["maskmark", "vine", "screenmark", "safe_sd", "keyss", "wouaf"])
def test_one_headline_and_the_runs_it_needs(slug, tmp_path):
    found = claims_of(system(slug))
    assert sum(c.headline for c in found) == 1
    assert len(found) <= 4
    assert len(runs_needed(__import__(f"vestige.claims.watermark.{slug}", fromlist=["NEEDS"]).NEEDS)) >= 6
    (headline,) = (c for c in found if c.headline)
    with pytest.raises(MissingRunsError, match="--for-claims"):
        headline.check(ClaimContext(tmp_path, runs=tmp_path))
