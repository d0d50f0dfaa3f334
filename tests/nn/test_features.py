import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.metrics.distribution import frechet_distance
from vestige.nn import features as module
from vestige.nn.features import FeatureNet, extract_features, load_feature_net, save_feature_net


def pictures(n, seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side)).astype(np.uint8)


def test_size_and_shapes():
    net = FeatureNet({"object": 6, "style": 4}).eval()
    assert 1e6 < sum(p.numel() for p in net.parameters()) < 2e6
    for side in (32, 48, 64):
        found = net(torch.rand(2, 3, side, side))
        assert found.pooled.shape == (2, 256)
        assert [tuple(m.shape[1:]) for m in found.maps] == [
            (c, side // s, side // s) for c, s in ((32, 1), (64, 2), (128, 4), (256, 8))
        ]
        torch.testing.assert_close(found.pooled, found.maps[-1].mean((2, 3)))
    logits = net.classify(torch.rand(2, 3, 32, 32))
    assert {name: tuple(z.shape) for name, z in logits.items()} == {"object": (2, 6), "style": (2, 4)}


def test_random_weights_follow_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = FeatureNet({"label": 3}, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = FeatureNet({"label": 3}, seed=1), FeatureNet({"label": 3}, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.stem[0].weight, other.stem[0].weight)
    assert first.provenance == "random weights, seed 1"


def test_random_weights_are_announced(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "DEFAULT_WEIGHTS", tmp_path / "none.safetensors")
    with pytest.warns(UserWarning, match="random weights"):
        net = load_feature_net(seed=3)
    assert net.provenance == "random weights, seed 3"
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


def test_weights_survive_the_disk(tmp_path, monkeypatch, recwarn):
    net = FeatureNet({"label": 10}, seed=4)
    net(torch.rand(8, 3, 32, 32))  # running statistics move in training mode
    path = tmp_path / "feature_net.safetensors"
    save_feature_net(net, path)
    monkeypatch.setattr(module, "DEFAULT_WEIGHTS", path)
    for loaded in (load_feature_net(path), load_feature_net()):
        x = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(loaded.classify(x)["label"], net.eval().classify(x)["label"])
        assert loaded.provenance.startswith("feature_net.safetensors, sha256 ")
        assert len(loaded.provenance.split()[-1]) == 12
    assert not [w for w in recwarn if "random weights" in str(w.message)]


def test_damaged_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(3)}, other)
    with pytest.raises(InputError, match="does not hold a feature network"):
        load_feature_net(other)
    net = FeatureNet()
    with torch.no_grad():
        net.stem[0].weight[0] = torch.nan
    save_feature_net(net, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="not finite"):
        load_feature_net(tmp_path / "nan.safetensors")
    with pytest.raises(InputError):
        load_feature_net(tmp_path / "missing.safetensors")


def test_extraction_is_independent_of_batches_type_and_mode():
    net, images = FeatureNet(seed=1).train(), pictures(7)
    whole = extract_features(net, images)
    assert net.training
    assert whole.dtype == np.float32
    np.testing.assert_allclose(extract_features(net, images, batch_size=3), whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        extract_features(net, torch.from_numpy(images).float() / 255), whole, rtol=1e-4, atol=1e-4
    )
    assert extract_features(net, pictures(2, side=48), size=32).shape == (2, 256)


def test_features_of_random_weights_order_distortions_of_a_set():
    generator = np.random.default_rng(0)
    coarse = generator.random((300, 3, 4, 4)).repeat(4, 2).repeat(4, 3).astype(np.float32)
    net = FeatureNet(seed=0)

    def found(noise, seed=1):
        moved = coarse + noise * np.random.default_rng(seed).normal(size=coarse.shape).astype(np.float32)
        return extract_features(net, moved.clip(0, 1))

    reference = found(0.0)
    distances = [frechet_distance(reference, found(noise)) for noise in (0.02, 0.1, 0.3)]
    assert sorted(distances) == distances
    assert distances[2] > 5 * distances[0]


def test_gradients_reach_the_pictures():
    net = FeatureNet().eval().requires_grad_(False)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    net(x).pooled.square().sum().backward()
    assert (x.grad != 0).any()


def test_refusals():
    net = FeatureNet()
    with pytest.raises(UsageError, match="at least 8 pixels"):
        net(torch.rand(1, 3, 7, 32))
    with pytest.raises(UsageError, match="float pictures"):
        net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(UsageError, match="N×3×H×W"):
        extract_features(net, pictures(2)[:, :1])
    with pytest.raises(UsageError, match="uint8, or float"):
        extract_features(net, pictures(2).astype(np.int64))
    with pytest.raises(InputError, match="not finite"):
        extract_features(net, np.full((1, 3, 32, 32), np.nan, np.float32))
    with pytest.raises(UsageError, match="two classes"):
        FeatureNet({"label": 1})
