"""The main job on the example pictures: every planted trace is found where it was planted, the others stay clear."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from vestige.bench.forensics.panel import pixel_auc
from vestige.core.image_io import decode
from vestige.core.panel import shared_panel
from vestige.core.subjects import ImageSubject

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def examined(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("examples")
    spec = importlib.util.spec_from_file_location("make_examples", ROOT / "examples" / "make_examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder)
    planted = json.loads((folder / "planted.json").read_text())
    panel = shared_panel()
    results = {name: panel.examine(ImageSubject.open(folder / name)) for name in planted}
    masks = {p.stem: decode(p.read_bytes()).pixels[..., 0] > 127 for p in (folder / ".masks").glob("*.png")}
    return {"planted": planted, "results": results, "masks": masks}


def test_every_planted_trace_is_found_and_nothing_else_is(examined):
    for name, kind in examined["planted"].items():
        verdict = examined["results"][name].verdict
        assert set(verdict.kinds) == ({kind} if kind else set()), (name, verdict)
        expected = "no trace found" if kind is None else "processed" if kind == "history" else "traces found"
        assert verdict.label == expected, name


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
