"""The small parts the network is made of.

Letters: B images, X channels, E mask-feature channels, P kernels, h, w height and width of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solov2.model.deform import DeformConv2d

NORM_GROUPS = 32
"""Channel groups of every group norm in the heads (SOLOv2 paper's released settings)."""

LEAKY_SLOPE = 0.1
"""Of the leaky ReLUs in NanoDet-Plus's parts: ShuffleNetV2, the ghost neck and the separable towers."""

NormFactory = Callable[[int], nn.Module]

DcnVersion = Literal[1, 2]


class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with stored statistics in training too, whose scale and shift are learned."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.eval()  # at once: a network that was just built is trained without being told so

    def train(self, mode: bool = True) -> EvalBatchNorm2d:
        """Stays in evaluation mode whatever is asked of the network around it."""
        return super().train(False)


class FrozenBatchNorm2d(EvalBatchNorm2d):
    """Batch norm that is only ever an affine map: stored statistics in training too, nothing learned."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that is to share its statistics over devices: plain until :func:`share_batch_norm` replaces it."""


def share_batch_norm(network: nn.Module) -> int:
    """Puts torch's synchronised batch norm in the place of every :class:`SharedBatchNorm2d`.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SharedBatchNorm2d):
                shared = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                setattr(parent, name, shared)
                replaced += 1
    return replaced


def freeze(network: nn.Module, names: Iterable[str]) -> None:
    """Keeps parts of a network as they are: nothing in them is learned, and their batch norms use stored statistics.

    Args:
        network: whose parts they are.
        names: of its modules, dotted.

    Raises:
        AttributeError: if there is no such part.
    """
    for name in names:
        part = network.get_submodule(name)
        part.requires_grad_(False)
        for parent in list(part.modules()):
            for child_name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d) and not isinstance(child, FrozenBatchNorm2d):
                    frozen = FrozenBatchNorm2d(child.num_features)
                    frozen.load_state_dict(child.state_dict())
                    setattr(parent, child_name, frozen)


def group_norm(channels: int) -> nn.GroupNorm:
    """The heads' normalisation: 32 groups, eps 1e-5."""
    return nn.GroupNorm(NORM_GROUPS, channels)


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, activation.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel; the padding keeps the size at stride 1.
        stride: step in pixels.
        groups: channel groups of the convolution.
        norm: makes the normalisation for a number of channels.
        activation: follows the normalisation; none by default.
        dcn: version of deformable convolution to use instead; 0 for a plain one.
        dcn_bias: a deformable convolution has a bias, as in PaddleDetection's heads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: NormFactory,
        activation: nn.Module | None = None,
        dcn: DcnVersion | Literal[0] = 0,
        dcn_bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d | DeformConv2d
        if dcn:
            self.conv = DeformConv2d(
                in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=dcn_bias, modulated=dcn == 2
            )
        else:
            self.conv = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
            )
        self.depthwise = groups == in_channels > 1
        self.norm = norm(out_channels)
        self.activation = activation if activation is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h / stride, w / stride)."""
        out: Tensor = self.activation(self.norm(self._convolve(x)))
        return out

    def _convolve(self, x: Tensor) -> Tensor:
        if self.depthwise and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # The gradient of a depthwise convolution is several times slower in bfloat16 than in float32 there.
            with torch.autocast("cpu", enabled=False):
                out: Tensor = self.conv(x.float())
        else:
            out = self.conv(x)
        return out


def convolutions(network: nn.Module) -> Iterator[nn.Conv2d | DeformConv2d]:
    """Every convolution to be given random weights; those that find offsets start at zero and stay out."""
    offsets = {module.offset for module in network.modules() if isinstance(module, DeformConv2d)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | DeformConv2d) and module not in offsets:
            yield module


def leaky_relu() -> nn.Module:
    """Leaky ReLU with NanoDet-Plus's slope."""
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def initialize_leaky(network: nn.Module) -> None:
    """Random weights for convolutions that leaky ReLUs follow (He et al., "Delving Deep into Rectifiers")."""
    for module in convolutions(network):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE, mode="fan_out", nonlinearity="leaky_relu")


class DropBlock(nn.Module):
    """Drops square blocks of a map while training and rescales what is left.

    Ghiasi et al., "DropBlock", with one draw per image and channel.

    Args:
        block_size: side of a block in cells, odd.
        keep_prob: share of the map that is kept on average, 0..1.
    """

    def __init__(self, block_size: int = 3, keep_prob: float = 0.9) -> None:
        super().__init__()
        self.block_size = block_size
        self.keep_prob = keep_prob

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, X, h, w) to the same shape; the identity in evaluation mode."""
        if not self.training:
            return x
        return drop_block(x, torch.rand(x.shape, device=x.device), self.block_size, self.keep_prob)


def drop_block(x: Tensor, draw: Tensor, block_size: int, keep_prob: float) -> Tensor:
    """DropBlock with its random numbers given.

    Args:
        x: (B, X, h, w).
        draw: the same shape, uniform in 0..1, float32.
        block_size: side of a block in cells, odd.
        keep_prob: share of the map that is kept on average, 0..1.

    Returns:
        The map with blocks set to zero, scaled by numel / kept so that its mean stays.
    """
    height, width = x.shape[-2:]
    # A seed drops block_size² cells, and seeds near the border drop fewer: hence the two corrections.
    seeds_per_cell = (1 - keep_prob) / block_size**2
    seeds_per_cell *= height / (height - block_size + 1) * width / (width - block_size + 1)
    seeds = (draw < seeds_per_cell).float()
    keep = 1 - F.max_pool2d(seeds, block_size, stride=1, padding=block_size // 2)
    return (x * keep * (keep.numel() / keep.sum().clamp(min=1))).to(x.dtype)


def append_coords(x: Tensor) -> Tensor:
    """Appends a map of x and a map of y positions, each from -1 to 1 (SOLOv2 paper, section 3.2).

    Args:
        x: (B, X, h, w).

    Returns:
        (B, X + 2, h, w); channel X varies along columns, channel X + 1 along rows.
    """
    batch, _, height, width = x.shape
    xs = _coordinates(width, x).expand(batch, 1, height, width)
    ys = _coordinates(height, x)[:, None].expand(batch, 1, height, width)
    return torch.cat([x, xs, ys], dim=1)


def _coordinates(size: int, like: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return torch.linspace(-1, 1, size, device=like.device, dtype=like.dtype)
    # Where a graph is exported linspace would fix the size for good; the same to the last bits, -1 for a single cell.
    steps = torch.arange(size, device=like.device, dtype=torch.float32)
    return (steps / steps[-1:].clamp(min=1) * 2 - 1).to(like.dtype)


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """The dynamic 1×1 convolution: one mask per kernel (SOLOv2 paper, section 3.2.1).

    Args:
        kernels: (P, E).
        mask_features: (E, h, w) of one image.

    Returns:
        Mask logits (P, h, w).
    """
    height, width = mask_features.shape[-2:]
    return (kernels @ mask_features.flatten(1)).reshape(-1, height, width)


def resize(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres, no antialiasing: (B, X, h, w) to (B, X, *size_hw)."""
    if tuple(x.shape[-2:]) == size_hw:
        return x
    return F.interpolate(x, size_hw, mode="bilinear", align_corners=False)


def upsample2(x: Tensor) -> Tensor:
    """Bilinear, twice the size: (B, X, h, w) to (B, X, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
