from typing import Literal

import pytest
import torch
from torch import nn

from solov2.model.deform import DeformConv2d
from solov2.model.layers import EvalBatchNorm2d, FrozenBatchNorm2d
from solov2.model.resnet import BasicBlock, Bottleneck, ResNet, Variant

# torchvision's counts less the classifier; ResNet-18 and -34 have a projection (64 * 64 + 2 * 64) more.
PARAMETERS = {18: 11_176_512 + 4_224, 34: 21_284_672 + 4_224, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
DEEP_STEM = 19_232  # three 3×3 instead of one 7×7


def count(module: nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize("depth", PARAMETERS)
def test_depths(depth: int) -> None:
    with torch.device("meta"):  # shapes only
        network = ResNet(depth)
        maps = network(torch.zeros(2, 3, 64, 96))
    channels = (256, 512, 1024, 2048) if depth >= 50 else (64, 128, 256, 512)
    assert network.channels == channels
    assert [tuple(x.shape) for x in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    assert count(network) == PARAMETERS[depth]


@pytest.mark.parametrize(
    ("variant", "extra", "stem", "first", "second", "pooled"),
    [
        ("a", 0, 1, 2, 1, False),
        ("b", 0, 1, 1, 2, False),
        ("c", DEEP_STEM, 3, 1, 2, False),
        ("d", DEEP_STEM, 3, 1, 2, True),
    ],
)
def test_variants(variant: Variant, extra: int, stem: int, first: int, second: int, pooled: bool) -> None:
    with torch.device("meta"):
        network = ResNet(50, variant=variant)
        maps = network(torch.zeros(1, 3, 64, 64))
    assert [x.shape[-1] for x in maps] == [16, 8, 4, 2]
    assert count(network) == PARAMETERS[50] + extra
    assert len(network.stem) == stem
    strided = network.get_submodule("stages.1.0")
    assert isinstance(strided, Bottleneck)
    assert strided.conv1.conv.stride == (first, first)
    assert strided.conv2.conv.stride == (second, second)
    assert isinstance(strided.shortcut[0], nn.AvgPool2d) == pooled
    assert strided.shortcut[1].conv.stride == ((1, 1) if pooled else (2, 2))
    # the first stage projects too, without a step and so without pooling
    unstrided = network.get_submodule("stages.0.0.shortcut")
    assert isinstance(unstrided[0], nn.Identity)  # type: ignore[index]


@pytest.mark.parametrize(("project_first", "expected"), [(True, PARAMETERS[18]), (False, 11_176_512)])
def test_first_block_of_the_small_ones(project_first: bool, expected: int) -> None:
    with torch.device("meta"):
        network = ResNet(18, project_first=project_first)
    assert count(network) == expected
    assert isinstance(network.get_submodule("stages.0.0"), BasicBlock)


def test_deep_ones_project_first_whatever_is_asked() -> None:
    with torch.device("meta"):
        assert count(ResNet(50, project_first=False)) == PARAMETERS[50]


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [(-1, []), (0, ["stem", "stages.0"]), (1, ["stem", "stages.0", "stages.1"])],
)
def test_freeze_at(freeze_at: int, frozen: list[str]) -> None:
    with torch.device("meta"):
        network = ResNet(18, freeze_at=freeze_at, norm=nn.BatchNorm2d)
    for name in ("stem", "stages.0", "stages.1", "stages.2", "stages.3"):
        part = network.get_submodule(name)
        assert {p.requires_grad for p in part.parameters()} == {name not in frozen}, name


def test_everything_frozen() -> None:
    with torch.device("meta"):
        assert count(ResNet(18, freeze_at=3), trainable=True) == 0


def test_frozen_norms_stay_frozen_in_training() -> None:
    torch.manual_seed(0)
    network = ResNet(18, freeze_at=-1, norm=FrozenBatchNorm2d).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 8 * 2 + 4  # the stem, two a block, four projections
    assert all(isinstance(norm, FrozenBatchNorm2d) for norm in norms)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert not any(norm.training for norm in norms)
    assert all(p.grad is None for norm in norms for p in norm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_norms_learn_when_asked() -> None:
    torch.manual_seed(0)
    network = ResNet(18, freeze_at=-1, norm=nn.BatchNorm2d).train()
    network(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    norm = network.get_submodule("stages.2.0.conv1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.weight.grad is not None
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() > 0


def test_odd_maps_lose_no_row() -> None:
    # Inputs are multiples of 32, so only a caller of the backbone alone can see this.
    with torch.device("meta"):
        maps = ResNet(50, variant="d")(torch.zeros(1, 3, 36, 44))
    assert [tuple(x.shape[-2:]) for x in maps] == [(9, 11), (5, 6), (3, 3), (2, 2)]


def test_resnext() -> None:
    """64x4d: 83.5 M parameters with torchvision's classifier of 2,049,000, which the backbone lacks."""
    with torch.device("meta"):
        network = ResNet(101, groups=64, base_width=4)
        maps = network(torch.zeros(1, 3, 64, 64))
    assert count(network) == 83_455_272 - 2_049_000
    assert [x.shape[1] for x in maps] == [256, 512, 1024, 2048]
    widths = [network.get_submodule(f"stages.{stage}.0.conv2.conv").weight.shape for stage in range(4)]
    assert [tuple(shape) for shape in widths] == [(w, w // 64, 3, 3) for w in (256, 512, 1024, 2048)]


def test_deformable_resnext() -> None:
    """Groups divide the weights; the offsets are found from all channels, for all groups."""
    with torch.device("meta"):
        layer = ResNet(50, groups=64, base_width=4, dcn_stages=(1,)).get_submodule("stages.1.0.conv2.conv")
    assert isinstance(layer, DeformConv2d)
    assert tuple(layer.weight.shape) == (512, 512 // 64, 3, 3)
    assert tuple(layer.offset.weight.shape) == (27, 512, 3, 3)


@pytest.mark.parametrize(("version", "channels"), [(1, 18), (2, 27)])
def test_deformable_stages(version: Literal[1, 2], channels: int) -> None:
    """Every 3x3 of a chosen stage, the strided one too, and nothing else."""
    with torch.device("meta"):
        network = ResNet(50, dcn_stages=(1, 3), dcn_version=version)
        maps = network(torch.zeros(1, 3, 64, 64))
    found = {name for name, module in network.named_modules() if isinstance(module, DeformConv2d)}
    expected = {(1, 4), (3, 3)}
    assert found == {f"stages.{s}.{b}.conv2.conv" for s, blocks in expected for b in range(blocks)}
    assert [x.shape[-1] for x in maps] == [16, 8, 4, 2]
    first = network.get_submodule("stages.1.0.conv2.conv")
    assert isinstance(first, DeformConv2d)
    assert first.geometry.stride == 2
    assert first.offset.out_channels == channels
    assert first.bias is None


def test_deformable_basic_blocks() -> None:
    with torch.device("meta"):
        network = ResNet(18, dcn_stages=(2,))
    found = {name for name, module in network.named_modules() if isinstance(module, DeformConv2d)}
    assert found == {"stages.2.0.conv2.conv", "stages.2.1.conv2.conv"}


def test_offsets_start_at_zero_whatever_initialises_the_rest() -> None:
    network = ResNet(18, dcn_stages=(3,))
    deformable = [module for module in network.modules() if isinstance(module, DeformConv2d)]
    assert all(not module.offset.weight.any() for module in deformable)
    assert all(module.weight.std() > 0 for module in deformable)


def test_norms_in_evaluation_learn_their_scales() -> None:
    torch.manual_seed(0)
    network = ResNet(18, freeze_at=-1, norm=EvalBatchNorm2d).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert all(norm.weight.grad is not None for norm in norms)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_norms_of_frozen_stages_go_on_counting() -> None:
    """As in PaddleDetection: freezing stops the parameters, not the statistics."""
    torch.manual_seed(0)
    network = ResNet(18, freeze_at=0, norm=nn.BatchNorm2d).train()
    network(torch.randn(2, 3, 64, 64))
    stem = network.get_submodule("stem.0.norm")
    assert isinstance(stem, nn.BatchNorm2d)
    assert not stem.weight.requires_grad
    assert stem.running_mean is not None
    assert stem.running_mean.abs().max() > 0
