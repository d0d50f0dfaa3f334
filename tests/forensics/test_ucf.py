"""UCF: statistics move, targets follow the content, classes keep their common features, and it learns a forgery."""

from __future__ import annotations

import pytest
import torch

from vestige.bench.forensics.face_detectors import PlainNet, core_loss, self_blended
from vestige.core.errors import UsageError
from vestige.forensics import ucf
from vestige.forensics.ucf import UCF, UCFNet, adain, triplet, ucf_loss


def net(**options) -> UCFNet:
    torch.manual_seed(0)
    return UCFNet(**{"width": 8, "features": 32, "n_methods": 2, **options})


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4, generator=generator), (32, 32), mode="bilinear")
    checks = 0.3 * (torch.arange(32)[:, None] + torch.arange(32)).remainder(2)
    images[4:] = (images[4:] + checks).clamp(0, 1)
    return images, torch.tensor([0] * 4 + [1, 1, 2, 2])


def test_content_takes_the_statistics_of_the_style() -> None:
    content, style = torch.randn(2, 3, 6, 5), 2 + 3 * torch.randn(2, 3, 4, 4)
    found = adain(content, style)
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)), atol=1e-4, rtol=1e-4)
    spread = style.var((2, 3), correction=0).sqrt()
    torch.testing.assert_close(found.var((2, 3), correction=0).sqrt(), spread, atol=1e-3, rtol=1e-3)
    with pytest.raises(UsageError, match="channels"):
        adain(content, style[:, :2])


def test_the_target_of_a_reconstruction_is_the_owner_of_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, methods) = net(), batch()
    seen = []

    def kept(style: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
        seen.append((style.detach(), content.detach()))
        return 2 * images - 1  # what the owners of the contents look like, in both calls

    monkeypatch.setattr(network.decode, "forward", kept)
    terms = ucf_loss(network, images, methods, torch.Generator().manual_seed(0))
    assert terms["rebuilt"].item() == 0
    torch.testing.assert_close(seen[0][1], seen[1][1])
    torch.testing.assert_close(seen[0][0], seen[1][0].roll(4, 0))


def test_permuting_common_features_stays_within_a_class() -> None:
    network, (images, methods) = net().eval(), batch()
    losses = [
        ucf_loss(network, images, methods, torch.Generator().manual_seed(3), swap=swap)["common"] for swap in (0.0, 1.0)
    ]
    torch.testing.assert_close(*losses)


def test_triplets_are_silent_beyond_the_margin() -> None:
    zero, far = torch.zeros(2, 3), torch.tensor([[3.0, 0, 0], [0, 4.0, 0]])
    assert triplet(zero, zero, far).item() == pytest.approx(0, abs=1e-5)
    assert triplet(zero, far, zero).item() == pytest.approx(6.5, abs=1e-3)


def test_specific_positives_have_the_method_of_their_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(ucf, "triplet", lambda a, p, n, m: drawn.append((a, p, n)) or a.sum() * 0)
    methods = torch.tensor([0] * 4 + [1, 1, 2, 2])
    marks = torch.stack([methods.float(), torch.arange(8.0)], 1)
    ucf._contrast(marks, marks, methods, 4, torch.Generator().manual_seed(0), 3.0)
    assert len(drawn) == 4
    for anchor, positive, negative in (drawn[1], drawn[3]):
        assert torch.equal(anchor[:, 0], positive[:, 0])
        assert ((anchor[:, 0] == 0) != (negative[:, 0] == 0)).all()


def test_it_learns_and_decodes() -> None:
    network, (images, methods) = net(), batch()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(40):
        loss = ucf_loss(network, images, methods, generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    scores = UCF(network, side=32).score(images)
    assert scores[:4].max() < scores[4:].min()
    assert network.decode(torch.rand(1, 32, 4, 3), torch.rand(1, 32, 4, 3)).shape == (1, 3, 32, 24)


def test_unpaired_batches_and_wrong_sizes_are_refused() -> None:
    images, _ = batch()
    with pytest.raises(UsageError, match="paired"):
        ucf_loss(net(), images, torch.zeros(8, dtype=torch.int64), torch.Generator())
    with pytest.raises(UsageError, match="backbone"):
        UCFNet("resnet")
    with pytest.raises(UsageError, match="network"):
        UCF().score(images)


def test_faces_blended_with_themselves_keep_their_border() -> None:
    faces = batch()[0]
    made = self_blended(faces, torch.Generator().manual_seed(1))
    torch.testing.assert_close(made[:, :, [0, -1]], faces[:, :, [0, -1]])
    assert ((made - faces).abs().amax((1, 2, 3)) > 0.02).all()
    assert 0 <= made.min() <= made.max() <= 1
    torch.testing.assert_close(made, self_blended(faces, torch.Generator().manual_seed(1)))


def test_two_views_are_drawn_together() -> None:
    torch.manual_seed(0)
    images, methods = batch()
    network = PlainNet(srm=False)
    loss = core_loss(network, images.clone(), (methods > 0).float(), torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in network.parameters())
