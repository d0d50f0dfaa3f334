"""Encoders from our files, published ViT weights, transformers and diffusers folders."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from vestige.core.errors import InputError, MissingDependencyError, UsageError
from vestige.nn.backbone import load_backbone, save_backbone
from vestige.nn.resnet import RESNETS, ResNet, ResNetConfig
from vestige.nn.vit import POSITIONS, ViT, ViTConfig
from vestige.nn.vit_weights import vit_from_weights

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("positions", POSITIONS)
def test_our_vit_comes_back_from_its_file(positions, tmp_path):
    model = ViT(ViTConfig(width=16, depth=2, heads=2, positions=positions)).eval()
    save_backbone(model, tmp_path / "a.safetensors")
    back = load_backbone(tmp_path / "a.safetensors")
    assert back.config == model.config
    assert torch.equal(back.features(IMAGES), model.features(IMAGES))


@pytest.mark.parametrize(("depth", "stem", "factor"), [(18, "cifar", 1), (34, "cifar", 1), (50, "imagenet", 4)])
def test_resnets_have_the_published_layers(depth, stem, factor, tmp_path):
    model = ResNet(ResNetConfig(depth, stem, width=0.125, classes=5)).eval()
    assert model.width == 64 * factor
    assert [m.shape[-1] for m in model.maps(IMAGES)] == ([32, 16, 8, 4] if stem == "cifar" else [8, 4, 2, 1])
    assert model(IMAGES).shape == (2, 5)
    save_backbone(model, tmp_path / "r.safetensors")
    back = load_backbone(tmp_path / "r.safetensors")
    torch.testing.assert_close(back.features(IMAGES), model.features(IMAGES))


def test_full_size_resnets_have_the_published_number_of_weights():
    with torch.device("meta"):
        counts = {
            d: sum(p.numel() for p in ResNet(ResNetConfig(d, "imagenet", classes=1000)).parameters())
            for d in (18, 34, 50)
        }
    assert counts == {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
    assert {"resnet18_cifar", "resnet50"} <= set(RESNETS)


def test_every_resnet_parameter_gets_a_gradient():
    model = ResNet(ResNetConfig(18, width=0.125, classes=3))
    model(IMAGES).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    for bad in ({"depth": 20}, {"stem": "tiny"}, {"width": 0}):
        with pytest.raises(UsageError):
            ResNetConfig(**bad)


def published_names(model: ViT) -> dict[str, torch.Tensor]:
    """The state of a ViT under timm's names."""
    config, state = model.config, {}
    for name, tensor in model.state_dict().items():
        if name == "embed.weight":
            name, tensor = "embed.weight", tensor.view(-1, config.patch_size, config.patch_size, 3).permute(0, 3, 1, 2)
        name = name.replace("embed.", "patch_embed.proj.").replace("class_token", "cls_token")
        state[name] = tensor[None] if name == "positions" else tensor
    state["pos_embed"] = state.pop("positions")
    return state


def test_published_names_load_and_the_grid_can_change(tmp_path):
    model = ViT(ViTConfig(width=64, depth=2, heads=1, positions="learned")).eval()
    state = published_names(model)
    torch.testing.assert_close(vit_from_weights(state).features(IMAGES), model.features(IMAGES))
    torch.save({"model": state}, tmp_path / "mae.pth")
    torch.testing.assert_close(load_backbone(tmp_path / "mae.pth").features(IMAGES), model.features(IMAGES))
    larger = vit_from_weights(state, image_size=48)
    assert larger.config.grid == (12, 12)
    assert larger.features(torch.rand(1, 3, 48, 48)).shape == (1, 64)
    with pytest.raises(InputError):
        vit_from_weights({"conv.weight": torch.zeros(3, 3)})
    del state["blocks.1.norm2.weight"]
    with pytest.raises(InputError, match="whole"):
        vit_from_weights(state)


@pytest.mark.parametrize("kind", ["vit", "vit_mae"])
def test_a_transformers_vit_becomes_ours(kind, tmp_path):
    import transformers

    sizes = {
        "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 48,
    }  # fmt: skip
    if kind == "vit":
        theirs = transformers.ViTModel(transformers.ViTConfig(**sizes), add_pooling_layer=False).eval()
    else:
        theirs = transformers.ViTMAEModel(transformers.ViTMAEConfig(**sizes, mask_ratio=0.0)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_backbone(tmp_path)
    assert isinstance(ours, ViT)
    options = {"noise": torch.arange(16.0).expand(2, -1)} if kind == "vit_mae" else {}
    with torch.no_grad():
        expected = theirs(pixel_values=ours.normalise(IMAGES), **options).last_hidden_state
        torch.testing.assert_close(ours(IMAGES), expected, rtol=1e-3, atol=1e-4)


def test_other_transformers_image_models_are_wrapped(tmp_path):
    import transformers

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(config).save_pretrained(tmp_path / "r")
    model = load_backbone(tmp_path / "r")
    assert model.features(IMAGES).shape == (2, model.width) == (2, 16)
    text = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(text).save_pretrained(tmp_path / "b")
    with pytest.raises(InputError, match="images"):
        load_backbone(tmp_path / "b")


def test_diffusers_components_are_wrapped(tmp_path):
    import diffusers

    pipeline = tmp_path / "pipe"
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    vae.save_pretrained(pipeline / "vae")
    (pipeline / "model_index.json").write_text('{"_class_name": "X"}')
    model = load_backbone(pipeline)
    assert model.features(IMAGES).shape == (2, model.width) == (2, 4)
    with pytest.raises(InputError, match="no component"):
        load_backbone(pipeline, component="unet")
    unet = diffusers.UNet2DModel(
        sample_size=32, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "unet")
    wrapped = load_backbone(tmp_path / "unet")
    assert wrapped.features(IMAGES).shape == (2, wrapped.width) == (2, 16)


def test_names_that_are_no_backbone_are_refused(tmp_path):
    with pytest.raises(UsageError, match="vit_tiny_4_32"):
        load_backbone("vit_colossal")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        load_backbone(tmp_path / "empty")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError):
        load_backbone(tmp_path / "x.safetensors")
    model = ViT(ViTConfig(width=16, depth=1, heads=2))
    save_backbone(model, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="does not fit"):
        load_backbone("vit_nano_4_32", weights=tmp_path / "a.safetensors")


def test_a_header_that_lies_is_refused(tmp_path):
    from safetensors.torch import save_file

    for text in (
        "{",
        "[]",
        '{"kind": "vit"}',
        '{"kind": "vit", "config": {"width": "wide"}}',
        '{"kind": "cat", "config": {}}',
    ):
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"vestige": text})
        with pytest.raises(InputError):
            load_backbone(tmp_path / "a.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_is_asked_for_by_name():
    with pytest.raises(MissingDependencyError, match="timm"):
        load_backbone("timm:resnet18")
