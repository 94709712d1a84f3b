"""Grid head: pyramid maps become, per cell of each grid, category logits and a mask kernel.

SOLOv2 paper, sections 3.1 and 3.2.1. One head is shared by all levels; level i reads pyramid map i
brought to its own stride, then resampled to the grid.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from torch import Tensor, nn

from solov2.model.layers import (
    ConvNorm,
    DcnVersion,
    DropBlock,
    NormFactory,
    append_coords,
    convolutions,
    group_norm,
    resize,
)
from solov2.model.mask_branch import COORD_CHANNELS, INIT_STD

PRIOR_PROBABILITY = 0.01
"""Category score of an untrained network, so that the focal loss starts small (Lin et al., "Focal Loss")."""


class GridHead(nn.Module):
    """Category and kernel towers over S×S grids.

    Args:
        num_classes: categories C.
        grid_sizes: cells per side S, per level; empty: grids are the pyramid maps of these strides themselves.
        strides: input pixels per cell of the map each grid is resampled from: a pyramid map's own
            stride, or that of a neighbour to whose size it is brought first.
        in_channels: channels of the pyramid.
        channels: width of the towers, a multiple of 32.
        depth: convolutions per tower.
        kernel_channels: length E of a kernel.
        drop_block: DropBlock before each prediction layer, in training.
        dcn_stages: convolutions of each tower, from 0, that are deformable.
        dcn_version: of deformable convolution.
        coords: the kernel tower is given coordinates.
        norm: makes the normalisation for a number of channels.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        grid_sizes: tuple[int, ...] = (40, 36, 24, 16, 12),
        strides: tuple[int, ...] = (8, 8, 16, 32, 32),
        in_channels: int = 256,
        channels: int = 512,
        depth: int = 4,
        kernel_channels: int = 256,
        drop_block: bool = False,
        dcn_stages: Collection[int] = (),
        dcn_version: DcnVersion = 2,
        coords: bool = True,
        norm: NormFactory = group_norm,
    ) -> None:
        super().__init__()
        self.grid_sizes = tuple(grid_sizes)
        self.native = not self.grid_sizes
        self.strides = tuple(strides)
        versions: list[DcnVersion | Literal[0]] = [dcn_version if stage in dcn_stages else 0 for stage in range(depth)]
        self.coords = coords
        self.kernel_tower = _tower(in_channels + (COORD_CHANNELS if coords else 0), channels, versions, norm)
        self.category_tower = _tower(in_channels, channels, versions, norm)
        self.drop_block = DropBlock() if drop_block else nn.Identity()
        self.kernel_output = nn.Conv2d(channels, kernel_channels, 3, padding=1)
        self.category_output = nn.Conv2d(channels, num_classes, 3, padding=1)
        self._initialize()

    def forward(self, *pyramid: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Reads p2 and up, (B, X, H/4, W/4) and smaller, as many as there are levels or more.

        Returns:
            Category logits, per level (B, C, S, S), and kernels, per level (B, E, S, S); of grids that are pyramid
            maps (B, C, H / stride, W / stride) and (B, E, H / stride, W / stride).
        """
        category_logits, kernels = [], []
        for grid, plain in self._grids(pyramid):
            kernel_map = self.kernel_tower(grid)
            category_map = self.category_tower(plain)
            kernels.append(self.kernel_output(self.drop_block(kernel_map)))
            category_logits.append(self.category_output(self.drop_block(category_map)))
        return tuple(category_logits), tuple(kernels)

    def _grids(self, pyramid: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        """Per level what the kernel tower reads and what the category tower reads."""
        if self.grid_sizes:
            for size, x in zip(self.grid_sizes, self._at_strides(pyramid), strict=True):
                grid = resize(append_coords(x) if self.coords else x, (size, size))
                yield grid, grid[:, : x.shape[1]]
        else:
            for stride in self.strides:
                x = level_of(pyramid, stride)
                yield append_coords(x) if self.coords else x, x

    def _at_strides(self, pyramid: tuple[Tensor, ...]) -> list[Tensor]:
        return [
            resize(x, tuple(level_of(pyramid, stride).shape[-2:]))  # type: ignore[arg-type]
            for x, stride in zip(pyramid, self.strides, strict=False)
        ]

    def _initialize(self) -> None:
        for module in convolutions(self):
            nn.init.normal_(module.weight, std=INIT_STD)
        for output in (self.kernel_output, self.category_output):
            assert output.bias is not None
            nn.init.zeros_(output.bias)
        assert self.category_output.bias is not None
        nn.init.constant_(self.category_output.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))


def level_of(pyramid: Sequence[Tensor], stride: int) -> Tensor:
    """The map of a stride: p2 has stride 4 and each level doubles it, so its number is log2(stride) - 2."""
    return pyramid[int(math.log2(stride)) - 2]


def _tower(
    in_channels: int, channels: int, versions: Sequence[DcnVersion | Literal[0]], norm: NormFactory
) -> nn.Sequential:
    return nn.Sequential(
        *(
            ConvNorm(
                in_channels if index == 0 else channels,
                channels,
                3,
                norm=norm,
                activation=nn.ReLU(inplace=True),
                dcn=version,
                dcn_bias=True,
            )
            for index, version in enumerate(versions)
        )
    )
