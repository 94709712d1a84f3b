"""Feature pyramid: c2..c5 become p2..p5 and, by plain subsampling, further levels.

Lin et al., "Feature Pyramid Networks": no normalisation, no activation.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Top-down pathway with lateral connections.

    Args:
        in_channels: channels of c2..c5.
        channels: channels of every pyramid level.
        extra_levels: levels above the last one, each taking every second row and column.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int = 256, extra_levels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.extra_levels = extra_levels
        self.laterals = nn.ModuleList(nn.Conv2d(size, channels, 1) for size in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in (*self.laterals, *self.outputs):
            _initialize(conv)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Maps c2..c5 to p2..p5 and the extra levels, each (B, channels, H / stride, W / stride)."""
        merged = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + F.interpolate(merged[level], scale_factor=2.0, mode="nearest")
        pyramid = [output(feature) for output, feature in zip(self.outputs, merged, strict=True)]
        for _ in range(self.extra_levels):
            # Every second row and column; said as pooling, as OpenVINO takes such a slice for one of the same size.
            pyramid.append(F.max_pool2d(pyramid[-1], 1, stride=2))
        return tuple(pyramid)


def _initialize(conv: nn.Module) -> None:
    # Xavier with fan_out taken equal to fan_in, the numbers PaddleDetection gives its necks: limits
    # sqrt(6 / (2 * c_in)) for the laterals and sqrt(6 / (2 * 9 * c)) for the outputs.
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    fan = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    limit = (6 / (2 * fan)) ** 0.5
    nn.init.uniform_(conv.weight, -limit, limit)
    nn.init.zeros_(conv.bias)
