"""Bilinear samples of a map as four weighted pixels each, and their gradients.

Letters: P output pixels of one picture, T taps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Samples(NamedTuple):
    """Where one picture is sampled.

    Attributes:
        ys: rows of the input, (P, T) float32.
        xs: columns, (P, T) float32.
        factors: one per sample, (P, T) float32.
        input_hw: height and width of the input.
    """

    ys: Tensor
    xs: Tensor
    factors: Tensor
    input_hw: tuple[int, int]

    def of_taps(self, taps: slice) -> Samples:
        """The samples of some taps."""
        return Samples(self.ys[:, taps], self.xs[:, taps], self.factors[:, taps], self.input_hw)

    def of_outputs(self, outputs: slice) -> Samples:
        """The samples of some output pixels."""
        return Samples(self.ys[outputs], self.xs[outputs], self.factors[outputs], self.input_hw)

    def corners(self) -> tuple[Tensor, Tensor]:
        """The four pixels around each sample.

        Returns:
            Their numbers in the input, row by row, (P, T, 4) int32, and their weights, (P, T, 4) float32:
            upper left, upper right, lower left, lower right.
        """
        y, x = _Axis.of(self.ys, self.input_hw[0]), _Axis.of(self.xs, self.input_hw[1])
        top, bottom = (index * self.input_hw[1] for index in y.indices)
        left, right = x.indices
        indices = torch.stack([top + left, top + right, bottom + left, bottom + right], -1)
        upper, lower = (weight * self.factors for weight in y.weights)
        before, after = x.weights
        return indices, torch.stack([upper * before, upper * after, lower * before, lower * after], -1)

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradients of the corners' weights, (P, T, 4), to those of ys, xs and factors, (3, P, T)."""
        y, x = _Axis.of(self.ys, self.input_hw[0]), _Axis.of(self.xs, self.input_hw[1])
        upper_left, upper_right, lower_left, lower_right = gradient.unbind(-1)
        before, after = x.weights
        upper = upper_left * before + upper_right * after
        lower = lower_left * before + lower_right * after
        above, below = y.weights
        left = upper_left * above + lower_left * below
        right = upper_right * above + lower_right * below
        of_ys = (lower * y.slopes[1] - upper * y.slopes[0]) * self.factors
        of_xs = (right * x.slopes[1] - left * x.slopes[0]) * self.factors
        return torch.stack([of_ys, of_xs, upper * above + lower * below])


class _Axis(NamedTuple):
    """Two neighbouring pixels along one axis: indices (int32), weights, and what a step of one pixel adds to them.

    A pixel outside has weight and slope zero, and a legal index all the same.
    """

    indices: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]
    slopes: tuple[Tensor, Tensor]

    @staticmethod
    def of(positions: Tensor, size: int) -> _Axis:
        inside = positions.clamp(-1, size)
        floor = inside.floor()
        share = inside - floor
        low = floor.to(torch.int32)
        has_low = ((low >= 0) & (low < size)).to(share.dtype)
        has_high = ((low < size - 1) & (positions > -1)).to(share.dtype)
        indices = low.clamp(0, size - 1), (low + 1).clamp(0, size - 1)
        return _Axis(indices, ((1 - share) * has_low, share * has_high), (has_low, has_high))
