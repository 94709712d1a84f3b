import pytest
import torch
from torch import nn

from solov2.model.layers import (
    ConvNorm,
    DropBlock,
    EvalBatchNorm2d,
    FrozenBatchNorm2d,
    SharedBatchNorm2d,
    append_coords,
    apply_kernels,
    drop_block,
    freeze,
    group_norm,
    resize,
    share_batch_norm,
    upsample2,
)


def test_coordinates_follow_the_channels_x_first() -> None:
    x = torch.zeros(2, 1, 2, 3)
    out = append_coords(x)
    assert out.shape == (2, 3, 2, 3)
    for image in out:
        assert image[0].eq(0).all()
        assert image[1].tolist() == [[-1, 0, 1], [-1, 0, 1]]  # along columns
        assert image[2].tolist() == [[-1, -1, -1], [1, 1, 1]]  # along rows


def test_coordinates_of_a_single_cell_are_minus_one() -> None:
    assert append_coords(torch.zeros(1, 1, 1, 1)).flatten().tolist() == [0, -1, -1]


def test_coordinates_keep_half_precision() -> None:
    assert append_coords(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_apply_kernels_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]])  # (E=2, 2, 2)
    kernels = torch.tensor([[1.0, 0.0], [0.5, -0.1], [0.0, 0.0]])
    expected = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[-0.5, -1.0], [-1.5, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(apply_kernels(kernels, features), expected)


def test_apply_kernels_without_kernels() -> None:
    assert apply_kernels(torch.zeros(0, 3), torch.zeros(3, 4, 5)).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("row", "size", "expected"),
    [
        ([0.0, 4.0], 4, [0.0, 1.0, 3.0, 4.0]),  # half-pixel centres, clamped borders
        ([0.0, 2.0, 4.0, 8.0], 2, [1.0, 6.0]),
        ([0.0, 8.0, 100.0, 8.0, 0.0, 4.0], 2, [8.0, 0.0]),  # no antialiasing: one tap of three counts
        ([5.0], 3, [5.0, 5.0, 5.0]),
    ],
)
def test_resize_along_a_row(row: list[float], size: int, expected: list[float]) -> None:
    assert resize(torch.tensor(row)[None, None, None], (1, size)).flatten().tolist() == expected


def test_resize_to_the_same_size_is_the_identity() -> None:
    x = torch.rand(1, 2, 3, 5)
    assert resize(x, (3, 5)) is x


def test_upsample2_by_hand() -> None:
    out = upsample2(torch.tensor([[[[0.0, 4.0]]]]))
    assert out.tolist() == [[[[0, 1, 3, 4], [0, 1, 3, 4]]]]


@pytest.mark.parametrize(("kernel_size", "stride", "expected"), [(1, 1, 9), (3, 1, 9), (3, 2, 5), (7, 2, 5), (1, 2, 5)])
def test_convolution_keeps_the_size_at_stride_1(kernel_size: int, stride: int, expected: int) -> None:
    conv = ConvNorm(3, 32, kernel_size, stride=stride, norm=group_norm, activation=nn.ReLU())
    out = conv(torch.randn(1, 3, 9, 9))
    assert out.shape == (1, 32, expected, expected)
    assert out.min() >= 0
    assert conv.conv.bias is None


@pytest.mark.parametrize(("groups", "dtype"), [(4, torch.float32), (1, torch.bfloat16)])
def test_depthwise_convolutions_stay_single_on_a_cpu(groups: int, dtype: torch.dtype) -> None:
    """Their gradient is slow in bfloat16."""
    layer = ConvNorm(4, 4, 3, groups=groups, norm=lambda channels: nn.Identity())
    x = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == dtype
    out.sum().backward()
    assert layer.conv.weight.grad is not None
    assert layer.conv.weight.grad.abs().sum() > 0
    assert layer(x.detach().float()).dtype == torch.float32


def test_frozen_norm_is_an_affine_map_in_training_too() -> None:
    norm = FrozenBatchNorm2d(2)
    norm.running_mean = torch.tensor([1.0, 2.0])
    norm.running_var = torch.tensor([4.0, 9.0])
    nn.init.constant_(norm.bias, 0.5)
    network = nn.Sequential(norm).train()
    x = torch.randn(3, 2, 4, 4) * 10
    expected = (x - torch.tensor([1.0, 2.0])[:, None, None]) / torch.tensor([2.0, 3.0])[:, None, None] + 0.5
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    assert not norm.training
    assert norm.running_mean.tolist() == [1, 2]
    assert [p.requires_grad for p in norm.parameters()] == [False, False]


@pytest.mark.parametrize(("kind", "learned"), [(EvalBatchNorm2d, True), (FrozenBatchNorm2d, False)])
def test_stored_statistics_are_used_from_the_start(kind: type[nn.BatchNorm2d], learned: bool) -> None:
    """Nobody need call train() for it: Lightning trains a network in the mode in which it was built."""
    norm = kind(2)
    x = torch.randn(3, 2, 4, 4) * 10 + 5
    torch.testing.assert_close(norm(x), x, rtol=1e-4, atol=1e-4)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0, 0]
    assert [p.requires_grad for p in norm.parameters()] == [learned] * 2


def test_drop_block_is_off_in_evaluation() -> None:
    x = torch.ones(2, 3, 8, 8)
    block = DropBlock().eval()
    assert block(x) is x


def test_drop_block_drops_squares_and_keeps_the_mean() -> None:
    x = torch.ones(1, 1, 6, 6)
    draw = torch.ones(1, 1, 6, 6)
    draw[0, 0, 2, 3] = 0.0  # one seed in the middle, one in a corner
    draw[0, 0, 5, 0] = 0.0
    out = drop_block(x, draw, 3, 0.9)
    kept = torch.ones(6, 6)
    kept[1:4, 2:5] = 0
    kept[4:6, 0:2] = 0
    torch.testing.assert_close(out[0, 0], kept * 36 / 23)
    assert float(out.mean()) == pytest.approx(1.0)


def test_drop_block_drops_a_tenth() -> None:
    torch.manual_seed(0)
    out = DropBlock(3, 0.9).train()(torch.ones(8, 16, 24, 24))
    assert float((out == 0).float().mean()) == pytest.approx(0.1, abs=0.01)  # one draw; its spread is 0.001


def test_drop_block_of_everything_is_finite() -> None:
    out = drop_block(torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), 3, 0.5)
    assert out.eq(0).all()


def test_drop_block_keeps_half_precision() -> None:
    x = torch.ones(1, 1, 4, 4, dtype=torch.bfloat16)
    assert drop_block(x, torch.rand(1, 1, 4, 4), 3, 0.9).dtype == torch.bfloat16


def test_only_norms_that_ask_for_it_are_shared() -> None:
    network = nn.Sequential(
        ConvNorm(3, 4, 1, norm=SharedBatchNorm2d),
        ConvNorm(4, 4, 1, norm=nn.BatchNorm2d),
        ConvNorm(4, 32, 1, norm=group_norm),
    )
    torch.nn.init.uniform_(network.get_parameter("0.norm.weight"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert share_batch_norm(network) == 1
    kinds = [type(network.get_submodule(f"{index}.norm")) for index in range(3)]
    assert kinds == [nn.SyncBatchNorm, nn.BatchNorm2d, nn.GroupNorm]
    after = network.state_dict()
    assert before.keys() == after.keys()  # weights files do not change
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert share_batch_norm(network) == 0


def test_frozen_parts_neither_learn_nor_follow_the_data() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Sequential(ConvNorm(3, 4, 3, norm=nn.BatchNorm2d), nn.Sequential(ConvNorm(4, 4, 1, norm=nn.BatchNorm2d))),
        ConvNorm(4, 5, 1, norm=nn.BatchNorm2d),
    )
    names, x = list(network.state_dict()), torch.randn(2, 3, 8, 8)
    expected = network.eval()(x)
    freeze(network, ["0"])
    assert torch.equal(network.eval()(x), expected)
    assert list(network.state_dict()) == names
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()(x).sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {
        "1.conv.weight",
        "1.norm.weight",
        "1.norm.bias",
    }
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.norm.running_mean", "1.norm.running_var", "1.norm.num_batches_tracked"}


def test_freezing_what_is_not_there() -> None:
    with pytest.raises(AttributeError):
        freeze(nn.Sequential(nn.Identity()), ["1"])
