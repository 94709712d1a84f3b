from itertools import pairwise

import pytest
import torch
from torch import nn

from solov2.model.fpn import FPN


@pytest.mark.parametrize("extra_levels", [0, 1, 2])
def test_shapes(extra_levels: int) -> None:
    fpn = FPN((3, 5, 7, 9), 4, extra_levels)
    features = [torch.randn(2, c, 32 // s, 64 // s) for c, s in zip((3, 5, 7, 9), (1, 2, 4, 8), strict=True)]
    pyramid = fpn(*features)
    sizes = [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4), (1, 2)][: 4 + extra_levels]
    assert [tuple(x.shape) for x in pyramid] == [(2, 4, *size) for size in sizes]
    for finer, coarser in pairwise(pyramid[3:]):
        assert torch.equal(coarser, finer[:, :, ::2, ::2])


def test_odd_p5_is_subsampled_from_its_first_cell() -> None:
    fpn = FPN((1,), 1, 1)
    p5, p6 = fpn(torch.randn(1, 1, 3, 5))
    assert torch.equal(p6, p5[:, :, [0, 2]][..., [0, 2, 4]])


def test_coarse_levels_are_added_to_finer_ones() -> None:
    fpn = FPN((1, 1, 1), 1, 0)
    for conv in fpn.laterals:
        assert isinstance(conv, nn.Conv2d)
        nn.init.ones_(conv.weight)
    for conv in fpn.outputs:  # a 3×3 that picks its centre: the merged maps become visible
        assert isinstance(conv, nn.Conv2d)
        nn.init.zeros_(conv.weight)
        nn.init.ones_(conv.weight[:, :, 1, 1])
    p3, p4, p5 = fpn(torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 2, 2), 10.0), torch.full((1, 1, 1, 1), 100.0))
    assert p3.unique().tolist() == [111]
    assert p4.unique().tolist() == [110]
    assert p5.unique().tolist() == [100]


def test_upsampling_repeats_pixels() -> None:
    fpn = FPN((1, 1), 1, 0)
    lateral, output = fpn.laterals[1], fpn.outputs[0]
    assert isinstance(lateral, nn.Conv2d)
    assert isinstance(output, nn.Conv2d)
    nn.init.ones_(lateral.weight)
    nn.init.zeros_(output.weight)
    nn.init.ones_(output.weight[:, :, 1, 1])
    p2, _ = fpn(torch.zeros(1, 1, 2, 4), torch.tensor([[[[1.0, 2.0]]]]))
    assert p2[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    fpn = FPN((64, 32), 16)
    limits = {"laterals.0": (6 / (2 * 64)) ** 0.5, "laterals.1": (6 / (2 * 32)) ** 0.5}
    limits |= {f"outputs.{i}": (6 / (2 * 9 * 16)) ** 0.5 for i in range(2)}
    for name, limit in limits.items():
        conv = fpn.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        assert 0.95 * limit < float(conv.weight.detach().abs().max()) <= limit, name
        assert conv.bias is not None
        assert conv.bias.eq(0).all()
