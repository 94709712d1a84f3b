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

from solov2.structures import Frame, Instances, crop_to_extent, extent_of

BLOCK_ELEMENTS = 2**15
"""Pixels computed at a time on a CPU: what they need stays in its cache, and PyTorch shares none of it out to several
threads, which would wait for each other a thousand times a picture."""

GPU_BLOCK_ELEMENTS = 2**24
"""Pixels computed at a time elsewhere: few calls, and an end to the memory of a very large picture."""

Window = tuple[int, int]
"""First and last plus one row, or column, of the picture."""


@dataclass(frozen=True, slots=True)
class _Taps:
    """One bilinear step along one axis: output = (1 - weight) * input[low] + weight * input[high]."""

    low: Tensor
    high: Tensor
    weight: Tensor
    rest: Tensor

    @classmethod
    def of(cls, size_in: int, size_out: int, device: torch.device) -> _Taps:
        """Taps of all output rows, with half-pixel centres and clamped borders."""
        rows = torch.arange(size_out, dtype=torch.float64)
        position = ((rows + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
        low = position.long().clamp(max=size_in - 1)
        weight = (position - low).float()[:, None]
        taps = (low, (low + 1).clamp(max=size_in - 1), weight, 1 - weight)
        return cls(*(value.to(device) for value in taps))

    def cut(self, rows: slice, first: int) -> _Taps:
        """Taps of some output rows, into an input that begins with row ``first``."""
        return _Taps(self.low[rows] - first, self.high[rows] - first, self.weight[rows], self.rest[rows])

    def at(self, rows: Tensor) -> _Taps:
        return _Taps(self.low[rows], self.high[rows], self.weight[rows], self.rest[rows])

    def blend(self, x: Tensor) -> Tensor:
        """Output rows from input rows."""
        low = x.index_select(0, self.low).mul_(self.rest)
        return low.add_(x.index_select(0, self.high).mul_(self.weight))


class _Axis:
    """Both bilinear steps along one axis of a frame, with all that they need computed once.

    Args:
        grid: cells of the mask grid along the axis.
        padded: pixels of the padded input.
        resized: pixels of the picture in it.
        original: pixels of the picture as it was given.
        device: of the masks.
    """

    def __init__(self, grid: int, padded: int, resized: int, original: int, device: torch.device) -> None:
        self.grid = grid
        self.sizes = (padded, resized, original)
        cpu = torch.device("cpu")
        inner, outer = _Taps.of(grid, padded, cpu), _Taps.of(resized, original, cpu)
        # On the host, so that finding out what a window needs never waits for a device.
        self._inner_ends = inner.low.numpy(), inner.high.numpy()
        self._outer_ends = outer.low.numpy(), outer.high.numpy()
        self._inner, self._outer = (
            _Taps(*(value.to(device) for value in (taps.low, taps.high, taps.weight, taps.rest)))
            for taps in (inner, outer)
        )

    def needed(self, window: Window) -> slice:
        """Cells of the mask grid that a window of the picture is made from."""
        pixels = self._pixels(window)
        low, high = self._inner_ends
        return slice(int(low[pixels.start]), int(high[pixels.stop - 1]) + 1)

    def apply(self, x: Tensor, window: Window) -> Tensor:
        """Rows of a window, from the :meth:`needed` rows of the mask grid; the window is not empty."""
        _, resized, original = self.sizes
        cells, pixels, rows = self.needed(window), self._pixels(window), slice(*window)
        if resized == original:  # the second step would take every row as it is
            return self._inner.cut(pixels, cells.start).blend(x)
        if resized < 2 * original:
            between = self._inner.cut(pixels, cells.start).blend(x)
            return self._outer.cut(rows, pixels.start).blend(between)
        # The picture is much smaller than the input: most rows between the steps would not be asked for.
        outer, everything = self._outer.cut(rows, 0), slice(None)
        low = self._inner.at(outer.low).cut(everything, cells.start).blend(x)
        high = self._inner.at(outer.high).cut(everything, cells.start).blend(x)
        return low.mul_(outer.rest).add_(high.mul_(outer.weight))

    def reach(self, first: int, stop: int) -> Window:
        """Rows of the picture that grid rows from ``first`` to before ``stop`` can bring over the threshold."""
        # A blend exceeds the threshold only if one of its taps does, and taps are at most one row of
        # their own resolution away; one row of the picture more on both sides absorbs the rounding.
        padded, resized, original = self.sizes
        to_original = original / resized
        begins = ((first - 0.5) * padded / self.grid - 1) * to_original - 1
        ends = ((stop + 0.5) * padded / self.grid + 1) * to_original + 1
        end = min(int(np.ceil(ends)), original)
        return min(max(int(begins), 0), end), end  # begins where it ends for a mask that lies in the padding

    def _pixels(self, window: Window) -> slice:
        if self.sizes[1] == self.sizes[2]:
            return slice(*window)
        low, high = self._outer_ends
        return slice(int(low[window[0]]), int(high[window[1] - 1]) + 1)


class Paster:
    """Pastes the masks of one picture.

    Args:
        grid_hw: size of the mask grid.
        frame: where the picture lies in the input.
        device: of the masks.
        threshold: probabilities must exceed it.
    """

    def __init__(self, grid_hw: tuple[int, int], frame: Frame, device: torch.device, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._rows, self._columns = (
            _Axis(*sizes, device)
            for sizes in zip(grid_hw, frame.padded_hw, frame.resized_hw, frame.original_hw, strict=True)
        )

    def mask(self, probs: Tensor) -> tuple[tuple[int, int, int, int], npt.NDArray[np.bool_]]:
        """One mask, as :func:`paste_mask` gives it."""
        above = (probs > self.threshold).cpu().numpy()
        extent = extent_of(above)
        if extent is None:
            return crop_to_extent(above)
        rows, columns = self._rows.reach(*extent[0]), self._columns.reach(*extent[1])
        return crop_to_extent(self.region(probs, rows, columns), (columns[0], rows[0]))

    def region(self, probs: Tensor, rows: Window, columns: Window) -> npt.NDArray[np.bool_]:
        """A window of the picture, as :func:`paste_region` gives it."""
        height, width = rows[1] - rows[0], columns[1] - columns[0]
        if height <= 0 or width <= 0:
            return np.zeros((max(height, 0), max(width, 0)), bool)
        # Rows first: on the mask grid's few columns that costs next to nothing.
        strip = self._rows.apply(probs[self._rows.needed(rows), self._columns.needed(columns)], rows)
        lines = strip.T.contiguous()  # (rows, cells) -> (cells, rows): the second step, too, blends whole lines
        first = self._columns.needed(columns).start
        mask = torch.empty((width, height), dtype=torch.bool, device=probs.device)
        step = max((BLOCK_ELEMENTS if probs.device.type == "cpu" else GPU_BLOCK_ELEMENTS) // height, 1)
        for start in range(columns[0], columns[1], step):
            block = (start, min(start + step, columns[1]))
            cells = self._columns.needed(block)
            pasted = self._columns.apply(lines[cells.start - first : cells.stop - first], block)
            torch.gt(pasted, self.threshold, out=mask[block[0] - columns[0] : block[1] - columns[0]])
        found: npt.NDArray[np.bool_] = mask.cpu().numpy().T
        return found


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
    pasted, paster = [], None
    for mask_probs in probs:
        if paster is None:
            paster = Paster((mask_probs.shape[0], mask_probs.shape[1]), frame, mask_probs.device, threshold)
        pasted.append(paster.mask(mask_probs))
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
    return Paster((probs.shape[0], probs.shape[1]), frame, probs.device, threshold).mask(probs)


def paste_region(
    probs: Tensor, frame: Frame, rows: Window, columns: Window, threshold: float = 0.5
) -> npt.NDArray[np.bool_]:
    """The resized mask in a window of the picture.

    Args:
        probs: (h, w) mask probabilities, float32.
        frame: where the picture lies in the input.
        rows: of the window.
        columns: of the window.
        threshold: probabilities must exceed it.

    Returns:
        Boolean (rows, columns).
    """
    return Paster((probs.shape[0], probs.shape[1]), frame, probs.device, threshold).region(probs, rows, columns)
