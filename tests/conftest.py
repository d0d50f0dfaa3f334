"""Shared fixtures: small pictures made in code, so that tests need no data and no network."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("same examples in every run", derandomize=True, deadline=None)
settings.load_profile("same examples in every run")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs with Ctrl-C ignored, and processes inherit that: the tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


_DATA = os.environ.get("VESTIGE_DATA")


@pytest.fixture(autouse=True)
def _data_folder() -> Iterator[None]:
    """`vestige learn --data` names its folder in the environment for worker processes; no later test may see that."""
    yield
    if _DATA is None:
        os.environ.pop("VESTIGE_DATA", None)
    else:
        os.environ["VESTIGE_DATA"] = _DATA


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers in fixtures, whatever tests the worker ran before."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """And in the test, whether or not its fixtures had been made for another one."""
    _seed()


@pytest.fixture(autouse=True)
def _same_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same keys in every run: a test at a level of 1 % must not fail in one run of a hundred."""
    number = count()

    def token_bytes(nbytes: int = 32) -> bytes:
        return hashlib.shake_256(b"secret of a test %d" % next(number)).digest(nbytes)

    monkeypatch.setattr("secrets.token_bytes", token_bytes)
    monkeypatch.setattr("secrets.randbelow", lambda bound: int.from_bytes(token_bytes(64)) % bound)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 512×512×3 portrait that ships inside scikit-image."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """uint8 427×640×3 photograph that ships inside scikit-learn."""
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 48×64×3: smooth colours with some texture."""
    y, x = np.mgrid[:48, :64]
    base = np.stack([x * 4, y * 5, (x + y) * 2], axis=-1)
    noise = np.random.default_rng(0).integers(-6, 7, base.shape)
    return (base + noise).clip(0, 255).astype(np.uint8)
