import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.metrics.bits import bit_accuracy
from vestige.nn.vae import decode, encode, small_vae
from vestige.watermark.stable_signature import StableSignature, whitened
from vestige.watermark.wouaf import WouafNet


def patterns(images):
    """Four bits as correlations with fixed patterns."""
    waves = torch.randn(4, 3 * 16 * 16, generator=torch.Generator().manual_seed(7))
    return images.flatten(1).sub(0.5) @ waves.T / 8


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 0.2 + 0.4


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return small_vae(16, (8, 16), 4).eval()


def rebuilt(vae, pictures):
    with torch.no_grad():
        return (decode(vae, encode(vae, pictures * 2 - 1)) / 2 + 0.5).clamp(0, 1)


def test_the_decoder_learns_the_message_and_nothing_else_moves(vae, pictures):
    bits = np.array([1, 0, 0, 1], bool)
    before = {n: v.clone() for n, v in vae.state_dict().items()}
    method = StableSignature(patterns, steps=60, lr=5e-3, image_weight=0.05)
    marked = method.stamp(vae, bits, pictures[:6])
    assert all(torch.equal(before[n], v) for n, v in vae.state_dict().items())
    moved = {n.split(".")[0] for n, v in marked.state_dict().items() if not torch.equal(before[n], v)}
    assert moved == {"decoder"}
    fresh = rebuilt(marked, pictures[6:]).numpy()
    assert bit_accuracy(bits, method.read(fresh) > 0).mean() == 1.0
    assert bit_accuracy(bits, method.read(rebuilt(vae, pictures[6:]).numpy()) > 0).mean() < 1.0


def test_the_image_weight_keeps_the_pictures(vae, pictures):
    bits = np.array([1, 0, 0, 1], bool)
    errors = []
    for weight in (0.01, 20.0):
        method = StableSignature(patterns, steps=25, lr=3e-3, image_weight=weight)
        errors.append(
            float((rebuilt(method.stamp(vae, bits, pictures), pictures) - rebuilt(vae, pictures)).abs().mean())
        )
    assert errors[1] < 0.7 * errors[0]


def test_the_same_seed_gives_the_same_decoder(vae, pictures):
    made = [StableSignature(patterns, steps=3, seed=s).stamp(vae, np.ones(4), pictures) for s in (1, 1, 2)]
    weights = [m.decoder.conv_out.weight for m in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_whitening_makes_bits_of_plain_pictures_fair_and_independent(pictures):
    many = torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    mixing = torch.tensor([[1.0, 0.9, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0], [0.3, 0, 0, 1]])

    def skewed(x):
        return patterns(x) @ mixing + torch.tensor([3.0, -2, 0, 1])

    soft = whitened(skewed, many)(many)
    torch.testing.assert_close(soft.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(soft.T), torch.eye(4), atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="more pictures"):
        whitened(skewed, many[:4])


def test_the_reader_of_wouaf_serves_as_extractor(vae, pictures):
    net = WouafNet(8, 16, vae=vae, depth=18, reader_width=0.125, width=16).eval().requires_grad_(False)
    method = StableSignature(net.reader, steps=1, batch_size=2)
    method.stamp(vae, np.ones(8), pictures)
    assert method.read(pictures.numpy()).shape == (12, 8)


def test_what_does_not_fit_is_refused(vae, pictures, tmp_path, monkeypatch):
    method = StableSignature(patterns, steps=1)
    with pytest.raises(UsageError, match="4 bits"):
        method.stamp(vae, np.ones(5), pictures)
    with pytest.raises(UsageError, match="float N×3"):
        method.stamp(vae, np.ones(4), (pictures * 255).byte())
    with pytest.raises(InputError, match="finite"):
        method.read(np.full((1, 3, 16, 16), np.nan, np.float32))
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"warmup": 1.0}, {"image_weight": -1.0}):
        with pytest.raises(UsageError):
            StableSignature(patterns, **wrong)
    monkeypatch.setattr("vestige.watermark.learned.WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="vestige learn wouaf"):
        StableSignature().read(pictures.numpy())
