import pytest
import torch

from vestige.metrics.quality import ssim
from vestige.nn.mask_losses import balanced_bce, dice_loss, mask_loss, soft_iou_loss, ssim_loss


@pytest.fixture
def masks() -> torch.Tensor:
    return (torch.rand(3, 1, 16, 20, generator=torch.Generator().manual_seed(0)) < 0.3).float()


@pytest.mark.parametrize("loss", [dice_loss, soft_iou_loss, ssim_loss, mask_loss])
def test_a_perfect_hard_answer_costs_nothing_and_the_opposite_most(loss, masks: torch.Tensor) -> None:
    right = (masks * 2 - 1) * 40
    costs = [loss(logits, masks).item() for logits in (right, right * 0.02, -right)]
    assert costs[0] == pytest.approx(0, abs=1e-4)
    assert costs[0] < costs[1] < costs[2]
    assert costs[2] > 0.9


def test_losses_of_empty_masks_are_finite(masks: torch.Tensor) -> None:
    for loss in (dice_loss, soft_iou_loss, ssim_loss, mask_loss):
        logits = torch.full_like(masks, -40).requires_grad_()
        value = loss(logits, torch.zeros_like(masks))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
    assert soft_iou_loss(torch.full_like(masks, -40), torch.zeros_like(masks)).item() == pytest.approx(0, abs=1e-4)


def test_gradients_are_right(masks: torch.Tensor) -> None:
    small = masks[:1, :, :6, :6].double()
    logits = torch.randn(small.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for loss in (dice_loss, soft_iou_loss):
        x = logits.clone().requires_grad_()
        loss(x, small).backward()
        step = torch.zeros_like(logits)
        step[0, 0, 2, 3] = 1e-2
        slope = (loss(logits + step, small) - loss(logits - step, small)) / 2e-2
        assert x.grad[0, 0, 2, 3].item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-5)


def test_rare_positives_weigh_more() -> None:
    labels = torch.zeros(10, 2)
    labels[0, 0] = 1
    labels[:5, 1] = 1
    logits = torch.zeros(10, 2, requires_grad=True)
    balanced_bce(logits, labels).backward()
    assert logits.grad[0, 0].item() == pytest.approx(9 * logits.grad[0, 1].item())
    assert logits.grad[:, 0].sum().abs() < 1e-6  # both sides balance


def test_structure_is_that_of_the_metric(masks: torch.Tensor) -> None:
    p = torch.rand(3, 1, 16, 20, generator=torch.Generator().manual_seed(3))
    ours = 1 - ssim_loss(torch.logit(p), masks).item()
    other = ssim(p.expand(-1, 3, -1, -1).numpy(), masks.expand(-1, 3, -1, -1).numpy()).mean()
    assert ours == pytest.approx(other, abs=0.05)  # borders are treated differently
