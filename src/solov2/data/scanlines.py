"""Polygons become pixels on the mask grid, all of a picture at once.

A scan line is a row of pixel centres. Where outlines cross it is computed for every line of every polygon in one go;
between an odd crossing and the next lies the inside. Such runs are never spelt out as pixels: centres of mass follow
from where they begin and end, and on the mask grid only their ends are entered before one running sum fills them.

N instances, P polygons, V corners, X crossings, R runs; what is (N, 2) or (V, 2) stands in the order x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solov2.structures import HW

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint8]

MIN_CENTRAL = 2
"""How many of the 2×2 central pixels must be set."""

FULL_SAMPLING = 64
"""Extents up to this many pixels are sampled at every pixel, so that small shapes keep their centre."""

CENTER = 0.5
"""Where in a pixel its centre lies."""


@dataclass(frozen=True, slots=True)
class Extents:
    """Which pixels of a picture can belong to each instance.

    Attributes:
        first: (N, 2), the first column and row.
        last: (N, 2), the column and the row after the last; not before the first.
        full: (N, 2), whether columns and rows are sampled at every pixel; else at the central ones.
    """

    first: Ints
    last: Ints
    full: Bools


@dataclass(frozen=True, slots=True)
class Runs:
    """Stretches of sampled rows that belong to instances.

    Attributes:
        instance: (R,) index.
        row: (R,) in pixels.
        begin: (R,) first column.
        end: (R,) the column after the last.
    """

    instance: Ints
    row: Ints
    begin: Ints
    end: Ints


def draw(shapes: Sequence[Sequence[Floats]], hw: HW, masks: Sequence[Bits]) -> Floats:
    """Draws instances, each the union of its polygons.

    Inside is where a ray crosses an outline an odd number of times. A cell is set by :data:`MIN_CENTRAL` of
    its central pixels.

    Args:
        shapes: per instance at least one polygon, each (V, 2) x, y in pixels, pixel centres lying at halves.
        hw: the picture's size; nothing outside it is set.
        masks: per instance (h, w), zeros, at stride 4 of an input at least as large; ones are written into them.

    Returns:
        (N, 2) y, x of the centres of mass of the sampled pixels, as pixel indices; NaN without a pixel.
    """
    if not shapes:
        return np.zeros((0, 2))
    polygons = [polygon for shape in shapes for polygon in shape]
    counts = np.array([len(shape) for shape in shapes])
    owner = np.arange(len(shapes)).repeat(counts)  # (P,)
    points = np.concatenate(polygons)
    sizes = np.array([len(polygon) for polygon in polygons])
    extents = _extents(points, (sizes.cumsum() - sizes)[counts.cumsum() - counts], hw)
    runs = _runs(points, sizes, owner, extents, hw)
    _fill(runs, extents, masks)
    return _centers(runs, extents)


def _extents(points: Floats, starts: Ints, hw: HW) -> Extents:
    """Of instances, whose corners (V, 2) stand one after the other; ``starts`` (N,) are the first of each."""
    size = np.array(hw[::-1])
    first = np.minimum(np.maximum(np.floor(np.minimum.reduceat(points, starts)), 0), size).astype(np.int64)
    last = np.maximum(np.minimum(np.ceil(np.maximum.reduceat(points, starts)), size), first).astype(np.int64)
    return Extents(first, last, last - first <= FULL_SAMPLING)


def _runs(points: Floats, sizes: Ints, owner: Ints, extents: Extents, hw: HW) -> Runs:
    """What lies inside of polygons of ``sizes`` corners (P,), each one of an instance ``owner`` (P,)."""
    row_bits, column_bits = (int(side).bit_length() for side in hw)
    polygon, row, column = _crossings(points, sizes, owner, extents)
    keys = (polygon << row_bits | row) << column_bits | column
    keys.sort()
    # Outlines are closed: a row's crossings come in pairs.
    columns = (1 << column_bits) - 1
    line, begin, end = keys[0::2] >> column_bits, keys[0::2] & columns, keys[1::2] & columns
    line = owner[line >> row_bits] << row_bits | line & (1 << row_bits) - 1  # of an instance now, no more of a polygon
    if len(sizes) > len(extents.first):
        line, begin, end = _union(line, begin, end, column_bits)
    return Runs(line >> row_bits, line & (1 << row_bits) - 1, begin, end)


def _crossings(points: Floats, sizes: Ints, owner: Ints, extents: Extents) -> tuple[Ints, Ints, Ints]:
    """Where outlines cross sampled rows: polygon, row and first column to the right of it, (X,) each."""
    polygon = np.arange(len(sizes)).repeat(sizes)  # (V,)
    instance = owner[polygon]
    ends = sizes.cumsum()
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = ends - sizes

    limits = extents.first[instance], extents.last[instance]  # (V, 2) each
    full = extents.full[instance, 1]
    above = _first_from(points[:, 1], limits[0][:, 1], limits[1][:, 1])
    above = np.where(full, above, centrals_below(above))  # of the rows sampled, how many
    low, high = np.minimum(above, above[following]), np.maximum(above, above[following])
    count = high - low
    edge = np.arange(len(points)).repeat(count)  # (X,)
    row = np.arange(len(edge)) + (low - count.cumsum() + count)[edge]
    row = np.where(full[edge], row, 4 * (row >> 1) + 1 + (row & 1))

    x, y = points.T
    with np.errstate(over="ignore", invalid="ignore"):  # corners may lie absurdly far away
        run, rise = (points[following] - points).T
        crossing = x[edge] + (row + CENTER - y[edge]) * run[edge] / rise[edge]
    column = _first_from(crossing, limits[0][edge, 0], limits[1][edge, 0])
    return polygon[edge], row, column


def _first_from(position: Floats, first: Ints, last: Ints) -> Ints:
    """Index of the first pixel, of those in first..last, whose centre is not before a position."""
    return np.maximum(np.fmin(np.ceil(position - CENTER), last), first).astype(np.int64)


def _union(line: Ints, begin: Ints, end: Ints, column_bits: int) -> tuple[Ints, Ints, Ints]:
    """Joins the runs of each line that touch or overlap."""
    ends = np.concatenate([begin << 1, (end << 1) + 1])  # at one column, what begins comes first
    keys = np.concatenate([line, line]) << column_bits + 1 | ends
    keys.sort()
    step = 1 - 2 * (keys & 1)
    depth = step.cumsum()
    opening, closing = keys[(depth == 1) & (step == 1)], keys[depth == 0]
    mask = (1 << column_bits) - 1
    return opening >> column_bits + 1, opening >> 1 & mask, closing >> 1 & mask


def _centers(runs: Runs, extents: Extents) -> Floats:
    """Centres of mass (N, 2) y, x."""
    full = extents.full[runs.instance, 0]
    before = [np.where(full, column, centrals_below(column)) for column in (runs.begin, runs.end)]  # samples, (R,) each
    # Column m of those sampled is m or, where only central ones are, 2m + 1 and 2m in turn.
    sums = [np.where(full, m * (m - 1) >> 1, m * m - (m >> 1)) for m in before]
    length = before[1] - before[0]
    weights = (length, length * runs.row, sums[1] - sums[0])
    count, y, x = (np.bincount(runs.instance, weight, len(extents.first)) for weight in weights)
    centers = np.array([y, x], np.float64).T
    centers[count == 0] = np.nan
    return centers / np.maximum(count, 1)[:, None]


def _fill(runs: Runs, extents: Extents, masks: Sequence[Bits]) -> None:
    """Sets the cells of the runs."""
    first, last = extents.first + 1 >> 2, extents.last + 2 >> 2  # (N, 2) cells with a central pixel
    width, height = (last - first).T
    # One instance after the other, column by column, as whole columns add up fast; one column more, for ends.
    ends = ((width + 1) * height).cumsum()
    origin = ends - (width + 1 + first[:, 0]) * height - first[:, 1]  # (N,)

    [central] = is_central(runs.row).nonzero()
    instance = runs.instance[central]
    start, stride = origin[instance] + (runs.row[central] >> 2), height[instance]
    steps = np.zeros(int(ends[-1]), np.int8)
    # Of a cell's two central columns one is in a run from cell (begin + 1) >> 2 on, the other from (begin + 2) >> 2.
    for column, step in ((runs.begin[central], 1), (runs.end[central], -1)):
        for offset in (1, 2):
            np.add.at(steps, start + (column + offset >> 2) * stride, np.int8(step))
    for mask, (left, top), (right, bottom), end in zip(
        masks, first.tolist(), last.tolist(), ends.tolist(), strict=True
    ):
        columns = steps[end - (right - left + 1) * (bottom - top) : end].reshape(right - left + 1, bottom - top)
        counts = np.add.accumulate(columns[:-1], axis=0, dtype=np.int8)
        mask[top:bottom, left:right] = counts.T >= MIN_CENTRAL


def is_central(indices: Ints) -> Bools:
    """Whether rows or columns are among the central two of their block: bit 1 of 0 + 1, 1 + 1, 2 + 1, 3 + 1 tells."""
    return np.asarray((indices + 1) & 2 != 0, bool)


def centrals_below(indices: Ints) -> Ints:
    """How many central rows or columns come before one."""
    return (indices + 1 >> 2) + (indices + 2 >> 2)
