"""Separable head: like the grid head, but each level has towers of its own, of depthwise convolutions.

The form of NanoDet-Plus's head: its category towers can be taken over as they are. Grids are the
pyramid maps themselves.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from solov2.model.ghost_pan import separable
from solov2.model.grid_head import PRIOR_PROBABILITY, level_of
from solov2.model.layers import initialize_leaky
from solov2.model.mask_branch import INIT_STD


class SeparableHead(nn.Module):
    """Category and kernel towers over the pyramid maps.

    Args:
        num_classes: categories C.
        strides: input pixels per cell of each level's map: consecutive pyramid strides.
        channels: channels of the pyramid and of the towers.
        depth: pairs of a depthwise and a 1×1 convolution per tower.
        kernel_channels: length of a kernel.
    """

    native = True
    """Grids are the pyramid maps themselves."""

    def __init__(
        self,
        num_classes: int,
        *,
        strides: tuple[int, ...] = (8, 16, 32, 64),
        channels: int = 96,
        depth: int = 2,
        kernel_channels: int = 64,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)

        def towers() -> nn.ModuleList:
            return nn.ModuleList(nn.Sequential(*(separable(channels) for _ in range(depth))) for _ in strides)

        def outputs(size: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(channels, size, 1) for _ in strides)

        self.category_tower, self.category_output = towers(), outputs(num_classes)
        self.kernel_tower, self.kernel_output = towers(), outputs(kernel_channels)
        self._initialize()

    def forward(self, *pyramid: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Reads p2 and up, (B, X, H/4, W/4) and smaller, as many as the coarsest stride needs.

        Returns:
            Category logits, per level (B, C, H / stride, W / stride), and kernels, per level (B, E, H / stride,
            W / stride); odd sides are rounded up.
        """
        levels = [level_of(pyramid, stride) for stride in self.strides]

        def run(towers: nn.ModuleList, outputs: nn.ModuleList) -> tuple[Tensor, ...]:
            return tuple(output(tower(x)) for tower, output, x in zip(towers, outputs, levels, strict=True))

        return run(self.category_tower, self.category_output), run(self.kernel_tower, self.kernel_output)

    def _initialize(self) -> None:
        initialize_leaky(self)
        for output in (*self.category_output, *self.kernel_output):
            assert isinstance(output, nn.Conv2d)
            assert output.bias is not None
            nn.init.normal_(output.weight, std=INIT_STD)
            nn.init.zeros_(output.bias)
        for output in self.category_output:
            assert isinstance(output, nn.Conv2d)
            assert output.bias is not None
            nn.init.constant_(output.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
