"""Assignment: the instances of a picture become labels and masks for grid cells.

SOLOv2 paper, section 3.1, and SOLO's centre regions: an instance belongs to every level whose size
range holds the square root of its box area, and there to the cells around its centre of mass.

Letters: N instances, S cells per side of a square grid, P (cell, instance) pairs, h, w mask grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solov2.structures import BACKGROUND, HW, MASK_STRIDE, LevelAssignment, Targets

REACH = 1
"""A centre region never goes further than this many cells from the centre's own cell."""


@dataclass(frozen=True, slots=True)
class Assigner:
    """What decides which cells an instance trains.

    Attributes:
        grid_sizes: cells per side S, per level; empty: one cell per ``strides`` pixels.
        size_ranges: per level, smallest and largest square root of the box area in pixels of the
            padded input, both inclusive; the ranges overlap on purpose.
        center_scale: sides of the centre region as a share of the box's sides.
        strides: per level, input pixels per cell of grids that are the network's maps themselves.
    """

    grid_sizes: tuple[int, ...]
    size_ranges: tuple[tuple[float, float], ...]
    center_scale: float = 0.2
    strides: tuple[int, ...] = ()

    def __call__(self, targets: Targets) -> list[LevelAssignment]:
        """Assigns one picture's instances, level by level."""
        if self.grid_sizes:
            return assign(targets, self.grid_sizes, self.size_ranges, self.center_scale)
        grids = [self._map_size(targets, stride) for stride in self.strides]
        frames = [(h * s, w * s) for (h, w), s in zip(grids, self.strides, strict=True)]
        return assign(targets, grids, self.size_ranges, self.center_scale, frames)

    @staticmethod
    def _map_size(targets: Targets, stride: int) -> HW:
        height, width = (side * MASK_STRIDE for side in targets.masks.shape[-2:])
        return -(-height // stride), -(-width // stride)


def assign(
    targets: Targets,
    grids: Sequence[int | HW],
    size_ranges: Sequence[tuple[float, float]],
    center_scale: float = 0.2,
    frames: Sequence[HW] = (),
) -> list[LevelAssignment]:
    """Assigns one picture's instances to the cells of every level; on the CPU, in float64.

    Args:
        targets: N instances; those with an empty mask or an empty box train nothing.
        grids: rows and columns per level; one number S for a square grid.
        size_ranges: inclusive (low, high) per level, square root of the box area in pixels.
        center_scale: sides of the centre region as a share of the box's sides.
        frames: per level, the pixels that its grid covers; default: the padded input.

    Returns:
        One assignment per level.
    """
    extents = targets.boxes[:, 2:] - targets.boxes[:, :2]  # (N, 2) width, height
    sizes = extents.clamp(min=0).prod(dim=1).sqrt()
    mask_h, mask_w = targets.masks.shape[-2:]
    frame = (mask_h * MASK_STRIDE, mask_w * MASK_STRIDE)
    visible = ~targets.centers.isnan().any(dim=1)

    levels = []
    for cells_hw, (low, high), level_frame in zip(grids, size_ranges, frames or [frame] * len(grids), strict=True):
        grid = (cells_hw, cells_hw) if isinstance(cells_hw, int) else cells_hw
        chosen = torch.nonzero(visible & (sizes >= low) & (sizes <= high)).flatten()
        first, last = center_cells(targets.centers[chosen], extents[chosen].flip(1), level_frame, grid, center_scale)
        cells, owners = _cells_between(first, last, grid)
        instances = chosen[owners]
        levels.append(LevelAssignment(_labels(targets.labels, cells, instances, grid), cells, instances))
    return levels


def center_cells(
    centers: Tensor, extents: Tensor, frame_hw: HW, grid: HW, center_scale: float
) -> tuple[Tensor, Tensor]:
    """First and last cell of each centre region, at most one cell from the centre's own.

    Args:
        centers: (N, 2) y, x in pixels, float64.
        extents: (N, 2) height, width of the boxes, float64.
        frame_hw: size of what the grid covers, the padded input.
        grid: its rows and columns.
        center_scale: sides of the region as a share of the box's sides.

    Returns:
        Two (N, 2) int64 tensors of (row, column), both inclusive.
    """
    frame = torch.tensor(frame_hw, dtype=torch.float64)
    cell = 1 / torch.tensor(grid, dtype=torch.float64)
    last_cell = torch.tensor(grid) - 1
    half = 0.5 * center_scale * extents

    def cell_of(position: Tensor) -> Tensor:
        # Not floor(position * S): where a position falls on a cell's edge up to rounding, only the
        # same floor division gives the same cell as the published targets.
        share = position / frame
        return torch.div(share, cell, rounding_mode="floor").long()

    center = cell_of(centers)
    first = torch.maximum(cell_of(centers - half).clamp(min=0), center - REACH)
    last = torch.minimum(torch.minimum(cell_of(centers + half), last_cell), center + REACH)
    return first, last


def _cells_between(first: Tensor, last: Tensor, grid: HW) -> tuple[Tensor, Tensor]:
    """All cells of each region in row-major order: (P,) cell indices and (P,) region numbers."""
    steps = torch.arange(2 * REACH + 1)
    rows = first[:, 0, None, None] + steps[:, None]  # (N, 3, 1)
    columns = first[:, 1, None, None] + steps  # (N, 1, 3)
    inside = (rows <= last[:, 0, None, None]) & (columns <= last[:, 1, None, None])  # (N, 3, 3)
    cells = (rows * grid[1] + columns)[inside]
    owners = torch.nonzero(inside)[:, 0]
    return cells, owners


def _labels(labels: Tensor, cells: Tensor, instances: Tensor, grid: HW) -> Tensor:
    owner = torch.full((grid[0] * grid[1],), BACKGROUND)
    # The largest instance number is the last in the annotation's order; amax is deterministic.
    owner.scatter_reduce_(0, cells, instances, "amax")
    return torch.where(owner == BACKGROUND, BACKGROUND, labels[owner.clamp(min=0)] if len(labels) else BACKGROUND)
