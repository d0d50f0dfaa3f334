"""Seeds, devices and the description of the machine that results are recorded with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import random
from typing import Any

import numpy as np

from vestige.core.errors import UsageError


def rng(seed: int, *path: object) -> np.random.Generator:
    """A generator for one place in a computation: same seed and path, same numbers, independent of other paths.

    >>> rng(0, "noise", 3).integers(10) == rng(0, "noise", 3).integers(10)
    True
    """
    import hashlib

    text = "/".join(str(p) for p in (seed, *path))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and, where it is loaded, torch."""
    import sys

    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def device(name: str = "auto") -> Any:
    """The torch device of that name; "auto" takes an accelerator where there is one.

    Raises UsageError when the device is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise UsageError(f"There is no device {name!r} here; use --device auto or cpu.") from None
    return chosen


#: What ONEDNN_MAX_CPU_ISA may be set to with units for bfloat16 in use.
_BF16_LEVELS = ("", "ALL", "DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX10_2_512")


def bf16_pays(device: Any) -> bool:
    """Whether the device has units for bfloat16; without them a processor is 20 to 30 times slower in it.

    A processor needs AVX512_BF16 or AMX, and oneDNN must be allowed to use them.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if allowed not in _BF16_LEVELS and "AMX" not in allowed:
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked is not None and asked())


def start_worker() -> None:
    """What a process of a pool does first: one thread, Ctrl-C left to its parent, and no life after it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    one_thread()


def die_with_parent() -> None:
    """End this process when the one that started it ends, however that ends (a kill runs no handlers)."""
    import ctypes
    import multiprocessing
    import signal
    import sys
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:  # elsewhere, and where the parent was gone before the line above
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def one_thread() -> None:
    """Let this process compute on one thread: workers that each take every core slow each other down."""
    import cv2
    from threadpoolctl import threadpool_limits

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for libraries that are loaded later
    import numpy.linalg  # noqa: F401 - loads the linear algebra library that is limited next
    import scipy.linalg  # noqa: F401

    threadpool_limits(1)
    cv2.setNumThreads(1)


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next use; False where it cannot be told to.

    By default glibc gives large blocks back to the kernel at once, and a training step that allocates the same
    gigabyte again pays for every page of it: about 5 % of the time of a small UNet's step on a CPU.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # not glibc
    trim_threshold, mmap_threshold = -1, -3  # the numbers of malloc.h
    most = 2**31 - 1
    return bool(mallopt(trim_threshold, most) and mallopt(mmap_threshold, most))


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of vestige and the packages results depend on."""
    names = packages or ("vestige", "numpy", "scipy", "pillow", "opencv-python-headless", "torch")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores and accelerator, in the words results are recorded with."""
    import sys

    described: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        described["accelerator"] = torch.cuda.get_device_name()
    return described
