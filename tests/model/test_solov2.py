import pytest
import torch
from torch import nn

from solov2.errors import ImageError
from solov2.model.ellipse import PARAMETERS, TERMS, UNIT
from solov2.model.fpn import FPN
from solov2.model.ghost_pan import GhostPAN
from solov2.model.grid_head import GridHead
from solov2.model.mask_branch import MaskBranch
from solov2.model.resnet import ResNet
from solov2.model.separable_head import SeparableHead
from solov2.model.shufflenet import ShuffleNetV2
from solov2.model.solov2 import SOLOv2


def small_network(*, freeze_norm: bool = True, drop_block: bool = False) -> SOLOv2:
    torch.manual_seed(0)
    backbone = ShuffleNetV2(freeze_norm=freeze_norm)
    head = GridHead(
        3,
        grid_sizes=(9, 6, 4, 3, 2),
        in_channels=16,
        channels=32,
        depth=1,
        kernel_channels=32,
        drop_block=drop_block,
    )
    return SOLOv2(backbone, FPN(backbone.channels, 16), MaskBranch(16, 32, 32), head)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32), (32, 160)])
def test_shapes(height: int, width: int) -> None:
    network = small_network().eval()
    with torch.no_grad():
        predictions = network(torch.randn(2, 3, height, width))
    assert [tuple(x.shape) for x in predictions.category_logits] == [(2, 3, s, s) for s in (9, 6, 4, 3, 2)]
    assert [tuple(x.shape) for x in predictions.kernels] == [(2, 32, s, s) for s in (9, 6, 4, 3, 2)]
    assert predictions.mask_features.shape == (2, 32, height // 4, width // 4)
    assert predictions.strides == (8, 8, 16, 32, 32)
    assert all(x.isfinite().all() for x in (*predictions.category_logits, *predictions.kernels))


@pytest.mark.parametrize(
    ("height", "width", "padded"), [(33, 64, "64x64"), (64, 100, "64x128"), (1, 31, "32x32"), (800, 1333, "800x1344")]
)
def test_sides_must_be_multiples_of_32(height: int, width: int, padded: str) -> None:
    with pytest.raises(ImageError, match=f"the input is {height}x{width}.*pad it.*to {padded}"):
        small_network()(torch.zeros(1, 3, height, width))


def test_training_and_evaluation_agree_when_norms_are_frozen() -> None:
    network = small_network()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        trained, evaluated = network.train()(images), network.eval()(images)
    assert torch.equal(trained.mask_features, evaluated.mask_features)
    for a, b in zip(
        (*trained.category_logits, *trained.kernels), (*evaluated.category_logits, *evaluated.kernels), strict=True
    ):
        assert torch.equal(a, b)


def test_training_and_evaluation_differ_when_norms_learn() -> None:
    network = small_network(freeze_norm=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        trained, evaluated = network.train()(images), network.eval()(images)
    assert not torch.allclose(trained.mask_features, evaluated.mask_features)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    network = small_network().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        both, second = network(images), network(images[1:])
    torch.testing.assert_close(both.mask_features[1:], second.mask_features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.kernels[0][1:], second.kernels[0], rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    network = small_network(freeze_norm=False).train()
    out = network(torch.randn(2, 3, 64, 64))
    total = out.mask_features.square().mean()
    for level in (*out.category_logits, *out.kernels):
        total = total + level.square().mean()
    total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_parameters_of_r50_fpn() -> None:
    with torch.device("meta"):
        backbone = ResNet(50)
        network: nn.Module = SOLOv2(backbone, FPN(backbone.channels), MaskBranch(), GridHead(80))
    parameters = list(network.parameters())
    assert sum(p.numel() for p in parameters) == 46_592_912
    assert sum(p.numel() for p in parameters if p.requires_grad) == 46_317_392
    assert sum(p.requires_grad for p in parameters) == 110


def relative_network() -> SOLOv2:
    torch.manual_seed(0)
    backbone = ShuffleNetV2(freeze_norm=False)
    head = SeparableHead(3, strides=(8, 16, 32, 64), channels=32, depth=1, kernel_channels=32 + PARAMETERS)
    return SOLOv2(backbone, GhostPAN(backbone.channels, 32), MaskBranch(32, 32, 32, coords=False), head, relative=True)


@pytest.mark.parametrize(
    ("hw", "coarsest"), [((32, 32), (1, 1)), ((64, 96), (1, 2)), ((96, 160), (2, 3)), ((128, 128), (2, 2))]
)
def test_shapes_with_relative_position(hw: tuple[int, int], coarsest: tuple[int, int]) -> None:
    network = relative_network().eval()
    with torch.no_grad():
        predictions = network(torch.randn(2, 3, *hw))
    sizes = [*((hw[0] // stride, hw[1] // stride) for stride in (8, 16, 32)), coarsest]
    assert [tuple(x.shape) for x in predictions.category_logits] == [(2, 3, *size) for size in sizes]
    assert [tuple(x.shape) for x in predictions.kernels] == [(2, 32 + TERMS, *size) for size in sizes]
    assert predictions.mask_features.shape == (2, 32 + TERMS, hw[0] // 4, hw[1] // 4)
    assert predictions.strides == (8, 16, 32, 64)


def test_every_parameter_gets_a_gradient_with_relative_position() -> None:
    network = relative_network().train()
    out = network(torch.randn(2, 3, 64, 64))
    total = out.mask_features.square().mean()
    for level in (*out.category_logits, *out.kernels):
        total = total + level.square().mean()
    total.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_positions_keep_float32_in_mixed_precision() -> None:
    """Squares of positions nearly cancel far from the origin: bfloat16 has three digits."""
    network = relative_network().eval()
    images = torch.randn(1, 3, 64, 1024)
    with torch.no_grad():
        plain = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(images)
    assert mixed.category_logits[0].dtype == torch.bfloat16
    assert {x.dtype for x in (*mixed.kernels, mixed.mask_features)} == {torch.float32}
    assert torch.equal(mixed.mask_features[:, -TERMS:], plain.mask_features[:, -TERMS:])
    for kernels, exact, stride in zip(mixed.kernels, plain.kernels, mixed.strides, strict=True):
        for found, expected in zip(centres_of(kernels), centres_of(exact), strict=True):
            assert (found - expected).abs().max() < 0.1 * stride


def centres_of(kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of every cell's ellipse in pixels, from the terms of u, v, u² and v²."""
    u, v, uu, vv = kernels[0, 1 - TERMS :]
    return -UNIT * u / (2 * uu), -UNIT * v / (2 * vv)
