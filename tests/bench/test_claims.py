"""Claims and their store: what is recorded decides what a system is called."""

from __future__ import annotations

import json

import pytest

from vestige.app.cli import main
from vestige.app.verbs.listing import to_markdown
from vestige.claims import Claim, ClaimContext, Evidence, claim, claims_of
from vestige.bench.store import ClaimResult, missing, record, recorded, results_root, status
from vestige.core.catalogue import System, system
from vestige.core.errors import InputError


@claim("two is more than one")
def true_claim(context: ClaimContext) -> Evidence:
    return Evidence(2 > 1, [{"two": 2, "one": 1}])


@claim("the data are there")
def claim_with_data(context: ClaimContext) -> Evidence:
    return Evidence(context.pack("photos").is_dir())


def test_a_claim_runs_and_is_recorded(tmp_path):
    result = true_claim.run(ClaimContext(None))
    assert result.holds
    record(tmp_path, "toy", [result], seed=3, data="none")
    stored = json.loads((tmp_path / "claims" / "toy.json").read_text())
    assert stored["seed"] == 3
    assert {"versions", "hardware", "date"} <= stored.keys()
    assert recorded(tmp_path, "toy") == [result]
    assert recorded(tmp_path, "other") is None


def test_status_is_earned(tmp_path):
    planned = System("toy", "toy", ("find",))
    built = System("toy", "toy", ("find",), target="json:loads")
    assert (status(planned, tmp_path), missing(planned, tmp_path)) == ("planned", "not built")
    assert (status(built, tmp_path), missing(built, tmp_path)) == ("implemented", "claims not run")
    good, bad = ClaimResult("good", True), ClaimResult("bad", False, note="too small")
    record(tmp_path, "toy", [good, bad], seed=0, data="")
    assert status(built, tmp_path) == "implemented"
    assert missing(built, tmp_path) == "claim not shown: bad (too small)"
    record(tmp_path, "toy", [good], seed=0, data="")
    assert (status(built, tmp_path), missing(built, tmp_path)) == ("working", "")
    (tmp_path / "claims" / "toy.json").write_text("{}")
    with pytest.raises(InputError, match="results file"):
        status(built, tmp_path)


def test_a_claim_without_its_data_says_what_it_needs(tmp_path):
    with pytest.raises(InputError, match="VESTIGE_DATA"):
        claim_with_data.run(ClaimContext(None))
    with pytest.raises(InputError, match="photos"):
        claim_with_data.run(ClaimContext(tmp_path))


def test_built_systems_with_claims_find_them():
    assert len(claims_of(system("panel"))) >= 3
    assert len(claims_of(system("dwt_dct_svd"))) == 2
    assert claims_of(system("container")) == []


def test_a_claim_runs_from_the_command_line_on_other_data(tmp_path, photo, capsys):
    from vestige.core.image_io import encode

    folder = tmp_path / "packs" / "photos"
    folder.mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(encode(photo[10 * i : 10 * i + 200, :260], "JPEG", quality=92))
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "claims",
                "dwt_dct_svd",
                "--data",
                str(tmp_path / "packs"),
                "--results",
                str(tmp_path / "r"),
                "--limit",
                "2",
            ]
        )
    assert stop.value.code in (0, 1)
    stored = json.loads((tmp_path / "r" / "claims" / "dwt_dct_svd.json").read_text())
    assert len(stored["claims"]) == 2
    silent = stored["claims"][1]
    assert silent["holds"]
    assert silent["table"][0]["called marked"] == 0


def test_naming_the_default_data_folder_still_records(monkeypatch, tmp_path, capsys):
    from vestige.app.verbs import claiming

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(claiming, "find_data_root", lambda: tmp_path)
    monkeypatch.setattr(claiming, "results_root", lambda given: given or tmp_path / "results")
    monkeypatch.setattr(claiming, "claims_of", lambda entry: [Claim("always", lambda context: Evidence(True))])
    for data, kept in ((other, False), (tmp_path / "." / "", True)):
        claiming.run(["panel"], data=data, results=None, as_json=False, limit=0, jobs=1, seed=0, quiet=False)
        assert (tmp_path / "results" / "claims" / "panel.json").is_file() is kept
        assert ("Not recorded" in capsys.readouterr().err) is not kept


def test_the_systems_page_is_fresh():
    """docs/SYSTEMS.md is what `make docs` writes now."""
    root = results_root()
    page = root.parent / "docs" / "SYSTEMS.md"
    assert page.read_text() == to_markdown(root), "run: make docs"
