"""Ghost path aggregation: c2..c5 become p2..p6 cheaply, information going down the pyramid and up again.

The neck of NanoDet-Plus: path aggregation (Liu et al., "Path Aggregation Network") whose fusions are
ghost modules (Han et al., "GhostNet"). p2, which masks need and boxes do not, is a projection of c2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solov2.model.layers import ConvNorm, initialize_leaky, leaky_relu, upsample2

KERNEL_SIZE = 5
"""Of the depthwise convolutions outside the ghost modules."""

FROM_C3 = 3
"""Levels that exchange information: c3, c4, c5."""


class GhostModule(nn.Module):
    """A convolution of which half of the maps are cheap functions of the other half.

    Args:
        in_channels: channels in.
        out_channels: channels out, even.
        activated: a leaky ReLU follows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, activated: bool) -> None:
        super().__init__()
        half = out_channels // 2

        def activation() -> nn.Module | None:
            return leaky_relu() if activated else None

        self.primary = ConvNorm(in_channels, half, 1, norm=nn.BatchNorm2d, activation=activation())
        self.cheap = ConvNorm(half, half, 3, groups=half, norm=nn.BatchNorm2d, activation=activation())

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h, w)."""
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)


class GhostBlock(nn.Module):
    """Two ghost modules beside a depthwise separable shortcut.

    Args:
        in_channels: channels in.
        channels: channels out, even.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.expand = GhostModule(in_channels, channels, activated=True)
        self.project = GhostModule(channels, channels, activated=False)
        self.shortcut = nn.Sequential(
            ConvNorm(in_channels, in_channels, KERNEL_SIZE, groups=in_channels, norm=nn.BatchNorm2d),
            ConvNorm(in_channels, channels, 1, norm=nn.BatchNorm2d),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, channels, h, w)."""
        out: Tensor = self.project(self.expand(x)) + self.shortcut(x)
        return out


class GhostPAN(nn.Module):
    """Pyramid of five levels.

    Args:
        in_channels: channels of c2..c5.
        channels: channels of every pyramid level, even.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int = 96) -> None:
        super().__init__()
        self.channels = channels
        self.reduce = nn.ModuleList(
            ConvNorm(size, channels, 1, norm=nn.BatchNorm2d, activation=leaky_relu()) for size in in_channels[-FROM_C3:]
        )
        # From coarse to fine, then from fine to coarse: the order in which they run.
        self.top_down = nn.ModuleList(GhostBlock(2 * channels, channels) for _ in range(FROM_C3 - 1))
        self.bottom_up = nn.ModuleList(GhostBlock(2 * channels, channels) for _ in range(FROM_C3 - 1))
        self.down = nn.ModuleList(separable(channels, stride=2) for _ in range(FROM_C3 - 1))
        self.extra_in = separable(channels, stride=2)
        self.extra_out = separable(channels, stride=2)
        self.finest = ConvNorm(in_channels[0], channels, 1, norm=nn.BatchNorm2d, activation=leaky_relu())
        initialize_leaky(self)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Maps c2..c5 to p2..p6, each (B, channels, H / stride, W / stride); odd sides of p6 are rounded up."""
        c3, c4, c5 = (reduce(x) for reduce, x in zip(self.reduce, features[1:], strict=True))
        n4 = self.top_down[0](torch.cat([upsample2(c5), c4], dim=1))
        p3 = self.top_down[1](torch.cat([upsample2(n4), c3], dim=1))
        p4 = self.bottom_up[0](torch.cat([self.down[0](p3), n4], dim=1))
        p5 = self.bottom_up[1](torch.cat([self.down[1](p4), c5], dim=1))
        p6 = self.extra_in(c5) + self.extra_out(p5)
        return self.finest(features[0]), p3, p4, p5, p6


def separable(channels: int, *, stride: int = 1) -> nn.Sequential:
    """A depthwise 5×5 and a 1×1 convolution, each with batch norm and leaky ReLU."""
    return nn.Sequential(
        ConvNorm(
            channels,
            channels,
            KERNEL_SIZE,
            stride=stride,
            groups=channels,
            norm=nn.BatchNorm2d,
            activation=leaky_relu(),
        ),
        ConvNorm(channels, channels, 1, norm=nn.BatchNorm2d, activation=leaky_relu()),
    )
