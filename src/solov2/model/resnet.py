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

With groups it is ResNeXt (Xie et al., "Aggregated Residual Transformations"), 64x4d being 64 groups of
base width 4. Stages may have deformable 3×3 convolutions: in bottlenecks the one, in basic blocks the second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from solov2.model.layers import ConvNorm, DcnVersion, FrozenBatchNorm2d, NormFactory, convolutions

Variant = Literal["a", "b", "c", "d"]

STEM_CHANNELS = 64
STAGE_WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALLEST_BOTTLENECK_DEPTH = 50


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """What all blocks of a stage have in common.

    Attributes:
        variant: see the table above.
        norm: makes the normalisation for a number of channels.
        groups: channel groups of a bottleneck's 3×3.
        base_width: channels of one group where the stage's width is 64.
        dcn: version of deformable convolution; 0 for plain ones.
    """

    variant: Variant
    norm: NormFactory
    groups: int = 1
    base_width: int = 64
    dcn: DcnVersion | Literal[0] = 0


class Shortcut(nn.Sequential):
    """The projection beside a block whose input and output differ in shape."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, style: BlockStyle) -> None:
        average = style.variant == "d" and stride > 1
        super().__init__(
            # ceil_mode keeps the last row and column of maps with odd sides
            nn.AvgPool2d(stride, stride, ceil_mode=True) if average else nn.Identity(),
            ConvNorm(in_channels, out_channels, 1, stride=1 if average else stride, norm=style.norm),
        )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, style: BlockStyle, *, project: bool) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.conv1 = ConvNorm(in_channels, width, 3, stride=stride, norm=style.norm, activation=relu)
        self.conv2 = ConvNorm(width, width, 3, norm=style.norm, dcn=style.dcn)
        self.shortcut = Shortcut(in_channels, width, stride, style) if project else nn.Identity()
        self.activation = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, width, h / stride, w / stride)."""
        out: Tensor = self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, style: BlockStyle, *, project: bool) -> None:
        super().__init__()
        out_channels = width * self.expansion
        inner = width * style.base_width // STAGE_WIDTHS[0] * style.groups
        stride1, stride2 = (stride, 1) if style.variant == "a" else (1, stride)
        norm, relu = style.norm, nn.ReLU(inplace=True)
        self.conv1 = ConvNorm(in_channels, inner, 1, stride=stride1, norm=norm, activation=relu)
        self.conv2 = ConvNorm(
            inner, inner, 3, stride=stride2, groups=style.groups, norm=norm, activation=relu, dcn=style.dcn
        )
        self.conv3 = ConvNorm(inner, out_channels, 1, norm=norm)
        self.shortcut = Shortcut(in_channels, out_channels, stride, style) if project else nn.Identity()
        self.activation = relu

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
            The statistics of their batch norms still follow ``norm`` alone.
        norm: makes the batch norm for a number of channels.
        project_first: the first block of the first stage has a projection although its shapes agree;
            PaddleDetection's ResNet-18 and -34 have it, torchvision's do not.
        groups: channel groups of the bottlenecks' 3×3.
        base_width: channels of one group in the first stage.
        dcn_stages: stages, 0..3, whose 3×3 convolutions are deformable.
        dcn_version: of deformable convolution.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        depth: int = 50,
        *,
        variant: Variant = "b",
        freeze_at: int = 0,
        norm: NormFactory = FrozenBatchNorm2d,
        project_first: bool = True,
        groups: int = 1,
        base_width: int = 64,
        dcn_stages: Collection[int] = (),
        dcn_version: DcnVersion = 2,
    ) -> None:
        super().__init__()
        block = Bottleneck if depth >= SMALLEST_BOTTLENECK_DEPTH else BasicBlock
        self.channels = tuple(width * block.expansion for width in STAGE_WIDTHS)

        self.stem = _stem(variant, norm)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        in_channels = STEM_CHANNELS
        for stage, (width, blocks) in enumerate(zip(STAGE_WIDTHS, BLOCKS[depth], strict=True)):
            layers: list[nn.Module] = []
            style = BlockStyle(variant, norm, groups, base_width, dcn_version if stage in dcn_stages else 0)
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                project = index == 0 and (stage > 0 or project_first or in_channels != width * block.expansion)
                layers.append(block(in_channels, width, stride, style, project=project))
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
    for module in convolutions(network):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
