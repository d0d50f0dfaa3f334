"""UMD: its special cases, what its losses see, and that one training gives features and samples."""

from __future__ import annotations

import pytest
import torch

from vestige.core.errors import UsageError
from vestige.generation.umd import UMD, UMDConfig

SMALL = {"size": 16, "width": 32, "depth": 2, "decoder_depth": 1, "heads": 2}


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(**options: object) -> UMD:
    torch.manual_seed(0)
    return UMD(UMDConfig(**{**SMALL, **options}))


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    """Bright squares in one of four corners on dark ground; class = corner."""
    images = torch.full((n, 3, 16, 16), 0.1) + 0.02 * torch.rand(n, 3, 16, 16, generator=gen(seed))
    for i in range(n):
        y, x = divmod(i % 4, 2)
        images[i, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 0.9
    return images


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, {"mae", "dit"}),
        ({"clean_share": 1.0}, {"mae"}),
        ({"clean_share": 0.0, "noisy_mask": 0.0}, {"dit"}),
        ({"clean_share": 0.0, "noisy_mask": 0.5}, {"dit"}),
    ],
)
def test_special_cases_are_settings(settings, parts):
    losses = build(**settings).loss(pictures(8), gen())
    assert set(losses) == {"loss", *parts}
    assert torch.isfinite(losses["loss"])
    assert losses["loss"].requires_grad
    share = settings.get("clean_share", 0.5)
    weights = {"mae": share, "dit": 1 - share}
    assert float(losses["loss"].detach()) == pytest.approx(sum(weights[p] * float(losses[p]) for p in parts), rel=1e-5)


def test_untrained_heads_give_the_loss_of_guessing_zero():
    # The head starts at zero: eps loss 1, x0 loss the mean square of the pictures.
    images = pictures(64)
    dit = build(clean_share=0.0, noisy_mask=0.0).loss(images, gen())["dit"]
    assert float(dit) == pytest.approx(0.5 + 0.5 * float((images * 2 - 1).square().mean()), rel=0.05)


def test_hidden_patches_do_not_reach_the_encoder():
    model, patches = build(), torch.randn(1, 16, 48)
    visible = torch.tensor([[0, 3, 5]])
    condition = model.condition(torch.zeros(1), None)
    for block in model.encoder:
        torch.nn.init.normal_(block.modulation.weight, std=0.5)
    changed = patches.clone()
    changed[:, 7] += 5
    assert torch.equal(model.encode(patches, visible, condition), model.encode(changed, visible, condition))
    assert model.encode(patches, visible, condition).shape == (1, 4 + 3, 32)
    changed[:, 3] += 5
    assert not torch.equal(model.encode(patches, visible, condition), model.encode(changed, visible, condition))


def test_training_gives_reconstructions_features_and_samples():
    model, g = build(classes=4), gen(1)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    images, labels = pictures(32), torch.arange(32) % 4
    first = None
    for _ in range(120):
        losses = model.loss(images, g, labels)
        first = losses if first is None else first
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert float(losses["mae"]) < 0.7 * float(first["mae"])
    assert float(losses["dit"]) < 0.7 * float(first["dit"])
    features = model.eval().represent(pictures(8, seed=9))
    same, other = (features[0] - features[4]).norm(), (features[0] - features[1]).norm()
    assert float(same) < 0.3 * float(other)
    assert not torch.equal(model.represent(pictures(2), level=500), model.represent(pictures(2)))
    drawn = model.sample(4, labels=torch.arange(4), steps=10, guidance=2.0)
    assert drawn.shape == (4, 3, 16, 16)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    assert torch.equal(drawn, model.sample(4, labels=torch.arange(4), steps=10, guidance=2.0))


def test_bad_settings_are_refused():
    with pytest.raises(UsageError, match="tile"):
        UMDConfig(size=15)
    with pytest.raises(UsageError, match="Shares"):
        UMDConfig(clean_mask=1.0)
    with pytest.raises(UsageError, match="Labels"):
        build().sample(2, labels=torch.zeros(2, dtype=torch.long))
