import io
import os
import pickle

import numpy as np
import torch
from safetensors.torch import save_file

from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.image_io import encode
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.roles import Finder
from vestige.core.subjects import ImageSubject


class Call:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts[0], self.parts[1:]


def find(path):
    finding = PickleScan().find(ModelSubject.open(path))
    assert finding.applies
    finding.to_dict()
    return finding


def test_it_is_a_finder():
    assert isinstance(PickleScan(), Finder)
    assert PickleScan.slug == "pickle_scan"


def test_weights_are_clear(tmp_path):
    weights = {"w": torch.ones(3, 2)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    finding = find(tmp_path / "w.safetensors")
    assert (finding.flagged, finding.score, finding.details["pickles"]) == (False, 0.0, 0)
    assert "no pickle" in finding.summary
    for name, count in (("w.pt", 1), ("old.pt", 5)):
        finding = find(tmp_path / name)
        assert (finding.flagged, finding.score, finding.details["pickles"]) == (False, 0.0, count)
        assert "only what is known to be harmless" in finding.summary


def test_a_call_is_flagged_by_name_and_place(tmp_path):
    torch.save({"w": torch.ones(2), "x": Call(os.system, "true")}, tmp_path / "m.pt")
    finding = find(tmp_path / "m.pt")
    assert (finding.flagged, finding.score) == (True, 1.0)
    assert "posix.system" in finding.summary
    assert "data.pkl imports posix.system" in finding.evidence[0]


def test_unknown_imports_cannot_be_vouched_for(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    finding = find(tmp_path / "m.pt")
    assert (finding.flagged, finding.score, finding.details["answer"]) == (True, 0.5, "cannot be vouched for")
    assert "torch.nn.modules.linear.Linear" in finding.summary


def test_what_cannot_be_read_to_its_end_is_flagged(tmp_path):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pt").write_bytes(buffer.getvalue()[:120])
    finding = find(tmp_path / "cut.pt")
    assert (finding.flagged, finding.score) == (True, 0.5)
    assert "cannot be called safe" in finding.summary


def test_folders_are_searched_for_pickles_and_code(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    assert find(tmp_path).details["answer"] == "harmless"
    (tmp_path / "modeling.py").write_text("import os\n")
    finding = find(tmp_path)
    assert finding.details["answer"] == "cannot be vouched for"
    assert any("modeling.py is Python code" in e for e in finding.evidence)
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "optimizer.pt").write_bytes(pickle.dumps(Call(eval, "1")))
    assert find(tmp_path).details["dangerous"] == ["builtins.eval"]


def test_other_subjects_do_not_apply(tmp_path):
    picture = ImageSubject(encode(np.zeros((4, 4, 3), np.uint8)))
    assert not PickleScan().find(picture).applies
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    subject = ModelSubject.open(tmp_path / "m.pt")
    (tmp_path / "m.pt").unlink()
    assert not PickleScan().find(subject).applies
