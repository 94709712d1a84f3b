import pytest
import torch
from torch import nn

from solov2.model.layers import FrozenBatchNorm2d
from solov2.model.shufflenet import ShuffleBlock, ShuffleNetV2


def test_shapes_and_parameters() -> None:
    with torch.device("meta"):
        network = ShuffleNetV2()
        maps = network(torch.zeros(2, 3, 64, 96))
    assert network.channels == (24, 116, 232, 464)
    assert [tuple(x.shape) for x in maps] == [(2, 24, 16, 24), (2, 116, 8, 12), (2, 232, 4, 6), (2, 464, 2, 3)]
    # torchvision's 2,278,604 less the classifier (1,025,000) and the last 1×1 convolution (477,184)
    assert sum(p.numel() for p in network.parameters()) == 776_420


def test_half_of_the_channels_pass_and_alternate() -> None:
    block = ShuffleBlock(8, 8, 1, nn.BatchNorm2d).eval()
    x = torch.randn(1, 8, 5, 5)
    out = block(x)
    assert torch.equal(out[:, 0::2], x[:, :4])
    assert torch.equal(out[:, 1::2], block.branch2(x[:, 4:]))


def test_strided_block_convolves_both_halves() -> None:
    block = ShuffleBlock(6, 10, 2, nn.BatchNorm2d).eval()
    x = torch.randn(1, 6, 8, 8)
    out = block(x)
    assert out.shape == (1, 10, 4, 4)
    assert block.branch1 is not None
    assert torch.equal(out[:, 0::2], block.branch1(x))


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(-1, 0), (0, 1), (1, 2), (3, 4)]
)  # of the stem and the three stages, so many from the start
def test_freeze_at(freeze_at: int, frozen: int) -> None:
    with torch.device("meta"):
        network = ShuffleNetV2(freeze_at=freeze_at)
    parts = [network.stem, *network.stages]
    trained = [{p.requires_grad for p in part.parameters()} for part in parts]
    assert trained == [{False}] * frozen + [{True}] * (4 - frozen)


@pytest.mark.parametrize(("freeze_norm", "kind"), [(True, FrozenBatchNorm2d), (False, nn.BatchNorm2d)])
def test_freeze_norm(freeze_norm: bool, kind: type[nn.Module]) -> None:
    network = ShuffleNetV2(freeze_norm=freeze_norm).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {type(norm) for norm in norms} == {kind}
    assert {norm.training for norm in norms} == {not freeze_norm}


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = ShuffleNetV2().train()
    sum(x.square().mean() for x in network(torch.randn(2, 3, 64, 64))).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in network.parameters())
