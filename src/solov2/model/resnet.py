"""ResNet: a picture becomes four maps c2..c5 at strides 4, 8, 16, 32.

He et al., "Deep Residual Learning"; the variants are those of He et al., "Bag of Tricks":

====== ==================== ==================== =================================
name   stem                 stride of bottleneck shortcut where the size halves
====== ==================== ==================== =================================
a      one 7×7, stride 2    on its first 1×1     1×1, stride 2
b      one 7×7, stride 2    on its 3×3           1×1, stride 2
c      three 3×3            on its 3×3           1×1, stride 2
d      three 3×3            on its 3×3           2×2 average, then 1×1
====== ==================== ==================== =================================
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from solov2.model.layers import ConvNorm, FrozenBatchNorm2d, NormFactory

Variant = Literal["a", "b", "c", "d"]

STEM_CHANNELS = 64
STAGE_WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALLEST_BOTTLENECK_DEPTH = 50


class Shortcut(nn.Sequential):
    """The projection beside a block whose input and output differ in shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, variant: Variant, norm: NormFactory) -> None:
        average = variant == "d" and stride > 1
        super().__init__(
            # ceil_mode keeps the last row and column of maps with odd sides
            nn.AvgPool2d(stride, stride, ceil_mode=True) if average else nn.Identity(),
            ConvNorm(in_channels, out_channels, 1, stride=1 if average else stride, norm=norm),
        )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, *, project: bool, variant: Variant, norm: NormFactory
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, width, 3, stride=stride, norm=norm, activation=nn.ReLU(inplace=True))
        self.conv2 = ConvNorm(width, width, 3, norm=norm)
        self.shortcut = Shortcut(in_channels, width, stride, variant, norm) if project else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, width, h / stride, w / stride)."""
        out: Tensor = self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, *, project: bool, variant: Variant, norm: NormFactory
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        stride1, stride2 = (stride, 1) if variant == "a" else (1, stride)
        self.conv1 = ConvNorm(in_channels, width, 1, stride=stride1, norm=norm, activation=nn.ReLU(inplace=True))
        self.conv2 = ConvNorm(width, width, 3, stride=stride2, norm=norm, activation=nn.ReLU(inplace=True))
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm)
        self.shortcut = Shortcut(in_channels, out_channels, stride, variant, norm) if project else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, 4 * width, h / stride, w / stride)."""
        out: Tensor = self.activation(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Backbone with four stages.

    Args:
        depth: 18, 34, 50, 101 or 152.
        variant: see the table above.
        freeze_at: the stem and the stages up to this index (0..3) are not trained; -1 freezes none.
            Their batch norms still follow ``freeze_norm`` alone.
        freeze_norm: batch norm uses stored statistics and is not trained.
        project_first: the first block of the first stage has a projection although its shapes agree;
            PaddleDetection's ResNet-18 and -34 have it, torchvision's do not.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        depth: int = 50,
        *,
        variant: Variant = "b",
        freeze_at: int = 0,
        freeze_norm: bool = True,
        project_first: bool = True,
    ) -> None:
        super().__init__()
        block = Bottleneck if depth >= SMALLEST_BOTTLENECK_DEPTH else BasicBlock
        norm: NormFactory = FrozenBatchNorm2d if freeze_norm else nn.BatchNorm2d
        self.channels = tuple(width * block.expansion for width in STAGE_WIDTHS)

        self.stem = _stem(variant, norm)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        in_channels = STEM_CHANNELS
        for stage, (width, blocks) in enumerate(zip(STAGE_WIDTHS, BLOCKS[depth], strict=True)):
            layers: list[nn.Module] = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                project = index == 0 and (stage > 0 or project_first or in_channels != width * block.expansion)
                layers.append(block(in_channels, width, stride, project=project, variant=variant, norm=norm))
                in_channels = width * block.expansion
            self.stages.append(nn.Sequential(*layers))
        _initialize(self)
        for part in [self.stem, *self.stages][: freeze_at + 2 if freeze_at >= 0 else 0]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, 3, H, W) to c2..c5, (B, channels[i], H / strides[i], W / strides[i])."""
        x = self.pool(self.stem(images))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _stem(variant: Variant, norm: NormFactory) -> nn.Sequential:
    deep = variant in ("c", "d")
    sizes = (3, STEM_CHANNELS // 2, STEM_CHANNELS // 2, STEM_CHANNELS) if deep else (3, STEM_CHANNELS)
    kernel_size = 3 if deep else 7
    return nn.Sequential(
        *(
            ConvNorm(
                before, after, kernel_size, stride=2 if index == 0 else 1, norm=norm, activation=nn.ReLU(inplace=True)
            )
            for index, (before, after) in enumerate(pairwise(sizes))
        )
    )


def _initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
