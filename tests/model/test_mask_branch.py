import pytest
import torch
from torch import nn

from solov2.model.deform import DeformConv2d
from solov2.model.layers import ConvNorm
from solov2.model.mask_branch import MaskBranch


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_every_level_comes_to_stride_4(levels: int) -> None:
    torch.manual_seed(0)
    branch = MaskBranch(8, 32, 64, levels)
    pyramid = [torch.randn(2, 8, 32 // 2**i, 48 // 2**i) for i in range(levels)]
    out = branch(*pyramid)
    assert out.shape == (2, 64, 32, 48)
    assert out.min() >= 0  # ReLU
    assert out.max() > 0


def test_convolutions_per_level() -> None:
    branch = MaskBranch(8, 32, 32, 4)
    shapes = [
        [tuple(m.weight.shape[:2]) for m in level.modules() if isinstance(m, nn.Conv2d)] for level in branch.levels
    ]
    assert shapes == [[(32, 8)], [(32, 8)], [(32, 8), (32, 32)], [(32, 10), (32, 32), (32, 32)]]  # p5 has coordinates


def test_last_level_knows_where_it_is() -> None:
    torch.manual_seed(0)
    branch = MaskBranch(8, 32, 32, 2)
    first = branch.levels[1]
    assert isinstance(first, nn.ModuleList)
    p2, p3 = torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 4, 4)
    with_coords = branch(p2, p3)
    assert (with_coords[..., 0, :] - with_coords[..., -1, :]).abs().max().item() > 0.1
    with torch.no_grad():
        first.get_submodule("0.conv").weight[:, 8:] = 0
    assert branch(p2, p3).std(dim=(2, 3)).max() < 1e-6


def test_every_parameter_gets_a_gradient() -> None:
    branch = MaskBranch(8, 32, 32, 3)
    branch(*[torch.randn(1, 8, 16 // 2**i, 16 // 2**i) for i in range(3)]).square().mean().backward()
    assert all(p.grad is not None for p in branch.parameters())


def test_refinements_add_to_the_sum() -> None:
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 8, 16 // 2**i, 16 // 2**i) for i in range(2)]
    plain, refined = MaskBranch(8, 32, 32, 2), MaskBranch(8, 32, 32, 2, refinements=1)
    added = refined.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert len(added) == 2 * 3  # two convolutions, each with a norm's scale and shift
    assert all(name.startswith("refinements.0.") for name in added)
    assert not torch.equal(refined(*pyramid), plain(*pyramid))
    with torch.no_grad():
        refined.get_parameter("refinements.0.1.norm.weight").zero_()
    assert torch.equal(refined(*pyramid), plain(*pyramid))


def test_a_pixel_sees_its_neighbours_at_stride_4_through_refinements() -> None:
    """Five pixels by two 3×3 convolutions, besides the one around it of the level's own."""
    torch.manual_seed(0)
    for refinements, reach in ((0, 1), (1, 3)):
        branch = MaskBranch(8, 32, 32, 1, refinements=refinements, coords=False, norm=nn.BatchNorm2d).eval()
        x = torch.randn(1, 8, 17, 17, requires_grad=True)
        branch(x)[0, :, 8, 8].sum().backward()
        assert x.grad is not None
        rows = x.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        assert (int(rows.min()), int(rows.max())) == (8 - reach, 8 + reach)


def test_deformable_throughout() -> None:
    """The last 1x1 too, whose one tap has two offsets and a factor; all with a bias, all offsets starting at zero."""
    branch = MaskBranch(16, 32, 32, levels=3, dcn=True)
    layers = [module for module in branch.modules() if isinstance(module, DeformConv2d)]
    assert len(layers) == 1 + 1 + 2 + 1
    assert layers[-1].offset.out_channels == 3
    for layer in layers:
        assert layer.bias is not None
        assert not layer.offset.weight.any()
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    out = branch(*(torch.randn(1, 16, 16 >> level, 24 >> level) for level in range(3)))
    assert out.shape == (1, 32, 16, 24)
    plain = MaskBranch(16, 32, 32, levels=3)
    assert not any(isinstance(module, DeformConv2d) for module in plain.modules())


def test_other_norms() -> None:
    branch = MaskBranch(16, 32, 32, norm=nn.BatchNorm2d)
    norms = {type(module.norm) for module in branch.modules() if isinstance(module, ConvNorm)}
    assert norms == {nn.BatchNorm2d}


def test_without_coordinates_it_does_not_know_where_it_is() -> None:
    torch.manual_seed(0)
    branch = MaskBranch(8, 32, 32, 2, coords=False)
    assert branch.levels[1].get_submodule("0.conv").in_channels == 8  # type: ignore[operator]
    out = branch(torch.zeros(1, 8, 8, 8), torch.zeros(1, 8, 4, 4))
    assert (out.amax((2, 3)) - out.amin((2, 3))).max() == 0
    assert branch(torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)).std(dim=(2, 3)).min() > 0.01
