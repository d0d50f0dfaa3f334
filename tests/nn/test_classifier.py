"""Classifiers of every form are read, changed and written back in the form they came in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from vestige.core.errors import InputError, UsageError
from vestige.nn.backbone import save_backbone
from vestige.nn.classifier import load_classifier
from vestige.nn.resnet import ResNet, ResNetConfig


def test_a_network_of_ours_comes_back(tmp_path):
    torch.manual_seed(0)
    net = ResNet(ResNetConfig(18, width=0.0625, classes=3)).eval()
    save_backbone(net, tmp_path / "a.safetensors")
    found = load_classifier(tmp_path / "a.safetensors")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(found.model(x), net(x))
    found.save(found.model, tmp_path / "b.safetensors")
    again = load_classifier(tmp_path / "b.safetensors")
    assert again.digest == found.digest


def test_a_transformers_folder_comes_back(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16,
                       patch_size=8, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    found = load_classifier(tmp_path / "vit")
    assert (found.form, found.size, found.classes) == ("transformers", 16, ("cat", "dog"))
    x = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        before = found.model(x)
        assert before.shape == (2, 2)
        found.model.model.classifier.weight.mul_(2)
        found.save(found.model, tmp_path / "changed")
        after = load_classifier(tmp_path / "changed").model(x)
        assert torch.allclose(after, found.model(x))
        assert not torch.allclose(after, before)
    assert (tmp_path / "changed" / "preprocessor_config.json").is_file()


def test_what_is_no_classifier_is_said(tmp_path):
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16,
                       patch_size=8)).save_pretrained(tmp_path / "encoder")  # fmt: skip
    save_backbone(ResNet(ResNetConfig(18, width=0.0625)), tmp_path / "headless.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "plain.pt")
    for name, words, error in (
        ("encoder", "no image classifier", InputError),
        ("headless.safetensors", "without a head", InputError),
        ("plain.safetensors", "--build", InputError),
        ("plain.pt", "--build", UsageError),
        ("absent", "does not exist", InputError),
    ):
        with pytest.raises(error, match=words):
            load_classifier(tmp_path / name)
