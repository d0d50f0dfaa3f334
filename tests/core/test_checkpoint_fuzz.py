"""A hundred damaged checkpoints: refused in one sentence or read, quickly, in little memory, without running code."""

import io
import os
import pickle
import time
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save

from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.errors import InputError
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.runtime import rng

CASES = 100


class Trap:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def checkpoints(trap: str) -> list[bytes]:
    weights = {f"block{i}.weight": torch.arange(24.0).reshape(4, 6) + i for i in range(4)}
    weights["count"] = torch.tensor([3])
    found = [save(weights)]
    for content in (weights, {"state_dict": weights, "epoch": 4}, weights | {"trap": Trap(trap)}):
        for modern in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=modern)
            found.append(buffer.getvalue())
    return [*found, pickle.dumps({"x": Trap(trap)}, 0), pickle.dumps({"x": Trap(trap), "y": list(range(50))}, 4)]


def mutate(data: bytes, others: list[bytes], random: np.random.Generator) -> bytes:
    array = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(0, max(len(array), 1)))
        # half of the damage goes where structure is: the beginning, or a zip's directory at the end
        if random.random() < 0.5:
            at = min(int(random.integers(0, 300)), len(array) - 1)
            at = len(array) - 1 - at if random.random() < 0.3 else at
        kind = random.integers(0, 5)
        if kind == 0:
            array[at : at + 1] = bytes([array[at] ^ (1 << int(random.integers(0, 8)))])
        elif kind == 1:
            array[at : at + 8] = random.bytes(8)
        elif kind == 2:
            del array[max(at, 1) :]
        elif kind == 3:
            other = others[int(random.integers(len(others)))]
            start = int(random.integers(0, len(other)))
            array[at : at + 40] = other[start : start + int(random.integers(1, 400))]
        else:
            array[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(array)


@pytest.fixture
def trap(tmp_path):
    return tmp_path / "trap"


def test_the_trap_works(trap):
    with pytest.raises(Exception):  # noqa: B017 - torch's error type for this is not the point
        torch.load(io.BytesIO(checkpoints(str(trap))[5]), weights_only=True)
    assert not trap.exists()
    pickle.loads(checkpoints(str(trap))[-1])
    assert trap.exists()


def test_damaged_checkpoints_are_refused_or_read(trap, tmp_path):
    originals = checkpoints(str(trap))
    path = tmp_path / "model"
    flagged = loaded = 0
    sentences: list[str] = []
    tracemalloc.start()
    began = time.process_time()
    for case in range(CASES):
        random = rng(0, "checkpoint fuzz", case)
        path.write_bytes(mutate(originals[case % len(originals)], originals, random))
        try:
            subject = ModelSubject.open(path)
            finding = PickleScan().find(subject)
            flagged += finding.flagged
            shapes = subject.tensors()
            tensors = subject.state_dict()
            assert {name: tuple(t.shape) for name, t in tensors.items()} == {n: s for n, (s, _) in shapes.items()}
            loaded += 1
        except InputError as error:
            sentences.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not trap.exists(), "code in a checkpoint was executed"
    assert (len(sentences) > CASES / 3, flagged > CASES / 10, loaded > CASES / 20) == (True, True, True)
    assert all(s.endswith(".") and s.isprintable() for s in sentences)
    assert peak < 16e6
    assert time.process_time() - began < 15
