"""Mask branch: p2..p5 become one map of mask features at stride 4 (SOLOv2 paper, section 3.2.2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from solov2.model.layers import ConvNorm, NormFactory, append_coords, convolutions, group_norm, upsample2

COORD_CHANNELS = 2
INIT_STD = 0.01


class MaskBranch(nn.Module):
    """Brings every pyramid level to stride 4, adds them up and projects the sum.

    Args:
        in_channels: channels of the pyramid.
        mid_channels: channels while up-sampling, a multiple of 32.
        out_channels: mask-feature channels E, a multiple of 32.
        levels: pyramid levels used, from p2 up.
        dcn: its convolutions, the last 1×1 too, are deformable.
        coords: the last level is given coordinates.
        norm: makes the normalisation for a number of channels.
        refinements: residual blocks of two 3×3 convolutions over the sum. The paper has none: its sum meets only
            a 1×1 convolution, so that no level sees at stride 4 what the others add.
    """

    def __init__(
        self,
        in_channels: int = 256,
        mid_channels: int = 128,
        out_channels: int = 256,
        levels: int = 4,
        *,
        refinements: int = 0,
        dcn: bool = False,
        coords: bool = True,
        norm: NormFactory = group_norm,
    ) -> None:
        super().__init__()

        def conv(in_channels: int, out_channels: int, kernel_size: int) -> ConvNorm:
            activation = nn.ReLU(inplace=True)
            version: Literal[0, 2] = 2 if dcn else 0
            return ConvNorm(
                in_channels, out_channels, kernel_size, norm=norm, activation=activation, dcn=version, dcn_bias=True
            )

        self.coords = coords
        self.levels = nn.ModuleList()
        for level in range(levels):
            first = in_channels + (COORD_CHANNELS if coords and level == levels - 1 else 0)
            sizes = [first] + [mid_channels] * max(level - 1, 0)
            self.levels.append(nn.ModuleList(conv(size, mid_channels, 3) for size in sizes))
        self.refinements = nn.ModuleList(
            nn.Sequential(conv(mid_channels, mid_channels, 3), conv(mid_channels, mid_channels, 3))
            for _ in range(refinements)
        )
        self.output = conv(mid_channels, out_channels, 1)
        for module in convolutions(self):
            nn.init.normal_(module.weight, std=INIT_STD)

    def forward(self, *pyramid: Tensor) -> Tensor:
        """Maps p2..p5 to mask features (B, E, H/4, W/4)."""
        maps = list(pyramid)
        if self.coords:
            maps[-1] = append_coords(maps[-1])
        total: Tensor | None = None
        for level, (convs, x) in enumerate(zip(self.levels, maps, strict=True)):
            assert isinstance(convs, nn.ModuleList)
            for conv in convs:
                # p2 is at stride 4 already; level i takes as many doublings to get there
                x = upsample2(conv(x)) if level else conv(x)
            total = x if total is None else total + x
        for refine in self.refinements:
            total = total + refine(total)
        mask_features: Tensor = self.output(total)
        return mask_features
