"""ShuffleNetV2: a picture becomes four maps c2..c5 at strides 4, 8, 16, 32, cheaply.

Ma et al., "ShuffleNet V2", width 1.0, with leaky ReLU as in NanoDet-Plus; without the classifier's
last 1×1 convolution. c2 is the stem's map, after its max-pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solov2.model.layers import ConvNorm, FrozenBatchNorm2d, NormFactory, initialize_leaky, leaky_relu

STEM_CHANNELS = 24
STAGE_CHANNELS = (116, 232, 464)
STAGE_BLOCKS = (4, 8, 4)


class ShuffleBlock(nn.Module):
    """Half of the channels pass, half are convolved, then both are interleaved.

    Args:
        in_channels: channels in.
        out_channels: channels out, even; equal to ``in_channels`` at stride 1.
        stride: 1, or 2: then both halves see the whole input and are convolved.
        norm: makes the normalisation for a number of channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: NormFactory) -> None:
        super().__init__()
        half = out_channels // 2
        self.branch1 = (
            nn.Sequential(
                ConvNorm(in_channels, in_channels, 3, stride=stride, groups=in_channels, norm=norm),
                ConvNorm(in_channels, half, 1, norm=norm, activation=leaky_relu()),
            )
            if stride > 1
            else None
        )
        self.branch2 = nn.Sequential(
            ConvNorm(in_channels if stride > 1 else half, half, 1, norm=norm, activation=leaky_relu()),
            ConvNorm(half, half, 3, stride=stride, groups=half, norm=norm),
            ConvNorm(half, half, 1, norm=norm, activation=leaky_relu()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h / stride, w / stride)."""
        if self.branch1 is None:
            passed, convolved = x.chunk(2, dim=1)
            halves = (passed, self.branch2(convolved))
        else:
            halves = (self.branch1(x), self.branch2(x))
        return torch.stack(halves, dim=2).flatten(1, 2)  # (B, half, 2, h, w) -> interleaved channels


class ShuffleNetV2(nn.Module):
    """Backbone of 0.8 M parameters.

    Args:
        freeze_at: 0 freezes the stem, 1..3 also that many stages; -1 trains everything.
        freeze_norm: batch norm uses stored statistics and is not trained.
    """

    strides = (4, 8, 16, 32)
    channels = (STEM_CHANNELS, *STAGE_CHANNELS)

    def __init__(self, *, freeze_at: int = -1, freeze_norm: bool = False) -> None:
        super().__init__()
        norm: NormFactory = FrozenBatchNorm2d if freeze_norm else nn.BatchNorm2d
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2, norm=norm, activation=leaky_relu())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        in_channels = STEM_CHANNELS
        for out_channels, blocks in zip(STAGE_CHANNELS, STAGE_BLOCKS, strict=True):
            first = ShuffleBlock(in_channels, out_channels, 2, norm)
            rest = (ShuffleBlock(out_channels, out_channels, 1, norm) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *rest))
            in_channels = out_channels
        initialize_leaky(self)
        for part in [self.stem, *self.stages][: freeze_at + 1]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 3, H, W) to c2..c5, (B, channels[i], H / strides[i], W / strides[i])."""
        x = self.pool(self.stem(images))
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)
