"""The starter kit: written whole or not at all, the same every time; what was planted is found where it was planted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vestige.app.starter import core
from vestige.app.verbs import kit
from vestige.bench.forensics.panel import pixel_auc
from vestige.core.errors import InputError
from vestige.core.image_io import decode
from vestige.core.panel import shared_panel
from vestige.core.picture import ImageSubject

#: Found by examiners that are not in the default panel.
_BY_NAME = {"recoloured.jpg", "covered.png"}


@pytest.fixture(scope="module")
def examined(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("kit")
    core.pictures(folder)
    planted = {n: k for n, k in json.loads((folder / "planted.json").read_text()).items() if n not in _BY_NAME}
    panel = shared_panel((core.KEY,))
    results = {name: panel.examine(ImageSubject.open(folder / "pictures" / name)) for name in planted}
    masks = {p.stem: decode(p.read_bytes()).pixels[..., 0] > 127 for p in (folder / "masks").glob("*.png")}
    return {"planted": planted, "results": results, "masks": masks}


def test_a_kit_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def breaks(folder: Path) -> list[str]:
        (folder / "half.txt").write_text("half")
        raise InputError("The disk is full.")

    monkeypatch.setattr(kit, "parts", lambda: {"core": breaks})
    with pytest.raises(InputError, match="full"):
        kit.write(tmp_path / "kit", quiet=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        kit.write(tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "mine"


def test_the_kit_is_the_same_every_time(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        core.pair(tmp_path / name)
        core.faces(tmp_path / name)
        core.defects(tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) > 50
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_readme_names_what_is_there():
    import re
    from importlib.resources import files

    text = (files("vestige.app.starter") / "README.md").read_text()
    assert len(re.findall(r"^\d+\. ", text, re.M)) == 10


def test_every_planted_trace_is_found_and_nothing_else_is(examined):
    for name, kind in examined["planted"].items():
        verdict = examined["results"][name].verdict
        told = [f.kind for f in examined["results"][name].findings if f.flagged]
        assert set(told) == ({kind} if kind else set()), (name, verdict)
        assert (verdict.level == "found") == (kind not in (None, "history")), (name, verdict)


def test_maps_of_edits_lie_on_the_edits(examined):
    for stem, examiner in (("spliced", "jpeg_grid"), ("copy-moved", "copy_move")):
        finding = examined["results"][f"{stem}.jpg"][examiner]
        assert finding.flagged
        assert pixel_auc(finding.map, examined["masks"][stem]) > 0.85
        inside = finding.map > 0.5
        assert 0.02 < inside.mean() < 0.4


def test_the_words_say_what_was_planted(examined):
    results = examined["results"]
    assert "vestige" in results["marked.jpg"]["find_mark"].summary
    assert "zip" in str(results["appended.jpg"]["container"].to_dict()).lower()
    assert results["saved-twice.jpg"]["jpeg_double"].details["primary_quality"] == pytest.approx(60, abs=2)
    assert 0.35 < results["payload.png"]["steganalysis"].score < 0.85
    assert np.isnan(results["marked.jpg"]["steganalysis"].score)
