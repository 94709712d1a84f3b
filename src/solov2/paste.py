"""Pasting: a mask on the mask grid becomes a boolean mask at the picture's size, inside its box.

Two bilinear steps as in the published models: mask grid to padded input, cut to the resized
picture, then to the original picture. Only the rows and columns a mask can reach are computed, and
each pixel by the same arithmetic as if all were: the result does not depend on the box.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solov2.structures import Frame, Instances, crop_to_extent


@dataclass(frozen=True, slots=True)
class _Taps:
    """One bilinear step along one axis: output = (1 - weight) * input[low] + weight * input[high]."""

    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def of(cls, size_in: int, size_out: int, start: int = 0, stop: int | None = None) -> _Taps:
        """Taps of output rows start..stop with half-pixel centres and clamped borders."""
        rows = torch.arange(start, size_out if stop is None else stop, dtype=torch.float64)
        position = ((rows + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
        low = position.long().clamp(max=size_in - 1)
        return cls(low, (low + 1).clamp(max=size_in - 1), (position - low).float())

    def at(self, rows: Tensor) -> _Taps:
        return _Taps(self.low[rows], self.high[rows], self.weight[rows])


def paste_instances(
    probs: Iterable[Tensor],
    labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    frame: Frame,
    threshold: float = 0.5,
) -> Instances:
    """Brings what was decoded to the picture's size.

    Args:
        probs: N times (h, w) mask probabilities, float32; asked for one by one, so that they need not be there at once.
        labels: (N,).
        scores: (N,), best first.
        frame: where the picture lies in the input.
        threshold: probabilities must exceed it.
    """
    pasted = [paste_mask(mask_probs, frame, threshold) for mask_probs in probs]
    return Instances(
        original_hw=frame.original_hw,
        labels=labels,
        scores=scores,
        boxes=np.array([box for box, _ in pasted], np.float32).reshape(-1, 4),
        crops=tuple(crop for _, crop in pasted),
    )


def paste_mask(
    probs: Tensor, frame: Frame, threshold: float = 0.5
) -> tuple[tuple[int, int, int, int], npt.NDArray[np.bool_]]:
    """Resizes one mask to the picture's size and thresholds it.

    Args:
        probs: (h, w) mask probabilities, float32.
        frame: where the picture lies in the input.
        threshold: probabilities must exceed it.

    Returns:
        The tight box x0 y0 x1 y1 in the picture and the boolean mask inside it; zeros and a (0, 0)
        crop when nothing exceeds the threshold.
    """
    above = (probs > threshold).nonzero()
    if len(above) == 0:
        return crop_to_extent(np.zeros((0, 0), bool))
    (top, left), (bottom, right) = above.amin(dim=0).tolist(), above.amax(dim=0).tolist()
    y0, y1 = _reach(top, bottom, probs.shape[0], frame.padded_hw[0], frame.resized_hw[0], frame.original_hw[0])
    x0, x1 = _reach(left, right, probs.shape[1], frame.padded_hw[1], frame.resized_hw[1], frame.original_hw[1])
    return crop_to_extent(paste_region(probs, frame, (y0, y1), (x0, x1), threshold), (x0, y0))


def paste_region(
    probs: Tensor, frame: Frame, rows: tuple[int, int], columns: tuple[int, int], threshold: float = 0.5
) -> npt.NDArray[np.bool_]:
    """The resized mask in a window of the picture.

    Args:
        probs: (h, w) mask probabilities, float32.
        frame: where the picture lies in the input.
        rows: first and last plus one row of the window.
        columns: first and last plus one column of the window.
        threshold: probabilities must exceed it.

    Returns:
        Boolean (rows, columns).
    """
    # Rows first: on the mask grid's few columns that costs next to nothing.
    pasted = _two_steps(probs, frame.padded_hw[0], frame.resized_hw[0], frame.original_hw[0], rows)
    pasted = _two_steps(pasted.T, frame.padded_hw[1], frame.resized_hw[1], frame.original_hw[1], columns).T
    mask: npt.NDArray[np.bool_] = (pasted > threshold).cpu().numpy()
    return mask


def _two_steps(x: Tensor, padded: int, resized: int, original: int, window: tuple[int, int]) -> Tensor:
    """Both bilinear steps along the first axis: (h, w) to (window, w)."""
    outer = _Taps.of(resized, original, *window)
    inner = _Taps.of(x.shape[0], padded)
    low = _blend(x, inner.at(outer.low))
    high = _blend(x, inner.at(outer.high))
    weight = outer.weight[:, None].to(x.device)
    return (1 - weight) * low + weight * high


def _blend(x: Tensor, taps: _Taps) -> Tensor:
    weight = taps.weight[:, None].to(x.device)
    return (1 - weight) * x[taps.low.to(x.device)] + weight * x[taps.high.to(x.device)]


def _reach(first: int, last: int, grid: int, padded: int, resized: int, original: int) -> tuple[int, int]:
    """Rows of the picture that grid rows first..last can bring over the threshold, start and stop."""
    # A blend exceeds the threshold only if one of its taps does, and taps are at most one row of
    # their own resolution away; one row of the picture more on both sides absorbs the rounding.
    to_original = original / resized
    start = ((first - 0.5) * padded / grid - 1) * to_original - 1
    stop = ((last + 1.5) * padded / grid + 1) * to_original + 1
    end = min(int(np.ceil(stop)), original)
    return min(max(int(start), 0), end), end  # start == end for a mask that lies in the padding
