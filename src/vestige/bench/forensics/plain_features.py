"""Plain baselines of detectors of generated pictures: simple features of a picture and a logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn import functional as F

from vestige.core.image_io import encode
from vestige.core.runtime import rng
from vestige.data.fakes import as_float
from vestige.metrics.detection import auroc


def areas(real: np.ndarray, fakes: dict[str, np.ndarray]) -> dict[str, float]:
    """AUROC of the scores of every source against those of real squares."""
    return {
        name: auroc(np.repeat([False, True], [len(real), len(scores)]), np.append(real, scores))
        for name, scores in fakes.items()
    }


def spectrum(images: np.ndarray) -> np.ndarray:
    """ln |DCT| of the grey picture, float32 N×4096 (the frequencies that FreDect looks at)."""
    grey = as_float(images).mean(1)
    return np.log(np.abs(dctn(grey, axes=(1, 2), norm="ortho")) + 1e-3).reshape(len(grey), -1).astype(np.float32)


def metadata(images: np.ndarray) -> np.ndarray:
    """What gives careless sets away, float32 N×7: size as a PNG file, mean and spread of every channel."""
    sizes = [len(encode(np.ascontiguousarray(image.transpose(1, 2, 0)), "PNG")) for image in images]
    x = as_float(images)
    return np.column_stack([np.array(sizes) / 1e4, x.mean((2, 3)), x.std((2, 3))]).astype(np.float32)


def logistic(
    real: np.ndarray, fake: np.ndarray, real_test: np.ndarray, fakes_test: dict[str, np.ndarray], *,
    shuffled: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """AUROC of every source by a regularised logistic regression on features; shuffled: seed that mixes the labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat([0, 1], [len(real), len(fake)])
    if shuffled is not None:
        labels = rng(shuffled, "shuffled labels").permutation(labels)
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))
    model.fit(np.concatenate([real, fake]), labels)
    return areas(model.decision_function(real_test), {n: model.decision_function(x) for n, x in fakes_test.items()})


def rounded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their floats to four places."""
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def gradient_distance(a: Tensor, b: Tensor, scales: int = 3) -> np.ndarray:
    """(N,): mean |∇a - ∇b| over scales that halve the side; stands for LPIPS, whose weights are not here."""
    total = torch.zeros(len(a))
    for _ in range(scales):
        for axis in (2, 3):
            total += (a.diff(dim=axis) - b.diff(dim=axis)).abs().mean((1, 2, 3))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return (total / (2 * scales)).numpy()
