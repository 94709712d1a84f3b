from typing import Literal

import pytest
import torch
from torch import Tensor

from solov2.model.deform import DeformConv2d
from solov2.model.grid_head import GridHead
from solov2.model.layers import DropBlock


def pyramid_of(channels: int, height: int, width: int, levels: int = 5) -> list[Tensor]:
    """Random p2 and up, as subsampling gives them."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(levels)]
    return [torch.randn(1, channels, *shape, generator=generator) for shape in shapes]


def small_head(grid_sizes: tuple[int, ...], strides: tuple[int, ...], *, drop_block: bool = False) -> GridHead:
    torch.manual_seed(0)
    return GridHead(
        7,
        grid_sizes=grid_sizes,
        strides=strides,
        in_channels=8,
        channels=32,
        depth=2,
        kernel_channels=16,
        drop_block=drop_block,
    )


@pytest.mark.parametrize(
    ("grid_sizes", "strides"),
    [
        ((5,), (8,)),
        ((9, 4), (8, 16)),
        ((12, 7, 5), (4, 8, 16)),
        ((40, 24, 16, 12), (8, 8, 16, 32)),
        ((13, 11, 7, 5, 2), (8, 8, 16, 32, 32)),
    ],
)
def test_shapes(grid_sizes: tuple[int, ...], strides: tuple[int, ...]) -> None:
    head = small_head(grid_sizes, strides)
    logits, kernels = head(*pyramid_of(8, 24, 40))
    assert [tuple(x.shape) for x in logits] == [(1, 7, s, s) for s in grid_sizes]
    assert [tuple(x.shape) for x in kernels] == [(1, 16, s, s) for s in grid_sizes]


def test_a_level_reads_its_own_map() -> None:
    head = small_head((6, 5, 4), (8, 8, 16)).eval()
    pyramid = pyramid_of(8, 32, 32)
    before, _ = head(*pyramid)
    pyramid[1] = pyramid[1] + 1 + torch.arange(16.0)
    after, _ = head(*pyramid)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_maps_are_brought_to_their_strides_first() -> None:
    head = small_head((6, 5, 4, 3, 2), (8, 8, 16, 32, 32))
    shapes = [tuple(x.shape[-2:]) for x in head._at_strides(tuple(pyramid_of(8, 32, 64)))]
    assert shapes == [(16, 32), (16, 32), (8, 16), (4, 8), (4, 8)]


def test_only_kernels_know_where_they_are() -> None:
    head = small_head((6,), (8,)).eval()
    logits, kernels = head(torch.zeros(1, 8, 16, 16), torch.zeros(1, 8, 8, 8))
    assert head.category_output.bias is not None
    assert torch.equal(logits[0], head.category_output.bias[None, :, None, None].expand(1, 7, 6, 6))
    assert float((kernels[0][..., 0, 0] - kernels[0][..., -1, -1]).detach().abs().max()) > 1e-3


def test_untrained_scores_are_low() -> None:
    logits, _ = small_head((12,), (8,))(*pyramid_of(8, 24, 24))
    assert logits[0].sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


def test_initial_weights() -> None:
    head = small_head((12,), (8,))
    assert head.category_tower[1].conv.weight.std().item() == pytest.approx(0.01, rel=0.05)  # type: ignore[union-attr]
    assert head.kernel_output.bias is not None
    assert head.kernel_output.bias.eq(0).all()
    assert head.category_output.bias is not None
    torch.testing.assert_close(head.category_output.bias.sigmoid(), torch.full((7,), 0.01))


def test_drop_block_only_in_training() -> None:
    head = small_head((12,), (8,), drop_block=True)
    assert isinstance(head.drop_block, DropBlock)
    pyramid = pyramid_of(8, 24, 24)
    head.eval()
    assert torch.equal(head(*pyramid)[0][0], head(*pyramid)[0][0])
    head.train()
    assert not torch.equal(head(*pyramid)[0][0], head(*pyramid)[0][0])


def test_too_small_a_pyramid_is_refused() -> None:
    with pytest.raises((ValueError, IndexError)):
        small_head((5, 4, 3), (8, 8, 16))(*pyramid_of(8, 24, 24, levels=2))


@pytest.mark.parametrize(("version", "channels"), [(1, 18), (2, 27)])
def test_deformable_tower_convolutions(version: Literal[1, 2], channels: int) -> None:
    head = GridHead(3, grid_sizes=(5,), strides=(8,), in_channels=8, channels=32, depth=3, kernel_channels=4,
                    dcn_stages=(0, 2), dcn_version=version)  # fmt: skip
    found = {name: module for name, module in head.named_modules() if isinstance(module, DeformConv2d)}
    assert found.keys() == {f"{part}_tower.{index}.conv" for part in ("kernel", "category") for index in (0, 2)}
    for layer in found.values():
        assert layer.offset.out_channels == channels
        assert layer.bias is not None
        assert not layer.offset.weight.any()
    category_logits, kernels = head(*pyramid_of(8, 32, 64))
    assert category_logits[0].shape == (1, 3, 5, 5)
    assert kernels[0].shape == (1, 4, 5, 5)


def native_head(*, coords: bool = True, strides: tuple[int, ...] = (8, 16, 32)) -> GridHead:
    torch.manual_seed(0)
    return GridHead(7, grid_sizes=(), strides=strides, in_channels=8, channels=32, depth=2, kernel_channels=16,
                    coords=coords).eval()  # fmt: skip


@pytest.mark.parametrize("coords", [True, False])
def test_grids_that_are_the_maps(coords: bool) -> None:
    logits, kernels = native_head(coords=coords)(*pyramid_of(8, 24, 40))
    sizes = [(12, 20), (6, 10), (3, 5)]
    assert [tuple(x.shape) for x in logits] == [(1, 7, *size) for size in sizes]
    assert [tuple(x.shape) for x in kernels] == [(1, 16, *size) for size in sizes]


@pytest.mark.parametrize("coords", [True, False])
def test_each_native_grid_reads_the_map_of_its_stride(coords: bool) -> None:
    head, pyramid = native_head(coords=coords, strides=(16, 4)), pyramid_of(8, 32, 32)
    for changed, expected in ((0, [True, False]), (1, [True, True]), (2, [False, True]), (3, [True, True])):
        other = [x + torch.arange(x.shape[-1]) if number == changed else x for number, x in enumerate(pyramid)]
        for before, after in zip(head(*pyramid), head(*other), strict=True):
            assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == expected


def test_without_coordinates_no_cell_knows_where_it_is() -> None:
    zeros = [torch.zeros(1, 8, 16 >> level, 16 >> level) for level in range(4)]
    for coords in (True, False):
        logits, kernels = native_head(coords=coords)(*zeros)
        assert all((x.amax((2, 3)) - x.amin((2, 3))).max() == 0 for x in logits)
        assert all(((x.amax((2, 3)) - x.amin((2, 3))).max() > 1e-3) == coords for x in kernels)
    _, kernels = GridHead(7, grid_sizes=(6,), strides=(8,), in_channels=8, channels=32, coords=False)(*zeros)
    assert (kernels[0].amax((2, 3)) - kernels[0].amin((2, 3))).max() == 0  # a resampled grid neither


def test_both_towers_read_the_same_without_coordinates() -> None:
    with_coords, without = native_head(), native_head(coords=False)
    assert [head.kernel_tower[0].conv.in_channels for head in (with_coords, without)] == [10, 8]  # type: ignore[union-attr]
    assert [head.category_tower[0].conv.in_channels for head in (with_coords, without)] == [8, 8]  # type: ignore[union-attr]
