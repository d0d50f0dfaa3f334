import pytest
import torch

from vestige.core.errors import UsageError
from vestige.nn.conv_unet import ConvUNet, NestedUNet
from vestige.nn.messages import DensePlane, LinearPlane, PlaneReader, tile_bits


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_tiled_bits_are_constant_planes():
    bits = torch.tensor([[1.0, 0.0, 1.0]])
    planes = tile_bits(bits, 4, 6)
    assert planes.shape == (1, 3, 4, 6)
    assert (planes == bits[:, :, None, None]).all()


def test_planes_fit_any_aspect_and_depend_on_every_bit():
    zeros = torch.zeros(1, 8)
    for plane in (LinearPlane(8), DensePlane(8, side=4, hidden=64)):
        base = plane(zeros, 16, 24)
        assert base.shape == (1, 3, 16, 24)
        for bit in range(8):
            assert not torch.equal(plane(torch.eye(8)[bit : bit + 1], 16, 24), base)


def test_gradients_pass_from_the_reader_to_the_message_layer():
    plane, reader = LinearPlane(8), PlaneReader(8)
    reader(plane(torch.ones(2, 8), 16, 16)).sum().backward()
    assert plane.spread.weight.grad.abs().sum() > 0


def test_pictures_too_small_for_the_message_are_refused():
    with pytest.raises(UsageError, match="16 pixels"):
        LinearPlane(8)(torch.zeros(1, 8), 15, 40)
    with pytest.raises(UsageError, match="16 pixels"):
        PlaneReader(8)(torch.zeros(1, 3, 40, 15))


@pytest.mark.parametrize("plane", [LinearPlane(8), DensePlane(8, side=4, hidden=8)])
def test_messages_of_another_length_are_refused(plane):
    with pytest.raises(UsageError, match="N×8"):
        plane(torch.zeros(1, 7), 16, 16)


def test_unet_keeps_the_size_and_counts_its_halvings():
    net = ConvUNet(3, 4, 2, outside=5)
    assert net(torch.rand(2, 3, 8, 12)).shape == (2, 5, 8, 12)
    with pytest.raises(UsageError, match="divisible by 4"):
        net(torch.rand(1, 3, 8, 10))


def test_the_papers_unet_has_its_widths():
    net = ConvUNet(6, 64, 4)
    assert [block[0][0].out_channels for block in net.down] == [128, 256, 512, 1024]


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 40)])
def test_nested_unet_takes_any_size(shape):
    assert NestedUNet(3, 2, 4)(torch.rand(1, 3, *shape)).shape == (1, 1, *shape)


def test_nested_unet_learns_where_a_square_is():
    net = NestedUNet(3, 4, 8)
    image = torch.zeros(1, 3, 32, 32)
    image[..., 8:20, 10:26] = 1
    target = image[:, :1]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(15):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = net(image) > 0
    assert ((found == (target > 0)).float().mean()) > 0.95
