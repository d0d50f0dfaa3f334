"""The zoo of the scanner's benchmark: every dangerous file is named, no ordinary model is called dangerous."""

import importlib
from pathlib import Path

import pytest

from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.models.checkpoint import ModelSubject

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("kind", "least"), [("dangerous", 150), ("ordinary", 60)])
def test_the_zoo(kind, least, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    files = getattr(importlib.import_module(f"zoo_{kind}"), kind)()
    assert len(files) >= least
    others = []
    for name, write in files.items():
        path = tmp_path / name
        if "." not in name:
            path.mkdir()
        write(path)
        answer = PickleScan().find(ModelSubject.open(path)).details["answer"]
        # a graph of TensorFlow that writes its own weights cannot be vouched for
        if answer != ("dangerous" if kind == "dangerous" else "harmless") and name != "saved_model.pb":
            others.append((name, answer))
    assert not others
    assert not Path("/tmp/vestige-zoo-marker").exists()
