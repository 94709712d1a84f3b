"""Deformable convolution, versions 1 and 2: a convolution that looks where its input tells it to.

Dai et al., "Deformable Convolutional Networks"; Zhu et al., "Deformable ConvNets v2". At output position p
and tap t (row r, column c of the kernel)

    y[o, p] = sum over t, x of  W[o, x, t] * factor[t, p] * bilinear(input[x], place[t, p])
    place[t, p] = p * stride - padding + (r, c) * dilation + offset[t, p]

where everything outside the input counts as zero. The same function in three forms, for three purposes:

* as sums of rows (`row_sums.py`), on a CPU: the fast one there.
* by torchvision's kernel, on a CUDA device where torchvision can be imported.
* by `grid_sample`, everywhere else and wherever a graph is exported.

Letters: B images, X input channels, O output channels, T taps, h, w height and width of the output, P = B·h·w.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solov2.model.row_sums import Geometry, by_row_sums, positions


class DeformConv2d(nn.Module):
    """A deformable convolution with the plain one that finds its offsets, which starts at zero.

    Args:
        in_channels: channels X.
        out_channels: channels O.
        kernel_size: side of the kernel.
        stride: step in pixels.
        padding: zeros around the input; by default what keeps the size at stride 1 and dilation 1.
        dilation: distance of neighbouring taps in pixels.
        groups: channel groups of the convolution; the offsets are shared by all of them.
        bias: adds a learned constant per output channel.
        modulated: version 2: each sample also gets a factor in 0..1, 0.5 before training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        modulated: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.geometry = Geometry((kernel_size, kernel_size), stride, padding, dilation)
        self.modulated = modulated
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv2d
        per_tap = 3 if modulated else 2
        self.offset = nn.Conv2d(
            in_channels, per_tap * self.geometry.taps, kernel_size, stride, padding=padding, dilation=dilation
        )
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, X, h, w) to (B, O, h / stride, w / stride)."""
        found = self.offset(x)  # y and x offsets of each tap interleaved, then the factors' logits
        split = 2 * self.geometry.taps
        factors = found[:, split:].sigmoid() if self.modulated else None
        return deform_conv2d(x, self.weight, found[:, :split], factors, self.bias, self.geometry)

    def extra_repr(self) -> str:
        """What print shows."""
        return f"{tuple(self.weight.shape)}, {self.geometry}, modulated={self.modulated}"


def deform_conv2d(
    x: Tensor, weight: Tensor, offsets: Tensor, factors: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Deformable convolution with everything given, in the form that suits the place.

    Args:
        x: (B, X, H, W).
        weight: (O, X / groups, rows, columns).
        offsets: (B, 2 T, h, w) in pixels: y and x of tap 0, of tap 1 ….
        factors: (B, T, h, w), one per sample; None for version 1.
        bias: (O,).
        geometry: of the convolution.

    Returns:
        (B, O, h, w).
    """
    form: Callable[..., Tensor] = by_grid_sample
    exported = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if not exported and x.device.type == "cpu":
        form = by_row_sums
    elif not exported and x.device.type == "cuda":
        form = _torchvision_form() or by_grid_sample
    return form(x, weight, offsets, factors, bias, geometry)


# ---------------------------------------------------------------------------------- by grid_sample


def by_grid_sample(
    x: Tensor, weight: Tensor, offsets: Tensor, factors: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """:func:`deform_conv2d` in plain operations: every tap's samples, then one convolution with stride = kernel."""
    batch, height, width = offsets.shape[0], *offsets.shape[-2:]
    rows, columns = geometry.kernel_hw
    # Those of one picture, undeformed: how many pictures there are stays open where a graph is exported.
    still_ys, still_xs = positions(offsets.new_zeros(1, *offsets.shape[1:]), geometry)  # (1, T, h, w)
    moves = offsets.float().reshape(batch, geometry.taps, 2, height, width)
    ys, xs = still_ys + moves[:, :, 0], still_xs + moves[:, :, 1]  # (B, T, h, w)
    # grid_sample counts from -1, the outer edge of the first pixel, to 1, that of the last: a side of one pixel is
    # no special case then, as it is where it counts from centre to centre.
    grid = torch.stack([(2 * xs + 1) / x.shape[3] - 1, (2 * ys + 1) / x.shape[2] - 1], -1)  # (B, T, h, w, 2)
    grid = grid.reshape(batch, rows, columns, height, width, 2).permute(0, 3, 1, 4, 2, 5)
    grid = grid.reshape(batch, height * rows, width * columns, 2)
    samples = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if factors is not None:
        spread = factors.float().reshape(batch, rows, columns, height, width).permute(0, 3, 1, 4, 2)
        samples = samples * spread.reshape(batch, 1, height * rows, width * columns)
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(samples.to(x.dtype), weight.to(x.dtype), _cast(bias, x.dtype), (rows, columns), groups=groups)


def _cast(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if value is None else value.to(dtype)


@functools.cache
def _torchvision_form() -> Callable[..., Tensor] | None:
    """Returns torchvision's kernel in our signature; None where torchvision cannot be imported."""
    try:
        from torchvision.ops import deform_conv2d as kernel
    except (ImportError, RuntimeError, AttributeError):  # a build for another torch fails in several ways
        return None

    def form(
        x: Tensor, weight: Tensor, offsets: Tensor, factors: Tensor | None, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        # In float32: the kernel computes positions in the format of its input, and does not know bfloat16.
        where = (geometry.stride, geometry.padding, geometry.dilation)
        mask = _cast(factors, torch.float32)
        out: Tensor = kernel(x.float(), offsets.float(), weight.float(), _cast(bias, torch.float32), *where, mask)
        return out.to(x.dtype)

    return form
