"""Masks at the pictures' own sizes, resized in the graph: what :mod:`solov2.paste` does, for a batch.

Both of its bilinear steps are sums of rows, and so is one after the other: along each axis a mask is multiplied
with a matrix, whose rows have four values that are not zero at most. Taps are found with whole numbers, as run
times differ in what they make of float64.

Letters: B images, N rows of the result, F instances of the picture with most of them, h, w mask grid, R rows or
columns of the largest picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from solov2.export.graph import ExportGraph, Rows


class PictureGraph(nn.Module):
    """An :class:`~solov2.export.graph.ExportGraph` with masks at the pictures' sizes beside those on the grid.

    Args:
        graph: that finds the instances.
    """

    def __init__(self, graph: ExportGraph) -> None:
        super().__init__()
        self.whole = graph  # the name "graph" is taken in modules that are traced

    def forward(self, images: Tensor, sizes: Tensor, originals: Tensor) -> tuple[Tensor, ...]:
        """From bytes to rows and masks.

        Args:
            images: as for the graph.
            sizes: as for the graph.
            originals: (B, 2) int64, height and width of each picture before it was resized, at least 1.

        Returns:
            The members of :class:`~solov2.export.graph.Rows`, then what :func:`picture_masks` gives.
        """
        rows = Rows(*self.whole(images, sizes))
        padded_hw = images.shape[1], images.shape[2]
        return (*rows, picture_masks(rows, sizes, originals, padded_hw, self.whole.options["mask_threshold"]))


def picture_masks(rows: Rows, sizes: Tensor, originals: Tensor, padded_hw: tuple[int, int], threshold: float) -> Tensor:
    """Brings masks to the pictures' sizes and thresholds them.

    Args:
        rows: with masks on the grid.
        sizes: (B, 2), height and width of each picture in the input.
        originals: (B, 2), height and width of each picture itself.
        padded_hw: of the input.
        threshold: probabilities must exceed it, 0..1.

    Returns:
        (B, F, height, width) bool of the largest height and width; at least one row, and nothing outside a picture.
    """
    count = _number(rows.counts)
    masks = rows.masks[:, :count]
    batch, _, height, width = masks.shape
    down = _matrix(height, padded_hw[0], sizes[:, 0], originals[:, 0])  # (B, R, h)
    across = _matrix(width, padded_hw[1], sizes[:, 1], originals[:, 1])  # (B, R, w)
    tall = torch.bmm(down, masks.permute(0, 2, 1, 3).reshape(batch, height, count * width))  # (B, R, F * w)
    tall = tall.reshape(batch, down.shape[1] * count, width)
    pasted = torch.bmm(tall, across.mT).reshape(batch, down.shape[1], count, across.shape[1])
    return (pasted > threshold).permute(0, 2, 1, 3)  # (B, rows, F, columns) -> (B, F, rows, columns)


class _Taps(NamedTuple):
    """As those of :mod:`solov2.paste`: output = (1 - weight) * input[low] + weight * input[high]."""

    low: Tensor
    high: Tensor
    weight: Tensor


def _matrix(grid: int, padded: int, resized: Tensor, original: Tensor) -> Tensor:
    """What an axis of the mask grid is multiplied with: (B, R, grid), rows beyond a picture's end zero."""
    rows = torch.arange(_number(original), device=original.device)
    resized, original = resized[:, None], original[:, None]
    outer = _taps(rows, resized, original)  # (B, R)
    low, high = (_rows_of(_taps(tap, grid, padded), grid) for tap in (outer.low, outer.high))
    weight = outer.weight[:, :, None]
    inside = (rows < original)[:, :, None]
    return ((1 - weight) * low + weight * high) * inside


def _taps(rows: Tensor, size_in: Tensor | int, size_out: Tensor | int) -> _Taps:
    """Taps of output rows with half-pixel centres and clamped borders."""
    # (row + 0.5) * size_in / size_out - 0.5, times 2 * size_out
    position = ((2 * rows + 1) * size_in - size_out).clamp(min=0)
    last = size_in - 1
    low = _at_most(torch.div(position, 2 * size_out, rounding_mode="floor"), last)
    weight = (position - low * 2 * size_out).float() / (2 * size_out)
    return _Taps(low, _at_most(low + 1, last), weight)


def _rows_of(taps: _Taps, grid: int) -> Tensor:
    """A blend's weights as rows of a matrix: (B, R) to (B, R, grid)."""
    columns = torch.arange(grid, device=taps.low.device)
    low, high = (columns == tap[:, :, None] for tap in (taps.low, taps.high))
    weight = taps.weight[:, :, None]
    return (1 - weight) * low + weight * high


def _at_most(values: Tensor, limit: Tensor | int) -> Tensor:
    return torch.minimum(values, limit) if isinstance(limit, Tensor) else values.clamp(max=limit)


def _number(values: Tensor) -> int:
    """The largest value, at least 1, as a size."""
    number: int = values.amax(dim=0).clamp(min=1).item()  # type: ignore[assignment]
    torch._check(number >= 1)  # type: ignore[no-untyped-call]  # for the exporter, to which it is an unknown number
    return number
