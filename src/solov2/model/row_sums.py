"""Deformable convolution on a CPU, forward and backward, as weighted sums of rows.

A map is a table with one row of channels per pixel. A bilinear sample is then a weighted sum of four rows,
which `embedding_bag` reads at the speed of memory; everything else is matrix multiplication.

Letters: B images, X input channels, O output channels, T taps, h, w height and width of the output,
P = h·w output pixels of one picture, R rows of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from solov2.model.samples import Samples


class Geometry(NamedTuple):
    """Where the taps of a convolution lie: kernel (rows, columns), stride, padding and dilation in pixels."""

    kernel_hw: tuple[int, int]
    stride: int
    padding: int
    dilation: int

    @property
    def taps(self) -> int:
        """Taps T of the kernel."""
        return self.kernel_hw[0] * self.kernel_hw[1]


def positions(offsets: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Where each tap samples, rows and columns of the input, (B, T, h, w) each, in float32.

    Half precision would put samples of a large map whole pixels beside their place.
    """
    height, width = offsets.shape[-2:]
    (rows, columns), stride, padding, dilation = geometry
    offsets = offsets.float().reshape(len(offsets), geometry.taps, 2, height, width)  # (B, T, 2, h, w)
    device = offsets.device
    tap_rows = torch.arange(rows, device=device).repeat_interleave(columns) * float(dilation) - padding  # (T,)
    tap_columns = torch.arange(columns, device=device).repeat(rows) * float(dilation) - padding
    down = torch.arange(height, device=device, dtype=torch.float32) * stride
    right = torch.arange(width, device=device, dtype=torch.float32) * stride
    ys = offsets[:, :, 0] + (tap_rows[:, None, None] + down[:, None])
    xs = offsets[:, :, 1] + (tap_columns[:, None, None] + right)
    return ys, xs


def by_row_sums(
    x: Tensor, weight: Tensor, offsets: Tensor, factors: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """:func:`deform_conv2d` as weighted sums of rows of channels; channels-last input saves it a copy."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    height, width = offsets.shape[-2:]
    ys, xs = (_rows(position) for position in positions(offsets, geometry))
    flat = _rows(factors.float()) if factors is not None else torch.ones_like(ys)
    with torch.autocast("cpu", enabled=False):
        out: Tensor = _RowSums.apply(x.to(dtype), weight.to(dtype), ys, xs, flat, geometry)  # type: ignore[no-untyped-call]
        if bias is not None:
            out = out.add_(bias.to(dtype))  # nobody else has it, and its gradient does not need it
    return out.reshape(len(out), height, width, len(weight)).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """(B, X, h, w) to (B, h·w, X), contiguous: a view where the map is channels-last."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


class _RowSums(torch.autograd.Function):
    """Sums of rows, forward and backward, one picture at a time.

    There are two orders. Multiplying first makes, per pixel and tap, one row of output channels, and every
    output pixel is one sum of 4 T of them: no larger map than the plain convolution's. It is for stride 1,
    since it multiplies at every input pixel. Sampling first makes the T samples of every output pixel.
    Nothing but the inputs is kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, ys: Tensor, xs: Tensor, factors: Tensor, geometry: Geometry
    ) -> Tensor:
        """Input (B, X, H, W) and positions (B, h·w, T) to rows (B, h·w, O)."""
        ctx.save_for_backward(x, weight, ys, xs, factors)
        ctx.geometry = geometry
        table, input_hw = _rows(x), (x.shape[2], x.shape[3])
        forward = _multiply_and_sum if _multiplies_first(x, weight, geometry) else _sample_and_multiply
        out = x.new_empty(len(x), ys.shape[1], len(weight))
        for index in range(len(x)):
            samples = Samples(ys[index], xs[index], factors[index], input_hw)
            forward(table[index], weight, samples, out[index])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of everything but the geometry."""
        x, weight, ys, xs, factors = ctx.saved_tensors
        table, input_hw = _rows(x), (x.shape[2], x.shape[3])
        backward = _multiply_and_sum_backward if _multiplies_first(x, weight, ctx.geometry) else _sample_backward
        gradient = gradient.contiguous()
        table_gradient = torch.zeros_like(table)
        weight_gradient = torch.zeros_like(weight)
        of_samples = torch.empty(3, *ys.shape)  # of ys, xs, factors
        for index in range(len(x)):
            samples = Samples(ys[index], xs[index], factors[index], input_hw)
            of_samples[:, index] = backward(
                table[index], weight, samples, gradient[index], table_gradient[index], weight_gradient
            )
        x_gradient = table_gradient.reshape(len(x), *input_hw, x.shape[1]).permute(0, 3, 1, 2)
        return x_gradient, weight_gradient, *of_samples, None


def _multiplies_first(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether rows of output channels are cheaper to move than samples: with stride 1, one group and few outputs."""
    return geometry.stride == 1 and weight.shape[1] == x.shape[1] and len(weight) <= 2 * x.shape[1]


def _multiply_and_sum(table: Tensor, weight: Tensor, samples: Samples, out: Tensor) -> None:
    products = table.new_empty(len(table), weight.shape[3] * len(weight))  # one for all: fresh memory is slow
    for row, (taps, matrix) in enumerate(_by_kernel_row(weight)):
        torch.mm(table, matrix, out=products)
        indices, weights = samples.of_taps(taps).corners()
        sums = _sum_rows(products.view(-1, len(weight)), _of_products(indices), weights)
        out.copy_(sums) if row == 0 else out.add_(sums)


def _multiply_and_sum_backward(
    table: Tensor, weight: Tensor, samples: Samples, gradient: Tensor, table_gradient: Tensor, weight_gradient: Tensor
) -> Tensor:
    of_samples = []
    products = table.new_empty(len(table) * weight.shape[3], len(weight))
    for row, (taps, matrix) in enumerate(_by_kernel_row(weight)):
        some = samples.of_taps(taps)
        indices, weights = some.corners()
        indices = _of_products(indices)
        torch.mm(table, matrix, out=products.view(len(table), -1))
        of_samples.append(some.backward(_dots(products, indices, gradient).view_as(weights)))
        products_gradient = _spread_rows(gradient, indices, weights, len(products)).view(len(table), -1)
        table_gradient.addmm_(products_gradient, matrix.t())
        of_matrix = torch.mm(table.t(), products_gradient)  # (X, columns·O)
        weight_gradient[:, :, row] += of_matrix.view(len(of_matrix), -1, len(weight)).permute(2, 0, 1)
    return torch.cat(of_samples, -1)


def _by_kernel_row(weight: Tensor) -> list[tuple[slice, Tensor]]:
    """Taps of each kernel row, and its weights as a matrix (X, columns·O): all taps at once take too much memory."""
    columns = weight.shape[3]
    return [
        (slice(row * columns, (row + 1) * columns), weight[:, :, row].permute(1, 2, 0).flatten(1))
        for row in range(weight.shape[2])
    ]


def _of_products(indices: Tensor) -> Tensor:
    """Numbers of pixels, (P, columns, 4), to those of their products, which are columns to a pixel."""
    columns = indices.shape[1]
    return indices * columns + torch.arange(columns, dtype=indices.dtype)[:, None]


STRIP_ELEMENTS = 1 << 21
"""Elements of the samples held at once: they stay in the cache until they are multiplied."""


def _sample_and_multiply(table: Tensor, weight: Tensor, samples: Samples, out: Tensor) -> None:
    for strip in _strips(table, samples):
        indices, weights = samples.of_outputs(strip).corners()
        sampled = _as_picture(_sum_rows(table, indices.flatten(0, 1), weights.flatten(0, 1)), weight)
        found = F.conv2d(sampled, weight, stride=weight.shape[2:], groups=table.shape[1] // weight.shape[1])
        out[strip] = found[:, :, 0, 0]


def _sample_backward(
    table: Tensor, weight: Tensor, samples: Samples, gradient: Tensor, table_gradient: Tensor, weight_gradient: Tensor
) -> Tensor:
    of_samples = torch.empty(3, *samples.ys.shape)
    groups, kernel_hw = table.shape[1] // weight.shape[1], list(weight.shape[2:])
    for strip in _strips(table, samples):
        some = samples.of_outputs(strip)
        indices, weights = some.corners()
        indices, flat_weights = indices.flatten(0, 1), weights.flatten(0, 1)  # (p·T, 4)
        sampled = _as_picture(_sum_rows(table, indices, flat_weights), weight)
        of_sampled, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient[strip][:, :, None, None],
            sampled,
            weight,
            None,
            kernel_hw,
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            groups,
            [True, True, False],
        )
        of_sampled = of_sampled.permute(0, 2, 3, 1).reshape(-1, table.shape[1])  # (p·T, X)
        weight_gradient += of_weight
        of_samples[:, strip] = some.backward(_dots(table, indices, of_sampled).view_as(weights))
        first, last = int(indices.min()), int(indices.max())
        table_gradient[first : last + 1] += _spread_rows(of_sampled, indices - first, flat_weights, last - first + 1)
    return of_samples


def _strips(table: Tensor, samples: Samples) -> list[slice]:
    outputs, taps = samples.ys.shape
    step = max(STRIP_ELEMENTS // (taps * table.shape[1]), 1)
    return [slice(start, min(start + step, outputs)) for start in range(0, outputs, step)]


def _as_picture(sampled: Tensor, weight: Tensor) -> Tensor:
    """Samples (p·T, X) as p pictures of the kernel's size, (p, X, rows, columns), channels-last."""
    return sampled.view(-1, *weight.shape[2:], sampled.shape[1]).permute(0, 3, 1, 2)


def _sum_rows(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows: table (R, X), indices and weights (P, …) to (P, X)."""
    return F.embedding_bag(indices.flatten(1), table, per_sample_weights=weights.flatten(1).to(table.dtype), mode="sum")


def _spread_rows(rows: Tensor, indices: Tensor, weights: Tensor, count: int) -> Tensor:
    """The transpose of :func:`_sum_rows`: rows (P, X), each added with its weights to the rows indexed, (count, X).

    Sorting makes it a sum of rows too, which needs no atomic additions.
    """
    per_row = indices[0].numel()
    targets, order = torch.sort(indices.flatten())
    starts = torch.zeros(count + 1, dtype=torch.int32)
    torch.cumsum(torch.bincount(targets, minlength=count), 0, dtype=torch.int32, out=starts[1:])
    sources = (order // per_row).to(torch.int32)
    ordered = weights.flatten()[order].to(rows.dtype)
    return F.embedding_bag(sources, rows, starts, per_sample_weights=ordered, mode="sum", include_last_offset=True)


def _dots(table: Tensor, indices: Tensor, gradient: Tensor) -> Tensor:
    """Dot products of every row indexed with the gradient of its sum, in float32.

    Table (R, X), indices (P, …) and gradient (P, X) to one number per index, (P·…,).
    """
    flat = indices.flatten(1)
    count, per_row = flat.shape
    starts = torch.arange(0, count * per_row, per_row, dtype=flat.dtype)
    bags = torch.arange(count, dtype=flat.dtype).repeat_interleave(per_row)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient.float(), table.float(), flat.flatten(), starts, bags, EMBEDDING_BAG_SUM
    )
    return products


EMBEDDING_BAG_SUM = 0
